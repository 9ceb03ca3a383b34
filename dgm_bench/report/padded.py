"""Tables of text whose columns have the room that they need: padded, and nothing more.

They look as rich draws them. rich can also fold what is too wide, and takes far longer: of
comparisons with thousands of numbers it was most of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgm_bench.report.grid import Section

#: Text with a rich style.
Span = tuple[str, str]
#: Between columns.
GAP = "   "


def padded(section: Section, width: int) -> list[list[Span]] | None:
    """Return the lines of a table, each of texts with their styles.

    Args:
        section: The table.
        width: Most columns of a line.

    Returns:
        None where something has to be folded, or a text is more than one line.
    """
    head = [[(text, "bold") for text in heading.lines] for heading in section.headings]
    rows = [
        [[(line.text, _style(line.style, line.bold)) for line in entry.lines] for entry in row]
        for row in section.rows
    ]
    widths = [_width(entries) for entries in zip(head, *rows, strict=True)]
    fits = all(widths) and sum(widths) + len(GAP) * (len(widths) - 1) <= width
    return list(_lines(section, head, rows, widths)) if fits else None


def _lines(
    section: Section,
    head: Sequence[Sequence[Span]],
    rows: Sequence[Sequence[Sequence[Span]]],
    widths: Sequence[int],
) -> Iterator[list[Span]]:
    rights = [heading.right for heading in section.headings]
    height = max(map(len, head))
    lowered = [[("", "")] * (height - len(entry)) + list(entry) for entry in head]
    yield from _row(lowered, widths, rights)
    yield [("─" * (sum(widths) + len(GAP) * (len(widths) - 1)), "")]
    for number, row in enumerate(rows):
        if number and section.spaced:
            yield []
        yield from _row(row, widths, rights)


def _row(
    row: Sequence[Sequence[Span]], widths: Sequence[int], rights: Sequence[bool]
) -> Iterator[list[Span]]:
    """Yield the lines of a row, as many as its highest entry has, and one at least."""
    for place in range(max(1, *map(len, row))):
        line: list[Span] = []
        for entry, width, right in zip(row, widths, rights, strict=True):
            text, style = entry[place] if place < len(entry) else ("", "")
            room = " " * (width - _cells(text))
            line += [(room, ""), (text, style)] if right else [(text, style), (room, "")]
            line.append((GAP, ""))
        yield line[:-1]


def _width(entries: Iterable[Sequence[Span]]) -> int:
    """Return the columns that a column needs; 0 where only rich knows."""
    texts = [text for entry in entries for text, _ in entry]
    if any("\t" in text or text.splitlines() not in ([], [text]) for text in texts):
        return 0
    return max(map(_cells, texts), default=0)


def _cells(text: str) -> int:
    """Return the columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _style(style: str, bold: bool) -> str:
    return f"bold {style}".strip() if bold else style
