"""Rational-quadratic splines in training: only what their points need, with few passes.

:class:`~dgm_bench.models.flows.layers.splines.Spline` computes every knot and derivative of every
curve. A point needs those of its bin alone. Here the parameters come before the points, so that
every pass runs along contiguous memory, one look-up serves widths and heights, derivatives are made
where they are needed, and the gradient of all of it is written by hand: of a softmax, a cumulative
sum and a choice together it takes two passes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgm_bench.models.flows.layers.splines import MIN_BIN_SIZE, MIN_DERIVATIVE, Bin, evaluated


class Lookup(torch.autograd.Function):
    """Ends, sizes and derivatives of the bin of each point."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        numbers: Float[Tensor, "*curves {3*bins-1} ones"],
        points: Float[Tensor, "*curves n"],
        bins: int,
        tail: float,
        scale: float,
    ) -> tuple[Tensor, ...]:
        """Return starts, sizes and derivatives, in pairs, and what the gradient needs."""
        kept = 1 - MIN_BIN_SIZE * bins
        shares = (numbers[..., : 2 * bins, :] * scale).unflatten(-2, (2, bins)).softmax(-2)
        ends = shares.cumsum(-2)
        # Where the points would lie, had all bins their smallest size taken off.
        place = (points / (2 * tail) + 0.5)[..., None, :]
        smallest = MIN_BIN_SIZE * torch.arange(1, bins, dtype=points.dtype, device=points.device)
        beyond = place >= torch.add(smallest[:, None], ends[..., 0, :-1, :], alpha=kept)
        index = beyond.sum(-2, keepdim=True)
        chosen = index[..., None, :, :].expand(*index.shape[:-2], 2, 1, -1)
        wide = (*shares.shape[:-1], points.shape[-1])
        share = shares.expand(wide).gather(-2, chosen)
        before = ends.expand(wide).gather(-2, chosen) - share
        starts = (before * kept + MIN_BIN_SIZE * chosen).mul(2 * tail).sub(tail)
        sizes = (share * kept + MIN_BIN_SIZE).mul(2 * tail)
        # The derivatives at both ends of the interval are one.
        knots = torch.cat([index - 1, index], -2)
        fixed = (knots < 0) | (knots > bins - 2)
        knots = knots.clamp(0, max(bins - 2, 0))
        if bins == 1:
            raw = torch.zeros_like(place).expand(*place.shape[:-2], 2, -1)
        else:
            slopes = numbers[..., 2 * bins :, :]
            raw = slopes.expand(*slopes.shape[:-1], points.shape[-1]).gather(-2, knots)
        derivatives = (F.softplus(raw) + MIN_DERIVATIVE).masked_fill(fixed, 1.0)
        kept_for_gradient = (shares, beyond, chosen, share, before, knots, fixed, raw)
        return starts.squeeze(-2), sizes.squeeze(-2), derivatives, *kept_for_gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        """Keep what the gradient needs."""
        _, _, ctx.bins, ctx.tail, ctx.scale = inputs
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[3:])

    @staticmethod
    @once_differentiable
    def backward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        starts: Float[Tensor, "*curves 2 n"],
        sizes: Float[Tensor, "*curves 2 n"],
        derivatives: Float[Tensor, "*curves 2 n"],
        *unused: None,
    ) -> tuple[Tensor, None, None, None, None]:
        shares, beyond, chosen, share, before, knots, fixed, raw = ctx.saved_tensors
        factor = 2 * ctx.tail * (1 - MIN_BIN_SIZE * ctx.bins) * ctx.scale
        to_before, to_own = (g.unsqueeze(-2) * factor for g in (starts, sizes))
        # A start has all shares before it, a size its own.
        each = F.pad(beyond, (0, 0, 0, 1))[..., None, :, :] * to_before
        each = each.scatter(-2, chosen, to_own).sub_(to_before * before + to_own * share)
        slopes = (derivatives * raw.sigmoid()).masked_fill(fixed, 0.0)
        below = torch.zeros_like(each[..., 0, : ctx.bins - 1, :])
        if ctx.bins > 1:
            below = below.scatter_add(-2, knots, slopes)
        if shares.shape[-1] == 1:
            each, below = each.sum(-1, keepdim=True), below.sum(-1, keepdim=True)
        return torch.cat([(each * shares).flatten(-3, -2), below], -2), None, None, None, None


def spline_values(
    numbers: Float[Tensor, "*curves {3*bins-1} ones"],
    x: Float[Tensor, "*curves n"],
    bins: int,
    tail: float,
    scale: float = 1.0,
) -> tuple[Float[Tensor, "*curves n"], Float[Tensor, "*curves n"]]:
    """Return values of splines and logarithms of their derivatives.

    Args:
        numbers: Unconstrained widths, heights and derivatives of each curve, a column for each
            point, or a single one for all points of a curve.
        x: Points of each curve.
        bins: Number of bins.
        tail: Half the length of the interval.
        scale: Multiplies the unconstrained widths and heights.
    """
    inner = x.clamp(-tail, tail)
    starts, sizes, derivatives, *_ = Lookup.apply(numbers, inner.detach(), bins, tail, scale)
    left, lower = starts.unbind(-2)
    width, height = sizes.unbind(-2)
    derivative, next_derivative = derivatives.unbind(-2)
    at = Bin(left, lower, width, height, derivative, next_derivative)
    return evaluated(at, x, inner, tail)
