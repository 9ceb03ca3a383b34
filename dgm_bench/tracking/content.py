"""What is logged of a run: its record, in MLflow's parameters, metrics and tags."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from dgm_bench.records import RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Metric

Curve = Sequence[Mapping[str, float]]

#: Columns of a curve that become metrics by step.
CURVE_METRICS = ("train_loss", "validation", "lr", "function_evaluations")
#: What MLflow takes in no name of a metric.
_REFUSED = re.compile(r"[^\w\-. :/]")
# MLflow refuses longer values.
PARAM_LENGTH, TAG_LENGTH = 6000, 5000


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


def curve_metrics(record: RunRecord, curve: Curve) -> list[Metric]:
    """Return the numbers of a curve, by step and time; those that are not finite are left out."""
    from mlflow.entities import Metric

    started, _ = span(record)
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


def final_metrics(record: RunRecord) -> list[Metric]:
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
    _, ended = span(record)
    step = record.budget.steps
    return [Metric(k, float(v), ended, step) for k, v in numbers.items() if v is not None]


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


def span(record: RunRecord) -> tuple[int, int]:
    """Return when the run started and ended, in milliseconds since 1970."""
    segments = record.budget.segments
    times = (segments[0].started, segments[-1].ended) if segments else (record.created,) * 2
    first, last = (int(1000 * datetime.fromisoformat(time).timestamp()) for time in times)
    return first, last
