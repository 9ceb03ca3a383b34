"""What a model can do. A model offers some of these and knows nothing of training."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class HasLogProb(Protocol):
    """Exact log density in nats, in the model's input coordinates."""

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """Return the log density of each example."""
        ...


@runtime_checkable
class HasLogProbEstimate(Protocol):
    """An unbiased, cheaper estimate of the log density (Hutchinson's trace)."""

    def log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density of each example."""
        ...


@runtime_checkable
class HasSample(Protocol):
    """Draws from the model."""

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        """Return ``n`` examples; noise is drawn from ``generator``, on the model's device."""
        ...


@runtime_checkable
class HasInverse(Protocol):
    """An invertible map between data and base noise: a flow."""

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``: from data to noise."""
        ...

    def inverse(self, u: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Return ``x`` from noise ``u``."""
        ...


@runtime_checkable
class CalibratesOnData(Protocol):
    """Has statistics that are set from the whole training set before each evaluation."""

    def calibrate(self, x: Float[Tensor, "n *event"], batch_size: int = 10_000) -> None:
        """Set the statistics from ``x``; costs about one pass over it."""
        ...


@runtime_checkable
class SolvesODE(Protocol):
    """Solves differential equations, counts what that costs, and can be told how exactly."""

    function_evaluations: int
    solver_settings: str

    def solve_with(self, **settings: object) -> None:
        """Change solver, tolerances or step size from here on."""
        ...
