"""``dgm-bench.toml``: what a user sets once for a machine: defaults, and a section an engine.

It is read from the platform's folder for configurations and from the working directory, whose keys
count more. A key that is not known is an error, as it would otherwise be without effect and nobody
would notice.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ValidationError

from dgm_bench import paths
from dgm_bench.errors import UsageError, choose_from, shortened
from dgm_bench.planner import parse_duration
from dgm_bench.spec import Spec
from dgm_bench.tomlfile import TomlFile

Section = TypeVar("Section", bound=Spec)

NAME = paths.CONFIG
SECTIONS = ("defaults", "slurm", "ray")
_UNITS = {"K": 2**10, "": 2**20, "M": 2**20, "G": 2**30, "T": 2**40}


def _seconds(value: object) -> object:
    """Return the seconds of ``4h`` or ``90s``; a bare number is seconds already."""
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value, "time")
    except UsageError as error:
        raise ValueError(f"{error.reason}: {error.remedy}") from error


def _bytes(value: object) -> object:
    """Return the bytes of ``8G`` or ``500M``; a bare number is of MB, as Slurm has it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(value).strip().upper())
    if found is None:
        raise ValueError("not a size: write 8G or 500M")
    return int(float(found[1]) * _UNITS[found[2]])


#: A time in seconds, written as ``90s``, ``10m`` or ``1h30m``.
Seconds = Annotated[float, BeforeValidator(_seconds)]
#: A size in bytes, written as ``8G`` or ``500M``.
Bytes = Annotated[int, BeforeValidator(_bytes)]


def section(name: str, kind: type[Section], changes: Mapping[str, str] | None = None) -> Section:
    """Return a section of the user's files; its defaults where there is no file or section.

    Args:
        name: Of the section, one of ``SECTIONS``.
        kind: Its keys, their types and defaults.
        changes: Values of ``--engine-option KEY=VALUE`` by key, as TOML or plain text; they count
            more than the files'.

    Raises:
        DeclarationError: The file is broken or has a key that is not known; names the line.
        UsageError: A change has no such key, or its value does not fit.
    """
    raw = {key: value for key, (value, _) in in_files(name, kind).items()}
    return _changed(kind, raw, changes or {})


def in_files(name: str, kind: type[Spec]) -> dict[str, tuple[object, Path]]:
    """Return what the user's files say in a section: by key the value, and the file that says it.

    The arguments and errors are those of :func:`section`.
    """
    found: dict[str, tuple[object, Path]] = {}
    for path in reversed(paths.config_files()):
        found |= {key: (value, path) for key, value in _raw(TomlFile(path), name, kind).items()}
    return found


def _raw(file: TomlFile, name: str, kind: type[Spec]) -> dict[str, object]:
    """Return what a file says in a section, once it is known to fit."""
    whole = file.read()
    for key in whole:
        file.require("section", key, SECTIONS, NAME, file.find(rf"^\s*\[?\s*{re.escape(key)}") or 1)
    raw, line = whole.get(name, {}), file.find(rf"^\s*\[{name}\]") or 1
    if not isinstance(raw, dict):
        raise file.error(line, f"{name} is no section", f"write [{name}] above its keys")
    file.parse(kind, raw, f"[{name}]", line)
    return raw


def _changed(kind: type[Section], raw: Mapping[str, object], changes: Mapping[str, str]) -> Section:
    for key, text in changes.items():
        if key not in kind.model_fields:
            remedy = choose_from(key, kind.model_fields)
            raise UsageError(f"--engine-option {key}={shortened(text)}", "no such option", remedy)
    try:
        return kind.model_validate({**raw, **{k: as_toml(text) for k, text in changes.items()}})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ")
        remedy = "dgm-bench run --help, or the page on scale, says what it takes"
        given = f"--engine-option {key}={shortened(changes[key])}" if key in changes else key
        raise UsageError(given, reason, remedy) from error


def as_toml(text: str) -> object:
    """Return a value as TOML has it, or the text as it is where that means nothing."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
