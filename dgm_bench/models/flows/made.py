"""MADE: masked autoencoder for distribution estimation (https://arxiv.org/abs/1502.03509).

As a density model it is one autoregressive product of Gaussians, or of mixtures of Gaussians; as a
layer it is the affine autoregressive map of MAF (https://arxiv.org/abs/1705.07057, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.masked import Activation, Degrees, MaskedNetwork, input_degrees
from dgm_bench.models.flows.layers.ordered_inverse import invert_in_order
from dgm_bench.models.normal import LOG_2PI
from dgm_bench.models.whole_batch import normal_, uniform_


class GaussianMADE(nn.Module):
    """Autoregressive affine map: ``u_d = exp(logp_d / 2) (x_d - m_d)``, on flat vectors.

    Mean ``m_d`` and log-precision ``logp_d`` are functions of the dimensions before ``d``
    (MAF paper, equations 2 to 5).

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers.
        activation: Nonlinearity of the hidden layers.
        degrees: How degrees are assigned to hidden units.
        reverse: Whether the order of the factorisation is reversed.
    """

    order: Int[Tensor, " dim"]

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        activation: Activation = "relu",
        degrees: Degrees = "sequential",
        reverse: bool = False,
    ) -> None:
        super().__init__()
        order = input_degrees(dim, reverse=reverse)
        self.network = MaskedNetwork(order, hidden, 2, activation, degrees)
        self.register_buffer("order", order.argsort(), persistent=False)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, in one pass."""
        mean, log_precision = self.network(x).chunk(2, dim=1)
        half = 0.5 * log_precision
        return (x - mean) * half.exp(), half.sum(1)

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``, one dimension after another; no gradient passes."""
        scaled = u.T.contiguous()

        def value(d: int, parameters: Float[Tensor, "2 batch"]) -> Float[Tensor, " batch"]:
            mean, log_precision = parameters
            return torch.addcmul(mean, scaled[d], (-0.5 * log_precision).exp())

        return invert_in_order(self.network, len(u), value)


class ShiftMADE(nn.Module):
    """Autoregressive map that only shifts: ``u_d = x_d - m_d``, on flat vectors.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers.
        activation: Nonlinearity of the hidden layers.
        reverse: Whether the order of the factorisation is reversed.
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        activation: Activation = "relu",
        reverse: bool = False,
    ) -> None:
        super().__init__()
        order = input_degrees(dim, reverse=reverse)
        self.network = MaskedNetwork(order, hidden, 1, activation)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, 0)``, in one pass."""
        return x - self.network(x), x.new_zeros(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``, one dimension after another; no gradient passes."""
        noise = u.T.contiguous()
        return invert_in_order(self.network, len(u), lambda d, mean: noise[d] + mean[0])


class MixtureMADE(nn.Module):
    """Autoregressive product of mixtures of Gaussians, on flat vectors: the base of MAF MoG.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers.
        components: Gaussians in each one-dimensional conditional.
        activation: Nonlinearity of the hidden layers.
        degrees: How degrees are assigned to hidden units.
        reverse: Whether the order of the factorisation is reversed.
    """

    order: Int[Tensor, " dim"]

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        components: int = 10,
        activation: Activation = "relu",
        degrees: Degrees = "sequential",
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.components = components
        order = input_degrees(dim, reverse=reverse)
        self.network = MaskedNetwork(order, hidden, 3 * components, activation, degrees)
        self.register_buffer("order", order.argsort(), persistent=False)
        # Equal components would stay equal: the released MAF code starts their biases apart.
        last = self.network.last
        last.set_bias(torch.randn_like(last.bias))

    def conditionals(
        self, x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "3 batch components dim"]:
        """Return means, log-precisions and log-weights of the mixture of each dimension."""
        shape = (x.shape[0], 3, self.components, x.shape[1])
        mean, log_precision, logits = self.network(x).view(shape).unbind(1)
        return torch.stack([mean, log_precision, F.log_softmax(logits, dim=1)])

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        mean, log_precision, log_weight = self.conditionals(x)
        square = (x[:, None] - mean).square() * log_precision.exp()
        terms = log_weight + 0.5 * (log_precision - square)
        return torch.logsumexp(terms, dim=1).sum(1) - 0.5 * x.shape[1] * LOG_2PI

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {len(self.order)}"]:
        """Return ``n`` draws, one dimension after another."""
        like, dim = self.network.last.weight, len(self.order)
        noise = normal_(like.new_empty(n, dim), generator)
        uniform = uniform_(like.new_empty(n, self.components, dim), generator)
        # The Gumbel-max trick: the largest logit plus Gumbel noise is a draw of the component.
        gumbel = -uniform.log().neg().log()

        def value(d: int, parameters: Float[Tensor, "outputs n"]) -> Float[Tensor, " n"]:
            mean, log_precision, logits = parameters.view(3, self.components, n).unbind()
            chosen = (logits + gumbel[..., d].T).argmax(dim=0, keepdim=True)
            scale = (-0.5 * log_precision.gather(0, chosen)).exp()
            return torch.addcmul(mean.gather(0, chosen), scale, noise[:, d]).squeeze(0)

        return invert_in_order(self.network, n, value)


class MADE(Flow):
    """MADE with Gaussian conditionals, or mixtures of Gaussians (MAF paper, Table 1).

    Germain, Gregor, Murray and Larochelle (2015), https://arxiv.org/abs/1502.03509, section 4.

    Args:
        event_shape: Shape of one example.
        hidden: Widths of the hidden layers.
        components: Gaussians per conditional; None for a single one.
        activation: Nonlinearity of the hidden layers.
        degrees: How degrees are assigned to hidden units.

    Example:
        >>> model = MADE((3,), hidden=[16])
        >>> model.log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
        >>> noise = lambda x: model.forward_and_log_det(x)[0].sum(0)
        >>> jacobian = torch.func.jacrev(noise)(torch.randn(1, 3)).squeeze(1)
        >>> jacobian.triu(1).count_nonzero().item()  # no dimension depends on a later one
        0
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        hidden: Sequence[Count] = (512, 512),
        components: Count | None = None,
        activation: Activation = "relu",
        degrees: Degrees = "sequential",
    ) -> None:
        dim = math.prod(event_shape)
        if components is None:
            super().__init__(event_shape, [GaussianMADE(dim, hidden, activation, degrees)])
        else:
            base = MixtureMADE(dim, hidden, components, activation, degrees)
            super().__init__(event_shape, [], base)
