"""The numbers of a cell as people read them, and how many cells are in which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dgm_bench.spec import YES_NO, Cell, Published, Table
from dgm_bench.verdict import Unfinished, Verdict, not_run
from dgm_bench.wording import STATES, as_printed, share, so_far, spoken, with_error, yes_or_no


def published_text(cell: Cell) -> str:
    """Return the published number, or yes or no for a property; empty where there is none."""
    if cell.published is None:
        return ""
    if cell.column.unit == YES_NO:
        return yes_or_no(float(cell.published.value))
    return as_printed(cell.published)


def measured_text(cell: Cell, verdict: Verdict) -> str:
    """Return the measured number with its error, or yes or no for a property.

    Of unfinished runs it is the number so far, marked as such.
    """
    if verdict.unfinished is not None:
        return _so_far(cell, verdict.unfinished)
    if verdict.mean is not None and cell.column.unit == YES_NO:
        return yes_or_no(verdict.mean)
    return measured_number(verdict, cell.published)


def measured_number(verdict: Verdict, published: Published | None) -> str:
    """Return a verdict's mean and error with the decimals of the published number, else two."""
    if verdict.mean is None:
        return ""
    return with_error(verdict.mean, verdict.error, _decimals(published))


def _so_far(cell: Cell, unfinished: Unfinished) -> str:
    """Return a number of an unfinished run in parentheses; empty where it has none."""
    value = unfinished.so_far
    if value is None:
        return ""
    yes = cell.column.unit == YES_NO
    return so_far(yes_or_no(value) if yes else with_error(value, None, _decimals(cell.published)))


def how_far(unfinished: Unfinished) -> str:
    """Return which share of its run is done, or how many epochs."""
    if unfinished.fraction is None:
        return f"{unfinished.epochs:.3g} epochs"
    return f"{share(unfinished.fraction)} done"


def _decimals(published: Published | None) -> int:
    """Return as many decimals as the published number has, else two."""
    return max(-int(published.value.as_tuple().exponent), 0) if published else 2


def count_line(table: Table, verdicts: Mapping[str, Verdict]) -> str:
    """Return how many of the paper's numbers, or of ours, are in which state, in one sentence."""
    printed = [
        cell
        for cell in table.cells
        if cell.published and cell.row.published and cell.column.published
    ]
    counted = printed or [cell for cell in table.cells if not cell.repeats]
    states = Counter((verdicts.get(cell.id) or not_run(cell)).state for cell in counted)
    counts = ", ".join(f"{states[state]} {spoken(state)}" for state in STATES if states[state])
    what = f"Of {len(printed)} published numbers" if printed else "No published numbers; of ours"
    return f"{what}: {counts or 'none declared'}."
