"""The catalogue: every paper, table and cell that ``reproductions/*/paper.toml`` declares.

Neither reading it nor asking what is runnable imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from dgm_bench import kept_catalog
from dgm_bench.errors import DeclarationError, DgmBenchError, UsageError, did_you_mean, find_named
from dgm_bench.paths import PACKAGE, checkout_root
from dgm_bench.spec import Cell, Paper, Recipe, Table


@dataclass(frozen=True)
class Catalog:
    """All declared papers."""

    papers: tuple[Paper, ...]

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order in which they are declared."""
        return [table for paper in self.papers for table in paper.tables]

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order in which they are declared."""
        return [cell for table in self.tables for cell in table.cells]

    def select(self, *patterns: str) -> list[Cell]:
        """Return the cells whose ids match a shell pattern, each once, in declared order.

        Raises:
            UsageError: A pattern matches nothing; suggests what might have been meant.
        """
        ids = [cell.id for cell in self.cells]
        for pattern in patterns:
            if not any(fnmatchcase(cell_id, pattern) for cell_id in ids):
                hint = _suggestion(pattern, ids) or "see dgm-bench list"
                raise UsageError(pattern, "matches no cell", hint)
        matched = {i for i in ids if any(fnmatchcase(i, pattern) for pattern in patterns)}
        return [cell for cell in self.cells if cell.id in matched]

    def named(self, *names: str) -> list[Cell]:
        """Return the cells of papers, tables and patterns, each once, in declared order.

        Raises:
            UsageError: A name means nothing; suggests what might have been meant.
        """
        groups = {paper.id for paper in self.papers} | {table.name for table in self.tables}
        patterns = [f"{name}/*" if name in groups else name for name in names]
        for name in set(names) - groups:
            if not any(fnmatchcase(cell.id, name) for cell in self.cells):
                hint = did_you_mean(name, groups) if name.count("/") < 2 else ""
                hint = hint or _suggestion(name, [cell.id for cell in self.cells])
                raise UsageError(name, "no such cell, table or paper", hint or "see dgm-bench list")
        return self.select(*patterns)

    def table(self, name: str) -> Table:
        """Return the table called ``paper/table``.

        Raises:
            UsageError: There is none of that name.
        """
        if any(paper.id == name for paper in self.papers):
            raise UsageError(name, "no such table", f"use --paper {name} for its tables")
        return find_named(name, {table.name: table for table in self.tables}, "table")

    def paper(self, name: str) -> Paper:
        """Return the paper called ``name``.

        Raises:
            UsageError: There is none of that name.
        """
        return find_named(name, {paper.id: paper for paper in self.papers}, "paper")


def load_catalog(folder: Path | None = None) -> Catalog:
    """Read all declarations below a folder; the project's own once in a process.

    Args:
        folder: Holds one folder per paper; None for the project's own.

    Raises:
        DeclarationError: A declaration is wrong, or there is none.
    """
    return _read_once(default_folder()) if folder is None else _read(folder)


def _read(folder: Path) -> Catalog:
    from dgm_bench.declarations import load_paper

    papers = [load_paper(path.parent) for path in sorted(folder.glob("*/paper.toml"))]
    if not papers:
        raise DeclarationError(folder, "holds no <paper>/paper.toml", "reinstall dgm-bench")
    return Catalog(tuple(papers))


#: Hashes of the project's own recipes whose arguments are known to fit.
_SOUND: set[str] = set()


@cache
def _read_once(folder: Path) -> Catalog:
    """Declarations are immutable, and a command may ask for them more than once."""
    declared = kept_catalog.read_once(folder, lambda: _read(folder).papers, _sound)
    _SOUND.update(declared.sound)
    return Catalog(declared.papers)


def _sound(papers: Iterable[Paper]) -> Iterator[str]:
    """Yield the hashes of the recipes whose arguments fit."""
    recipes = (cell.recipe for cell in Catalog(tuple(papers)).cells if cell.recipe is not None)
    own = {recipe.content_hash: recipe for recipe in recipes}
    return (known for known, recipe in own.items() if not _fault(recipe))


def default_folder() -> Path:
    """Return ``reproductions`` of the checkout, or the copy that an installed package has."""
    root = checkout_root()
    packaged = PACKAGE / "_reproductions"
    if root is None and packaged.is_dir():
        return packaged
    return (root or PACKAGE.parent) / "reproductions"


def _suggestion(pattern: str, ids: list[str]) -> str:
    """Return ``did you mean ...?`` for a pattern, correcting it part by part.

    It may be the beginning of a name, or the end of one.
    """
    columns = [set(known) for known in zip(*(cell_id.split("/") for cell_id in ids), strict=True)]
    parts = pattern.rstrip("/").split("/")
    for known, shapes in ((columns, ("{}", "{}/*")), (columns[-len(parts) :], ("*/{}",))):
        pairs = zip(parts, known, strict=False)
        corrected = "/".join(_nearest(part, names) for part, names in pairs)
        for meant in (shape.format(corrected) for shape in shapes):
            if len(parts) <= len(known) and any(fnmatchcase(each, meant) for each in ids):
                return f"did you mean {meant!r}?"
    return did_you_mean(pattern, ids)


def _nearest(part: str, known: set[str]) -> str:
    """Return a part as it is where it matches a known one, else the known one next to it."""
    if any(fnmatchcase(name, part) for name in known):
        return part
    hint = did_you_mean(part, sorted(known))
    return hint.split("'")[1] if hint else part


# --------------------------------------------------------------------------- runnable


def runnable(cell: Cell) -> tuple[bool, str]:
    """Say whether a cell's recipe resolves and its model would build, and if not, why.

    Judged by reading: data sets by their cards, models and objectives by their source.
    """
    if cell.recipe is None:
        return False, f"no recipe yet: {cell.no_recipe}" if cell.no_recipe else "no recipe yet"
    fault = "" if cell.recipe.content_hash in _SOUND else _fault(cell.recipe)
    return not fault, fault


def _fault(recipe: Recipe) -> str:
    from dgm_bench.recipe_checks import require_arguments

    try:
        require_arguments(recipe)
    except DgmBenchError as error:
        return str(error)
    return ""
