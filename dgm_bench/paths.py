"""Where things lie: the checkout that holds this package, and the results folder."""

from __future__ import annotations

import os
from pathlib import Path

from dgm_bench.errors import UsageError

#: Names a folder for checkpoints, on a fast disk of this machine.
SCRATCH = "DGM_BENCH_WORK"
PACKAGE = Path(__file__).resolve().parent


def checkout_root() -> Path | None:
    """Return the git checkout this package lies in, or None for an installed package.

    A package installed into a virtual environment that itself lies in somebody's repository
    is not in a checkout of this project: the root has to hold both ``.git`` and the
    project's ``reproductions`` folder, right above the package.
    """
    root = PACKAGE.parent
    here = (root / ".git").exists() and (root / "reproductions").is_dir()
    return root if here else None


def named_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names, or None; ``~`` is a home folder.

    Raises:
        UsageError: It is the home of nobody.
    """
    named = os.environ.get(variable)
    try:
        return Path(named).expanduser() if named else None
    except RuntimeError as error:
        remedy = "write the whole path"
        raise UsageError(f"{variable}={named}", "there is no such home folder", remedy) from error


def default_results() -> Path:
    """Return ``results`` in the checkout, or in the current folder for an installed package."""
    return (checkout_root() or Path.cwd()) / "results"


def is_address(text: str) -> bool:
    """Say whether a text names something elsewhere than in a folder of this machine."""
    return "://" in text and not text.startswith("file://")
