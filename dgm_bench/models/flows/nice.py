"""NICE: non-linear independent components estimation (Dinh, Krueger and Bengio, 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import require_choice
from dgm_bench.models.flows.flow import Flow, StandardNormal
from dgm_bench.models.flows.layers.coupling import EvenOddCoupling
from dgm_bench.models.networks.perceptron import fully_connected
from dgm_bench.models.whole_batch import uniform_


class AdditiveCoupling(EvenOddCoupling):
    """``u_2 = x_2 + m(x_1)`` with ``u_1 = x_1``: volume-preserving (NICE, section 3.2).

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers of ``m``, of ReLU; its output is linear.
        keep_even: Whether dimensions 0, 2, 4, ... are ``x_1``, or 1, 3, 5, ...
    """

    def __init__(self, dim: int, hidden: Sequence[int], keep_even: bool) -> None:
        super().__init__(dim, keep_even)
        self.network = fully_connected([self.inputs, *hidden, self.outputs], nn.ReLU)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, the latter zero."""
        u = x.clone()
        u[:, self.transformed] += self.network(x[:, self.kept])
        return u, x.new_zeros(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        x = u.clone()
        x[:, self.transformed] -= self.network(u[:, self.kept])
        return x


class Scaling(nn.Module):
    """``u = exp(s) x`` with one ``s`` per dimension (NICE, section 3.3). Starts as the identity.

    Args:
        dim: Number of dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        return u * (-self.log_scale).exp()


class StandardLogistic(nn.Module):
    """Independent logistic variables of mean 0 and scale 1 (NICE, section 3.4).

    Args:
        dim: Number of dimensions.
    """

    origin: Float[Tensor, " dim"]

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Holds the device and the precision that samples are to have.
        self.register_buffer("origin", torch.zeros(dim), persistent=False)

    def log_prob(self, u: Float[Tensor, "batch {len(self.origin)}"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        return (F.logsigmoid(u) + F.logsigmoid(-u)).sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {len(self.origin)}"]:
        """Return ``n`` draws."""
        uniform = uniform_(self.origin.new_empty(n, len(self.origin)), generator)
        return uniform.clamp_(min=torch.finfo(uniform.dtype).tiny).logit()


class NICE(Flow):
    """Additive couplings that keep even and odd dimensions alternately, then a scaling.

    Dinh, Krueger and Bengio (2014), https://arxiv.org/abs/1410.8516, section 3.

    Args:
        event_shape: Shape of one example.
        layers: Number of couplings: 4 in the paper (its section 5.1).
        hidden: Widths of the hidden layers of each coupling's network; the paper has 5 of 1000 for
            MNIST, 4 of 5000 for the Toronto faces, and 4 of 2000 for SVHN and CIFAR-10.
        base: Base density. The paper has ``"logistic"`` for MNIST, SVHN
            and CIFAR-10, and ``"normal"`` for the Toronto faces.

    Raises:
        DeclarationError: There is no such base.

    Example:
        >>> model = NICE((4,), layers=2, hidden=[16])
        >>> u, log_det = model.forward_and_log_det(torch.randn(3, 4))
        >>> log_det.tolist()  # couplings keep the volume; the scaling starts as the identity
        [0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: Count = 4,
        hidden: Sequence[Count] = (1000,) * 5,
        base: Literal["normal", "logistic"] = "normal",
    ) -> None:
        dim = math.prod(event_shape)
        bases = {"normal": StandardNormal, "logistic": StandardLogistic}
        require_choice("base", base, bases)
        couplings = [AdditiveCoupling(dim, hidden, keep_even=i % 2 == 0) for i in range(layers)]
        super().__init__(event_shape, [*couplings, Scaling(dim)], bases[base](dim))
