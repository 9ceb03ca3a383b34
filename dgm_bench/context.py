"""What all runs of one command share: folders, device, limits and the reporter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dgm_bench.control import Control
from dgm_bench.events import Reporter


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
        track: Log to MLflow after each run.
        devices: Processes that compute each run together, with a GPU each where there are some.
        accumulate: Each process computes its part of a batch in so many parts.
        control: Says between steps whether to stop.
        reporter: Shows or logs the progress.
    """

    data_root: Path
    results: Path
    stored: Path | None = None
    device: str = "auto"
    threads: int | None = None
    offline: bool = False
    track: bool = True
    devices: int = 1
    accumulate: int = 1
    control: Control = field(default_factory=Control)
    reporter: Reporter = field(default_factory=Reporter)
