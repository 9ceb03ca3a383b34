"""Stored times of training steps: one JSON file a measurement, by class of machine.

A time means something on one class of machine alone: processor and its features, GPU, cores and
torch. What is compared is the time of a step by that of a plain network of about the same
operators, measured beside it: it moves less with the load and the clock of a machine than seconds.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from dgm_bench.errors import DamagedError, ResultsError, reading
from dgm_bench.json_text import read_json
from dgm_bench.records import Block, Code, Environment, Name
from dgm_bench.sealed import write_atomically

#: The folder of the results that holds them.
FOLDER = "performance"


class Timing(Block):
    """What was measured of a case.

    Attributes:
        seconds: Of a call: processor time of the thread, or the time of a GPU.
        ratio: Time of the case by that of the plain network, mean over pairs of processes.
        lower: Bound of it with 99 % confidence; ``upper`` is the other.
        kernel: Name of the plain network.
        work: Hash of what the case declares.
        counters: What a step takes, counted.
    """

    seconds: float = Field(gt=0)
    ratio: float = Field(gt=0)
    lower: float = Field(ge=0)
    upper: float = Field(gt=0)
    pairs: int = Field(ge=2)
    kernel: Name
    work: str
    counters: dict[str, int]

    def alike(self, other: Timing) -> bool:
        """Return whether both are times of the same work by that of the same network."""
        return (self.work, self.kernel) == (other.work, other.kernel)


class Measurement(Block):
    """The times of one state of the code on one machine."""

    schema_version: Literal[1] = 1
    created: str
    machine: Name
    features: tuple[str, ...]
    code: Code
    environment: Environment
    timings: dict[Name, Timing] = Field(min_length=1)

    def path(self, results: Path) -> Path:
        """Where it lies below a results folder."""
        moment = re.sub(r"[-:Z]", "", self.created).lower()
        name = f"{moment}-{(self.code.git_commit or 'none')[:10]}.json"
        return results / FOLDER / self.machine / name


def machine_name(environment: Environment, features: Iterable[str]) -> str:
    """Return the name of a class of machines: its processor or GPU, and a hash of the rest."""
    parts = (environment.machine_class, platform.machine(), *features)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "-", (environment.gpu or environment.cpu).lower()).strip("-")
    return f"{words[:60].strip('-') or 'machine'}-{digest}"


# --------------------------------------------------------------------------- files


def write_measurement(measurement: Measurement, results: Path) -> Path:
    """Write a measurement to its place, once; return the file.

    Raises:
        ResultsError: When it exists, or the folder cannot be written.
    """
    path = measurement.path(results)
    if path.exists():
        raise ResultsError(path, "exists already", "measure again")
    fields = measurement.model_dump(mode="json")
    text = json.dumps({**fields, "digest": _digest(fields)}, indent=1, allow_nan=False) + "\n"
    write_atomically(path, text.encode())
    return path


def read_measurement(path: Path) -> Measurement:
    """Read a measurement.

    Raises:
        DamagedError: When the file is not what was written.
        ResultsError: When the system cannot read it.
    """
    with reading(path, ResultsError):
        content = path.read_bytes()
    try:
        fields = read_json(content)
        if not isinstance(fields, dict):
            raise ValueError("it holds no table")
        if fields.pop("digest", None) != _digest(fields):
            raise ValueError("it is damaged (another digest)")
        return Measurement.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"not a measurement: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except ValueError as error:
        reason = f"not a measurement: {error}"
    raise DamagedError(path, reason, "restore it from git, or move it away")


def read_measurements(results: Path) -> dict[str, list[Measurement]]:
    """Return what a results folder holds, by class of machine, oldest first.

    Raises:
        ResultsError: When a file is not as it was written.
    """
    found: dict[str, list[Measurement]] = {}
    for path in sorted((results / FOLDER).glob("*/*.json")):
        measurement = read_measurement(path)
        found.setdefault(measurement.machine, []).append(measurement)
    return {machine: sorted(runs, key=lambda m: m.created) for machine, runs in found.items()}


def _digest(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a measurement's file, as ``results/schema`` holds it."""
    body = Measurement.model_json_schema()
    body["properties"]["digest"] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    body["required"] += ["digest"]
    return body


# --------------------------------------------------------------------------- history

#: Changes that a case has to have made before one of them can be unusual.
FEWEST_CHANGES = 4


def unusual_change(ratios: Sequence[float]) -> tuple[float, float] | None:
    """Return the last relative change and the fence that it jumped over, or None where it did not.

    The fence is that of rustc-perf: the third quartile of the sizes of all earlier changes of the
    same case, and three interquartile ranges more.

    Args:
        ratios: Of one case on one class of machine, oldest first.
    """
    changes = [new / old - 1 for old, new in pairwise(ratios)]
    if len(changes) <= FEWEST_CHANGES:
        return None
    first, _, third = statistics.quantiles(map(abs, changes[:-1]), method="inclusive")
    fence = third + 3 * (third - first)
    return (changes[-1], fence) if abs(changes[-1]) > fence else None


def history_of(measurements: Sequence[Measurement], case: str) -> list[tuple[str, float]]:
    """Return commit and ratio of a case, as long as its work and its kernel were the present ones.

    Args:
        measurements: Of one class of machine, oldest first.
        case: Its name.
    """
    timed = [(m, m.timings[case]) for m in measurements if case in m.timings]
    return [
        ((run.code.git_commit or "none")[:10], timing.ratio)
        for run, timing in timed
        if timing.alike(timed[-1][1])
    ]


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
