"""How long readers are tried, and the table of a long trial."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fuzz.harness import Target, fuzz

#: Seconds for all targets together; each gets an equal share.
LONG = float(os.environ.get("DGM_BENCH_FUZZ", "0"))
#: Inputs of a target's round, of which the suite has one.
INPUTS = 1000 if LONG else 60
#: Where files are written fastest.
MEMORY = Path("/dev/shm")
TITLES = ("target", "tried", "refused", "as written", "otherwise", "slowest", "memory")


@pytest.fixture
def try_damaged(request, tmp_path, record_property):
    """Read damaged forms of a target's file, and fail where one is neither refused nor read."""

    def run(target: Target) -> None:
        sharers = sum("try_damaged" in item.fixturenames for item in request.session.items)
        with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            tally = fuzz(target, Path(folder), inputs=INPUTS, seconds=LONG / sharers)
        counts = f"{tally.tried:,} {tally.refused:,} {tally.as_written:,} {tally.otherwise:,}"
        cost = f"{tally.slowest:.3f}s {tally.memory / 1e6:.0f}MB"
        record_property("fuzz", [target.name, *counts.split(), *cost.split()])
        if tally.failure:
            kept = tmp_path / "input"
            kept.write_bytes(tally.input)
            pytest.fail(f"{target.name}: {tally.failure}; input {tally.input[:200]!r} in {kept}")

    return run


def pytest_terminal_summary(terminalreporter):
    reports = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    rows = [dict(report.user_properties)["fuzz"] for report in reports if report.user_properties]
    if LONG and rows:
        for row in (TITLES, *sorted(rows)):
            line = "".join(f"{cell:>12}" for cell in row[1:])
            terminalreporter.write_line(f"{row[0]:24}{line}")
