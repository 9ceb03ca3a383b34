"""Text from files, servers and users, made safe for where it is shown: one function a format.

Pages of HTML are escaped by their template.
"""

from __future__ import annotations

import os
import re
import unicodedata
from contextlib import suppress
from itertools import groupby

#: What moves a terminal's cursor, changes its colours or title, or turns the order of letters:
#: the control characters of ISO 6429, and the bidirectional controls of Unicode (UAX 9, section 2).
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
#: How a formula begins, also in full width: "CSV Injection" of the OWASP Foundation.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_MARKDOWN = re.compile(r"[\\`*_\[\]<|~$]|&(?=[#\w])")
#: What makes a list, a rule, a heading or a quotation of a paragraph that it begins.
_BLOCK = re.compile(r"^(\d{0,9})([-+=.)>#]|:(?=-))(?=[\s=#>-]|$)")
_DOLLAR = re.compile(r"(?<!\\)\$")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "[": "{[}", "]": "{]}", "*": "{*}",
    "\u00b1": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "✓": r"$\surd$",
    "✗": r"$\times$",
    "▼": r"$\triangledown$", "▲": r"$\triangle$", "≠": r"$\neq$", "•": r"\textbullet{}",
    "\u2013": "--", "\u00d7": r"$\times$", "→": r"$\to$", "≈": r"$\approx$", "§": r"\S{}",
    "\u2212": r"$-$", "τ": r"$\tau$",
}  # fmt: skip
#: Marks in ASCII, for output that has nothing else.
_ASCII = {
    "\u00b1": "+-", "↓": "v", "↑": "^", "✓": "y", "✗": "x", "▼": "v", "▲": "^", "≠": "/=",
    "•": "*", "\u2013": "-", "\u2014": "-", "\u00d7": "x", "→": "->", "≈": "~", "§": "sec. ",
    "\u2212": "-", "τ": "tau", "─": "-", "━": "-", "╸": "-", "╺": "-", "…": "...",
    "\u2018": "'", "\u2019": "'", "“": '"', "”": '"',
}  # fmt: skip


def plain(text: str) -> str:
    """Return text for a terminal: without control characters, but for ends of lines and tabs.

    What is no character, as in file names that are not UTF-8, is shown by its number.
    """
    if text.isascii() and text.isprintable():  # nearly all, and soon seen
        return text
    return _CONTROLS.sub("", text).encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Return text for a terminal, in one line with single spaces."""
    return plain(" ".join(text.split()))


def csv_cell(value: object) -> object:
    """Return a cell of a CSV file; an apostrophe marks text that a spreadsheet would compute.

    Numbers stay, whatever their sign.
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return "'" + text if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def markdown(text: str) -> str:
    """Return text for Markdown, in one line, that shows as it is: no HTML, formulas, named links.

    A bare address is left to what shows the page: it says itself where it leads.
    """
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def markdown_paragraph(text: str) -> str:
    """Return text of :func:`markdown` that may begin a paragraph."""
    return _BLOCK.sub(r"\1\\\2", text)


def latex(text: str) -> str:
    """Return text for LaTeX, in one line, in which no character is a command."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def drawn(text: str) -> str:
    """Return text for matplotlib, in which dollars begin no formula."""
    return _DOLLAR.sub(r"\\$", plain(text))


def in_ascii(text: str) -> str:
    """Return text with its marks and raised numbers in ASCII; a question mark for what has none."""
    runs = groupby(text, key=lambda c: unicodedata.decomposition(c).startswith("<super>"))
    plain_runs = ((raised, "".join(map(_nearest, run))) for raised, run in runs)
    return "".join(f"[{run}]" if raised else run for raised, run in plain_runs)


def _nearest(character: str) -> str:
    alike = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _ASCII.get(character) or alike or "?"


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as people write it: from the current folder, or from their home."""
    with suppress(OSError):  # the current folder may be gone
        whole = os.path.abspath(path)
        for folder, before in ((os.getcwd(), ""), (os.path.expanduser("~"), "~/")):
            if folder != "/" and whole.startswith(f"{folder}/"):
                return before + whole.removeprefix(f"{folder}/")
    return os.fspath(path)
