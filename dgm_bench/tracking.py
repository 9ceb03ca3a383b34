"""MLflow: runs logged from the stored records and curves, which remain the source.

Nothing here can lose a run. What MLflow did not get when the run ended (it is not installed, its
server is down, the process died half-way), :func:`sync` logs later, once each.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from dgm_bench.errors import DgmBenchError
from dgm_bench.records import FAILED, RunRecord
from dgm_bench.report.plots import learning_curve
from dgm_bench.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

T = TypeVar("T")
Curve = Sequence[Mapping[str, float]]

#: Columns of a curve that become metrics by step.
CURVE_METRICS = ("train_loss", "validation", "lr", "function_evaluations")
#: What MLflow takes in no name of a metric.
_REFUSED = re.compile(r"[^\w\-. :/]")
#: Marks a run of MLflow as logged by this project, and says which record it shows.
RUN_ID_TAG = "dgm_bench.run_id"
#: Set last: a run without it was interrupted while it was being logged.
LOGGED_TAG = "dgm_bench.logged"

REACHABLE_SECONDS = 3.0
# MLflow refuses larger batches and longer values.
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100
PARAM_LENGTH, TAG_LENGTH = 6000, 5000

# Two tries of ten seconds in place of MLflow's eight of two minutes; no chatter, no telemetry.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class TrackingError(DgmBenchError):
    """MLflow is not installed, or its server does not answer."""


@dataclass(frozen=True)
class SyncReport:
    """What :func:`sync` did: run ids that it logged, that were logged before, and that failed.

    Attributes:
        logged: Run ids logged by this call.
        already: Run ids that MLflow had in full.
        failed: Run ids that could not be logged, each with the reason.
    """

    logged: tuple[str, ...]
    already: tuple[str, ...]
    failed: Mapping[str, str]


def sync(results: Path, *, uri: str | None = None) -> SyncReport:
    """Log every stored record that MLflow does not have in full, once each.

    Args:
        results: The results folder.
        uri: Where to; by default ``MLFLOW_TRACKING_URI``, else a SQLite file beside the results.
    """
    logged: list[str] = []
    already: list[str] = []
    failed: dict[str, str] = {}
    unreachable = ""
    store = Store(results)
    for record in store.records():
        if unreachable:
            failed[record.run_id] = unreachable
            continue
        try:
            new = _log_once(record, store, uri or tracking_uri(results))
            (logged if new else already).append(record.run_id)
        except TrackingError as error:
            failed[record.run_id] = unreachable = str(error)
        except Exception as error:  # one bad run must not stop the others
            failed[record.run_id] = _one_line(error)
    return SyncReport(tuple(logged), tuple(already), failed)


def try_log_run(record: RunRecord, results: Path) -> str | None:
    """Log a run that has just ended; never raise, and never wait long for a dead server.

    Returns:
        None when MLflow has the run, else one line that says why not and what to do.
    """
    try:
        log_run(record, results)
    except TrackingError as error:
        return str(error)
    except Exception as error:  # the record is stored: a view must not fail the run
        return f"MLflow did not take run {record.run_id} ({_one_line(error)}); {_LATER}"
    return None


def log_run(record: RunRecord, results: Path, *, uri: str | None = None) -> bool:
    """Log one stored run: parameters, metrics by step, tags, record, curve and pictures.

    A run that an earlier process left half-logged is removed and logged anew.

    Args:
        record: The run.
        results: The results folder it lies in.
        uri: Where to; by default ``MLFLOW_TRACKING_URI``, else a SQLite file beside the results.

    Returns:
        Whether this call logged it; False when MLflow had it already.

    Raises:
        TrackingError: When MLflow is not installed or its server does not answer.
    """
    return _log_once(record, Store(results), uri or tracking_uri(results))


def tracking_uri(results: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI``, or the SQLite file beside the results when it is not set."""
    default = f"sqlite:///{results.resolve() / 'mlflow.db'}"
    return os.environ.get("MLFLOW_TRACKING_URI") or default


# --------------------------------------------------------------------------- MLflow's side

_LATER = "run `dgm-bench sync` later"


def _log_once(record: RunRecord, store: Store, uri: str) -> bool:
    with _quiet(), _one_at_a_time(store.results):
        client = _connect(uri)
        experiment = _experiment(client, f"{record.paper}/{record.table}", uri, store.results)
        if _has_in_full(client, experiment, record.run_id):
            return False
        _log(client, experiment, record, store)
    return True


def _connect(uri: str) -> MlflowClient:
    check_reachable(uri)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        remedy = f"`pip install mlflow`, then {_LATER}"
        raise TrackingError("MLflow", "is not installed", remedy) from error
    return MlflowClient(tracking_uri=uri)


def check_reachable(uri: str) -> None:
    """Ask a server for its health first: MLflow's own client would retry for minutes."""
    address = urlsplit(uri)
    if address.scheme not in {"http", "https"}:
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=REACHABLE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in, MLflow's client will say
    except (OSError, ValueError) as error:
        without_password = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
        raise TrackingError(f"MLflow server {without_password}", "not reachable", _LATER) from error


def _experiment(client: MlflowClient, name: str, uri: str, results: Path) -> str:
    """Return the id of the experiment, created where it does not exist."""
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    is_database = "://" in uri and not uri.startswith("http")
    folder = (results.resolve() / "mlartifacts").as_uri() if is_database else None
    return str(client.create_experiment(name, artifact_location=folder))


def _has_in_full(client: MlflowClient, experiment: str, run_id: str) -> bool:
    """Say whether the run is logged to its end; remove what is there of it if not."""
    found = client.search_runs([experiment], f"tags.`{RUN_ID_TAG}` = '{run_id}'")
    for run in found:
        if LOGGED_TAG not in run.data.tags:
            client.delete_run(run.info.run_id)
    return any(LOGGED_TAG in run.data.tags for run in found)


def _log(client: MlflowClient, experiment: str, record: RunRecord, store: Store) -> None:
    started, ended = _span(record)
    name = f"{record.row} {record.column} seed {record.seed}"
    tags = {RUN_ID_TAG: record.run_id}
    run = client.create_run(experiment, start_time=started, tags=tags, run_name=name)
    run_id = run.info.run_id
    curve = store.curve(record)
    _log_numbers(client, run_id, record, curve)
    _log_files(client, run_id, record, store.results)
    if curve:
        client.log_figure(run_id, learning_curve(curve, record), "pictures/learning-curve.png")
    status = "FAILED" if record.outcome.status in FAILED else "FINISHED"
    client.set_terminated(run_id, status=status, end_time=ended)
    client.set_tag(run_id, LOGGED_TAG, "yes")


def _log_numbers(client: MlflowClient, run_id: str, record: RunRecord, curve: Curve) -> None:
    from mlflow.entities import Param, RunTag

    tags: list[RunTag] = [RunTag(key, text) for key, text in run_tags(record).items()]
    client.log_batch(run_id, tags=tags)
    params: list[Param] = [Param(key, text) for key, text in run_params(record).items()]
    for few in _chunks(params, PARAMS_PER_BATCH):
        client.log_batch(run_id, params=few)
    for batch in _chunks(_curve_metrics(record, curve), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=batch)
    client.log_batch(run_id, metrics=_final_metrics(record))


def _log_files(client: MlflowClient, run_id: str, record: RunRecord, results: Path) -> None:
    path = record.path(results)
    for file in (path, path.with_suffix(".csv")):
        if file.exists():
            client.log_artifact(run_id, str(file), "record")
    for picture in sorted((results / "artifacts" / record.run_id).glob("*.png")):
        client.log_artifact(run_id, str(picture), "pictures")


# --------------------------------------------------------------------------- what is logged


def run_params(record: RunRecord) -> dict[str, str]:
    """Return the recipe, flattened to ``stage.part.option``, and the seed."""
    params = {"recipe": record.recipe.name, "seed": str(record.seed)}
    for stage in record.recipe.stages:
        params |= _flat(stage.name, stage.model_dump(mode="json", exclude={"name"}))
    params |= _flat("evaluation", record.recipe.evaluation.model_dump(mode="json"))
    return {key: text[:PARAM_LENGTH] for key, text in params.items()}


def run_tags(record: RunRecord) -> dict[str, str]:
    """Return what identifies the run: cell, hashes, code, data, machine and outcome."""
    tags = {
        "cells": ", ".join(record.cells),
        "row": record.row,
        "column": record.column,
        "recipe_hash": record.recipe_hash,
        "modified": ", ".join(record.modified),
        "supersedes": record.supersedes,
        "status": record.outcome.status,
        "reason": record.outcome.reason,
        "version": record.code.version,
        "git_commit": record.code.git_commit,
        "git_dirty": record.code.git_dirty,
        "source_hash": record.code.source_hash,
        "command": record.code.command,
        "data": record.data.name,
        "data_version": record.data.version,
        "data_verified": record.data.verified,
        "machine_class": record.environment.machine_class,
        "device": record.environment.device,
        "precision": record.scale.precision,
    }
    named = {f"dgm_bench.{key}": _text(value) for key, value in tags.items() if value is not None}
    named |= {"mlflow.source.name": "dgm-bench", "mlflow.note.content": _note(record)}
    return {key: text[:TAG_LENGTH] for key, text in named.items() if text}


def _note(record: RunRecord) -> str:
    """Return the description that MLflow's page shows on top of the run."""
    hint = f" Try: {record.outcome.hint}" if record.outcome.hint else ""
    return f"`{record.cells[0]}`, **{record.outcome.status}**: {record.outcome.reason}.{hint}"


def _curve_metrics(record: RunRecord, curve: Curve) -> list[Metric]:
    from mlflow.entities import Metric

    started, _ = _span(record)
    return [
        Metric(
            _of_stage(record, row, name),
            row[name],
            started + int(1000 * row["seconds"]),
            int(row["step"]),
        )
        for row in curve
        for name in CURVE_METRICS
        if math.isfinite(row.get(name, math.nan))
    ]


def _of_stage(record: RunRecord, row: Mapping[str, float], name: str) -> str:
    """Return the name of a curve's metric: with its stage's, where there are several."""
    return f"{record.recipe.stages[int(row['stage'])].name}/{name}" if "stage" in row else name


def _final_metrics(record: RunRecord) -> list[Metric]:
    """Return the evaluation's metrics, each with its standard error, and what the run cost."""
    from mlflow.entities import Metric

    numbers: dict[str, float | None] = {
        "train_seconds": record.budget.train_seconds,
        "evaluation_seconds": record.budget.evaluation_seconds,
        "peak_memory_bytes": record.budget.peak_memory_bytes,
        "parameters": record.scale.parameters,
    }
    for metric in record.metrics:
        name = _REFUSED.sub("", metric.name)
        numbers |= {name: metric.value, f"{name}_se": metric.se}
    _, ended = _span(record)
    step = record.budget.steps
    return [Metric(k, float(v), ended, step) for k, v in numbers.items() if v is not None]


# --------------------------------------------------------------------------- small things


def _flat(prefix: str, value: object) -> dict[str, str]:
    """Flatten nested tables to ``a.b.c``; lists stay whole, as JSON."""
    if not isinstance(value, dict):
        return {prefix: _text(value)}
    flat: dict[str, str] = {}
    for key, item in value.items():
        flat |= _flat(f"{prefix}.{key}", item)
    return flat


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _span(record: RunRecord) -> tuple[int, int]:
    """Return when the run started and ended, in milliseconds since 1970."""
    segments = record.budget.segments
    times = (segments[0].started, segments[-1].ended) if segments else (record.created,) * 2
    first, last = (int(1000 * datetime.fromisoformat(time).timestamp()) for time in times)
    return first, last


def _one_line(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:199] + "…"


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow and Alembic silent, and their waits short, for the length of a call."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    level = logging.root.manager.disable
    os.environ.update(_ENVIRONMENT)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _one_at_a_time(results: Path) -> Iterator[None]:
    """Let one process at a time log, so that two never log the same run; freed if it dies."""
    path = results / "work" / "mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
