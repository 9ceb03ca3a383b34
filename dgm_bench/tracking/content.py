"""What is logged of a run, in MLflow's parameters, metrics, tags and data sets."""

from __future__ import annotations

import getpass
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from dgm_bench.records import Data, RunRecord
from dgm_bench.tracking.begun import Begun, Curve, Told, group_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

#: Columns of a curve that become metrics by step.
CURVE_METRICS = ("train_loss", "validation", "lr", "function_evaluations", "epoch", "seconds")
#: What MLflow takes in no name of a metric.
_REFUSED = re.compile(r"[^\w\-. :/]")
# MLflow refuses longer ones.
KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH, DIGEST_LENGTH = 250, 6000, 5000, 36
#: What MLflow calls the splits.
_CONTEXTS = {"train": "training", "val": "validation", "test": "testing"}

# --------------------------------------------------------------------------- parameters, tags


def run_params(run: Begun | RunRecord) -> dict[str, str]:
    """Return the recipe, flattened to ``stage.part.option``, and the seed."""
    params = {"recipe": run.recipe.name, "seed": str(run.seed)}
    for stage in run.recipe.stages:
        params |= _flat(stage.name, stage.model_dump(mode="json", exclude={"name"}))
    params |= _flat("evaluation", run.recipe.evaluation.model_dump(mode="json"))
    return {key[:KEY_LENGTH]: text[:PARAM_LENGTH] for key, text in params.items()}


def begin_tags(run: Begun | RunRecord) -> dict[str, str]:
    """Return what identifies a run from its beginning: cell, hashes, code, and who runs it."""
    own = {
        "cell": group_of(run),
        "cells": ", ".join(run.cells),
        "row": run.row,
        "column": run.column,
        "recipe_hash": run.recipe_hash,
        "modified": ", ".join(run.modified),
        "version": run.code.version,
        "git_commit": run.code.git_commit,
        "git_dirty": run.code.git_dirty,
        "source_hash": run.code.source_hash,
        "command": run.code.command,
    }
    return _tags(own) | source_tags(run.code.git_commit)


def source_tags(commit: str | None) -> dict[str, str]:
    """Return the tags from which MLflow's page shows who ran what, from which commit."""
    tags = {
        "mlflow.source.name": "dgm-bench",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def run_tags(record: RunRecord) -> dict[str, str]:
    """Return all tags of a run that has ended: those of its beginning, its data and outcome."""
    own = {
        "supersedes": record.supersedes,
        "status": record.outcome.status,
        "reason": record.outcome.reason,
        "data": record.data.name,
        "data_version": record.data.version,
        "data_verified": record.data.verified,
        "machine_class": record.environment.machine_class,
        "device": record.environment.device,
        "precision": record.scale.precision,
    }
    return begin_tags(record) | _tags(own) | {"mlflow.note.content": _note(record)[:TAG_LENGTH]}


def _tags(own: Mapping[str, object]) -> dict[str, str]:
    named = {f"dgm_bench.{key}": _text(value) for key, value in own.items() if value is not None}
    return {key: text[:TAG_LENGTH] for key, text in named.items() if text}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"


def _note(record: RunRecord) -> str:
    """Return the description that MLflow's page shows on top of the run."""
    hint = f" Try: {record.outcome.hint}" if record.outcome.hint else ""
    return f"`{record.cells[0]}`, **{record.outcome.status}**: {record.outcome.reason}.{hint}"


# --------------------------------------------------------------------------- metrics


class Point(NamedTuple):
    """A number of a run, at a step and a time in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


def curve_points(record: RunRecord, curve: Curve) -> list[Point]:
    """Return the numbers of a curve, by step and time; those that are not finite are left out."""
    started, _ = span(record)
    found: list[Point] = []
    for row in curve:
        stage = record.recipe.stages[int(row["stage"])].name if "stage" in row else ""
        found += _of_row(row, stage, started + int(1000 * row["seconds"]))
    return found


def live_points(told: Told) -> list[Point]:
    """Return the numbers that a run under way told, as its curve will have them."""
    return [point for row in told.named() for point in _of_row(row, told.stage, told.time)]


def _of_row(row: Mapping[str, float | None], stage: str, time: int) -> Iterator[Point]:
    """Yield a row's numbers, with the name of the stage where there are several."""
    for name in CURVE_METRICS:
        value = row.get(name)
        if value is not None and math.isfinite(value):
            yield Point(f"{stage}/{name}" if stage else name, value, time, int(row["step"] or 0))


def final_points(record: RunRecord) -> list[Point]:
    """Return the evaluation's metrics, each with its standard error, and what the run cost."""
    numbers: dict[str, float | None] = {
        "train_seconds": record.budget.train_seconds,
        "evaluation_seconds": record.budget.evaluation_seconds,
        "peak_memory_bytes": record.budget.peak_memory_bytes,
        "parameters": record.scale.parameters,
    }
    for metric in record.metrics:
        name = metric_name(metric.name)
        numbers |= {name: metric.value, f"{name}_se": metric.se}
    _, ended = span(record)
    step = record.budget.steps
    return [Point(k, float(v), ended, step) for k, v in numbers.items() if v is not None]


def as_metrics(points: Iterable[Point]) -> list[Metric]:
    """Return numbers as MLflow has them."""
    from mlflow.entities import Metric

    return [Metric(*point) for point in points]


def metric_name(name: str) -> str:
    """Return a metric's name without what MLflow takes in none."""
    return _REFUSED.sub("", name)


def span(record: RunRecord) -> tuple[int, int]:
    """Return when the run started and ended, in milliseconds since 1970."""
    segments = record.budget.segments
    times = (segments[0].started, segments[-1].ended) if segments else (record.created,) * 2
    first, last = (int(1000 * datetime.fromisoformat(time).timestamp()) for time in times)
    return first, last


# --------------------------------------------------------------------------- data sets


def data_inputs(data: Data) -> Sequence[DatasetInput]:
    """Return what a run was trained, validated and tested on, as MLflow's data sets.

    The first characters of a split's fingerprint are the digest.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    kind, source = _source(data.name)
    inputs = []
    for split, fingerprint in data.fingerprints.items():
        known = {"split": split, "examples": data.sizes.get(split), "dim": data.dim}
        known |= {"version": data.version, "verified": data.verified, "sha256": fingerprint}
        digest, profile = fingerprint[:DIGEST_LENGTH], json.dumps(known)
        tag = InputTag("mlflow.data.context", _CONTEXTS.get(split, split))
        inputs.append(DatasetInput(Dataset(data.name, digest, kind, source, None, profile), [tag]))
    return inputs


def _source(name: str) -> tuple[str, str]:
    """Return the kind of a data set's source and, as JSON, the source: an address, or this code."""
    from dgm_bench import data as datasets
    from dgm_bench.errors import DgmBenchError

    try:
        known = datasets.card(name)
    except DgmBenchError:  # of another version of the suite
        known = None
    urls = [known.manual, *(url for file in known.downloads for url in file.urls)] if known else []
    if url := next((url for url in urls if "://" in url), ""):
        return "http", json.dumps({"url": url})
    return "code", json.dumps({"tags": {"mlflow.source.name": f"dgm_bench.data: {name}"}})


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
