"""Splines, their flows, LU layers and tabular Glow: equal weights, equal numbers in peers."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from dgm_bench.models.flows.glow import ScaleShiftCoupling
from dgm_bench.models.flows.layers.linear import FullLinear, LULinear, Permutation
from dgm_bench.models.flows.layers.splines import MIN_BIN_SIZE, MIN_DERIVATIVE, Spline
from dgm_bench.models.flows.nsf import NSFAutoregressive, NSFCoupling, SplineCoupling, SplineMADE

DIM, HIDDEN, BLOCKS, BINS, TAIL = 5, 16, 2, 4, 3.0


def agree(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def shaken(module):
    """The module with weights away from where they start."""
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval()


def copy_linear(ours, theirs):
    theirs.weight.data.copy_(ours.weight)
    theirs.bias.data.copy_(ours.bias)


# ------------------------------------------------------------------------------- nflows


def nflows_permutation(layer):
    permutations = pytest.importorskip("nflows.transforms.permutations")
    return permutations.Permutation(layer.order)


def nflows_lu(layer):
    peer = pytest.importorskip("nflows.transforms.lu").LULinear(DIM)
    with torch.no_grad():
        peer.lower_entries.copy_(layer.factors[peer.lower_indices[0], peer.lower_indices[1]])
        peer.upper_entries.copy_(layer.factors[peer.upper_indices[0], peer.upper_indices[1]])
        peer.unconstrained_upper_diag.copy_(layer.factors.diagonal())
        peer.bias.copy_(layer.bias)
    return peer


def copy_residual(ours, peer):
    """Copy a plain residual network."""
    copy_linear(ours.first, peer.initial_layer)
    theirs = [linear for block in peer.blocks for linear in block.linear_layers]
    for one, other in zip(ours.inner, theirs, strict=True):
        copy_linear(one, other)
    copy_linear(ours.last, peer.final_layer)


def nflows_coupling(layer):
    coupling = pytest.importorskip("nflows.transforms.coupling")
    resnet = pytest.importorskip("nflows.nn.nets.resnet")
    mask = torch.zeros(DIM)
    mask[layer.transformed] = 1
    peer = coupling.PiecewiseRationalQuadraticCouplingTransform(
        mask,
        lambda inputs, outputs: resnet.ResidualNet(inputs, outputs, HIDDEN, num_blocks=BLOCKS),
        num_bins=BINS,
        tails="linear",
        tail_bound=TAIL,
        apply_unconditional_transform=True,
    )
    copy_residual(layer.network, peer.transform_net)
    widths, heights, slopes = layer.own.split([BINS, BINS, BINS - 1], dim=1)
    own = peer.unconditional_transform
    own.unnormalized_widths.data = widths.detach()
    own.unnormalized_heights.data = heights.detach()
    own.unnormalized_derivatives.data = slopes.detach()
    return peer.eval()


def nflows_made(layer):
    autoregressive = pytest.importorskip("nflows.transforms.autoregressive")
    peer = autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        DIM, HIDDEN, num_bins=BINS, tails="linear", tail_bound=TAIL, num_blocks=BLOCKS
    )
    network = peer.autoregressive_net
    theirs = [network.initial_layer]
    theirs += [linear for block in network.blocks for linear in block.linear_layers]
    *inner, last = layer.network.layers
    for one, other in zip(inner, theirs, strict=True):
        assert torch.equal(one.mask, other.mask)
        copy_linear(one, other)
    # nflows puts the outputs of one dimension side by side.
    weight = last.weight.view(-1, DIM, HIDDEN).transpose(0, 1).flatten(0, 1)
    network.final_layer.weight.data.copy_(weight)
    network.final_layer.bias.data.copy_(last.bias.view(-1, DIM).T.flatten())
    return peer.eval()


PEERS = {
    Permutation: nflows_permutation,
    LULinear: nflows_lu,
    SplineCoupling: nflows_coupling,
    SplineMADE: nflows_made,
}


@pytest.mark.parametrize("kind", [NSFCoupling, NSFAutoregressive])
def test_neural_spline_flow(kind):
    flows = pytest.importorskip("nflows.flows")
    transforms = pytest.importorskip("nflows.transforms")
    model = shaken(kind((DIM,), layers=3, hidden=HIDDEN, blocks=BLOCKS, bins=BINS, tail=TAIL))
    base = pytest.importorskip("nflows.distributions").StandardNormal([DIM])
    base._log_z = base._log_z.double()
    peers = [PEERS[type(layer)](layer) for layer in model.layers]
    peer = flows.Flow(transforms.CompositeTransform(peers), base)
    ours, theirs = (sum(p.numel() for p in m.parameters()) for m in (model, peer))
    assert ours == theirs
    x = 2 * torch.randn(50, DIM)
    agree(model.log_prob(x), peer.log_prob(x))
    u, _ = model.forward_and_log_det(x)
    with torch.no_grad():
        agree(model.inverse(u), peer._transform.inverse(u)[0])


def test_tabular_glow():
    """A coupling with tanh and ReLU networks, behind a matrix without structure."""
    coupling = pytest.importorskip("nflows.transforms.coupling")
    linear = pytest.importorskip("nflows.transforms.linear")
    ours, matrix = ScaleShiftCoupling(DIM, [8, 8], keep_even=False), shaken(FullLinear(DIM))
    ours.log_scale[-1].bias.data -= 0.5

    class Both(nn.Module):
        """nflows has one network for shift and scale; it bounds the scale by a sigmoid."""

        def forward(self, kept, context=None):
            scale = ours.log_scale(kept).exp() - 1e-3
            return torch.cat([ours.shift(kept), torch.logit(scale) - 2], dim=1)

    mask = torch.zeros(DIM)
    mask[ours.transformed] = 1
    peer = coupling.AffineCouplingTransform(mask, lambda inputs, outputs: Both())
    naive = linear.NaiveLinear(DIM, orthogonal_initialization=False)
    naive._weight.data.copy_(matrix.weight)
    x = 0.3 * torch.randn(40, DIM)
    with torch.no_grad():
        h, first = matrix.forward_and_log_det(x)
        u, second = ours.forward_and_log_det(h)
        middle, theirs = naive(x)
        agree(h, middle)
        agree(first, theirs)
        # Where a scale is above 1, nflows' bound does not reach it.
        reached = (ours.log_scale(h[:, ours.kept]) < 0).all(1)
        assert reached.sum() > 3
        v, change = peer(h[reached])
        agree(u[reached], v)
        agree(second[reached], change)


# ------------------------------------------------------------------------------- zuko

SLOPE = 1e-3
LIMIT = -math.log(SLOPE)


def raw_in_zuko(spline):
    """The raw numbers that give zuko's spline our knots and slopes, which it squashes first."""

    def sizes(knots):
        logs = (knots.diff(dim=-1) / (2 * TAIL)).log()
        logs = logs - logs.mean(-1, keepdim=True)
        return logs / (1 - 2 * logs.abs() / LIMIT)

    slopes = spline.derivatives[..., 1:-1].log()
    return sizes(spline.x), sizes(spline.y), slopes / (1 - slopes.abs() / LIMIT)


def test_spline_in_zuko():
    transforms = pytest.importorskip("zuko.transforms")
    ours = Spline(torch.randn(30, 3 * BINS - 1), BINS, TAIL)
    peer = transforms.MonotonicRQSTransform(*raw_in_zuko(ours), bound=TAIL, slope=SLOPE)
    x = 2 * torch.randn(30)
    value, log_slope = ours.forward(x)
    agree(peer.horizontal, ours.x)
    agree(peer.vertical, ours.y)
    agree(value, peer(x))
    agree(log_slope, peer.log_abs_det_jacobian(x, peer(x)))
    agree(ours.inverse(value), peer.inv(value))
    assert MIN_BIN_SIZE == MIN_DERIVATIVE == SLOPE


class RawNumbers(nn.Module):
    """Our network; its outputs become the raw numbers of zuko's splines."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, x):
        raw = (
            self.made.network(x).unflatten(-1, (self.made.curve_parameters, DIM)).transpose(-1, -2)
        )
        return torch.cat(raw_in_zuko(Spline(raw, BINS, TAIL)), dim=-1).flatten(-2)


def test_autoregressive_spline_flow_in_zuko():
    """Splines, autoregression and density are zuko's; weights and linear layers ours."""
    zuko = pytest.importorskip("zuko")
    model = shaken(NSFAutoregressive((DIM,), layers=1, hidden=HIDDEN, blocks=BLOCKS, bins=BINS))
    *before, made, permutation, last = model.layers
    layer = zuko.flows.MaskedAutoregressiveTransform(
        DIM,
        univariate=partial(zuko.transforms.MonotonicRQSTransform, bound=TAIL, slope=SLOPE),
        shapes=[(BINS,), (BINS,), (BINS - 1,)],
    )
    layer.hyper = RawNumbers(made)
    x = torch.randn(40, DIM)
    log_prob = 0.0
    with torch.no_grad():
        h = x
        for linear in before:
            h, change = linear.forward_and_log_det(h)
            log_prob = log_prob + change
        transform = layer()
        u = transform(h)
        log_prob = log_prob + transform.log_abs_det_jacobian(h, u)
        agree(made.inverse(u), transform.inv(u))
        for linear in (permutation, last):
            u, change = linear.forward_and_log_det(u)
            log_prob = log_prob + change
        base = zuko.distributions.DiagNormal(torch.zeros(DIM), torch.ones(DIM))
        agree(model.log_prob(x), log_prob + base.log_prob(u))
