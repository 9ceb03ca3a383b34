"""Monotone rational-quadratic splines with linear tails (Durkan et al. 2019, section 3).

Inside ``[-tail, tail]`` the spline goes through knots, outside it is the identity. Its
parameters are ``bins`` widths, ``bins`` heights and ``bins - 1`` derivatives at the inner knots.
The paper is https://arxiv.org/abs/1906.04032; ``s``, ``xi`` and the derivatives are named as there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor

#: Smallest width or height of a bin as a part of the interval, and smallest derivative (NSF code).
MIN_BIN_SIZE = 1e-3
MIN_DERIVATIVE = 1e-3


class Bin(NamedTuple):
    """The bin of a point: left and lower end, width, height, and the derivatives at both knots."""

    left: Float[Tensor, "*shape"]
    lower: Float[Tensor, "*shape"]
    width: Float[Tensor, "*shape"]
    height: Float[Tensor, "*shape"]
    derivative: Float[Tensor, "*shape"]
    next_derivative: Float[Tensor, "*shape"]


def evaluated(
    at: Bin, x: Float[Tensor, "*shape"], inner: Float[Tensor, "*shape"], tail: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return values and logarithms of derivatives, given bins (equations 4 and 5).

    Args:
        at: The bin of each point.
        x: The points.
        inner: The points, or the end of the interval for those outside.
        tail: Half the length of the interval.
    """
    s = at.height / at.width
    # By rounding, a point may lie just outside its bin.
    xi = ((inner - at.left) / at.width).clamp(0, 1)
    xi_rest = xi * (1 - xi)
    denominator = s + (at.derivative + at.next_derivative - 2 * s) * xi_rest
    value = at.lower + at.height * (s * xi.square() + at.derivative * xi_rest) / denominator
    numerator = (
        at.next_derivative * xi.square() + 2 * s * xi_rest + at.derivative * (1 - xi).square()
    )
    log_derivative = 2 * s.log() + numerator.log() - 2 * denominator.log()
    outside = x.abs() > tail
    return torch.where(outside, x, value), log_derivative.masked_fill(outside, 0.0)


class Spline:
    """Splines, one for each element of what they are applied to.

    Args:
        parameters: Unconstrained widths, heights and derivatives of each, in this order.
        bins: Number of bins.
        tail: Half the length of the interval.

    Example:
        >>> spline = Spline(torch.randn(5, 11), bins=4, tail=3.0)
        >>> y, log_derivative = spline.forward(torch.linspace(-2, 2, 5))
        >>> torch.allclose(spline.inverse(y), torch.linspace(-2, 2, 5), atol=1e-3)
        True
    """

    def __init__(
        self, parameters: Float[Tensor, "*shape {3*bins-1}"], bins: int, tail: float
    ) -> None:
        self.tail = tail
        widths, heights, derivatives = parameters.split([bins, bins, bins - 1], dim=-1)
        self.x, self.y = _knots(widths, tail), _knots(heights, tail)
        self.derivatives = F.pad(F.softplus(derivatives) + MIN_DERIVATIVE, (1, 1), value=1.0)

    def forward(
        self, x: Float[Tensor, "*shape"]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return the values at ``x`` and the logarithms of the derivatives (equations 4 and 5)."""
        inner = x.clamp(-self.tail, self.tail)
        return evaluated(self._bin(inner, self.x), x, inner, self.tail)

    def inverse(self, y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the ``x`` at which the values are ``y``: the root of equations 6 to 8.

        With ``r`` the part of the bin's height that lies below ``y``, the discriminant is
        ``q^2 + 4 s^2 r (1 - r)`` with ``q = (1 - r) d_k - r d_{k+1}``. No term is negative and
        nothing cancels, so that single precision cannot take the root out of the bin.
        """
        inner = y.clamp(-self.tail, self.tail)
        at = self._bin(inner, self.y)
        s, r = at.height / at.width, (inner - at.lower) / at.height
        q = (1 - r) * at.derivative - r * at.next_derivative
        product = 4 * s.square() * r * (1 - r)
        larger = q.abs() + (q.square() + product).sqrt()
        other = torch.where(q > 0, larger, product / larger)
        xi_part = 2 * s * r
        x = at.left + at.width * xi_part / (xi_part + other)
        return torch.where(y.abs() > self.tail, y, x)

    def _bin(self, at: Float[Tensor, "*shape"], knots: Float[Tensor, "*curves ends"]) -> Bin:
        """Return the bin of each point between ``knots``, which are those of ``x`` or of ``y``."""
        # Inner knots only, so that the ends of the interval belong to the outer bins.
        index = (at[..., None] >= knots[..., 1:-1]).sum(-1, keepdim=True)

        def pick(values: Float[Tensor, "*curves ends"]) -> Float[Tensor, "*shape"]:
            return values.expand(*at.shape, -1).gather(-1, index).squeeze(-1)

        return Bin(
            left=pick(self.x),
            lower=pick(self.y),
            width=pick(self.x.diff(dim=-1)),
            height=pick(self.y.diff(dim=-1)),
            derivative=pick(self.derivatives[..., :-1]),
            next_derivative=pick(self.derivatives[..., 1:]),
        )


def _knots(raw: Float[Tensor, "*shape bins"], tail: float) -> Float[Tensor, "*shape bins+1"]:
    """Return the ends of the bins from ``-tail`` to ``tail``, both exactly."""
    bins = raw.shape[-1]
    sizes = MIN_BIN_SIZE + (1 - MIN_BIN_SIZE * bins) * raw.softmax(-1)
    inner = 2 * tail * sizes[..., :-1].cumsum(-1) - tail
    return F.pad(F.pad(inner, (1, 0), value=-tail), (0, 1), value=tail)
