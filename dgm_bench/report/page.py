"""One self-contained page: every table, verdict, run and plot, made only from files.

It loads nothing from the network, follows the reader's light or dark theme, and is the same
for the same declarations and records.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from dgm_bench import __version__
from dgm_bench.escaping import plain
from dgm_bench.planner import duration, gigabytes, run_command
from dgm_bench.records import RunRecord, kept_pictures
from dgm_bench.report.figures import FigureKind, figures_of
from dgm_bench.report.numbers import measured_text, published_text
from dgm_bench.report.plots import learning_curve, to_svg
from dgm_bench.sealed import write_atomically
from dgm_bench.spec import YES_NO, Cell, Column, Paper, Recipe, Row, Source, Table
from dgm_bench.store import Store
from dgm_bench.verdict import Pool, Verdict, judge_table, pool_variances
from dgm_bench.wording import (
    MEASURED_ERROR,
    PLUS_MINUS,
    STATES,
    State,
    published_error,
    spoken,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from dgm_bench.catalog import Catalog

TEMPLATES = Path(__file__).parent / "templates"


def write_report(path: Path, *, catalog: Catalog, store: Store) -> None:
    """Write the page.

    Args:
        path: The HTML file; replaced as a whole.
        catalog: The declarations.
        store: The records.

    Raises:
        ResultsError: When a record or curve cannot be read, or the file cannot be written.
    """
    page = _Page(catalog.papers, store)
    write_atomically(path, plain(page.html()).encode())


# --------------------------------------------------------------------------- what is shown


@dataclass(frozen=True)
class RunView:
    """One run as the page shows it."""

    record: RunRecord
    value: str
    error: str
    time: str
    memory: str


@dataclass(frozen=True)
class CellView:
    """One cell as the page shows it."""

    cell: Cell
    verdict: Verdict
    published: str
    measured: str
    pm_meaning: str
    source: Source | None
    command: str
    settings: Sequence[tuple[str, str]]
    runs: Sequence[RunView]
    environment: Sequence[tuple[str, str]]
    curve: Markup | None
    pictures: Sequence[tuple[str, str]]
    shown_by: Cell | None

    @property
    def anchor(self) -> str:
        """Identifier of the cell's details on the page."""
        return _identifier(self.cell.id)

    @property
    def notes(self) -> list[str]:
        """What the declarations remark on the number, its source, row and column."""
        cell = self.cell
        parts = (cell.published, self.source, cell.row, cell.column)
        found = dict.fromkeys(f"{part.note}." for part in parts if part and part.note)
        if cell.same_as:
            found |= {f"Reproduced by the recipe of row {cell.same_as}.": None}
        return list(found)


@dataclass(frozen=True)
class Part:
    """A rectangle of a table: the paper's own, further rows, or columns of ours."""

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]


@dataclass(frozen=True)
class TableView:
    """One table as the page shows it."""

    table: Table
    parts: Sequence[Part]
    cells: Mapping[tuple[str, str], CellView]
    figures: Sequence[tuple[FigureKind, Sequence[Markup]]]


class _Page:
    """Gathers what the template needs."""

    def __init__(self, papers: Sequence[Paper], store: Store) -> None:
        self.papers, self.store = papers, store
        self.pool: Pool = pool_variances(store.records())
        self.shown: dict[str, Cell] = {}

    def html(self) -> str:
        """Return the page."""
        papers = [(paper, [self._table(paper, t) for t in paper.tables]) for paper in self.papers]
        cells = [view for _, tables in papers for table in tables for view in table.cells.values()]
        records = self.store.records()
        return (
            _templates()
            .get_template("report.html")
            .render(
                version=__version__,
                yes_no=YES_NO,
                papers=papers,
                counts=_counts(cells),
                states=STATES,
                plus_minus=PLUS_MINUS,
                measured_error=MEASURED_ERROR,
                runs=[_run(record, _headline(record)) for record in reversed(records)],
                newest=max((record.created for record in records), default=""),
                hours=duration(sum(record.budget.train_seconds for record in records)),
            )
        )

    def _table(self, paper: Paper, table: Table) -> TableView:
        verdicts = judge_table(table, self.store, self.pool)
        runs = {cell.id: self.store.for_cell(cell) for cell in table.cells}
        cells = {
            (cell.row.id, cell.column.id): self._cell(paper, cell, verdicts[cell.id], runs[cell.id])
            for cell in table.cells
        }
        figures = groupby(figures_of(table, runs, verdicts), key=lambda drawn: drawn[0])
        return TableView(
            table=table,
            parts=list(_parts(table)),
            cells=cells,
            figures=[
                (kind, [_plot(figure, f"{table.name}-{name}") for _, name, figure in drawn])
                for kind, drawn in figures
            ],
        )

    def _cell(
        self, paper: Paper, cell: Cell, verdict: Verdict, records: Sequence[RunRecord]
    ) -> CellView:
        published, shown_by = cell.published, self._shown_by(cell, records)
        sources = {source.id: source for source in paper.sources}
        return CellView(
            cell=cell,
            verdict=verdict,
            published=published_text(cell),
            measured=measured_text(cell, verdict),
            pm_meaning=published_error(published) if published else "",
            source=sources.get(published.source) if published else None,
            command=run_command(cell) if cell.recipe else "",
            settings=_settings(cell.recipe) if cell.recipe else (),
            runs=[_run(record, cell.metric) for record in records],
            environment=_environment(records[-1]) if records else (),
            curve=None if shown_by else self._curve(cell, records),
            pictures=[] if shown_by else self._pictures(records),
            shown_by=shown_by,
        )

    def _shown_by(self, cell: Cell, records: Sequence[RunRecord]) -> Cell | None:
        """Return the cell that has the curve and pictures of the newest run already, if one has."""
        if not records:
            return None
        first = self.shown.setdefault(records[-1].run_id, cell)
        return None if first is cell else first

    def _curve(self, cell: Cell, records: Sequence[RunRecord]) -> Markup | None:
        """Return the learning curve of the newest run that has one."""
        for record in reversed(records):
            curve = self.store.curve(record)
            if curve:
                figure = learning_curve(curve, record, _published_nats(cell))
                return _plot(figure, f"{cell.id}-curve")
        return None

    def _pictures(self, records: Sequence[RunRecord]) -> list[tuple[str, str]]:
        """Return name and data address of the newest run's pictures that are on this machine."""
        for record in reversed(records):
            if files := kept_pictures(record, self.store.results):
                return [(f"{file.stem}, seed {record.seed}", _data_address(file)) for file in files]
        return []


# --------------------------------------------------------------------------- pieces


def _counts(cells: Iterable[CellView]) -> list[tuple[State, int]]:
    """Return how many cells are in each state that occurs."""
    found = Counter(view.verdict.state for view in cells)
    return [(state, found[state]) for state in STATES if found[state]]


def _parts(table: Table) -> Iterable[Part]:
    """Yield the paper's rows and columns, then further rows, then columns of ours."""
    columns = [column for column in table.columns if column.published]
    ours = [column for column in table.columns if not column.published]
    printed = [row for row in table.rows if row.published]
    further = [row for row in table.rows if not row.published]
    published = any(cell.published for cell in table.cells)
    there = {(cell.row.id, cell.column.id) for cell in table.cells if not cell.repeats}
    for title, rows, across in (
        ("", printed, columns),
        ("Further rows, which the paper does not print", further, columns),
        ("Columns of ours, which the paper does not have" if published else "", table.rows, ours),
    ):
        filled = [row for row in rows if any((row.id, column.id) in there for column in across)]
        if filled:
            yield Part(title, filled, across)


def _run(record: RunRecord, metric_name: str) -> RunView:
    metric = record.metric(metric_name)
    value = error = ""
    if metric is not None and metric.value is not None:
        value = f"{metric.value:.4f}"
        error = f"{metric.se:.4f}" if metric.se is not None else ""
    return RunView(
        record=record,
        value=value,
        error=error,
        time=duration(record.budget.train_seconds),
        memory=gigabytes(record.budget.peak_memory_bytes),
    )


def _headline(record: RunRecord) -> str:
    """Return the name of a run's first metric."""
    return record.metrics[0].name if record.metrics else ""


def _settings(recipe: Recipe) -> list[tuple[str, str]]:
    """Return the recipe's settings that are not at their defaults, as ``part.option``, value."""
    several = len(recipe.stages) > 1
    found: list[tuple[str, str]] = []
    for stage in recipe.stages:
        chosen = stage.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        found += _flat(f"{stage.name}." if several else "", chosen)
    chosen = recipe.evaluation.model_dump(mode="json", exclude_defaults=True)
    return found + _flat("evaluation.", chosen)


def _flat(prefix: str, values: Mapping[str, object]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(f"{prefix}{key}.", value)
        else:
            found.append((f"{prefix}{key}", _words(value)))
    return found


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _environment(record: RunRecord) -> list[tuple[str, str]]:
    """Return where and on what the newest run was made."""
    where, code, data = record.environment, record.code, record.data
    commit = (code.git_commit or "unknown")[:12] + (" with local changes" if code.git_dirty else "")
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.sizes.items())
    packages = where.packages
    return [
        ("device", where.gpu or where.device),
        ("processor", f"{where.cpu}, {where.cores} cores, {where.threads} threads used"),
        ("machine class", where.machine_class),
        ("software", ", ".join([f"Python {where.python}", *map(" ".join, packages.items())])),
        ("code", f"dgm-bench {code.version}, commit {commit}"),
        ("command", code.command),
        ("data", f"{data.name} version {data.version}, {_verified(data.verified)}: {sizes}"),
        ("scale", f"{record.scale.parameters:,} parameters, {record.scale.precision}"),
    ]


def _verified(verified: bool) -> str:
    return "verified as the published files" if verified else "not verified as the published files"


def _published_nats(cell: Cell) -> float | None:
    """Return the published value where it is a loss in nats, as curves are."""
    column = cell.column
    comparable = cell.published and column.metric == "nll" and column.unit == "nats"
    return float(cell.published.value) if cell.published and comparable else None


# --------------------------------------------------------------------------- HTML


def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["identifier"] = _identifier
    environment.filters["duration"] = duration
    environment.filters["spoken"] = spoken
    return environment


def _identifier(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _plot(figure: Figure, name: str) -> Markup:
    """Return a figure as part of the page; ``name`` is unique there."""
    from markupsafe import Markup

    return Markup(to_svg(figure, _identifier(name)))  # safe: matplotlib escapes its texts


def _data_address(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
