"""Reads one ``reproductions/<paper>/``: ``paper.toml`` and the recipes beside it.

Every mistake is a :class:`DeclarationError` that names the file and the line.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ValidationError

from dgm_bench.errors import DeclarationError, did_you_mean
from dgm_bench.spec import (
    Cell,
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

RecipeFunction = Callable[..., Recipe | None]
Raw = dict[str, Any]
S = TypeVar("S", bound=Spec)


def load_paper(folder: Path) -> Paper:
    """Return the paper that ``folder/paper.toml`` declares, with its recipes resolved.

    Raises:
        DeclarationError: Something in it is wrong; says where.
    """
    file = _File(folder / "paper.toml")
    entry = file.parse(_PaperEntry, file.read(), "the paper", 1)
    if entry.id != folder.name:
        line = file.line(_mark("id", entry.id))
        raise file.error(line, f"the paper's id is {entry.id!r}", f"its folder is {folder.name!r}")
    sources = [
        file.parse(Source, raw, *file.locate("sources", place, raw))
        for place, raw in enumerate(entry.sources)
    ]
    file.refuse_duplicates("source", (source.id for source in sources))
    recipes = _recipe_functions(folder / "recipes.py")
    reader = _PaperReader(file, entry.id, {source.id: source for source in sources}, recipes)
    return reader.read(entry)


# --------------------------------------------------------------------------- entries


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"{value!r} is not a number")  # noqa: TRY004  pydantic wants ValueError
    return value


Number = Annotated[Decimal, BeforeValidator(_number)]


class _PaperEntry(Spec):
    id: str
    title: str
    authors: str
    year: int
    url: str
    bibtex: str
    sources: list[Raw]
    tables: list[Raw]
    errata: list[Raw] = []


class _TableEntry(Spec):
    id: str
    title: str
    where: str
    metric: str
    direction: Direction
    columns: list[Raw]
    rows: list[Raw]
    cells: list[Raw] = []
    grids: list[Raw] = []


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


class _GridEntry(Spec):
    """Cells without a published number: each row with each column."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    same_as: str | None = None
    priority: int = 0


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


# --------------------------------------------------------------------------- the file


def _mark(key: str, value: object) -> str:
    """Return a pattern that finds ``key = "value"``."""
    return rf"(?<![\w-]){key}\s*=\s*[\"']{re.escape(str(value))}[\"']"


class _File:
    """The text of a ``paper.toml``, to say where in it something is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    def read(self) -> Raw:
        """Return what it holds; numbers keep their printed digits."""
        try:
            text = self.path.read_text(encoding="utf-8")
            self.lines = text.splitlines()
            return tomllib.loads(text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            line = int(found[1]) if found else len(self.lines)
            reason = str(error).split(" (at ")[0]
            raise self.error(line, f"broken TOML: {reason}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise DeclarationError(self.path, f"cannot be read: {error}") from error

    def error(self, line: int, reason: str, remedy: str = "") -> DeclarationError:
        return DeclarationError(f"{self.path}:{line}", reason, remedy)

    def line(self, *marks: str, after: int = 1) -> int:
        """Return the line, from ``after`` on, from which all patterns are found soonest.

        An entry stands on one line, or spread over the few lines below the first of its keys.
        """
        for reach in (1, 12):
            for start in range(after - 1, len(self.lines)):
                window = "\n".join(self.lines[start : start + reach])
                first = any(re.search(mark, self.lines[start]) for mark in marks)
                if first and all(re.search(mark, window) for mark in marks):
                    return start + 1
        return after

    def locate(self, header: str, place: int, raw: Raw, after: int = 1) -> tuple[str, int]:
        """Return an entry's name for messages and its line.

        It is entry number ``place`` of its list: after as many ``[[header]]``, or else on the
        line that holds its identifying keys.
        """
        keys = [key for key in ("id", "row", "column") if key in raw]
        what = " ".join([header.rpartition(".")[2].removesuffix("s"), *(str(raw[k]) for k in keys)])
        heads = [
            number
            for number, line in enumerate(self.lines, start=1)
            if number >= after and line.split("#")[0].strip() == f"[[{header}]]"
        ]
        if place < len(heads):
            return what, heads[place]
        return what, self.line(*(_mark(key, raw[key]) for key in keys), after=after)

    def parse(self, kind: type[S], raw: Raw, what: str, line: int) -> S:
        """Return a typed entry."""
        try:
            return kind.model_validate(raw)
        except ValidationError as error:
            raise self._explain(kind, error, what, line) from error

    def _explain(
        self, kind: type[Spec], error: ValidationError, what: str, line: int
    ) -> DeclarationError:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        line = self.line(rf"(?<![\w-]){re.escape(key)}\s*=", after=line)
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            remedy = did_you_mean(key, kind.model_fields) or f"known: {known}"
            return self.error(line, f"{what}: unknown key {key!r}", remedy)
        if first["type"] == "missing":
            return self.error(line, f"{what} has no {key}", f"add {key} = ...")
        return self.error(line, f"{what}: {key}: {first['msg'].removeprefix('Value error, ')}")

    def require(self, kind: str, name: str, known: Iterable[str], what: str, line: int) -> None:
        """Raise if ``name`` is not one of the known ones."""
        names = list(known)
        if name not in names:
            remedy = did_you_mean(name, names) or f"known: {', '.join(names)}"
            raise self.error(line, f"{what}: unknown {kind} {name!r}", remedy)

    def refuse_duplicates(self, kind: str, ids: Iterable[str], after: int = 1) -> None:
        """Raise if an id comes twice; the line is that of its second entry."""
        seen: set[str] = set()
        for name in ids:
            if name in seen:
                first = self.line(_mark("id", name), after=after)
                line = self.line(_mark("id", name), after=first + 1)
                raise self.error(line, f"duplicate {kind} {name!r}", f"line {first} has it already")
            seen.add(name)


# --------------------------------------------------------------------------- recipes


def _recipe_functions(path: Path) -> Mapping[str, RecipeFunction]:
    """Return the public functions of a ``recipes.py``; none where there is no such file."""
    if not path.is_file():
        return {}
    module = _execute(path)
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
    }


def _execute(path: Path) -> ModuleType:
    name = f"dgm_bench_recipes_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DeclarationError(path, "is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anything may go wrong in a file that a person writes
        raise DeclarationError(f"{path}:{_line_in(path, error)}", _reason(error)) from error
    return module


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

    file: _File
    paper: str
    sources: Mapping[str, Source]
    recipes: Mapping[str, RecipeFunction]

    def read(self, entry: _PaperEntry) -> Paper:
        """Return the whole paper."""
        file = self.file
        heads = [file.locate("tables", place, raw) for place, raw in enumerate(entry.tables)]
        tables = [
            file.parse(_TableEntry, raw, *head)
            for raw, head in zip(entry.tables, heads, strict=True)
        ]
        file.refuse_duplicates("table", (table.id for table in tables), after=heads[0][1])
        errata = [self._erratum(place, raw, tables) for place, raw in enumerate(entry.errata)]
        file.refuse_duplicates("erratum", (erratum.id for erratum, _ in errata))
        built = [
            _TableReader(self, table, line).read([e for e in errata if e[0].table == table.id])
            for table, (_, line) in zip(tables, heads, strict=True)
        ]
        return Paper(
            **entry.model_dump(exclude={"sources", "tables", "errata"}),
            sources=tuple(self.sources.values()),
            tables=tuple(table for table, _ in built),
            errata=tuple(erratum for _, found in built for erratum in found),
        )

    def _erratum(
        self, place: int, raw: Raw, tables: list[_TableEntry]
    ) -> tuple[_ErratumEntry, int]:
        what, line = self.file.locate("errata", place, raw)
        entry = self.file.parse(_ErratumEntry, raw, what, line)
        self.file.require("table", entry.table, (table.id for table in tables), what, line)
        return entry, line


class _TableReader:
    """Builds one table."""

    def __init__(self, paper: _PaperReader, entry: _TableEntry, line: int) -> None:
        self.paper, self.file, self.entry, self.start = paper, paper.file, entry, line
        defaults = {"metric": entry.metric, "direction": entry.direction}
        columns = [{**defaults, **raw} for raw in entry.columns]
        self.columns = {column.id: column for column in self._parts(Column, "columns", columns)}
        self.rows = {row.id: row for row in self._parts(Row, "rows", entry.rows)}

    def _parts(self, kind: type[S], name: str, raws: list[Raw]) -> list[S]:
        after = self.file.line(rf"^\s*{name}\s*=|^\[\[tables\.{name}\]\]", after=self.start)
        self.file.refuse_duplicates(name, (str(raw.get("id")) for raw in raws), after=after)
        return [
            self.file.parse(kind, raw, *self.file.locate(f"tables.{name}", place, raw, after=after))
            for place, raw in enumerate(raws)
        ]

    def read(self, errata: list[tuple[_ErratumEntry, int]]) -> tuple[Table, list[Erratum]]:
        """Return the table, and its errata with the cells they touch."""
        slots = self._slots()
        for slot in slots.values():
            slot.recipe = None if slot.same_as else self._own_recipe(slot)
        borrowers = [(slot, slot.same_as) for slot in slots.values() if slot.same_as]
        lenders = [self._lender(slot, row, slots) for slot, row in borrowers]
        for (slot, _), lender in zip(borrowers, lenders, strict=True):
            slot.recipe, slot.priority = lender.recipe, lender.priority
        found = [self._erratum(entry, line, slots.values()) for entry, line in errata]
        table = Table(
            paper=self.paper.paper,
            id=self.entry.id,
            title=self.entry.title,
            where=self.entry.where,
            rows=tuple(self.rows.values()),
            columns=tuple(self.columns.values()),
            cells=tuple(self._cell(slot, found) for slot in slots.values()),
        )
        return table, found

    def _slots(self) -> dict[tuple[str, str], _Slot]:
        slots: dict[tuple[str, str], _Slot] = {}
        for slot in (*self._published_slots(), *self._grid_slots()):
            if slot.key in slots:
                already = f"line {slots[slot.key].line} has it already"
                raise self.file.error(slot.line, f"duplicate {slot.what}", already)
            slots[slot.key] = slot
        return slots

    def _published_slots(self) -> Iterable[_Slot]:
        lines: dict[tuple[str, str], int] = {}
        for place, raw in enumerate(self.entry.cells):
            key = str(raw.get("row")), str(raw.get("column"))
            after = lines.get(key, self.start - 1) + 1
            what, line = self.file.locate("tables.cells", place, raw, after=after)
            lines[key] = line
            entry = self.file.parse(_CellEntry, raw, what, line)
            row, column = self._pair(entry.row, entry.column, what, line)
            self.file.require("source", entry.source, self.paper.sources, what, line)
            published = entry.published(self.paper.sources[entry.source])
            yield _Slot(
                row, column, line, published, entry.same_as, entry.no_recipe, entry.priority
            )

    def _grid_slots(self) -> Iterable[_Slot]:
        for place, raw in enumerate(self.entry.grids):
            what, line = self.file.locate("tables.grids", place, raw, after=self.start)
            grid = self.file.parse(_GridEntry, raw, what, line)
            for column_id in grid.columns:
                for row_id in grid.rows:
                    row, column = self._pair(row_id, column_id, what, line)
                    yield _Slot(row, column, line, None, grid.same_as, "", grid.priority)

    def _pair(self, row: str, column: str, what: str, line: int) -> tuple[Row, Column]:
        self.file.require("row", row, self.rows, what, line)
        self.file.require("column", column, self.columns, what, line)
        return self.rows[row], self.columns[column]

    def _own_recipe(self, slot: _Slot) -> Recipe | None:
        row = slot.row
        if row.recipe is None:
            return None
        line = self.file.line(_mark("id", row.id), _mark("recipe", row.recipe), after=self.start)
        self.file.require("recipe", row.recipe, self.paper.recipes, f"row {row.id}", line)
        function = partial(self.paper.recipes[row.recipe], **row.args)
        try:
            return function(slot.column.data)
        except Exception as error:  # recipes.py is a person's own code
            call = f"{row.recipe}({slot.column.data!r})"
            raise self.file.error(line, f"row {row.id}: {call}: {_reason(error)}") from error

    def _lender(self, slot: _Slot, row: str, slots: Mapping[tuple[str, str], _Slot]) -> _Slot:
        self.file.require("row", row, self.rows, f"{slot.what}: same_as", slot.line)
        lender = slots.get((row, slot.column.id))
        if lender is None or lender.recipe is None:
            reason = f"{slot.what}: same_as: row {row!r} has no recipe for {slot.column.id}"
            raise self.file.error(slot.line, reason, "name a row that has one")
        return lender

    def _erratum(self, entry: _ErratumEntry, line: int, slots: Iterable[_Slot]) -> Erratum:
        what = f"erratum {entry.id}"
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
