"""ELU and softplus from operators that every CPU has fast.

``exp``, ``log`` and ``sigmoid`` are vectorised everywhere; ``expm1`` and ``log1p``, of which torch
makes these two, are slow where its kernels are those for AVX-512: nine nanoseconds a number, as
long as a thousand multiplications in a matrix product. Values differ from torch's by the rounding
of numbers near 1. On other devices they are torch's.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor


def elu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``x`` where it is positive, and ``exp(x) - 1`` elsewhere."""
    return cast(Tensor, _ELU.apply(x)) if x.device.type == "cpu" else F.elu(x)


def softplus(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``log(1 + exp(x))``."""
    return cast(Tensor, _Softplus.apply(x)) if x.device.type == "cpu" else F.softplus(x)


def log_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``-log(1 + exp(-x))``."""
    return -softplus(-x)


def binary_log_likelihood(
    logits: Float[Tensor, "*#batch dim"], x: Float[Tensor, "*#batch dim"]
) -> Float[Tensor, "*#batch"]:
    """Return the log probability of independent binary ``x`` in nats."""
    return (x * logits - softplus(logits)).sum(-1)


@runtime_checkable
class _Saves(Protocol):
    """What sets up a backward pass; under ``vmap`` it is not torch's usual context."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors."""


@runtime_checkable
class _Saved(Protocol):
    """What a backward pass reads."""

    saved_tensors: tuple[Tensor, ...]


class _ELU(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(max=0).exp_().sub_(1).add_(x.clamp(min=0))

    @staticmethod
    def setup_context(ctx: _Saves, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: _Saved, grad: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return cast(Tensor, torch.ops.aten.elu_backward(grad, 1, 1, 1, True, output))


class _Softplus(torch.autograd.Function):
    """``max(x, 0) - log(sigmoid(|x|))``: the logarithm is of numbers from 1/2 to 1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(min=0).sub_(x.abs().sigmoid_().log_())

    @staticmethod
    def setup_context(ctx: _Saves, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: _Saved, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.sigmoid()
