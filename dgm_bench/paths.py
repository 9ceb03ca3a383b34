"""Where things lie: the checkout that holds this package, and the results folder."""

from __future__ import annotations

from pathlib import Path

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


def default_results() -> Path:
    """Return ``results`` in the checkout, or in the current folder for an installed package."""
    return (checkout_root() or Path.cwd()) / "results"
