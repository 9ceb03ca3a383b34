"""Real NVP for tables: affine couplings of fully connected networks (MAF paper, section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.flows.layers.coupling import EvenOddCoupling
from dgm_bench.models.flows.layers.masked import Activation, activation_module, init_normal
from dgm_bench.models.networks.perceptron import fully_connected


class AffineCoupling(EvenOddCoupling):
    """``u = m x + (1 - m) exp(-s) (x - t)`` with ``s`` and ``t`` functions of ``m x``.

    The mask ``m`` keeps every second dimension. The networks' inputs are the kept dimensions alone
    and their outputs the transformed ones: what the mask would set to zero is left out.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers of both networks.
        keep_even: Whether dimensions 0, 2, 4, ... are kept, or 1, 3, 5, ...
    """

    def __init__(self, dim: int, hidden: Sequence[int], keep_even: bool) -> None:
        super().__init__(dim, keep_even)
        sizes = [self.inputs, *hidden, self.outputs]
        self.log_scale = _network(dim, sizes, "tanh")
        self.shift = _network(dim, sizes, "relu")

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        kept, transformed = self.split(x)
        log_scale = self.log_scale(kept)
        transformed = (transformed - self.shift(kept)) * (-log_scale).exp()
        return self.join(kept, transformed), -log_scale.sum(1)

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        kept, transformed = self.split(u)
        return self.join(kept, transformed * self.log_scale(kept).exp() + self.shift(kept))


class RealNVP(Flow):
    """Couplings that keep even and odd dimensions alternately (MAF paper, section 4).

    Dinh, Sohl-Dickstein and Bengio (2016), https://arxiv.org/abs/1605.08803, section 3.2; on tables
    as in Papamakarios et al. (2017), https://arxiv.org/abs/1705.07057, section 4.

    Args:
        event_shape: Shape of one example.
        layers: Number of couplings: 5 or 10 in the MAF paper.
        hidden: Widths of the hidden layers of each network.
        batch_norm: Whether batch normalisation follows each coupling, the last one too.

    Example:
        >>> model = RealNVP((3,), layers=2, hidden=[16]).eval()
        >>> x = torch.randn(5, 3)
        >>> u, log_det = model.forward_and_log_det(x)
        >>> torch.allclose(model.inverse(u), x, atol=1e-3)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: int = 5,
        hidden: Sequence[int] = (512, 512),
        batch_norm: bool = True,
    ) -> None:
        dim = math.prod(event_shape)
        modules: list[nn.Module] = []
        for i in range(layers):
            modules.append(AffineCoupling(dim, hidden, keep_even=i % 2 == 1))
            if batch_norm:
                modules.append(FlowBatchNorm(dim))
        super().__init__(event_shape, modules)


def _network(dim: int, sizes: Sequence[int], activation: Activation) -> nn.Sequential:
    """Return a fully connected network with linear output.

    The first layer's weights are drawn for a fan-in of all ``dim`` inputs: the released code has
    them all, the others masked to zero.
    """

    def initialise(number: int, linear: nn.Linear) -> None:
        init_normal(linear, linear.in_features if number else dim)

    return fully_connected(sizes, partial(activation_module, activation), initialise)
