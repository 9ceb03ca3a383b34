"""A verdict drawn in characters: the measured interval below the published margin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dgm_bench.spec import Cell
from dgm_bench.verdict import Verdict

LEAST_COLUMNS = 20


@dataclass(frozen=True)
class Bar:
    """A range with a value in it, in the metric's unit.

    Attributes:
        name: What it is.
        value: Drawn as a point; None for a range alone.
        low: Its lower end; the value where there is no range.
        high: Likewise.
        signs: Marks of its ends, of what lies between, and of the value.
        words: What stands behind it.
    """

    name: str
    value: float | None
    low: float
    high: float
    signs: str
    words: str


#: Ends, between and value: what has no ASCII is drawn as ``_ASCII`` says.
MARGIN, INTERVAL, FORECAST = "[]━┿", "├┤─●", "├┤╌○"
_ASCII = str.maketrans("━┿├┤─●╌○·", "=+||-o~o.")


def bars_of(cell: Cell, verdict: Verdict) -> list[Bar]:
    """Return what a verdict rests on, in the metric's unit; nothing without a published number."""
    if cell.published is None or (verdict.mean is None and verdict.unfinished is None):
        return []
    published, sign = float(cell.published.value), 1 if cell.column.direction == "higher" else -1
    margin = verdict.delta or 0.0
    around = f"margin {margin:.3g} to each side" if margin else "no margin"
    bars = [Bar("published", published, published - margin, published + margin, MARGIN, around)]
    if (found := verdict.unfinished) is not None:
        if found.forecast is not None and found.low is not None and found.high is not None:
            words = f"its curve extrapolated, 90 % interval {found.low:.4g} to {found.high:.4g}"
            bars.append(Bar("forecast", found.forecast, found.low, found.high, FORECAST, words))
        return bars if len(bars) > 1 else []
    mean = verdict.mean or 0.0
    if verdict.interval is None:
        return [*bars, Bar("measured", mean, mean, mean, INTERVAL, "no interval yet")]
    low, high = sorted(published + sign * end for end in verdict.interval)
    words = f"90 % interval {low:.4g} to {high:.4g}"
    return [*bars, Bar("measured", mean, low, high, INTERVAL, words)]


def drawn(bars: Sequence[Bar], columns: int, *, ascii_only: bool = False) -> list[str]:
    """Return bars on one scale, a line each, and the scale below them.

    Args:
        bars: At least one.
        columns: That a line may take; at least ``LEAST_COLUMNS`` are taken.
        ascii_only: Whether marks are of ASCII.
    """
    room = max(columns, LEAST_COLUMNS)
    low, high = min(bar.low for bar in bars), max(bar.high for bar in bars)
    pad = (high - low) / 12 or abs(low) / 100 or 1.0
    low, high = low - pad, high + pad

    def place(value: float) -> int:
        return min(max(round((value - low) / (high - low) * (room - 1)), 0), room - 1)

    lines = ["".join(_line(bar, room, place)) for bar in bars]
    lines.append(_scale(low, high, room))
    return [line.translate(_ASCII) for line in lines] if ascii_only else lines


def _line(bar: Bar, room: int, place: Callable[[float], int]) -> list[str]:
    first, last, between, value = tuple(bar.signs)
    line, begin, end = ["·"] * room, place(bar.low), place(bar.high)
    if begin < end:
        line[begin : end + 1] = [first, *between * (end - begin - 1), last]
    if bar.value is not None:
        line[place(bar.value)] = value
    return line


def _scale(low: float, high: float, room: int) -> str:
    """Return both ends of the scale, with digits enough to tell them apart."""
    digits = max(1 - math.floor(math.log10(high - low)), 0)
    left, right = (f"{end:.{min(digits, 9)}f}" for end in (low, high))
    return left + " " * max(room - len(left) - len(right), 1) + right
