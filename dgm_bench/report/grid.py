"""A small page of tables and notes, and how it is written as text, Markdown and LaTeX."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from dgm_bench import escaping
from dgm_bench.report.padded import Span, padded

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

#: Notes are wrapped here even where the terminal is wider: longer lines are hard to read.
NOTE_WIDTH = 110
#: Letters that can be raised: Unicode has no small q.
LETTERS = "abcdefghijklmnoprstuvwxyz"
SUPERSCRIPTS = str.maketrans("0123456789" + LETTERS, "⁰¹²³⁴⁵⁶⁷⁸⁹ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")
_FROM_SUPERSCRIPT = {raised: plain for plain, raised in SUPERSCRIPTS.items()}
_RAISED = re.compile("[" + "".join(map(chr, _FROM_SUPERSCRIPT)) + "]+")


@dataclass(frozen=True)
class Line:
    """One line of an entry, with a rich style and whether print makes it bold too."""

    text: str
    style: str = ""
    bold: bool = False

    @property
    def shown(self) -> str:
        """The style as rich takes it."""
        return f"bold {self.style}".strip() if self.bold else self.style


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table: lines below each other."""

    lines: tuple[Line, ...] = ()

    @classmethod
    def of(cls, *texts: str) -> Entry:
        """Return an entry of plain lines."""
        return cls(tuple(Line(text) for text in texts))


@dataclass(frozen=True)
class Heading:
    """The head of a column; neighbours of one group stay together where the page is narrow."""

    lines: tuple[str, ...]
    group: str = ""
    right: bool = False


@dataclass(frozen=True)
class Section:
    """A table: headings and rows of as many entries; the first column names the rows."""

    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Entry, ...], ...]

    @property
    def spaced(self) -> bool:
        """Whether rows are set apart: where an entry has several lines."""
        return any(len(entry.lines) > 1 for row in self.rows for entry in row)

    def escaped(self, escape: Callable[[str], str]) -> Section:
        """Return the table with every text as a format or screen needs it."""
        headings = (replace(h, lines=tuple(map(escape, h.lines))) for h in self.headings)
        rows = (tuple(_escaped_entry(entry, escape) for entry in row) for row in self.rows)
        return Section(escape(self.title), tuple(headings), tuple(rows))

    def padded(self, width: int, *, spaced: bool | None = None) -> list[list[Span]] | None:
        """Return its lines of at most ``width`` columns; None where something has to be folded.

        Args:
            width: In columns.
            spaced: Whether rows are set apart; None where that is for the table to say.
        """
        head = [[(text, "bold") for text in heading.lines] for heading in self.headings]
        rows = [[[(line.text, line.shown) for line in e.lines] for e in row] for row in self.rows]
        apart = self.spaced if spaced is None else spaced
        return padded(head, rows, [h.right for h in self.headings], apart, width)


@dataclass(frozen=True)
class Notes:
    """A list below the tables: ``(label, text)`` each; no label means a plain paragraph."""

    title: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """A title, tables, and notes."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[Notes, ...] = ()

    def escaped(self, escape: Callable[[str], str]) -> Page:
        """Return the page with every text as a format needs it."""
        return Page(
            escape(self.title),
            tuple(section.escaped(escape) for section in self.sections),
            tuple(
                Notes(
                    escape(notes.title), tuple((label, escape(text)) for label, text in notes.items)
                )
                for notes in self.notes
            ),
        )


def _escaped_entry(entry: Entry, escape: Callable[[str], str]) -> Entry:
    texts = [escape(line.text) for line in entry.lines]
    if texts == [line.text for line in entry.lines]:
        return entry
    lines = zip(entry.lines, texts, strict=True)
    return Entry(tuple(replace(line, text=text) for line, text in lines))


def superscript(label: str) -> str:
    """Return a footnote's label, digits or :data:`LETTERS`, raised."""
    return label.translate(SUPERSCRIPTS)


# --------------------------------------------------------------------------- text


def to_text(
    page: Page,
    width: int = 160,
    colour: bool = False,
    fit: Callable[[str], str] = escaping.plain,
) -> str:
    """Return the page as text of at most ``width`` columns.

    Tables that are too wide are continued below, broken where a group of columns ends. ``fit``
    gives a text the characters that what shows it has.
    """
    page = page.escaped(fit)
    blocks = [wrapped(page.title, width)]
    for section in page.sections:
        tables = [_table_text(part, width, colour) for part in _parts(section, width)]
        blocks.append("\n\n".join([*_title(section, width), *tables]))
    room = min(width, NOTE_WIDTH)
    blocks += [note_text(notes, room, fit) for notes in page.notes if notes.items]
    return "\n\n".join(blocks) + "\n"


def _title(section: Section, width: int) -> list[str]:
    return [wrapped(section.title, width)] if section.title else []


def wrapped(text: str, width: int, lead: str = "") -> str:
    """Return a text in lines of at most ``width`` columns; ``lead`` begins it and is its indent."""
    return textwrap.fill(
        text,
        width,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
    )


def _table_text(section: Section, width: int, colour: bool) -> str:
    lines = section.padded(width)
    if lines is None:
        return _rich_text(_rich_table(section), width, colour)
    if not colour:
        return "\n".join("".join([text for text, _ in line]).rstrip() for line in lines)
    return "\n".join("".join(coloured(*span) for span in line).rstrip() for line in lines)


def coloured(text: str, style: str) -> str:
    """Return a text with a rich style, as a terminal takes it."""
    from rich.color import ColorSystem
    from rich.style import Style

    return Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


def _rich_table(section: Section) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for heading in section.headings:
        table.add_column(
            Text("\n".join(heading.lines)),
            justify="right" if heading.right else "left",
            overflow="fold",
        )
    for number, row in enumerate(section.rows):
        if number and section.spaced:
            table.add_row()
        table.add_row(*(_rich_entry(entry) for entry in row))
    return table


def _rich_entry(entry: Entry) -> RichText:
    from rich.text import Text

    return Text("\n").join(Text(line.text, line.shown) for line in entry.lines)


def _rich_text(table: RichTable, width: int, colour: bool) -> str:
    from rich.console import Console

    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())


def note_text(notes: Notes, width: int, fit: Callable[[str], str] = escaping.plain) -> str:
    """Return notes as text of at most ``width`` columns; ``fit`` is that of :func:`to_text`."""
    lines = [wrapped(notes.title, width)] if notes.title else []
    items = [(fit(label), text) for label, text in notes.items]
    indent = max((len(label) for label, _ in items), default=0)
    for label, text in items:
        lead = f"{label.rjust(indent)} " if indent else ""
        lines.append(wrapped(text, width, lead))
    return "\n".join(lines)


def _parts(section: Section, width: int) -> Iterator[Section]:
    """Yield the section cut into sets of columns that fit, each with the first column."""
    widths = [_column_width(section, i) for i in range(len(section.headings))]
    for columns in _fitting(section.headings, widths, width):
        yield _columns_of(section, columns)


def _columns_of(section: Section, columns: Sequence[int]) -> Section:
    chosen = (0, *columns)
    rows = (tuple(row[i] for i in chosen) for row in section.rows)
    filled = tuple(row for row in rows if any(entry.lines for entry in row[1:]))
    headings = tuple(section.headings[i] for i in chosen)
    return Section(section.title, headings, filled)


def _column_width(section: Section, column: int) -> int:
    entries = (line.text for row in section.rows for line in row[column].lines)
    return max(map(len, (*section.headings[column].lines, *entries)), default=0)


def _fitting(headings: Sequence[Heading], widths: Sequence[int], width: int) -> list[list[int]]:
    gap = 3  # rich's padding between columns
    room = width - widths[0]
    indices = range(1, len(headings))
    if sum(widths[i] + gap for i in indices) <= room:
        return [list(indices)]
    parts: list[list[int]] = []
    for _, group in groupby(indices, key=lambda i: headings[i].group):
        parts += _greedy(list(group), [w + gap for w in widths], room)
    return parts


def _greedy(columns: Sequence[int], widths: Sequence[int], room: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for column in columns:
        if parts[-1] and sum(widths[i] for i in parts[-1]) + widths[column] > room:
            parts.append([])
        parts[-1].append(column)
    return parts


# --------------------------------------------------------------------------- Markdown


def to_markdown(page: Page) -> str:
    """Return the page as GitHub-flavoured Markdown."""
    page = page.escaped(escaping.markdown)
    blocks = [f"### {page.title}"]
    for section in page.sections:
        if section.title:
            blocks.append(f"**{section.title}**")
        blocks.append(_markdown_table(section))
    for notes in page.notes:
        if notes.items:
            blocks.append("\n".join(_markdown_notes(notes)))
    return "\n\n".join(blocks) + "\n"


def _markdown_table(section: Section) -> str:
    rule = ["---:" if heading.right else "---" for heading in section.headings]
    rows = [["<br>".join(heading.lines) for heading in section.headings], rule]
    rows += [[_markdown_entry(entry) for entry in row] for row in section.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _markdown_entry(entry: Entry) -> str:
    return "<br>".join(_markdown_line(line) for line in entry.lines if line.text.strip())


def _markdown_line(line: Line) -> str:
    return f"**{line.text}**" if line.bold else line.text


def _markdown_notes(notes: Notes) -> Iterator[str]:
    if notes.title:
        yield f"{escaping.markdown_paragraph(notes.title)}\n"
    for label, text in notes.items:
        yield f"- {label} {text}" if label else f"- {escaping.markdown_paragraph(text)}"


# --------------------------------------------------------------------------- LaTeX


def to_latex(page: Page) -> str:
    """Return the page as LaTeX tables that need the packages booktabs and amssymb."""
    page = page.escaped(_latex)
    blocks = [rf"\noindent\textbf{{{page.title}}}\par"]
    for section in page.sections:
        if section.title:
            blocks.append(rf"\medskip\noindent {section.title}\par")
        blocks.append(_latex_table(section))
    for notes in page.notes:
        if notes.items:
            blocks.append("\n".join(_latex_notes(notes)))
    return "\n\n".join(blocks) + "\n"


def _latex_table(section: Section) -> str:
    sides = "".join("r" if heading.right else "l" for heading in section.headings)
    body = _latex_lines([[Line(t) for t in heading.lines] for heading in section.headings])
    lines = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", *body, r"\midrule"]
    for number, row in enumerate(section.rows):
        lines += [r"\addlinespace"] if number and section.spaced else []
        lines += _latex_lines([entry.lines for entry in row])
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_lines(entries: Sequence[Sequence[Line]]) -> Iterator[str]:
    for i in range(max(map(len, entries))):
        cells = (_latex_line(lines[i]) if i < len(lines) else "" for lines in entries)
        yield " & ".join(cells) + r" \\"


def _latex_line(line: Line) -> str:
    return rf"\textbf{{{line.text}}}" if line.bold else line.text


def _latex_notes(notes: Notes) -> Iterator[str]:
    yield rf"{{\footnotesize\noindent {notes.title}\par"
    for label, text in notes.items:
        yield rf"\noindent {f'{_latex(label)} {text}'.strip()}\par"
    yield "}"


def _latex(text: str) -> str:
    return _RAISED.sub(_latex_superscript, escaping.latex(text))


def _latex_superscript(match: re.Match[str]) -> str:
    return rf"\textsuperscript{{{match[0].translate(_FROM_SUPERSCRIPT)}}}"
