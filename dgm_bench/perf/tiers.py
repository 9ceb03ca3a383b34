"""The tiers of the gate: what they found, and whether it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from dgm_bench.perf.judgement import CONFIDENCE, ESTIMATED, SURE
from dgm_bench.perf.paired import CaseResult, compare_sides, sides, table, timed_cases


@dataclass(frozen=True)
class Finding:
    """What a tier found.

    Attributes:
        title: Of the tier.
        lines: To be printed.
        failed: Whether it fails.
        rows: Of a table above the lines, the heading first.
    """

    title: str
    lines: tuple[str, ...]
    failed: bool
    rows: tuple[tuple[str, ...], ...] = ()


# --------------------------------------------------------------------------- tier 0


def counters() -> Finding:
    """Compare counters with those on file.

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
    return Finding("Counters", tuple(lines), bool(found))


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


# --------------------------------------------------------------------------- tier 1


def base_against_head(
    revision: str | None,
    device: str = "cpu",
    cases: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> Finding:
    """Time the working tree against a base.

    Args:
        revision: The base; None for where the work left the main branch.
        device: ``cpu`` or ``cuda``.
        cases: Names of cases; all that are timed where there are none.
        progress: Is told what is done.

    Raises:
        UsageError: There is no such revision, or this is no checkout.
        UnexpectedError: A process ended.
    """
    with sides(revision, device) as (base, head):
        results = compare_sides(base, head, cases or timed_cases(), progress)
    title = f"The working tree against {base.name}: processor time of a call"
    return Finding(title, _told(results), _has(results, "slower"), tuple(table(results)))


def _told(results: Sequence[CaseResult]) -> tuple[str, ...]:
    """Return what the table's last column means, and how it ended."""
    rule = (
        f"slower: by more than {SURE:.0%} with {CONFIDENCE:.0%} confidence, and by more than "
        f"{ESTIMATED:.0%} as estimated. Bounds are one-sided, over pairs of processes."
    )
    if _has(results, "slower"):
        return rule, "the change makes the code slower"
    if all(found.lacks for found in results):
        return rule, "nothing could be compared"
    doubt = "; something is perhaps slower: look at it" if _has(results, "perhaps slower") else ""
    return rule, f"no case is slower for sure{doubt}"


def _has(results: Sequence[CaseResult], state: str) -> bool:
    return any(not found.lacks and found.judgement.state == state for found in results)
