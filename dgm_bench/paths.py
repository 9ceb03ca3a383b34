"""Where things lie: the checkout that holds this package, and the two results folders."""

from __future__ import annotations

import os
from pathlib import Path

from dgm_bench.errors import UsageError

#: Names a folder for checkpoints, on a fast disk of this machine.
SCRATCH = "DGM_BENCH_WORK"
#: Names the user's own results folder, or an address of one.
RESULTS = "DGM_BENCH_RESULTS"
#: Names the folder of the results that are read beside them, or is ``none``.
STORED = "DGM_BENCH_STORED"
OWN = "dgm-results"
#: The file of a user's defaults.
CONFIG = "dgm-bench.toml"
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


def own_results() -> Path | str:
    """Return the user's results folder: where new records go.

    ``DGM_BENCH_RESULTS`` names it, as a folder or as an address; else it is ``dgm-results`` in
    the current folder.

    Raises:
        UsageError: The variable names the home of nobody.
    """
    named = os.environ.get(RESULTS, "")
    return named if is_address(named) else named_folder(RESULTS) or Path.cwd() / OWN


def named_results(results: Path) -> str:
    """Return what ``--results`` has to say for a command to use a folder; empty for nothing.

    Of a mirror of an address it says nothing, as the variable names that.
    """
    usual = own_results()
    if not isinstance(usual, Path) or results.absolute() == usual.absolute():
        return ""
    return str(results)


def stored_results() -> Path | None:
    """Return the results that came with the suite, which are read beside the user's own.

    They lie in ``results`` of the source tree, or inside an installed package. ``DGM_BENCH_STORED``
    names another folder, or is ``none`` for no such results.

    Raises:
        UsageError: The variable names the home of nobody, or a folder that is not there.
    """
    if os.environ.get(STORED) == "none":
        return None
    if (named := named_folder(STORED)) is not None and not named.exists():
        remedy = f"let {STORED} name one that is there, or none"
        raise UsageError(f"{STORED}={named}", "no such results folder", remedy)
    beside, inside = PACKAGE.parent / "results", PACKAGE / "_results"
    came = beside if (PACKAGE.parent / "reproductions").is_dir() else inside
    return named or (came if came.is_dir() else None)


def config_places() -> tuple[Path, Path]:
    """Return where files of defaults are looked for: the working directory, the user's folder."""
    from platformdirs import user_config_path

    return Path.cwd() / CONFIG, user_config_path("dgm-bench") / CONFIG


def config_files() -> list[Path]:
    """Return the files of defaults that are there, the one first that counts more."""
    return [path for path in config_places() if path.is_file()]


def is_address(text: str) -> bool:
    """Say whether a text names something elsewhere than in a folder of this machine."""
    return "://" in text and not text.startswith("file://")
