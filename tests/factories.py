"""Small hand-made declarations and records for tests; every field can be overridden."""

from __future__ import annotations

import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

from torch import Tensor

from dgm_bench.context import RunContext
from dgm_bench.control import Control
from dgm_bench.data.dataset import Dataset
from dgm_bench.records import (
    Budget,
    Code,
    Data,
    Environment,
    Forecast,
    Metric,
    Outcome,
    Reached,
    RunRecord,
    Scale,
    Segment,
    StageQuality,
    Status,
)
from dgm_bench.spec import (
    Cell,
    Column,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    PmKind,
    Published,
    Recipe,
    Row,
    Stage,
    StoppingSpec,
    Table,
    ValidationSpec,
)


def make_context(folder: Path = Path("no folder"), **settings: Any) -> RunContext:
    """Return a context on the CPU that says nothing, with data and results below a folder."""
    return RunContext(folder / "data", folder / "results", **{"device": "cpu", **settings})


def make_dataset(x: Tensor, train: int, val: int = 0, **settings: Any) -> Dataset:
    """Return examples as a data set: the first for training and validation, the rest for tests."""
    splits = {"train": x[:train], "val": x[train : train + val], "test": x[train + val :]}
    if not val:
        del splits["val"]
    return Dataset("toy", "1", splits, **settings)


def make_stage(model: ModelSpec, **overrides: Any) -> Stage:
    """Return a stage of 20 steps on :func:`make_dataset`, with a validation after every five."""
    fields: dict[str, Any] = {
        "data": DataSpec(name="toy"),
        "model": model,
        "optimizer": OptimizerSpec(name="adam-maf", lr=1e-2),
        "batch_size": 32,
        "validation": ValidationSpec(every=5, unit="steps"),
        "stopping": StoppingSpec(max_steps=20),
    }
    return Stage(**(fields | overrides))


class StopAfter(Control):
    """Wants to stop from the time on that it is asked so many times.

    Once after each step; where it is active, between the parts of longer work too.
    """

    def __init__(self, polls: int) -> None:
        super().__init__()
        self.left = polls

    def _request(self) -> tuple[str, float] | None:
        """Count down."""
        self.left -= 1
        return ("test", 0.0) if self.left <= 0 else None


def make_recipe(
    name: str = "maf-power",
    *,
    data: str = "power",
    model: str = "maf:MAF",
    args: dict[str, Any] | None = None,
    revision: int = 1,
    max_steps: int | None = None,
) -> Recipe:
    """Return a one-stage recipe."""
    stage = Stage(
        data=DataSpec(name=data),
        model=ModelSpec(name=model, args=args or {"layers": 5}, revision=revision),
        optimizer=OptimizerSpec(lr=1e-4),
        batch_size=100,
        stopping=StoppingSpec(patience=30, max_steps=max_steps),
    )
    return Recipe(name=name, stages=(stage,))


def make_published(
    value: str = "-0.24",
    pm: str | None = "0.01",
    pm_kind: PmKind = "two_se_test",
    **overrides: Any,
) -> Published:
    """Return a published number, by default with two standard errors over test points."""
    fields: dict[str, Any] = {
        "value": Decimal(value),
        "pm": Decimal(pm) if pm else None,
        "pm_kind": pm_kind,
        "selection": "best validation",
        "source": "maf-paper",
    }
    return Published(**(fields | overrides))


def make_column(column: str = "power", **overrides: Any) -> Column:
    """Return a column of negative log-likelihoods in nats."""
    fields: dict[str, Any] = {
        "id": column,
        "title": column.upper(),
        "data": column,
        "metric": "nll",
        "unit": "nats",
        "direction": "lower",
    }
    return Column(**(fields | overrides))


def make_cell(
    row: str | Row = "maf",
    column: str | Column = "power",
    *,
    published: Published | None = None,
    **overrides: Any,
) -> Cell:
    """Return a cell of ``ffjord/density`` with a recipe of its own; unpublished by default."""
    row = Row(id=row, title=row.upper()) if isinstance(row, str) else row
    column = make_column(column) if isinstance(column, str) else column
    fields: dict[str, Any] = {
        "paper": "ffjord",
        "table": "density",
        "row": row,
        "column": column,
        "published": published,
        "recipe": make_recipe(f"{row.id}-{column.id}", data=column.data, args={"row": row.id}),
    }
    return Cell(**(fields | overrides))


def make_table(cells: list[Cell], **overrides: Any) -> Table:
    """Return a table whose rows and columns are those of its cells, in order."""
    fields: dict[str, Any] = {
        "paper": "ffjord",
        "id": "density",
        "title": "Density estimation",
        "where": "FFJORD Table 2",
        "rows": tuple({cell.row.id: cell.row for cell in cells}.values()),
        "columns": tuple({cell.column.id: cell.column for cell in cells}.values()),
        "cells": tuple(cells),
    }
    return Table(**(fields | overrides))


def make_metric(value: float | None = -0.24, **overrides: Any) -> Metric:
    """Return a test negative log-likelihood in nats."""
    fields: dict[str, Any] = {
        "name": "nll",
        "value": value,
        "se": 0.005,
        "n": 1000,
        "unit": "nats",
        "direction": "lower",
        "split": "test",
        "protocol": "exact",
    }
    return Metric(**(fields | overrides))


def make_record(
    cell: Cell | None = None,
    *,
    value: float | None = -0.24,
    seed: int = 0,
    status: Status = "complete",
    **overrides: Any,
) -> RunRecord:
    """Return the record of a run of ``cell``; ``value`` is its only metric's."""
    cell = cell or make_cell()
    recipe = overrides.pop("recipe", None) or cell.recipe or make_recipe()
    metric = make_metric(value, name=cell.column.metric, unit=cell.column.unit)
    fields: dict[str, Any] = {
        "run_id": f"20260101t0000{seed:02d}-{zlib.crc32(f'{cell.id} {value}'.encode()):08x}",
        "created": f"2026-01-01T00:00:{seed:02d}Z",
        "paper": cell.paper,
        "table": cell.table,
        "row": cell.row.id,
        "column": cell.column.id,
        "cells": (cell.id,),
        "recipe": recipe,
        "recipe_hash": recipe.content_hash,
        "seed": seed,
        "code": make_code(),
        "data": make_data(cell.column.data),
        "environment": make_environment(),
        "scale": Scale(global_batch=100, precision="float32", parameters=1234),
        "budget": make_budget(),
        "outcome": Outcome(status=status, reason="early stopping", hint=""),
        "metrics": (metric,),
        "curve": None,
    }
    return RunRecord(**(fields | overrides))


def make_quality(*, forecast: bool = False, **overrides: Any) -> StageQuality:
    """Return how ten validations went from 3 to 2 nats, with a forecast where it is asked for."""
    way = Reached(
        fraction=0.9,
        target=2.1,
        validation=2.05,
        step=700,
        epoch=7.0,
        train_seconds=42.0,
        function_evaluations=None,
    )
    ahead = Forecast(value=1.5, low=1.0, high=1.9, expected_steps=9000.0) if forecast else None
    fields: dict[str, Any] = {
        "stage": "train",
        "validated": "nll",
        "unit": "nats",
        "validations": 10,
        "first": 3.0,
        "best": 2.0,
        "reached": (way,),
        "forecast": ahead,
    }
    return StageQuality(**(fields | overrides))


def make_code(**overrides: Any) -> Code:
    """Return which code ran."""
    fields: dict[str, Any] = {
        "version": "0.1.0",
        "git_commit": "0" * 40,
        "git_dirty": False,
        "source_hash": "s" * 64,
        "command": "dgm-bench run",
    }
    return Code(**(fields | overrides))


def make_data(name: str = "power", **overrides: Any) -> Data:
    """Return verified data."""
    fields: dict[str, Any] = {
        "name": name,
        "version": "1",
        "files": {f"{name}.npy": "f" * 64},
        "fingerprints": {"train": "a" * 64, "val": "b" * 64, "test": "c" * 64},
        "sizes": {"train": 8000, "val": 1000, "test": 1000},
        "verified": True,
    }
    return Data(**(fields | overrides))


def make_environment(**overrides: Any) -> Environment:
    """Return a two-core machine that computes the same numbers every time."""
    fields: dict[str, Any] = {
        "python": "3.11.7",
        "platform": "Linux",
        "packages": {"torch": "2.9.0"},
        "cpu": "a processor",
        "cores": 2,
        "threads": 1,
        "memory_bytes": 8 * 2**30,
        "device": "cpu",
        "machine_class": "cpu-2",
        "determinism": "exact",
    }
    return Environment(**(fields | overrides))


def make_budget(**overrides: Any) -> Budget:
    """Return what a run of one minute took."""
    segment = Segment(
        started="2026-01-01T00:00:00Z", ended="2026-01-01T00:01:00Z", host="here", reason="done"
    )
    fields: dict[str, Any] = {
        "limit_seconds": None,
        "train_seconds": 60.0,
        "validation_seconds": 5.0,
        "evaluation_seconds": 1.0,
        "steps": 1000,
        "epochs": 12.5,
        "examples": 100_000,
        "peak_memory_bytes": 2**28,
        "best_step": 900,
        "segments": (segment,),
    }
    return Budget(**(fields | overrides))
