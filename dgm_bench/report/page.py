"""One self-contained page: every table, verdict, run and plot, made only from files.

It loads nothing, follows the reader's light or dark theme, and is the same for the same
declarations and records. The tables stand in it as they are; what is told of a cell or a run is
data, of which a script makes what the reader asks for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from dgm_bench import __version__
from dgm_bench.compare import Beside, beside_stored
from dgm_bench.escaping import plain
from dgm_bench.planner import duration
from dgm_bench.records import RunRecord
from dgm_bench.report import figures
from dgm_bench.report.figures import FigureKind, figures_of
from dgm_bench.report.kept_figures import drawn_once
from dgm_bench.report.page_data import PageData
from dgm_bench.report.page_tables import Entry, TableView, by_importance, paper_of, parts_of
from dgm_bench.report.plots import to_svg
from dgm_bench.report.tables import CLAIMED, ORDERED, claimed, ordered
from dgm_bench.sealed import write_atomically
from dgm_bench.spec import YES_NO, Paper, Table
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict, judge_claims, judge_table, pool_variances
from dgm_bench.wording import MEASURED_ERROR, PLUS_MINUS, STATES, State, spoken

if TYPE_CHECKING:
    from jinja2 import Environment as Templates
    from markupsafe import Markup

    from dgm_bench.catalog import Catalog

TEMPLATES = Path(__file__).parent / "templates"
#: Pieces of the template that are written together.
PIECES = 10_000
#: Ends of lines before tags, which no browser shows.
_BREAKS = re.compile(r"\s*\n\s*<")
#: States that are no verdict on a published number.
_NO_VERDICT = ("measured", "unfinished", "not-run")


def write_report(
    path: Path, *, catalog: Catalog, store: Store, chosen: Collection[str] | None = None
) -> None:
    """Write the page.

    Args:
        path: The HTML file; replaced as a whole.
        catalog: The declarations.
        store: The records.
        chosen: Ids of the cells that it shows; None for all.

    Raises:
        ResultsError: When a record or curve cannot be read, or the file cannot be written.
    """
    page = _Page(catalog.papers, store, chosen)
    write_atomically(path, (_BREAKS.sub("<", plain(part)).encode() for part in page.parts()))


class _Page:
    """Gathers what the template needs."""

    def __init__(
        self, papers: Sequence[Paper], store: Store, chosen: Collection[str] | None
    ) -> None:
        self.papers, self.store, self.chosen = papers, store, chosen
        self.pool = pool_variances(store.records())
        self.data = PageData(store)
        self.beside = _own_beside(papers, store)
        self.texts: dict[str, str] = {}

    def parts(self) -> Iterator[str]:
        """Yield the page, part by part: with thousands of runs it is too long for memory."""
        whole = {table.name: table for paper in self.papers for table in paper.tables}
        papers = [paper_of(paper, self.chosen) for paper in by_importance(self.papers)]
        papers = [paper for paper in papers if paper.tables]
        views = [self._table(paper, t, whole[t.name]) for paper in papers for t in paper.tables]
        records = self._records(views)
        page = (
            _templates()
            .get_template("report.html")
            .stream(
                version=__version__,
                yes_no=YES_NO,
                papers=papers,
                views=views,
                part=self._part(),
                counts=_counts(views),
                states=STATES,
                no_verdict=_NO_VERDICT,
                plus_minus=PLUS_MINUS,
                measured_error=MEASURED_ERROR,
                runs=len(records),
                own=sum(map(self.store.is_own, records)),
                newest=max((record.created for record in records), default=""),
                hours=duration(sum(record.budget.train_seconds for record in records)),
                data=map(_markup, self.data.pieces(records)),
            )
        )
        page.enable_buffering(PIECES)
        yield from page

    def _part(self) -> str:
        """Return how many of all cells the page shows; empty where it shows all."""
        if self.chosen is None:
            return ""
        count = sum(len(table.cells) for paper in self.papers for table in paper.tables)
        return f"{len(self.chosen):,} of {count:,} cells"

    def _records(self, views: Sequence[TableView]) -> list[RunRecord]:
        """Return the runs that the page tells of, newest first: all, or those of its cells."""
        records = list(reversed(self.store.records()))
        if self.chosen is None:
            return records
        cells = (entry.cell for view in views for entry in view.cells.values())
        shown = {record.run_id for cell in cells for record in self.store.for_cell(cell)}
        return [record for record in records if record.run_id in shown]

    def _table(self, paper: Paper, table: Table, whole: Table) -> TableView:
        """Return a table with the verdicts that its cells have in the whole one."""
        verdicts = judge_table(whole, self.store, self.pool)
        runs = {cell.id: self.store.for_cell(cell) for cell in table.cells}
        entries = {}
        for cell in table.cells:
            entry = Entry(cell, verdicts[cell.id], self.beside.get(cell.id))
            entries[cell.row.id, cell.column.id] = entry
            self.data.add(paper, entry, runs[cell.id])
        states = {
            key: entry.verdict.state for key, entry in entries.items() if not entry.cell.repeats
        }
        shown = list(parts_of(table, states))
        judged = judge_claims(whole, self.store, self.pool) if table.cells == whole.cells else []
        claims = list(claimed(whole, judged))
        orders = list(ordered(whole, verdicts)) if table.cells == whole.cells else []
        below = [(title, texts) for title, texts in ((CLAIMED, claims), (ORDERED, orders)) if texts]
        figures = self._figures(table, runs, verdicts)
        return TableView(paper, table, shown, entries, figures, below)

    def _figures(
        self,
        table: Table,
        runs: Mapping[str, Sequence[RunRecord]],
        verdicts: Mapping[str, Verdict],
    ) -> list[tuple[FigureKind, list[Markup]]]:
        """Return what can be drawn of a table, by kind."""

        def draw() -> str:
            drawn = [
                (kind.name, to_svg(figure, _identifier(f"{table.name}-{name}")))
                for kind, name, figure in figures_of(table, runs, verdicts, self.store.known_curve)
            ]
            return json.dumps(drawn)

        counting = {cell: [self._text(record) for record in found] for cell, found in runs.items()}
        kinds = {kind.name: kind for kind in figures.FIGURES}
        drawers = [
            (name, kind.draw.__module__, kind.draw.__qualname__) for name, kind in kinds.items()
        ]
        given = table.model_dump_json(), repr(verdicts), json.dumps([counting, drawers])
        text = drawn_once(draw, *given)
        found = groupby(json.loads(text), key=lambda figure: figure[0])
        return [(kinds[name], [_markup(svg) for _, svg in group]) for name, group in found]

    def _text(self, record: RunRecord) -> str:
        """Return a digest of all that a record holds."""
        if record.run_id not in self.texts:
            self.texts[record.run_id] = sha256(record.model_dump_json().encode()).hexdigest()
        return self.texts[record.run_id]


def _own_beside(papers: Sequence[Paper], store: Store) -> dict[str, Beside]:
    """Return the cells that the user has runs of, with their numbers beside the stored ones."""
    if not any(map(store.is_own, store.records())):
        return {}
    cells = (cell for paper in papers for table in paper.tables for cell in table.cells)
    beside = {found.cell.id: found for found in beside_stored(cells, store)}
    return {id: found for id, found in beside.items() if found.yours.train_seconds is not None}


def _counts(views: Iterable[TableView]) -> list[tuple[State, int]]:
    """Return how many cells are in each state that occurs, those of one run again left out."""
    entries = (entry for view in views for entry in view.cells.values())
    found = Counter(entry.verdict.state for entry in entries if not entry.cell.repeats)
    return [(state, found[state]) for state in STATES if found[state]]


# --------------------------------------------------------------------------- HTML


def _templates() -> Templates:
    from jinja2 import Environment as Templates
    from jinja2 import FileSystemLoader, StrictUndefined

    environment = Templates(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spoken"] = spoken
    return environment


def _identifier(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _markup(text: str) -> Markup:
    """Return a figure, whose texts matplotlib escapes, or data, as part of the page."""
    from markupsafe import Markup

    return Markup(text)
