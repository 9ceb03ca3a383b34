"""When a difference between base and head is one: the rule of the gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dgm_bench import stats

State = Literal["slower", "perhaps slower", "same", "faster"]

#: A case fails when it is slower by more than this for sure, and by more than that as estimated.
SURE, ESTIMATED = 0.03, 0.06
#: As estimated, from here on it is to be looked at, and more pairs are measured.
WARNED = 0.05
#: One-sided confidence of the bounds.
CONFIDENCE = 0.99
#: Pairs of processes at first, and at most where it is to be looked at.
PAIRS, MOST_PAIRS = 5, 10


@dataclass(frozen=True)
class Judgement:
    """What pairs of processes say of a case, as relative differences of time.

    Attributes:
        change: Head's time by base's, less 1.
        lower, upper: Bounds of it, each with 99 % confidence.
        pairs: How many pairs there were.
    """

    change: float
    lower: float
    upper: float
    pairs: int

    @property
    def state(self) -> State:
        """Whether it fails (``slower``), is to be looked at, or is well."""
        if self.lower > SURE and self.change > ESTIMATED:
            return "slower"
        if self.lower > SURE or self.change > WARNED:
            return "perhaps slower"
        return "faster" if self.upper < -SURE else "same"


def judge(log_ratios: Sequence[float]) -> Judgement:
    """Return the judgement on a case: Student's bounds of the mean over pairs of processes.

    Args:
        log_ratios: Of each pair the median over calls of the logarithm of head's time by base's.
    """
    spread, count = stats.se(log_ratios), len(log_ratios)
    centre = stats.mean(log_ratios)
    half = math.inf if spread is None else stats.t_quantile(CONFIDENCE, count - 1) * spread
    change, lower, upper = map(math.expm1, (centre, centre - half, centre + half))
    return Judgement(change, lower, upper, count)
