"""TAN: transformation autoregressive networks (https://arxiv.org/abs/1801.09819).

Simple invertible maps of all dimensions, then an autoregressive density whose conditionals are
parametrised by a recurrent network. Widths and initial values are those of the released code as its
``tan/demos/mafdata_demo.py`` sets them for the data of the MAF paper.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0
from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.recurrent import Cell, Recurrence, init_glorot
from dgm_bench.models.flows.nice import Scaling
from dgm_bench.models.normal import LOG_2PI
from dgm_bench.models.whole_batch import normal_, uniform_


class LinearMap(nn.Module):
    """``u = x L U + b``, ``L`` with unit diagonal (TAN, section 3.2.1). Starts as the identity.

    Args:
        dim: Number of dimensions.
        train_bias: Whether ``b`` is trained.
    """

    bias: Float[Tensor, " dim"]

    def __init__(self, dim: int, train_bias: bool = True) -> None:
        super().__init__()
        # L below the diagonal, U on it and above.
        self.factors = nn.Parameter(torch.eye(dim))
        if train_bias:
            self.bias = nn.Parameter(torch.zeros(dim))
        else:
            self.register_buffer("bias", torch.zeros(dim))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        upper = self.factors.triu()
        matrix = torch.addmm(upper, self.factors.tril(-1), upper)
        log_det = self.factors.diagonal().abs().log().sum()
        return torch.addmm(self.bias, x, matrix), log_det.expand(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        solve, factors = torch.linalg.solve_triangular, self.factors
        y = solve(factors, u - self.bias, upper=True, left=False)
        x: Tensor = solve(factors, y, upper=False, left=False, unitriangular=True)
        return x


class LeakyReLU(nn.Module):
    """``u = max(x, a x)`` with one trained ``a`` in (0, 1), which starts at ``sigmoid(5)``."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(5.0))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        negative = (x < 0).sum(1).to(x.dtype)
        return torch.maximum(x, self.logit.sigmoid() * x), negative * F.logsigmoid(self.logit)

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        return torch.minimum(u, u / self.logit.sigmoid())


class RecurrentShift(nn.Module):
    """``u_d = x_d + m(h_d)`` with ``h_d`` a recurrent state of the dimensions before ``d``.

    The additive recurrent coupling of TAN's section 3.2.3; ``m`` is affine.

    Args:
        units: Size of the recurrent state.
        cell: The recurrent cell.
    """

    def __init__(self, units: int, cell: Cell) -> None:
        super().__init__()
        self.recurrence = Recurrence(units, cell)
        self.shift = nn.Linear(units, 1)
        init_glorot(self.shift)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, the latter zero."""
        shift: Tensor = self.shift(self.recurrence(x))
        return x + shift.squeeze(2).T, x.new_zeros(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``, one dimension after another: one step of the recurrence for each."""
        previous, state = self.recurrence.start(u)
        found = []
        for value in u.unbind(1):
            state = self.recurrence.step(previous, state)
            previous = value - self.shift(state).squeeze(1)
            found.append(previous)
        return torch.stack(found, dim=1)


class Reverse(nn.Module):
    """The dimensions in the opposite order."""

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, the latter zero."""
        return x.flip(1), x.new_zeros(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        return u.flip(1)


class RecurrentMixture(nn.Module):
    """Autoregressive product of mixtures of Gaussians with a recurrent state (TAN, section 3.1.2).

    Args:
        dim: Number of dimensions.
        units: Size of the recurrent state.
        components: Gaussians in each one-dimensional conditional.
        parameter_layers: Hidden layers between state and mixture, as wide as its parameters.
        cell: The recurrent cell.
    """

    origin: Float[Tensor, " dim"]

    def __init__(
        self, dim: int, units: int, components: int, parameter_layers: int, cell: Cell
    ) -> None:
        super().__init__()
        self.recurrence = Recurrence(units, cell)
        self.network = _parameter_network(units, 3 * components, parameter_layers)
        # Holds the device and the precision that samples are to have.
        self.register_buffer("origin", torch.zeros(dim), persistent=False)

    def log_prob(self, u: Float[Tensor, "batch {len(self.origin)}"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        parameters: Tensor = self.network(self.recurrence(u))
        logits, mean, log_scale = parameters.chunk(3, dim=2)
        square = ((u.T[..., None] - mean) * (-log_scale).exp()).square()
        terms = torch.logsumexp(logits - log_scale - 0.5 * square, dim=2)
        log_prob: Tensor = (terms - torch.logsumexp(logits, dim=2)).sum(0)
        return log_prob - 0.5 * u.shape[1] * LOG_2PI

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {len(self.origin)}"]:
        """Return ``n`` draws, one dimension after another."""
        u = self.origin.new_empty(n, len(self.origin))
        previous, state = self.recurrence.start(u)
        for d in range(len(self.origin)):
            ask_within()
            state = self.recurrence.step(previous, state)
            u[:, d] = previous = _draw(self.network(state), generator)
        return u


class TAN(Flow):
    """Groups of simple invertible maps, then a recurrent mixture density (TAN, section 3).

    The first linear map starts by scaling each dimension into [-1, 1]: see :meth:`initialise`.

    Oliva et al. (2018), https://arxiv.org/abs/1801.09819, section 3.

    Args:
        event_shape: Shape of one example.
        groups: Groups of {leaky ReLU, rescaling, recurrent shift, reversal, linear map}; the last
            has the first two only.
        units: Size of the state of each recurrent network.
        components: Gaussians per conditional.
        parameter_layers: Hidden layers between recurrent state and mixture.
        cell: The recurrent cell: that of the released code, or cuDNN's.

    Raises:
        DeclarationError: There is no group.

    Example:
        >>> model = TAN((3,), groups=2, units=8, components=2)
        >>> model.initialise(torch.randn(100, 3))
        >>> model.log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
        >>> model.sample(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        groups: Count = 5,
        units: Count = 256,
        components: Count = 40,
        parameter_layers: CountFrom0 = 2,
        cell: Cell = "reset-before",
    ) -> None:
        if groups < 1:
            raise DeclarationError("groups", f"{groups} groups", "give at least one")
        dim = math.prod(event_shape)
        modules: list[nn.Module] = [LinearMap(dim, train_bias=False)]
        for _ in range(groups - 1):
            modules += [LeakyReLU(), Scaling(dim), RecurrentShift(units, cell)]
            modules += [Reverse(), LinearMap(dim)]
        modules += [LeakyReLU(), Scaling(dim)]
        base = RecurrentMixture(dim, units, components, parameter_layers, cell)
        super().__init__(event_shape, modules, base)

    #: The released code uses the whole training set.
    initial_examples: int | None = None

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n *event"]) -> None:
        """Set the first linear map to centre ``x`` and to divide it by its largest absolute value.

        A dimension that is within [-1, 1] is not divided. The released code does this with the
        whole training set (``get_initmap`` in ``tan/data/helpers.py``); the bias is not trained.
        """
        first, flat = cast(LinearMap, self.layers[0]), x.flatten(1)
        mean = flat.mean(0)
        scale = (flat - mean).abs().amax(0).clamp(min=1)
        first.factors.copy_((1 / scale).diag())
        first.bias.copy_(-mean / scale)


def _parameter_network(units: int, parameters: int, layers: int) -> nn.Sequential:
    """Return the network between state and mixture, initialised as in the released code.

    Its first nonlinearity is a ReLU of an affine map of the state, the others are tanh.
    """
    first = nn.Linear(units, parameters)
    init_glorot(first)
    modules: list[nn.Module] = [first, nn.ReLU()]
    for _ in range(layers):
        linear = nn.Linear(parameters, parameters)
        init_glorot(linear)
        bound = (3 / parameters) ** 0.5
        nn.init.uniform_(linear.bias, -bound, bound)
        modules += [linear, nn.Tanh()]
    last = nn.Linear(parameters, parameters)
    nn.init.uniform_(last.weight, -1e-6, 1e-6)
    nn.init.uniform_(last.bias, -1e-6, 1e-6)
    return nn.Sequential(*modules, last)


def _draw(
    parameters: Float[Tensor, "n outputs"], generator: torch.Generator
) -> Float[Tensor, " n"]:
    """Return one draw from each mixture."""
    logits, mean, log_scale = parameters.chunk(3, dim=1)
    uniform = uniform_(torch.empty_like(logits), generator)
    # The Gumbel-max trick: the largest logit plus Gumbel noise is a draw of the component.
    chosen = (logits - uniform.log().neg().log()).argmax(1, keepdim=True)
    noise = normal_(torch.empty_like(mean[:, :1]), generator)
    scale = log_scale.gather(1, chosen).exp()
    return torch.addcmul(mean.gather(1, chosen), scale, noise).squeeze(1)
