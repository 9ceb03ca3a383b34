"""StyleGAN's own parts: styles, noise, mixing, and truncation of w."""

import numpy as np
import pytest
import torch

from dgm_bench.models.adversarial.equalised import blurred, doubled, instance_norm, leaky
from dgm_bench.models.adversarial.stylegan import StyledLayer, StyleGAN

LABELS = torch.zeros(3, dtype=torch.int64)


def new(**changes):
    args = {"latent": 6, "filters": [5, 4]} | changes
    return StyleGAN((2, 8, 8), **args)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def test_a_layer_is_its_formula():
    """AdaIN(x, y) = y_s (x - mean) / sd + y_b of noisy, convolved x (equation 1); y_s around 1."""
    layer, x, w = StyledLayer(4, 3, 6), torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    torch.nn.init.normal_(layer.noise)
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.normal_(layer.style.bias)
    y = torch.nn.functional.conv2d(x, layer.convolution.weight * np.sqrt(2 / 36), padding=1)
    noise = torch.randn(2, 1, 5, 5, generator=seeded())
    a = (y + layer.noise * noise + layer.bias).detach().numpy()
    a = np.where(a > 0, a, 0.2 * a)
    a = (a - a.mean(axis=(2, 3), keepdims=True)) / a.std(axis=(2, 3), keepdims=True)
    style = (w @ layer.style.weight.T / np.sqrt(6) + layer.style.bias).detach().numpy()
    expected = (1 + style[:, :3, None, None]) * a + style[:, 3:, None, None]
    found = layer(x, w, seeded()).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_doubled_features_are_blurred_where_declared():
    x, w = torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    smooth, rough = (StyledLayer(4, 3, 6, True, blurs) for blurs in (True, False))
    rough.load_state_dict(smooth.state_dict())
    assert not torch.allclose(smooth(x, w, seeded()), rough(x, w, seeded()))
    weight = smooth.convolution.scaled()
    plain = torch.nn.functional.conv2d(doubled(x), weight, padding=1)
    for layer, features in ((smooth, blurred(plain)), (rough, plain)):
        y = instance_norm(leaky(features + layer.bias))
        scale, shift = layer.style(w)[:, :, None, None].chunk(2, 1)
        torch.testing.assert_close(layer(x, w, seeded()), (1 + scale) * y + shift)
    model = new(bilinear=False)
    blocks = (*model.generator.layers, *model.discriminator.blocks)
    assert not any(
        getattr(block, "blurs", None) or getattr(block, "blur", None) for block in blocks
    )


def test_mapping_has_eight_layers_and_ignores_the_length_of_noise():
    mapping, z = new().generator.mapping, torch.randn(3, 6)
    assert len(mapping) == 8
    assert len(new(mapping_layers=2).generator.mapping) == 2
    assert {layer.rate for layer in mapping} == {0.01}
    torch.testing.assert_close(mapping(3 * z), mapping(z), rtol=1e-6, atol=1e-6)


def test_images_depend_on_noise_of_the_generator_given():
    model, w = new().eval(), torch.randn(3, 6)
    for layer in model.generator.layers:
        torch.nn.init.ones_(layer.noise)
    styles = model.generator.same_for_all(w)
    first, again, other = (model.generator.synthesised(styles, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(*(model.draw_images(LABELS, seeded()) for _ in range(2)))


def test_styles_of_a_layer_change_what_comes_after_it_only():
    model, w = new().eval(), torch.randn(3, 4, 6)
    seen = []
    for layer in model.generator.layers:
        layer.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    model.generator.synthesised(w, seeded())
    changed = w.clone()
    changed[:, 2] += 1
    model.generator.synthesised(changed, seeded())
    same = [torch.equal(a, b) for a, b in zip(seen[:4], seen[4:], strict=True)]
    assert same == [True, True, False, False]


# ----------------------------------------------------------------- mixing


def test_a_batch_has_two_styles_as_often_as_declared():
    model = new(mixing=0.75)
    z = torch.randn(2, 6)
    w = model.generator.mapping(z)
    cuts = []
    for _ in range(400):
        own = (model.generator._mixed(w, z) == w[:, None]).all(2)
        assert torch.equal(own[0], own[1])
        cuts.append(int(own[0].sum()))
        assert own[0, : cuts[-1]].all()
    assert cuts.count(4) / 400 == pytest.approx(0.25, abs=0.07)
    assert {cuts.count(n) > 60 for n in (1, 2, 3)} == {True}
    assert min(cuts) == 1


def test_styles_are_mixed_among_layers_that_there_are():
    model = new(mixing=0.999)
    model.generator.level = 0.0
    z = torch.randn(2, 6)
    w = model.generator.mapping(z)
    for _ in range(20):
        assert int((model.generator._mixed(w, z) == w[:, None]).all(2)[0].sum()) == 1


def test_evaluation_is_without_mixing_and_draws_nothing():
    model, z = new(mixing=0.999).eval(), torch.randn(3, 6)
    for layer in model.generator.layers:
        torch.nn.init.ones_(layer.noise)
    before = torch.get_rng_state()
    images = [model.generator(z) for _ in range(2)]
    assert torch.equal(*images)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.allclose(model.train().generator(z), images[0])


# ----------------------------------------------------------------- truncation


def test_the_mean_of_w_follows_training_alone():
    model, expected = new(), np.zeros(6)
    for _ in range(3):
        z = torch.randn(4, 6)
        model.train().generator(z)
        mean = model.generator.mapping(z).mean(0).detach().numpy()
        expected = 0.995 * expected + 0.005 * mean
        model.eval().generator(z)
    np.testing.assert_allclose(model.generator.mean_w.numpy(), expected, rtol=1e-9)


def test_truncation_moves_w_towards_its_mean():
    model, w = new().generator, torch.randn(3, 6)
    torch.nn.init.normal_(model.mean_w)
    half = model.mean_w + 0.5 * (w - model.mean_w)
    torch.testing.assert_close(model.truncated(w, 0.5, None), half[:, None].expand(-1, 4, -1))
    some = model.truncated(w, 0.5, 1)
    torch.testing.assert_close(some[:, 0], half)
    assert torch.equal(some[:, 1:], w[:, None].expand(-1, 3, -1))


def test_truncation_at_one_is_a_plain_sample():
    model = new().eval()
    torch.nn.init.normal_(model.generator.mean_w)
    z = model.draw_noise(3, source := seeded())
    styles = model.generator.same_for_all(model.generator.mapping(z))
    plain = model.generator.synthesised(styles, source)
    expected = ((plain + 1) / 2).clamp(0, 1)
    assert torch.equal(model.draw_truncated(LABELS, 1.0, seeded()), expected)
    assert torch.equal(model.draw_images(LABELS, seeded()), expected)


def test_only_the_first_layers_are_truncated_where_declared():
    model = new(truncated_layers=2).eval()
    images = model.draw_truncated(LABELS, 0.0, seeded())
    assert images.var(0).max() > 1e-6
