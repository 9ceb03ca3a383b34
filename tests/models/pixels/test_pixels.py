"""What the models of pixels owe alike: PixelCNN++ and PixelSNAIL, and their mixtures."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import HasLogProb, HasSample, InitialisesOnData
from dgm_bench.models.codes.priors.weight_norm import WeightNormed
from dgm_bench.models.pixels.logistics import LEAST_LOG_SCALE, LogisticMixture, parameters_of
from dgm_bench.spec import ModelSpec

NETWORKS = {
    "pixelcnnpp": ("pixelcnnpp_images:PixelCNNPP", {"blocks": 1, "scales": 2}),
    "pixelsnail": ("pixelsnail_images:PixelSNAIL", {"groups": 2, "blocks": 1, "key_size": 3}),
}
SMALL = {"hidden": 6, "components": 2, "dropout": 0.0}
every_network = pytest.mark.parametrize("name", NETWORKS)


def new(name, shape, levels, **args):
    module, own = NETWORKS[name]
    model = build(ModelSpec(name=module, args={**SMALL, "levels": levels, **own, **args}), shape)
    for layer in model.modules():
        if isinstance(layer, WeightNormed):  # branches begin near zero
            nn.init.constant_(layer.length, 1.0)
            nn.init.normal_(layer.bias)
    return model


def images(shape, levels, n):
    return torch.randint(levels, (n, *shape), dtype=torch.uint8)


def every_image(shape, levels):
    places = itertools.product(range(levels), repeat=math.prod(shape))
    return torch.tensor(list(places), dtype=torch.uint8).unflatten(1, shape)


# ----------------------------------------------------------------------------- mixtures


def logistic(x):
    return 1 / (1 + np.exp(-x))


def mixture_by_hand(x, outputs, levels, components):
    """Probability of the levels of one pixel with three channels (equations 2 and 3)."""
    logits, *rest = np.split(outputs, 10)
    means, log_scales, raw = rest[:3], rest[3:6], rest[6:]
    value, half, total = 2 * np.array(x) / (levels - 1) - 1, 1 / (levels - 1), 0.0
    for k in range(components):
        r, g, b = (np.tanh(raw[i][k]) for i in range(3))
        shifts = [0.0, r * value[0], g * value[0] + b * value[1]]
        probability = math.exp(logits[k]) / np.exp(logits).sum()
        for c in range(3):
            mean, scale = means[c][k] + shifts[c], math.exp(max(log_scales[c][k], LEAST_LOG_SCALE))
            top = 1.0 if x[c] == levels - 1 else logistic((value[c] + half - mean) / scale)
            bottom = 0.0 if x[c] == 0 else logistic((value[c] - half - mean) / scale)
            probability *= top - bottom
        total += probability
    return total


def test_mixtures_are_those_of_the_formula():
    components, levels = 4, 5
    assert parameters_of(3, 10) == 100
    assert parameters_of(1, 10) == 30
    for outputs in torch.randn(3, parameters_of(3, components)):
        mixture = LogisticMixture.of(outputs, 3)
        for x in itertools.product(range(levels), repeat=3):
            expected = mixture_by_hand(x, outputs.numpy(), levels, components)
            actual = mixture.log_prob(torch.tensor(x), levels).exp().item()
            assert actual == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("channels", "levels"), [(1, 256), (2, 7), (3, 4)])
@pytest.mark.parametrize("spread", [0.3, 3.0, 8.0])
def test_probabilities_of_a_pixel_sum_to_one(channels, levels, spread):
    """Also where scales are at their least, and means far outside."""
    every = every_image((channels,), levels)
    outputs = spread * torch.randn(5, 1, parameters_of(channels, 3))
    log_prob = LogisticMixture.of(outputs.expand(-1, len(every), -1), channels).log_prob(
        every.expand(5, -1, -1), levels
    )
    assert torch.isfinite(log_prob).all()
    torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(5), rtol=0, atol=1e-12)


def test_gradients_are_finite_where_probabilities_vanish():
    torch.set_default_dtype(torch.float32)
    outputs = (30 * torch.randn(200, parameters_of(3, 2))).requires_grad_()
    log_prob = LogisticMixture.of(outputs, 3).log_prob(torch.randint(256, (200, 3)), 256)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(outputs.grad).all()


def test_drawn_levels_follow_the_mixture():
    n, levels, every = 20_000, 3, every_image((3,), 3)
    outputs = torch.randn(parameters_of(3, 2))
    drawn = LogisticMixture.of(outputs.expand(n, -1), 3).draw(
        levels, torch.Generator().manual_seed(1)
    )
    observed = torch.bincount((drawn * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    mixture = LogisticMixture.of(outputs.expand(27, -1), 3)
    expected = n * mixture.log_prob(every, levels).exp()
    assert stats.chisquare(observed, expected).pvalue > 1e-3


# ----------------------------------------------------------------------------- networks


@every_network
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 2), 3), ((3, 1, 2), 2), ((2, 2, 1), 3)])
def test_probabilities_of_all_images_sum_to_one(name, shape, levels):
    model, every = new(name, shape, levels), every_image(shape, levels)
    assert isinstance(model, HasLogProb)
    assert isinstance(model, HasSample)
    log_prob = model.log_prob(every)
    assert abs(log_prob.exp().sum().item() - 1) < 1e-12
    assert log_prob.exp().std() > 1e-4


@every_network
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_features_see_all_pixels_before_and_nothing_else(name):
    grid = (5, 4)
    model, x = new(name, (2, *grid), 4), torch.randn(1, *grid, 2, requires_grad=True)
    features = model.features(x).flatten(0, 2)
    gradients = [
        torch.autograd.grad((row * torch.randn(6)).sum(), x, retain_graph=True)[0]
        for row in features
    ]
    seen = torch.stack(gradients).abs().flatten(0, 1).sum(-1).flatten(1) > 0
    assert torch.equal(seen, torch.ones(20, 20).tril(-1) > 0)


@every_network
@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 4, 3), (1, 3, 1)])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_fast_sampling_gives_what_slow_sampling_gives(name, shape):
    model = new(name, shape, 256, dropout=0.5)
    fast, slow, other = (
        draw(4, torch.Generator().manual_seed(seed))
        for draw, seed in ((model.sample, 4), (model.sample_uncached, 4), (model.sample, 5))
    )
    assert fast.dtype == torch.uint8
    assert torch.equal(fast, slow)
    assert not torch.equal(fast, other)
    assert model.training


@every_network
def test_cached_networks_give_the_features_of_the_whole_network(name):
    model, x = new(name, (2, 5, 6), 4).eval(), torch.randn(3, 5, 6, 2)
    with torch.no_grad():
        expected, cached = model.features(x), model.cached(3)
        for row in range(5):
            cached.begin_row(row)
            for column in range(6):
                features = cached.step(column)
                torch.testing.assert_close(features, expected[:, row, column], rtol=0, atol=1e-11)
                cached.feed(x[:, row, column], column)


@every_network
def test_gradients_reach_every_parameter(name):
    model = new(name, (3, 6, 5), 8)
    model.log_prob(images((3, 6, 5), 8, 20)).mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@every_network
def test_state_dict_holds_everything(name):
    shape = (1, 4, 4)
    model, fresh, x = new(name, shape, 8), new(name, shape, 8), images(shape, 8, 5)
    assert not torch.allclose(fresh.log_prob(x), model.log_prob(x))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))


@every_network
def test_examples_do_not_touch_each_other_and_single_precision_agrees(name):
    model, x = new(name, (3, 4, 5), 256), images((3, 4, 5), 256, 6)
    expected = model.log_prob(x)
    alone = torch.cat([model.log_prob(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(expected, alone, rtol=0, atol=1e-9)
    actual = model.float().log_prob(x)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3)


@every_network
def test_the_first_batch_sets_the_outputs(name):
    """The numbers of the mixtures, and so all before, have mean 0 and deviation 1 over it."""
    model, x = new(name, (1, 5, 5), 17, dropout=0.5), images((1, 5, 5), 17, 60)
    assert isinstance(model, InitialisesOnData)
    model.initialise(x)
    seen = []
    model.head.register_forward_hook(lambda layer, inputs, y: seen.append(y.flatten(0, -2)))
    model.eval().log_prob(x)
    deviation, mean = torch.std_mean(seen[0], 0, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-9)
    torch.testing.assert_close(deviation, torch.ones_like(deviation))


@every_network
@pytest.mark.parametrize("levels", [1, 257])
def test_levels_that_no_byte_holds_are_refused(name, levels):
    with pytest.raises(DeclarationError, match=f"{levels} levels"):
        new(name, (1, 4, 4), levels)


def test_attention_is_that_of_the_formula():
    """Softmax over a zero logit and those of all earlier positions, values the second half."""
    attention = new("pixelsnail", (2, 2, 3), 4).groups[0].attention
    x, pixels = torch.randn(2, 2, 3, 8), torch.randn(2, 2, 3, 2)
    y = attention(x, pixels).flatten(1, 2)
    query = attention.queries(x).flatten(1, 2)
    keys, values = attention.keys_and_values(torch.cat([x, pixels], -1))
    keys, values = keys.flatten(1, 2), values.flatten(1, 2)
    for i in range(6):
        weights = (torch.einsum("nd,njd->nj", query[:, i], keys[:, :i]) / 3**0.5).exp()
        expected = torch.einsum("nj,njd->nd", weights, values[:, :i])
        torch.testing.assert_close(y[:, i], expected / (1 + weights.sum(1, keepdim=True)))
