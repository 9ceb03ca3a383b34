"""What a comparison holds: its rows, how they are counted, and the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dgm_bench.measured import error_bar
from dgm_bench.wording import ROW_STATES, RowState, printed_alike, spoken


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

    @property
    def error(self) -> float | None:
        """What stands after ±."""
        return error_bar(self.sd, self.se_test)


@dataclass(frozen=True)
class ComparedRow:
    """One metric of one cell, new against baseline, in the metric's unit.

    Attributes:
        cell: ``paper/table/row/column``; the baseline's where the rows differ.
        difference: New minus baseline, positive where new is better; of a metric that has no
            better direction, positive where new is larger.
        bound: One-sided 99 % lower bound of the degradation; worse where it exceeds ``margin``.
        margin: The smallest degradation that is flagged.
        standard_errors: How many standard errors of the difference it is; None where not known.
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
    standard_errors: float | None = None

    def equal(self, decimals: int = 2) -> bool:
        """Return whether the two numbers were compared, and are the same as they are printed.

        What is called worse, better or changed is more than that, however it is printed.
        """
        if self.difference is None or self.state in ("worse", "better", "changed"):
            return False
        errors = [side.error for side in (self.new, self.baseline) if side.error is not None]
        means = self.new.mean or 0.0, self.baseline.mean or 0.0
        return printed_alike(*means, min(errors, default=None), decimals)


@dataclass(frozen=True)
class SpeedRow:
    """A time, new against baseline, on one class of machine.

    Attributes:
        subject: A case of the gate, or ``paper/table/row/column``.
        machine: The class of machine.
        quantity: Which time, and in what it is given.
    """

    subject: str
    machine: str
    quantity: str
    baseline: float | None
    new: float | None
    state: RowState
    reason: str

    @property
    def change(self) -> float | None:
        """New by baseline, less 1; None where a side has none."""
        return self.new / self.baseline - 1 if self.new and self.baseline else None


@dataclass(frozen=True)
class Comparison:
    """All rows of a comparison.

    Attributes:
        rows: Of the quality of runs.
        speed: Of times.
        remarks: What else is to be said, a sentence each.
    """

    rows: tuple[ComparedRow, ...]
    speed: tuple[SpeedRow, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 fine; 1 something is worse; 3 something, or everything, could not be compared.

        Where the baseline is unfinished too, there is nothing yet that could be.
        """
        states = {row.state for row in self.rows} | {row.state for row in self.speed}
        if "worse" in states:
            return 1
        short = any(r.state == "unfinished" and r.baseline.mean is not None for r in self.rows)
        undecided = short or "not-comparable" in states
        return 3 if undecided or states <= {"only-new", "only-baseline", "unfinished"} else 0

    @property
    def summary(self) -> str:
        """How many rows are in which state, in one sentence."""
        numbers = _counted("numbers", [row.state for row in self.rows])
        times = _counted("times", [row.state for row in self.speed])
        return " ".join(filter(None, (numbers, times))) or "Nothing to compare."


def _counted(what: str, states: Sequence[RowState]) -> str:
    counts = Counter(states)
    found = ", ".join(f"{counts[s]} {spoken(s)}" for s in ROW_STATES if counts[s])
    return f"{len(states)} {what} compared: {found}." if found else ""
