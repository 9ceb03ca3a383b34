"""The tiers of the gate, as lines to print and whether they fail."""

from __future__ import annotations

import dataclasses

from dgm_bench.perf.counters import measured_counters
from dgm_bench.perf.expected import (
    UPDATE,
    Expected,
    differences,
    expected_file,
    not_compared,
    read_expected,
    versions_here,
    write_expected,
)


def counters() -> tuple[list[str], bool]:
    """Return what tier 0 found, and whether a counter is not as expected.

    Raises:
        ResultsError: There is no file of expected counters.
    """
    expected, here = read_expected(expected_file()), versions_here()
    measured = measured_counters()
    found = differences(expected, measured, here)
    lines = [f"not as expected: {difference}" for difference in found]
    lines += not_compared(expected, here)
    count = sum(map(len, measured.values()))
    if found:
        lines.append(f"if that is meant: `{UPDATE}`, and commit {expected_file().name} with it")
    else:
        lines.append(f"{count} counters of {len(measured)} cases: all as expected")
    return lines, bool(found)


def write_counters() -> str:
    """Write the file of expected counters; return a line that says what changed."""
    path = expected_file()
    before = read_expected(path) if path.exists() else Expected({}, {})
    values, versions = measured_counters(), versions_here()
    write_expected(path, dataclasses.replace(before, versions=versions, values=values))
    known = {(case, name): value for case, t in before.values.items() for name, value in t.items()}
    new = {(case, name): value for case, t in values.items() for name, value in t.items()}
    changed = sum(known.get(key) != new.get(key) for key in {*known, *new})
    return f"wrote {path}: {changed} of {len(new)} counters changed"
