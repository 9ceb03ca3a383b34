"""Glow on tables, as FFJORD's authors ran it: their released code, train_discrete_tabular.py.

A full matrix takes the place of the 1 x 1 convolution, and there is no actnorm. Glow on images is
in :mod:`dgm_bench.models.flows.glow_images`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.actnorm import VectorActNorm
from dgm_bench.models.flows.layers.linear import FullLinear
from dgm_bench.models.flows.realnvp import ScaleShiftNetworks


class ScaleShiftCoupling(ScaleShiftNetworks):
    """``u = m x + (1 - m) (exp(s) x + t)`` with ``s`` and ``t`` functions of ``m x``.

    The mask ``m`` keeps every second dimension (released FFJORD code, ``lib/layers/coupling.py``,
    ``MaskedCouplingLayer``). Parameters are drawn as by torch, those of the first layer for a
    fan-in of all ``dim`` inputs, as in that code.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers of both networks.
        keep_even: Whether dimensions 0, 2, 4, ... are kept, or 1, 3, 5, ...
    """

    def __init__(self, dim: int, hidden: Sequence[int], keep_even: bool) -> None:
        def initialise(number: int, linear: nn.Linear) -> None:
            if number == 0:
                bound = dim**-0.5
                nn.init.uniform_(linear.weight, -bound, bound)
                nn.init.uniform_(linear.bias, -bound, bound)

        super().__init__(dim, hidden, keep_even, initialise)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        kept, transformed = self.split(x)
        log_scale = self.log_scale(kept)
        return self.join(kept, transformed * log_scale.exp() + self.shift(kept)), log_scale.sum(1)

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        kept, transformed = self.split(u)
        return self.join(kept, (transformed - self.shift(kept)) * (-self.log_scale(kept)).exp())


def normalised_blocks(dim: int, layers: int, hidden: Sequence[int]) -> list[nn.Module]:
    """Return blocks of actnorm, a full matrix and a coupling, of flat vectors.

    Those of the flow priors and posteriors of Xu et al. (2019, https://arxiv.org/abs/1905.13452).

    Args:
        dim: Number of dimensions.
        layers: Number of blocks.
        hidden: Widths of the hidden layers of the couplings' networks.
    """
    modules: list[nn.Module] = []
    for i in range(layers):
        modules += [VectorActNorm(dim), FullLinear(dim)]
        modules += [ScaleShiftCoupling(dim, hidden, i % 2 == 1)]
    return modules


class TabularGlow(Flow):
    """Full matrices alternating with couplings, the first of which keeps the odd dimensions.

    Kingma and Dhariwal (2018), https://arxiv.org/abs/1807.03039, section 3; on tables as in
    Grathwohl et al. (2018), https://arxiv.org/abs/1810.01367, Table 2.

    Args:
        event_shape: Shape of one example.
        layers: Number of couplings: the released code's default is 10.
        hidden: Widths of the hidden layers of each network; there 100 and 100. The grid from which
            the published numbers were chosen is not known.

    Example:
        >>> model = TabularGlow((3,), layers=2, hidden=[16])
        >>> x = torch.randn(5, 3)
        >>> u, log_det = model.forward_and_log_det(x)
        >>> torch.allclose(model.inverse(u), x, atol=1e-3)
        True
    """

    def __init__(
        self, event_shape: tuple[int, ...], layers: Count = 10, hidden: Sequence[Count] = (100, 100)
    ) -> None:
        dim = math.prod(event_shape)
        modules: list[nn.Module] = []
        for i in range(layers):
            modules += [FullLinear(dim), ScaleShiftCoupling(dim, hidden, keep_even=i % 2 == 1)]
        super().__init__(event_shape, modules)
