"""What is particular to flows on images: squeezing, scales, actnorm, normalised convolutions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import DecaysSomeParameters, InitialisesOnData
from dgm_bench.models.flows.glow_images import Glow, InvertibleConv, Level, SplitPrior
from dgm_bench.models.flows.layers.actnorm import ActNorm, ActNormConv, EdgeMap, ZeroConv
from dgm_bench.models.flows.multiscale import (
    Chain,
    FactorOut,
    Flatten,
    Logit,
    Squeeze,
    ToImage,
    image_shape_of,
)
from dgm_bench.models.flows.realnvp_images import (
    ChannelCoupling,
    CheckerboardCoupling,
    DiagonalsFirst,
    MultiScaleRealNVP,
)
from dgm_bench.models.networks.convnets import CentredBatchNorm, WeightNormConv


def close(ours, theirs, tolerance=1e-12):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def parameters_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


# ----------------------------------------------------------------------------- multiscale


def test_squeeze_puts_each_square_into_four_channels():
    x = torch.randn(2, 3, 4, 6)
    u, log_det = Squeeze().forward_and_log_det(x)
    assert u.shape == (2, 12, 2, 3)
    assert log_det.tolist() == [0, 0]
    for c, i, j in [(0, 0, 1), (1, 1, 0), (2, 1, 1)]:
        assert torch.equal(u[:, 4 * c + 2 * i + j], x[:, c, i::2, j::2])
    assert torch.equal(Squeeze().inverse(u), x)


@pytest.mark.parametrize("alpha", [0, 1e-6, 0.05])
def test_logit_and_its_log_det(alpha):
    layer, x = Logit(alpha), torch.rand(4, 2, 3, 3) * 0.99 + 0.005
    y, log_det = layer.forward_and_log_det(x)
    s = alpha + (1 - 2 * alpha) * x
    close(y, torch.logit(s))
    slope = math.log(1 - 2 * alpha) - (s - s**2).log()
    close(log_det, slope.sum((1, 2, 3)), 1e-10)
    close(layer.inverse(y), x)


def test_logit_of_zero_is_finite():
    y, log_det = Logit(0.05).forward_and_log_det(torch.zeros(1, 1, 2, 2))
    assert torch.isfinite(y).all()
    assert torch.isfinite(log_det).all()


def test_factored_out_scales_come_last_and_come_back():
    inner = [Squeeze(), FactorOut((8, 2, 2), [Flatten((4, 2, 2))])]
    layer = Chain([ToImage((4, 4, 4)), FactorOut((4, 4, 4), inner)])
    x = torch.randn(3, 64)
    u, log_det = layer.forward_and_log_det(x)
    image = x.reshape(3, 4, 4, 4)
    assert u.shape == (3, 64)
    assert log_det.shape == (3,)
    assert torch.equal(u[:, 32:], image[:, 2:].flatten(1))
    assert torch.equal(u[:, 16:32], F.pixel_unshuffle(image[:, :2], 2)[:, 4:].flatten(1))
    assert torch.equal(layer.inverse(u), x)


def test_split_prior_standardises_what_leaves():
    prior = SplitPrior(2)
    nn.init.normal_(prior.network.weight, std=0.1)
    layer, x = FactorOut((4, 2, 2), [Flatten((2, 2, 2))], prior), torch.randn(3, 4, 2, 2)
    u, log_det = layer.forward_and_log_det(x)
    mean, log_scale = prior.network(x[:, :2]).chunk(2, 1)
    expected = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x[:, 2:]).sum((1, 2, 3))
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(u[:, 8:]).sum(1)
    close(normal + log_det, expected)
    close(layer.inverse(u), x)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: FactorOut((3, 2, 2), []), "of 3 channels: the number is odd"),
        (lambda: Logit(0.5), "alpha 0.5: .* does not grow"),
        (lambda: image_shape_of((64,), None), r"give \[channels, height, width\]"),
        (lambda: image_shape_of((64,), [1, 8, 9]), r"image_shape \[1, 8, 9\]"),
        (lambda: Glow((1, 7, 7)), "7 x 7: .* even height and width"),
        (lambda: MultiScaleRealNVP((1, 8, 8), scales=0), "scales 0: nothing is left"),
    ],
)
def test_impossible_arguments_are_declared(wrong, told):
    with pytest.raises(DeclarationError, match=told):
        wrong()


# ----------------------------------------------------------------------------------- glow


def test_glow_of_cifar10_has_44_million_parameters():
    with torch.device("meta"):
        model = Glow((3, 32, 32))
    edges = sum(p.numel() for name, p in model.named_parameters() if name.endswith("edge"))
    assert parameters_of(model) == 44_520_660
    # Without the released code's channel of edges.
    assert parameters_of(model) - edges == 44_052_912


def test_initialised_actnorms_have_zero_mean_and_unit_variance():
    model = Glow((3, 8, 8), levels=2, depth=3, width=16)
    x = torch.rand(64, 3, 8, 8) ** 2
    assert isinstance(model, InitialisesOnData)
    model.initialise(x)
    seen = {}

    def hook(module, args, output):
        seen[module] = output.clone()  # what follows works in place

    convs = [module for module in model.modules() if isinstance(module, ActNormConv)]
    for conv in convs:
        conv.register_forward_hook(hook)
    original = ActNorm.forward_and_log_det

    def recorded(self, x):
        u, log_det = original(self, x)
        seen[self] = u
        return u, log_det

    ActNorm.forward_and_log_det = recorded
    try:
        model.log_prob(x)
    finally:
        ActNorm.forward_and_log_det = original
    assert len(seen) == 2 * 3 * 3
    for output in seen.values():
        variance, mean = torch.var_mean(output, dim=(0, 2, 3), correction=0)
        close(mean, torch.zeros_like(mean), 1e-10)
        close(variance, torch.ones_like(variance), 1e-4)


def test_initialising_happens_once():
    model = Glow((1, 4, 4), levels=1, depth=1, width=4)
    model.initialise(torch.rand(20, 1, 4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.log_prob(torch.rand(20, 1, 4, 4))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_zero_convolution_starts_as_zero():
    assert (ZeroConv(3, 4)(torch.randn(2, 3, 5, 5)) == 0).all()


def test_convolution_sees_the_edges_as_one_more_channel():
    conv, x = ActNormConv(2, 3, size=3), torch.randn(4, 2, 5, 6)
    nn.init.normal_(conv.norm.logs, std=0.1)
    nn.init.normal_(conv.norm.bias)
    outside = 1 - F.pad(torch.ones(4, 1, 5, 6), [1] * 4)
    padded = torch.cat([F.pad(x, [1] * 4), outside], dim=1)
    raw = F.conv2d(padded, torch.cat([conv.weight, conv.edge], dim=1))
    scale, bias = (3 * conv.norm.logs).exp(), conv.norm.bias
    close(conv(x), (raw + bias.view(-1, 1, 1)) * scale.view(-1, 1, 1))


def test_edge_map_is_the_zero_convolution_of_zeros():
    conv, edges = ZeroConv(2, 4), EdgeMap(4, 3, 5)
    for name, parameter in edges.named_parameters():
        nn.init.normal_(parameter)
        conv.get_parameter(name).data.copy_(parameter)
    close(edges(), conv(torch.zeros(1, 2, 3, 5)))


def test_invertible_convolution_starts_as_a_rotation():
    conv, x = InvertibleConv(6), torch.randn(2, 6, 3, 3)
    u, log_det = conv.forward_and_log_det(x)
    close(u.square().sum(1), x.square().sum(1))
    close(log_det, torch.zeros(2))


def test_a_level_is_the_sum_of_its_steps():
    level, x = Level(4, depth=3, width=5), torch.randn(2, 4, 3, 3)
    for parameter in level.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    u, log_det = level.forward_and_log_det(x)
    alone = Chain([layer for step in level.steps
                   for layer in (step.norm, step.mixing, step.coupling)])  # fmt: skip
    expected, expected_log_det = alone.forward_and_log_det(x)
    close(u, expected)
    close(log_det, expected_log_det)


# -------------------------------------------------------------------------------- real nvp


def test_real_nvp_of_cifar10_as_the_paper_lays_it_out():
    with torch.device("meta"):
        model = MultiScaleRealNVP((3, 32, 32))
    kinds = [m for m in model.modules()
             if isinstance(m, CheckerboardCoupling | ChannelCoupling | FactorOut)]  # fmt: skip
    names = [type(kind).__name__[:5] for kind in kinds]
    assert names == ["Check"] * 3 + ["Chann"] * 3 + ["Facto"] + ["Check"] * 4
    widths = [k.network.stages[0].direction.shape[0] for k in kinds if hasattr(k, "network")]
    assert widths == [64] * 3 + [128] * 7
    assert {len(k.network.stages) for k in kinds if hasattr(k, "network")} == {9}


@pytest.mark.parametrize("keep_even", [True, False])
def test_checkerboard_keeps_one_colour(keep_even):
    layer = CheckerboardCoupling((2, 3, 4), 4, 1, keep_even).eval()
    nn.init.normal_(layer.network.out[-1].bias)
    x = torch.randn(2, 2, 3, 4)
    u, _ = layer.forward_and_log_det(x)
    kept = (torch.arange(3).view(-1, 1) + torch.arange(4)) % 2 == int(not keep_even)
    assert torch.equal(u[:, :, kept], x[:, :, kept])
    assert (u[:, :, ~kept] != x[:, :, ~kept]).all()


@pytest.mark.parametrize("keep_first", [True, False])
def test_channel_coupling_keeps_one_half(keep_first):
    layer, x = ChannelCoupling((4, 3, 3), 4, 1, keep_first).eval(), torch.randn(2, 4, 3, 3)
    u, _ = layer.forward_and_log_det(x)
    same = (u == x).all(0).all(1).all(1)
    assert same.tolist() == ([True] * 2 + [False] * 2 if keep_first else [False] * 2 + [True] * 2)


def test_half_that_leaves_is_one_colour_of_the_checkerboard():
    rows, columns = torch.arange(4.0).view(-1, 1), torch.arange(4.0)
    colour = ((rows + columns) % 2).expand(1, 3, 4, 4)
    layers = Chain([Squeeze(), DiagonalsFirst(12)])
    u, _ = layers.forward_and_log_det(colour)
    assert (u[:, :6] == 0).all()
    assert (u[:, 6:] == 1).all()
    assert torch.equal(layers.inverse(u), colour)


COUPLINGS = {
    "checkerboard, even kept": lambda: CheckerboardCoupling((4, 4, 6), 4, 1, True),
    "checkerboard, odd kept": lambda: CheckerboardCoupling((4, 4, 6), 4, 1, False),
    "channels, first kept": lambda: ChannelCoupling((4, 4, 6), 4, 1, True),
    "channels, second kept": lambda: ChannelCoupling((4, 4, 6), 4, 1, False),
}


def coupling_of(name):
    """Return a coupling whose scales and shifts are not zero."""
    layer = COUPLINGS[name]()
    nn.init.constant_(layer.scale, 0.7)
    nn.init.normal_(layer.network.out[-1].bias)
    return layer


def moved_by(layer):
    """Return a mask over channels, rows and columns: True where the coupling moves."""
    if isinstance(layer, CheckerboardCoupling):
        return np.broadcast_to((1 - layer.kept[0]).bool().numpy(), (4, 4, 6))
    moved = np.zeros((4, 4, 6), bool)
    moved[slice(2, 4) if layer.keep_first else slice(0, 2)] = True
    return moved


def by_formula(layer, x, averages=None):
    """Return outputs, log-determinants and the moments of the released code, in NumPy.

    The moved half is scaled, shifted and then normalised by the moments of the channel, in which
    what is kept counts as zero (real_nvp_multiscale_dataset.py, ``bn_out``).
    """
    moved, x = moved_by(layer), x.numpy()
    channels = np.flatnonzero(moved.any((1, 2)))
    kept = x if len(channels) == 4 else np.delete(x, channels, 1)
    shift, log_scale = np.zeros((2, *x.shape))
    given = layer._shift_and_log_scale(torch.tensor(kept))
    for own, value in zip((shift, log_scale), given, strict=True):
        own[:, channels] = value.detach()
    u = np.where(moved, (x + shift) * np.exp(log_scale), x)
    log_det = (log_scale * moved).sum((1, 2, 3))
    zeroed = np.where(moved, u, 0.0)[:, channels]
    mean, variance = averages or (zeroed.mean((0, 2, 3)), zeroed.var((0, 2, 3)))
    for c, m, v in zip(channels, mean, variance, strict=True):
        u[:, c] = np.where(moved[c], (u[:, c] - m) / np.sqrt(v + 1e-4), u[:, c])
        log_det = log_det - 0.5 * moved[c].sum() * np.log(v + 1e-4)
    return u, log_det, mean, variance


@pytest.mark.parametrize("name", COUPLINGS)
def test_couplings_normalise_what_they_move(name):
    layer, x = coupling_of(name), torch.randn(20, 4, 4, 6) * 2 + 1
    u, log_det = layer.forward_and_log_det(x)
    expected, expected_log_det, mean, variance = by_formula(layer, x)
    np.testing.assert_allclose(u.detach(), expected, atol=1e-12)
    np.testing.assert_allclose(log_det.detach(), expected_log_det, atol=1e-12)
    norm = layer.norm_moved
    np.testing.assert_allclose(norm.mean, 0.1 * mean, atol=1e-12)
    np.testing.assert_allclose(norm.variance, 0.9 + 0.1 * variance, atol=1e-12)
    averages = norm.mean.numpy().copy(), norm.variance.numpy().copy()
    u, log_det = layer.eval().forward_and_log_det(x)
    expected, expected_log_det, *same = by_formula(layer, x, averages)
    np.testing.assert_allclose(u.detach(), expected, atol=1e-12)
    np.testing.assert_allclose(log_det.detach(), expected_log_det, atol=1e-12)
    np.testing.assert_array_equal([norm.mean, norm.variance], same)
    close(layer.inverse(u), x)


def test_what_a_checkerboard_moves_has_variance_two():
    """Half of the numbers that its moments are of are zeros."""
    layer = CheckerboardCoupling((3, 4, 6), 4, 1, True)
    x = torch.randn(30, 3, 4, 6)
    moved = (1 - layer.kept).bool().expand(30, 3, -1, -1)
    x = x - x[moved].mean()
    u, _ = layer.forward_and_log_det(x)
    assert u[moved].var().item() == pytest.approx(2, rel=0.02)
    assert torch.equal(u[~moved], x[~moved])


@pytest.mark.parametrize("name", ["checkerboard, even kept", "channels, first kept"])
def test_gradients_of_a_coupling_pass_through_its_moments(name):
    layer, x = coupling_of(name), torch.randn(2, 4, 4, 6, requires_grad=True)
    assert torch.autograd.gradcheck(layer.forward_and_log_det, x, fast_mode=True)


def test_conditioner_norm_is_pytorchs_without_scale():
    ours, theirs = CentredBatchNorm(3), nn.BatchNorm2d(3, eps=1e-4)
    nn.init.normal_(ours.bias)
    theirs.bias.data.copy_(ours.bias)
    for _ in range(3):
        x = torch.randn(5, 3, 4, 4)
        close(ours(x), theirs(x))
    close(ours.eval()(x), theirs.eval()(x))


def test_weight_norm_is_pytorchs():
    ours = WeightNormConv(2, 3, size=3, bias=True)
    theirs = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3, padding=1), dim=0)
    nn.init.normal_(ours.magnitude)
    theirs.parametrizations.weight.original0.data.copy_(ours.magnitude.view(3, 1, 1, 1))
    theirs.parametrizations.weight.original1.data.copy_(ours.direction)
    nn.init.zeros_(theirs.bias)
    x = torch.randn(2, 2, 5, 5)
    close(ours(x), theirs(x))


def test_decayed_parameters_are_scales():
    model = MultiScaleRealNVP((1, 4, 4), features=4, blocks=1)
    assert isinstance(model, DecaysSomeParameters)
    decayed = {id(parameter) for parameter in model.decayed_parameters()}
    names = {name.rsplit(".", 1)[1] for name, p in model.named_parameters() if id(p) in decayed}
    assert names == {"magnitude", "scale"}
    assert len(decayed) == len(model.decayed_parameters())


# ------------------------------------------------------------------------------------ both

TINY = [
    (Glow, {"depth": 2, "width": 6}),
    (MultiScaleRealNVP, {"features": 4, "blocks": 1, "scales": 3}),
]


@pytest.mark.parametrize(("model", "options"), TINY)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 10, 6)])
def test_sizes_that_cannot_be_halved_forever(model, options, shape):
    flow, x = model(shape, **options), torch.rand(3, *shape)
    assert torch.isfinite(flow.log_prob(x)).all()
    flow.eval()
    u, _ = flow.forward_and_log_det(x)
    close(flow.inverse(u), x, 1e-9)


@pytest.mark.parametrize(("model", "options"), TINY)
def test_flat_examples_are_images_too(model, options):
    flow = model((64,), image_shape=[1, 8, 8], **options).eval()
    image = model((1, 8, 8), **options).eval()
    image.load_state_dict(flow.state_dict())
    x = torch.rand(3, 64)
    assert torch.equal(flow.log_prob(x), image.log_prob(x.reshape(3, 1, 8, 8)))
    assert flow.sample(2, torch.Generator().manual_seed(0)).shape == (2, 64)


@pytest.mark.parametrize(("model", "options"), TINY)
def test_a_few_steps_raise_the_likelihood(model, options):
    flow = model((1, 8, 8), **options)
    x = torch.rand(64, 1, 1, 1) * 0.5 + torch.rand(64, 1, 8, 8) * 0.2
    if isinstance(flow, InitialisesOnData):
        flow.initialise(x)
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 10


@pytest.mark.parametrize(("model", "options"), TINY)
def test_channels_last_changes_nothing(model, options):
    flow, x = model((3, 8, 8), **options).eval(), torch.rand(4, 3, 8, 8)
    expected = flow.log_prob(x)
    flow.to(memory_format=torch.channels_last)
    close(flow.log_prob(x.to(memory_format=torch.channels_last)), expected, 1e-9)
