"""MAF-DDSF: a neural autoregressive flow (https://arxiv.org/abs/1804.00779).

Each dimension passes through a deep dense sigmoidal flow, a monotone network of its own whose
weights are functions of the dimensions before it (NAF paper, "DDSF"). Follows the released
code (CW-Huang/torchkit, flows.py, nn.py, utils.py and iaf_modules.py; CW-Huang/NAF,
maf_experiments.py), but for parameters that code has and that cannot matter there: the weights of
a context that is always zero and a softmax over a single input.

That code's log densities are too small by two constants, left out here: its log-sigmoids are short
of 1e-6 each, which is 2e-6 a map and dimension, and its base is not normalised for the 5e-6 that is
added to the variance, 9.2e-7 a dimension: 0.0013 nats for 10 maps of 63 dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.flow import Flow, StandardNormal
from dgm_bench.models.flows.layers.masked import (
    Activation,
    MaskedLinear,
    MaskedNetwork,
    input_degrees,
)
from dgm_bench.models.flows.layers.monotone_inverse import invert_monotone
from dgm_bench.models.flows.layers.ordered_inverse import invert_in_order
from dgm_bench.models.flows.layers.sigmoid_mixture import DELTA, LOG_KEPT, SigmoidMixture
from dgm_bench.models.flows.layers.transposed import transposed_outputs
from dgm_bench.models.normal import standard_normal_log_density

LOG_HALF_DELTA = math.log(DELTA / 2)
#: What a softplus, with DELTA added, maps to one (torchkit, flows.py, ``inv``).
ONE = math.log(math.expm1(1 - DELTA))
#: Standard deviation of the base: its log variance is 1, and 1e-5 is added to the doubled variance
#: (maf_experiments.py, ``density``; torchkit, utils.py, ``log_normal``).
BASE_SD = math.sqrt(math.e + 5e-6)


class Sigmoids(NamedTuple):
    """One layer of a dense sigmoidal flow: ``logit(clip(w sigmoid(a * (u h) + b)))``.

    ``clip(s)`` is ``s (1 - delta) + delta / 2``, so that outputs lie within ``log(2 / delta - 1)``,
    14.5, of zero.

    Attributes:
        a: Slopes, positive.
        b: Shifts.
        log_w: Logarithms of the weights of the sigmoids, which add up to one for each output.
        log_u: Logarithms of the weights of the inputs, likewise; None for a single input.
    """

    a: Float[Tensor, "*n units"]
    b: Float[Tensor, "*n units"]
    log_w: Float[Tensor, "*n outputs units"]
    log_u: Float[Tensor, "*n units inputs"] | None

    def forward_and_log_slope(
        self, h: Float[Tensor, "*n inputs"], log_slope: Float[Tensor, "*n inputs"]
    ) -> tuple[Float[Tensor, "*n outputs"], Float[Tensor, "*n outputs"]]:
        """Return the outputs and the logarithms of their derivatives (NAF paper, DDSF).

        Args:
            h: The inputs.
            log_slope: Logarithms of their derivatives by the flow's single input.
        """
        if self.log_u is not None:
            h = (self.log_u.exp() * h[..., None, :]).sum(-1)
            log_slope = torch.logsumexp(self.log_u + log_slope[..., None, :], dim=-1)
        z = self.a * h + self.b
        log_s = F.logsigmoid(z)
        log_slope = 2 * log_s - z + self.a.log() + log_slope
        # Of the mixture of sigmoids, of one minus it, and of its slope.
        logs = torch.stack([log_s, log_s - z, log_slope], dim=-2)
        logs = torch.logsumexp(logs[..., None, :] + self.log_w[..., None, :, :], dim=-1) + LOG_KEPT
        clipped = torch.logaddexp(logs[..., :2, :], logs.new_full((), LOG_HALF_DELTA))
        log_x, log_rest = clipped.unbind(-2)
        return log_x - log_rest, logs[..., 2, :] - log_x - log_rest

    def bracket(
        self, low: Float[Tensor, " *n"], high: Float[Tensor, " *n"]
    ) -> tuple[Float[Tensor, " *n"], Float[Tensor, " *n"]]:
        """Return bounds of the inputs from bounds of the outputs.

        Before clipping, an output lies between the least and the greatest ``a * h + b`` of all
        units, so some input is not below the first bound and some input is not above the second.
        """
        low, high = ((unclipped(bound)[..., None] - self.b) / self.a for bound in (low, high))
        return low.amin(-1), high.amax(-1)


def unclipped(u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the logit whose clipped number has the logit ``u``.

    Of a ``u`` that clipping does not reach, it is a number beyond all that clipping still tells
    apart.
    """
    most = 1 - torch.finfo(u.dtype).eps
    logs = [F.logsigmoid(u), F.logsigmoid(-u)]
    x, rest = (log + torch.log1p(-(LOG_HALF_DELTA - log).exp().clamp(max=most)) for log in logs)
    return x - rest


class DenseSigmoidalFlow(nn.Module):
    """A monotone network of one input and one output (NAF paper, DDSF).

    Args:
        features: Pseudo-parameters of each dimension; a linear map, the same for all dimensions,
            maps them to slopes, shifts and weights.
        units: Sigmoids in each layer.
        layers: Number of layers.
    """

    def __init__(self, features: int, units: int, layers: int) -> None:
        super().__init__()
        widths = [1, *[units] * (layers - 1), 1]
        #: Sizes of a layer's slopes, shifts, weights of sigmoids and weights of inputs.
        self.sizes = [[units, units, units, inputs if inputs > 1 else 0] for inputs in widths[:-1]]
        self.head = nn.Linear(features, sum(map(sum, self.sizes)))
        self.w = nn.ParameterList(torch.empty(outputs, units) for outputs in widths[1:])
        self.u = nn.ParameterList(torch.empty(units, inputs) for inputs in widths[1:-1])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near ``x``, as the released code (torchkit, flows.py)."""
        for parameter in (self.head.weight, *self.w, *self.u):
            nn.init.uniform_(parameter, -1e-3, 1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, features: Float[Tensor, "features n"], x: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the output at ``x`` and the logarithm of its derivative.

        Args:
            features: Pseudo-parameters, one column for each number in ``x``.
            x: The inputs.
        """
        if len(self.sizes) > 1:
            return forward_and_log_slope(self.conditioned(features.T), x)
        units = self.sizes[0][0]
        # Of slopes, ONE; of shifts, nothing; of weights, what they start from.
        one = x.new_full((units,), ONE)
        bias = self.head.bias + torch.cat([one, torch.zeros_like(one), self.w[0][0]])
        numbers = torch.addmm(bias[:, None], self.head.weight, features)
        value, log_slope, *_ = SigmoidMixture.apply(*numbers.chunk(3), x)
        return value, log_slope

    def conditioned(self, features: Float[Tensor, "*n features"]) -> list[Sigmoids]:
        """Return the layers that the pseudo-parameters give."""
        numbers = self.head(features).split([sum(sizes) for sizes in self.sizes], dim=-1)
        layers = []
        for i, (part, sizes) in enumerate(zip(numbers, self.sizes, strict=True)):
            a, b, w, u = part.split(sizes, dim=-1)
            log_w = F.log_softmax(self.w[i] + w[..., None, :], dim=-1)
            log_u = F.log_softmax(self.u[i - 1] + u[..., None, :], dim=-1) if i else None
            layers.append(Sigmoids(F.softplus(a + ONE) + DELTA, b, log_w, log_u))
        return layers


def forward_and_log_slope(
    layers: Sequence[Sigmoids], x: Float[Tensor, " *n"]
) -> tuple[Float[Tensor, " *n"], Float[Tensor, " *n"]]:
    """Return the layers' output at ``x``, and the logarithm of its derivative."""
    h = x[..., None]
    log_slope = torch.zeros_like(h)
    for layer in layers:
        h, log_slope = layer.forward_and_log_slope(h, log_slope)
    return h[..., 0], log_slope[..., 0]


def invert(layers: Sequence[Sigmoids], u: Float[Tensor, " *n"]) -> Float[Tensor, " *n"]:
    """Return the ``x`` at which the layers' output is ``u``, or nearest to it."""

    def function(x: Float[Tensor, " *n"]) -> tuple[Float[Tensor, " *n"], Float[Tensor, " *n"]]:
        value, log_slope = forward_and_log_slope(layers, x)
        return value, log_slope.exp()

    low = high = u
    for layer in reversed(layers):
        low, high = layer.bracket(low, high)
    return invert_monotone(function, u, low, high)


class ScaledLinear(MaskedLinear):
    """A masked layer with a factor for each unit (torchkit, nn.py, ``CWNlinear``).

    Args:
        mask: True where a connection exists.
    """

    #: Whether the rows of the weight are divided by their norms, before the mask.
    normalised = False

    def __init__(self, mask: Bool[Tensor, "outputs inputs"]) -> None:
        super().__init__(mask)
        self.scale = nn.Parameter(torch.empty(len(mask)))
        # There, factors and biases are linear in a context of one variable, which is zero.
        nn.init.uniform_(self.scale, -1.0, 1.0)
        nn.init.uniform_(self.bias, -1.0, 1.0)
        nn.init.normal_(self.weight, std=1e-3)

    def masked_weight(self) -> Float[Tensor, "outputs inputs"]:
        """Return the matrix that multiplies the inputs."""
        scale = self.scale / self.weight.norm(dim=1) if self.normalised else self.scale
        return scale[:, None] * (self.weight * self.mask)


class SigmoidalMADE(nn.Module):
    """Autoregressive map of a dense sigmoidal flow for each dimension, on flat vectors.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers of the conditioner. It returns three pseudo-parameters
            for each dimension, times the last width over ``dim``, times ``layers``.
        activation: Nonlinearity of the hidden layers.
        units: Sigmoids in each layer of the flow.
        layers: Layers of the flow.
        reverse: Whether the order of the factorisation is reversed.

    Raises:
        DeclarationError: The last hidden layer is narrower than ``dim``.
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        activation: Activation = "elu",
        units: int = 16,
        layers: int = 1,
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.features = 3 * (hidden[-1] // dim) * layers
        if self.features == 0:
            raise DeclarationError(
                f"hidden={list(hidden)} with {dim} dimensions",
                "the conditioner returns 3 * (last width // dimensions) numbers for each dimension",
                f"make the last hidden layer {dim} units wide or wider",
            )
        order = input_degrees(dim, reverse=reverse)
        self.network = MaskedNetwork(
            order, hidden, self.features, activation, "shuffled", ScaledLinear
        )
        cast(ScaledLinear, self.network.last).normalised = True
        self.flow = DenseSigmoidalFlow(self.features, units, layers)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, in one pass."""
        *inner, last = self.network
        h = x
        for module in inner:
            h = module(h)
        features = transposed_outputs(cast(ScaledLinear, last), h).view(self.features, -1)
        u, log_slope = self.flow(features, x.T.flatten())
        return u.view(-1, len(x)).T, log_slope.view(-1, len(x)).sum(0)

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``, one dimension after another; no gradient passes."""

        def value(d: int, features: Float[Tensor, "features batch"]) -> Float[Tensor, " batch"]:
            return invert(self.flow.conditioned(features.T), u[:, d])

        return invert_in_order(self.network, len(u), value)


class Affine(nn.Module):
    """Scale and shift of each dimension: the released code's last layer, ``LinearFlow``.

    In the code both are sums of several constants, so that an optimiser moves them faster.

    Args:
        dim: Number of dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.empty(dim).uniform_(-1e-3, 1e-3))
        self.raw_scale = nn.Parameter(torch.empty(dim).uniform_(ONE - 1e-3, ONE + 1e-3))

    def scale(self) -> Float[Tensor, " dim"]:
        """Return the factors, positive."""
        return F.softplus(self.raw_scale) + DELTA

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        scale = self.scale()
        return torch.addcmul(self.shift, scale, x), scale.log().sum().expand(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        return (u - self.shift) / self.scale()


class WideNormal(StandardNormal):
    """Independent normal variables of log variance 1: the released code's base."""

    def log_prob(self, u: Float[Tensor, "batch {len(self.origin)}"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        return standard_normal_log_density(u / BASE_SD) - u.shape[1] * math.log(BASE_SD)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {len(self.origin)}"]:
        """Return ``n`` draws."""
        return BASE_SD * super().sample(n, generator)


class MAFDDSF(Flow):
    """Deep dense sigmoidal flows with masked conditioners (NAF paper, MAF-DDSF).

    The order is reversed from one to the next, and a scale and a shift follow the last. As each
    map's outputs are bounded, the density is short of the base's mass beyond the bounds: 1e-18 a
    dimension at the start.

    Huang, Krueger, Lacoste and Courville (2018), https://arxiv.org/abs/1804.00779.

    Args:
        event_shape: Shape of one example.
        layers: Number of autoregressive maps: 5 or 10 in the paper.
        hidden: Widths of the hidden layers of each conditioner.
        activation: Nonlinearity of the hidden layers.
        sigmoid_dim: Sigmoids in each layer of the monotone networks.
        sigmoid_layers: Layers of the monotone networks.

    Raises:
        DeclarationError: The last hidden layer is narrower than the number of dimensions.

    Example:
        >>> model = MAFDDSF((3,), layers=2, hidden=[12], sigmoid_dim=4)
        >>> x = torch.randn(5, 3)
        >>> u, log_det = model.forward_and_log_det(x)
        >>> torch.allclose(model.inverse(u), x, atol=1e-3)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: Count = 5,
        hidden: Sequence[Count] = (100,),
        activation: Activation = "elu",
        sigmoid_dim: Count = 16,
        sigmoid_layers: Count = 1,
    ) -> None:
        dim = math.prod(event_shape)
        mades = [
            SigmoidalMADE(dim, hidden, activation, sigmoid_dim, sigmoid_layers, i % 2 == 1)
            for i in range(layers)
        ]
        super().__init__(event_shape, [*mades, Affine(dim)], WideNormal(dim))
