"""The user's own results beside those that came with the suite, and the published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dgm_bench.compare.matching import by_recipe
from dgm_bench.compare.pairs import Pair, cut_short
from dgm_bench.compare.rows import ComparedRow, Side
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell, Published
from dgm_bench.store import Store
from dgm_bench.verdict import Pool, Unfinished, furthest, pool_variances
from dgm_bench.wording import RowState, decimals_of

#: What one's own number is, held against the stored one; empty where there are not both.
Word = Literal[
    "equal",
    "within noise",
    "worse",
    "better",
    "changed",
    "not comparable",
    "unfinished",
    "failed",
    "",
]
_WORDS: dict[RowState, Word] = {
    "same": "within noise",
    "noise": "within noise",
    "worse": "worse",
    "better": "better",
    "changed": "changed",
    "not-comparable": "not comparable",
}


@dataclass(frozen=True)
class Beside:
    """A cell with the user's own number, the stored one and the published one, in its unit.

    Attributes:
        cell: The cell.
        yours: Mean and spread over the user's own seeds; of runs that were all cut short there is
            no mean, and ``so_far`` is that of models on the way.
        stored: Likewise of the runs that came with the suite.
        word: How the two compare: ``equal`` where they are the same as they are printed, then
            whether a change is more than noise (:mod:`dgm_bench.compare`).
        reason: The same in a sentence.
        unfinished: How far the user's runs got, where all were cut short.
    """

    cell: Cell
    yours: Side
    stored: Side
    word: Word
    reason: str
    unfinished: Unfinished | None = None

    @property
    def published(self) -> Published | None:
        """The published number."""
        return self.cell.published


def beside_stored(cells: Iterable[Cell], store: Store) -> list[Beside]:
    """Return cells with the user's own numbers, stored ones and published ones, in order.

    Records that ``--set`` modified are left out, as in verdicts.

    Args:
        cells: The cells; those without a recipe are left out.
        store: Of both results folders.
    """
    counting = [record for record in store.records() if not record.modified]
    yours = by_recipe(record for record in counting if store.is_own(record))
    stored = by_recipe(record for record in counting if not store.is_own(record))
    pool = pool_variances(record for record in counting if not store.is_own(record))
    return [
        beside(cell, yours.get(known, []), stored.get(known, []), pool)
        for cell in cells
        if cell.recipe and (known := cell.recipe.content_hash)
    ]


def beside(
    cell: Cell, yours: Sequence[RunRecord], stored: Sequence[RunRecord], pool: Pool
) -> Beside:
    """Return a cell with the number of the user's runs and that of the stored ones.

    Args:
        cell: The cell.
        yours: The user's own runs of its recipe, one for each seed.
        stored: Likewise those that came with the suite.
        pool: Variance priors of the stored records.
    """
    if not (yours or stored):
        return Beside(cell, Side(), Side(), "", "nothing is stored, and nothing was run")
    pair = Pair(cell.id, cell.metric, yours, stored, cell.column.direction)
    row = pair.judged(pool) if yours and stored else pair.alone()
    short = furthest(cell, yours, lambda _: ()) if cut_short(yours) else None
    return Beside(cell, row.new, row.baseline, _word(cell, row, yours), row.reason, short)


def _word(cell: Cell, row: ComparedRow, yours: Sequence[RunRecord]) -> Word:
    if not yours:
        return ""
    ended = [run for run in yours if not run.outcome.cut_short]
    if not ended:
        return "unfinished"
    if all(run.outcome.failed for run in ended):
        return "failed"
    if row.equal(decimals_of(cell.published)):
        return "equal"
    return _WORDS.get(row.state, "")
