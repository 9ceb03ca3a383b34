"""The file of expected counters: what differs from it, in either direction, and writing it anew."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dgm_bench.errors import DamagedError, ResultsError, UsageError, reading
from dgm_bench.paths import checkout_root
from dgm_bench.provenance import version_of
from dgm_bench.sealed import write_atomically

#: The command that writes the file.
UPDATE = "tox -e perf -- --write"
#: By whose version a counter may differ though this code is the same; the others are ours alone.
DEPENDS: Mapping[str, tuple[str, ...]] = {
    "operators": ("torch", "torchdiffeq"),
    "flops": ("torch", "torchdiffeq"),
    "peak_bytes": ("torch", "torchdiffeq"),
    "modules": ("python", "click", "rich", "pydantic"),
    "packages": ("python", "click", "rich", "pydantic"),
}
_HEAD = f"""\
# What a step of each case and each command take, counted exactly; CONTRIBUTING.md says more.
# `{UPDATE}` writes this file. Commit it with the change that moves a number.
# A counter may have a margin: `operators = {{ value = 90, margin = 0.01 }}` allows one per cent.
"""
_VERSIONS = "measured-with"


@dataclass(frozen=True)
class Expected:
    """What the file says.

    Attributes:
        versions: Of what it was measured with.
        values: Counters by case.
        margins: Share by which a counter may differ, where that is not zero.
    """

    versions: Mapping[str, str]
    values: Mapping[str, Mapping[str, int]]
    margins: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A counter that is not as expected; None where one side has none."""

    case: str
    counter: str
    expected: int | None
    measured: int | None

    def __str__(self) -> str:
        """Return one line."""
        line = f"{self.case}: {self.counter}: expected {_shown(self.expected)}, "
        line += f"measured {_shown(self.measured)}"
        if self.expected and self.measured is not None:
            line += f" ({self.measured / self.expected - 1:+.2%})"
        return line


def expected_file() -> Path:
    """Return where the file lies.

    Raises:
        UsageError: Not in a checkout.
    """
    root = checkout_root()
    if root is None:
        reason = "is not in a checkout, which has the expected counters"
        raise UsageError("dgm_bench", reason, "clone the repository")
    return root / "benchmarks" / "expected.toml"


def versions_here() -> dict[str, str]:
    """Return the versions that counters may depend on, without their last part."""
    names = sorted({name for names in DEPENDS.values() for name in names} - {"python"})
    found = {name: version_of(name) or "none" for name in names}
    return {
        name: ".".join(version.split(".")[:2])
        for name, version in {"python": platform.python_version(), **found}.items()
    }


# --------------------------------------------------------------------------- comparing


def differences(
    expected: Expected, measured: Mapping[str, Mapping[str, int]], here: Mapping[str, str]
) -> list[Difference]:
    """Return the counters that are not as expected, but those that other versions may explain.

    Args:
        expected: The file.
        measured: Counters by case.
        here: Versions of what they were measured with.
    """
    found = []
    for case in dict.fromkeys((*expected.values, *measured)):
        old, new = expected.values.get(case, {}), measured.get(case, {})
        for counter in dict.fromkeys((*old, *new)):
            difference = Difference(case, counter, old.get(counter), new.get(counter))
            margin = expected.margins.get((case, counter), 0.0)
            if not _others(counter, expected, here) and _beyond(difference, margin):
                found.append(difference)
    return found


def not_compared(expected: Expected, here: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each counter that is not compared, as other versions are at work here."""
    for counter in DEPENDS:
        if others := _others(counter, expected, here):
            versions = ", ".join(
                f"{name} {expected.versions.get(name, 'none')}, here {here[name]}"
                for name in others
            )
            yield f"{counter}: not compared: measured with {versions}"


def _others(counter: str, expected: Expected, here: Mapping[str, str]) -> list[str]:
    """Return whose versions are others, of those that a counter depends on."""
    names = DEPENDS.get(counter, ())
    return [name for name in names if expected.versions.get(name) != here[name]]


def _beyond(difference: Difference, margin: float) -> bool:
    old, new = difference.expected, difference.measured
    return old is None or new is None or abs(new - old) > margin * old


def _shown(value: int | None) -> str:
    return "nothing" if value is None else f"{value:,}"


# --------------------------------------------------------------------------- the file


def read_expected(path: Path) -> Expected:
    """Read the file.

    Raises:
        ResultsError: When it cannot be read, or is not such a file.
    """
    with reading(path, ResultsError):
        text = path.read_text(encoding="utf-8")
    try:
        tables = tomllib.loads(text)
        versions = {name: str(version) for name, version in tables.pop(_VERSIONS).items()}
        rows = {(case, name): _row(row) for case, t in tables.items() for name, row in t.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"is no file of expected counters ({error})"
        raise DamagedError(path, reason, f"restore it from git, or `{UPDATE}`") from error
    values = {case: {name: rows[case, name][0] for name in tables[case]} for case in tables}
    return Expected(versions, values, {key: margin for key, (_, margin) in rows.items() if margin})


def _row(row: int | Mapping[str, float]) -> tuple[int, float]:
    if isinstance(row, Mapping):
        return int(row["value"]), float(row["margin"])
    return int(row), 0.0


def write_expected(path: Path, expected: Expected) -> None:
    """Write the file; a blank line between cases keeps changes of two people apart.

    Raises:
        ResultsError: When it cannot be written.
    """
    sections = [_section(_VERSIONS, {n: f'"{v}"' for n, v in expected.versions.items()})]
    for case, counters in expected.values.items():
        rows = {n: _entry(v, expected.margins.get((case, n), 0.0)) for n, v in counters.items()}
        sections.append(_section(case, rows))
    write_atomically(path, "\n".join([_HEAD, *sections]).encode())


def _section(name: str, rows: Mapping[str, str]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {text}\n" for key, text in rows.items())


def _entry(value: int, margin: float) -> str:
    return f"{{ value = {value}, margin = {margin} }}" if margin else str(value)
