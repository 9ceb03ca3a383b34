"""What this machine can do, and what is missing, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dgm_bench import data, paths, provenance
from dgm_bench.errors import DgmBenchError
from dgm_bench.escaping import shown
from dgm_bench.extras import install
from dgm_bench.planner import gigabytes

State = Literal["ok", "warn", "missing"]

#: Below these a run on the larger data sets is likely to fail.
LOW_MEMORY, LOW_DISK = 4e9, 2e9


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: ``ok``, ``warn`` (works, with limits) or ``missing``.
        detail: What was found.
        remedy: What to do about it; empty where nothing is wrong.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def checks(results: Path, stored: Path | None, data_root: Path) -> Iterator[Check]:
    """Look at everything a run depends on; imports torch.

    Args:
        results: The results folder.
        stored: That of the results that came with the suite; None for none.
        data_root: The data root.
    """
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield from torch_checks()
    yield memory_check(provenance.memory_bytes())
    yield folder_check("your results", results)
    yield stored_check(stored, results)
    yield folder_check("data root", data_root)
    yield data_check(data_root)
    yield tracking_check(results)
    yield checkout_check()


def torch_checks() -> Iterator[Check]:
    """Look at torch, its threads and its GPU."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", "missing", str(error), install("train"))
        return
    cpu = f"{provenance.cpu_name()}, {provenance.cores()} cores, {torch.get_num_threads()} threads"
    yield Check("torch", "ok", torch.__version__)
    yield Check("cpu", "ok", cpu)
    yield gpu_check(torch.cuda.is_available(), torch.version.cuda)


def gpu_check(works: bool, cuda: str | None) -> Check:
    """Say which GPUs there are, or why torch cannot use one.

    Args:
        works: Whether torch can use one.
        cuda: Version of CUDA that torch was built for, or None.
    """
    if works:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Check("gpu", "ok", f"{', '.join(names)}, CUDA {cuda}")
    if has_apple_gpu():
        return Check("gpu", "ok", "an Apple GPU; --device mps trains on it, and auto does not")
    if provenance.likely_device() == "cpu" and not provenance.has_gpu():
        return Check("gpu", "ok", "none; runs use the CPU, and the budget is ten minutes")
    remedy = (
        "update the NVIDIA driver, or use --device cpu"
        if cuda
        else "pip install a CUDA build of torch, or use --device cpu"
    )
    return Check("gpu", "warn", "there is one that torch cannot use", remedy)


def has_apple_gpu() -> bool:
    """Say whether torch can use one."""
    import torch

    return torch.backends.mps.is_available()


def memory_check(size: int) -> Check:
    """Look at the memory, in bytes."""
    if size < LOW_MEMORY:
        remedy = "use smaller data sets; dgm-bench plan says what each needs"
        return Check("memory", "warn", gigabytes(size), remedy)
    return Check("memory", "ok", gigabytes(size))


def folder_check(name: str, folder: Path) -> Check:
    """Look at whether a folder can be written, or made, and has room."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    option = "--data-root DIR" if name == "data root" else "--results DIR"
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Check(
            name,
            "missing",
            f"{shown(folder)} cannot be written",
            f"name another with {option}",
        )
    free = shutil.disk_usage(there).free
    found = f"{shown(folder)}, {gigabytes(free)} free"
    if free < LOW_DISK:
        return Check(name, "warn", found, f"free some space, or name another with {option}")
    return Check(name, "ok", found)


def stored_check(stored: Path | None, results: Path) -> Check:
    """Look at whether there are stored results to show beside the user's own."""
    if stored is None or not (stored / "runs").is_dir():
        remedy = "name a results folder with --stored DIR; a checkout has one"
        return Check("stored results", "warn", "none, so that yours stand alone", remedy)
    if stored.resolve() == results.resolve():
        return Check("stored results", "ok", f"{shown(stored)}, where yours go too")
    return Check("stored results", "ok", f"{shown(stored)}, which are only read")


def data_check(data_root: Path) -> Check:
    """Look at which data sets are here."""
    states = {name: data.state(name, data_root) for name in data.names()}
    here = [name for name, state in states.items() if state.loadable]
    absent = [name for name in states if name not in here]
    detail = f"here: {', '.join(here)}"
    if not absent:
        return Check("data", "ok", detail)
    return Check(
        "data", "warn", f"{detail}; not here: {', '.join(absent)}", "dgm-bench data fetch NAME"
    )


def tracking_check(results: Path) -> Check:
    """Look at MLflow: installed, and a server that lets us in where one is named."""
    from dgm_bench import tracking

    version = provenance.version_of("mlflow")
    if version is None:
        return Check("mlflow", "warn", "not installed; runs are recorded all the same",
                     f"{install('tracking')}, then dgm-bench sync")  # fmt: skip
    try:
        where = tracking.check(results)
    except DgmBenchError as error:
        return Check("mlflow", "warn", f"{error.thing}: {error.reason}", error.remedy)
    return Check("mlflow", "ok", f"{version}, logs to {where}")


def checkout_check() -> Check:
    """Look at the git state that records will name."""
    root = paths.checkout_root()
    commit, dirty = provenance.git_state(root)
    if root is None:
        return Check("checkout", "ok", "none: an installed package; records name its version")
    if commit is None:
        return Check("checkout", "warn", f"{root}: git names no commit",
                     "install git, or make a first commit")  # fmt: skip
    if dirty:
        return Check("checkout", "warn", f"{commit[:12]} with uncommitted changes",
                     "commit them, so that records name the code that ran")  # fmt: skip
    return Check("checkout", "ok", commit[:12])
