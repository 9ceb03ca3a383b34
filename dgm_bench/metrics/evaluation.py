"""One trained model under evaluation, and what its metrics share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Num
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.models.capabilities import HasClassLogits, HasLogProbEstimate, SolvesODE
from dgm_bench.spec import EvaluationSpec

Built = TypeVar("Built")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What every metric of one run is measured on.

    Attributes:
        model: In evaluation mode.
        data: The data set, on the model's device unless its splits stay on the host.
        spec: The evaluation protocol of the recipe.
        seed: The run's.
        data_root: Folder of data sets, published weights and trained classifiers.
    """

    model: nn.Module
    data: Dataset
    spec: EvaluationSpec
    seed: int
    data_root: Path
    _built: dict[Callable[..., object], Any] = field(default_factory=dict, repr=False)

    @property
    def examples(self) -> Num[Tensor, "n *event"]:
        """The stored examples of the evaluated split."""
        return self.data.splits[self.spec.split]

    @cached_property
    def device(self) -> torch.device:
        """Where the model is; one without parameters is where the data are."""
        return next(self.model.parameters(), self.examples).device

    @cached_property
    def protocol(self) -> str:
        """How the model was prepared, in words: part of every metric's protocol."""
        parts = [f"{self.spec.checkpoint} checkpoint", "float64 sums"]
        if isinstance(self.model, SolvesODE):
            parts = [*self._trace(), self.model.solver_settings, *parts]
        return "; ".join(parts)

    def _trace(self) -> list[str]:
        if isinstance(self.model, HasClassLogits):
            return []
        # Without an estimate of the density a model in evaluation mode has exact traces.
        trace = self.spec.trace if isinstance(self.model, HasLogProbEstimate) else "exact"
        return [f"{trace} trace"]

    def generator(self) -> torch.Generator:
        """Return a new generator with the run's seed, on the model's device.

        Each metric makes one, so that its noise does not depend on the metrics before it.
        """
        return torch.Generator(self.device).manual_seed(self.seed)

    def once(self, build: Callable[[Evaluation], Built]) -> Built:
        """Return ``build(self)``, computed when it is first asked for and shared by all metrics."""
        if build not in self._built:
            self._built[build] = build(self)
        return cast(Built, self._built[build])
