"""Pictures of the tool in a terminal, made of what it really prints.

``python docs/generate/terminal.py [NAME...]`` runs the commands and writes the pictures of README
and site into ``docs/assets``. Those of a training take as long as that.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "docs/assets"
#: Rich's pictures ask another host for a font.
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.S)
#: Of a terminal: the cursor hidden, and shown again.
_CURSOR = re.compile(r"\x1b\[\?25[lh]")


class Picture(NamedTuple):
    """A command, in words, and how much of what it prints is shown.

    Attributes:
        words: The command after ``dgm-bench``.
        width: Columns of the terminal.
        lines: How many lines are shown at most.
    """

    words: tuple[str, ...]
    width: int = 80
    lines: int = 60


PICTURES = {
    "run": Picture(("run", "ffjord/density/*/digits", "--budget", "3m"), width=92),
    "show": Picture(("show", "ffjord/density/gaussian/mnist"), width=100, lines=24),
}


def drawn(picture: Picture, output: str) -> str:
    """Return the picture of what a command printed, as SVG.

    Args:
        picture: The command.
        output: What it printed, with the colours of a terminal.
    """
    console = Console(record=True, width=picture.width, file=io.StringIO())
    console.print(Text(f"$ dgm-bench {' '.join(map(_quoted, picture.words))}", style="bold"))
    lines = _CURSOR.sub("", output).rstrip("\n").split("\n")
    for line in lines[: picture.lines]:
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title="dgm-bench", theme=MONOKAI, unique_id="terminal")
    return _FONT.sub("", svg)


def printed(picture: Picture) -> str:
    """Return what a command prints in a terminal of that width, in a folder without results."""
    words = [sys.executable, "-m", "dgm_bench", *picture.words]
    # Rows are printed one below the other, as a picture cannot show a line that changes.
    screen = {"COLUMNS": str(picture.width), "FORCE_COLOR": "1", "TTY_INTERACTIVE": "0"}
    around = os.environ | screen | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(words, env=around, cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def _quoted(word: str) -> str:
    return f"'{word}'" if "*" in word else word


def main(names: Sequence[str]) -> None:
    """Write the pictures of these names, or all."""
    for name in names or PICTURES:
        picture = PICTURES[name]
        (ASSETS / f"{name}.svg").write_text(drawn(picture, printed(picture)), encoding="utf-8")
        print(f"wrote {ASSETS / name}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
