"""Learning rate over time."""

from __future__ import annotations

import math
from bisect import bisect_right

from dgm_bench.spec import ScheduleSpec


class Schedule:
    """Linear warm-up, then a drop for every threshold of bad validations that is passed.

    Besides, or instead, drops at fixed steps, a cosine, and a decay at every step, the first too.

    Dropped rates stay dropped when validation improves again, as in the released FFJORD code
    (``train_tabular.py``, lines 101-113: ``ndecs`` never goes back).
    """

    def __init__(self, spec: ScheduleSpec, base_lr: float) -> None:
        self.spec, self.base_lr = spec, base_lr
        self.drops_done = 0

    def after_validation(self, bad_validations: int) -> None:
        """Drop the rate when more than the next threshold of validations in a row were bad."""
        drops = self.spec.drops
        if self.drops_done < len(drops) and bad_validations > drops[self.drops_done]:
            self.drops_done += 1

    def lr(self, step: int) -> float:
        """Return the learning rate of a step; the first step is 0."""
        warmup = self.spec.warmup_steps
        ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
        drops = self.drops_done + bisect_right(sorted(self.spec.milestones), step)
        decayed = self.base_lr * self.spec.decay ** (step + 1)
        return float(decayed * ramp * self._cosine(step) * self.spec.factor**drops)

    def _cosine(self, step: int) -> float:
        total, floor = self.spec.cosine_steps, self.spec.cosine_floor
        fall = 0.5 + 0.5 * math.cos(math.pi * min(step / total, 1.0)) if total else 1.0
        return floor + (1 - floor) * fall
