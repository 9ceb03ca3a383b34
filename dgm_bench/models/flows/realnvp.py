"""Real NVP for tables: affine couplings of fully connected networks (MAF paper, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.flows.layers.coupling import EvenOddCoupling
from dgm_bench.models.flows.layers.masked import activation_module, init_normal
from dgm_bench.models.networks.perceptron import fully_connected


class ScaleShiftNetworks(EvenOddCoupling):
    """Base of couplings by a scale and a shift, each a fully connected network of what is kept.

    The hidden layers of the logarithm of the scale have tanh, those of the shift ReLU. Inputs and
    outputs that the mask of a coupling would set to zero are left out.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers of both networks.
        keep_even: Whether dimensions 0, 2, 4, ... are kept, or 1, 3, 5, ...
        initialise: Draws the parameters of a linear layer, given its number from 0 and itself.
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        keep_even: bool,
        initialise: Callable[[int, nn.Linear], None],
    ) -> None:
        super().__init__(dim, keep_even)
        sizes = [self.inputs, *hidden, self.outputs]
        tanh, relu = partial(activation_module, "tanh"), partial(activation_module, "relu")
        self.log_scale = fully_connected(sizes, tanh, initialise)
        self.shift = fully_connected(sizes, relu, initialise)


class AffineCoupling(ScaleShiftNetworks):
    """``u = m x + (1 - m) exp(-s) (x - t)`` with ``s`` and ``t`` functions of ``m x``.

    The mask ``m`` keeps every second dimension. The weights of the networks' first layers are drawn
    for a fan-in of all ``dim`` inputs: the released code has them all, the others masked to zero.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers of both networks.
        keep_even: Whether dimensions 0, 2, 4, ... are kept, or 1, 3, 5, ...
    """

    def __init__(self, dim: int, hidden: Sequence[int], keep_even: bool) -> None:
        def initialise(number: int, linear: nn.Linear) -> None:
            init_normal(linear, linear.in_features if number else dim)

        super().__init__(dim, hidden, keep_even, initialise)

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
        layers: Count = 5,
        hidden: Sequence[Count] = (512, 512),
        batch_norm: bool = True,
    ) -> None:
        dim = math.prod(event_shape)
        modules: list[nn.Module] = []
        for i in range(layers):
            modules.append(AffineCoupling(dim, hidden, keep_even=i % 2 == 1))
            if batch_norm:
                modules.append(FlowBatchNorm(dim))
        super().__init__(event_shape, modules)
