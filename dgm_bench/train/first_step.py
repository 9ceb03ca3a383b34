"""What the first step of a stage was made of: two runs that end apart part in it first."""

from __future__ import annotations

import math
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from dgm_bench.data.dataset import fingerprint
from dgm_bench.keyed_tensors import tensors_hash, weights_hash
from dgm_bench.records import Beginning
from dgm_bench.spec import Stage
from dgm_bench.train.flat import parts
from dgm_bench.train.losses import Batch
from dgm_bench.train.state import TrainingState


class FirstStep:
    """Notes hashes in the tally of a stage until its first step is done, and nothing after it.

    The first step alone waits for the device. A model that each process has a part of is left out.

    Args:
        state: Of the stage.
    """

    def __init__(self, state: TrainingState) -> None:
        self.state = state

    @property
    def is_ahead(self) -> bool:
        """Whether it is still to come, and can be told."""
        return self.state.tally.step == 0 and self.state.sharded is None

    def note_weights(self, name: str) -> None:
        """Note the weights as they are under the name of a field of the record."""
        if self.is_ahead:
            self.state.tally.first[name] = weights_hash(self.state.model)

    def note_batch(self, x: Batch) -> None:
        """Note what is trained on: examples with their noise and flips, and classes if any."""
        if self.is_ahead:
            self.state.tally.first["batch"] = fingerprint(x)

    def note_gradient(self, loss: Float[Tensor, ""]) -> None:
        """Note the loss and its gradient, before it is clipped."""
        if not self.is_ahead:
            return
        first, gradients = self.state.tally.first, _gradients(self.state)
        squares = (float(g.double().square().sum()) for g in gradients.values())
        first |= {
            "loss": loss.item(),
            "gradient_norm": math.sqrt(sum(squares)),
            "gradient": tensors_hash(gradients),
        }


def _gradients(state: TrainingState) -> Mapping[str, Tensor]:
    """Return the gradients there are, by parameter, however they are stepped."""
    named = state.model.named_parameters()
    if state.flat is None:
        return {name: p.grad for name, p in named if p.grad is not None}
    vector = state.flat.vector.grad
    if vector is None:
        return {}
    return {name: g for (name, _), g in zip(named, parts(vector, state.model), strict=True)}


def beginning_of(stage: Stage, state: TrainingState) -> Beginning:
    """Return the record's block of what a stage began with."""
    known = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in state.tally.first.items()
    }
    return Beginning(stage=stage.name, **known)
