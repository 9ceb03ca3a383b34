"""MAF-DDSF and the root finder that inverts it."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.layers.monotone_inverse import invert_monotone
from dgm_bench.models.flows.naf import (
    DELTA,
    MAFDDSF,
    Affine,
    DenseSigmoidalFlow,
    SigmoidalMADE,
    forward_and_log_slope,
    invert,
)


def shaken(model, std=0.3):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def plain_ddsf(flow, features, x):
    """The formula of the paper as it stands, without logarithms, for one dimension."""
    numbers, h, start = flow.head(features), x[..., None], 0
    for i, weights in enumerate(flow.w):
        units, inputs = weights.shape[1], h.shape[-1] if i else 0
        sizes = [units, units, units, inputs]
        a, b, w, u = numbers[..., start : start + sum(sizes)].split(sizes, dim=-1)
        start += sum(sizes)
        if i:
            h = ((flow.u[i - 1] + u[..., None, :]).softmax(-1) @ h[..., None])[..., 0]
        sigmoids = ((F.softplus(a) + DELTA) * h + b).sigmoid()
        h = torch.logit(((weights + w[..., None, :]).softmax(-1) @ sigmoids[..., None])[..., 0])
    return h[..., 0]


layers = pytest.mark.parametrize("layers", [1, 2, 3])


@layers
def test_dense_sigmoidal_flow_is_the_formula(layers):
    flow, features, x = (
        shaken(DenseSigmoidalFlow(6, 5, layers)),
        torch.randn(40, 6),
        torch.randn(40),
    )
    x.requires_grad_()
    expected = plain_ddsf(flow, features, x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    value, log_slope = forward_and_log_slope(flow.conditioned(features), x)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_slope, slope.log(), rtol=1e-10, atol=1e-10)


@layers
def test_increases_over_the_whole_line_in_single_precision(layers):
    flow = shaken(DenseSigmoidalFlow(3, 8, layers), std=1.0).float()
    x = torch.cat([-torch.logspace(6, -3, 200), torch.logspace(-3, 6, 200)]).float()
    conditioned = flow.conditioned(torch.randn(3).float().expand(400, 3))
    u, log_slope = forward_and_log_slope(conditioned, x)
    assert torch.isfinite(u).all()
    assert torch.isfinite(log_slope).all()
    assert (u.diff() >= 0).all()
    assert u[-1] > 100
    assert u[0] < -100


@layers
def test_inverse_far_from_the_origin(layers):
    flow = shaken(DenseSigmoidalFlow(3, 8, layers), std=0.5)
    conditioned = flow.conditioned(torch.randn(300, 3))
    x = 30 * torch.randn(300)
    u, _ = forward_and_log_slope(conditioned, x)
    torch.testing.assert_close(invert(conditioned, u), x, rtol=0, atol=1e-9)


@layers
def test_starts_near_a_multiple_of_the_identity(layers):
    flow, x = DenseSigmoidalFlow(6, 16, layers), torch.linspace(-3, 3, 7)
    value, _ = forward_and_log_slope(flow.conditioned(torch.zeros(7, 6)), x)
    torch.testing.assert_close(value, x * math.log(2) ** layers, rtol=0, atol=0.01)
    u, log_det = Affine(3).forward_and_log_det(torch.ones(2, 3))
    torch.testing.assert_close(u, torch.ones(2, 3), rtol=0, atol=0.005)
    torch.testing.assert_close(log_det, torch.zeros(2), rtol=0, atol=0.005)


def test_number_of_parameters_of_power():
    """The layers' sizes written out: six dimensions, 100 units, 48 pseudo-parameters each."""
    hidden, outputs = 100 * (6 + 2), 288 * (100 + 2)
    head, own = 48 * (48 + 1), 16
    model = MAFDDSF((6,))
    assert sum(p.numel() for p in model.parameters()) == 5 * (hidden + outputs + head + own) + 12


def test_released_initialisation():
    made = SigmoidalMADE(63, [512])
    hidden, last = made.network[0], made.network.last
    assert made.features == 24
    for linear in (hidden, last):
        assert linear.weight.std().item() == pytest.approx(1e-3, rel=0.05)
        assert -1 <= linear.scale.min() < -0.9
        assert 0.9 < linear.bias.max() <= 1
    lengths = (last.masked_weight().square().sum(1) / last.scale.square())[last.mask.bool().all(1)]
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_conditioner_narrower_than_the_data():
    with pytest.raises(DeclarationError, match="8 units"):
        MAFDDSF((8,), hidden=[7])


# ------------------------------------------------------------------------------- a peer


def zuko_layer(made):
    """The same map in zuko: its masks, its network, its autoregression and its Jacobian."""
    autoregressive = pytest.importorskip("zuko.flows.autoregressive")
    transforms = pytest.importorskip("zuko.transforms")

    def univariate(features):
        formula = partial(plain_ddsf, made.flow, features)
        return transforms.MonotonicTransform(formula, made.flow.parameters())

    peer = autoregressive.MaskedAutoregressiveTransform(
        len(made.network.order),
        order=made.network.order - 1,
        univariate=univariate,
        shapes=[(made.features,)],
        hidden_features=[len(linear.bias) for linear in list(made.network)[:-1:2]],
        activation=nn.ELU,
    )
    copy_weights(made, peer.hyper)
    return peer


def copy_weights(made, peer):
    """Copy what multiplies; zuko puts the outputs of one dimension side by side."""
    for i in range(0, len(peer), 2):
        ours, rows = made.network[i], torch.arange(len(peer[i].bias))
        if ours is made.network.last:
            rows = rows.view(made.features, -1).T.flatten()
        assert torch.equal(peer[i].mask.bool(), ours.mask[rows].bool())
        peer[i].weight.data = ours.masked_weight().data[rows]
        peer[i].bias.data = ours.bias.data[rows]


@layers
@pytest.mark.parametrize("hidden", [[24], [24, 16]], ids=str)
def test_zuko(layers, hidden):
    model = MAFDDSF((5,), 3, hidden, sigmoid_dim=6, sigmoid_layers=layers)
    for made in model.layers[:-1]:
        shaken(made.flow)
    theirs, affine = [zuko_layer(made) for made in model.layers[:-1]], model.layers[-1]
    x = torch.randn(40, 5)
    u, log_det = x, 0
    for layer in theirs:
        u, change = layer().call_and_ladj(u)
        log_det = log_det + change
    normal = torch.distributions.Normal(-affine.shift / affine.scale(), 1 / affine.scale())
    expected = normal.log_prob(u).sum(1) + log_det
    torch.testing.assert_close(model.log_prob(x), expected, rtol=0, atol=1e-6)


# -------------------------------------------------------------------------- root finding


def cube(x):
    return x**3 + 1e-3 * x, 3 * x**2 + 1e-3


def arc(x):
    """Newton's method alone runs away from almost everywhere."""
    return x.atan(), 1 / (1 + x**2)


def bend(x):
    return x.clamp(max=0) + 1e-3 * x, (x < 0) + 1e-3


def without_slope(x):
    return x, torch.zeros_like(x)


@pytest.mark.parametrize("function", [cube, arc, bend, without_slope])
def test_roots(function):
    x = torch.cat([4 * torch.randn(200), torch.tensor([0.0])])
    low, high = torch.full_like(x, -1000.0), torch.full_like(x, 1234.0)
    evaluations = 0

    def counted(z):
        nonlocal evaluations
        evaluations += 1
        return function(z)

    found = invert_monotone(counted, function(x)[0], low, high)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-10)
    assert evaluations <= (70 if function is without_slope else 40)


def test_roots_at_the_ends_of_the_bracket():
    target = torch.tensor([-1.0, 0.0, 2.0])
    found = invert_monotone(lambda x: (x, torch.ones_like(x)), target, target, target + 1)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-12)
    found = invert_monotone(lambda x: (x, torch.ones_like(x)), target, target - 1, target)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-12)
    found = invert_monotone(lambda x: (x, torch.ones_like(x)), target, target, target)
    assert torch.equal(found, target)


def test_roots_of_what_is_not_a_number():
    target = torch.tensor([math.nan, 1.0])
    low = torch.zeros(2)
    found = invert_monotone(lambda x: (x, torch.ones_like(x)), target, low, low + 3)
    assert found[1] == 1
