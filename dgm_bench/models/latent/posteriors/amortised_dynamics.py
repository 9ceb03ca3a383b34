"""Networks for continuous flows whose weights depend on the example, and their Jacobians.

As in :mod:`dgm_bench.models.continuous.dynamics` each layer is affine at a fixed time. The
amortised weights of an example are applied to all of its samples without being copied (FFJORD,
https://arxiv.org/abs/1810.01367, appendix B.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.models.continuous import dynamics
from dgm_bench.models.continuous.activations import Nonlinearity, value_and_slope
from dgm_bench.models.continuous.dynamics import Concat
from dgm_bench.models.latent.posteriors.gaussian import Latents

#: Largest number of elements of the weights of a trace that are cached: 1 GiB in float32.
MAX_TRACE_WEIGHTS = 2**28

Kind = Literal["none", "bias", "rank", "hyper", "last"]
Shape = tuple[int, ...]


class AffineMap(NamedTuple):
    """A layer at a fixed time: ``v (W^T + F_1 F_2 ...) + b``.

    Attributes:
        weight: ``W``, the same for all examples, of shape ``(outputs, inputs)``; None for zero.
        factors: Each ``(batch, n, m)``, the first from ``inputs``, the last to ``outputs``.
        bias: ``(outputs,)`` or, of each example, ``(batch, 1, outputs)``.
    """

    weight: Float[Tensor, "outputs inputs"] | None
    factors: tuple[Float[Tensor, "batch _n _m"], ...]
    bias: Float[Tensor, "*examples outputs"]

    def linear(self, v: Float[Tensor, "batch n inputs"]) -> Float[Tensor, "batch n outputs"]:
        """Return the map without its bias."""
        if self.weight is None:
            return reduce(torch.matmul, self.factors, v)
        shared = F.linear(v, self.weight)
        return shared + reduce(torch.matmul, self.factors, v) if self.factors else shared

    def matrix(self) -> Float[Tensor, "examples inputs outputs"]:
        """Return the transposed matrix, of one example if it is the same for all."""
        if not self.factors:
            return cast(Tensor, self.weight).T[None]
        product = reduce(torch.matmul, self.factors)
        return product if self.weight is None else product + self.weight.T


class SharedLayer(nn.Module):
    """A linear layer with the time concatenated to its input, the same for all examples.

    Args:
        inputs: Number of inputs without the time.
        outputs: Number of outputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shared, self.shapes = Concat(inputs, outputs), self.amortised_shapes(inputs, outputs)

    def amortised_shapes(self, inputs: int, outputs: int) -> list[Shape]:
        """Return the shapes of the parameters that depend on the example."""
        return []

    def at(
        self, t: Float[Tensor, ""], amortised: Sequence[Float[Tensor, "batch _n _m"]]
    ) -> AffineMap:
        """Return the affine map at time ``t`` with the ``amortised`` parameters of the examples."""
        weight, bias = self.shared.at(t)
        return AffineMap(weight, (), bias)


class BiasLayer(SharedLayer):
    """A :class:`SharedLayer` to which each example adds a bias."""

    def amortised_shapes(self, inputs: int, outputs: int) -> list[Shape]:
        """Return the shape of the bias."""
        return [(1, outputs)]

    def at(
        self, t: Float[Tensor, ""], amortised: Sequence[Float[Tensor, "batch _n _m"]]
    ) -> AffineMap:
        """Return the map at time ``t``."""
        weight, bias = self.shared.at(t)
        return AffineMap(weight, (), bias + amortised[0])


class LowRankLayer(SharedLayer):
    """``(W + U(x) V(x)^T) h + b + b(x)`` (FFJORD paper, appendix B.2).

    Args:
        inputs: Number of inputs without the time.
        outputs: Number of outputs.
        rank: Columns of ``U`` and of ``V``.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        self.rank = rank
        super().__init__(inputs, outputs)

    def amortised_shapes(self, inputs: int, outputs: int) -> list[Shape]:
        """Return the shapes of ``V``, of ``U^T`` and of the bias."""
        return [(inputs, self.rank), (self.rank, outputs), (1, outputs)]

    def at(
        self, t: Float[Tensor, ""], amortised: Sequence[Float[Tensor, "batch _n _m"]]
    ) -> AffineMap:
        """Return the map at time ``t``."""
        weight, bias = self.shared.at(t)
        return AffineMap(weight, (amortised[0], amortised[1]), bias + amortised[2])


class HyperLayer(nn.Module):
    """A linear layer with the time concatenated to its input and all parameters amortised.

    Args:
        inputs: Number of inputs without the time.
        outputs: Number of outputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shapes: list[Shape] = [(inputs, outputs), (1, outputs), (1, outputs)]

    def at(
        self, t: Float[Tensor, ""], amortised: Sequence[Float[Tensor, "batch _n _m"]]
    ) -> AffineMap:
        """Return the map at time ``t``."""
        return AffineMap(None, (amortised[0],), amortised[1] * t + amortised[2])


AnyLayer = SharedLayer | HyperLayer


class LinearisedMaps(NamedTuple):
    """A network's output at points, and the factors of its Jacobians there.

    Attributes:
        value: The output.
        maps: The layers at this time, first one first.
        slopes: Derivatives of the nonlinearity after each layer but the last, each
            ``(batch, samples, width)``.
        solve: The dynamics, with the cache that all points of a solve share.
    """

    value: Latents
    maps: list[AffineMap]
    slopes: list[Float[Tensor, "batch samples _width"]]
    solve: ConditionedNetwork

    def jvp(self, v: Latents) -> Latents:
        """Return ``J v``, in one pass through the layers."""
        for layer, slope in zip(self.maps[:-1], self.slopes, strict=True):
            v = layer.linear(v) * slope
        return self.maps[-1].linear(v)

    def exact_trace(self) -> Float[Tensor, "batch samples"]:
        """Return ``Tr J``.

        With one hidden layer it is linear in the slopes, with two bilinear, in weights that do not
        depend on the point. Otherwise, or where those would not fit into memory, the tangents of
        all dimensions are propagated, a bounded number at a time.
        """
        weights = self.solve.trace_weights(self.maps, len(self.value))
        if weights is not None and len(self.slopes) == 1:
            return (self.slopes[0] * weights[:, None]).sum(-1)
        if weights is not None:
            return ((self.slopes[0] @ weights) * self.slopes[1]).sum(-1)
        first, last = self.maps[0].matrix(), self.maps[-1].matrix().mT
        chunk = max(1, dynamics.MAX_TANGENT_ELEMENTS // max(s.numel() for s in self.slopes))
        parts = zip(first.split(chunk, 1), last.split(chunk, 1), strict=True)
        return torch.stack([self._partial_trace(one, two) for one, two in parts]).sum(0)

    def _partial_trace(
        self,
        first: Float[Tensor, "#batch dims first_width"],
        last: Float[Tensor, "#batch dims last_width"],
    ) -> Float[Tensor, "batch samples"]:
        """Return the sum of the Jacobian's diagonal over some dimensions.

        Args:
            first: Their rows of the first layer's matrix: the tangents after it, of all samples.
            last: Their columns of the last layer's matrix.
        """
        tangent = first[:, None] * self.slopes[0][:, :, None]
        for layer, slope in zip(self.maps[1:-1], self.slopes[1:], strict=True):
            moved = layer.linear(tangent.flatten(1, 2)).unflatten(1, tangent.shape[1:3])
            tangent = moved * slope[:, :, None]
        return (tangent * last[:, None]).sum((2, 3))


class AmortisedNetwork(nn.Module):
    """``f(t, z)`` of each example: fully connected, time concatenated in every layer.

    Args:
        dim: Number of dimensions of ``z``.
        hidden: Widths of the hidden layers.
        activation: Nonlinearity after every layer but the last.
        kind: Which parameters depend on the example: none, biases, biases and low-rank updates of
            the weights, all weights and biases, or those of the last layer (FFJORD code,
            ``vae_lib/models/CNFVAE.py``).
        rank: Rank of the updates.

    Raises:
        DeclarationError: There is no hidden layer, or the kind is not known.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int], activation: Nonlinearity, kind: Kind, rank: int
    ) -> None:
        super().__init__()
        if not hidden:
            raise DeclarationError("hidden", "no hidden layer", "give at least one width")
        sizes = list(pairwise([dim, *hidden, dim]))
        self.activation = activation
        self.layers = nn.ModuleList(
            _layer(kind, i, o, rank, last=k == len(hidden)) for k, (i, o) in enumerate(sizes)
        )
        shapes = [layer.shapes for layer in self._layers()]
        self.counts = [len(of_layer) for of_layer in shapes]
        self.shapes = [shape for of_layer in shapes for shape in of_layer]

    @property
    def amortised_size(self) -> int:
        """Number of amortised parameters of an example."""
        return sum(math.prod(shape) for shape in self.shapes)

    def condition_on(self, amortised: Float[Tensor, "batch numbers"] | None) -> ConditionedNetwork:
        """Return the dynamics with these amortised parameters, None if there are none."""
        if amortised is None:
            return ConditionedNetwork(self, ())
        pieces = amortised.split([math.prod(shape) for shape in self.shapes], 1)
        constants = [p.unflatten(1, s) for p, s in zip(pieces, self.shapes, strict=True)]
        return ConditionedNetwork(self, tuple(constants))

    def maps(
        self, t: Float[Tensor, ""], constants: Sequence[Float[Tensor, "batch _n _m"]]
    ) -> list[AffineMap]:
        """Return the layers at time ``t``."""
        left = iter(constants)
        pairs = zip(self._layers(), self.counts, strict=True)
        return [layer.at(t, [next(left) for _ in range(count)]) for layer, count in pairs]

    def _layers(self) -> tuple[AnyLayer, ...]:
        return cast(tuple[AnyLayer, ...], tuple(self.layers))


def _layer(kind: Kind, inputs: int, outputs: int, rank: int, *, last: bool) -> AnyLayer:
    if kind == "rank":
        return LowRankLayer(inputs, outputs, rank)
    if kind == "bias":
        return BiasLayer(inputs, outputs)
    if kind == "hyper" or (kind == "last" and last):
        return HyperLayer(inputs, outputs)
    require_choice("kind", kind, get_args(Kind))
    return SharedLayer(inputs, outputs)


class ConditionedNetwork:
    """An :class:`AmortisedNetwork` with the parameters of a batch: the dynamics of one solve.

    The amortised parameters are constants of the solve, not part of its state.

    Args:
        network: The network.
        constants: The amortised parameters, each of shape ``(batch, n, m)``.
    """

    def __init__(
        self, network: AmortisedNetwork, constants: tuple[Float[Tensor, "batch _n _m"], ...]
    ) -> None:
        self.network, self.constants = network, constants
        self._trace_weights: Tensor | None = None

    def trace_weights(
        self, maps: Sequence[AffineMap], batch: int
    ) -> Float[Tensor, "examples *widths"] | None:
        """Return the weights of the slopes in the trace of the Jacobian.

        With matrices ``M`` that multiply from the right it is ``sum_d M_1[d, i] M_2[i, d]`` for one
        hidden layer, ``M_2[i, j] sum_d M_1[d, i] M_3[j, d]`` for two. Time enters biases alone,
        so that without gradients one matrix serves the whole solve.

        Args:
            maps: The layers, at any time.
            batch: Number of examples.

        Returns:
            ``(examples, width)`` or ``(examples, width, width)``, of one example where all have the
            same; None with more layers, or where they would be too large.
        """
        if self._trace_weights is not None and not torch.is_grad_enabled():
            return self._trace_weights
        if (
            len(maps) > 3
            or batch * math.prod(m.bias.shape[-1] for m in maps[:-1]) > MAX_TRACE_WEIGHTS
        ):
            return None
        first, last = maps[0].matrix(), maps[-1].matrix()
        if len(maps) == 2:
            weights = (first * last.mT).sum(1)
        else:
            weights = maps[1].matrix() * (first.mT @ last.mT)
        if not torch.is_grad_enabled():
            self._trace_weights = weights
        return weights

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the network's parameters and the amortised ones."""
        yield from self.network.parameters()
        yield from cast(tuple[nn.Parameter, ...], self.constants)

    def __call__(self, t: Float[Tensor, ""], z: Latents) -> Latents:
        """Return ``dz/dt``."""
        *inner, last = self.network.maps(t, self.constants)
        for layer in inner:
            z = _activate(self.network.activation, layer.linear(z) + layer.bias)
        return last.linear(z) + last.bias

    def linearise(self, t: Float[Tensor, ""], z: Latents) -> LinearisedMaps:
        """Return ``dz/dt`` and the factors of its Jacobian in ``z``."""
        *inner, last = maps = self.network.maps(t, self.constants)
        slopes = []
        for layer in inner:
            z, slope = value_and_slope(layer.linear(z) + layer.bias, self.network.activation)
            slopes.append(slope)
        return LinearisedMaps(last.linear(z) + last.bias, maps, slopes, self)

    def value_and_jvp(
        self, t: Float[Tensor, ""], z: Latents, v: Latents
    ) -> tuple[Latents, Latents]:
        """Return ``dz/dt`` and the product of its Jacobian with ``v``, reading weights once."""
        *inner, last = self.network.maps(t, self.constants)
        both, samples = torch.cat((z, v), 1), z.shape[1]
        for layer in inner:
            both = layer.linear(both)
            before = both[:, :samples] + layer.bias
            value, slope = value_and_slope(before, self.network.activation)
            both = torch.cat((value, both[:, samples:] * slope), 1)
        both = last.linear(both)
        return both[:, :samples] + last.bias, both[:, samples:]


def _activate(activation: Nonlinearity, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return z.tanh() if activation == "tanh" else F.softplus(z)
