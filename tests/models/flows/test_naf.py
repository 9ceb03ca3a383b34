"""MAF-DDSF and the root finder that inverts it."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.flow import pass_forward
from dgm_bench.models.flows.layers.masked import hidden_degrees
from dgm_bench.models.flows.layers.monotone_inverse import invert_monotone
from dgm_bench.models.flows.layers.sigmoid_mixture import SigmoidMixture, softplus
from dgm_bench.models.flows.naf import (
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


#: torchkit's ``delta``, and the number whose softplus, with it added, is 1.
TINY = 1e-6
ONE = math.log(math.exp(1 - TINY) - 1)


def plain_ddsf(flow, features, x):
    """The formula of the released code as it stands, without logarithms, for one dimension."""
    numbers, h, start = flow.head(features), x[..., None], 0
    for i, weights in enumerate(flow.w):
        units, inputs = weights.shape[1], h.shape[-1] if i else 0
        sizes = [units, units, units, inputs]
        a, b, w, u = numbers[..., start : start + sum(sizes)].split(sizes, dim=-1)
        start += sum(sizes)
        if i:
            h = ((flow.u[i - 1] + u[..., None, :]).softmax(-1) @ h[..., None])[..., 0]
        sigmoids = ((F.softplus(a + ONE) + TINY) * h + b).sigmoid()
        mixture = ((weights + w[..., None, :]).softmax(-1) @ sigmoids[..., None])[..., 0]
        h = torch.logit(mixture * (1 - TINY) + TINY / 2)
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
def test_fast_way_is_the_plain_one(layers):
    """In training, one layer is computed unit by unit with a gradient written by hand."""
    flow, features = shaken(DenseSigmoidalFlow(6, 5, layers)), torch.randn(40, 6)
    x = 4 * torch.randn(40)
    inputs = [features.requires_grad_(), x.requires_grad_(), *flow.parameters()]

    def with_gradients(pair):
        total = (torch.linspace(-1, 2, 40) * pair[0]).sum() + pair[1].square().sum()
        return *pair, *torch.autograd.grad(total, inputs)

    fast = with_gradients(flow(features.T, x))
    plain = with_gradients(forward_and_log_slope(flow.conditioned(features), x))
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def mixture(*inputs):
    return SigmoidMixture.apply(*inputs)[:2]


def test_gradient_of_a_mixture():
    inputs = [2 * torch.randn(3, 2) for _ in range(3)] + [2 * torch.randn(2)]
    inputs = [part.requires_grad_() for part in inputs]
    assert torch.autograd.gradcheck(mixture, inputs)
    loss = torch.func.grad(lambda *parts: sum(part.square().sum() for part in mixture(*parts)))
    stacked = [torch.stack([part.detach(), -part.detach()]) for part in inputs]
    batched = torch.func.vmap(loss)(*stacked)
    for i, one in enumerate(batched):
        torch.testing.assert_close(one, loss(*(part[i] for part in stacked)))


def test_mixture_far_out_in_single_precision():
    """Where all sigmoids are flat, the slope is known by its logarithm alone."""
    x = torch.tensor([-1e6, -300.0, 300.0, 1e6]).float().requires_grad_()
    a, b, w = (torch.randn(8, 1).float().expand(8, 4) for _ in range(3))
    value, log_slope = mixture(a, b, w, x)
    exact = mixture(*(part.detach().double() for part in (a, b, w, x)))
    (gradient,) = torch.autograd.grad(log_slope.sum(), x)
    torch.testing.assert_close(value.double(), exact[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(log_slope.double(), exact[1], rtol=1e-5, atol=0)
    assert torch.isfinite(gradient).all()


def test_softplus_to_rounding():
    x = torch.linspace(-80, 80, 2_001).float()
    torch.testing.assert_close(softplus(x).double(), F.softplus(x.double()), rtol=3e-7, atol=0)


def test_one_map_in_numpy():
    """The released code's formula and its derivative (torchkit, flows.py, ``DenseSigmoidFlow``)."""
    flow, x = shaken(DenseSigmoidalFlow(3, 4, 1)), np.array([-12.0, -2.0, 0.0, 0.7, 40.0])
    value, log_slope = forward_and_log_slope(flow.conditioned(torch.zeros(5, 3)), torch.tensor(x))
    bias, weights = flow.head.bias.detach().numpy(), flow.w[0].detach().numpy()[0]
    a = np.log1p(np.exp(bias[:4] + ONE)) + TINY
    w = np.exp(weights + bias[8:12]) / np.exp(weights + bias[8:12]).sum()
    sigmoids = 1 / (1 + np.exp(-(a * x[:, None] + bias[4:8])))
    rest = 1 / (1 + np.exp(a * x[:, None] + bias[4:8]))
    s, other = ((w * part).sum(1) * (1 - TINY) + TINY / 2 for part in (sigmoids, rest))
    slope = (1 - TINY) * (w * a * sigmoids * rest).sum(1) / (s * other)
    np.testing.assert_allclose(value.detach().numpy(), np.log(s / other), rtol=1e-9)
    np.testing.assert_allclose(log_slope.detach().numpy(), np.log(slope), rtol=1e-9)


@layers
def test_increases_to_its_bound_in_single_precision(layers):
    flow = shaken(DenseSigmoidalFlow(3, 8, layers), std=1.0).float()
    x = torch.cat([-torch.logspace(6, -3, 200), torch.logspace(-3, 6, 200)]).float()
    conditioned = flow.conditioned(torch.randn(3).float().expand(400, 3))
    u, log_slope = forward_and_log_slope(conditioned, x)
    assert torch.isfinite(u).all()
    assert torch.isfinite(log_slope).all()
    assert (u.diff() >= -1e-5).all()
    bound = math.log(2 / TINY - 1)
    assert u.abs().max().item() <= bound + 1e-4
    if layers == 1:
        assert [u[0].item(), u[-1].item()] == pytest.approx([-bound, bound], abs=1e-4)


def test_far_from_the_origin():
    """At 12 standard deviations clipping takes off 0.08, at 40 it leaves the bound."""
    flow = DenseSigmoidalFlow(3, 8, 1)
    nn.init.zeros_(flow.w[0])
    x = torch.tensor([12.0, -12.0, 40.0, -40.0])
    value, log_slope = forward_and_log_slope(flow.conditioned(torch.zeros(4, 3)), x)
    near = 12 - math.log1p(TINY / 2 * math.exp(12))
    bound = math.log(2 / TINY - 1)
    expected = torch.tensor([near, -near, bound, -bound])
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
    assert log_slope[2].item() == pytest.approx(math.log(2 / TINY) - 40, abs=1e-5)


@layers
def test_inverse_up_to_where_clipping_begins(layers):
    flow = shaken(DenseSigmoidalFlow(3, 8, layers), std=0.5)
    conditioned = flow.conditioned(torch.randn(300, 3))
    x = torch.linspace(-9, 9, 300)
    u, _ = forward_and_log_slope(conditioned, x)
    torch.testing.assert_close(invert(conditioned, u), x, rtol=0, atol=1e-8)


@layers
def test_inverse_at_and_beyond_the_bound(layers):
    """What lies far out comes back to the same output, and what is out of reach is finite."""
    flow = shaken(DenseSigmoidalFlow(3, 8, layers), std=0.5)
    conditioned = flow.conditioned(torch.randn(6, 3))
    x = torch.tensor([-100.0, -30.0, -20.0, 20.0, 30.0, 100.0])
    u, _ = forward_and_log_slope(conditioned, x)
    again, _ = forward_and_log_slope(conditioned, invert(conditioned, u))
    torch.testing.assert_close(again, u, rtol=0, atol=1e-9)
    beyond = invert(conditioned, torch.tensor([-1e6, -80.0, -15.0, 15.0, 80.0, 1e6]))
    assert torch.isfinite(beyond).all()
    assert torch.equal(beyond.sign(), torch.tensor([-1.0, -1, -1, 1, 1, 1]))


@layers
def test_starts_near_the_identity(layers):
    flow, x = DenseSigmoidalFlow(6, 16, layers), torch.linspace(-3, 3, 7)
    value, log_slope = forward_and_log_slope(flow.conditioned(torch.zeros(7, 6)), x)
    torch.testing.assert_close(value, x, rtol=0, atol=0.01)
    torch.testing.assert_close(log_slope, torch.zeros(7), rtol=0, atol=0.01)
    u, log_det = Affine(3).forward_and_log_det(torch.ones(2, 3))
    torch.testing.assert_close(u, torch.ones(2, 3), rtol=0, atol=0.005)
    torch.testing.assert_close(log_det, torch.zeros(2), rtol=0, atol=0.005)


@pytest.mark.parametrize("maps", [5, 10])
def test_density_at_the_start(maps, unchecked):
    """Near the identity: of N(0, I), half of log(2 pi) + 1 + 1 / e a dimension, 9.62 in 6."""
    x = torch.randn(500, 6)
    x = (x - x.mean(0)) / x.square().mean(0).sqrt()
    model = MAFDDSF((6,), maps)
    _, log_det = pass_forward(model.transforms, x)
    assert log_det.abs().max().item() < 0.3
    expected = 3 * (math.log(2 * math.pi) + 1 + 1 / math.e)
    assert -model.log_prob(x).mean().item() == pytest.approx(expected, abs=0.15)


def test_base():
    """Its log variance is 1 and 1e-5 is added to twice the variance; it integrates to one."""
    base, z = MAFDDSF((2,)).base, torch.tensor([[0.5, -3.0]])
    released = (-z.square() / (2 * math.e + 1e-5) - 0.5 - 0.5 * math.log(2 * math.pi)).sum()
    assert base.log_prob(z).item() == pytest.approx(released.item(), abs=2e-6)
    grid = torch.linspace(-30, 30, 3_001)
    density = base.log_prob(torch.stack([grid, torch.zeros_like(grid)], 1))
    middle = -0.5 * math.log(2 * math.pi * (math.e + 5e-6))
    assert (density - middle).exp().sum().item() * 0.02 == pytest.approx(1, abs=1e-9)
    draws = base.sample(20_000, torch.Generator().manual_seed(0))
    assert draws.var().item() == pytest.approx(math.e, rel=0.03)


def test_shuffled_degrees():
    """Each as often as the others, or once more; which of them, and the order, is random."""
    orders = [hidden_degrees(torch.arange(1, 7), 23, 6, "shuffled").tolist() for _ in range(20)]
    counts = [sorted(order.count(degree) for degree in range(1, 6)) for order in orders]
    assert counts == [[4, 4, 5, 5, 5]] * 20
    assert len({tuple(sorted(order)) for order in orders}) > 5
    assert all(order != sorted(order) for order in orders)


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
        assert peer[i].mask.shape == ours.mask.shape
        peer[i].mask.data.copy_(ours.mask[rows])
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
    base = (math.e + 5e-6) ** 0.5 / affine.scale()
    normal = torch.distributions.Normal(-affine.shift / affine.scale(), base)
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
