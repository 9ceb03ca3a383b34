"""Packages that come with an extra of this one, and what is said where one is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dgm_bench.errors import DgmBenchError, UsageError

#: Names of modules by the extra that installs them, as ``pyproject.toml`` declares.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": ("torch", "torchdiffeq", "jaxtyping", "safetensors", "sklearn"),
    "text": ("sentencepiece",),
    "images": ("PIL", "torch_fidelity"),
    "tables": ("h5py",),
    "parquet": ("pyarrow",),
    "tracking": ("mlflow", "pynvml"),
    "slurm": ("submitit",),
    "ray": ("ray", "pynvml"),
    "remote": ("fsspec",),
}
#: Packages that are imported by another name than pip installs them by.
INSTALLED_AS = {"sklearn": "scikit-learn", "PIL": "pillow", "pynvml": "nvidia-ml-py"}


def package_of(module: str) -> str:
    """Return the name by which pip installs what a module is of."""
    name = module.partition(".")[0]
    return INSTALLED_AS.get(name, name.replace("_", "-"))


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'dgm-bench[{extra}]'"


@contextmanager
def needing(what: str, kind: type[DgmBenchError] = UsageError) -> Iterator[None]:
    """Tell in one line which extra has a package that is imported and not installed.

    Args:
        what: What needs it, as ``dgm-bench run``.
        kind: Of the error.

    Raises:
        DgmBenchError: Of that kind.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        for extra, modules in EXTRAS.items():
            if name in modules and sys.modules.get(name) is None:
                raise kind(f"{what} needs {package_of(name)}", install(extra)) from error
        raise
