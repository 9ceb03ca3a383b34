"""Monotone rational-quadratic splines with linear tails (Durkan et al. 2019, section 3).

Inside ``[-tail, tail]`` the curve goes through knots, outside it is the identity. The numbers of
one curve are ``bins`` raw widths, ``bins`` raw heights and ``bins - 1`` raw slopes at inner knots.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor

#: Smallest part of the interval that a bin takes, and smallest slope (released NSF code).
LEAST_SIZE = 1e-3
LEAST_SLOPE = 1e-3


class Bin(NamedTuple):
    """Where a point lies: left and lower end, width, height, and the slopes at both ends."""

    left: Tensor
    lower: Tensor
    width: Tensor
    height: Tensor
    slope: Tensor
    next_slope: Tensor


class Spline:
    """Curves, one for each number that they are applied to.

    Args:
        parameters: Raw widths, heights and slopes of each curve, in this order.
        bins: Number of bins.
        tail: Half the length of the interval.
    """

    def __init__(self, parameters: Float[Tensor, "*shape numbers"], bins: int, tail: float) -> None:
        self.tail = tail
        widths, heights, slopes = parameters.split([bins, bins, bins - 1], dim=-1)
        self.x, self.y = _knots(widths, tail), _knots(heights, tail)
        self.slopes = F.pad(F.softplus(slopes) + LEAST_SLOPE, (1, 1), value=1.0)

    def forward(
        self, x: Float[Tensor, "*shape"]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return the curves' values at ``x`` and the logarithms of their slopes (eqs. 4 and 5)."""
        inner = x.clamp(-self.tail, self.tail)
        at = self._bin(inner, self.x)
        steepness = at.height / at.width
        place = (inner - at.left) / at.width
        rest = place * (1 - place)
        below = steepness + (at.slope + at.next_slope - 2 * steepness) * rest
        value = at.lower + at.height * (steepness * place.square() + at.slope * rest) / below
        above = (
            at.next_slope * place.square() + 2 * steepness * rest + at.slope * (1 - place).square()
        )
        log_slope = 2 * steepness.log() + above.log() - 2 * below.log()
        outside = x.abs() > self.tail
        return torch.where(outside, x, value), log_slope.masked_fill(outside, 0.0)

    def inverse(self, y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return where the curves reach ``y``: the root of equations 6 to 8.

        In terms of the part ``r`` of the bin's height that lies below ``y``, the discriminant is
        ``q^2 + 4 s^2 r (1 - r)`` with ``q = (1 - r) d_k - r d_{k+1}``. No term is negative and
        nothing cancels, so that single precision cannot take the root out of the bin.
        """
        inner = y.clamp(-self.tail, self.tail)
        at = self._bin(inner, self.y)
        steepness, below = at.height / at.width, (inner - at.lower) / at.height
        q = (1 - below) * at.slope - below * at.next_slope
        product = 4 * steepness.square() * below * (1 - below)
        larger = q.abs() + (q.square() + product).sqrt()
        rest = torch.where(q > 0, larger, product / larger)
        part = 2 * steepness * below
        x = at.left + at.width * part / (part + rest)
        return torch.where(y.abs() > self.tail, y, x)

    def _bin(self, at: Tensor, knots: Float[Tensor, "*shape ends"]) -> Bin:
        """Return the bins in which numbers lie that are measured along ``knots``."""
        # Inner knots only, so that the ends of the interval belong to the outer bins.
        index = (at[..., None] >= knots[..., 1:-1]).sum(-1, keepdim=True)

        def pick(values: Tensor) -> Tensor:
            return values.expand(*at.shape, -1).gather(-1, index).squeeze(-1)

        return Bin(
            left=pick(self.x),
            lower=pick(self.y),
            width=pick(self.x.diff(dim=-1)),
            height=pick(self.y.diff(dim=-1)),
            slope=pick(self.slopes[..., :-1]),
            next_slope=pick(self.slopes[..., 1:]),
        )


def _knots(raw: Float[Tensor, "*shape bins"], tail: float) -> Float[Tensor, "*shape ends"]:
    """Return the ends of the bins from ``-tail`` to ``tail``, both exactly."""
    bins = raw.shape[-1]
    sizes = LEAST_SIZE + (1 - LEAST_SIZE * bins) * raw.softmax(-1)
    inner = 2 * tail * sizes[..., :-1].cumsum(-1) - tail
    return F.pad(F.pad(inner, (1, 0), value=-tail), (0, 1), value=tail)
