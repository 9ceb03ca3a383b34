"""Layers with equalised rates, norms, deviations over a batch, and resampling."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate

from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.equalised import (
    EqualisedConv,
    EqualisedLinear,
    MinibatchDeviation,
    blurred,
    doubled,
    halved,
    instance_norm,
    pixel_norm,
)
from dgm_bench.models.whole_batch import Slice, sharing


def test_pixel_norm_is_its_formula():
    """b = a / sqrt(mean over features of a^2 + 1e-8), equation of section 4.2."""
    x = torch.randn(3, 5, 2, 4)
    a = x.numpy()
    expected = a / np.sqrt((a**2).mean(axis=1, keepdims=True) + 1e-8)
    np.testing.assert_allclose(pixel_norm(x).numpy(), expected, rtol=1e-12)
    z = pixel_norm(torch.randn(4, 7))
    torch.testing.assert_close(z.norm(dim=1), torch.full((4,), math.sqrt(7)))


def test_instance_norm_is_its_formula():
    x = 3 * torch.randn(3, 5, 2, 4) + 1
    a = x.numpy()
    mean, sd = a.mean(axis=(2, 3), keepdims=True), a.std(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(instance_norm(x).numpy(), (a - mean) / sd, rtol=1e-6)


@pytest.mark.parametrize(("group", "members"), [(None, [range(6)]), (3, [(0, 2, 4), (1, 3, 5)])])
def test_minibatch_deviation_is_one_number_of_a_group(group, members):
    """The deviation over images at each place, averaged over channels and pixels (section 3)."""
    x = torch.randn(6, 5, 2, 4)
    y = MinibatchDeviation(group)(x)
    assert y.shape == (6, 6, 2, 4)
    assert torch.equal(y[:, :5], x)
    for images in members:
        deviation = x.numpy()[list(images)].std(axis=0).mean()
        np.testing.assert_allclose(y[list(images), 5].numpy(), deviation, rtol=1e-6)


def test_a_group_is_at_most_the_batch_and_divides_it():
    x = torch.randn(4, 2, 4, 4)
    assert torch.equal(MinibatchDeviation(9)(x), MinibatchDeviation(None)(x))
    with pytest.raises(DeclarationError, match="4 images"):
        MinibatchDeviation(3)(x)
    with sharing(Slice(0, 2, 8)), pytest.raises(DeclarationError, match="divided"):
        MinibatchDeviation(2)(x)


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_a_step_changes_all_weights_by_the_same_part_of_their_scale(rate):
    """With Adam, whatever the inputs are; that is what equalised rates are for (section 4.1)."""
    layers = [EqualisedLinear(n, 200, rate=rate) for n in (4, 50, 400)]
    before = [layer.scaled().detach().clone() for layer in layers]
    optimizer = torch.optim.Adam([p for layer in layers for p in layer.parameters()], lr=0.1)
    sum(layer(torch.randn(20, layer.weight.shape[1])).square().sum() for layer in layers).backward()
    optimizer.step()
    for layer, old in zip(layers, before, strict=True):
        moved = (layer.scaled() - old).abs().mean() / old.std()
        assert moved.item() == pytest.approx(0.1 * rate, rel=0.1)
        assert old.std().item() == pytest.approx(math.sqrt(2 / layer.weight.shape[1]), rel=0.1)


def test_biases_learn_as_slowly_as_weights():
    layer = EqualisedLinear(3, 2, rate=0.01)
    nn.init.ones_(layer.bias)
    torch.testing.assert_close(layer(torch.zeros(1, 3)), torch.full((1, 2), 0.01))


def test_convolution_has_its_scale_and_size():
    layer, x = EqualisedConv(4, 7, 3, gain=1), torch.randn(2, 4, 5, 6)
    expected = conv2d(x, layer.weight / 6, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_halving_undoes_doubling():
    x = torch.randn(2, 3, 4, 6)
    assert doubled(x, 2).shape == (2, 3, 16, 24)
    torch.testing.assert_close(halved(doubled(x, 2), 2), x)
    assert torch.equal(doubled(doubled(x)), doubled(x, 2))


def test_doubling_and_a_blur_are_bilinear_but_at_the_edges():
    x = torch.randn(2, 3, 4, 6)
    expected = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(blurred(doubled(x))[inner], expected[inner])
