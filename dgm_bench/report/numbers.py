"""The numbers of a cell as people read them, and how many cells are in which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dgm_bench.spec import YES_NO, Cell, Published, Table
from dgm_bench.verdict import Verdict, not_run
from dgm_bench.wording import STATES, as_printed, spoken, with_error, yes_or_no


def published_text(cell: Cell) -> str:
    """Return the published number, or yes or no for a property; empty where there is none."""
    if cell.published is None:
        return ""
    if cell.column.unit == YES_NO:
        return yes_or_no(float(cell.published.value))
    return as_printed(cell.published)


def measured_text(cell: Cell, verdict: Verdict) -> str:
    """Return the measured number with its error, or yes or no for a property."""
    if verdict.mean is not None and cell.column.unit == YES_NO:
        return yes_or_no(verdict.mean)
    return measured_number(verdict, cell.published)


def measured_number(verdict: Verdict, published: Published | None) -> str:
    """Return a verdict's mean and error with the decimals of the published number, else two."""
    if verdict.mean is None:
        return ""
    decimals = max(-int(published.value.as_tuple().exponent), 0) if published else 2
    return with_error(verdict.mean, verdict.error, decimals)


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
