"""Whether the rows of a column come in their published order: Kendall's tau, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from dgm_bench import stats
from dgm_bench.spec import YES_NO, Cell, Table
from dgm_bench.verdict.judgement import Verdict
from dgm_bench.verdict.pool import COUNTED

#: Fewer rows have no order worth a number.
LEAST_ROWS = 3
#: Draws of all numbers of a column from their intervals.
DRAWS = 1000


@dataclass(frozen=True)
class Order:
    """How far the rows of a column come in their published order.

    Attributes:
        column: Its identifier.
        rows: Identifiers of the rows with both numbers, best published one first.
        tau: Kendall's tau-b between published and measured numbers: 1 for the same order, -1 for
            the opposite one.
        low: With ``high`` its 90 % interval: what is left of it where each difference from a
            published number is drawn anew, normal with the 90 % interval of its verdict. None
            where a row has no interval.
    """

    column: str
    rows: tuple[str, ...]
    tau: float
    low: float | None = None
    high: float | None = None


def published_orders(table: Table, verdicts: Mapping[str, Verdict]) -> list[Order]:
    """Return the order of rows of each column with enough numbers, published and measured.

    Cells that repeat another row's, counts, and properties are left out.

    Args:
        table: The declarations.
        verdicts: By cell.
    """
    found = []
    for column in table.columns:
        cells = list(_measured(table, column.id, verdicts))
        numbers = {cell.published.value for cell in cells if cell.published}
        if column.unit != YES_NO and len(cells) >= LEAST_ROWS and len(numbers) > 1:
            found.append(_order(column.id, cells, [verdicts[cell.id] for cell in cells]))
    return found


def _measured(table: Table, column: str, verdicts: Mapping[str, Verdict]) -> Iterator[Cell]:
    for cell in table.cells:
        own = cell.column.id == column and cell.same_as is None
        if own and cell.published and cell.metric not in COUNTED:
            verdict = verdicts.get(cell.id)
            if verdict is not None and verdict.mean is not None:
                yield cell


def _order(column: str, cells: Sequence[Cell], verdicts: Sequence[Verdict]) -> Order:
    better = 1.0 if cells[0].column.direction == "higher" else -1.0
    published = [better * float(cell.published.value) for cell in cells if cell.published]
    measured = [better * (verdict.mean or 0.0) for verdict in verdicts]
    places = sorted(range(len(cells)), key=lambda place: -published[place])
    rows = tuple(cells[place].row.id for place in places)
    tau = stats.kendall(published, measured)
    intervals = [verdict.interval for verdict in verdicts]
    if any(interval is None for interval in intervals):
        return Order(column, rows, tau)
    normal = stats.t_quantile(0.95, math.inf)
    spreads = [(high - low) / 2 / normal for low, high in filter(None, intervals)]
    taus = sorted(_drawn_taus(published, measured, spreads))
    return Order(column, rows, tau, taus[len(taus) // 20], taus[-1 - len(taus) // 20])


def _drawn_taus(
    published: Sequence[float], measured: Sequence[float], spreads: Sequence[float]
) -> Iterator[float]:
    noise = Random(0)
    for _ in range(DRAWS):
        drawn = [noise.gauss(*number) for number in zip(measured, spreads, strict=True)]
        yield stats.kendall(published, drawn)
