"""NICE, TAN's linear map and planar flows in other people's libraries, with the same weights."""

import pytest
import torch
from torch import nn

from dgm_bench.models.continuous.planar_cnf import PlanarCNF
from dgm_bench.models.flows.nice import NICE, AdditiveCoupling
from dgm_bench.models.flows.tan import LinearMap

DIM = 5


def agree(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def shaken(module):
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


class Ours(nn.Module):
    """Our coupling's network, called as nflows and zuko call theirs."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, kept, context=None):
        return self.layer.network(kept)


def nflows_coupling(layer):
    transforms = pytest.importorskip("nflows.transforms")
    mask = torch.zeros(DIM)
    mask[layer.transformed] = 1
    return transforms.AdditiveCouplingTransform(mask, lambda i, o: Ours(layer))


def nflows_nice(model):
    transforms = pytest.importorskip("nflows.transforms")
    scale = model.layers[-1].log_scale.detach().exp()
    scaling = transforms.PointwiseAffineTransform(shift=torch.zeros(DIM), scale=scale)
    parts = [nflows_coupling(m) for m in model.layers if isinstance(m, AdditiveCoupling)]
    return transforms.CompositeTransform([*parts, scaling])


def test_nflows_nice():
    model, x = shaken(NICE((DIM,), layers=4, hidden=[16, 16])), torch.randn(20, DIM)
    base = pytest.importorskip("nflows.distributions").StandardNormal([DIM])
    base._log_z = base._log_z.double()
    peer = nflows_nice(model)
    theirs = pytest.importorskip("nflows.flows").Flow(peer, base)
    agree(model.log_prob(x), theirs.log_prob(x))
    agree(model.inverse(x), peer.inverse(x)[0])


def test_zuko_additive_coupling():
    coupling = pytest.importorskip("zuko.flows.coupling")
    transforms = pytest.importorskip("zuko.transforms")
    layer, x = AdditiveCoupling(DIM, [16], keep_even=True), torch.randn(20, DIM)
    mask = torch.zeros(DIM, dtype=torch.bool)
    mask[layer.kept] = True
    peer = coupling.GeneralCouplingTransform(
        DIM, mask=mask, univariate=lambda shift: transforms.AdditiveTransform(shift.squeeze(-1)),
        shapes=[(1,)],
    )  # fmt: skip
    peer.hyper = Ours(layer)
    theirs, log_det = peer().call_and_ladj(x)
    ours, change = layer.forward_and_log_det(x)
    agree(ours, theirs)
    agree(change, log_det)


def test_nflows_linear():
    """Theirs takes any matrix and multiplies columns by it."""
    transforms = pytest.importorskip("nflows.transforms")
    layer, x = shaken(LinearMap(DIM)), torch.randn(20, DIM)
    matrix = (layer.factors.tril(-1) + torch.eye(DIM)) @ layer.factors.triu()
    peer = transforms.NaiveLinear(DIM, orthogonal_initialization=False)
    peer._weight.data, peer.bias.data = matrix.T.detach(), layer.bias.detach()
    theirs, log_det = peer(x)
    ours, change = layer.forward_and_log_det(x)
    agree(ours, theirs)
    agree(change, log_det)


def test_zuko_planar_continuous_flow():
    """Zuko has its own solver and takes the trace by autograd."""
    free_form = pytest.importorskip("zuko.transforms").FreeFormJacobianTransform
    model, x = PlanarCNF((DIM,), width=7, rtol=1e-8, atol=1e-8), torch.randn(10, DIM)
    network = model.layers[0].network

    def derivative(t, z):
        gates = network.gate(t.view(1))
        parts = zip(gates, network.inward.weight, network.inward.bias, network.outward.weight.T,
                    strict=True)  # fmt: skip
        return sum(g * torch.tanh(z @ w + b)[..., None] * u for g, w, b, u in parts)

    z, log_det = free_form(derivative, atol=1e-10, rtol=1e-10).call_and_ladj(x)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det
    torch.testing.assert_close(model.log_prob(x), expected, rtol=0, atol=1e-6)
