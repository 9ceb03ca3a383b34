"""What all runs of one command share: folders, device, limits and the reporter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dgm_bench.control import Control
from dgm_bench.events import CurveRows, Reporter


@dataclass(frozen=True)
class RunContext:
    """What all runs of one command share. Torch-free: the device is its name.

    Attributes:
        data_root: Where data lies, or goes when it is fetched.
        results: Where records go.
        stored: The results that came with the suite, which are read beside them; None for none.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        threads: CPU threads; None for torch's own choice.
        offline: Download nothing.
        track: Show runs in a tracker, while they go on and when they have ended.
        tracker: ``mlflow``, ``tensorboard`` or ``wandb``.
        devices: Processes that compute each run together, with a GPU each where there are some.
        accumulate: Each process computes its part of a batch in so many parts.
        control: Says between steps whether to stop.
        reporter: Shows or logs the progress.
        live: Told the numbers of runs under way; it returns at once.
    """

    data_root: Path
    results: Path
    stored: Path | None = None
    device: str = "auto"
    threads: int | None = None
    offline: bool = False
    track: bool = True
    tracker: str = "mlflow"
    devices: int = 1
    accumulate: int = 1
    control: Control = field(default_factory=Control)
    reporter: Reporter = field(default_factory=Reporter)
    live: Callable[[CurveRows], None] = lambda _: None
