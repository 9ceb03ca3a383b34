"""Rational-quadratic splines in training: only what their points need, with few passes.

:class:`~dgm_bench.models.flows.layers.splines.Spline` computes every knot and derivative of every
curve. A point needs those of its bin alone. Here the parameters come before the points, so that
every pass runs along contiguous memory, one look-up serves widths and heights, derivatives are made
where they are needed, one logarithm gives that of the slope, and the gradient of all of it is
written by hand. Points, widths and heights are parts of the interval, from 0 to 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgm_bench.models.flows.layers.splines import MIN_BIN_SIZE, MIN_DERIVATIVE

#: The unconstrained derivative at both ends of the interval, where it is one.
END_DERIVATIVE = math.log(math.expm1(1 - MIN_DERIVATIVE))


class Lookup(NamedTuple):
    """What the bins of points are made of, for widths and heights together where there is a 2."""

    shares: Float[Tensor, "*curves 2 bins n"]
    chosen: Int[Tensor, "*curves 1 n"]
    share: Float[Tensor, "*curves 2 1 n"]
    before: Float[Tensor, "*curves 2 1 n"]
    raw: Float[Tensor, "*curves 2 n"]


class Point(NamedTuple):
    """Equation 4 at points: the bin, the place in it, and the parts of value and derivative."""

    width: Float[Tensor, "*curves n"]
    height: Float[Tensor, "*curves n"]
    derivative: Float[Tensor, "*curves n"]
    next_derivative: Float[Tensor, "*curves n"]
    xi: Float[Tensor, "*curves n"]
    part: Float[Tensor, "*curves n"]
    numerator: Float[Tensor, "*curves n"]
    denominator: Float[Tensor, "*curves n"]
    slope: Float[Tensor, "*curves n"]


class SplineValues(torch.autograd.Function):
    """Values of splines and logarithms of their derivatives (:func:`spline_values`)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        numbers: Float[Tensor, "*curves {3*bins-1} n"],
        x: Float[Tensor, "*curves n"],
        bins: int,
        tail: float,
        scale: float,
    ) -> tuple[Tensor, ...]:
        """Return values, logarithms of derivatives, and what the gradient needs."""
        place = (x.clamp(-tail, tail) / (2 * tail)).add_(0.5)
        found = _look_up(numbers, place, bins, scale)
        lower, at = _evaluate(found, place, bins)
        outside = x.abs() > tail
        value = torch.addcmul(lower, at.height, at.part).mul_(2 * tail).sub_(tail)
        log_slope = at.slope.log().masked_fill_(outside, 0.0)
        return torch.where(outside, x, value), log_slope, outside, *found, *at

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        """Keep what the gradient needs."""
        _, _, ctx.bins, ctx.tail, ctx.scale = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[2:])

    @staticmethod
    @once_differentiable
    def backward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        value: Float[Tensor, "*curves n"] | None,
        log_slope: Float[Tensor, "*curves n"] | None,
        *unused: None,
    ) -> tuple[Tensor, Tensor, None, None, None]:
        outside, *saved = ctx.saved_tensors
        count = len(Lookup._fields)
        found, at = Lookup(*saved[:count]), Point(*saved[count:])
        value = torch.zeros_like(at.xi) if value is None else value
        log_slope = torch.zeros_like(at.xi) if log_slope is None else log_slope
        inside = value.masked_fill(outside, 0.0).mul_(2 * ctx.tail)
        place, sizes, derivatives = _bin_gradient(at, inside, log_slope.masked_fill(outside, 0.0))
        starts = torch.stack([-place, inside], -2)
        numbers = _numbers_gradient(found, starts, sizes, derivatives, ctx.bins, ctx.scale)
        return numbers, torch.where(outside, value, place / (2 * ctx.tail)), None, None, None


def _look_up(
    numbers: Float[Tensor, "*curves {3*bins-1} n"],
    place: Float[Tensor, "*curves n"],
    bins: int,
    scale: float,
) -> Lookup:
    """Return the shares of all bins, and the numbers of the bin of each point."""
    shares = (numbers[..., : 2 * bins, :] * scale).unflatten(-2, (2, bins)).softmax(-2)
    ends = shares.cumsum(-2)
    smallest = MIN_BIN_SIZE * torch.arange(1, bins, dtype=place.dtype, device=place.device)
    kept = 1 - MIN_BIN_SIZE * bins
    knots = torch.add(smallest[:, None], ends[..., 0, :-1, :], alpha=kept)
    index = (place[..., None, :] >= knots).sum(-2, keepdim=True)
    slopes = F.pad(numbers[..., 2 * bins :, :], (0, 0, 1, 1), value=END_DERIVATIVE)
    raw = slopes.gather(-2, torch.cat([index, index + 1], -2))
    chosen = _for_both(index)
    share = shares.gather(-2, chosen)
    return Lookup(shares, index, share, ends.gather(-2, chosen) - share, raw)


def _for_both(index: Int[Tensor, "*curves 1 n"]) -> Int[Tensor, "*curves 2 1 n"]:
    """Return the index of a bin as that of a width and of a height."""
    return index[..., None, :, :].expand(*index.shape[:-2], 2, 1, -1)


def _evaluate(
    found: Lookup, place: Float[Tensor, "*curves n"], bins: int
) -> tuple[Float[Tensor, "*curves n"], Point]:
    """Return the lower ends of bins, and the terms of equations 4 and 5."""
    kept = 1 - MIN_BIN_SIZE * bins
    # An index times a number would have the default precision.
    starts = torch.add(found.before.squeeze(-2) * kept, found.chosen, alpha=MIN_BIN_SIZE)
    left, lower = starts.unbind(-2)
    width, height = (found.share.squeeze(-2) * kept).add_(MIN_BIN_SIZE).unbind(-2)
    derivative, next_derivative = F.softplus(found.raw).add_(MIN_DERIVATIVE).unbind(-2)
    s = height / width
    # By rounding, a point may lie just outside its bin.
    xi = ((place - left) / width).clamp(0, 1)
    rest = 1 - xi
    xi_rest, weighted = xi * rest, derivative * rest
    both = torch.add(derivative + next_derivative, s, alpha=-2)
    denominator = torch.addcmul(s, both, xi_rest)
    numerator = torch.addcmul(next_derivative * xi.square(), weighted, rest)
    numerator = torch.addcmul(numerator, s, xi_rest, value=2)
    part = torch.addcmul(weighted, s, xi).mul_(xi).div_(denominator)
    slope = (s / denominator).square() * numerator
    ends = width, height, derivative, next_derivative
    return lower, Point(*ends, xi, part, numerator, denominator, slope)


def _bin_gradient(
    at: Point, value: Float[Tensor, "*curves n"], log_slope: Float[Tensor, "*curves n"]
) -> tuple[Float[Tensor, "*curves n"], Float[Tensor, "*curves 2 n"], Float[Tensor, "*curves 2 n"]]:
    """Return gradients of points, of widths and heights, and of derivatives at both knots."""
    s, rest = at.height / at.width, 1 - at.xi
    xi_rest, turn = at.xi * rest, rest - at.xi
    total = at.derivative + at.next_derivative
    upper, weighted = at.next_derivative * at.xi, at.derivative * rest
    by_numerator = log_slope / at.numerator
    by_denominator = 2 * log_slope / at.denominator
    to_part = value * at.height * xi_rest / at.denominator
    # Times s: dq/ds = xi (1 - xi) (d' xi^2 - d (1 - xi)^2) / denominator^2, with q the part.
    bend = torch.addcmul(upper - weighted, s, turn)
    difference = torch.addcmul(upper * at.xi, weighted, rest, value=-1)
    to_s = torch.addcmul(by_denominator * xi_rest * total, by_numerator * s, xi_rest, value=2)
    to_s = torch.addcmul(to_s, to_part * difference, s / at.denominator)
    to_xi = torch.addcmul(value * at.slope * at.width, by_numerator, bend, value=2)
    to_xi = torch.addcmul(to_xi, by_denominator * turn, total - 2 * s, value=-1)
    to_width = torch.addcmul(to_s, at.xi, to_xi).div_(-at.width)
    to_height = torch.addcmul(to_s / at.height, value, at.part)
    common = torch.addcmul(by_denominator * xi_rest, to_part, at.part)
    to_next = by_numerator * at.xi.square() - common
    to_derivative = torch.addcmul(to_part - common, by_numerator, rest.square())
    sizes = torch.stack([to_width, to_height], -2)
    return to_xi / at.width, sizes, torch.stack([to_derivative, to_next], -2)


def _numbers_gradient(
    found: Lookup,
    starts: Float[Tensor, "*curves 2 n"],
    sizes: Float[Tensor, "*curves 2 n"],
    derivatives: Float[Tensor, "*curves 2 n"],
    bins: int,
    scale: float,
) -> Float[Tensor, "*curves {3*bins-1} n"]:
    """Return the gradient of unconstrained widths, heights and derivatives.

    That of a softmax, a cumulative sum and a choice together: ``shares * (each - mean)``.
    """
    shares, index, share, before, raw = found
    factor = (1 - MIN_BIN_SIZE * bins) * scale
    to_before, to_own = (g.unsqueeze(-2) * factor for g in (starts, sizes))
    mean = torch.addcmul(to_before * before, to_own, share)
    # A start has all shares before it, a size its own.
    preceding = (torch.arange(bins, device=index.device)[:, None] < index)[..., None, :, :]
    each = torch.where(preceding, to_before - mean, -mean)
    each = each.scatter(-2, _for_both(index), to_own - mean)
    slopes = derivatives * raw.sigmoid()
    below = torch.zeros_like(slopes[..., :1, :]).expand(*slopes.shape[:-2], bins + 1, -1)
    below = below.scatter_add(-2, torch.cat([index, index + 1], -2), slopes)[..., 1:-1, :]
    return torch.cat([(each * shares).flatten(-3, -2), below], -2)


def spline_values(
    numbers: Float[Tensor, "*curves {3*bins-1} n"],
    x: Float[Tensor, "*curves n"],
    bins: int,
    tail: float,
    scale: float = 1.0,
) -> tuple[Float[Tensor, "*curves n"], Float[Tensor, "*curves n"]]:
    """Return values of splines and logarithms of their derivatives.

    Args:
        numbers: Unconstrained widths, heights and derivatives, a column for each point.
        x: Points of each curve.
        bins: Number of bins.
        tail: Half the length of the interval.
        scale: Multiplies the unconstrained widths and heights.
    """
    value, log_slope, *_ = SplineValues.apply(numbers, x, bins, tail, scale)
    return value, log_slope
