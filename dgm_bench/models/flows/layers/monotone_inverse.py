"""Inverting a monotone function of one variable, many at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

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

    Newton's method inside a bracket: where its step leaves the bracket or is not yet half as long
    as the one before, the bracket is halved instead. Waits for the device once in each step.

    Args:
        function: Strictly increasing; returns value and slope.
        target: The values to reach.
        low: Somewhere below the solution.
        high: Somewhere above it.
        max_steps: After these the search ends in any case; halving alone takes about 60.
    """
    tiny = 4 * torch.finfo(target.dtype).eps
    x, step = torch.lerp(low, high, 0.5), high - low
    converged = torch.zeros_like(x, dtype=torch.bool)
    for _ in range(max_steps):
        value, slope = function(x)
        error = value - target
        # What is found stays: rounding errors would send it back to the middle of its bracket.
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
