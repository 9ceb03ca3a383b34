"""The logit of a mixture of sigmoids and its slope in few passes over memory, for MAF-DDSF.

One layer of a dense sigmoidal flow (NAF paper, https://arxiv.org/abs/1804.00779, equations 8 to 10)
with one input and one output is ``logit(clip(s))`` with ``s = sum_k w_k sigmoid(a_k x + b_k)``.
Written out step by step it takes several logarithms a sigmoid and keeps a dozen intermediate
results for its gradient. Here the value needs no logarithm but the last, as clipping keeps it from
zero, the slope is summed relative to its largest exponential, and the gradient is written by hand.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Smallest slope of a sigmoid; share of a mixture that clipping replaces by one half (torchkit,
#: nn.py, ``delta``).
DELTA = 1e-6
LOG_KEPT = math.log1p(-DELTA)


def softplus(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return ``log(1 + exp(x))`` to rounding, faster than torch's own on a CPU.

    ``log1p(q)`` is ``log(u) + (q - (u - 1)) / u`` with ``u = 1 + q`` as rounded: torch has fast
    vector code for ``log`` and not for ``log1p``.
    """
    q = x.abs().neg_().exp_()
    u = q + 1
    lost = q.sub_(u - 1).div_(u)
    return u.log_().add_(lost).add_(x.clamp_min(0))


class SigmoidMixture(torch.autograd.Function):
    """Value and logarithm of the slope of ``logit(clip(sum_k w_k sigmoid(a_k x + b_k)))``.

    Units come first, so that every pass runs along contiguous memory. ``a`` is ``softplus(raw_a)``
    plus DELTA, ``w`` the softmax of ``raw_w``, and ``clip(s)`` is ``s (1 - DELTA) + DELTA / 2``.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        raw_a: Float[Tensor, "units *n"],
        b: Float[Tensor, "units *n"],
        raw_w: Float[Tensor, "units *n"],
        x: Float[Tensor, "*n"],
    ) -> tuple[Tensor, ...]:
        """Return value, logarithm of the slope, and what the gradient needs."""
        a, w = softplus(raw_a).add_(DELTA), raw_w.softmax(0)
        z = torch.addcmul(b, a, x)
        s, rest = z.sigmoid(), z.neg().sigmoid_()
        ws, w_rest = w * s, w * rest
        above = ws.sum(0).mul_(1 - DELTA).add_(DELTA / 2)
        below = w_rest.sum(0).mul_(1 - DELTA).add_(DELTA / 2)
        # s * rest is exp(-|z|) max(s, rest)^2: relative to the largest exponential it cannot
        # become zero for all units.
        size = z.abs_()
        least = size.amin(0)
        terms = (least - size).exp_().mul_(torch.maximum(s, rest).square()).mul_(w).mul_(a)
        total = terms.sum(0)
        share = terms.div_(total)
        log_above, log_below = above.log(), below.log()
        log_slope = (total.log() - least).sub_(log_above).sub_(log_below).add_(LOG_KEPT)
        return log_above - log_below, log_slope, a, s, rest, w, share, above, below

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        """Keep what the gradient needs."""
        raw_a, _, _, x = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(raw_a, x, *output[2:])

    @staticmethod
    @once_differentiable
    def backward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        value: Float[Tensor, "*n"] | None,
        log_slope: Float[Tensor, "*n"] | None,
        *unused: None,
    ) -> tuple[Tensor, ...]:
        raw_a, x, a, s, rest, w, share, above, below = ctx.saved_tensors
        value = torch.zeros_like(x) if value is None else value
        log_slope = torch.zeros_like(x) if log_slope is None else log_slope
        # Gradients of the sums over units: of w s, and of w (1 - s).
        to_above = (value - log_slope).mul_(1 - DELTA).div_(above)
        to_below = (value + log_slope).mul_(DELTA - 1).div_(below)
        share = share * log_slope
        inner = (w * s).mul_(rest).mul_(to_above - to_below)
        b = torch.addcmul(inner, share, rest - s)
        raw_a = torch.addcmul(share / a, b, x).mul_(raw_a.sigmoid())
        average = (to_above * (above - DELTA / 2) + to_below * (below - DELTA / 2)) / (1 - DELTA)
        raw_w = torch.addcmul(s * to_above, rest, to_below).sub_(average + log_slope)
        return raw_a, b, raw_w.mul_(w).add_(share), (a * b).sum(0)
