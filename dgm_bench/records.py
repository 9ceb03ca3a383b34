"""The run record: one JSON file per run, written once, with everything that is known of the run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import secrets
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from dgm_bench.errors import DamagedError, FailureStatus, ResultsError, reading, shortened
from dgm_bench.json_text import read_json
from dgm_bench.sealed import forget_damaged, read_known, write_once
from dgm_bench.spec import Direction, Recipe, Spec

_LOG = logging.getLogger("dgm_bench")
T = TypeVar("T")

Status = Literal["complete", "budget"] | FailureStatus
#: Status of a run that ended with its budget: its metrics are those of a model on the way.
CUT_SHORT: Status = "budget"
#: Bytes of the longest file that is read as a record; real ones have about 10,000.
LARGEST = 16 * 2**20
#: Statuses of runs that broke.
FAILED: frozenset[str] = frozenset(get_args(FailureStatus))

#: Versions of the schema that are read.
VERSIONS = (1, 2)
#: Among the artifacts of every run that was evaluated: the weights that its metrics are of.
WEIGHTS = "weights.safetensors"
#: Parts of a protocol that may differ between runs of one recipe.
_CAME_OUT = re.compile(r"^se: [^;]*; |; se: [^;]*|, from [^;]* to [^;]*")
#: What names a file or a folder of the results: nothing that leads out of them.
NAME = r"[a-z0-9]+([.-][a-z0-9]+)*"
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$", max_length=200)]
SHA256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Block(Spec):
    """Base of the record's blocks: unknown keys are errors, NaN never gets in."""


class Code(Block):
    """Which code ran. ``source_hash`` covers the sources of models, training, data, metrics."""

    version: str
    git_commit: str | None
    git_dirty: bool | None
    source_hash: str
    command: str


class Data(Block):
    """Which data it saw: file checksums and fingerprints of the arrays after preprocessing.

    ``codes`` has the fingerprints of what a later stage was trained on, by the stage they are of,
    and ``dim`` is how many numbers an example has; older records do not say it. ``seeded`` says
    that the splits are drawn anew with each seed, so that only runs of one seed share them.
    """

    name: str
    version: str
    args: dict[str, Any] = Field(default={})
    files: dict[str, str]
    fingerprints: dict[str, str]
    codes: dict[str, dict[str, str]] = Field(default={})
    sizes: dict[str, int]
    dim: int | None = None
    verified: bool
    seeded: bool = False
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
    """What it took, accumulated over all segments; evaluation is not counted as training.

    Of a run whose steps were computed at once with those of other seeds (``seeds_together`` of
    them, at most), ``train_seconds`` is its share: the time of such a step divided by the number of
    seeds in it. Alone it would have taken longer, but not longer than ``train_seconds`` and
    ``train_seconds_of_others`` together.
    """

    limit_seconds: float | None
    train_seconds: float
    train_seconds_of_others: float = 0.0
    seeds_together: int = 1
    validation_seconds: float
    evaluation_seconds: float
    steps: int
    epochs: float
    examples: int
    function_evaluations: int | None = None
    peak_memory_bytes: int
    best_step: int | None
    segments: tuple[Segment, ...]

    @property
    def seconds(self) -> float:
        """What training, validation and evaluation took; of seeds at once, this one's share."""
        return self.train_seconds + self.validation_seconds + self.evaluation_seconds


class Outcome(Block):
    """How it ended."""

    status: Status
    reason: str
    hint: str = ""

    @property
    def complete(self) -> bool:
        """Whether it ended by its own stopping rule."""
        return self.status == "complete"

    @property
    def failed(self) -> bool:
        """Whether it broke."""
        return self.status in FAILED

    @property
    def cut_short(self) -> bool:
        """Whether the budget ended it: what it measured so far is no measurement of its model."""
        return self.status == CUT_SHORT


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

    @property
    def method(self) -> str:
        """The protocol without what came out: what ``se`` is of, and a range of repetitions."""
        return _CAME_OUT.sub("", self.protocol)

    @field_validator("value", "se", mode="before")
    @classmethod
    def _null_not_nan(cls, number: object) -> object:
        return None if isinstance(number, float) and not math.isfinite(number) else number


class Reached(Block):
    """When a validation was first this good, as :mod:`dgm_bench.quality` defines it.

    ``fraction`` is of the way from the first validation to the best, None for a value that was
    asked for; ``target`` is the value it had to reach, and ``validation`` the one that did.
    ``train_seconds`` are of training alone; ``function_evaluations``, of models that solve an
    equation, are those of validations too.
    """

    fraction: float | None
    target: float
    validation: float
    step: int
    epoch: float
    train_seconds: float
    function_evaluations: int | None


class Forecast(Block):
    """The best validation that a run cut short would reach: an extrapolation, no measurement.

    ``low`` and ``high`` are a 90 % interval (:mod:`dgm_bench.forecast`); ``expected_steps`` is
    where the recipe is expected to stop.
    """

    value: float
    low: float
    high: float
    expected_steps: float


class StageQuality(Block):
    """How the validation of one stage went, as :mod:`dgm_bench.quality` defines it.

    ``validated`` is the metric that it is, or the stage's objective, and lower is better.
    ``no_forecast`` says why a run that was cut short has none.
    """

    version: Literal[1] = 1
    stage: str
    validated: str
    unit: str
    validations: int
    first: float
    best: float
    reached: tuple[Reached, ...]
    forecast: Forecast | None = None
    no_forecast: str = ""


class Beginning(Block):
    """What a stage began with: hashes by which ``dgm-bench diff`` finds where two runs part.

    SHA-256 of the weights as built, of those after the pass over data with which some models
    start, of the first batch as it was trained on, of its gradient before any clipping, and of the
    weights after the first step; its loss, and the gradient's norm. What is not known is null.
    """

    stage: str
    weights: SHA256 | None = None
    weights_on_data: SHA256 | None = None
    batch: SHA256 | None = None
    loss: float | None = None
    gradient_norm: float | None = None
    gradient: SHA256 | None = None
    weights_stepped: SHA256 | None = None


class RunRecord(Block):
    """One execution of one recipe with one seed.

    ``curve`` is a file beside the record's, and ``artifacts`` are files of its folder, by SHA-256.
    Version 1 had no ``curve_sha256``, and no ``digest`` in the file (see :func:`record_fields`).
    Records of before ``quality`` have none, and it is derived from their curves; so has a record of
    a run that never validated. Of before ``beginnings`` nobody knows what their stages began with.
    """

    schema_version: Literal[1, 2] = 2
    run_id: Name
    created: str
    paper: Name
    table: Name
    row: Name
    column: Name
    cells: tuple[str, ...] = Field(min_length=1)
    recipe: Recipe
    recipe_hash: str
    seed: int
    modified: tuple[str, ...] = ()
    supersedes: Name | None = None
    code: Code
    data: Data
    environment: Environment
    scale: Scale
    budget: Budget
    outcome: Outcome
    metrics: tuple[Metric, ...]
    curve: Name | None
    curve_sha256: SHA256 | None = None
    artifacts: dict[Name, SHA256] = Field(default={})
    quality: tuple[StageQuality, ...] = ()
    beginnings: tuple[Beginning, ...] = ()

    @model_validator(mode="after")
    def _fits_its_version(self) -> RunRecord:
        later = ("curve_sha256", "quality", "beginnings")
        if self.schema_version == 1 and (has := [name for name in later if getattr(self, name)]):
            raise ValueError(f"version 1 has no {has[0]}")
        return self

    @property
    def is_measurement(self) -> bool:
        """Whether its numbers are those of a recipe: complete, and nothing of it modified."""
        return self.outcome.complete and not self.modified

    def metric(self, name: str) -> Metric | None:
        """Return the metric of that name, or None when the run did not measure it."""
        return self.by_name.get(name)

    @cached_property
    def by_name(self) -> dict[str, Metric]:
        """The metrics by their names: comparisons and verdicts ask hundreds of thousands of times.

        Of several with one name the first counts.
        """
        return {metric.name: metric for metric in reversed(self.metrics)}

    @property
    def timed_on(self) -> str:
        """What its seconds are of; those of runs that differ in it say nothing of each other."""
        environment, together = self.environment, self.budget.seeds_together
        threads = f"{environment.threads} thread{'s' if environment.threads > 1 else ''}"
        shared = f", {together} seeds at once" if together > 1 else ""
        return f"{environment.machine_class}, {threads}{shared}"

    def path(self, results: Path) -> Path:
        """Where this record lies below a results folder (design, Contract, Record)."""
        return results.joinpath("runs", *self.place)

    def weights_file(self, results: Path) -> Path:
        """Where the weights lie that its metrics are of; they may not be on this machine."""
        return results / "artifacts" / self.run_id / WEIGHTS

    @property
    def place(self) -> tuple[str, ...]:
        """The folders and the file of :meth:`path`, below ``runs``."""
        return self.paper, self.table, self.column, self.row, f"{self.run_id}.json"


def utc_now() -> str:
    """Return the time now as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_run_id() -> str:
    """Return an identifier that sorts by time: ``20260131t235959-1a2b3c``."""
    return datetime.now(UTC).strftime("%Y%m%dt%H%M%S") + "-" + secrets.token_hex(3)


def write_record(record: RunRecord, results: Path) -> Path:
    """Write a record with its digest to its place, once.

    Raises:
        ResultsError: When a record of that id exists, or the folder cannot be written.
    """
    path = record.path(results)
    fields = record.model_dump(mode="json")
    fields["digest"] = _digest(fields)
    text = json.dumps(fields, indent=1, allow_nan=False) + "\n"
    if not write_once(path, text.encode()):
        raise ResultsError(path, "exists already", "records are written once; start a new run")
    forget_damaged(path)
    return path


def read_record(path: Path) -> RunRecord:
    """Read and validate a record.

    Raises:
        DamagedError: When the file is not JSON, does not fit the schema, or has been changed
            since it was written.
        ResultsError: When the system cannot read it.
    """
    return read_as(path, RunRecord.model_validate)


def read_as(path: Path, make: Callable[[dict[str, Any]], T]) -> T:
    """Read a record's file as something else.

    Args:
        path: The file.
        make: Makes it of the record's fields; raises a ``ValidationError`` where they are none.

    Raises:
        ResultsError: As :func:`read_record`.
    """
    return parse_as(path, record_bytes(path), make)


def parse_as(path: Path, content: bytes, make: Callable[[dict[str, Any]], T]) -> T:
    """Make something of the content of a record's file; arguments and errors as above."""
    try:
        fields = record_fields(content)
        if fields.get("schema_version") not in VERSIONS:
            raise OtherVersionError(path, fields.get("schema_version"))
        return make(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = f"not a run record: {where}: {first['msg']}"
    except ValueError as error:
        reason = f"not a run record: {error}"
    raise DamagedError(path, reason, "name another, or restore it from git or a copy")


class OtherVersionError(DamagedError):
    """A whole record of a schema version that this program does not know.

    Args:
        path: The file.
        version: What it says.
    """

    def __init__(self, path: Path, version: object) -> None:
        self.version = shortened(json.dumps(version), 20)
        known = " and ".join(map(str, VERSIONS))
        reason = f"not a run record: schema_version {self.version}; known are {known}"
        super().__init__(path, reason, "read it with the dgm-bench that wrote it, or a newer one")


def record_bytes(path: Path) -> bytes:
    """Return the content of a file, without waiting for a pipe or taking what no record can be.

    Raises:
        DamagedError: When it is a pipe or a device, or longer than any record.
        ResultsError: When the system cannot read it.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with reading(path, ResultsError), open(os.open(path, flags), "rb") as file:
        state = os.fstat(file.fileno())
        if stat.S_ISREG(state.st_mode) and state.st_size <= LARGEST:
            return file.read()
    regular = stat.S_ISREG(state.st_mode)
    reason = f"it has {state.st_size:,} bytes" if regular else "it is no regular file"
    raise DamagedError(path, f"not a run record: {reason}", "name another, or move it away")


def kept_pictures(record: RunRecord, results: Path) -> list[Path]:
    """Return the pictures of a run that are on this machine; of damaged ones one line is told."""
    folder = results / "artifacts" / record.run_id
    known = {folder / name: sha256 for name, sha256 in sorted(record.artifacts.items())}
    return [
        path
        for path, sha256 in known.items()
        if path.suffix == ".png" and path.exists() and _is_whole(path, sha256)
    ]


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        read_known(path, sha256, "it is left out")
    except DamagedError as error:
        _LOG.warning("%s", error)
        return False
    return True


def record_fields(content: bytes) -> dict[str, Any]:
    """Return the fields of a record's file, without its digest.

    The digest, from version 2 on, is the SHA-256 of all other fields as JSON with sorted keys and
    without spaces.

    Raises:
        ValueError: When the content is no JSON object, or is not what was written.
    """
    fields = read_json(content)
    if not isinstance(fields, dict):
        raise ValueError("it holds no table")
    digest = fields.pop("digest", None)
    if fields.get("schema_version") == 1 and digest is None:
        return fields
    if digest != _digest(fields):
        raise ValueError("it has no digest" if digest is None else "it is damaged (another digest)")
    return fields


def _digest(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a record's file, as ``results/schema`` holds it."""
    body = RunRecord.model_json_schema()
    body["properties"]["schema_version"] = {"const": 2, "title": "Schema Version"}
    body["properties"]["digest"] = {**body["properties"]["recipe_hash"], "title": "Digest"}
    body["required"] += ["schema_version", "digest"]
    return body


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
