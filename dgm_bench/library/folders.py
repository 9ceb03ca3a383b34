"""The folders that the functions of the library read, by default those of the command line."""

from __future__ import annotations

import os
from pathlib import Path

from dgm_bench import data, paths
from dgm_bench.store import Store

#: A folder; of results also an address, such as ``s3://bucket/results``.
Folder = str | os.PathLike[str] | None


def own_folder(results: Folder, *, weights: bool = False) -> Path:
    """Return the user's results folder; of an address its copy, with what is new there fetched.

    Args:
        results: The folder or address; None for ``$DGM_BENCH_RESULTS``, else ``dgm-results``.
        weights: Whether weights are wanted too.

    Raises:
        ResultsError: The address does not answer.
    """
    named = os.fspath(results if results is not None else paths.own_results())
    if not paths.is_address(named):
        return Path(named).expanduser()
    from dgm_bench.remote import Remote

    return Remote(named).fetch(weights=weights)


def stored_folder(stored: Folder) -> Path | None:
    """Return the results that came with the suite, or another folder; None for ``"none"``."""
    if stored is None:
        return paths.stored_results()
    return None if os.fspath(stored) == "none" else Path(stored).expanduser()


def open_store(results: Folder = None, stored: Folder = None, *, weights: bool = False) -> Store:
    """Return the records of both folders; arguments as above."""
    return Store(own_folder(results, weights=weights), stored_folder(stored))


def data_folder(data_root: Folder) -> Path:
    """Return the folder of the data sets; None for ``$DGM_BENCH_DATA``, else the user's cache."""
    return data.default_root() if data_root is None else Path(data_root).expanduser()
