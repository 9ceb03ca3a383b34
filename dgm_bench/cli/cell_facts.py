"""All that ``show`` knows of one cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dgm_bench import data
from dgm_bench.catalog import Catalog
from dgm_bench.cli import queries
from dgm_bench.context import RunContext
from dgm_bench.data.cards import DatasetCard
from dgm_bench.library.weights import weights_in_results
from dgm_bench.paths import named_results
from dgm_bench.planner import PLANNED_SHARE, PlannedRun, duration, option_value, run_command
from dgm_bench.records import RunRecord
from dgm_bench.report.fields import cell_fields
from dgm_bench.report.glossary import metric_in_words
from dgm_bench.report.recipe_words import Line, recipe_in_words
from dgm_bench.spec import Cell, Source, Table
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict


@dataclass(frozen=True)
class Facts:
    """One cell, with its records, its verdict, and what a run of it would take here.

    Attributes:
        catalog: Where it is declared.
        cell: The cell.
        store: The records.
        verdict: Judged beside its neighbours.
        planned: A run of it within the usual budget of this machine.
        usual_budget: That budget, in seconds; None for no limit.
    """

    catalog: Catalog
    cell: Cell
    store: Store
    verdict: Verdict
    planned: PlannedRun
    usual_budget: float | None

    @property
    def table(self) -> Table:
        """The table that it is of."""
        return self.catalog.table(f"{self.cell.paper}/{self.cell.table}")

    @property
    def source(self) -> Source | None:
        """Where its published number stands."""
        if self.cell.published is None:
            return None
        known = self.catalog.paper(self.cell.paper).sources
        return next((each for each in known if each.id == self.cell.published.source), None)

    @cached_property
    def records(self) -> Sequence[RunRecord]:
        """All its records, also those that do not count; by seed, newest last."""
        recipe_hash = self.cell.recipe.content_hash if self.cell.recipe else ""
        found = (
            record
            for record in self.store.records()
            if self.cell.id in record.cells or record.recipe_hash == recipe_hash
        )
        return sorted(found, key=lambda record: (record.seed, record.created, record.run_id))

    @cached_property
    def counting(self) -> frozenset[str]:
        """The runs among them that the verdict is of."""
        return frozenset(record.run_id for record in self.store.measuring(self.cell))

    @property
    def has_model(self) -> bool:
        """Whether the trained model is here that ``sample`` takes."""
        of_seed = (r for r in self.records if r.run_id in self.counting and r.seed == 0)
        return any(weights_in_results(record, self.store) for record in of_seed)

    def origin(self, record: RunRecord) -> str:
        """Return whose a record is."""
        stored = self.store.stored is not None and not self.store.is_own(record)
        return "stored" if stored else "yours"

    @property
    def seeds_to_decide(self) -> int:
        """How many seeds its run would need in all for a verdict."""
        return self.verdict.seeds + (self.verdict.more_seeds or 0) or 1

    @property
    def command(self) -> str:
        """The command that runs it, or what is needed first; empty where none does here."""
        return self.run if self.planned.runs else self.planned.command

    @property
    def run(self) -> str:
        """The command that runs it once its data is here; empty without a recipe."""
        if self.cell.recipe is None:
            return ""
        more = self.verdict.more_seeds
        needs, usual = (self.seconds or 0.0) * (more or 1), self.usual_budget
        long = usual is not None and needs > PLANNED_SHARE * usual
        budget = option_value(needs) if long else ""
        where = named_results(self.store.results)
        return run_command(
            self.cell, budget, self.seeds_to_decide, missing=bool(more), results=where
        )

    @property
    def seconds(self) -> float | None:
        """What a run to its end is expected to take here; None where nothing is known."""
        return self.planned.whole_seconds or self.planned.seconds

    @property
    def then(self) -> str:
        """What follows where that command fetches something; empty where it does not."""
        return self.run if self.command.startswith("dgm-bench data ") else ""

    @property
    def to_decide(self) -> str:
        """What would decide it, in words; empty where it is decided, or nothing would."""
        state, each = self.verdict.state, f"about {duration(self.seconds)} here"
        if self.cell.published is None or self.cell.recipe is None:
            return ""
        if state == "not-comparable" and any(not r.data.verified for r in self.records):
            data_name = self.cell.recipe.stages[0].data.name
            return f"a run on the published files: see dgm-bench data verify {data_name}"
        if state in ("not-run", "unfinished", "failed", "not-comparable"):
            return f"one finished run, {each}; three for an interval of its own"
        if state != "inconclusive":
            return ""
        if self.verdict.more_seeds is None:
            return "more seeds are not expected to"
        more = self.verdict.more_seeds
        return f"{more} more seed{'s' if more > 1 else ''}, {each} each"

    @property
    def meaning(self) -> str:
        """What its metric is."""
        return metric_in_words(self.cell)

    @property
    def recipe(self) -> list[Line]:
        """Its recipe in words."""
        if self.cell.recipe is None:
            return []
        cards = {card.name: card for card in data.cards() if isinstance(card, DatasetCard)}
        return list(recipe_in_words(self.cell.recipe, cards))


def look_at(cell: Cell, catalog: Catalog, store: Store, context: RunContext) -> Facts:
    """Return all that is known of a cell."""
    verdict = queries.verdicts_of(catalog, [cell], store)[cell.id]
    seeds = verdict.seeds + (verdict.more_seeds or 0) or 1
    plan = queries.make_plan([cell], context, store, seeds=seeds)
    return Facts(catalog, cell, store, verdict, plan.runs[0], plan.budget_seconds)


def facts_json(facts: Facts) -> dict[str, Any]:
    """Return what ``show --json`` prints."""
    cell, source, planned = facts.cell, facts.source, facts.planned
    return {
        **cell_fields(cell, facts.verdict),
        "title": facts.table.title,
        "where": source.where if source else None,
        "citation": source.citation if source else None,
        "url": source.url if source else None,
        "errata": [erratum.model_dump(exclude={"cells"}) for erratum in cell.errata],
        "meaning": facts.meaning,
        "recipe_in_words": [{"about": about, "text": text} for about, text in facts.recipe],
        "recipe": cell.recipe.model_dump(mode="json") if cell.recipe else None,
        "recipe_hash": cell.recipe.content_hash if cell.recipe else None,
        "data": planned.data,
        "seconds": facts.seconds,
        "h200_seconds": planned.h200_seconds,
        "memory_bytes": planned.memory_bytes,
        "runs_here": planned.runs,
        "reason_not": "" if planned.runs else planned.reason,
        "command": facts.command,
        "then": facts.then,
        "to_decide": facts.to_decide,
        "records": [_record_json(facts, record) for record in facts.records],
    }


def _record_json(facts: Facts, record: RunRecord) -> dict[str, Any]:
    metric = record.metric(facts.cell.metric)
    return {
        "run": record.run_id,
        "seed": record.seed,
        "value": metric.value if metric else None,
        "se": metric.se if metric else None,
        "status": record.outcome.status,
        "counts": record.run_id in facts.counting,
        "origin": facts.origin(record),
        "created": record.created,
        "machine": record.timed_on,
        "train_seconds": record.budget.train_seconds,
        "commit": record.code.git_commit,
        "dirty": record.code.git_dirty,
    }
