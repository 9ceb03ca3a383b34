"""Two results folders whose records are equal to the bit, but for times, hosts and identities.

python tests/engines/same_records.py RESULTS OTHER
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgm_bench.records import RunRecord
from dgm_bench.store import Store

#: What every run has of its own.
OWN = ("run_id", "created", "curve", "curve_sha256", "supersedes", "code")
#: Where it ran; processor and number of threads decide which numbers come out, and stay.
HOST = ("platform", "memory_bytes", "cores", "machine_class")
#: Of metrics and of columns of curves.
TIMES = ("seconds", "time-ratio", "train_seconds")


def comparable(record: RunRecord, results: Path) -> dict[str, Any]:
    """Return all of a record that another process has to repeat, its curve among it."""
    fields = record.model_dump(mode="json", exclude={*OWN})
    fields["environment"] = _without(fields["environment"], HOST)
    spent = {k: v for k, v in fields["budget"].items() if not k.endswith(("seconds", "_others"))}
    fields["budget"] = _without(spent, ("segments", "peak_memory_bytes"))
    fields["metrics"] = [m for m in fields["metrics"] if not m["name"].startswith(TIMES)]
    for stage in fields["quality"]:
        stage["reached"] = [_without(reached, TIMES) for reached in stage["reached"]]
    rows = Store(results).curve(record)
    # As text: NaN is not equal to itself.
    fields["rows"] = [
        {k: repr(v) for k, v in row.items() if not k.endswith("seconds")} for row in rows
    ]
    return fields


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between the records of two results folders, a line for each."""
    left, right = (_by_run(results) for results in (one, other))
    if not left:
        return [f"{one} has no record"]
    found = [f"{where}: {run} {n} times" for where, run, n in _twice(one, other)]
    found += [f"{one} lacks {run}" for run in sorted(right.keys() - left.keys())]
    found += [f"{other} lacks {run}" for run in sorted(left.keys() - right.keys())]
    for run in sorted(left.keys() & right.keys()):
        found += [f"{run}: {line}" for line in _unequal(left[run], right[run])]
    for results in (one, other):
        found += [f"{results}: {line}" for line in _not_as_recorded(results)]
    return found


def _without(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _run(record: RunRecord) -> str:
    return f"{record.cells[0]} {record.recipe_hash[:12]} seed {record.seed}"


def _by_run(results: Path) -> dict[str, dict[str, Any]]:
    return {_run(record): comparable(record, results) for record in Store(results).records()}


def _twice(*folders: Path) -> Iterator[tuple[Path, str, int]]:
    for results in folders:
        counts = Counter(_run(record) for record in Store(results).records())
        yield from ((results, run, n) for run, n in counts.items() if n > 1)


def _unequal(left: Any, right: Any, where: str = "") -> Iterator[str]:
    """Yield the innermost fields that differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in left.keys() | right.keys():
            yield from _unequal(left.get(name), right.get(name), f"{where}.{name}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for place, pair in enumerate(zip(left, right, strict=True)):
            yield from _unequal(*pair, f"{where}[{place}]")
    elif json.dumps(left) != json.dumps(right):
        yield f"{where.lstrip('.')}: {json.dumps(left)} and {json.dumps(right)}"


def _not_as_recorded(results: Path) -> Iterator[str]:
    """Yield artifacts, weights among them, that are not the bytes that their record names."""
    for record in Store(results).records():
        for name, sha256 in record.artifacts.items():
            path = results / "artifacts" / record.run_id / name
            there = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "nothing"
            if there != sha256:
                yield f"{path.relative_to(results)}: {there}, recorded {sha256}"


if __name__ == "__main__":
    lines = differences(*map(Path, sys.argv[1:3]))
    print("\n".join(lines) or f"{len(Store(Path(sys.argv[1])).records())} records are the same")
    sys.exit(bool(lines))
