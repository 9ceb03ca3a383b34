"""A TOML file of typed entries, in which every error message has the line number."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dgm_bench.errors import DeclarationError, choose_from, reading
from dgm_bench.spec import Spec

Raw = dict[str, Any]
S = TypeVar("S", bound=Spec)

#: No key, and hardly a text, has more.
MOST_DOTS = 1000
#: Of floats.
MOST_EXPONENT = 308


def mark(key: str, value: object) -> str:
    """Return a pattern that finds ``key = "value"``."""
    return rf"(?<![\w-]){key}\s*=\s*[\"']{re.escape(str(value))}[\"']"


class TomlFile:
    """A TOML file and its text, to say where in it something is wrong.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    def read(self) -> Raw:
        """Return what it holds; numbers keep their printed digits."""
        try:
            with reading(self.path, DeclarationError):
                text = self.path.read_text(encoding="utf-8")
            self.lines = text.splitlines()
            self._refuse_long_keys()
            return tomllib.loads(text, parse_float=_decimal)
        except UnicodeDecodeError as error:
            remedy = "save it as UTF-8"
            raise DeclarationError(self.path, f"is not UTF-8 text: {error}", remedy) from error
        except RecursionError as error:
            raise self.error(1, "is nested too deeply", "take levels out") from error
        except ValueError as error:  # a TOMLDecodeError, or what a number's parser refuses
            found = re.search(r"at line (\d+)", str(error))
            line = int(found[1]) if found else len(self.lines)
            reason = str(error).split(" (at ")[0]
            raise self.error(line, f"broken TOML: {reason}") from error

    def _refuse_long_keys(self) -> None:
        """Refuse keys of many parts, for which the parser takes time as their number squared."""
        for number, line in enumerate(self.lines, 1):
            if line.count(".") > MOST_DOTS:
                reason = f"has more than {MOST_DOTS} dots in a line"
                raise self.error(number, reason, "take levels of keys out, or break the line")

    def error(self, line: int, reason: str, remedy: str = "") -> DeclarationError:
        """Return an error that names this file and a line."""
        return DeclarationError(f"{self.path}:{line}", reason, remedy or "mend that line")

    def find(self, *patterns: str, after: int = 1) -> int | None:
        """Return the line, from ``after`` on, from which all patterns are found soonest.

        An entry stands on one line, or spread over the few lines below the first of its keys.
        """
        for reach in (1, 12):
            for start in range(after - 1, len(self.lines)):
                window = "\n".join(self.lines[start : start + reach])
                first = any(re.search(pattern, self.lines[start]) for pattern in patterns)
                if first and all(re.search(pattern, window) for pattern in patterns):
                    return start + 1
        return None

    def locate(
        self, header: str, raws: Sequence[Raw], start: int, end: int
    ) -> list[tuple[str, int]]:
        """Return the entries of a list, each with its name for messages and its line.

        Args:
            header: Their ``[[header]]``, below which they may stand; they may stand inline too.
            raws: The entries.
            start: The line at which their table or file begins.
            end: The line after its last.
        """
        lines = range(start, min(end, len(self.lines) + 1))
        heads = [n for n in lines if self.lines[n - 1].split("#")[0].strip() == f"[[{header}]]"]
        found, last = [], start
        for place, raw in enumerate(raws):
            keys = [key for key in ("id", "row", "column") if key in raw]
            marks = [mark(key, raw[key]) for key in keys]
            below = self.find(*marks, after=last + 1) or self.find(*marks, after=start)
            last = heads[place] if place < len(heads) else below or start
            found.append((" ".join([_singular(header), *(str(raw[key]) for key in keys)]), last))
        return found

    def parse(self, kind: type[S], raw: Raw, what: str, line: int) -> S:
        """Return a typed entry."""
        try:
            return kind.model_validate(raw)
        except ValidationError as error:
            raise self._explain(kind, error, what, line) from error

    def _explain(
        self, kind: type[Spec], error: ValidationError, what: str, line: int
    ) -> DeclarationError:
        # A misspelt key is unknown and missing at once: the former says more.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "missing":
            return self.error(line, f"{what} has no {key}", f"add {key} = ...")
        line = self.find(rf"(?<![\w-]){re.escape(key)}\s*=", after=line) or line
        if first["type"] == "extra_forbidden":
            remedy = choose_from(key, kind.model_fields)
            return self.error(line, f"{what}: unknown key {key!r}", remedy)
        return self.error(line, f"{what}: {key}: {first['msg'].removeprefix('Value error, ')}")

    def entries(
        self,
        kind: type[S],
        header: str,
        raws: Sequence[Raw],
        start: int = 1,
        end: int = sys.maxsize,
    ) -> list[tuple[S, str, int]]:
        """Return typed entries, each with its name and line; none comes twice.

        The arguments are those of :meth:`locate`.
        """
        places = self.locate(header, raws, start, end)
        self.refuse_duplicates(places)
        return [
            (self.parse(kind, raw, *place), *place) for raw, place in zip(raws, places, strict=True)
        ]

    def require(self, kind: str, name: str, known: Iterable[str], what: str, line: int) -> None:
        """Raise if ``name`` is not one of the known ones."""
        names = list(known)
        if name not in names:
            raise self.error(line, f"{what}: unknown {kind} {name!r}", choose_from(name, names))

    def refuse_duplicates(self, entries: list[tuple[str, int]]) -> None:
        """Raise if two entries have the same name."""
        seen: dict[str, int] = {}
        for what, line in entries:
            if what in seen:
                raise self.error(line, f"duplicate {what}", f"line {seen[what]} has it already")
            seen[what] = line


def _decimal(text: str) -> Decimal:
    """Return a number with its printed digits; NaN for what no float can be, to be told of later.

    Other libraries would write out the zeros of 1e9999999.
    """
    number = Decimal(text)
    usable = number.is_finite() and abs(number.adjusted()) <= MOST_EXPONENT
    return number if usable else Decimal("nan")


def _singular(header: str) -> str:
    """Return what an entry of ``[[header]]`` is called."""
    name = header.rpartition(".")[2]
    return {"errata": "erratum"}.get(name, name.removesuffix("s"))
