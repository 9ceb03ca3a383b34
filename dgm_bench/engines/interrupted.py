"""Runs that stopped in the middle and wait for the same command, as their work folders tell."""

from __future__ import annotations

import os
import pickle
import re
import shlex
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dgm_bench.locks import holder
from dgm_bench.paths import named_results
from dgm_bench.records import CUT_SHORT
from dgm_bench.workdir import RunState, stages_folder

_FOLDER = re.compile(r"[0-9a-f]{12}-s(\d+)")
_CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")


@dataclass(frozen=True)
class InterruptedRun:
    """A run with something to go on from that no process does now.

    Attributes:
        folder: Name of its work folder.
        cell: The cell that names its record; empty where nothing says so.
        seed: Of the run.
        settings: The ``--set`` changes in its recipe.
        out_of_budget: Whether its budget ended it, rather than a stop or a kill.
        stage: Name of the stage whose checkpoint is the newest.
        step: Of that checkpoint; None where it cannot be read.
        since: When that was written, by the clock of its file system.
        results: What ``--results`` has to say to go on with it; empty for nothing.
    """

    folder: str
    cell: str
    seed: int
    settings: tuple[str, ...]
    out_of_budget: bool
    stage: str
    step: int | None
    since: str
    results: str = ""

    @property
    def command(self) -> str:
        """The command that goes on with it."""
        if not self.cell:
            return "the same command"
        seeds = ["--seeds", f"{self.seed + 1}"] if self.seed else []
        changes = [word for setting in self.settings for word in ("--set", setting)]
        where = ["--results", self.results] if self.results else []
        return shlex.join(["dgm-bench", "run", self.cell, *seeds, *changes, *where])


def interrupted_runs(results: Path) -> list[InterruptedRun]:
    """Return the runs of a results folder that wait to be gone on with.

    Args:
        results: The results folder; nothing in it is changed.
    """
    return [run for folder in _folders(results) if (run := _interrupted(folder)) is not None]


def _folders(results: Path) -> Iterator[Path]:
    """Yield the folders of runs that keep something; those of finished runs do not."""
    with suppress(OSError):
        for entry in sorted(os.scandir(results / "work"), key=lambda entry: entry.name):
            if _FOLDER.fullmatch(entry.name):
                yield Path(entry.path)


def _interrupted(folder: Path) -> InterruptedRun | None:
    if holder(folder / "lock") is not None:
        return None
    try:
        content = _content(folder / "run.json")
        state = RunState.model_validate_json(content)
        newest = _newest_checkpoint(folder, stages_folder(folder, state.source_hash))
        modified = newest.stat().st_mtime
    except (OSError, ValidationError):
        return None
    if state.status is not None and not state.goes_on:
        return None
    return InterruptedRun(
        folder=folder.name,
        cell=state.cell,
        seed=int(folder.name.rpartition("-s")[2]),
        settings=state.settings,
        out_of_budget=state.status == CUT_SHORT or (state.status is None and state.evaluating),
        stage=newest.parent.name,
        step=_step(newest),
        results=named_results(folder.parent.parent),
        since=datetime.fromtimestamp(modified, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _newest_checkpoint(*folders: Path) -> Path:
    """Return the newest checkpoint of the stages in these folders.

    Raises:
        FileNotFoundError: There is none.
    """
    times: dict[float, Path] = {}
    for folder in folders:
        for path in (p for name in _CHECKPOINTS for p in folder.glob(f"*/{name}")):
            with suppress(OSError):
                times[path.stat().st_mtime] = path
    if not times:
        raise FileNotFoundError
    return times[max(times)]


def _content(run_file: Path) -> bytes:
    """Return what a sealed file says; only who goes on with the run sets a damaged one aside."""
    return run_file.read_bytes().rpartition(b"\nsha256:")[0]


# ------------------------------------------------------------------------ without torch


def _step(checkpoint: Path) -> int | None:
    """Return the step of a checkpoint; None where it cannot be read."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                step = _Plain(file).load()["tally"]["step"]
    except Exception:  # whatever is in a damaged file
        return None
    return step if isinstance(step, int) else None


class _Any(dict[Any, Any]):
    """Stands for an object of any class, whose arguments are not looked at."""

    def __init__(self, *_: object) -> None:
        super().__init__()


class _Plain(pickle.Unpickler):
    """Reads plain values; makes no object of any class that a file names, and no tensors."""

    def find_class(self, module_name: str, global_name: str, /) -> type:
        return _Any

    def persistent_load(self, pid: object) -> None:
        return None
