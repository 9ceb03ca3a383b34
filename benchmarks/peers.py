"""The same models in other libraries: the peers that our training steps are compared with."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
import torchdiffeq
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.continuous.dynamics import ConcatSquash, DynamicsNetwork
from dgm_bench.models.continuous.ffjord import FFJORD
from dgm_bench.models.flows.flow import StandardNormal

# ------------------------------------------------------------------- autoregressive flows


def nflows_maf(dim: int, width: int, layers: int) -> nn.Module:
    """Return nflows' MAF with two hidden layers of ``width`` in each MADE."""
    flows = pytest.importorskip("nflows.flows.autoregressive")
    model: nn.Module = flows.MaskedAutoregressiveFlow(
        dim, width, num_layers=layers, num_blocks_per_layer=1, use_residual_blocks=False
    )
    return model


class ZukoMAF(nn.Module):
    """zuko's MAF with two hidden layers in each MADE.

    Args:
        dim: Number of dimensions.
        width: Width of the hidden layers.
        layers: Number of MADEs.
    """

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        flows = pytest.importorskip("zuko.flows")
        self.flow = flows.MAF(dim, transforms=layers, hidden_features=(width, width))

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        density: Tensor = self.flow().log_prob(x)
        return density


# -------------------------------------------------------- layer for layer like our models


class ZukoFlow(nn.Module):
    """A flow of zuko, as a model with ``log_prob``.

    Args:
        flow: The flow.
    """

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        density: Tensor = self.flow().log_prob(x)
        return density


def our_zuko_maf(dim: int, width: int, layers: int) -> nn.Module:
    """Return zuko's MAF with our affine map: its own has a bounded log-scale, not half of one."""
    flows = pytest.importorskip("zuko.flows")
    affine = pytest.importorskip("zuko.transforms").MonotonicAffineTransform

    def univariate(mean: Tensor, log_precision: Tensor) -> object:
        log_scale = 0.5 * log_precision
        return affine(-mean * log_scale.exp(), log_scale, slope=1e-30)  # next to no bound

    hidden = (width, width)
    return ZukoFlow(
        flows.MAF(dim, transforms=layers, hidden_features=hidden, univariate=univariate)
    )


def nflows_flow(dim: int, transforms: Sequence[nn.Module]) -> nn.Module:
    """Return the transforms, from data to noise, over nflows' standard normal."""
    flows = pytest.importorskip("nflows.flows")
    base = pytest.importorskip("nflows.distributions").StandardNormal([dim])
    composite = pytest.importorskip("nflows.transforms").CompositeTransform(transforms)
    model: nn.Module = flows.Flow(composite, base)
    return model


def our_nflows_maf(dim: int, width: int, layers: int) -> nn.Module:
    """Return nflows' MADEs with our affine map and in our order, the natural one first."""
    transforms = pytest.importorskip("nflows.transforms")

    class Affine(transforms.MaskedAffineAutoregressiveTransform):  # type: ignore[name-defined, misc]
        def _elementwise_forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            log_precision, mean = self._unconstrained_scale_and_shift(outputs)
            half = 0.5 * log_precision
            return (x - mean) * half.exp(), half.sum(1)

    modules: list[nn.Module] = [Affine(dim, width, num_blocks=1, use_residual_blocks=False)]
    for _ in range(layers - 1):
        modules.append(transforms.ReversePermutation(dim))
        modules.append(Affine(dim, width, num_blocks=1, use_residual_blocks=False))
    return nflows_flow(dim, modules)


def nflows_realnvp(dim: int, width: int, layers: int, *, ours: bool) -> nn.Module:
    """Return nflows' affine couplings with our masks and conditioners of the size of ours.

    nflows' own scale, ``sigmoid(a + 2) + 0.001``, cannot expand.

    Args:
        dim: Number of dimensions.
        width: Width of both hidden layers.
        layers: Number of couplings.
        ours: Have our affine map, or else the scale of nflows' MADEs, ``softplus(a) + 0.001``.
    """
    coupling = pytest.importorskip("nflows.transforms.coupling")

    class Affine(coupling.AffineCouplingTransform):  # type: ignore[name-defined, misc]
        def _scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
            shift, unconstrained = outputs.chunk(2, dim=1)
            if not ours:
                return F.softplus(unconstrained) + 1e-3, shift
            scale = (-unconstrained).exp()
            return scale, -shift * scale

    def network(inputs: int, outputs: int) -> nn.Module:
        return TwoNetworks(inputs, outputs // 2, width)

    moved = [torch.arange(dim) % 2 == i % 2 for i in range(layers)]
    return nflows_flow(dim, [Affine(mask.int(), network) for mask in moved])


class TwoNetworks(nn.Module):
    """Our Real NVP's conditioner: a relu network for the shift, a tanh one for the log-scale.

    Args:
        inputs: Number of kept dimensions.
        outputs: Number of moved dimensions.
        width: Width of the two hidden layers of each.
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        mlp = pytest.importorskip("nflows.nn.nets").MLP
        self.shift = mlp([inputs], [outputs], [width, width], F.relu)
        self.scale = mlp([inputs], [outputs], [width, width], torch.tanh)

    def forward(
        self, kept: Float[Tensor, "batch inputs"], context: None = None
    ) -> Float[Tensor, "batch twice"]:
        """Return shifts, then numbers that become scales."""
        return torch.cat([self.shift(kept), self.scale(kept)], dim=1)


class Splines(NamedTuple):
    """Size of a neural spline flow.

    Attributes:
        layers: Number of permutation, linear layer and spline; one more linear layer comes last.
        hidden: Width of the conditioners.
        blocks: Residual blocks in each conditioner.
        bins: Bins of each spline.
        tail: Where splines end and the identity begins.
    """

    layers: int
    hidden: int
    blocks: int
    bins: int
    tail: float


def nflows_nsf(dim: int, size: Splines, *, coupling: bool) -> nn.Module:
    """Return nflows' neural spline flow, put together as the NSF paper has it (section 5)."""
    transforms = pytest.importorskip("nflows.transforms")
    nets = pytest.importorskip("nflows.nn.nets")
    spline = {"num_bins": size.bins, "tails": "linear", "tail_bound": size.tail}

    def network(inputs: int, outputs: int) -> nn.Module:
        net: nn.Module = nets.ResidualNet(inputs, outputs, size.hidden, num_blocks=size.blocks)
        return net

    def layer(i: int) -> nn.Module:
        if coupling:
            mask, kind = torch.arange(dim) % 2 == i % 2, "PiecewiseRationalQuadraticCoupling"
            made = getattr(transforms, f"{kind}Transform")(
                mask.int(), network, apply_unconditional_transform=True, **spline
            )
        else:
            kind = "MaskedPiecewiseRationalQuadraticAutoregressive"
            made = getattr(transforms, f"{kind}Transform")(
                dim, size.hidden, num_blocks=size.blocks, **spline
            )
        return cast(nn.Module, made)

    def linear() -> list[nn.Module]:
        return [transforms.RandomPermutation(dim), transforms.LULinear(dim, identity_init=True)]

    modules = [module for i in range(size.layers) for module in (*linear(), layer(i))]
    return nflows_flow(dim, [*modules, *linear()])


def zuko_nsf(dim: int, size: Splines) -> nn.Module:
    """Return zuko's autoregressive splines with linear layers between, as ours have.

    Its conditioners have as many layers, without the connections that skip some.
    """
    zuko = pytest.importorskip("zuko")
    spline = partial(zuko.transforms.MonotonicRQSTransform, bound=size.tail)
    lazy, made = zuko.lazy.UnconditionalTransform, zuko.flows.MaskedAutoregressiveTransform

    def linear() -> list[nn.Module]:
        permutation = lazy(zuko.transforms.PermutationTransform, torch.randperm(dim), buffer=True)
        return [permutation, lazy(zuko.transforms.LULinearTransform, torch.eye(dim))]

    def layer() -> nn.Module:
        shapes = [(size.bins,), (size.bins,), (size.bins - 1,)]
        hidden = (size.hidden,) * (1 + 2 * size.blocks)
        module: nn.Module = made(dim, univariate=spline, shapes=shapes, hidden_features=hidden)
        return module

    modules = [module for _ in range(size.layers) for module in (*linear(), layer())]
    normal, zero = zuko.distributions.DiagNormal, torch.zeros(dim)
    base = zuko.lazy.UnconditionalDistribution(normal, zero, torch.ones(dim), buffer=True)
    return ZukoFlow(zuko.lazy.Flow([*modules, *linear()], base))


class ZukoCNF(ZukoFlow):
    """zuko's continuous flow: the estimated trace in training, the exact one for ``log_prob``.

    Args:
        dim: Number of dimensions.
        hidden: Widths of the hidden layers; their nonlinearity is tanh.
        tolerance: Relative and absolute, in training; zuko's own for ``log_prob``.
    """

    def __init__(self, dim: int, hidden: Sequence[int], tolerance: float) -> None:
        flows = pytest.importorskip("zuko.flows")
        super().__init__(flows.CNF(dim, hidden_features=hidden, activation=nn.Tanh))
        self.tolerance = tolerance

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        self._solve_with(exact=True, atol=1e-6, rtol=1e-5)
        return super().log_prob(x)

    def log_prob_estimate(
        self, x: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density; its noise is the global generator's."""
        self._solve_with(exact=False, atol=self.tolerance, rtol=self.tolerance)
        return super().log_prob(x)

    def _solve_with(self, **settings: float) -> None:
        vars(cast(Any, self.flow).transform).update(settings)


# ----------------------------------------------------------------------- continuous flows


class PlainDynamics(nn.Module):
    """The usual right-hand side: layer after layer, and ``e^T J e`` by reverse-mode autograd.

    This is how the released FFJORD code (``lib/layers/odefunc.py``) and torchdiffeq's example of a
    continuous flow have it. Its weights are a copy of ours.

    Args:
        network: Our dynamics.
    """

    noise: Tensor

    def __init__(self, network: DynamicsNetwork) -> None:
        super().__init__()
        self.layers = copy.deepcopy(network.layers)
        self.activation = {"tanh": torch.tanh, "softplus": F.softplus}[network.activation]
        self.evaluations = 0

    def value(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dz/dt``."""
        self.evaluations += 1
        time = t.view(1)
        for i, layer in enumerate(cast(tuple[ConcatSquash, ...], tuple(self.layers))):
            z = self.activation(z) if i else z
            z = layer.linear(z) * layer.gate(time).sigmoid() + layer.drift(time)
        return z

    def forward(self, t: Float[Tensor, ""], state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the derivatives of the position and of the log-determinant."""
        z, _ = state
        with torch.enable_grad():
            z.requires_grad_(True)
            value = self.value(t, z)
            (product,) = torch.autograd.grad(value, z, self.noise, create_graph=True)
        return value, (product * self.noise).sum(1)


class PeerContinuousFlow(nn.Module):
    """One continuous flow over a standard normal, but for its solver.

    Args:
        ours: The model whose dynamics to copy.
    """

    def __init__(self, ours: FFJORD) -> None:
        super().__init__()
        (flow,) = ours.flows
        self.dynamics = PlainDynamics(flow.network)
        self.base = StandardNormal(math.prod(ours.event_shape))

    @property
    def function_evaluations(self) -> int:
        """Evaluations of the dynamics so far, forward and adjoint."""
        return self.dynamics.evaluations

    @function_evaluations.setter
    def function_evaluations(self, count: int) -> None:
        self.dynamics.evaluations = count


class PlainFFJORD(PeerContinuousFlow):
    """The plain formulation: torchdiffeq's ``odeint_adjoint`` over :class:`PlainDynamics`.

    Args:
        ours: The model whose dynamics and solver settings to copy.
    """

    span: Tensor

    def __init__(self, ours: FFJORD) -> None:
        super().__init__(ours)
        self.solver = copy.copy(ours.solver)
        self.register_buffer("span", torch.tensor([0.0, 1.0]), persistent=False)

    def log_prob_estimate(
        self, x: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density."""
        self.dynamics.noise = torch.empty_like(x).normal_(generator=generator)
        solver = self.solver
        z, log_det = torchdiffeq.odeint_adjoint(
            self.dynamics,
            (x, x.new_zeros(len(x))),
            self.span,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.solver,
            options={"step_size": solver.step_size} if solver.solver == "rk4" else None,
        )
        density: Tensor = self.base.log_prob(z[-1]) + log_det[-1]
        return density


class ZukoFFJORD(PeerContinuousFlow):
    """zuko's free-form transform with our dynamics, as its ``CNF`` has with a network of its own.

    Its solver is a Dormand-Prince method that judges the largest error of the whole batch; its
    gradient goes back over the accepted steps without judging errors again.

    Args:
        ours: The model whose dynamics to copy.
        tolerance: Relative and absolute.
    """

    def __init__(self, ours: FFJORD, tolerance: float) -> None:
        super().__init__(ours)
        self.transforms = pytest.importorskip("zuko.transforms")
        self.tolerance = tolerance

    def log_prob_estimate(
        self, x: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density."""
        # zuko draws from the global generator; the same seed gives the same noise there.
        torch.manual_seed(generator.initial_seed())
        transform = self.transforms.FreeFormJacobianTransform(
            self.dynamics.value,
            phi=tuple(self.dynamics.parameters()),
            atol=self.tolerance,
            rtol=self.tolerance,
            exact=False,
        )
        z, log_det = transform.call_and_ladj(x)
        density: Tensor = self.base.log_prob(z) + log_det
        return density
