"""Rational-quadratic neural spline flows (Durkan et al. 2019): couplings and autoregressive."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Fraction, Positive
from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.coupling import EvenOddCoupling
from dgm_bench.models.flows.layers.linear import LULinear, Permutation
from dgm_bench.models.flows.layers.masked import input_degrees
from dgm_bench.models.flows.layers.masked_residual import ResidualMaskedNetwork, ResidualNetwork
from dgm_bench.models.flows.layers.ordered_inverse import invert_in_order
from dgm_bench.models.flows.layers.spline_bins import spline_values
from dgm_bench.models.flows.layers.splines import MIN_BIN_SIZE, Spline


class SplineCoupling(EvenOddCoupling):
    """Splines of one half of the dimensions whose parameters are functions of the other half.

    The conditioning half passes through splines too, the same for all examples (released NSF code,
    ``apply_unconditional_transform``).

    Args:
        dim: Number of dimensions.
        hidden: Width of the conditioner.
        blocks: Residual blocks of the conditioner.
        bins: Bins of each spline.
        tail: Half the length of the splines' interval.
        dropout: Dropout probability of the conditioner.
        keep_even: Whether dimensions 0, 2, 4, ... condition the others, or vice versa.
    """

    output_scale: Float[Tensor, " numbers"]

    def __init__(
        self,
        dim: int,
        hidden: int,
        blocks: int,
        bins: int,
        tail: float,
        dropout: float,
        keep_even: bool,
    ) -> None:
        super().__init__(dim, keep_even)
        self.curve_parameters, self.bins, self.tail = 3 * bins - 1, bins, tail
        self.scale = hidden**-0.5
        outputs = self.outputs * self.curve_parameters
        self.network = ResidualNetwork(self.inputs, hidden, blocks, outputs, dropout)
        self.own = nn.Parameter(torch.rand(self.inputs, self.curve_parameters))
        self.register_buffer("output_scale", _output_scale(bins, hidden), persistent=False)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        # Dimensions come first, so that examples lie along contiguous memory.
        rows = x.T.contiguous()
        kept, transformed = rows[self.kept], rows[self.transformed]
        numbers = self.network.transposed(kept.T).view(-1, self.curve_parameters, len(x))
        own = (self.own / self.output_scale)[..., None].expand(-1, -1, len(x))
        # All splines in one pass: at these sizes each operator costs more than its arithmetic.
        numbers, rows = torch.cat([own, numbers]), torch.cat([kept, transformed])
        u, log_slopes = spline_values(numbers, rows, self.bins, self.tail, self.scale)
        return self.join(u[: self.inputs].T, u[self.inputs :].T), log_slopes.sum(0)

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        kept = self._unconditioned().inverse(u[:, self.kept])
        return self.join(kept, self._conditioned(kept).inverse(u[:, self.transformed]))

    def _conditioned(self, kept: Float[Tensor, "batch kept"]) -> Spline:
        raw = self.network(kept).view(len(kept), -1, self.curve_parameters)
        return Spline(raw * self.output_scale, self.bins, self.tail)

    def _unconditioned(self) -> Spline:
        return Spline(self.own, self.bins, self.tail)


class SplineMADE(nn.Module):
    """A spline for each dimension whose parameters are functions of the dimensions before it.

    Unlike in couplings, unconstrained bin sizes are not divided by the square root of the width:
    the released code reads the width from an attribute that its masked network does not have
    (``nde/transforms/made.py``).

    Args:
        dim: Number of dimensions.
        hidden: Width of the masked network.
        blocks: Its residual blocks.
        bins: Bins of each spline.
        tail: Half the length of the splines' interval.
        dropout: Dropout probability of the network.
    """

    def __init__(
        self, dim: int, hidden: int, blocks: int, bins: int, tail: float, dropout: float
    ) -> None:
        super().__init__()
        self.curve_parameters, self.bins, self.tail = 3 * bins - 1, bins, tail
        order = input_degrees(dim)
        self.network = ResidualMaskedNetwork(order, hidden, blocks, self.curve_parameters, dropout)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, in one pass."""
        # Dimensions come first, so that examples lie along contiguous memory.
        numbers = self.network.transposed(x).view(self.curve_parameters, -1)
        u, log_slopes = spline_values(numbers, x.T.flatten(), self.bins, self.tail)
        return u.view(-1, len(x)).T, log_slopes.view(-1, len(x)).sum(0)

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``, one dimension after another, for about the work of one pass."""
        return invert_in_order(
            self.network, len(u), lambda d, raw: self._spline(raw.T).inverse(u[:, d])
        )

    def _spline(self, raw: Float[Tensor, "*shape numbers"]) -> Spline:
        return Spline(raw, self.bins, self.tail)


class NSFCoupling(Flow):
    """RQ-NSF (C): before each coupling, and after the last, a permutation and an LU layer.

    Durkan, Bekasov, Murray and Papamakarios (2019), https://arxiv.org/abs/1906.04032, section 3.

    Args:
        event_shape: Shape of one example; two dimensions or more.
        layers: Number of couplings: 10 in the paper.
        hidden: Width of the conditioners.
        blocks: Residual blocks of each.
        bins: Bins of each spline.
        tail: Half the length of the splines' interval: 3 in the paper.
        dropout: Dropout probability of the conditioners.

    Raises:
        DeclarationError: There is only one dimension, or ``bins`` or ``tail`` is out of range.

    Example:
        >>> model = NSFCoupling((3,), layers=2, hidden=16, bins=4)
        >>> x = torch.randn(5, 3)
        >>> u, log_det = model.forward_and_log_det(x)
        >>> torch.allclose(model.inverse(u), x, atol=1e-3)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: Count = 10,
        hidden: Count = 256,
        blocks: Count = 2,
        bins: Count = 8,
        tail: Positive = 3.0,
        dropout: Fraction = 0.0,
    ) -> None:
        dim = math.prod(event_shape)
        if dim < 2:
            raise DeclarationError("event_shape", "nothing to couple", "use two dimensions or more")
        _check_spline(bins, tail)
        couplings = (
            SplineCoupling(dim, hidden, blocks, bins, tail, dropout, keep_even=i % 2 == 1)
            for i in range(layers)
        )
        super().__init__(event_shape, _with_linear_layers(dim, couplings))


class NSFAutoregressive(Flow):
    """RQ-NSF (AR): before each autoregressive layer, and after the last, a permutation and LU.

    Durkan, Bekasov, Murray and Papamakarios (2019), https://arxiv.org/abs/1906.04032, section 3.

    Args:
        event_shape: Shape of one example.
        layers: Number of autoregressive layers: 10 in the paper.
        hidden: Width of the masked networks.
        blocks: Residual blocks of each.
        bins: Bins of each spline.
        tail: Half the length of the splines' interval: 3 in the paper.
        dropout: Dropout probability of the networks.

    Raises:
        DeclarationError: ``bins`` or ``tail`` is out of range.

    Example:
        >>> model = NSFAutoregressive((3,), layers=2, hidden=16, bins=4)
        >>> x = torch.randn(5, 3)
        >>> u, log_det = model.forward_and_log_det(x)
        >>> torch.allclose(model.inverse(u), x, atol=1e-3)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: Count = 10,
        hidden: Count = 256,
        blocks: Count = 2,
        bins: Count = 8,
        tail: Positive = 3.0,
        dropout: Fraction = 0.0,
    ) -> None:
        dim = math.prod(event_shape)
        _check_spline(bins, tail)
        mades = (SplineMADE(dim, hidden, blocks, bins, tail, dropout) for _ in range(layers))
        super().__init__(event_shape, _with_linear_layers(dim, mades))


def _with_linear_layers(dim: int, layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Return layers with a permutation and an LU layer before each, and after the last."""
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [Permutation(dim), LULinear(dim), layer]
    return [*modules, Permutation(dim), LULinear(dim)]


def _check_spline(bins: int, tail: float) -> None:
    """Refuse numbers of bins and intervals that are out of range."""
    if not 1 <= bins < 1 / MIN_BIN_SIZE:
        raise DeclarationError("bins", f"{bins} bins do not fit", "use 1 to 999")
    if not 0 < tail < math.inf:
        raise DeclarationError("tail", f"no interval of half length {tail}", "use 3")


def _output_scale(bins: int, hidden: int) -> Float[Tensor, " numbers"]:
    """Return factors of a network's outputs: the released code divides bin sizes by sqrt(width)."""
    return torch.tensor(2 * bins * [hidden**-0.5] + (bins - 1) * [1.0])
