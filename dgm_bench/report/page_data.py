"""What the page shows when it is asked to, as JSON: texts, recipes, runs and pictures once each.

A cell or a run has the numbers of what it shares with others. All that is not known is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dgm_bench.compare import Beside
from dgm_bench.escaping import plain
from dgm_bench.planner import duration, gigabytes, run_command
from dgm_bench.records import RunRecord
from dgm_bench.report.numbers import how_far, side_text
from dgm_bench.report.page_curves import (
    compact_curves,
    learning_rate_drops,
    published_level,
    short,
)
from dgm_bench.report.page_pictures import pictures_of
from dgm_bench.report.page_tables import Entry
from dgm_bench.report.time_to_quality import all_lines, time_to_quality
from dgm_bench.spec import YES_NO, Cell, Paper, Recipe, Source
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict, extrapolated
from dgm_bench.wording import counted, published_error, so_far

Fields = dict[str, Any]


class PageData:
    """Gathers what is told of cells, and numbers what they share.

    Args:
        store: Of the runs, their curves and pictures.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.texts: dict[str, int] = {}
        self.recipes: dict[str, int] = {}
        self.times: dict[str, int] = {}
        self.settings: list[str] = []
        self.runs: dict[str, int] = {}
        self.told_runs: list[str] = []
        self.cells: list[str] = []

    def pieces(self, records: Iterable[RunRecord]) -> Iterator[str]:
        """Yield the JSON, part by part, with nothing in it that could end a script.

        Args:
            records: Runs that are in it, those of its cells among them.
        """
        listed = [self._number(record, self._listed) for record in records]
        yield '{"cells":{'
        yield ",".join(self.cells)
        yield "}"
        yield f',"newest":{listed},"times":[{",".join(self.times)}]'
        for name, shared in (
            ("recipes", self.settings),
            ("runs", self.told_runs),
            ("texts", map(_json, self.texts)),
        ):
            yield f',"{name}":['
            for place, entry in enumerate(shared):
                yield ("," if place else "") + entry
            yield "]"
        yield "}"

    def text(self, text: str) -> int:
        """Return the number of a text."""
        return self.texts.setdefault(plain(text), len(self.texts))

    # ------------------------------------------------------------------ cells

    def add(self, paper: Paper, entry: Entry, records: Sequence[RunRecord]) -> None:
        """Add a cell, its verdict and its runs."""
        cell, verdict = entry.cell, entry.verdict
        sources = {source.id: source for source in paper.sources}
        source = sources.get(cell.published.source) if cell.published else None
        fields: Fields = {
            "state": verdict.state,
            "row": self.text(cell.row.title),
            "column": self.text(cell.column.title),
            "unit": self.text(cell.column.unit),
            "metric": self.text(cell.metric),
            "reason": self.text(f"{verdict.reason}."),
            "published": entry.published,
            "measured": entry.measured,
            "command": self._command(cell),
            "recipe": self._recipe(cell),
            "notes": [self.text(note) for note in _notes(cell, source)],
            "errata": [[self.text(e.text), self.text(e.source)] for e in cell.errata],
            "runs": [self._result(cell, record) for record in records],
            "times": self._times(cell, verdict, records),
            "scale": scale_of(cell, verdict, records) if cell.column.unit != YES_NO else {},
            "level": next((published_level(cell, record) for record in records), None),
            **self._progress(verdict),
            **(self._beside(entry.beside) if entry.beside else {}),
            **(self._published(cell, source) if cell.published else {}),
        }
        self.cells.append(f"{_json(cell.id)}:{_json(_known(fields))}")

    def _published(self, cell: Cell, source: Source | None) -> Fields:
        published = cell.published
        if published is None:
            return {}
        if source is None:
            where = self.text(published.source), self.text("")
        else:
            where = self.text(f"{source.citation}, {source.where}"), self.text(source.url)
        return {
            "error": self.text(published_error(published)),
            "selection": self.text(published.selection),
            "model": self.text(published.model) if published.model else None,
            "source": where,
        }

    def _progress(self, verdict: Verdict) -> Fields:
        """Return how far an unfinished run got and what its curve says, where it says something."""
        ahead = verdict.unfinished
        if ahead is None:
            return {}
        forecast = extrapolated(ahead) if ahead.forecast is not None else None
        return {"done": how_far(ahead), "forecast": forecast}

    def _beside(self, found: Beside) -> Fields:
        """Return the user's own number and the stored one, and how they compare."""
        yours, stored = (side_text(found.cell, side) for side in (found.yours, found.stored))
        return {"yours": yours, "stored": stored, "word": found.word, "against": found.reason}

    def _command(self, cell: Cell) -> str | int | None:
        """Return the command that runs a cell; 1 where it is no more than the cell's name."""
        if cell.recipe is None:
            return None
        command = run_command(cell)
        return 1 if command == f"dgm-bench run {cell.id}" else command

    def _recipe(self, cell: Cell) -> int | None:
        """Return the number of a cell's recipe."""
        if cell.recipe is None:
            return None
        key = f"{cell.recipe.name} {cell.recipe.content_hash}"
        if key not in self.recipes:
            self.recipes[key] = len(self.recipes)
            pairs = [self.text(f"{name}: {value}") for name, value in _settings(cell.recipe)]
            self.settings.append(_json([cell.recipe.name, pairs]))
        return self.recipes[key]

    def _times(self, cell: Cell, verdict: Verdict, records: Sequence[RunRecord]) -> int | None:
        """Return the number of what finished runs took until they were so good, line by line."""
        if verdict.mean is None:
            return None
        found = time_to_quality(cell, records, self.store.known_curve)
        if found is None:
            return None
        return self.times.setdefault(_json(list(all_lines(found))), len(self.times))

    # ------------------------------------------------------------------ runs

    def _result(self, cell: Cell, record: RunRecord) -> list[Any]:
        """Return the number of a run, and what it measured of the cell with its standard error."""
        return [self._number(record, self._counting), *self._value(record, cell.metric)]

    def _value(self, record: RunRecord, name: str) -> tuple[str, str]:
        metric = record.metric(name)
        if metric is None or metric.value is None:
            return "", ""
        value = f"{metric.value:.4f}"
        shown = so_far(value) if record.outcome.cut_short else value
        return shown, f"{metric.se:.4f}" if metric.se is not None else ""

    def _number(self, record: RunRecord, tell: Callable[[RunRecord], Fields]) -> int:
        """Return the number of a run, which is told where it was not yet."""
        if record.run_id not in self.runs:
            self.runs[record.run_id] = len(self.runs)
            self.told_runs.append(_json(tell(record)))
        return self.runs[record.run_id]

    def _listed(self, record: RunRecord) -> Fields:
        """Return what the list of all runs says of one."""
        spent, first = record.budget, record.metrics[0] if record.metrics else None
        fields: Fields = {
            "id": record.run_id,
            "cell": record.cells[0],
            "own": self.store.is_own(record) or None,
            "status": "unfinished" if record.outcome.cut_short else record.outcome.status,
            "headline": f"{first.name} {self._value(record, first.name)[0]}" if first else "",
            "steps": spent.steps,
            "epochs": f"{spent.epochs:.1f}",
            "training": duration(spent.train_seconds),
            "memory": gigabytes(spent.peak_memory_bytes),
            "machine": self.text(record.environment.machine_class),
            "made": f"{record.created[:16].replace('T', ' ')}",
        }
        return {**_known(fields), "seed": record.seed}

    def _counting(self, record: RunRecord) -> Fields:
        """Return all that is told of a run that counts for a cell."""
        curve = self.store.known_curve(record)
        return self._listed(record) | _known(
            {
                "where": [self.text(f"{name}: {value}") for name, value in environment(record)],
                "curves": compact_curves(curve, record),
                "drops": learning_rate_drops(curve),
                "pictures": [list(picture) for picture in pictures_of(record, self.store)],
            }
        )


# --------------------------------------------------------------------------- pieces


def scale_of(cell: Cell, verdict: Verdict, records: Sequence[RunRecord]) -> Fields:
    """Return what is drawn of a verdict, in the unit of the column.

    A verdict counts better as positive; here its interval is turned back to the printed scale.

    Returns:
        ``published`` with ``pm`` and ``margin`` around it; ``measured`` with its ``interval`` or,
        where there is none, its ``error``; the value of each seed; of unfinished runs ``so_far``.
    """
    fields: Fields = {"margin": short(verdict.delta)}
    if cell.published is not None:
        fields["published"] = short(float(cell.published.value))
        fields["pm"] = short(float(cell.published.pm or 0))
    if verdict.unfinished is not None:
        ahead = verdict.unfinished
        ends = [short(ahead.low), short(ahead.high)]
        fields |= {"so_far": short(ahead.so_far), "forecast": short(ahead.forecast)}
        fields |= {"between": ends} if None not in ends else {}
    if verdict.mean is None:
        return _known(fields)
    metrics = (record.metric(cell.metric) for record in records if not record.outcome.cut_short)
    seeds = [short(metric.value) for metric in metrics if metric is not None]
    fields |= {"measured": short(verdict.mean), "error": short(verdict.error), "seeds": seeds}
    if verdict.interval is not None and cell.published is not None:
        fields["interval"] = on_printed_scale(cell, verdict.interval)
    return _known(fields)


def on_printed_scale(cell: Cell, interval: tuple[float, float]) -> list[float | None]:
    """Return the measured numbers that an interval of the oriented difference means, low first."""
    if cell.published is None:
        return []
    zero, sign = float(cell.published.value), -1.0 if cell.column.direction == "lower" else 1.0
    return [short(end) for end in sorted(zero + sign * difference for difference in interval)]


def _notes(cell: Cell, source: Source | None) -> Iterator[str]:
    """Yield what is remarked on the number, its source, row, column and recipe, each once."""
    parts = (cell.published, source, cell.row, cell.column)
    found = [f"{part.note}." for part in parts if part is not None and part.note]
    found += [f"Reproduced by the recipe of row {cell.same_as}."] if cell.same_as else []
    found += [] if cell.recipe is None else [cell.recipe.source, *cell.recipe.notes]
    yield from (text for text in dict.fromkeys(found) if text)


def environment(record: RunRecord) -> list[tuple[str, str]]:
    """Return where, on what and by which code a run was made."""
    where, code, data = record.environment, record.code, record.data
    commit = (code.git_commit or "unknown")[:12] + (" with local changes" if code.git_dirty else "")
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.sizes.items())
    packages = ", ".join(map(" ".join, where.packages.items()))
    return [
        ("machine", where.gpu or where.device),
        ("processor", f"{where.cpu}, {where.cores} cores, {counted(where.threads, 'thread')} used"),
        ("machine class", where.machine_class),
        ("commit", f"{commit} (dgm-bench {code.version})"),
        ("command", code.command),
        ("data", f"{data.name} version {data.version}, {_verified(data.verified)}: {sizes}"),
        ("scale", f"{record.scale.parameters:,} parameters, {record.scale.precision}"),
        ("software", f"Python {where.python}, {packages}"),
    ]


def _verified(verified: bool) -> str:
    return "verified as the published files" if verified else "not verified as the published files"


def _settings(recipe: Recipe) -> list[tuple[str, str]]:
    """Return the recipe's settings that are not at their defaults, as ``part.option``, value."""
    several = len(recipe.stages) > 1
    found: list[tuple[str, str]] = []
    for stage in recipe.stages:
        chosen = stage.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        found += _flat(f"{stage.name}." if several else "", chosen)
    chosen = recipe.evaluation.model_dump(mode="json", exclude_defaults=True)
    return found + _flat("evaluation.", chosen)


def _flat(prefix: str, values: Mapping[str, object]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(f"{prefix}{key}.", value)
        else:
            found.append((f"{prefix}{key}", _words(value)))
    return found


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _known(fields: Fields) -> Fields:
    """Return the fields that say something."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def _json(value: object) -> str:
    """Return JSON that may stand in a script of a page, whatever its texts are."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
