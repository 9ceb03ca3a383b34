"""The numbers of a cell as people read them, and how many cells are in which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dgm_bench.spec import YES_NO, Cell, Published, Table
from dgm_bench.verdict import Unfinished, Verdict, not_run
from dgm_bench.wording import (
    STATES,
    UNMEASURED,
    as_printed,
    decimals_of,
    share,
    so_far,
    spoken,
    with_error,
    yes_or_no,
)

if TYPE_CHECKING:
    from dgm_bench.compare import Side


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
        return _so_far(cell, verdict.unfinished.so_far)
    if verdict.mean is not None and cell.column.unit == YES_NO:
        return yes_or_no(verdict.mean)
    return measured_number(verdict, cell.published)


def measured_number(verdict: Verdict, published: Published | None) -> str:
    """Return a verdict's mean and error with the decimals of the published number, else two."""
    if verdict.mean is None:
        return ""
    return with_error(verdict.mean, verdict.error, decimals_of(published))


def side_text(cell: Cell, side: Side) -> str:
    """Return the number of one side of a comparison as :func:`measured_text` has a verdict's."""
    if side.mean is not None:
        yes = cell.column.unit == YES_NO
        decimals = decimals_of(cell.published)
        return yes_or_no(side.mean) if yes else with_error(side.mean, side.error, decimals)
    return _so_far(cell, side.so_far)


def _so_far(cell: Cell, value: float | None) -> str:
    """Return a number of an unfinished run in parentheses; empty where it has none."""
    if value is None:
        return ""
    yes = cell.column.unit == YES_NO
    return so_far(yes_or_no(value) if yes else with_error(value, None, decimals_of(cell.published)))


def how_far(unfinished: Unfinished) -> str:
    """Return which share of its run is done, or how many epochs.

    Where early stopping ends a run, a share is of the steps expected, and a ~ says so.
    """
    if unfinished.fraction is None:
        return f"{unfinished.epochs:.3g} epochs"
    return f"{'~' * unfinished.early_stopping}{share(unfinished.fraction)} done"


def count_line(table: Table, verdicts: Mapping[str, Verdict]) -> str:
    """Return how many of the paper's numbers, or of ours, are in which state.

    Numbers that were published elsewhere have a sentence of their own. What is unfinished or was
    not run is counted apart: it has no verdict.
    """
    known = [cell for cell in table.cells if cell.published and not cell.repeats]
    printed = [cell for cell in known if cell.row.published and cell.column.published]
    further = [cell for cell in known if cell not in printed]
    if not known:
        ours = _in_states([cell for cell in table.cells if not cell.repeats], verdicts)
        return f"No published numbers; of ours: {ours or 'none declared'}."
    if not printed or not further:
        return f"Of {len(known)} published numbers: {_in_states(known, verdicts)}."
    return (
        f"Of {len(printed)} numbers of the paper's table: {_in_states(printed, verdicts)}. "
        f"Of {len(further)} published elsewhere: {_in_states(further, verdicts)}."
    )


def _in_states(cells: Sequence[Cell], verdicts: Mapping[str, Verdict]) -> str:
    states = Counter((verdicts.get(cell.id) or not_run(cell)).state for cell in cells)
    judged = [state for state in STATES if states[state] and state not in UNMEASURED]
    missing = [state for state in UNMEASURED if states[state]]
    parts = [", ".join(f"{states[s]} {spoken(s)}" for s in group) for group in (judged, missing)]
    return "; not measured: ".join(filter(None, parts))
