"""MLflow's runs that stand for cells: the seeds of a cell are below one, which sums them up."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING

from dgm_bench.catalog import load_catalog
from dgm_bench.errors import DgmBenchError
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell, Table
from dgm_bench.store import Store
from dgm_bench.tracking.begun import Begun, group_of
from dgm_bench.tracking.content import TAG_LENGTH, metric_name, source_tags, span
from dgm_bench.verdict import Pool, Verdict, judge_cell, pool_variances

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

#: Marks a run as that of a cell, and says of which.
GROUP_TAG = "dgm_bench.group"
#: Of what the run of a cell says: where it has not changed there is nothing to log.
_DIGEST_TAG = "dgm_bench.summary"


class Groups:
    """The runs of cells, by ``paper/table/row/column``.

    Args:
        client: Of MLflow.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._ids: dict[str, str] = {}

    def id_of(self, experiment: str, run: Begun | RunRecord) -> str:
        """Return the id of the run of a cell, made where there is none."""
        group = group_of(run)
        if group not in self._ids:
            found = self._found(experiment, group) or [self._created(experiment, run)]
            self._ids[group] = found[0].info.run_id
        return self._ids[group]

    def know(self, groups: Mapping[str, str]) -> None:
        """Take in which cells there are runs of, by the ids of these.

        Of two runs of one cell, which machines may have made at once, it is asked later.
        """
        named = Counter(groups.values())
        self._ids |= {group: id_ for id_, group in groups.items() if named[group] == 1}

    def begin(self, experiment: str, run: Begun) -> str:
        """Return likewise the run of a cell of which a run begins."""
        run_id = self.id_of(experiment, run)
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _found(self, experiment: str, group: str) -> list[Run]:
        found = self._client.search_runs([experiment], f"tags.`{GROUP_TAG}` = '{group}'")
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _created(self, experiment: str, run: Begun | RunRecord) -> Run:
        """Make the run of a cell; of two machines that do at once, the same one is kept by both."""
        group, started = group_of(run), run.started if isinstance(run, Begun) else span(run)[0]
        tags = {GROUP_TAG: group, "dgm_bench.row": run.row, "dgm_bench.column": run.column}
        name = f"{run.row} {run.column}"
        tags |= source_tags(run.code.git_commit)
        made = self._client.create_run(experiment, start_time=started, tags=tags, run_name=name)
        first = self._found(experiment, group)[0]
        if first.info.run_id != made.info.run_id:
            self._client.delete_run(made.info.run_id)
        return first

    def settle(self, summaries: Sequence[Summary], under_way: Collection[str]) -> None:
        """Bring the runs of cells up to date with the records below them.

        Args:
            summaries: What they are to say.
            under_way: Cells of which runs are under way: theirs do not end.
        """
        for summary in summaries:
            if (run_id := self._ids.get(summary.group)) is not None:
                self._say(self._client.get_run(run_id), summary)
                if summary.group not in under_way:
                    self._end(run_id, summary)

    def _say(self, run: Run, summary: Summary) -> None:
        from mlflow.entities import Metric, RunTag

        if run.data.tags.get(_DIGEST_TAG) == summary.digest:
            return
        now, had = int(1000 * time()), run.data.metrics
        changed = {k: v for k, v in summary.metrics.items() if had.get(k) != v}
        tags = [RunTag(key, text) for key, text in summary.tags.items()]
        metrics = [Metric(key, value, now, 0) for key, value in changed.items()]
        self._client.log_batch(run.info.run_id, metrics=metrics, tags=tags)
        self._client.set_tag(run.info.run_id, _DIGEST_TAG, summary.digest)

    def _end(self, run_id: str, summary: Summary) -> None:
        info = self._client.get_run(run_id).info
        if (info.status, info.end_time) != ("FINISHED", summary.ended):
            self._client.set_terminated(run_id, status="FINISHED", end_time=summary.ended)


@dataclass(frozen=True)
class Summary:
    """What the run of a cell says of the records below it.

    Attributes:
        group: Which cell: ``paper/table/row/column``.
        ended: When the last of them ended, in milliseconds since 1970.
        metrics: Mean, standard error, number of seeds, published value, difference (positive is
            better) with its interval and margin. The cells that the same runs measure besides
            have theirs with their column's name before them.
        tags: The verdict and its reason.
    """

    group: str
    ended: int
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Tells whether another says the same."""
        said = json.dumps([self.ended, self.metrics, self.tags], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def summaries(store: Store, groups: Collection[str]) -> Iterator[Summary]:
    """Yield what the runs of cells are to say.

    Args:
        store: Of the records that are logged.
        groups: Which cells.
    """
    cells, pool = _declared_cells(), pool_variances(store.records())
    below: dict[str, list[RunRecord]] = {group: [] for group in groups}
    for record in store.records():
        if (group := group_of(record)) in below:
            below[group].append(record)
    for group, records in below.items():
        if records:
            yield _summary(group, records, cells, store, pool)


def _declared_cells() -> dict[str, tuple[Table, Cell]]:
    """Return all cells by their ids; none where the declarations cannot be read."""
    try:
        tables = load_catalog().tables
    except DgmBenchError:  # whoever asks for a table is told
        return {}
    return {cell.id: (table, cell) for table in tables for cell in table.cells}


def _summary(
    group: str,
    records: Sequence[RunRecord],
    declared: Mapping[str, tuple[Table, Cell]],
    store: Store,
    pool: Pool,
) -> Summary:
    ids = list(dict.fromkeys(cell_id for record in records for cell_id in record.cells))
    ids.sort(key=lambda cell_id: cell_id != group)
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {"dgm_bench.cells": ", ".join(ids)}
    said = []
    for place, cell_id in enumerate(ids):
        if cell_id in declared:
            table, cell = declared[cell_id]
            verdict = judge_cell(table, cell, store, pool)
            before = f"{cell.row.id}/{cell.column.id}/" if place else ""
            metrics |= {f"{before}{key}": value for key, value in _numbers(cell, verdict)}
            tags |= {f"dgm_bench.{before}verdict": verdict.state}
            tags |= {f"dgm_bench.{before}reason": verdict.reason}
            said.append(f"`{cell_id}`, **{verdict.state}**: {verdict.reason}")
    tags["mlflow.note.content"] = "\n\n".join(said)
    cut = {key: text[:TAG_LENGTH] for key, text in tags.items() if text}
    return Summary(group, max(span(record)[1] for record in records), metrics, cut)


def _numbers(cell: Cell, verdict: Verdict) -> Iterator[tuple[str, float]]:
    name = metric_name(cell.metric)
    low, high = verdict.interval or (None, None)
    published = None if cell.published is None else float(cell.published.value)
    known = {
        name: verdict.mean,
        f"{name}_se": verdict.se if verdict.se is not None else verdict.se_test,
        "seeds": verdict.seeds or None,
        "published": published,
        "difference": verdict.difference,
        "difference_low": low,
        "difference_high": high,
        "margin": verdict.delta,
    }
    for key, value in known.items():
        if value is not None:
            yield key, float(value)
