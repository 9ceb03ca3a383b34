"""What a tracker does, in the process that logs, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dgm_bench.records import Data
from dgm_bench.tracking.address import Address, TrackingError
from dgm_bench.tracking.begun import Begun, Told


class Tracker(Protocol):
    """Shows runs while they go on, and has each once when it has ended.

    What it raises costs no number: the records and curves are the source.
    """

    def trouble(self) -> TrackingError | None:
        """Return what is wrong with it now, or None."""
        ...

    def live(self, begun: Begun, told: Sequence[Told], data: Data | None) -> None:
        """Show the newest numbers of a run under way.

        Args:
            begun: The run.
            told: What was told since the last time.
            data: What it is trained on; None where that was told before.
        """
        ...

    def measured(self, numbers: Mapping[str, float]) -> None:
        """Show what was measured of this machine, by name, with each run that is under way."""
        ...

    def leave(self) -> None:
        """Show that the runs under way have stopped for now."""
        ...

    def once(self, path: Path, *, many: bool = False) -> bool:
        """Log a stored run, of which there may be a part; return False where it is there.

        Args:
            path: The file of the record.
            many: Whether others follow.

        Raises:
            TrackingError: The tracker is not to be had.
            DgmBenchError: The record cannot be used.
        """
        ...

    def settle(self, *, many: bool = False) -> None:
        """Bring up to date what is said of several runs together, after some were logged.

        Args:
            many: As for :meth:`once`.

        Raises:
            TrackingError: The tracker is not to be had.
        """
        ...


def make_tracker(name: str, results: Path, address: Address, alive: Callable[[], None]) -> Tracker:
    """Return a tracker.

    Args:
        name: ``mlflow``, ``tensorboard`` or ``wandb``.
        results: The results folder.
        address: Where MLflow is.
        alive: Called where something got done that can take long.
    """
    if name == "tensorboard":
        from dgm_bench.tracking.tensorboard import TensorBoard

        return TensorBoard(results)
    if name == "wandb":
        from dgm_bench.tracking.wandb import WeightsAndBiases

        return WeightsAndBiases(results)
    from dgm_bench.tracking.client import Log

    return Log(results, address, alive)
