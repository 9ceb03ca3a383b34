"""The run record: one JSON file per run, written once, with everything that is known of the run."""

from __future__ import annotations

import json
import math
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from dgm_bench.errors import FailureStatus, ResultsError
from dgm_bench.sealed import write_atomically
from dgm_bench.spec import Direction, Recipe

Status = Literal["complete", "budget"] | FailureStatus
#: Statuses whose metrics are those of a run that ended by its own stopping rule.
COMPLETE: frozenset[str] = frozenset({"complete"})
#: Statuses of runs that broke.
FAILED: frozenset[str] = frozenset(get_args(FailureStatus))


class Block(BaseModel):
    """Base of the record's blocks: unknown keys are errors, NaN never gets in."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Code(Block):
    """Which code ran. ``source_hash`` covers the sources of models, training, data, metrics."""

    version: str
    git_commit: str | None
    git_dirty: bool | None
    source_hash: str
    command: str


class Data(Block):
    """Which data it saw: file checksums and fingerprints of the arrays after preprocessing.

    ``codes`` has the fingerprints of what a later stage was trained on, by the stage they are of.
    """

    name: str
    version: str
    args: dict[str, Any] = {}
    files: dict[str, str]
    fingerprints: dict[str, str]
    codes: dict[str, dict[str, str]] = {}
    sizes: dict[str, int]
    verified: bool
    note: str = ""


class Environment(Block):
    """Where it ran."""

    python: str
    platform: str
    packages: dict[str, str]
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    device: str
    gpu: str | None = None
    cuda: str | None = None
    machine_class: str
    determinism: Literal["exact", "statistical"]


class Scale(Block):
    """How large: global batch, processes, number format, parameters of the model."""

    global_batch: int
    world_size: int = 1
    precision: str
    parameters: int


class Segment(Block):
    """One process's share of a run that was interrupted and continued."""

    started: str
    ended: str
    host: str
    reason: str


class Budget(Block):
    """What it took, accumulated over all segments; evaluation is not counted as training."""

    limit_seconds: float | None
    train_seconds: float
    validation_seconds: float
    evaluation_seconds: float
    steps: int
    epochs: float
    examples: int
    function_evaluations: int | None = None
    peak_memory_bytes: int
    best_step: int | None
    segments: tuple[Segment, ...]


class Outcome(Block):
    """How it ended."""

    status: Status
    reason: str
    hint: str = ""


class Metric(Block):
    """One measured number. ``se`` is the standard error over the ``n`` test points."""

    name: str
    value: float | None
    se: float | None
    n: int
    unit: str
    direction: Direction
    split: str
    protocol: str

    @field_validator("value", "se")
    @classmethod
    def _null_not_nan(cls, number: float | None) -> float | None:
        return number if number is not None and math.isfinite(number) else None


class RunRecord(Block):
    """One execution of one recipe with one seed."""

    schema_version: Literal[1] = 1
    run_id: str
    created: str
    paper: str
    table: str
    row: str
    column: str
    cells: tuple[str, ...]
    recipe: Recipe
    recipe_hash: str
    seed: int
    modified: tuple[str, ...] = ()
    supersedes: str | None = None
    code: Code
    data: Data
    environment: Environment
    scale: Scale
    budget: Budget
    outcome: Outcome
    metrics: tuple[Metric, ...]
    curve: str | None
    artifacts: dict[str, str] = {}

    def metric(self, name: str) -> Metric | None:
        """Return the metric of that name, or None when the run did not measure it."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def path(self, results: Path) -> Path:
        """Where this record lies below a results folder (design, Contract, Record)."""
        folder = results / "runs" / self.paper / self.table / self.column / self.row
        return folder / f"{self.run_id}.json"


def utc_now() -> str:
    """Return the time now as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_run_id() -> str:
    """Return an identifier that sorts by time: ``20260131t235959-1a2b3c``."""
    return datetime.now(UTC).strftime("%Y%m%dt%H%M%S") + "-" + secrets.token_hex(3)


def write_record(record: RunRecord, results: Path) -> Path:
    """Write a record to its place, once.

    Raises:
        ResultsError: When a record of that id exists, or the folder cannot be written.
    """
    path = record.path(results)
    if path.exists():
        raise ResultsError(path, "exists already", "records are written once; start a new run")
    text = json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
    write_atomically(path, text.encode())
    return path


def read_record(path: Path) -> RunRecord:
    """Read and validate a record.

    Raises:
        ResultsError: When the file is missing, is not JSON, or does not fit the schema.
    """
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResultsError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = f"not a run record: {where}: {first['msg']}"
        raise ResultsError(path, reason, "name another, or restore it from git") from error


def schema() -> str:
    """Return the record's JSON Schema, as ``results/schema/run_record.v1.json`` holds it."""
    return json.dumps(RunRecord.model_json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
