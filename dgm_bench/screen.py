"""The screen that text is laid out for: how wide it is, its colours, and which marks it has."""

from __future__ import annotations

import codecs
import os
import sys

from dgm_bench.escaping import in_ascii, plain

#: Columns where no terminal says how many it has.
WIDTH = 120
NARROWEST, WIDEST = 40, 2000
#: Writes marks that an encoding lacks in ASCII.
IN_ASCII = "dgm_bench.in_ascii"


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return in_ascii(plain(error.object[error.start : error.end])), error.end


codecs.register_error(IN_ASCII, _in_ascii)


def has_all_marks() -> bool:
    """Return whether standard output can show every character."""
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def fitting(text: str) -> str:
    """Return text as standard output shows it, so that it can be laid out: ± may take two columns.

    It has no control characters.
    """
    known = plain(text)
    encoding = getattr(sys.stdout, "encoding", None)
    if known.isascii() or has_all_marks() or not encoding:
        return known
    return known.encode(encoding, IN_ASCII).decode(encoding)


def columns(*, terminal: bool) -> int | None:
    """Return how many columns ``COLUMNS`` asks for, within reason; None to ask the terminal."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked[:6]) > 0:
        return min(max(int(asked[:6]), NARROWEST), WIDEST)
    return None if terminal else WIDTH


def width_and_colour() -> tuple[int, bool]:
    """Return the columns of standard output, and whether rich takes it for a terminal.

    Where it is none, and nothing tells rich that it is one, rich is not asked: it starts slowly.
    """
    width = columns(terminal=sys.stdout.isatty())
    told = any(name == "FORCE_COLOR" or name.startswith("TTY_") for name in os.environ)
    if width is not None and not sys.stdout.isatty() and not told:
        return width, False
    from rich.console import Console

    console = Console(file=sys.stdout, width=width)
    return console.width, console.is_terminal
