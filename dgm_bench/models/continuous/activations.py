"""Nonlinearities of dynamics with their slopes, and whole networks with a tangent, differentiable.

Derivatives are written out: automatic differentiation would take three times as many operations.
On a CPU tanh takes five times as long as the sigmoid from which it follows here, to within a
rounding error of 1: next to zero its relative error is larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgm_bench.models.elementwise import softplus

Nonlinearity = Literal["tanh", "softplus"]


def _value_and_slope(a: Tensor, activation: Nonlinearity) -> tuple[Tensor, Tensor]:
    """Return the nonlinearity and its derivative."""
    if activation == "tanh":
        value = a.tanh() if a.is_cuda else (2 * a).sigmoid_().mul_(2).sub_(1)
        return value, torch.addcmul(a.new_ones(()), value, value, value=-1)
    return softplus(a), a.sigmoid()


def _add_curvature(
    gradient: Tensor, moved: Tensor, value: Tensor, slope: Tensor, activation: Nonlinearity
) -> None:
    """Add what reaches the argument through the slope: ``moved`` times ``phi''/phi'``.

    Args:
        gradient: Of the argument, changed.
        moved: Gradient of the slope, times the slope.
        value: ``phi``.
        slope: ``phi'``.
        activation: ``phi``.
    """
    if activation == "tanh":
        gradient.addcmul_(moved, value, value=-2)
    else:
        gradient.add_(moved).addcmul_(moved, slope, value=-1)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  what autograd passes
        a: Tensor,
        activation: Nonlinearity,
    ) -> tuple[Tensor, Tensor]:
        value, slope = _value_and_slope(a, activation)
        ctx.activation = activation
        ctx.save_for_backward(value, slope)
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor, of_slope: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        value, slope = ctx.saved_tensors
        gradient = of_value * slope
        _add_curvature(gradient, of_slope * slope, value, slope, ctx.activation)
        return gradient, None


def value_and_slope(
    a: Float[Tensor, "*shape"], activation: Nonlinearity
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return the nonlinearity and its derivative, both differentiable once."""
    value, slope = _Activation.apply(a, activation)
    return value, slope


class _Pushforward(torch.autograd.Function):
    """A fully connected network's value and its Jacobian times a vector.

    Examples are columns, first those of the value and then the tangents, so that each layer is one
    matrix product, and a fast one where there are few dimensions.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  what autograd passes
        activation: Nonlinearity,
        z: Tensor,
        v: Tensor,
        *maps: Tensor,
    ) -> tuple[Tensor, Tensor]:
        weights, biases, batch = maps[::2], maps[1::2], len(z)
        columns = torch.cat((z.T, v.T), 1)
        inputs, slopes = [columns], []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            columns = weight @ columns
            before = columns[:, :batch].add_(bias[:, None])
            value, slope = _value_and_slope(before, activation)
            before.copy_(value)
            columns[:, batch:].mul_(slope)
            inputs.append(columns)
            slopes.append(slope)
        ctx.activation, ctx.count = activation, len(inputs)
        ctx.save_for_backward(*inputs, *slopes, *weights)
        columns = weights[-1] @ columns
        return columns[:, :batch].T + biases[-1], columns[:, batch:].T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor, of_jvp: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        n, saved, batch = ctx.count, ctx.saved_tensors, len(of_value)
        inputs, slopes, weights = saved[:n], saved[n : 2 * n - 1], saved[2 * n - 1 :]
        gradient, of_maps = torch.cat((of_value.T, of_jvp.T), 1), []
        for k in reversed(range(n)):
            of_maps += [gradient[:, :batch].sum(1), gradient @ inputs[k].T]
            gradient = weights[k].T @ gradient
            if k:
                _through(gradient, inputs[k], slopes[k - 1], ctx.activation)
        return None, gradient[:, :batch].T, gradient[:, batch:].T, *reversed(of_maps)


def _through(gradient: Tensor, after: Tensor, slope: Tensor, activation: Nonlinearity) -> None:
    """Turn the gradient after the nonlinearity, of values and tangents, into that before it."""
    batch = slope.shape[1]
    moved = gradient[:, batch:] * after[:, batch:]
    gradient.unflatten(1, (2, batch)).mul_(slope[:, None])
    _add_curvature(gradient[:, :batch], moved, after[:, :batch], slope, activation)


def pushforward(
    maps: Sequence[tuple[Float[Tensor, "_outputs _inputs"], Float[Tensor, " _outputs"]]],
    activation: Nonlinearity,
    z: Float[Tensor, "batch dim"],
    v: Float[Tensor, "batch dim"],
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
    """Return a network's value at ``z`` and its Jacobian there times ``v``.

    Both are differentiable once, in all arguments.

    Args:
        maps: Weight and bias of each layer, first layer first.
        activation: After each layer but the last.
        z: The points.
        v: A vector for each.
    """
    value, jvp = _Pushforward.apply(activation, z, v, *(part for pair in maps for part in pair))
    return value, jvp
