"""Networks for the right-hand side of a continuous flow, and traces of their Jacobians.

At a fixed time each layer is affine, so the network's Jacobian is a plain product
``W_L S W_{L-1} ... S W_1`` of weights and of diagonal matrices of the nonlinearity's derivatives.
Its factors give the exact trace and Hutchinson's estimate without differentiating twice. These
networks are fully connected; :mod:`dgm_bench.models.continuous.conv_dynamics` is for images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.continuous.activations import Nonlinearity, pushforward, value_and_slope

Layer = Literal["concatsquash", "concat"]

# Largest number of elements of one hidden layer's tangents, for the memory of the exact trace.
MAX_TANGENT_ELEMENTS = 2**24


@runtime_checkable
class Linearisation(Protocol):
    """Dynamics at a point: their value, and products with their Jacobian ``J`` there."""

    @property
    def value(self) -> Float[Tensor, "batch *event"]:
        """``dz/dt``, of the shape of ``z``."""
        ...

    def jvp(self, v: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Return the Jacobian-vector product ``J v``, with one vector per example."""
        ...

    def exact_trace(self) -> Float[Tensor, " batch"]:
        """Return ``Tr J``."""
        ...


@runtime_checkable
class VectorField(Protocol):
    """A right-hand side ``f(t, z)``."""

    def __call__(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch *event"]
    ) -> Float[Tensor, "batch *event"]:
        """Return ``dz/dt``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters, as a module does."""
        ...


@runtime_checkable
class Dynamics(VectorField, Protocol):
    """A right-hand side that can be linearised too."""

    def linearise(self, t: Float[Tensor, ""], z: Float[Tensor, "batch *event"]) -> Linearisation:
        """Return ``dz/dt`` and its Jacobian in ``z``."""
        ...


@runtime_checkable
class PushesForward(Protocol):
    """Dynamics that know a shorter way than through :class:`Linearisation`."""

    def value_and_jvp(
        self,
        t: Float[Tensor, ""],
        z: Float[Tensor, "batch *event"],
        v: Float[Tensor, "batch *event"],
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch *event"]]:
        """Return ``dz/dt`` and the product of its Jacobian with ``v``."""
        ...


def value_and_jvp(
    network: Dynamics,
    t: Float[Tensor, ""],
    z: Float[Tensor, "batch *event"],
    v: Float[Tensor, "batch *event"],
) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch *event"]]:
    """Return ``dz/dt`` and the product of its Jacobian with ``v``, the shortest way."""
    if isinstance(network, PushesForward):
        return network.value_and_jvp(t, z, v)
    at = network.linearise(t, z)
    return at.value, at.jvp(v)


def value_and_estimate(
    network: Dynamics,
    t: Float[Tensor, ""],
    z: Float[Tensor, "batch *event"],
    noise: Float[Tensor, "batch *event"],
) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
    """Return ``dz/dt`` and ``e^T J e``, an unbiased estimate of ``Tr J`` (FFJORD, equation 7)."""
    value, jvp = value_and_jvp(network, t, z, noise)
    return value, (jvp * noise).flatten(1).sum(1)


class Linearised(NamedTuple):
    """A network's output at a point and the factors of its Jacobian there.

    Attributes:
        value: The output, of shape ``(batch, dim)``.
        weights: Weights of each layer at this time, first layer first.
        slopes: Derivatives of the nonlinearity after each layer but the last: ``(batch, width)``.
    """

    value: Float[Tensor, "batch dim"]
    weights: list[Float[Tensor, "_outputs _inputs"]]
    slopes: list[Float[Tensor, "batch _width"]]

    def jvp(self, v: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``J v``, in one pass through the factors."""
        for weight, slope in zip(self.weights[:-1], self.slopes, strict=True):
            v = F.linear(v, weight) * slope
        return F.linear(v, self.weights[-1])

    def exact_trace(self) -> Float[Tensor, " batch"]:
        """Return ``Tr J``.

        With two hidden layers it is bilinear in the slopes, ``s_2^T (W_2 * (W_1 W_3)^T) s_1``, and
        costs no more than the output itself. Otherwise all dimensions' tangents are propagated.
        """
        if len(self.slopes) == 2:
            (first, second, third), (s1, s2) = self.weights, self.slopes
            return (F.linear(s1, second * (first @ third).T) * s2).sum(1)
        dim = self.weights[0].shape[1]
        chunk = max(1, MAX_TANGENT_ELEMENTS // max(slope.numel() for slope in self.slopes))
        parts = [slice(start, start + chunk) for start in range(0, dim, chunk)]
        return torch.stack([self._partial_trace(part) for part in parts]).sum(0)

    def _partial_trace(self, dims: slice) -> Float[Tensor, " batch"]:
        """Return the sum of the Jacobian's diagonal over ``dims``."""
        # The tangents after the first layer are columns of its weight, the same for all examples.
        tangent = self.weights[0][:, dims].T[:, None, :] * self.slopes[0]
        for weight, slope in zip(self.weights[1:-1], self.slopes[1:], strict=True):
            tangent = F.linear(tangent, weight) * slope
        return torch.einsum("kbh,kh->b", tangent, self.weights[-1][dims])


class ConcatSquash(nn.Module):
    """``(W x + b) * sigmoid(w_g t + b_g) + w_b t``, the layer of the released FFJORD code.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(1, outputs)
        self.drift = nn.Linear(1, outputs, bias=False)

    def at(
        self, t: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]:
        """Return weight and bias of the affine map of ``z`` at time ``t``."""
        # A product with the one time for all, not with a batch of it: fewer operations.
        gate = torch.addcmul(self.gate.bias, self.gate.weight[:, 0], t).sigmoid()
        bias = torch.addcmul(self.drift.weight[:, 0] * t, gate, self.linear.bias)
        return gate[:, None] * self.linear.weight, bias

    def forward(
        self, t: Float[Tensor, " batch"], z: Float[Tensor, "batch inputs"]
    ) -> Float[Tensor, "batch outputs"]:
        """Return the output with a time of its own for each example."""
        time = t[:, None]
        squashed: Tensor = self.linear(z) * self.gate(time).sigmoid() + self.drift(time)
        return squashed


class Concat(nn.Module):
    """A linear layer with the time concatenated to its input, as the FFJORD paper describes.

    Args:
        inputs: Number of inputs without the time.
        outputs: Number of outputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(1 + inputs, outputs)

    def at(
        self, t: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]:
        """Return weight and bias of the affine map of ``z`` at time ``t``."""
        weight = self.linear.weight
        return weight[:, 1:], self.linear.bias + weight[:, 0] * t

    def forward(
        self, t: Float[Tensor, " batch"], z: Float[Tensor, "batch inputs"]
    ) -> Float[Tensor, "batch outputs"]:
        """Return the output with a time of its own for each example."""
        output: Tensor = self.linear(torch.cat([t[:, None], z], dim=1))
        return output


class DynamicsNetwork(nn.Module):
    """``f(t, z)``: fully connected, with a nonlinearity after every layer but the last.

    Args:
        dim: Number of dimensions of ``z``.
        hidden: Widths of the hidden layers.
        layer: How the time enters each layer.
        activation: The nonlinearity.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int], layer: Layer, activation: Nonlinearity
    ) -> None:
        super().__init__()
        if not hidden:
            raise DeclarationError("hidden", "no hidden layer", "give at least one width")
        kind = ConcatSquash if layer == "concatsquash" else Concat
        self.activation = activation
        self.layers = nn.ModuleList(kind(i, o) for i, o in pairwise([dim, *hidden, dim]))

    def affine_maps(
        self, t: Float[Tensor, ""]
    ) -> list[tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]]:
        """Return the weight and the bias of each layer at time ``t``."""
        layers = cast(tuple[ConcatSquash | Concat, ...], tuple(self.layers))
        return [layer.at(t) for layer in layers]

    def forward(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dz/dt``."""
        *inner, last = self.affine_maps(t)
        for weight, bias in inner:
            z = self._activate(F.linear(z, weight, bias))
        return F.linear(z, *last)

    def velocity(
        self, t: Float[Tensor, " batch"], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dz/dt`` with a time of its own for each example."""
        *inner, last = self.layers
        for layer in inner:
            z = self._activate(layer(t, z))
        velocity: Tensor = last(t, z)
        return velocity

    def linearise(self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]) -> Linearised:
        """Return ``dz/dt`` and the factors of its Jacobian in ``z``."""
        *inner, last = self.affine_maps(t)
        slopes = []
        for weight, bias in inner:
            z, slope = value_and_slope(F.linear(z, weight, bias), self.activation)
            slopes.append(slope)
        weights = [weight for weight, _ in [*inner, last]]
        return Linearised(F.linear(z, *last), weights, slopes)

    def value_and_jvp(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"], v: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Return ``dz/dt`` and the product of its Jacobian with ``v``, in one pass."""
        return pushforward(self.affine_maps(t), self.activation, z, v)

    def _activate(self, z: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return z.tanh() if self.activation == "tanh" else F.softplus(z)
