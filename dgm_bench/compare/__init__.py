"""New records against stored ones: is the quality the same, or is a change more than noise?

A change is called worse (or better) only when the one-sided 99 % bound of the difference lies
beyond the metric's floor. One run on each side, without a known spread, cannot be compared,
unless the two should have given equal numbers: then a degradation beyond the floor is worse. A
positive difference is better; a metric of which neither lower nor higher is better is called
changed, and not judged.

Times of training steps (:mod:`dgm_bench.performance`) are compared within a class of machines.
"""

from dgm_bench.compare.beside import Beside, beside, beside_stored
from dgm_bench.compare.matching import compare, declared_directions
from dgm_bench.compare.rows import ComparedRow, Comparison, Side, SpeedRow
from dgm_bench.compare.speed import with_speed
from dgm_bench.wording import RowState

__all__ = [
    "Beside",
    "ComparedRow",
    "Comparison",
    "RowState",
    "Side",
    "SpeedRow",
    "beside",
    "beside_stored",
    "compare",
    "declared_directions",
    "with_speed",
]
