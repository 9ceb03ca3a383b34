"""A finished run as one row: its model, data and number, and how it compares with the stored one.

Where a plan has very many runs, short ones share a row that counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from dgm_bench.compare import Beside, beside
from dgm_bench.compare.matching import by_recipe
from dgm_bench.horizon import fraction_done
from dgm_bench.measured import error_bar
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.records import Metric, RunRecord
from dgm_bench.spec import YES_NO, Cell
from dgm_bench.store import Store
from dgm_bench.verdict import Pool, pool_variances
from dgm_bench.wording import PLUS_MINUS, counted, decimals_of, share, so_far, with_error, yes_or_no

#: With more rows than these, runs that take less than so many seconds share rows.
MOST_ROWS, SHORT_SECONDS = 18, 60.0
#: After so many rows, so many further runs share one.
TOGETHER = 16
#: What stands in place of a number that the run does not have.
NO_NUMBER = "-"
#: What is worth a row of its own, however many there are.
_ALARMS = ("worse", "better", "changed", "unfinished")
_STYLES = {"equal": "green", "worse": "red", "better": "magenta", "unfinished": "yellow"}
_HEADINGS = ("model", "data", f"measured {PLUS_MINUS}2se", "", "vs stored", "gap")
#: Columns that never shrink below these widths, and the space that they share for names.
_LEAST_NAME, _LEAST_DATA = 10, 14
_NUMBER, _AGAINST, _GAP = 14, 12, 5


@dataclass(frozen=True)
class Row:
    """What is told of a finished run, or of several.

    Attributes:
        model: Its row in the paper's table.
        data: What it was trained on.
        number: What it measured, with its error.
        unit: Of the number.
        against: How it compares with the stored number of the same cell.
        gap: To the entropy of the data, in nats, where that is known.
        kept: Whether an earlier command did it.
        text: What is told of several runs, in place of all but the names.
    """

    model: str
    data: str
    number: str = NO_NUMBER
    unit: str = ""
    against: str = ""
    gap: str = ""
    kept: bool = False
    text: str = ""


# --------------------------------------------------------------------------- contents


class StoredNumbers:
    """Compares runs with the stored ones of their cells.

    Args:
        store: As it was before the command; of one folder alone, all that is there is stored.
    """

    def __init__(self, store: Store | None = None) -> None:
        records = store.records() if store is not None else []
        stored = [r for r in records if not (r.modified or (store and store.is_own(r)))]
        self._runs = by_recipe(stored)
        self._pool = pool_variances(stored) if stored else Pool()

    def beside(self, cell: Cell, record: RunRecord) -> Beside | None:
        """Return a run's number beside the stored one of its cell; None where nothing is stored."""
        stored = self._runs.get(record.recipe_hash, ())
        if not stored or record.modified:
            return None
        same = [run for run in stored if run.seed == record.seed]
        alike = beside(cell, [record], same, self._pool)
        return alike if alike.word == "equal" else beside(cell, [record], stored, self._pool)


def row_of(run: PlannedRun, record: RunRecord, stored: StoredNumbers, *, kept: bool = False) -> Row:
    """Return the row of a run that ended with its stopping rule or its budget."""
    cell, seed = run.cell, f", seed {run.seed}" if run.seed else ""
    metric, gap = record.metric(cell.metric), record.metric("gap")
    known = gap.value if gap is not None and cell.metric != "gap" else None
    return Row(
        model=cell.row.title,
        data=run.place + seed,
        number=_number(cell, metric, record),
        unit=_unit(metric.unit) if metric else "",
        against=_against(cell, record, stored),
        gap="" if known is None or record.outcome.cut_short else _gap(known),
        kept=kept,
    )


def _gap(nats: float) -> str:
    """Return a gap in five characters, up to 999 nats."""
    decimals = 3 if 0 <= nats < 9.9995 else 2 if nats < 99.995 else 1
    return f"{nats:.{decimals}f}"


def _number(cell: Cell, metric: Metric | None, record: RunRecord) -> str:
    if metric is None or metric.value is None:
        return NO_NUMBER
    if metric.unit == YES_NO:
        return yes_or_no(metric.value)
    decimals = decimals_of(cell.published)
    if record.outcome.cut_short:
        return so_far(with_error(metric.value, None, decimals))
    error = error_bar(None, metric.se)
    return with_error(metric.value, error, decimals if cell.published else 3)


def _unit(unit: str) -> str:
    return "" if unit == YES_NO else unit


def _against(cell: Cell, record: RunRecord, stored: StoredNumbers) -> str:
    if record.outcome.cut_short:
        done = fraction_done(record)
        return "unfinished" + (f" {share(done)}" if done is not None else "")
    found = stored.beside(cell, record)
    if found is None:
        return "none stored"
    if found.word == "not comparable" and None not in (found.yours.mean, found.stored.mean):
        return f"{(found.yours.mean or 0.0) - (found.stored.mean or 0.0):+.3g}"
    return found.word


# --------------------------------------------------------------------------- layout


class Layout:
    """Where the columns of rows are, in a width: names give way first, then the gap.

    Args:
        runs: All that may get a row.
    """

    def __init__(self, runs: Iterable[PlannedRun] = ()) -> None:
        runs = list(runs)
        seeds = max((len(f", seed {run.seed}") for run in runs if run.seed), default=0)
        units = {_unit(run.cell.column.unit) for run in runs}
        self._model = max((cell_len(run.cell.row.title) for run in runs), default=20)
        self._data = max((cell_len(run.place) for run in runs), default=12) + seeds
        self._units = max(map(cell_len, units), default=0)

    def heading(self, width: int) -> Text:
        """Return the names of the columns."""
        return Text(_joined(_HEADINGS, self._widths(width)).rstrip(), style="bold")

    def line(self, row: Row, width: int) -> Text:
        """Return a row, in one line no longer than the width."""
        widths = self._widths(width)
        if row.text:
            text = Text(f"{self.name(row.model, row.data, width)} {row.text}")
        else:
            cells = (row.model, row.data, row.number, row.unit)
            text = Text(f"{_joined(cells, widths[:4])} ")
            # Where there is no gap, what stands before it may take its place.
            against = _fitted(row.against, widths[4]) if row.gap else row.against
            text.append(against, _STYLES.get(row.against.partition(" ")[0], ""))
            text.append(f" {row.gap}" if widths[5] else "")
        text.rstrip()
        text.truncate(width, overflow="ellipsis")
        text.stylize("dim" if row.kept else "")
        return text

    def name(self, model: str, data: str, width: int) -> str:
        """Return model and data as they stand in a row."""
        return _joined((model, data), self._widths(width)[:2])

    def _widths(self, width: int) -> list[int]:
        """Return the width of each column; the gap's is 0 where there is no room for it."""
        fixed = [_NUMBER, self._units, _AGAINST]
        names = width - sum(fixed) - 4
        gap = _GAP if names - _GAP - 1 >= _LEAST_NAME + _LEAST_DATA else 0
        names -= gap + 1 if gap else 0
        least = max(min(_LEAST_DATA, names - _LEAST_NAME), 4)
        data = min(self._data, max(names - self._model, least))
        model = max(min(self._model, names - data), _LEAST_NAME)
        return [model, data, *fixed, gap]


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(_fitted(text, size) for text, size in zip(cells, widths, strict=True) if size)


def _fitted(text: str, size: int) -> str:
    short = cell_len(text) <= size
    return set_cell_size(text, size) if short else set_cell_size(text, size - 1) + "…"


# --------------------------------------------------------------------------- rows that are shared

Key = tuple[str, int]


def key_of(run: PlannedRun) -> Key:
    """Return what tells runs of a command apart."""
    return run.chosen_recipe.content_hash, run.seed


@dataclass
class Shared:
    """Runs that share a row."""

    runs: set[Key]
    rows: list[Row] = field(default_factory=list)

    def take(self, key: Key, row: Row) -> Row | None:
        """Take in a run; return a row where it, or now all of them, are to be told."""
        self.runs.discard(key)
        if row.against.startswith(_ALARMS):
            return row
        self.rows.append(row)
        return self.told() if not self.runs else None

    def told(self) -> Row | None:
        """Return the row of those that ended since it was told last, if there are any."""
        rows, self.rows = self.rows, []
        if len(rows) < 2:
            return rows[0] if rows else None
        models, data = (dict.fromkeys(row.model for row in rows), {row.data for row in rows})
        words = Counter(row.against if row.against[:1].isalpha() else "unjudged" for row in rows)
        found = ", ".join(f"{n} {word}" for word, n in words.items() if word)
        what = min(data) if len(data) == 1 else f"{len(data)} data sets"
        kept = all(row.kept for row in rows)
        text = f"{counted(len(rows), 'run')}: {found}"
        return Row(", ".join(models), what, kept=kept, text=text)


class Rows:
    """Lets the first rows through, and what is worth one; puts the others together."""

    def __init__(self) -> None:
        self._shown, self._rest = 0, Shared(set())

    def take(self, row: Row) -> Row | None:
        """Take in a row; return what is to be told now."""
        if row.text or row.against.startswith(_ALARMS) or self._shown < MOST_ROWS:
            self._shown += 1
            return row
        self._rest.rows.append(row)
        return self._rest.told() if len(self._rest.rows) == TOGETHER else None

    def told(self) -> Row | None:
        """Return the row of those that still wait, if there are any."""
        return self._rest.told()


def shared_rows(plan: Plan) -> dict[Key, Shared]:
    """Return which runs of a plan share a row: short ones of a table, the least urgent first."""
    groups: dict[tuple[str, int], list[PlannedRun]] = {}
    for run in plan.chosen:
        if run.seconds is not None and run.seconds < SHORT_SECONDS:
            where = f"{run.cell.paper}/{run.cell.table}", run.cell.priority
            groups.setdefault(where, []).append(run)
    rows, found = len(plan.chosen), dict[Key, Shared]()
    for (_, _), runs in sorted(groups.items(), key=lambda group: group[0][1]):
        if rows > MOST_ROWS and len(runs) > 1:
            rows -= len(runs) - 1
            shared = Shared({key_of(run) for run in runs})
            found |= dict.fromkeys(shared.runs, shared)
    return found


def runs_by_key(plan: Plan) -> Mapping[Key, PlannedRun]:
    """Return all runs of a plan that may come to run."""
    return {key_of(run): run for run in plan.runs if run.recipe is not None}
