"""The same weights in other people's libraries give the same likelihood.

The peers bound their scales in their own ways. Where they do, only the numbers that enter the
bounding function are mapped (by its inverse); masks, order, layers and Jacobians are the peers'.
"""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dgm_bench.models.continuous.ffjord import FFJORD
from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.flows.made import MADE, GaussianMADE
from dgm_bench.models.flows.maf import MAF
from dgm_bench.models.flows.realnvp import AffineCoupling, RealNVP

DIM, HIDDEN = 5, [16, 16]


def calibrated(model):
    model.calibrate(torch.randn(500, DIM) * 1.5 + 0.5)
    for module in model.modules():
        if isinstance(module, FlowBatchNorm):
            nn.init.normal_(module.log_gamma, std=0.3)
            nn.init.normal_(module.beta, std=0.3)
    return model.eval()


def linears(module):
    return [m for m in module.modules() if hasattr(m, "weight")]


def agree(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


class Mapped(nn.Module):
    """A conditioner of a peer, followed by a map of its outputs."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x, context=None):
        return self.change(self.network(x))


# ------------------------------------------------------------------------------- nflows


def copy_into_nflows(network, peer):
    """Copy a masked network; nflows puts the outputs of one dimension side by side."""
    layers = linears(peer)
    for ours, theirs in zip(linears(network), layers, strict=True):
        weight, bias, mask = ours.weight, ours.bias, ours.mask
        if theirs is layers[-1]:
            weight, mask = (w.view(-1, DIM, w.shape[1]).transpose(0, 1).flatten(0, 1)
                            for w in (weight, mask))  # fmt: skip
            bias = bias.view(-1, DIM).T.flatten()
        assert torch.equal(theirs.mask, mask)
        theirs.weight.data.copy_(weight)
        theirs.bias.data.copy_(bias)


def nflows_made(made):
    autoregressive = pytest.importorskip("nflows.transforms.autoregressive")

    def change(outputs):
        mean, log_precision = outputs.view(-1, DIM, 2).unbind(2)
        scale = (0.5 * log_precision).exp()
        unbounded = torch.log(torch.expm1(scale - 1e-3))  # nflows: softplus(a) + 1e-3
        return torch.stack([unbounded, -mean * scale], dim=2).flatten(1)

    peer = autoregressive.MaskedAffineAutoregressiveTransform(
        DIM, HIDDEN[0], num_blocks=1, use_residual_blocks=False
    )
    copy_into_nflows(made.network, peer.autoregressive_net)
    peer.autoregressive_net = Mapped(peer.autoregressive_net, change)
    return peer


def nflows_batch_norm(norm):
    peer = pytest.importorskip("nflows.transforms.normalization").BatchNorm(DIM, eps=norm.eps)
    peer.unconstrained_weight.data = torch.log(torch.expm1(norm.log_gamma.exp() - norm.eps))
    peer.bias.data, peer.running_mean, peer.running_var = norm.beta, norm.mean, norm.variance
    return peer


def nflows_flow(transforms):
    flows = pytest.importorskip("nflows.flows")
    base = pytest.importorskip("nflows.distributions").StandardNormal([DIM])
    base._log_z = base._log_z.double()
    composite = pytest.importorskip("nflows.transforms").CompositeTransform(transforms)
    return flows.Flow(composite, base).eval()


def nflows_maf(model):
    """The stack in nflows, which reverses the data where ours reverses the masks."""
    flip = pytest.importorskip("nflows.transforms.permutations").ReversePermutation
    transforms = []
    for layer in model.layers:
        if isinstance(layer, FlowBatchNorm):
            transforms.append(nflows_batch_norm(layer))
        elif layer.order[0] == 0:
            transforms.append(nflows_made(layer))
        else:
            transforms += [flip(DIM), nflows_made(reversed_made(layer)), flip(DIM)]
    return nflows_flow(transforms)


def reversed_made(made):
    """The same function of flipped inputs, with flipped outputs, in a MADE of natural order."""
    natural = GaussianMADE(DIM, HIDDEN)
    for ours, theirs in zip(linears(made), linears(natural), strict=True):
        theirs.load_state_dict({**theirs.state_dict(), "weight": ours.weight, "bias": ours.bias})
    first, last = linears(natural)[0], linears(natural)[-1]
    first.weight.data = first.weight.data.flip(1)
    last.weight.data = last.weight.data.view(2, DIM, -1).flip(1).flatten(0, 1)
    last.bias.data = last.bias.data.view(2, DIM).flip(1).flatten()
    return natural


def test_nflows_made():
    model, x = MADE((DIM,), HIDDEN), torch.randn(50, DIM)
    agree(model.log_prob(x), nflows_maf(model).log_prob(x))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_nflows_maf(batch_norm):
    model = calibrated(MAF((DIM,), layers=4, hidden=HIDDEN, batch_norm=batch_norm))
    x = torch.randn(50, DIM)
    agree(model.log_prob(x), nflows_maf(model).log_prob(x))


def test_nflows_inverse_of_maf():
    model = calibrated(MAF((DIM,), layers=2, hidden=HIDDEN))
    u = torch.randn(20, DIM)
    theirs, _ = nflows_maf(model)._transform.inverse(u)
    agree(model.inverse(u), theirs)


def test_nflows_mixture_made():
    nde = pytest.importorskip("nflows.nn.nde.made")
    components = 4
    model = MADE((DIM,), HIDDEN, components=components)

    class Peer(nde.MixtureOfGaussiansMADE):
        def forward(self, inputs, context=None):
            outputs = super().forward(inputs).view(-1, DIM, 3, components)
            mean, log_precision, logits = outputs.unbind(2)
            spread = torch.log(torch.expm1((-0.5 * log_precision).exp() - self.epsilon))
            return torch.stack([logits, mean, spread], dim=3).flatten(1)

    peer = Peer(
        DIM,
        HIDDEN[0],
        num_blocks=1,
        num_mixture_components=components,
        use_residual_blocks=False,
        epsilon=1e-4,
    )
    copy_into_nflows(model.base.network, peer)
    # Of nflows' two MADEs only this one has no nonlinearity after its first layer.
    peer.initial_layer = nn.Sequential(peer.initial_layer, nn.ReLU())
    x = torch.randn(50, DIM)
    agree(model.log_prob(x), peer.log_prob(x))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_nflows_realnvp(batch_norm):
    coupling = pytest.importorskip("nflows.transforms.coupling")
    model = RealNVP((DIM,), layers=4, hidden=HIDDEN, batch_norm=batch_norm)
    for layer in model.layers:
        if isinstance(layer, AffineCoupling):
            layer.log_scale[-1].bias.data.fill_(2.5)  # nflows' scale is bounded by 1.001
    calibrated(model)

    class Conditioner(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, kept, context=None):
            scale = (-self.layer.log_scale(kept)).exp()
            unbounded = torch.logit(scale - 1e-3) - 2  # nflows: sigmoid(a + 2) + 1e-3
            return torch.cat([-self.layer.shift(kept) * scale, unbounded], dim=1)

    def peer(layer):
        if isinstance(layer, FlowBatchNorm):
            return nflows_batch_norm(layer)
        mask = torch.zeros(DIM)
        mask[layer.transformed] = 1
        return coupling.AffineCouplingTransform(mask, lambda i, o: Conditioner(layer))

    x = torch.randn(50, DIM)
    theirs = nflows_flow([peer(layer) for layer in model.layers])
    agree(model.log_prob(x), theirs.log_prob(x))


# --------------------------------------------------------------------------------- zuko


def zuko_univariate(mean, log_precision):
    """Zuko's affine map: its log-scale is a / (1 + |a| / c) with c = ln 1000."""
    transforms = pytest.importorskip("zuko.transforms")
    log_scale = 0.5 * log_precision
    unbounded = log_scale / (1 - log_scale.abs() / math.log(1000))
    return transforms.MonotonicAffineTransform(-mean * log_scale.exp(), unbounded)


def zuko_flow(transforms):
    lazy = pytest.importorskip("zuko.lazy")
    normal = pytest.importorskip("zuko.distributions").DiagNormal
    base = lazy.UnconditionalDistribution(normal, torch.zeros(DIM), torch.ones(DIM), buffer=True)
    return lazy.Flow(transforms, base).eval()


def zuko_made(made):
    autoregressive = pytest.importorskip("zuko.flows.autoregressive")
    peer = autoregressive.MaskedAutoregressiveTransform(
        DIM, order=made.order.argsort(), univariate=zuko_univariate, hidden_features=HIDDEN
    )
    layers = linears(peer.hyper)
    for ours, theirs in zip(linears(made), layers, strict=True):
        weight, bias, mask = ours.weight, ours.bias, ours.mask
        if theirs is layers[-1]:
            weight, mask = (w.view(2, DIM, -1).transpose(0, 1).flatten(0, 1)
                            for w in (weight, mask))  # fmt: skip
            bias = bias.view(2, DIM).T.flatten()
        assert torch.equal(theirs.mask, mask > 0)
        theirs.weight.data.copy_(weight)
        theirs.bias.data.copy_(bias)
    return peer


def test_zuko_maf():
    model = MAF((DIM,), layers=4, hidden=HIDDEN, batch_norm=False)
    theirs = zuko_flow([zuko_made(layer) for layer in model.layers])
    x = torch.randn(50, DIM)
    agree(model.log_prob(x), theirs().log_prob(x))


def test_zuko_realnvp():
    coupling = pytest.importorskip("zuko.flows.coupling")
    model = RealNVP((DIM,), layers=4, hidden=HIDDEN, batch_norm=False)

    class Conditioner(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, kept):
            outputs = [self.layer.shift(kept), -2 * self.layer.log_scale(kept)]
            return torch.stack(outputs, dim=-1).flatten(-2)

    def peer(layer):
        mask = torch.zeros(DIM, dtype=torch.bool)
        mask[layer.kept] = True
        transform = coupling.GeneralCouplingTransform(DIM, mask=mask, univariate=zuko_univariate)
        transform.hyper = Conditioner(layer)
        return transform

    x = torch.randn(50, DIM)
    theirs = zuko_flow([peer(layer) for layer in model.layers])
    agree(model.log_prob(x), theirs().log_prob(x))


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_zuko_continuous_flow_with_time_as_an_input(activation):
    zuko_nn = pytest.importorskip("zuko.nn")
    nonlinearity = {"tanh": nn.Tanh, "softplus": nn.Softplus}[activation]
    model = FFJORD((DIM,), 2, HIDDEN, "concat", activation, rtol=1e-8, atol=1e-8)

    def dynamics(network):
        peer = zuko_nn.MLP(DIM + 1, DIM, HIDDEN, activation=nonlinearity)
        for ours, theirs in zip(linears(network), linears(peer), strict=True):
            # Ours gives every layer the time, zuko's only the first.
            if theirs is not linears(peer)[0]:
                ours.weight.data[:, 0] = 0
                theirs.weight.data.copy_(ours.weight[:, 1:])
            else:
                theirs.weight.data.copy_(ours.weight)
            theirs.bias.data.copy_(ours.bias)
        return lambda t, x: peer(torch.cat([t.expand(*x.shape[:-1], 1), x], dim=-1))

    agree_with_zuko(model, dynamics)


def test_zuko_continuous_flow_with_gates():
    model = FFJORD((DIM,), 2, [*HIDDEN, 8], rtol=1e-8, atol=1e-8)

    def dynamics(network):
        def derivative(t, x):
            time = t.view(1)
            for i, layer in enumerate(network.layers):
                gate, drift = layer.gate(time).sigmoid(), F.linear(time, layer.drift.weight)
                x = (x.tanh() if i else x) @ layer.linear.weight.T + layer.linear.bias
                x = x * gate + drift
            return x

        return derivative

    agree_with_zuko(model, dynamics)


def agree_with_zuko(model, dynamics):
    """Zuko has its own solver and takes the trace by autograd."""
    free_form = pytest.importorskip("zuko.transforms").FreeFormJacobianTransform
    x = torch.randn(10, DIM)
    z, log_det = x, torch.zeros(10)
    for layer in model.layers:
        transform = free_form(dynamics(layer.network), atol=1e-10, rtol=1e-10)
        z, change = transform.call_and_ladj(z)
        log_det = log_det + change
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det
    agree(model.log_prob(x), expected)
