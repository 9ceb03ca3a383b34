"""Masked autoregressive flow (Papamakarios, Pavlakou and Murray, 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from dgm_bench.annotations import Count
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.flows.layers.masked import Activation, Degrees
from dgm_bench.models.flows.made import GaussianMADE, MixtureMADE


class MAF(Flow):
    """A stack of MADEs whose order is reversed from each to the next (MAF paper, section 3).

    Papamakarios, Pavlakou and Murray (2017), https://arxiv.org/abs/1705.07057, section 3.

    Args:
        event_shape: Shape of one example.
        layers: Number of MADEs: 5 or 10 in the paper.
        hidden: Widths of the hidden layers of each.
        activation: Nonlinearity of the hidden layers; the released code has tanh for GAS only.
        degrees: How degrees are assigned to hidden units; the released code has random ones for
            CIFAR10 only.
        batch_norm: Whether batch normalisation follows each MADE, the last one too.
        components: Gaussians per conditional of a MADE MoG as the base density: the paper's
            MAF MoG has 10. None for a standard normal base.

    Example:
        >>> model = MAF((3,), layers=2, hidden=[16]).eval()
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
        activation: Activation = "relu",
        degrees: Degrees = "sequential",
        batch_norm: bool = True,
        components: Count | None = None,
    ) -> None:
        dim = math.prod(event_shape)
        modules: list[nn.Module] = []
        for i in range(layers):
            modules.append(GaussianMADE(dim, hidden, activation, degrees, reverse=i % 2 == 1))
            if batch_norm:
                modules.append(FlowBatchNorm(dim))
        base = None
        if components is not None:
            reverse = layers % 2 == 1
            base = MixtureMADE(dim, hidden, components, activation, degrees, reverse)
        super().__init__(event_shape, modules, base)
