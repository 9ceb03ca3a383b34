"""What a verdict holds."""

from __future__ import annotations

from dataclasses import dataclass

from dgm_bench.measured import error_bar
from dgm_bench.wording import State


@dataclass(frozen=True)
class Unfinished:
    """How far the furthest run got that its budget cut short: never a measurement.

    Attributes:
        so_far: The metric of its model on the way, in the column's unit; None if it has no value.
        epochs: How many it trained.
        fraction: Share of the steps that it needs: of its maximum or, where early stopping ends
            it, of those that its recipe is expected to take; None if not known.
        forecast: What its curve says that the metric will be at the end, an extrapolation; low and
            high are its 90 % interval. None where no_forecast says why.
        early_stopping: Whether early stopping ends it, which it did not reach.
    """

    so_far: float | None
    epochs: float
    fraction: float | None
    forecast: float | None = None
    low: float | None = None
    high: float | None = None
    no_forecast: str = ""
    early_stopping: bool = False


@dataclass(frozen=True)
class Verdict:
    """The state of a cell, and the numbers that it rests on, in the metric's unit.

    Attributes:
        cell: The cell's identifier.
        state: One of :data:`~dgm_bench.wording.State`; ``measured`` is a cell without a
            published number.
        reason: One sentence.
        mean: Mean over seeds; sd and se are the spread between seeds, None for one seed.
        se_test: Typical standard error over the test points of one run.
        seeds: How many seeds the mean is over.
        difference: Mean minus published, oriented so that positive is better.
        delta: Margin within which the difference counts as none.
        interval: 90 % interval of the difference.
        more_seeds: Further seeds expected to decide, where that would.
        gap: For data of known entropy, mean distance from it in nats.
        remarks: What a reader has to know besides; the reason ends with them.
        unfinished: Where every run was cut short, how far they got; there is no mean then.
        own_seeds: Seeds of the user's own runs, among those that the verdict is of.
        own_unfinished: How far the user's own runs got, where they were cut short and the verdict
            is of stored ones.
    """

    cell: str
    state: State
    reason: str
    mean: float | None = None
    sd: float | None = None
    se: float | None = None
    se_test: float | None = None
    seeds: int = 0
    difference: float | None = None
    delta: float | None = None
    interval: tuple[float, float] | None = None
    more_seeds: int | None = None
    gap: float | None = None
    remarks: tuple[str, ...] = ()
    unfinished: Unfinished | None = None
    own_seeds: tuple[int, ...] = ()
    own_unfinished: Unfinished | None = None

    @property
    def error(self) -> float | None:
        """What stands after ±: the spread over seeds, else two standard errors of the run."""
        return error_bar(self.sd, self.se_test)
