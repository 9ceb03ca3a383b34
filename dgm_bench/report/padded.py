"""Tables of text whose columns have the room that they need: padded, and nothing more.

They look as rich draws them. rich can also fold what is too wide, and takes far longer: of
comparisons with thousands of numbers it was most of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

#: Text with a rich style.
Span = tuple[str, str]
#: Of a row of a table, the lines in each of its places.
PaddedRow = Sequence[Sequence[Span]]
#: Between columns.
GAP = "   "
NOTHING: Span = ("", "")
#: Letters and marks of one column each, nearly all that tables have: rich, which knows the columns
#: of all characters, takes longer to import than to lay out a table.
_NARROW = re.compile(
    "[ -~\u00a1-\u00ac\u00ae-\u02ff\u1d2c-\u1d6a\u2010-\u2027\u2070-\u209c\u2190-\u2199"
    "\u2212\u2248\u2260\u2500\u25b2\u25bc\u2713\u2717]*"
)


def padded(
    head: PaddedRow, rows: Sequence[PaddedRow], rights: Sequence[bool], spaced: bool, width: int
) -> list[list[Span]] | None:
    """Return the lines of a table, each of texts with their styles.

    Args:
        head: Its first row, above the rule; its entries stand on the rule.
        rows: The others.
        rights: Which columns stand at the right.
        spaced: Whether blank lines set rows apart.
        width: Most columns of a line.

    Returns:
        None where something has to be folded, or a text is more than one line.
    """
    widths = [_width(entries) for entries in zip(head, *rows, strict=True)]
    total = sum(widths) + len(GAP) * (len(widths) - 1)
    if not all(widths) or total > width:
        return None
    height = max(map(len, head))
    lowered = [[NOTHING] * (height - len(entry)) + list(entry) for entry in head]
    lines = [*_row(lowered, widths, rights), [("─" * total, "")]]
    for number, row in enumerate(rows):
        lines += [[]] if number and spaced else []
        lines += _row(row, widths, rights)
    return lines


def _row(row: PaddedRow, widths: Sequence[int], rights: Sequence[bool]) -> Iterator[list[Span]]:
    """Yield the lines of a row, as many as its highest entry has, and one at least."""
    last = len(widths) - 1
    for place in range(max(1, *map(len, row))):
        line: list[Span] = []
        for number, entry in enumerate(row):
            text, style = entry[place] if place < len(entry) else NOTHING
            room, gap = " " * (widths[number] - _cells(text)), GAP if number < last else ""
            if rights[number]:
                line += ((room, ""), (text, style), (gap, ""))
            elif style:
                line += ((text, style), (room + gap, ""))
            else:
                line.append((text + room + gap, ""))
        yield line


def _width(entries: Iterable[Sequence[Span]]) -> int:
    """Return the columns that a column needs; 0 where only rich knows."""
    texts = [text for entry in entries for text, _ in entry]
    if not all(text.isprintable() or _in_one_line(text) for text in texts):
        return 0
    return max(map(_cells, texts), default=0)


def _in_one_line(text: str) -> bool:
    return "\t" not in text and text.splitlines() in ([], [text])


def _cells(text: str) -> int:
    """Return the columns of a terminal that a text takes."""
    if text.isascii() or _NARROW.fullmatch(text):
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
