"""The paper's table with the measured numbers, their errors and verdicts beside the published."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dgm_bench.escaping import plain
from dgm_bench.report import fields, grid
from dgm_bench.report.footnotes import Errata, Footnotes, Placement
from dgm_bench.report.grid import Entry, Heading, Line, Notes, Page, Section
from dgm_bench.report.numbers import count_line, how_far, measured_text, published_text
from dgm_bench.report.time_to_quality import TimeToQuality, machine_notes, quality_section
from dgm_bench.spec import YES_NO, Cell, Column, Direction, Row, Table
from dgm_bench.verdict import ClaimVerdict, Verdict, extrapolated, not_run, published_orders
from dgm_bench.wording import MEASURED_LEGEND, STATES, counted, published_legend, whose

Format = Literal["text", "markdown", "csv", "json", "latex"]

#: Heads what the paper says of its rows.
CLAIMED = "What the paper says without numbers, on columns of ours"
#: Heads whether the rows of columns come as published.
ORDERED = "Order of the rows, measured beside published (Kendall's tau: 1 where it is the same)"
_ARROWS = {"lower": "↓", "higher": "↑", "none": ""}


def render_table(
    table: Table,
    verdicts: Mapping[str, Verdict],
    format: Format = "text",
    *,
    width: int = 160,
    colour: bool = False,
    times: Mapping[str, TimeToQuality] | None = None,
    own: str = "your results folder",
    fit: Callable[[str], str] = plain,
    claims: Sequence[ClaimVerdict] = (),
) -> str:
    """Return a table of a paper, published against measured.

    Args:
        table: The declarations.
        verdicts: Verdicts by cell; a cell without one counts as not run.
        format: ``text``, ``markdown`` and ``latex`` show first the paper's rows and columns, then
            further rows, then columns of ours; ``csv`` and ``json`` have one line a cell.
        width: Most columns of a line of text; wider tables are continued below.
        colour: Whether text has the colours of a terminal.
        times: Time to quality by cell, where it is known.
        own: The folder of the user's own runs, whose numbers are marked.
        fit: Gives a text the characters that what shows it has.
        claims: What is claimed of its rows, as it was judged.
    """
    times = times or {}
    known = {cell.id: verdicts.get(cell.id) or not_run(cell) for cell in table.cells}
    if format == "csv":
        return fields.to_csv(table, known, times)
    if format == "json":
        return fields.to_json(table, known, times, claims)
    page = _Layout(table, known, times, own, claims).page()
    if format == "text":
        return grid.to_text(page, width, colour, fit)
    return grid.to_markdown(page) if format == "markdown" else grid.to_latex(page)


def claimed(table: Table, claims: Iterable[ClaimVerdict]) -> Iterable[str]:
    """Yield each claim and whether it shows, column by column; those of columns not run last."""
    titles = {column.id: column.title for column in table.columns}
    idle: dict[str, list[str]] = {}
    for verdict in claims:
        said = f"{verdict.claim.title} ({verdict.claim.where})"
        if verdict.state == "not-run":
            idle.setdefault(said, []).append(titles[verdict.column])
        else:
            yield f"{said}: {titles[verdict.column]}: {verdict.reason}"
    for said, columns in idle.items():
        yield f"{said}: {'; '.join(columns)}: not run yet"


def ordered(table: Table, verdicts: Mapping[str, Verdict]) -> Iterable[str]:
    """Yield by column how far its rows come in their published order."""
    titles = {column.id: column.title for column in table.columns}
    for order in published_orders(table, verdicts):
        within = ""
        if order.low is not None:
            within = f", 90 % interval {order.low:.2f} to {order.high:.2f}"
        rows = counted(len(order.rows), "row")
        yield f"{titles[order.column]}: {order.tau:.2f}{within}, of {rows}"


def _aligned(texts: Sequence[str]) -> Callable[[str], str]:
    """Return a function that pads numbers so that their decimal points stand below each other."""
    longest = max((_places(text) for text in texts if text), default=0)
    return lambda text: text and " " * (longest - _places(text)) + text


def _places(text: str) -> int:
    return len(text.split(" ")[0].split(".")[0])


# --------------------------------------------------------------------------- layout


class _Layout:
    """Arranges a table and its verdicts into a page."""

    def __init__(
        self,
        table: Table,
        verdicts: Mapping[str, Verdict],
        times: Mapping[str, TimeToQuality],
        own: str,
        claims: Sequence[ClaimVerdict],
    ) -> None:
        self.table, self.verdicts, self.times, self.own = table, verdicts, times, own
        self.claims = claims
        shown = [cell for cell in table.cells if not cell.repeats]
        self.cells = {(cell.row.id, cell.column.id): cell for cell in shown}
        self.reasons, self.errata = Footnotes(), Errata(table)
        self.published = any(cell.published for cell in table.cells)
        self.columns: dict[str, Column] = {}
        idle = {column.id for column in self._ours() if not self._ran(column)}
        self.patterns = dict(_patterns(table, self._ours(), idle))

    def page(self) -> Page:
        """Return the paper's part, further rows, columns of ours, and the notes."""
        paper_rows = [row for row in self.table.rows if row.published]
        further_rows = [row for row in self.table.rows if not row.published]
        columns = [column for column in self.table.columns if column.published]
        ours = [column for column in self._ours() if self._ran(column)]
        sections = [
            self._section("", paper_rows, columns),
            self._section("Further rows, which the paper does not print", further_rows, columns),
            self._section(
                "Columns of ours, which the paper does not have" if self.published else "",
                self._rows_run(ours),
                ours,
            ),
            quality_section(self.table.cells, self.times),
        ]
        title = f"{self.table.title} ({self.table.where}) ({self.table.name})"
        return Page(title, tuple(s for s in sections if s.rows), tuple(self._notes()))

    def group_of(self, column: Column) -> str:
        """Return what a column shares with those it stays beside: data, or else the unit."""
        alike = [other for other in self.table.columns if other.data == column.data]
        return column.data if len(alike) > 1 else column.unit

    def _ours(self) -> list[Column]:
        return [column for column in self.table.columns if not column.published]

    def _ran(self, column: Column) -> bool:
        cells = self._among(self.table.rows, [column])
        return any(self.verdicts[cell.id].state != "not-run" for cell in cells)

    def _rows_run(self, columns: Sequence[Column]) -> list[Row]:
        """Return the rows that have a number in one of the columns."""

        def ran(row: Row) -> bool:
            cells = self._among([row], columns)
            return any(self.verdicts[cell.id].state != "not-run" for cell in cells)

        return [row for row in self.table.rows if ran(row)]

    def _section(self, title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Section:
        rows = [row for row in rows if self._among([row], columns)]
        columns = [column for column in columns if self._among(rows, [column])]
        self.columns |= {column.id: column for column in columns}
        placed = Placement(self._among(rows, columns))
        styled = [_Styled(self, column, rows, placed) for column in columns]
        headings = (Heading(()), *(column.heading() for column in styled))
        body = []
        for row in rows:
            reason = self._shared_reason(self._among([row], columns))
            label = row.title + self.errata.labels(placed.row(row.id))
            label += f" {self.reasons.refer(reason)}" if reason else ""
            name = Entry((Line(label, "bold"),))
            body.append((name, *(column.entry(row, blank=not reason) for column in styled)))
        return Section(title, headings, tuple(body))

    def why_not(self, cell: Cell) -> str:
        """Return why a cell was not run; in a column of ours, the command that runs its like."""
        reason = self.verdicts[cell.id].reason
        if cell.column.published or reason.startswith(("data", "no recipe")):
            return reason
        return f"not run yet: dgm-bench run '{self.table.name}/{self.patterns[cell.column.id]}'"

    def _among(self, rows: Sequence[Row], columns: Sequence[Column]) -> list[Cell]:
        found = (self.cells.get((row.id, column.id)) for row in rows for column in columns)
        return [cell for cell in found if cell is not None]

    def _shared_reason(self, cells: Sequence[Cell]) -> str:
        """Return why a whole row of published numbers was not run, when one reason says it."""
        if not any(cell.published for cell in cells):
            return ""
        verdicts = [self.verdicts[cell.id] for cell in cells]
        reasons = {v.reason if v.state == "not-run" else "" for v in verdicts}
        return reasons.pop() if len(reasons) == 1 else ""

    # ------------------------------------------------------------------ notes

    def _notes(self) -> Iterable[Notes]:
        yield Notes("", (("", count_line(self.table, self.verdicts)),))
        yield Notes(CLAIMED, tuple(("", text) for text in claimed(self.table, self.claims)))
        yield Notes(ORDERED, tuple(("", text) for text in ordered(self.table, self.verdicts)))
        yield Notes("How to read it", tuple(("", text) for text in self._legend()))
        yield Notes("Columns", tuple(self._explained()))
        yield Notes("Notes", self.reasons.items())
        ours = "Columns of ours" if self.published else "Columns"
        yield Notes(f"{ours} that were not run", tuple(self._idle()))
        yield Notes("Errata of the published numbers", self.errata.notes.items())
        yield machine_notes(self.times)

    def _explained(self) -> Iterable[tuple[str, str]]:
        """Yield what the declarations say of the columns shown, equal notes once."""
        titles: dict[str, list[str]] = {}
        for column in self.columns.values():
            if column.note:
                titles.setdefault(column.note, []).append(column.title)
        for note, columns in titles.items():
            yield "", f"{'; '.join(columns)}: {note}"

    def _idle(self) -> Iterable[tuple[str, str]]:
        """Yield the columns of ours without any run, by reason."""
        columns: dict[str, list[str]] = {}
        for column in self._ours():
            cells = self._among(self.table.rows, [column])
            if cells and not self._ran(column):
                reasons = {self.why_not(cell) for cell in cells}
                columns.setdefault("; ".join(sorted(reasons)), []).append(column.title)
        for reason, titles in columns.items():
            yield "", f"{'; '.join(titles)}: {reason}"

    def _legend(self) -> Iterable[str]:
        directions = {c.direction for c in self.table.columns if c.unit != YES_NO}
        if said := ". ".join(part for part in self._reading(directions) if part):
            yield said
        yield from published_legend(self.table.cells)
        states = {verdict.state for verdict in self.verdicts.values()}
        if directions and any(verdict.mean is not None for verdict in self.verdicts.values()):
            yield MEASURED_LEGEND
        known = (words for state, words in STATES.items() if state in states)
        yield "; ".join(f"{words.mark} {words.brief}" for words in known) + "."
        if any(verdict.own_seeds or verdict.own_unfinished for verdict in self.verdicts.values()):
            yield f"yours: of your runs, in {self.own}; all others came with the suite."
        if states & {"not-run", "not-comparable", "unfinished"}:
            yield f"To run what can run: dgm-bench run '{self.table.name}/*'"

    def _reading(self, directions: Collection[Direction]) -> Iterable[str]:
        """Yield which way is better, and what stands above what."""
        better = (d for d in ("lower", "higher") if d in directions)
        yield "; ".join(f"{_ARROWS[d]} {d} is better" for d in better)
        if self.published and directions:
            yield "Above the published number, below it the one measured here."
        elif self.published:
            yield "Above what was published, below it what a check of the trained model says."


def _patterns(
    table: Table, ours: Sequence[Column], idle: Collection[str]
) -> Iterable[tuple[str, str]]:
    """Yield by column what runs it, the same for columns whose cells are served by one run.

    That is the whole table where all its columns are, otherwise the column with most recipes; of
    one that was not run at all one of its kind: of the others some rows were, which would go first.
    """
    recipes: dict[str, set[str]] = {column.id: set() for column in ours}
    for cell in table.cells:
        if cell.column.id in recipes and cell.recipe:
            recipes[cell.column.id].add(cell.recipe.content_hash)
    for column, own in recipes.items():
        alike = recipes.keys() & idle if column in idle else recipes.keys()
        like = [other for other in recipes if other in alike and own <= recipes[other]]
        like = like if own else [column]
        widest = max(like, key=lambda other: len(recipes[other]))
        served = [
            other for other, theirs in recipes.items() if theirs and theirs <= recipes[widest]
        ]
        whole = len(served) > 1 and len(served) == len(table.columns)
        yield column, "*" if whole else f"*/{widest}"


@dataclass
class _Styled:
    """One column: its entries, with decimal points aligned and the best published number bold."""

    layout: _Layout
    column: Column
    rows: Sequence[Row]
    placed: Placement

    def __post_init__(self) -> None:
        cells = [cell for row in self.rows if (cell := self._cell(row))]
        texts = [t for cell in cells for t in (self._published(cell), self._measured(cell))]
        self.align = _aligned(texts)
        values = [c.published.value for c in cells if c.published and c.row.published]
        choose = min if self.column.direction == "lower" else max
        ranked = self.column.published and len(values) > 1 and not self._ticks
        self.best = choose(values) if ranked else None

    def heading(self) -> Heading:
        """Return the column's title, which way is better, and its unit."""
        marks = self.layout.errata.labels(self.placed.column(self.column.id))
        if self._ticks:
            return Heading((f"{self.column.title}{marks}",))
        title = f"{self.column.title}{marks} {_ARROWS[self.column.direction]}".rstrip()
        lines = (*title.replace(": ", ":\n").split("\n"), self.column.unit)
        return Heading(lines, self.layout.group_of(self.column))

    def entry(self, row: Row, *, blank: bool) -> Entry:
        """Return what stands in a row; ``blank`` says whether a missing number is marked."""
        cell = self._cell(row)
        if cell is None:
            return Entry()
        verdict = self.layout.verdicts[cell.id]
        lines = [self._published_line(cell)] if cell.published else []
        if measured := self._measured(cell):
            lines.append(Line(self.align(measured), STATES[verdict.state].style))
        if verdict.state != "not-run" or (blank and self.column.published):
            lines.append(Line(self._mark(cell, verdict), STATES[verdict.state].style))
        if verdict.unfinished is not None and verdict.unfinished.forecast is not None:
            ahead = f"forecast {extrapolated(verdict.unfinished)}"
            lines.append(Line(ahead, STATES[verdict.state].style))
        if verdict.own_unfinished is not None:
            lines.append(Line(f"yours {how_far(verdict.own_unfinished)}", "dim"))
        return Entry((*lines, *self._context(cell, verdict)))

    def _cell(self, row: Row) -> Cell | None:
        return self.layout.cells.get((row.id, self.column.id))

    @property
    def _ticks(self) -> bool:
        return self.column.unit == YES_NO

    def _published(self, cell: Cell) -> str:
        return published_text(cell)

    def _measured(self, cell: Cell) -> str:
        return measured_text(cell, self.layout.verdicts[cell.id])

    def _published_line(self, cell: Cell) -> Line:
        text = self.align(self._published(cell))
        text += self.layout.errata.labels(self.placed.cell(cell))
        best = cell.published is not None and cell.published.value == self.best
        return Line(text, bold=best and cell.row.published)

    def _mark(self, cell: Cell, verdict: Verdict) -> str:
        parts = [STATES[verdict.state].mark, _extent(verdict), self._reference(cell, verdict)]
        return " ".join(part for part in parts if part)

    def _reference(self, cell: Cell, verdict: Verdict) -> str:
        if verdict.state == "not-run":
            return self.layout.reasons.refer(self.layout.why_not(cell))
        if verdict.state == "not-comparable":
            return self.layout.reasons.refer(f"not comparable: {verdict.reason}")
        if verdict.state == "measured" and not verdict.remarks:
            return ""
        text = "; ".join(verdict.remarks) if verdict.state == "measured" else verdict.reason
        return self.layout.reasons.refer(f"{cell.row.title}, {cell.column.title}: {text}")

    def _context(self, cell: Cell, verdict: Verdict) -> Iterable[Line]:
        if verdict.gap is not None:
            yield Line(f"gap {verdict.gap:.3f}", "dim")
        beside = self.layout.cells.get((cell.row.id, cell.column.beside or ""))
        if beside is not None and beside.published and verdict.mean is not None:
            yield Line(f"cf. {beside.published.value}", "dim")


def _extent(verdict: Verdict) -> str:
    """Return over how many seeds a number is, or how far an unfinished run got, and whose it is."""
    own, yours = verdict.own_seeds, ", yours" * bool(verdict.own_seeds)
    if verdict.unfinished is not None:
        return how_far(verdict.unfinished) + yours
    if not verdict.seeds:
        return f"failed{yours}" if verdict.state == "failed" else ""
    seeds = counted(verdict.seeds, "seed")
    if verdict.more_seeds:
        seeds = f"{verdict.seeds}+{verdict.more_seeds} seeds"
    return seeds + whose(verdict.seeds, own)
