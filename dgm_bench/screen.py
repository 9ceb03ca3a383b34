"""The screen that text is laid out for: how wide it is, and whether it has colours."""

from __future__ import annotations

import os
import sys

#: Columns where no terminal says how many it has.
WIDTH = 120
NARROWEST, WIDEST = 40, 2000


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
