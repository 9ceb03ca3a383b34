"""One stored run in MLflow, as it is found there and as it is brought to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dgm_bench.records import RunRecord, kept_pictures
from dgm_bench.report.curves import learning_curve, standalone
from dgm_bench.tracking.begun import Begun, Curve, name_of
from dgm_bench.tracking.content import (
    as_metrics,
    begin_tags,
    curve_points,
    data_inputs,
    final_points,
    run_params,
    run_tags,
    span,
)
from dgm_bench.tracking.model import log_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

T = TypeVar("T")

#: Marks a run of MLflow as logged by this project, and says which record it shows.
RUN_ID_TAG = "dgm_bench.run_id"
#: Set last, to :data:`LAYOUT`: a run without it is under way, or was interrupted while it was
#: being logged. An earlier layout had no parent runs, no data sets and fewer tags.
LOGGED_TAG, LAYOUT = "dgm_bench.logged", "2"
PARENT_TAG = "mlflow.parentRunId"

# MLflow takes a thousand of all and a hundred parameters at a time.
METRICS_PER_BATCH, PARAMS_PER_BATCH = 800, 100


def is_whole(run: Run) -> bool:
    """Say whether a run is logged to its end."""
    return bool(run.data.tags.get(LOGGED_TAG) == LAYOUT)


def the_run(client: MlflowClient, experiment: str, run_id: str) -> Run | None:
    """Return MLflow's run of a record, if there is one; of several, one is kept for all.

    Args:
        client: Of MLflow.
        experiment: The experiment's id.
        run_id: Of the record.
    """
    found = client.search_runs([experiment], f"tags.`{RUN_ID_TAG}` = '{run_id}'")
    found = sorted(found, key=_worst_last)
    for run in found[1:]:  # a process that was stopped, or one of another machine, left it
        client.delete_run(run.info.run_id)
    return found[0] if found else None


def _worst_last(run: Run) -> tuple[bool, bool, str]:
    return not is_whole(run), LOGGED_TAG not in run.data.tags, run.info.run_id


def begin_run(client: MlflowClient, experiment: str, parent: str, begun: Begun) -> Run:
    """Make MLflow's run of one that begins, or go on with that of one that was interrupted."""
    run = the_run(client, experiment, begun.run_id)
    if run is None:
        run = _created(client, experiment, parent, begun, begun.started)
    else:
        client.update_run(run.info.run_id, status="RUNNING")
    _log_numbers(client, run, run_params(begun), (), begin_tags(begun))
    return run


def log_run(
    client: MlflowClient,
    experiment: str,
    parent: str,
    record: RunRecord,
    curve: Curve,
    results: Path,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Log what MLflow does not have of a run that has ended.

    Args:
        client: Of MLflow.
        experiment: The experiment's id.
        parent: Id of the run of its cell.
        record: The run.
        curve: Its curve's rows.
        results: The results folder that it lies in.
        alive: Called before and after what takes seconds.
    """
    started, ended = span(record)
    run = the_run(client, experiment, record.run_id)
    run = run or _created(client, experiment, parent, record, started)
    run_id, earlier = run.info.run_id, LOGGED_TAG in run.data.tags
    numbers = _missing(
        client, run, as_metrics(final_points(record)), as_metrics(curve_points(record, curve))
    )
    tags = run_tags(record) | {PARENT_TAG: parent}
    _log_numbers(client, run, run_params(record), numbers, tags)
    client.log_inputs(run_id, data_inputs(record.data))
    if not earlier:
        _log_files(client, run_id, record, curve, results)
    log_model(client, run, record, results, alive)
    status = "FAILED" if record.outcome.failed else "FINISHED"
    client.set_terminated(run_id, status=status, end_time=ended)
    client.set_tag(run_id, LOGGED_TAG, LAYOUT)


def _created(
    client: MlflowClient, experiment: str, parent: str, run: Begun | RunRecord, started: int
) -> Run:
    tags = {RUN_ID_TAG: run.run_id, PARENT_TAG: parent}
    return client.create_run(experiment, start_time=started, tags=tags, run_name=name_of(run))


def _missing(
    client: MlflowClient, run: Run, once: Sequence[Metric], curve: Sequence[Metric]
) -> list[Metric]:
    """Return those numbers that MLflow does not have: each is to be there once at each step."""
    there = run.data.metrics.keys()
    if LOGGED_TAG in run.data.tags:
        return [metric for metric in (*once, *curve) if metric.key not in there]
    steps = {
        key: {metric.step for metric in client.get_metric_history(run.info.run_id, key)}
        for key in there & {metric.key for metric in curve}
    }
    new = [metric for metric in curve if metric.step not in steps.get(metric.key, ())]
    return [metric for metric in once if metric.key not in there] + new


def _log_numbers(
    client: MlflowClient,
    run: Run,
    params: dict[str, str],
    numbers: Sequence[Metric],
    tags: dict[str, str],
) -> None:
    """Log what is new or has changed; parameters, and who ran it, never change."""
    from mlflow.entities import Param, RunTag

    had = run.data.tags
    given = [Param(key, text) for key, text in params.items() if key not in run.data.params]
    new = [RunTag(key, text) for key, text in tags.items() if had.get(key) != text]
    new = [tag for tag in new if tag.key != "mlflow.user" or tag.key not in had]
    batches = _chunks(given, PARAMS_PER_BATCH), _chunks(numbers, METRICS_PER_BATCH), [new]
    for few, some, marks in zip_longest(*batches, fillvalue=()):
        client.log_batch(run.info.run_id, params=few, metrics=some, tags=marks)


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log numbers, in as many requests as they need."""
    for some in _chunks(metrics, METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=some)


def _log_files(
    client: MlflowClient, run_id: str, record: RunRecord, curve: Curve, results: Path
) -> None:
    path = record.path(results)
    for file in (path, path.with_suffix(".csv")):
        if file.exists():
            client.log_artifact(run_id, str(file), "record")
    for picture in kept_pictures(record, results):
        client.log_artifact(run_id, str(picture), "pictures")
    if curve:
        drawn = standalone(learning_curve(curve, record))
        client.log_text(run_id, drawn, "pictures/learning-curve.svg")


def _chunks(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    known = list(items)
    return (known[start : start + size] for start in range(0, len(known), size))
