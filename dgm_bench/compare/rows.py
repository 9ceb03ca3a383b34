"""What a comparison holds: its rows, how they are counted, and the exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dgm_bench.wording import ROW_STATES, RowState, spoken


@dataclass(frozen=True)
class Side:
    """One side of a comparison: mean and spread over seeds, and mean training time in seconds.

    ``se_test`` is the typical standard error of one run. Of runs that their budget cut short there
    is no mean: ``so_far`` is that of models on the way.
    """

    mean: float | None = None
    sd: float | None = None
    seeds: int = 0
    train_seconds: float | None = None
    se_test: float | None = None
    so_far: float | None = None


@dataclass(frozen=True)
class ComparedRow:
    """One metric of one cell, new against baseline, in the metric's unit.

    Attributes:
        cell: ``paper/table/row/column``; the baseline's where the rows differ.
        difference: New minus baseline, positive where new is better; of a metric that has no
            better direction, positive where new is larger.
        bound: One-sided 99 % lower bound of the degradation; worse where it exceeds ``margin``.
        margin: The smallest degradation that is flagged.
    """

    cell: str
    metric: str
    unit: str
    state: RowState
    reason: str
    baseline: Side
    new: Side
    difference: float | None = None
    bound: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All rows of a comparison."""

    rows: tuple[ComparedRow, ...]

    @property
    def exit_code(self) -> int:
        """0 fine; 1 something is worse; 3 something, or everything, could not be compared."""
        states = {row.state for row in self.rows}
        if "worse" in states:
            return 1
        undecided = states & {"not-comparable", "unfinished"}
        return 3 if undecided or states <= {"only-new", "only-baseline"} else 0

    @property
    def summary(self) -> str:
        """How many rows are in which state, in one sentence."""
        counts = Counter(row.state for row in self.rows)
        found = ", ".join(f"{counts[s]} {spoken(s)}" for s in ROW_STATES if counts[s])
        return f"{len(self.rows)} numbers compared: {found}." if found else "Nothing to compare."
