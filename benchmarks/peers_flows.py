"""Couplings, splines and sigmoidal flows in other libraries, with the weights of our models."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from peers import ZukoFlow, nflows_flow
from torch import Tensor, nn

from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.flows.layers.linear import LULinear, Permutation
from dgm_bench.models.flows.layers.sigmoid_mixture import DELTA
from dgm_bench.models.flows.naf import MAFDDSF, ONE, DenseSigmoidalFlow, ScaledLinear, SigmoidalMADE
from dgm_bench.models.flows.nsf import SplineCoupling, SplineMADE
from dgm_bench.models.flows.realnvp import AffineCoupling, RealNVP


def required(module: str) -> ModuleType:
    """Return a module of a peer, or skip the case and say which package it lacks."""
    package = module.partition(".")[0]
    found: ModuleType = pytest.importorskip(
        module, reason=f"needs {package}: pip install dgm-bench[dev,peers]"
    )
    return found


def normflows_flow(dim: int, layers: Sequence[nn.Module]) -> nn.Module:
    """Return layers, from data to noise, over normflows' standard normal.

    There a layer's ``inverse`` goes from data to noise, and the last one of the list comes first.
    """
    normflows = required("normflows")
    base = normflows.distributions.DiagGaussian(dim, trainable=False)
    model: nn.Module = normflows.NormalizingFlow(base, list(reversed(layers)))
    return model


# ------------------------------------------------------------------------------- couplings


class Conditioner(nn.Module):
    """A copy of the two networks of one of our couplings, side by side.

    Args:
        layer: Our coupling.
        change: Makes outputs of shifts and log-scales.
    """

    def __init__(self, layer: AffineCoupling, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.shift, self.log_scale = copy.deepcopy(layer.shift), copy.deepcopy(layer.log_scale)
        self.change = change

    def forward(self, kept: Float[Tensor, "batch k"], context: None = None) -> Tensor:
        """Return what the library's coupling asks for."""
        return self.change(self.shift(kept), self.log_scale(kept))


def nflows_realnvp(model: RealNVP) -> nn.Module:
    """Return nflows' couplings with our affine map: its own scale cannot expand."""
    coupling = required("nflows.transforms.coupling")
    normalization = required("nflows.transforms.normalization")
    (dim,) = model.event_shape

    class Affine(coupling.AffineCouplingTransform):  # type: ignore[name-defined, misc]
        def _scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
            shift, log_scale = outputs.chunk(2, dim=1)
            scale = (-log_scale).exp()
            return scale, -shift * scale

    def peer(layer: nn.Module) -> nn.Module:
        if isinstance(layer, FlowBatchNorm):
            return cast(nn.Module, normalization.BatchNorm(dim, eps=layer.eps))
        assert isinstance(layer, AffineCoupling)
        mask = torch.zeros(dim)
        mask[layer.transformed] = 1
        side_by_side = Conditioner(layer, lambda shift, log_scale: torch.cat([shift, log_scale], 1))
        return cast(nn.Module, Affine(mask, lambda inputs, outputs: side_by_side))

    return nflows_flow(dim, [peer(layer) for layer in model.layers])


def normflows_realnvp(model: RealNVP) -> nn.Module:
    """Return normflows' couplings of halves: data comes with what the first keeps in front."""
    flows = required("normflows.flows")

    def interleaved(shift: Tensor, log_scale: Tensor) -> Tensor:
        return torch.stack([shift, log_scale], dim=2).flatten(1)

    modes = ["channel" if i % 2 else "channel_inv" for i in range(len(model.layers))]
    blocks = [
        flows.AffineCouplingBlock(Conditioner(layer, interleaved), split_mode=mode)
        for layer, mode in zip(cast(Iterable[AffineCoupling], model.layers), modes, strict=True)
    ]
    return Halves(normflows_flow(model.event_shape[0], blocks))


class Halves(nn.Module):
    """A flow of even dimensions followed by odd ones.

    Args:
        flow: Has ``log_prob``.
    """

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        density: Tensor = cast(Any, self.flow).log_prob(torch.cat([x[:, ::2], x[:, 1::2]], dim=1))
        return density


def zuko_realnvp(model: RealNVP) -> nn.Module:
    """Return zuko's couplings with our affine map: its own has a bounded log-scale."""
    coupling, lazy = required("zuko.flows.coupling"), required("zuko.lazy")
    (dim,) = model.event_shape

    def univariate(shift: Tensor, log_scale: Tensor) -> object:
        scale = (-log_scale).exp()
        return torch.distributions.AffineTransform(-shift * scale, scale)

    def interleaved(shift: Tensor, log_scale: Tensor) -> Tensor:
        return torch.stack([shift, log_scale], dim=2).flatten(1)

    def peer(layer: AffineCoupling) -> nn.Module:
        mask = torch.zeros(dim, dtype=torch.bool)
        mask[layer.kept] = True
        transform: Any = coupling.GeneralCouplingTransform(dim, mask=mask, univariate=univariate)
        transform.hyper = Conditioner(layer, interleaved)
        return cast(nn.Module, transform)

    layers = [peer(layer) for layer in cast(Iterable[AffineCoupling], model.layers)]
    return ZukoFlow(lazy.Flow(layers, zuko_normal(dim)))


def zuko_normal(dim: int) -> object:
    """Return zuko's standard normal."""
    lazy, distributions = required("zuko.lazy"), required("zuko.distributions")
    zero = torch.zeros(dim)
    return lazy.UnconditionalDistribution(
        distributions.DiagNormal, zero, torch.ones(dim), buffer=True
    )


# --------------------------------------------------------------------------------- splines


def copy_residual(ours: Sequence[nn.Module], peer: Any, shape: tuple[int, ...]) -> None:  # noqa: ANN401
    """Copy a residual network into nflows' or normflows', which have the same names.

    Args:
        ours: Our linear layers in order.
        peer: The network.
        shape: Of our outputs, dimensions last where a masked network puts them side by side.
    """
    theirs = [peer.initial_layer]
    theirs += [linear for block in peer.blocks for linear in block.linear_layers]
    *inner, last = cast(list[nn.Linear], list(ours))
    with torch.no_grad():
        for one, other in zip(inner, theirs, strict=True):
            other.weight.copy_(one.weight)
            other.bias.copy_(one.bias)
        order = torch.arange(len(last.bias)).view(shape).T.flatten()
        peer.final_layer.weight.copy_(last.weight[order])
        peer.final_layer.bias.copy_(last.bias[order])


def copy_coupling(ours: SplineCoupling, peer: Any) -> nn.Module:  # noqa: ANN401
    """Return the peer's spline coupling with our weights."""
    network, outputs = ours.network, ours.outputs * ours.curve_parameters
    copy_residual([network.first, *network.inner, network.last], peer.transform_net, (1, outputs))
    own = peer.unconditional_transform
    parts = ours.own.detach().split([ours.bins, ours.bins, ours.bins - 1], dim=1)
    names = ("unnormalized_widths", "unnormalized_heights", "unnormalized_derivatives")
    for name, part in zip(names, parts, strict=True):
        getattr(own, name).data.copy_(part)
    return cast(nn.Module, peer)


def copy_made(ours: SplineMADE, peer: Any) -> nn.Module:  # noqa: ANN401
    """Return the peer's autoregressive splines with our weights."""
    copy_residual(list(ours.network.layers), peer.autoregressive_net, (ours.curve_parameters, -1))
    return cast(nn.Module, peer)


def copy_lu(ours: LULinear, peer: Any) -> nn.Module:  # noqa: ANN401
    """Return the peer's LU layer with our weights."""
    with torch.no_grad():
        peer.lower_entries.copy_(ours.factors[tuple(peer.lower_indices)])
        peer.upper_entries.copy_(ours.factors[tuple(peer.upper_indices)])
        peer.unconstrained_upper_diag.copy_(ours.factors.diagonal())
        peer.bias.copy_(ours.bias)
    return cast(nn.Module, peer)


def hidden_size(layer: SplineCoupling | SplineMADE) -> tuple[int, int]:
    """Return the width of a conditioner and the number of its residual blocks."""
    if isinstance(layer, SplineCoupling):
        return layer.network.first.out_features, len(layer.network.inner) // 2
    linears = cast(Sequence[nn.Linear], list(layer.network.layers))
    return linears[0].out_features, len(linears) // 2 - 1


def nflows_spline(layer: SplineCoupling | SplineMADE, dim: int) -> nn.Module:
    """Return the layer in nflows."""
    transforms, nets = required("nflows.transforms"), required("nflows.nn.nets")
    (hidden, blocks), kind = hidden_size(layer), "PiecewiseRationalQuadratic"
    spline = {"num_bins": layer.bins, "tails": "linear", "tail_bound": layer.tail}
    if isinstance(layer, SplineMADE):
        made = getattr(transforms, f"Masked{kind}AutoregressiveTransform")
        return copy_made(layer, made(dim, hidden, num_blocks=blocks, **spline))
    mask = torch.zeros(dim)
    mask[layer.transformed] = 1
    network = partial(nets.ResidualNet, hidden_features=hidden, num_blocks=blocks)
    make = getattr(transforms, f"{kind}CouplingTransform")
    peer = make(mask, lambda i, o: network(i, o), apply_unconditional_transform=True, **spline)
    return copy_coupling(layer, peer)


def normflows_spline(layer: SplineCoupling | SplineMADE, dim: int) -> nn.Module:
    """Return the layer in normflows."""
    flows, (hidden, blocks) = required("normflows.flows"), hidden_size(layer)
    spline = {"num_bins": layer.bins, "tail_bound": layer.tail}
    if isinstance(layer, SplineMADE):
        wrapper = flows.AutoregressiveRationalQuadraticSpline(dim, blocks, hidden, **spline)
        copy_made(layer, wrapper.mprqat)
    else:
        odd = layer.kept.start == 1
        wrapper = flows.CoupledRationalQuadraticSpline(
            dim, blocks, hidden, reverse_mask=odd, **spline
        )
        copy_coupling(layer, wrapper.prqct)
    return cast(nn.Module, wrapper)


def nflows_nsf(model: Any) -> nn.Module:  # noqa: ANN401
    """Return our neural spline flow in nflows."""
    transforms = required("nflows.transforms")
    permutation = required("nflows.transforms.permutations").Permutation
    (dim,) = model.event_shape

    def peer(layer: nn.Module) -> nn.Module:
        if isinstance(layer, Permutation):
            return cast(nn.Module, permutation(layer.order))
        if isinstance(layer, LULinear):
            return copy_lu(layer, transforms.LULinear(dim))
        return nflows_spline(cast(SplineCoupling, layer), dim)

    return nflows_flow(dim, [peer(layer) for layer in model.layers])


def normflows_nsf(model: Any) -> nn.Module:  # noqa: ANN401
    """Return our neural spline flow in normflows."""
    flows = required("normflows.flows")
    (dim,) = model.event_shape
    layers: list[nn.Module] = []
    for layer in model.layers:
        if isinstance(layer, Permutation):
            layers.append(flows.LULinearPermute(dim))
            layers[-1].permutation._permutation.copy_(layer.order)
        elif isinstance(layer, LULinear):
            copy_lu(layer, layers[-1].linear)
        else:
            layers.append(normflows_spline(layer, dim))
    return normflows_flow(dim, layers)


# ------------------------------------------------------------------------ sigmoidal flows


class PlainSigmoidalFlow(nn.Module):
    """One layer of a sigmoidal flow as the NAF paper has it (equations 8 to 10), step by step.

    No package has MAF-DDSF: zuko's NAF has other monotone networks. This is a reader's way with the
    formulas: sigmoids and softmax for the value, and a log-sum-exp of the logarithms of all factors
    for the slope. Clipping is that of the released code.

    Args:
        flow: Ours, of one layer.
    """

    def __init__(self, flow: DenseSigmoidalFlow) -> None:
        super().__init__()
        assert len(flow.w) == 1
        self.head, self.w = copy.deepcopy(flow.head), copy.deepcopy(flow.w)

    def forward(
        self, features: Float[Tensor, "batch dim features"], x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Return the values and the logarithms of the slopes."""
        a, b, w = self.head(features).chunk(3, dim=-1)
        a, logits = F.softplus(a + ONE) + DELTA, self.w[0][0] + w
        z = a * x[..., None] + b
        mixture = (torch.softmax(logits, -1) * torch.sigmoid(z)).sum(-1)
        clipped = mixture * (1 - DELTA) + 0.5 * DELTA
        logs = F.log_softmax(logits, -1) + F.logsigmoid(z) + F.logsigmoid(-z) + a.log()
        log_slope = torch.logsumexp(logs, -1) + math.log(1 - DELTA)
        log_x, log_rest = clipped.log(), (1 - clipped).log()
        return log_x - log_rest, log_slope - log_x - log_rest


class PlainScaledLinear(nn.Module):
    """A masked layer with normalised or free rows and a factor for each.

    Args:
        layer: Ours.
    """

    mask: Tensor

    def __init__(self, layer: ScaledLinear) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = (
            nn.Parameter(p.detach().clone()) for p in (layer.weight, layer.bias, layer.scale)
        )
        self.register_buffer("mask", layer.mask.clone())
        self.normalised = layer.normalised

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs."""
        weight = F.normalize(self.weight, dim=1) if self.normalised else self.weight
        return F.linear(x, self.scale[:, None] * weight * self.mask, self.bias)


def plain_network(made: SigmoidalMADE) -> nn.Sequential:
    """Return a copy of the conditioner."""
    return nn.Sequential(
        *(PlainScaledLinear(m) if isinstance(m, ScaledLinear) else m for m in made.network)
    )


class PlainMAFDDSF(nn.Module):
    """MAF-DDSF of :class:`PlainSigmoidalFlow`, with copies of the conditioners.

    Args:
        model: Ours.
    """

    def __init__(self, model: MAFDDSF) -> None:
        super().__init__()
        *mades, affine = model.layers
        self.networks = nn.ModuleList(plain_network(cast(SigmoidalMADE, m)) for m in mades)
        self.flows = nn.ModuleList(PlainSigmoidalFlow(cast(SigmoidalMADE, m).flow) for m in mades)
        self.affine, self.base = copy.deepcopy(affine), copy.deepcopy(model.base)

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        total = x.new_zeros(len(x))
        for network, flow in zip(self.networks, self.flows, strict=True):
            features = network(x).view(len(x), -1, x.shape[1]).transpose(1, 2)
            x, log_slopes = flow(features, x)
            total = total + log_slopes.sum(1)
        x, log_det = cast(Any, self.affine).forward_and_log_det(x)
        density: Tensor = cast(Any, self.base).log_prob(x) + total + log_det
        return density


def zuko_naf(model: MAFDDSF) -> nn.Module:
    """Return zuko's NAF with as many signals and units: another monotone network."""
    flows, (dim,) = required("zuko.flows"), model.event_shape
    made = cast(SigmoidalMADE, model.layers[0])
    width = cast(nn.Linear, made.network[0]).out_features
    units = made.flow.w[0].shape[1]
    return ZukoFlow(
        flows.NAF(
            dim,
            signal=made.features,
            transforms=len(model.layers) - 1,
            hidden_features=(width,),
            network={"hidden_features": (units,)},
        )
    )
