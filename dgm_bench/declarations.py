"""Reads one ``reproductions/<paper>/``: ``paper.toml`` and the recipes beside it.

Every mistake is a :class:`DeclarationError` that names the file and the line.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Annotated

from pydantic import BeforeValidator

from dgm_bench.errors import DeclarationError, shortened
from dgm_bench.models.revisions import current
from dgm_bench.products import GridEntry, Product, expanded
from dgm_bench.spec import (
    Cell,
    Citation,
    Claim,
    Column,
    Direction,
    Erratum,
    Paper,
    PmKind,
    Published,
    Recipe,
    Row,
    Source,
    Spec,
    Table,
)
from dgm_bench.tomlfile import Raw, S, TomlFile, mark

RecipeFunction = Callable[..., Recipe | None]


def load_paper(folder: Path) -> Paper:
    """Return the paper that ``folder/paper.toml`` declares, with its recipes resolved.

    Raises:
        DeclarationError: Something in it is wrong; says where.
    """
    file = TomlFile(folder / "paper.toml")
    entry = file.parse(_PaperEntry, file.read(), "the paper", 1)
    if entry.id != folder.name:
        line = file.find(mark("id", entry.id)) or 1
        raise file.error(line, f"the paper's id is {entry.id!r}", f"its folder is {folder.name!r}")
    sources = {source.id: source for source, _, _ in file.entries(Source, "sources", entry.sources)}
    recipes = _recipe_functions(folder / "recipes.py")
    return _PaperReader(file, entry.id, sources, recipes).read(entry)


# --------------------------------------------------------------------------- entries


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"{value!r} is not a number")
    if not math.isfinite(float(Decimal(value))):
        raise ValueError(f"{shortened(str(value))} is not a finite number")
    return value


Number = Annotated[Decimal, BeforeValidator(_number)]


class _PaperEntry(Citation):
    sources: tuple[Raw, ...]
    tables: tuple[Raw, ...]
    errata: tuple[Raw, ...] = ()


class _TableEntry(Spec):
    id: str
    title: str
    where: str
    metric: str
    direction: Direction
    columns: tuple[Raw, ...] = ()
    products: tuple[Raw, ...] = ()
    rows: tuple[Raw, ...]
    cells: tuple[Raw, ...] = ()
    grids: tuple[Raw, ...] = ()
    claims: tuple[Raw, ...] = ()


class _CellEntry(Spec):
    """A published number."""

    row: str
    column: str
    value: Number
    pm: Number | None = None
    source: str
    pm_kind: PmKind | None = None
    selection: str = ""
    model: str = ""
    note: str = ""
    same_as: str | None = None
    no_recipe: str = ""
    priority: int = 0

    def published(self, source: Source) -> Published:
        """Return the number with what its source says of all its numbers."""
        kind = self.pm_kind or source.pm_kind
        return Published(
            value=self.value,
            pm=self.pm,
            pm_kind=kind if self.pm is not None else "none",
            pm_n=source.pm_n if self.pm is not None else None,
            selection=self.selection or source.selection,
            source=self.source,
            model=self.model,
            note=self.note,
        )


class _ErratumEntry(Spec):
    """An erratum; without rows or columns it is about all of them."""

    id: str
    table: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    text: str
    source: str

    def touches(self, row: str, column: str) -> bool:
        """Say whether a published cell of its table is concerned."""
        return (not self.rows or row in self.rows) and (not self.columns or column in self.columns)


# --------------------------------------------------------------------------- recipes


def _recipe_functions(path: Path) -> Mapping[str, RecipeFunction]:
    """Return the public functions of a ``recipes.py``; none where there is no such file.

    Those that it imports from files beside it, or from another paper's, count as its own.
    """
    if not path.is_file():
        return {}
    module = _execute(path)
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and str(getattr(value, "__module__", "")).split(".")[0] == module.__name__.split(".")[0]
    }


def _execute(path: Path) -> ModuleType:
    name = f"{_package_of(path.parent.parent)}.{path.parent.name}"
    _forget(name)
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)]
    )
    if spec is None or spec.loader is None:
        raise DeclarationError(path, "is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anything may go wrong in a file that a person writes
        raise DeclarationError(f"{path}:{_line_in(path, error)}", _reason(error)) from error
    return module


def _package_of(folder: Path) -> str:
    """Return the package that the papers of a folder are in, so that one imports from another."""
    name = f"dgm_bench_recipes_{zlib.crc32(str(folder.resolve()).encode()):08x}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _forget(name: str) -> None:
    """Let the files beside a ``recipes.py`` be read anew, as it is itself."""
    for known in [module for module in sys.modules if module.startswith(f"{name}.")]:
        del sys.modules[known]


def _line_in(path: Path, error: Exception) -> int:
    """Return the last line of a file that an exception went through."""
    if isinstance(error, SyntaxError):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return (lines[-1] if lines else 1) or 1


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# --------------------------------------------------------------------------- assembly


@dataclass
class _Slot:
    """A cell before its recipe and errata are known, and the line on which it stands."""

    row: Row
    column: Column
    line: int
    published: Published | None
    same_as: str | None
    no_recipe: str
    priority: int
    recipe: Recipe | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Row and column."""
        return self.row.id, self.column.id

    @property
    def what(self) -> str:
        """Its name in messages."""
        return f"cell {self.row.id} {self.column.id}"


@dataclass
class _PaperReader:
    """Builds the tables of a paper, with all names checked."""

    file: TomlFile
    paper: str
    sources: Mapping[str, Source]
    recipes: Mapping[str, RecipeFunction]

    def read(self, entry: _PaperEntry) -> Paper:
        """Return the whole paper."""
        tables = self.file.entries(_TableEntry, "tables", entry.tables)
        errata = self.file.entries(_ErratumEntry, "errata", entry.errata)
        for erratum, what, line in errata:
            self.file.require("table", erratum.table, (t.id for t, _, _ in tables), what, line)
        starts = [line for _, _, line in tables]
        built = [
            _TableReader(self, table, start, end).read(errata)
            for (table, _, start), end in zip(tables, [*starts[1:], sys.maxsize], strict=True)
        ]
        return Paper(
            **entry.model_dump(exclude={"sources", "tables", "errata"}),
            sources=tuple(self.sources.values()),
            tables=tuple(table for table, _ in built),
            errata=tuple(erratum for _, found in built for erratum in found),
        )


class _TableReader:
    """Builds one table, which stands on the lines from ``start`` to before ``end``."""

    def __init__(self, paper: _PaperReader, entry: _TableEntry, start: int, end: int) -> None:
        self.paper, self.file, self.entry = paper, paper.file, entry
        self.start, self.end = start, end
        defaults = {"metric": entry.metric, "direction": entry.direction}
        self.products = [
            Product(self.file, *found) for found in self._located("products", entry.products)
        ]
        columns = self._entries(Column, [{**defaults, **raw} for raw in entry.columns])
        columns += [found for each in self.products for found in each.columns(defaults)]
        self.file.refuse_duplicates([(what, line) for _, what, line in columns])
        if not columns:
            remedy = "add columns = [...] or [[tables.products]]"
            raise self.file.error(start, f"table {entry.id} has no columns", remedy)
        self.columns = {column.id: column for column, _, _ in columns}
        rows = self._entries(Row, entry.rows)
        self.rows = {row.id: row for row, _, _ in rows}
        self.row_lines = {row.id: line for row, _, line in rows}
        self.called: dict[str, Recipe | None] = {}

    def _entries(self, kind: type[S], raws: Sequence[Raw]) -> list[tuple[S, str, int]]:
        """Return the columns or the rows."""
        name = "columns" if kind is Column else "rows"
        start = self.file.find(rf"^\s*{name}\s*=", after=self.start) or self.start
        return self.file.entries(kind, f"tables.{name}", raws, start, self.end)

    def read(self, errata: list[tuple[_ErratumEntry, str, int]]) -> tuple[Table, list[Erratum]]:
        """Return the table, and its errata with the cells they touch."""
        self._check_columns()
        slots = self._slots()
        for slot in slots.values():
            slot.recipe = None if slot.same_as else self._own_recipe(slot)
        borrowers = [(slot, slot.same_as) for slot in slots.values() if slot.same_as]
        lenders = [self._lender(slot, row, slots) for slot, row in borrowers]
        for (slot, _), lender in zip(borrowers, lenders, strict=True):
            slot.recipe, slot.priority = lender.recipe, lender.priority
        own = [erratum for erratum in errata if erratum[0].table == self.entry.id]
        found = [self._erratum(*erratum, slots.values()) for erratum in own]
        table = Table(
            paper=self.paper.paper,
            id=self.entry.id,
            title=self.entry.title,
            where=self.entry.where,
            rows=tuple(self.rows.values()),
            columns=tuple(self.columns.values()),
            cells=tuple(self._cell(slot, found) for slot in slots.values()),
            claims=tuple(self._claims(slots)),
        )
        return table, found

    def _claims(self, slots: Mapping[tuple[str, str], _Slot]) -> Iterable[Claim]:
        """Yield the claims, whose rows have a cell in each of the columns."""
        for claim, what, line in self.file.entries(
            Claim, "tables.claims", self.entry.claims, self.start, self.end
        ):
            for row, column in product((claim.row, claim.than), claim.columns):
                self._pair(row, column, what, line)
                if (row, column) not in slots:
                    reason = f"{what}: {row!r} has no cell in {column!r}"
                    raise self.file.error(line, reason, "add it to a grid, or leave it out")
            yield claim

    def _check_columns(self) -> None:
        """Refuse a column that refers to one that does not exist."""
        for column in self.columns.values():
            for other in (column.beside, column.ranks_like):
                if other is not None:
                    what = f"column {column.id}"
                    self.file.require("column", other, self.columns, what, self.start)

    def _slots(self) -> dict[tuple[str, str], _Slot]:
        slots: dict[tuple[str, str], _Slot] = {}
        for slot in (*self._published_slots(), *self._grid_slots()):
            if slot.key in slots:
                already = f"line {slots[slot.key].line} has it already"
                raise self.file.error(slot.line, f"duplicate {slot.what}", already)
            slots[slot.key] = slot
        return slots

    def _published_slots(self) -> Iterable[_Slot]:
        raws = self.entry.cells
        for entry, what, line in self.file.entries(
            _CellEntry, "tables.cells", raws, self.start, self.end
        ):
            row, column = self._pair(entry.row, entry.column, what, line)
            if column.direction == "none":
                reason = f"{what} has a number, and its column no direction to judge it by"
                raise self.file.error(line, reason, "give the column a direction")
            self.file.require("source", entry.source, self.paper.sources, what, line)
            published = entry.published(self.paper.sources[entry.source])
            if published.pm is not None and published.pm_kind == "none":
                reason = f"{what} has a pm, and source {entry.source!r} says there is none"
                raise self.file.error(line, reason, "give the cell a pm_kind")
            yield _Slot(
                row, column, line, published, entry.same_as, entry.no_recipe, entry.priority
            )

    def _located(self, name: str, raws: Sequence[Raw]) -> list[tuple[Raw, str, int]]:
        """Return entries, each with its name for messages and its line."""
        places = self.file.locate(f"tables.{name}", raws, self.start, self.end)
        return [(raw, *place) for raw, place in zip(raws, places, strict=True)]

    def _grids(self) -> Iterable[tuple[GridEntry, str, int]]:
        for raw, what, line in self._located("grids", self.entry.grids):
            yield self.file.parse(GridEntry, raw, what, line), what, line
        for each in self.products:
            yield from ((grid, each.what, each.line) for grid in each.grids())

    def _grid_slots(self) -> Iterable[_Slot]:
        for grid, what, line in self._grids():
            rows = expanded(self.file, "row", grid.rows, self.rows, what, line)
            columns = expanded(self.file, "column", grid.columns, self.columns, what, line)
            for name in grid.same_as if isinstance(grid.same_as, dict) else ():
                self.file.require("row", name, rows, f"{what}: same_as", line)
            for row, column in product(rows, columns):
                yield _Slot(
                    self.rows[row],
                    self.columns[column],
                    line,
                    None,
                    grid.lender(row),
                    "",
                    grid.priority,
                )

    def _pair(self, row: str, column: str, what: str, line: int) -> tuple[Row, Column]:
        self.file.require("row", row, self.rows, what, line)
        self.file.require("column", column, self.columns, what, line)
        return self.rows[row], self.columns[column]

    def _own_recipe(self, slot: _Slot) -> Recipe | None:
        row = slot.row
        if row.recipe is None:
            return None
        args = {**row.args, **slot.column.args}
        key = f"{row.recipe} {slot.column.data} {sorted(args.items())}"
        if key not in self.called:  # columns of one data set differ in what they show of a run
            self.called[key] = self._call(slot, row.recipe, args)
        return self.called[key]

    def _call(self, slot: _Slot, name: str, args: Raw) -> Recipe | None:
        """Return what the recipe of a row gives for a column."""
        row, line = slot.row, self.row_lines[slot.row.id]
        self.file.require("recipe", name, self.paper.recipes, f"row {row.id}", line)
        try:
            recipe = self.paper.recipes[name](slot.column.data, **args)
            if not isinstance(recipe, Recipe | None):
                raise TypeError(f"returned {recipe!r}, not a recipe")
        except Exception as error:  # recipes.py is a person's own code
            call = f"{name}({slot.column.data!r})"
            raise self.file.error(line, f"row {row.id}: {call}: {_reason(error)}") from error
        return None if recipe is None else current(recipe)

    def _lender(self, slot: _Slot, row: str, slots: Mapping[tuple[str, str], _Slot]) -> _Slot:
        self.file.require("row", row, self.rows, f"{slot.what}: same_as", slot.line)
        lender = slots.get((row, slot.column.id))
        if lender is None or lender.recipe is None:
            reason = f"{slot.what}: same_as: row {row!r} has no recipe for {slot.column.id}"
            raise self.file.error(slot.line, reason, "name a row that has one")
        return lender

    def _erratum(
        self, entry: _ErratumEntry, what: str, line: int, slots: Iterable[_Slot]
    ) -> Erratum:
        for row in entry.rows:
            self.file.require("row", row, self.rows, what, line)
        for column in entry.columns:
            self.file.require("column", column, self.columns, what, line)
        cells = tuple(
            self._id(slot) for slot in slots if slot.published and entry.touches(*slot.key)
        )
        if not cells:
            raise self.file.error(line, f"{what} touches no published number")
        return Erratum(id=entry.id, cells=cells, text=entry.text, source=entry.source)

    def _id(self, slot: _Slot) -> str:
        return f"{self.paper.paper}/{self.entry.id}/{slot.row.id}/{slot.column.id}"

    def _cell(self, slot: _Slot, errata: Iterable[Erratum]) -> Cell:
        return Cell(
            paper=self.paper.paper,
            table=self.entry.id,
            row=slot.row,
            column=slot.column,
            published=slot.published,
            recipe=slot.recipe,
            same_as=slot.same_as,
            no_recipe="" if slot.recipe else slot.no_recipe or slot.row.no_recipe,
            errata=tuple(erratum for erratum in errata if self._id(slot) in erratum.cells),
            priority=slot.priority,
        )
