"""Checkpoints: written atomically with a digest, two kept, loaded without unpickling code."""

from __future__ import annotations

import io
import os
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from dgm_bench.errors import ResultsError
from dgm_bench.sealed import forget_damaged, read_sealed, set_aside, write_sealed
from dgm_bench.train.state import TrainingState
from dgm_bench.train.world import ALONE, World

#: Of what lies in a checkpoint. In those without a number the optimiser's state of wide masked
#: networks is in another order of units.
VERSION = 1


_ANEW = "its stage starts again"


class ForeignCheckpointError(ResultsError):
    """A checkpoint of other data, of another recipe, or of another kind of device."""


class CheckpointFile:
    """The state of one run on disk: the newest file and, in case it is damaged, the one before."""

    def __init__(self, folder: Path) -> None:
        self.newest = folder / "checkpoint.pt"
        self.previous = folder / "checkpoint.previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors and plain values; a kill at any moment leaves a whole file.

        Raises:
            ResultsError: When the folder cannot be written or the disk is full.
        """
        buffer = io.BytesIO()
        torch.save({"version": VERSION, **state}, buffer)
        staged = self.newest.with_name("checkpoint.next.pt")
        write_sealed(staged, buffer.getvalue())
        if self.newest.exists():
            os.replace(self.newest, self.previous)
        os.replace(staged, self.newest)
        for file in (self.newest, self.previous):
            forget_damaged(file)

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole state, or None where there is none.

        Damaged files are set aside, and told in one line each.

        Raises:
            ResultsError: When the system cannot read a file.
        """
        before = "the checkpoint before it is used"
        state = _read(self.newest, before if self.previous.exists() else _ANEW)
        return state if state is not None else self.before()

    def before(self) -> dict[str, Any] | None:
        """Return the state before the newest one, as :meth:`load` does."""
        return _read(self.previous, _ANEW)

    def go_back(self) -> None:
        """Let the state before be the newest one."""
        os.replace(self.previous, self.newest)


class StageCheckpoint:
    """Saves a stage's state now and then, and continues from it if it is the same stage's.

    Args:
        file: Where to continue from and save to, or None to keep nothing.
        identity: Compared with that in the file: stage, data and kind of device.
        every: Seconds between two savings.
    """

    def __init__(
        self, file: CheckpointFile | None, identity: str = "", every: float = 30.0
    ) -> None:
        self.file, self.identity, self.every = file, identity, every
        self._saved = time.perf_counter()

    @property
    def folder(self) -> Path | None:
        """Where the stage keeps what it goes on from, or None."""
        return self.file.newest.parent if self.file is not None else None

    def due(self) -> bool:
        """Say whether the last saving, or the start, is long enough ago."""
        return time.perf_counter() - self._saved >= self.every

    def start_clock(self) -> None:
        """Let the next saving be due ``every`` seconds from now."""
        self._saved = time.perf_counter()

    def save(self, state: TrainingState) -> None:
        """Write the state, if anything is kept.

        Raises:
            ResultsError: When the folder cannot be written or the disk is full.
        """
        if self.file is not None:
            state.tally.extend_segment()
            self.file.save({"identity": self.identity, **state.state_dict()})
            self.start_clock()
        elif state.sharded is not None:
            state.state_dict()  # another process writes it, of the parts that all have

    def restore(self, state: TrainingState, world: World = ALONE) -> bool:
        """Load what was saved into ``state``; return whether there was anything.

        Args:
            state: Of the training.
            world: Its first process reads the file, for all.

        Raises:
            ForeignCheckpointError: When the checkpoint belongs to other data or another recipe.
            ResultsError: When the system cannot read a checkpoint.
        """
        saved = self.file.load() if self.file is not None else None
        own = saved is None or saved["identity"] == self.identity
        saved = world.share(saved if own else None)
        if not own and self.file is not None:
            folder = self.file.newest.parent
            reason = "its checkpoint is of other data or another stage"
            raise ForeignCheckpointError(folder, reason, f"delete {folder}")
        if saved is not None:
            state.load_state_dict(saved)
        return saved is not None

    def go_back(self, state: TrainingState, step: int) -> bool:
        """Load what was saved before, if that was after so many steps; say whether it was.

        Args:
            state: Of the training, restored.
            step: Where others are that are trained together with it.

        Raises:
            ResultsError: When the system cannot read or write a checkpoint.
        """
        saved = self.file.before() if self.file is not None else None
        if saved is None or self.file is None or saved["identity"] != self.identity:
            return False
        if saved["tally"]["step"] != step:
            return False
        state.load_state_dict(saved)
        self.file.go_back()
        return True


def _read(path: Path, instead: str) -> dict[str, Any] | None:
    content = read_sealed(path, instead)
    if content is None:
        return None
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # of another torch
        set_aside(path, f"cannot be loaded by torch {torch.__version__} ({error})", instead)
        return None
    if state.get("version") != VERSION:
        set_aside(path, "is of another version of this package", instead)
        return None
    return state
