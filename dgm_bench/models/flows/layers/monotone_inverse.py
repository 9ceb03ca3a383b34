"""Inverting monotone functions of one variable, elementwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.control import ask_within

#: Returns value and slope, elementwise.
Monotone = Callable[[Float[Tensor, "*n"]], tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]]


@torch.no_grad()
def invert_monotone(
    function: Monotone,
    target: Float[Tensor, "*n"],
    low: Float[Tensor, "*n"],
    high: Float[Tensor, "*n"],
    max_steps: int = 200,
) -> Float[Tensor, "*n"]:
    """Return ``x`` with ``function(x) = target``, elementwise, to the precision of its type.

    Newton's method safeguarded by bisection: where its step leaves the bracket or is longer than
    half the step before, the bracket is halved instead. Synchronises with the device every step.

    Args:
        function: Strictly increasing; returns value and slope.
        target: The values to reach.
        low: Lower bounds of the solutions.
        high: Upper bounds of them.
        max_steps: Largest number of steps; bisection alone takes about 60.
    """
    tiny = 4 * torch.finfo(target.dtype).eps
    x, step = torch.lerp(low, high, 0.5), high - low
    converged = torch.zeros_like(x, dtype=torch.bool)
    for _ in range(max_steps):
        ask_within()
        value, slope = function(x)
        error = value - target
        # Converged elements are kept: rounding errors would send them back to their midpoints.
        converged |= error.abs() <= tiny * (1 + target.abs())
        low, high = torch.where(error > 0, low, x), torch.where(error > 0, x, high)
        newton = x - error / slope
        # A comparison with NaN is false: no slope, no Newton step.
        accepted = (newton > low) & (newton < high) & (2 * (newton - x).abs() < step)
        new = torch.where(accepted, newton, torch.lerp(low, high, 0.5))
        step = (new - x).abs()
        x = torch.where(converged, x, new)
        converged |= step <= tiny * (1 + x.abs())
        if bool(converged.all()):
            break
    return x
