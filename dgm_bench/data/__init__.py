"""Data sets: where they come from, how they are prepared, and what is known about them.

This package's front imports no torch; :func:`load` does, when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgm_bench import paths
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.files import (
    DataState,
    FileCheck,
    check_files,
    home_of,
    require_published,
    state_of,
)
from dgm_bench.data.registry import CARDS
from dgm_bench.data.weights import (
    WEIGHTS,
    WeightsCard,
    check_weights,
    fetch_weights,
    find_weights,
    weights_card,
    weights_names,
    weights_state,
)
from dgm_bench.errors import DataError, DataUnavailable, UsageError, choose_from, find_named

if TYPE_CHECKING:
    from dgm_bench.data.dataset import Dataset

__all__ = [
    "DataState",
    "DatasetCard",
    "FileCheck",
    "WeightsCard",
    "card",
    "cards",
    "default_root",
    "fetch",
    "find_weights",
    "load",
    "names",
    "state",
    "verify",
    "weights_names",
]


def names() -> list[str]:
    """Return the names of all data sets."""
    return [known.name for known in CARDS]


def cards() -> list[DatasetCard | WeightsCard]:
    """Return the cards of all that can be fetched: data sets, then weights of networks."""
    return [*CARDS, *WEIGHTS]


def card(name: str) -> DatasetCard:
    """Return the card of a data set.

    Raises:
        UsageError: There is none of that name.
    """
    known = {known.name: known for known in CARDS}
    return find_named(name, known, "data set", "see dgm-bench data list")


def default_root() -> Path:
    """Return what ``--data-root`` is by default: ``DGM_BENCH_DATA``, or the platform's cache.

    Raises:
        UsageError: There is no such folder, as the user has no home.
    """
    if named := paths.named_folder("DGM_BENCH_DATA"):
        return named
    from platformdirs import user_cache_path

    cache = user_cache_path("dgm-bench")
    if cache.parts[0].startswith("~"):
        remedy = "name a folder: set DGM_BENCH_DATA, or give --data-root DIR"
        raise UsageError("the data root", "this user has no home folder", remedy)
    return cache / "data"


def state(name: str, root: Path) -> DataState:
    """Say whether the files of a data set, or a network's weights, are below ``root``.

    Judged by existence and size only.
    """
    if name in weights_names():
        return weights_state(name, root)
    return state_of(card(name), root)


def fetch(name: str, root: Path, *, progress: bool = True) -> list[Path]:
    """Fetch what is missing of a data set, or a network's weights, and return the files.

    Raises:
        DataError: It cannot be fetched: no network, no space, or not the published file.
        UsageError: There is no such data set.
    """
    if name in weights_names():
        return [fetch_weights(name, root, progress=progress)]
    wanted = card(name)
    if not state_of(wanted, root).loadable:
        _refuse_undownloadable(wanted, root)
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
    """Compare every file of a data set, or a network's weights, with the published one.

    By checksum, where there is one.
    """
    if name in weights_names():
        return [check_weights(weights_card(name), root)]
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
        DataUnavailable: Its files are missing and cannot be fetched, or a package that reads them.
        DataError: Its files are broken, or it is not what its card says.
        UsageError: There is no such data set or option.
    """
    wanted = card(name)
    options = _checked_options(wanted, args or {})
    found = state_of(wanted, root)
    if not found.loadable:
        _obtain(wanted, root, found, offline=offline, progress=progress)
    module, function = wanted.loader.split(":")
    if wanted.seeded:
        options["seed"] = seed
    home = home_of(wanted, root)
    require_published(wanted, home)
    from dgm_bench.extras import needing

    with needing(name, DataUnavailable):
        loader = getattr(import_module(f"dgm_bench.data.{module}"), function)
        loaded: Dataset = loader(wanted, home, **options)
    dataset = replace(loaded, seeded=wanted.seeded)
    _require_as_declared(wanted, dataset)
    _require_numbers(wanted, dataset)
    return dataset


def _require_numbers(wanted: DatasetCard, loaded: Dataset) -> None:
    """Refuse prepared examples that are not finite, as a constant column gives."""
    import torch

    for name, split in loaded.splits.items():
        # A sum is NaN where anything is, and takes no memory: double precision does not overflow.
        if not split.is_floating_point() or split.sum(dtype=torch.float64).isfinite():
            continue
        places = (~split.isfinite()).nonzero()
        if len(places):
            row, *column = places[0].tolist()
            where = f"{name} row {row + 1:,}, column {', '.join(str(n + 1) for n in column)}"
            reason = f"is not finite after preparation: {where}, {len(places):,} numbers in all"
            remedy = f"delete its files and run {wanted.fetch_command}"
            raise DataError(wanted.name, reason, remedy)


def _require_as_declared(wanted: DatasetCard, loaded: Dataset) -> None:
    """Refuse a data set of another shape, unit or other classes than its card says.

    A folder of the user's own may have fewer classes than the published data set.
    """
    found = loaded.image_shape if wanted.is_image else loaded.event_shape
    classes = len(loaded.classes) or None
    if wanted.layout and classes and wanted.classes:
        classes = max(classes, wanted.classes)
    for what, value, declared in (
        ("examples of shape", found, wanted.event_shape),
        ("dimensions", loaded.dim, wanted.dim),
        ("unit", loaded.unit, wanted.unit),
        ("classes", classes, wanted.classes),
    ):
        if value != declared:
            reason = f"is loaded with {what} {value}, and its card says {declared}"
            remedy = "mend its card in dgm_bench/data/registry, or its loader"
            raise DataError(wanted.name, reason, remedy)


def _obtain(
    wanted: DatasetCard, root: Path, found: DataState, *, offline: bool, progress: bool
) -> None:
    """Fetch a data set that is not there, or say how to get it."""
    _refuse_undownloadable(wanted, root)
    trouble = DataUnavailable if found.status == "missing" else DataError
    by_hand = f"run {wanted.fetch_command}, or put the files of {wanted.manual} below {root}"
    if offline:
        raise trouble(wanted.name, f"{found.detail}, and this run is offline", by_hand)
    try:
        fetch(wanted.name, root, progress=progress)
    except DataError as error:
        reason = f"{found.detail}; {error.thing}: {error.reason}"
        raise trouble(wanted.name, reason, by_hand) from error


def _refuse_undownloadable(wanted: DatasetCard, root: Path) -> None:
    """Say what is expected where, of a set that is not here and is never downloaded."""
    if wanted.layout:
        found = state_of(wanted, root)
        trouble = DataUnavailable if found.status == "missing" else DataError
        reason = f"{found.detail}, and it is never downloaded"
        remedy = f"get it from {wanted.manual} and lay it out as {root}/{wanted.layout}"
        raise trouble(wanted.name, reason, remedy)


def _checked_options(wanted: DatasetCard, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in full: what is given, and the defaults of the rest."""
    for key, value in args.items():
        if key not in wanted.options:
            hint = choose_from(key, sorted(wanted.options))
            raise UsageError(f"{wanted.name}: {key}", "no such option", hint)
        if value not in wanted.options[key]:
            allowed = ", ".join(wanted.options[key])
            raise UsageError(f"{wanted.name}: {key}={value}", "unknown value", f"use {allowed}")
    return {key: args.get(key, values[0]) for key, values in wanted.options.items()}
