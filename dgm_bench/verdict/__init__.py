"""Whether a published number holds: a pure function of a cell and its records.

The rule: the difference from the published number is oriented so that positive is better, and
its 90 % interval (two one-sided tests at 5 %) is held against a margin. Inside is reproduced,
wholly below is worse, wholly above is better (an alarm: leaked data, easier data, other units),
anything else is inconclusive, with the number of further seeds that should decide. Runs that
their budget cut short measure nothing: where there are no others, the cell is unfinished, and
where there are, nothing is other than without them.

A record whose data are not verified as the published files is not comparable with a published
number. For columns of ours it still counts, and the reason says so.
"""

from dgm_bench.verdict.claims import ClaimVerdict, judge_claims
from dgm_bench.verdict.judgement import Unfinished, Verdict
from dgm_bench.verdict.orders import Order, published_orders
from dgm_bench.verdict.pool import Pool, pool_variances
from dgm_bench.verdict.reasons import extrapolated
from dgm_bench.verdict.rule import FLOORS, judge, judge_cell, judge_table, neighbour_gap, not_run
from dgm_bench.verdict.unfinished import furthest
from dgm_bench.wording import State

__all__ = [
    "FLOORS",
    "ClaimVerdict",
    "Order",
    "Pool",
    "State",
    "Unfinished",
    "Verdict",
    "extrapolated",
    "furthest",
    "judge",
    "judge_cell",
    "judge_claims",
    "judge_table",
    "neighbour_gap",
    "not_run",
    "pool_variances",
    "published_orders",
]
