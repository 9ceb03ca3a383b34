"""One self-contained page: every table, verdict, run and plot, made only from files.

It loads nothing from the network, follows the reader's light or dark theme, and is the same
for the same declarations and records.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from dgm_bench import __version__
from dgm_bench.errors import ResultsError
from dgm_bench.escaping import plain
from dgm_bench.planner import duration, gigabytes, run_command
from dgm_bench.records import Environment, RunRecord, kept_pictures
from dgm_bench.report import figures
from dgm_bench.report.curves import learning_curve
from dgm_bench.report.figures import FigureKind, figures_of
from dgm_bench.report.kept_figures import drawn_once
from dgm_bench.report.numbers import measured_text, published_text
from dgm_bench.report.plots import to_svg
from dgm_bench.report.time_to_quality import all_lines, time_to_quality
from dgm_bench.sealed import write_atomically
from dgm_bench.spec import YES_NO, Cell, Column, Paper, Recipe, Row, Source, Table
from dgm_bench.store import Store
from dgm_bench.verdict import Pool, Verdict, extrapolated, judge_table, pool_variances
from dgm_bench.wording import (
    MEASURED_ERROR,
    PLUS_MINUS,
    STATES,
    State,
    published_error,
    so_far,
    spoken,
)

if TYPE_CHECKING:
    from jinja2 import Environment as Templates
    from markupsafe import Markup

    from dgm_bench.catalog import Catalog

_LOG = logging.getLogger("dgm_bench")
TEMPLATES = Path(__file__).parent / "templates"
#: Pieces of the template that are written together.
PIECES = 10_000
#: Ends of lines before tags, which no browser shows.
_BREAKS = re.compile(r"\s*\n\s*<")
#: Characters of a note that stands beside its cell; longer ones stand in a list, once.
SHORT = 50


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
    write_atomically(path, (_BREAKS.sub("<", plain(part)).encode() for part in page.parts()))


# --------------------------------------------------------------------------- what is shown


@dataclass(frozen=True)
class RunView:
    """One run as the page shows it."""

    record: RunRecord
    value: str
    error: str
    time: str
    memory: str

    @property
    def status(self) -> str:
        """How it ended; of a run that its budget cut short, that it did not."""
        outcome = self.record.outcome
        return "unfinished" if outcome.cut_short else outcome.status


@dataclass(frozen=True)
class Notes:
    """Remarks on a cell: short ones, and the numbers of long ones in the page's list."""

    texts: Sequence[str]
    numbers: Sequence[int]


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
    recipe_at: Cell | None
    settings: Sequence[tuple[str, str]]
    notes: Notes
    records: Sequence[RunRecord]
    environment: Sequence[tuple[str, str]]
    curve: Markup | None
    pictures: Sequence[tuple[str, str]]
    shown_by: Cell | None
    times: Sequence[Sequence[str]] = ()

    @property
    def anchor(self) -> str:
        """Identifier of the cell's details on the page."""
        return _identifier(self.cell.id)

    @property
    def forecast(self) -> str:
        """What the curve of an unfinished run says, where it says something."""
        ahead = self.verdict.unfinished
        return extrapolated(ahead) if ahead is not None and ahead.forecast is not None else ""

    @property
    def runs(self) -> Iterator[RunView]:
        """The runs as the page shows them."""
        return (_run(record, self.cell.metric) for record in self.records)


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
        self.notes: dict[str, int] = {}
        self.texts: dict[str, str] = {}

    def parts(self) -> Iterator[str]:
        """Yield the page, part by part: with thousands of runs it is too long for memory."""
        papers = [(paper, [self._table(paper, t) for t in paper.tables]) for paper in self.papers]
        cells = [view for _, tables in papers for table in tables for view in table.cells.values()]
        records = self.store.records()
        page = (
            _templates()
            .get_template("report.html")
            .stream(
                version=__version__,
                yes_no=YES_NO,
                notes=self.notes,
                papers=papers,
                counts=_counts(cells),
                states=STATES,
                plus_minus=PLUS_MINUS,
                measured_error=MEASURED_ERROR,
                count=len(records),
                runs=(_run(record, _headline(record)) for record in reversed(records)),
                newest=max((record.created for record in records), default=""),
                hours=duration(sum(record.budget.train_seconds for record in records)),
            )
        )
        page.enable_buffering(PIECES)
        yield from page

    def _table(self, paper: Paper, table: Table) -> TableView:
        verdicts = judge_table(table, self.store, self.pool)
        runs = {cell.id: self.store.for_cell(cell) for cell in table.cells}
        cells = {
            (cell.row.id, cell.column.id): self._cell(paper, cell, verdicts[cell.id], runs[cell.id])
            for cell in table.cells
        }
        return TableView(table, list(_parts(table)), cells, self._figures(table, runs, verdicts))

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
                for kind, name, figure in figures_of(table, runs, verdicts)
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
            recipe_at=self._recipe_at(cell),
            settings=() if cell.recipe is None or self._recipe_at(cell) else _settings(cell.recipe),
            notes=self._notes(cell, sources, () if shown_by else records[-1:]),
            records=records,
            environment=_environment(records[-1]) if records and not shown_by else (),
            curve=None if shown_by else self._curve(cell, records),
            pictures=[] if shown_by else self._pictures(records),
            shown_by=shown_by,
            times=() if shown_by else self._times(cell, verdict, records),
        )

    def _times(
        self, cell: Cell, verdict: Verdict, records: Sequence[RunRecord]
    ) -> list[tuple[str, ...]]:
        """Return what finished runs took until they were so good, line by line."""
        if verdict.mean is None:
            return []
        found = time_to_quality(cell, records, self.store.known_curve)
        return [] if found is None else list(all_lines(found))

    def _recipe_at(self, cell: Cell) -> Cell | None:
        """Return the cell that has the settings of the recipe already, if one has."""
        if cell.recipe is None:
            return None
        first = self.shown.setdefault(f"{cell.recipe.name} {cell.recipe.content_hash}", cell)
        return None if first is cell else first

    def _notes(
        self, cell: Cell, sources: Mapping[str, Source], newest: Sequence[RunRecord]
    ) -> Notes:
        """Return what is remarked on the number, its source, row, column, recipe and newest run.

        Hundreds of cells share long remarks: each stands once, in a list.
        """
        source = sources.get(cell.published.source) if cell.published else None
        parts = (cell.published, source, cell.row, cell.column)
        found = [f"{part.note}." for part in parts if part is not None and part.note]
        found += [f"Reproduced by the recipe of row {cell.same_as}."] if cell.same_as else []
        found += [] if cell.recipe is None else [cell.recipe.source, *cell.recipe.notes]
        found += [_software(record.environment) for record in newest]
        texts = [text for text in dict.fromkeys(found) if text]
        long = [text for text in texts if len(text) > SHORT]
        numbers = [self.notes.setdefault(text, len(self.notes) + 1) for text in long]
        return Notes([text for text in texts if text not in long], sorted(numbers))

    def _shown_by(self, cell: Cell, records: Sequence[RunRecord]) -> Cell | None:
        """Return the cell that has the curve and pictures of the newest run already, if one has."""
        if not records:
            return None
        first = self.shown.setdefault(records[-1].run_id, cell)
        return None if first is cell else first

    def _curve(self, cell: Cell, records: Sequence[RunRecord]) -> Markup | None:
        """Return the learning curve of the newest run that has one."""
        for record in reversed(records):
            try:
                if svg := self._curve_of(cell, record):
                    return _markup(svg)
            except ResultsError as error:  # one bad file must not keep the page from being made
                if self.store.strict:
                    raise
                _LOG.warning("warning: left out: %s", error)
        return None

    def _curve_of(self, cell: Cell, record: RunRecord) -> str:
        """Return the learning curve of a run, which is empty where it has none."""
        curve = self.store.curve(record)
        return learning_curve(curve, record, _published_nats(cell)) if curve else ""

    def _pictures(self, records: Sequence[RunRecord]) -> list[tuple[str, str]]:
        """Return name and data address of the newest run's pictures that are on this machine."""
        for record in reversed(records):
            if files := kept_pictures(record, self.store.folder_of(record)):
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
        value = so_far(value) if record.outcome.cut_short else value
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
    return [
        ("device", where.gpu or where.device),
        ("processor", f"{where.cpu}, {where.cores} cores, {where.threads} threads used"),
        ("machine class", where.machine_class),
        ("code", f"dgm-bench {code.version}, commit {commit}"),
        ("command", code.command),
        ("data", f"{data.name} version {data.version}, {_verified(data.verified)}: {sizes}"),
        ("scale", f"{record.scale.parameters:,} parameters, {record.scale.precision}"),
    ]


def _software(where: Environment) -> str:
    packages = ", ".join(map(" ".join, where.packages.items()))
    return f"Software of the newest run: Python {where.python}, {packages}."


def _verified(verified: bool) -> str:
    return "verified as the published files" if verified else "not verified as the published files"


def _published_nats(cell: Cell) -> float | None:
    """Return the published value where it is a loss in nats, as curves are."""
    column = cell.column
    comparable = cell.published and column.metric == "nll" and column.unit == "nats"
    return float(cell.published.value) if cell.published and comparable else None


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
    environment.filters["identifier"] = _identifier
    environment.filters["duration"] = duration
    environment.filters["spoken"] = spoken
    return environment


def _identifier(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _markup(svg: str) -> Markup:
    """Return a figure as part of the page."""
    from markupsafe import Markup

    return Markup(svg)  # safe: matplotlib escapes its texts


def _data_address(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
