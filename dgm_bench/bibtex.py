"""BibTeX as this project writes it, read strictly: what it passes, BibTeX and biber read too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dgm_bench.errors import DeclarationError

#: Fields without which BibTeX's standard styles warn; a misc needs none, and is asked for two.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "article": ("author", "title", "journal", "year"),
    "inproceedings": ("author", "title", "booktitle", "year"),
    "techreport": ("author", "title", "institution", "year"),
    "misc": ("author", "title"),
}
_HEAD = re.compile(r"@(\w+)\{\s*([A-Za-z][\w:.+-]*)\s*,\s*")
_FIELD = re.compile(r"([A-Za-z][\w-]*)\s*=\s*")
_PLAIN = re.compile(r"\d+")
_COMMENT = re.compile(r"[^@]*")


@dataclass(frozen=True)
class Entry:
    """One work.

    Attributes:
        kind: Its type in lower case, such as ``article``.
        key: By which it is cited.
        fields: By their names in lower case, without the outer braces.
        text: As it is written, from ``@`` to the last brace.
    """

    kind: str
    key: str
    fields: Mapping[str, str]
    text: str

    @property
    def url(self) -> str:
        """Where it can be read: on arXiv where it is there, else its own address, or empty."""
        eprint = self.fields.get("eprint", "")
        return f"https://arxiv.org/abs/{eprint}" if eprint else self.fields.get("url", "")


def parse(text: str, where: object) -> list[Entry]:
    """Return the entries of a BibTeX text, in its order.

    Args:
        text: Entries of the types of ``REQUIRED``; what stands between them is a comment.
        where: Its file, for messages.

    Raises:
        DeclarationError: An entry is broken, incomplete, or has the key of another.
    """
    return list(_Reader(text, where).entries())


class _Reader:
    def __init__(self, text: str, where: object) -> None:
        self.text, self.where, self.at = text, where, 0

    def entries(self) -> Iterator[Entry]:
        keys: set[str] = set()
        while self._skip(_COMMENT) and self.at < len(self.text):
            entry = self._entry()
            if entry.key.lower() in keys:  # BibTeX does not tell capitals apart
                raise self._error(f"{entry.key} comes twice")
            keys.add(entry.key.lower())
            yield entry

    def _entry(self) -> Entry:
        begin = self.at
        kind, key = self._take(_HEAD, "@type{key,").groups()
        fields: dict[str, str] = {}
        while not self.text.startswith("}", self.at):
            name = self._take(_FIELD, "name = {value},")[1].lower()
            if name in fields:
                raise self._error(f"{key} has {name} twice")
            fields[name] = self._value()
            comma = self._skip(re.compile(r"\s*(,?)\s*"))[1]
            if not comma and not self.text.startswith("}", self.at):
                raise self._error(f"{key}: no comma behind {name}")
        self.at += 1
        entry = Entry(kind.lower(), key, fields, self.text[begin : self.at])
        self._require(entry)
        return entry

    def _require(self, entry: Entry) -> None:
        if entry.kind not in REQUIRED:
            raise self._error(f"{entry.key}: unknown type @{entry.kind}")
        missing = [name for name in REQUIRED[entry.kind] if not entry.fields.get(name)]
        if missing:
            raise self._error(f"{entry.key} has no {', '.join(missing)}")
        if not entry.text.isascii():
            raise self._error(f'{entry.key} is not in ASCII: write {{\\"a}} for a letter')

    def _value(self) -> str:
        """Return a number, or what stands between balanced braces."""
        if not self.text.startswith("{", self.at):
            return self._take(_PLAIN, "a number, or a value in braces")[0]
        depth, begin = 0, self.at
        while self.at < len(self.text):
            depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
            self.at += 1
            if not depth:
                return self.text[begin + 1 : self.at - 1]
        raise self._error("a brace is not closed")

    def _take(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self._error(f"not {wanted}")
        self.at = found.end()
        return found

    def _skip(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Take what may be empty."""
        return self._take(pattern, "")

    def _error(self, reason: str) -> DeclarationError:
        line = self.text.count("\n", 0, self.at) + 1
        return DeclarationError(f"{self.where}:{line}", f"broken BibTeX: {reason}", "mend it there")
