"""The folders that the functions of the library read, by default those of the command line."""

from __future__ import annotations

import os
from pathlib import Path

from dgm_bench import data, defaults, paths
from dgm_bench.errors import UsageError
from dgm_bench.store import Store

#: A folder; of results also an address, such as ``s3://bucket/results``.
Folder = str | os.PathLike[str] | None


def own_folder(results: Folder, *, read: bool = True) -> Path:
    """Return the user's results folder; of an address its copy, with what is new there fetched.

    Args:
        results: The folder or address; None for ``$DGM_BENCH_RESULTS``, else ``dgm-results``.
        read: It is only read: one that is named has to be there.

    Raises:
        UsageError: It is not there.
        ResultsError: The address does not answer.
    """
    named = os.fspath(_chosen("results", results) or paths.own_results())
    if not paths.is_address(named):
        folder = Path(named).expanduser()
        if read and results is not None and not folder.exists():
            raise UsageError(folder, "no such results folder", "name one that is there, or none")
        return folder
    from dgm_bench.remote import Remote

    return Remote(named).fetch()


def stored_folder(stored: Folder) -> Path | None:
    """Return the results that came with the suite, or another folder; None for ``"none"``."""
    named = _chosen("stored", stored)
    if named is None:
        return paths.stored_results()
    return None if os.fspath(named) == "none" else Path(named).expanduser()


def open_store(results: Folder = None, stored: Folder = None) -> Store:
    """Return the records of both folders; arguments as above."""
    return Store(own_folder(results), stored_folder(stored))


def data_folder(data_root: Folder) -> Path:
    """Return the folder of the data sets; None for ``$DGM_BENCH_DATA``, else the user's cache."""
    named = _chosen("data_root", data_root)
    return data.default_root() if named is None else Path(named).expanduser()


def _chosen(key: str, named: Folder) -> Folder:
    """Return a folder, or what the environment or the user's file of defaults says."""
    if named is not None:
        return named
    setting = defaults.settings().get(key)
    return None if setting is None else str(setting.value)
