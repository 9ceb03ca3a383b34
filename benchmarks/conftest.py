"""One thread and one seed for every benchmark, and a table of ratios at the end."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

HEAD = (
    "case",
    "clock",
    "ours",
    "floor",
    "ours / floor",
    "peer",
    "takes",
    "peer / ours",
    "by wall clock",
    "evaluations",
)
RESULTS = pytest.StashKey[dict[str, dict[str, Any]]]()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one core, as the others may be busy, and the same random numbers each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def collected(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Iterator[None]:
    """Keep what a benchmark found for the table."""
    yield
    if "peers" in benchmark.extra_info:
        results = request.config.stash.setdefault(RESULTS, {})
        results[request.node.name.removeprefix("test_")] = benchmark.extra_info


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print one line for each peer of each case, the fastest first."""
    results = config.stash.get(RESULTS, {})
    if not results:
        return
    rows = [HEAD, *(row for case, result in results.items() for row in table_rows(case, result))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("training steps; a ratio above 1 means that ours is faster")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())


def table_rows(case: str, result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each peer's line; what is about ours alone is on the first."""
    ours, clock = result["ours"], result["clock"]
    about = (case, clock, milliseconds(ours, clock), *floor_cells(result))
    if not result["peers"]:
        yield (*about, "-", "-", "-", "-", evaluations(ours, ours))
    for peer in result["peers"]:
        yield (
            *about,
            peer["name"],
            milliseconds(peer, clock),
            interval(peer[f"{clock}_ratio"]),
            interval(peer["wall_ratio"]),
            evaluations(ours, peer),
        )
        about = ("",) * len(about)


def floor_cells(result: dict[str, Any]) -> tuple[str, str]:
    """Return the floor's time and our ratio to it."""
    if "floor" not in result:
        return "-", "-"
    floor, clock = result["floor"], result["clock"]
    return milliseconds(floor, clock), interval(floor[f"{clock}_ratio"])


def milliseconds(step: dict[str, Any], clock: str) -> str:
    """Return the median time of a step."""
    return f"{1e3 * statistics.median(step[f'{clock}_seconds']):.4g} ms"


def interval(ratio: tuple[float, float, float]) -> str:
    """Return a median ratio with its interval."""
    median, low, high = ratio
    return f"{median:.2f}x [{low:.2f}, {high:.2f}]"


def evaluations(ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """Return how often each evaluates the dynamics."""
    if ours["evaluations"] is None:
        return "-"
    if ours is peer:
        return str(ours["evaluations"])
    return f"{ours['evaluations']} : {peer['evaluations']}"
