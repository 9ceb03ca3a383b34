"""Data sets: where they come from, how they are prepared, and what is known about them.

This package's front imports no torch; :func:`load` does, when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.files import DataState, FileCheck, check_files, home_of, state_of
from dgm_bench.data.registry import CARDS
from dgm_bench.errors import DataError, DataUnavailable, UsageError, did_you_mean

if TYPE_CHECKING:
    from dgm_bench.data.dataset import Dataset

__all__ = [
    "DataState",
    "DatasetCard",
    "FileCheck",
    "card",
    "default_root",
    "fetch",
    "load",
    "names",
    "state",
    "verify",
]


def names() -> list[str]:
    """Return the names of all data sets."""
    return [known.name for known in CARDS]


def card(name: str) -> DatasetCard:
    """Return the card of a data set.

    Raises:
        UsageError: There is none of that name.
    """
    for known in CARDS:
        if known.name == name:
            return known
    hint = did_you_mean(name, names()) or "see dgm-bench data list"
    raise UsageError(name, "no such data set", hint)


def default_root() -> Path:
    """Return the data root: ``DGM_BENCH_DATA``, or else the platform's cache folder."""
    if named := os.environ.get("DGM_BENCH_DATA"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("dgm-bench") / "data"


def state(name: str, root: Path) -> DataState:
    """Say whether a data set's files are below ``root``, by existence and size only."""
    return state_of(card(name), root)


def fetch(name: str, root: Path, *, progress: bool = True) -> list[Path]:
    """Fetch what is missing of a data set, and return its files.

    Raises:
        DataError: It cannot be fetched: no network, no space, or not the published file.
        UsageError: There is no such data set.
    """
    wanted = card(name)
    if not state_of(wanted, root).loadable:
        from dgm_bench.data.download import download

        for item in wanted.downloads:
            download(item, root, progress=progress)
    found = state_of(wanted, root)
    if not found.loadable:
        reason = f"its download does not hold all of it: {found.detail}"
        raise DataError(name, reason, f"get it by hand from {wanted.manual}")
    home = home_of(wanted, root)
    return [path for file in wanted.files for path in file.find(home)]


def verify(name: str, root: Path) -> list[FileCheck]:
    """Compare every file of a data set with the published one, by checksum where there is one."""
    return check_files(card(name), root)


def load(
    name: str,
    root: Path,
    *,
    args: Mapping[str, Any] | None = None,
    seed: int = 0,
    offline: bool = False,
    progress: bool = True,
) -> Dataset:
    """Load a data set, fetching its files first where they are missing.

    Args:
        name: Its name.
        root: The data root.
        args: Options of its loader, such as ``{"convention": "maf"}``.
        seed: The run's; only a seeded set depends on it.
        offline: Never download.
        progress: Show the progress of a download.

    Raises:
        DataUnavailable: Its files are missing and cannot be fetched.
        DataError: Its files are broken.
        UsageError: There is no such data set or option.
    """
    wanted = card(name)
    options = _checked_options(wanted, args or {})
    found = state_of(wanted, root)
    if not found.loadable:
        _obtain(wanted, root, found, offline=offline, progress=progress)
    module, function = wanted.loader.split(":")
    loader = getattr(import_module(f"dgm_bench.data.{module}"), function)
    if wanted.seeded:
        options["seed"] = seed
    dataset: Dataset = loader(wanted, home_of(wanted, root), **options)
    return dataset


def _obtain(
    wanted: DatasetCard, root: Path, found: DataState, *, offline: bool, progress: bool
) -> None:
    """Fetch a data set that is not there, or say how to get it."""
    trouble = DataUnavailable if found.status == "missing" else DataError
    by_hand = f"run {wanted.fetch_command}, or put the files of {wanted.manual} below {root}"
    if offline:
        raise trouble(wanted.name, f"{found.detail}, and this run is offline", by_hand)
    try:
        fetch(wanted.name, root, progress=progress)
    except DataError as error:
        reason = f"{found.detail}; {error.thing}: {error.reason}"
        raise trouble(wanted.name, reason, by_hand) from error


def _checked_options(wanted: DatasetCard, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in full: what is given, and the defaults of the rest."""
    for key, value in args.items():
        if key not in wanted.options:
            hint = did_you_mean(key, wanted.options) or f"it has {sorted(wanted.options) or 'none'}"
            raise UsageError(f"{wanted.name}: {key}", "no such option", hint)
        if value not in wanted.options[key]:
            allowed = ", ".join(wanted.options[key])
            raise UsageError(f"{wanted.name}: {key}={value}", "unknown value", f"use {allowed}")
    return {key: args.get(key, values[0]) for key, values in wanted.options.items()}
