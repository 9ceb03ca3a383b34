"""Records and published numbers as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dgm_bench.catalog import load_catalog
from dgm_bench.library.folders import Folder, open_store
from dgm_bench.library.rows import (
    PUBLISHED_COLUMNS,
    RESULT_COLUMNS,
    Row,
    published_rows,
    result_rows,
)

if TYPE_CHECKING:
    from pandas import DataFrame


def results(pattern: str = "*", *, results: Folder = None, stored: Folder = None) -> DataFrame:
    """Return what was measured: a row for each metric of each record, oldest record first.

    ``cell`` is the cell whose number it is, and ``shown`` is False for what the run measured
    besides; ``value`` and ``standard_error`` (over the ``examples`` that it is a mean of) are in
    ``unit``. ``counts`` says whether tables and verdicts use the record: the one of its seed that
    is complete, unmodified and of today's recipe. ``origin`` is ``yours`` or ``stored``.

    Args:
        pattern: Of cells, as on the command line.
        results: Your results folder or its address; None for ``$DGM_BENCH_RESULTS``, else
            ``dgm-results`` in the current folder.
        stored: Results that are read beside them; None for those that came with the suite,
            ``"none"`` for no others.

    Raises:
        UsageError: The pattern matches no cell, or the folder is not there.
        ResultsError: An address does not answer.

    Example:
        >>> frame = results("ffjord/density/*/digits")
        >>> {"cell", "metric", "value", "standard_error", "unit", "seed", "origin"} <= {*frame}
        True
    """
    return frame_of(result_rows(load_catalog(), open_store(results, stored), pattern))


def published(pattern: str = "*") -> DataFrame:
    """Return what papers say: a row for each published number, in declared order.

    ``value`` is in ``unit`` and ``printed`` has its digits; what ``pm`` means ``pm_kind`` says.
    ``runnable`` is False where the cell has no recipe.

    Args:
        pattern: Of cells, as on the command line.

    Raises:
        UsageError: The pattern matches no cell.

    Example:
        >>> frame = published("ffjord/density/maf-5/*").set_index("column")
        >>> frame.loc["power", "value"], frame.loc["power", "unit"]
        (np.float64(-0.14), 'nats')
    """
    return frame_of(published_rows(load_catalog(), pattern), PUBLISHED_COLUMNS)


def frame_of(rows: Iterable[Row], columns: Sequence[str] = RESULT_COLUMNS) -> DataFrame:
    """Return rows as a table, with their times as times."""
    from pandas import DataFrame, to_datetime

    frame = DataFrame(list(rows), columns=list(columns))
    times = [name for name in columns if name == "created"]
    return frame.assign(**{name: to_datetime(frame[name], utc=True) for name in times})
