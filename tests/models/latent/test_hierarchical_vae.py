"""Several stochastic layers: densities and objectives by NumPy, probabilities by enumeration."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.bounds.variational import importance_bound
from dgm_bench.models.latent.hierarchical_vae import HierarchicalVAE
from dgm_bench.spec import ObjectiveSpec
from dgm_bench.train.objectives import build_objective

TWO = {"latents": [3, 2], "hidden": [[7, 6], [5]]}


def away_from_zero(model, spread=0.3):
    for parameter in model.parameters():
        parameter.data += spread * torch.randn_like(parameter)
    return model.eval()


def objective(name, samples):
    return build_objective(ObjectiveSpec(name=name, args={"samples": samples}))


# ------------------------------------------------------------------------------ by NumPy


def chain(layers, x):
    """Linear layers with tanh between them and after all; weights from a list of pairs."""
    for weight, bias in layers:
        x = np.tanh(x @ weight.T + bias)
    return x


def arrays(module):
    linear = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    return [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in linear]


def gaussian(layer, x):
    *features, mean, log_scale = arrays(layer)
    features = chain(features, x)
    return tuple(features @ weight.T + bias for weight, bias in (mean, log_scale))


def log_normal(h, mean, log_scale):
    square = ((h - mean) / np.exp(log_scale)) ** 2
    return (-0.5 * (math.log(2 * math.pi) + square) - log_scale).sum(-1)


def log_weights(model, x, samples, noise):
    """Log importance weights by the paper's formulas, with the draws of the given noise."""
    below, log_w, layers = x[:, None], 0.0, []
    for encoder, width in zip(model.encoders, model.latents, strict=True):
        mean, log_scale = gaussian(encoder, below)
        e = torch.empty(len(x), samples, width).normal_(generator=noise).numpy()
        below = mean + np.exp(log_scale) * e
        layers.append(below)
        log_w = log_w - log_normal(below, mean, log_scale)
    log_w = log_w + log_normal(layers[-1], 0.0, np.zeros(1))
    for decoder, h, above in zip(model.decoders, layers[:-1], layers[1:], strict=True):
        log_w = log_w + log_normal(h, *gaussian(decoder, above))
    *features, (weight, bias) = arrays(model.decoder)
    p = 1 / (1 + np.exp(-(chain(features, layers[0]) @ weight.T + bias)))
    return log_w + np.log(np.where(x[:, None] == 1, p, 1 - p)).sum(-1)


@pytest.mark.parametrize("args", [{"latents": [3], "hidden": [[7, 6]]}, TWO])
def test_weights_and_objectives_are_those_of_the_formulas(args):
    model = away_from_zero(HierarchicalVAE((2, 2), **args))
    x = torch.rand(6, 2, 2).round()
    expected = log_weights(model, x.flatten(1).numpy(), 5, torch.Generator().manual_seed(2))
    draws = model.draw(x, 5, torch.Generator().manual_seed(2))
    np.testing.assert_allclose(draws.log_weight.detach().numpy(), expected, rtol=1e-12)
    bounds = {"iwae": np.log(np.exp(expected).mean(1)).mean(), "elbo": expected.mean()}
    for name, bound in bounds.items():
        loss = objective(name, 5)(model, x, 0, torch.Generator().manual_seed(2)).total
        assert loss.item() == pytest.approx(-bound, rel=1e-12)


@pytest.mark.parametrize("name", ["iwae", "elbo"])
def test_gradients_are_weighted_by_shares_or_equally(name):
    """Equation 14: each sample's gradient has its weight's share; that of the VAE has 1 / k."""
    model, x = away_from_zero(HierarchicalVAE((4,), **TWO)), torch.rand(3, 4).round()
    loss = objective(name, 4)(model, x, 0, torch.Generator().manual_seed(5)).total
    log_weight = model.draw(x, 4, torch.Generator().manual_seed(5)).log_weight
    weights = np.exp(log_weight.detach().numpy())
    shares = weights / weights.sum(1, keepdims=True) if name == "iwae" else np.full((3, 4), 0.25)
    assert np.ptp(shares) > 0.1 or name == "elbo"
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters)
    surrogate = -(torch.from_numpy(shares) * log_weight).sum(1).mean()
    expected = torch.autograd.grad(surrogate, parameters)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in found)


def test_with_one_sample_both_objectives_are_the_same():
    model, x = away_from_zero(HierarchicalVAE((4,), **TWO)), torch.rand(3, 4).round()
    values = [objective(name, 1)(model, x, 0, torch.Generator().manual_seed(5)).total
              for name in ("iwae", "elbo")]  # fmt: skip
    torch.testing.assert_close(*values)


# ------------------------------------------------------------------------- probabilities


@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_probabilities_of_all_examples_sum_to_one(generator):
    """Two layers: only densities that match each other, layer by layer, give 1."""
    model = away_from_zero(HierarchicalVAE((3,), latents=[2, 1], hidden=[[5], [4]]), 0.15)
    for encoder in model.encoders:  # wider than the prior: no weight is far above the others
        for head, bias in ((encoder.mean, 0.0), (encoder.log_scale, 0.5)):
            torch.nn.init.normal_(head.weight, std=0.1)
            torch.nn.init.constant_(head.bias, bias)
    x = torch.tensor(list(product((0.0, 1.0), repeat=3)))
    found = importance_bound(model, x, 20_000, generator)
    p = found.log_marginal.exp()
    error = (p * found.error).square().sum().sqrt()
    assert abs(p.sum() - 1) < 4 * error < 0.03
    means = model.sample(20_000, generator)
    expected = (p[:, None] * x).sum(0)
    assert ((means.mean(0) - expected).abs() < 4 * means.std(0) / math.sqrt(20_000) + 0.01).all()


# --------------------------------------------------------------------------- its start


def test_it_starts_as_glorot_and_at_the_pixels_log_odds():
    model, x = (
        HierarchicalVAE((40,), latents=[30, 20], hidden=[[60, 60], [50]]),
        torch.rand(500, 40),
    )
    model.initialise((x < torch.linspace(0, 1, 40)).double())
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    for layer in layers:
        limit = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.97 * limit < layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)
        assert layer is model.decoder[-1] or not layer.bias.any()
    means = (x < torch.linspace(0, 1, 40)).double().mean(0).clamp(1e-3, 1 - 1e-3)
    torch.testing.assert_close(model.decoder[-1].bias.sigmoid(), means)
    widths = [(m.in_features, m.out_features) for m in model.decoders[0].modules() if m in layers]
    assert widths == [(20, 50), (50, 30), (50, 30)]


@pytest.mark.parametrize(
    ("latents", "hidden"), [([], []), ([2], [[3], [3]]), ([2, 2], [[3]]), ([2], [[]])]
)
def test_layers_without_their_widths_are_refused(latents, hidden):
    with pytest.raises(DeclarationError, match="give some widths for each"):
        HierarchicalVAE((4,), latents=latents, hidden=hidden)
