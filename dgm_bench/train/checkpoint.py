"""Checkpoints: written atomically, two kept, loaded without unpickling code."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from dgm_bench.errors import ResultsError
from dgm_bench.records import write_atomically


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
        torch.save(state, buffer)
        staged = self.newest.with_name("checkpoint.next.pt")
        write_atomically(staged, buffer.getvalue())
        if self.newest.exists():
            os.replace(self.newest, self.previous)
        os.replace(staged, self.newest)

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, or None where there is none.

        Raises:
            ResultsError: When checkpoints are there and none can be read.
        """
        found = [path for path in (self.newest, self.previous) if path.exists()]
        for path in found:
            state = _read(path)
            if state is not None:
                return state
        if found:
            raise ResultsError(
                found[0], "is damaged", f"delete {found[0].parent} to start the run again"
            )
        return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        return None
    return state
