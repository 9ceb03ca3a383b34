"""The plain numbers of a training stage: steps, seconds, validations, and when it ran where."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass, field
from typing import Any

from dgm_bench.records import utc_now

CURVE_COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "train_loss",
    "validation",
    "lr",
    "function_evaluations",
    "train_seconds",
)


@dataclass
class Tally:
    """The loop's plain numbers; all of them go into checkpoints.

    ``validating`` says that a validation was due after the last step, and was interrupted.
    ``together`` is the largest number of runs that steps were computed of at once, this one's
    among them; ``seconds_of_others`` is the time that such steps took beyond the run's own share.
    ``first`` is what the first step was made of (:mod:`dgm_bench.train.first_step`).
    """

    step: int = 0
    examples: int = 0
    train_seconds: float = 0.0
    validation_seconds: float = 0.0
    validations: int = 0
    bad_validations: int = 0
    best: float | None = None
    best_step: int | None = None
    last_validation: float | None = None
    loss_steps: int = 0
    validating: bool = False
    together: int = 1
    seconds_of_others: float = 0.0
    first: dict[str, Any] = field(default_factory=dict)
    curve: list[list[float | None]] = field(default_factory=list)
    segments: list[dict[str, str]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds of training and validation, over all segments."""
        return self.train_seconds + self.validation_seconds

    def begin_segment(self) -> None:
        """Note that a process begins to train; until it says otherwise it was killed."""
        now = utc_now()
        self.segments.append({"started": now, "ended": now, "host": _host(), "reason": "killed"})

    def extend_segment(self) -> None:
        """Note that the process still trains, if it has begun to."""
        if self.segments:
            self.segments[-1]["ended"] = utc_now()

    def end_segment(self, reason: str) -> None:
        """Note that the process stops, and why."""
        self.segments[-1].update(ended=utc_now(), reason=reason)


def _host() -> str:
    """Return a short hash that tells machines apart without naming them."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
