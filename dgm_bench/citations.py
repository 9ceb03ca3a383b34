"""What to cite for a cell: its paper, where its number, model and data are from, and this suite.

The papers' own BibTeX stands in their ``paper.toml``, all other in ``references.bib`` beside
them, and ``citations.toml`` says which models and data sets it is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dgm_bench import __version__
from dgm_bench.bibtex import Entry, parse
from dgm_bench.catalog import Catalog, default_folder
from dgm_bench.errors import DeclarationError, find_named, reading
from dgm_bench.spec import Cell, Paper, Source, Spec
from dgm_bench.tomlfile import TomlFile

#: The key of this suite.
SUITE = "dgmbench"
Keys = tuple[str, ...]


class _Declared(Spec):
    """``citations.toml``: keys by models, by values of their arguments, and by data sets."""

    models: Mapping[str, Keys]
    posteriors: Mapping[str, Keys]
    priors: Mapping[str, Keys]
    data: Mapping[str, Keys]


@dataclass(frozen=True)
class Citations:
    """The works that a catalogue refers to.

    Attributes:
        catalog: The papers.
        folder: Holds them, ``references.bib`` and ``citations.toml``.
    """

    catalog: Catalog
    folder: Path

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """All works by their keys.

        Raises:
            DeclarationError: The BibTeX is broken.
        """
        file = self.folder / "references.bib"
        with reading(file, DeclarationError):
            found = parse(file.read_text(encoding="utf-8"), file)
        for paper in self.catalog.papers:
            found += self._own(paper)
        return {entry.key: entry for entry in found}

    @cached_property
    def _declared(self) -> _Declared:
        file = TomlFile(self.folder / "citations.toml")
        return file.parse(_Declared, file.read(), "the citations", 1)

    def _own(self, paper: Paper) -> list[Entry]:
        return parse(paper.bibtex, self.folder / paper.id / "paper.toml")

    def of_cells(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Return the keys of what is cited for cells, each with what it is of: first this suite."""
        found = {SUITE: "this suite"}
        for paper in dict.fromkeys(cell.paper for cell in cells):
            own = self._own(self.catalog.paper(paper))
            found |= {entry.key: f"paper {paper}" for entry in own if entry.key not in found}
        for cell in cells:
            for key, what in self._of(cell):
                found.setdefault(key, what)
        return found

    def _of(self, cell: Cell) -> Iterator[tuple[str, str]]:
        """Yield the keys of a cell's number, models and data, each with what it is of."""
        if (source := self._source(cell)) is not None:
            yield from ((key, f"published numbers, {source.where}") for key in source.cites)
        declared = self._declared
        for stage in cell.recipe.stages if cell.recipe else ():
            name, args = stage.model.name, stage.model.args
            keys = (
                *declared.models.get(name, ()),
                *declared.posteriors.get(str(args.get("posterior")), ()),
                *declared.priors.get(str(args.get("prior")), ()),
            )
            yield from ((key, f"model {name.partition(':')[2]}") for key in keys)
            data = stage.data.name
            yield from ((key, f"data set {data}") for key in declared.data.get(data, ()))

    def _source(self, cell: Cell) -> Source | None:
        if cell.published is None:
            return None
        sources = self.catalog.paper(cell.paper).sources
        return next((source for source in sources if source.id == cell.published.source), None)

    def bibtex(self, found: Mapping[str, str]) -> str:
        """Return works in BibTeX, each below a comment that says what it is of.

        Args:
            found: Their keys with what they are of, as :meth:`of_cells` returns them.
        """
        texts = (f"% {what}\n{self._text(key)}" for key, what in found.items())
        return "\n\n".join(texts)

    def _text(self, key: str) -> str:
        text = find_named(key, self.entries, "reference").text
        version = f"  note   = {{version {__version__}}},\n}}"
        return text.removesuffix("}") + version if key == SUITE else text


def load_citations(catalog: Catalog, folder: Path | None = None) -> Citations:
    """Return the works of a catalogue.

    Args:
        catalog: As it was read from the folder.
        folder: None for the project's own.
    """
    return Citations(catalog, folder or default_folder())
