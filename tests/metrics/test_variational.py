"""Bounds of latent variable models: against closed forms, in their averages, in what they need."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.bounds.variational import elbo_metrics, importance_bound, importance_metrics
from dgm_bench.metrics.evaluate import require_fit
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.models.build import build
from dgm_bench.models.flows.flow import StandardNormal
from dgm_bench.models.latent.gated_vae import ConvVAE
from dgm_bench.models.latent.latent_variable_model import LatentVariableModel
from dgm_bench.models.latent.likelihoods import PixelLevels
from dgm_bench.models.latent.posteriors.gaussian import GaussianPosterior
from dgm_bench.models.networks.gated import ConvDecoder, Gated
from dgm_bench.spec import EvaluationSpec, ModelSpec, ObjectiveSpec
from dgm_bench.train.objectives import (
    build_objective,
    negative_importance_bound,
    warmed_negative_elbo,
)

DENSE = ModelSpec(name="gated_vae:DenseVAE", args={"latent": 3, "hidden": 12})


class LinearVAE(LatentVariableModel):
    """``z ~ N(0, I)``, ``x = W z + b + noise``: probabilistic principal components."""

    def __init__(self, dim, latent, noise=0.5):
        decoder = nn.Linear(latent, dim)
        posterior = GaussianPosterior(dim, latent)
        super().__init__((dim,), latent, nn.Identity(), posterior, StandardNormal(latent), decoder)
        self.noise = noise

    def likelihood(self, outputs):
        return Independent(Normal(outputs, self.noise), 1)

    def marginal(self):
        """``p(x)``, which is Gaussian."""
        w = self.decoder.weight.detach()
        covariance = w @ w.T + self.noise**2 * torch.eye(len(w))
        return MultivariateNormal(self.decoder.bias.detach(), covariance)

    def use_true_posterior(self, spread=1.0):
        """Give the encoder the mean of ``p(z|x)``, and its variances times ``spread``."""
        w = self.decoder.weight.detach()
        covariance = torch.linalg.inv(torch.eye(w.shape[1]) + w.T @ w / self.noise**2)
        gain = covariance @ w.T / self.noise**2
        variance = spread * covariance.diagonal()
        with torch.no_grad():
            self.posterior.mean.weight.copy_(gain)
            self.posterior.mean.bias.copy_(-gain @ self.decoder.bias)
            self.posterior.raw_variance.weight.zero_()
            self.posterior.raw_variance.bias.copy_(torch.expm1(variance).log())


@pytest.fixture
def linear(generator):
    """A linear model with columns at right angles, so that its posterior is diagonal."""
    torch.manual_seed(0)
    model = LinearVAE(6, 2)
    with torch.no_grad():
        model.decoder.weight.copy_(torch.linalg.qr(torch.randn(6, 2)).Q * torch.tensor([1.5, 0.7]))
    model.use_true_posterior()
    return model.eval(), model.marginal().sample((40,))


def test_every_draw_of_the_true_posterior_gives_the_likelihood(linear, generator):
    model, x = linear
    bound = model.draw(x, 5, generator).log_weight
    torch.testing.assert_close(bound, model.marginal().log_prob(x)[:, None].expand(-1, 5))


def test_the_elbo_is_below_the_likelihood_by_the_divergence(linear, generator):
    model, x = linear
    model.use_true_posterior(spread=2.0)
    truth = model.marginal().log_prob(x)
    draws = model.draw(x, 4_000, generator).log_weight
    gap = 2 * 0.5 * (2.0 - 1 - math.log(2.0))  # KL of two dimensions of twice the variance
    error = 4 * draws.std(1) / math.sqrt(4_000)
    assert ((truth - gap - draws.mean(1)).abs() < error).all()


def test_the_importance_bound_rises_to_the_likelihood(linear, generator):
    model, x = linear
    model.use_true_posterior(spread=2.0)
    truth = model.marginal().log_prob(x)
    gaps = []
    for samples in (1, 10, 100):
        found = importance_bound(model, x.repeat(100, 1), samples, generator, 10_000)
        gaps.append((truth.repeat(100) - found.log_marginal).mean().item())
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    found = importance_bound(model, x, 5_000, generator)
    assert ((truth - found.log_marginal).abs() < 4.5 * found.error).all()
    of_mean = found.error.square().sum().sqrt() / len(x)
    assert (truth - found.log_marginal).mean().abs() < 3 * of_mean


def exact_bound_gap(samples):
    """``L_k - log p(x)`` of two variables whose posterior has twice the variance of ``p(z|x)``.

    A weight is then ``2 exp(-r^2 / 2) p(x)`` with r^2 of two degrees of freedom, so that it is
    uniform between 0 and ``2 p(x)``, and the sum of k has the density of Irwin and Hall.
    """
    s = (np.arange(200_000) + 0.5) / 200_000 * samples
    terms = [
        (-1) ** j * math.comb(samples, j) * np.clip(s - j, 0, None) ** (samples - 1)
        for j in range(samples)
    ]
    density = sum(terms) * (s > 0) / math.factorial(samples - 1)
    return math.log(2 / samples) + float((density * np.log(s)).sum() * samples / len(s))


def test_the_bound_of_k_samples_has_its_exact_value(linear, generator):
    """The anchor of every number by importance weights: L_1 < L_2 < L_5 < log p(x), by formula."""
    model, x = linear
    model.use_true_posterior(spread=2.0)
    truth = model.marginal().log_prob(x)
    gaps = [exact_bound_gap(samples) for samples in (1, 2, 5, 10)]
    assert gaps[:2] == pytest.approx([math.log(2) - 1, 2 * math.log(2) - 1.5], abs=1e-4)
    assert gaps == sorted(gaps)
    assert gaps[-1] < 0
    for samples, gap in zip((1, 2, 5, 10), gaps, strict=True):
        found = importance_bound(model, x.repeat(500, 1), samples, generator, 40_000)
        excess = found.log_marginal - truth.repeat(500)
        assert abs(excess.mean() - gap) < 4 * excess.std() / math.sqrt(len(excess))
        loss = negative_importance_bound(samples)(model, x.repeat(500, 1), 0, generator).total
        assert abs(-loss - truth.mean() - gap) < 4 * excess.std() / math.sqrt(len(excess))


def test_effective_samples_of_a_known_ratio(linear, generator):
    """E[w]^2 / E[w^2] of a Gaussian under one of s times the variance: sqrt(2 s - 1) / s each."""
    model, x = linear
    model.use_true_posterior(spread=2.0)
    found = importance_bound(model, x[:2], 50_000, generator)
    expected = (math.sqrt(2 * 2.0 - 1) / 2.0) ** 2
    torch.testing.assert_close(found.effective, torch.full((2,), expected), rtol=0.02, atol=0)


@pytest.mark.parametrize("at_once", [8, 16, 40])
def test_chunks_change_nothing_but_rounding(linear, at_once):
    """Noise is the same in pieces as in one where pieces hold multiples of 16 numbers."""
    model, x = linear
    model.use_true_posterior(spread=1.5)
    whole = importance_bound(model, x[:1], 80, torch.Generator().manual_seed(1), 10**6)
    again = importance_bound(model, x[:1], 80, torch.Generator().manual_seed(1), at_once)
    for one, other in zip(vars(whole).values(), vars(again).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_no_more_draws_are_decoded_at_once_than_allowed(linear, generator):
    model, x = linear
    seen = []
    model.decoder.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    importance_bound(model, x[:3], 5_000, generator, draws_at_once=400)
    assert max(seen) <= 400
    assert sum(seen) == 3 * 5_000


# ------------------------------------------------------------------------------ averages


def binary_data(n=230):
    images = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(3)).round()
    return Dataset("binary", "1", {"train": images, "test": images})


def test_the_reported_elbo_weighs_the_last_batch_as_a_full_one():
    torch.manual_seed(0)
    model, data = build(DENSE, (1, 4, 4)).double().eval(), binary_data()
    spec = EvaluationSpec(metrics=("elbo",), batch_size=100)
    found = {m.name: m for m in elbo_metrics(Evaluation(model, data, spec, 1, Path()))}
    noise = torch.Generator().manual_seed(1)
    batches = [-model.elbo(x, noise).mean() for x in data.splits["test"].split(100)]
    reported, exact = (found[n].value for n in ("negative-elbo", "negative-elbo-exact"))
    assert reported == pytest.approx(sum(batches).item() / 3)
    assert exact == pytest.approx(
        (100 * batches[0] + 100 * batches[1] + 30 * batches[2]).item() / 230
    )
    assert exact == pytest.approx(found["reconstruction"].value + found["divergence"].value)
    assert found["negative-elbo"].n == 230


def test_importance_metrics_are_of_as_many_examples_as_asked():
    torch.manual_seed(0)
    model, data = build(DENSE, (1, 4, 4)).double().eval(), binary_data()
    spec = EvaluationSpec(metrics=("importance",), importance_samples=20, importance_examples=50)
    found = {m.name: m for m in importance_metrics(Evaluation(model, data, spec, 1, Path()))}
    assert found["importance-nll"].n == 50
    assert 0 < found["importance-error"].value < found["importance-nll"].se
    assert 0 < found["effective-samples"].value <= 1
    assert "20 importance samples for each of 50" in found["importance-nll"].protocol


def test_the_importance_bound_needs_a_number_of_samples():
    model, spec = build(DENSE, (1, 4, 4)).double().eval(), EvaluationSpec(metrics=("importance",))
    for refuse in (
        lambda: require_fit(spec, model, binary_data(), Path()),
        lambda: importance_metrics(Evaluation(model, binary_data(), spec, 1, Path())),
    ):
        with pytest.raises(DeclarationError, match=r"set evaluation\.importance_samples"):
            refuse()


# ------------------------------------------------------------------------------ the objective


def test_the_divergence_is_weighed_by_epoch_and_wholly_in_evaluation():
    torch.manual_seed(0)
    model, x = build(DENSE, (1, 4, 4)).double(), binary_data().splits["train"][:20]
    objective = warmed_negative_elbo(warmup_epochs=4, steps_per_epoch=10)

    def loss(step):
        return objective(model, x, step, torch.Generator().manual_seed(0))

    parts = loss(0).terms
    for step, weight in ((0, 0.25), (9, 0.25), (10, 0.5), (35, 1.0), (400, 1.0)):
        expected = parts["reconstruction"] + weight * parts["divergence"]
        torch.testing.assert_close(loss(step).total.detach(), expected)
    model.eval()
    torch.testing.assert_close(loss(0).total, parts["reconstruction"] + parts["divergence"])


def test_a_warm_up_without_epochs_is_refused():
    args = {"warmup_epochs": 0, "steps_per_epoch": 3}
    with pytest.raises(DeclarationError, match="no warm-up"):
        build_objective(ObjectiveSpec(name="warmed-elbo", args=args))


# ------------------------------------------------------------------------------ the parts


def test_a_gated_layer_is_its_values_times_its_gates():
    layer, x = nn.Linear(5, 6), torch.randn(3, 5)
    values, gates = layer(x).chunk(2, dim=1)
    torch.testing.assert_close(Gated(layer)(x), values * gates.sigmoid())


def test_a_gated_convolution_is_two_of_them():
    """In value and gradients, from maps in channels-last order."""
    layer = nn.Conv2d(3, 8, 3, padding=1).double().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    plain = [nn.functional.conv2d(x, w, b, padding=1) for w, b in halves_of(layer)]
    expected = plain[0] * plain[1].sigmoid()
    gated = Gated(layer)(x)
    torch.testing.assert_close(gated, expected)
    weights = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((h * weights).sum(), layer.weight)[0] for h in (gated, expected)
    ]
    torch.testing.assert_close(*gradients)


def halves_of(layer):
    return list(zip(layer.weight.chunk(2), layer.bias.chunk(2), strict=True))


@pytest.mark.parametrize("levels", [False, True])
def test_draws_are_decoded_in_parts_of_any_number_as_in_one(levels, monkeypatch):
    """Without gradients in parts; with them in one; both of two examples, in their order."""
    monkeypatch.setattr("dgm_bench.models.latent.latent_variable_model.DECODED_AT_ONCE", 3)
    model = ConvVAE((1, 4, 4), latent=2, levels=levels).double().eval()
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64).round()
    whole = model.draw(x, 4, torch.Generator().manual_seed(0)).log_likelihood
    with torch.no_grad():
        parts = model.draw(x, 4, torch.Generator().manual_seed(0)).log_likelihood
    torch.testing.assert_close(parts, whole.detach())


def test_pixel_levels_are_categorical():
    logits = torch.randn(4, 5, 256)
    value = torch.randint(256, (4, 5)) / 255
    density = PixelLevels(logits)
    each = logits.log_softmax(-1).gather(-1, (value * 255).round().long()[..., None]).squeeze(-1)
    torch.testing.assert_close(density.log_prob(value), each.sum(-1))
    levels = torch.arange(256) / 255
    torch.testing.assert_close(density.mean, (logits.softmax(-1) * levels).sum(-1))


def test_a_decoder_gives_the_levels_of_each_pixel():
    """The outputs are the last convolution's, with a pixel's levels beside each other."""
    torch.manual_seed(0)
    decoder = ConvDecoder(3, 1, (8, 4), levels=256)
    z = torch.randn(2, 3)
    maps = decoder.layers(z[:, :, None, None])
    assert maps.shape == (2, 256, 8, 4)
    outputs = decoder(z)
    assert outputs.shape == (2, 32, 256)
    torch.testing.assert_close(outputs[1, 6], maps[1, :, 1, 2])


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 28, 20), (3, 8, 8)])
def test_the_convolutional_model_gives_images_back(shape, generator):
    torch.manual_seed(0)
    model = build(ModelSpec(name="gated_vae:ConvVAE", args={"latent": 4}), shape)
    x = model.sample(2, generator)
    assert x.shape == (2, *shape)
    assert ((x >= 0) & (x <= 1)).all()
    assert model.elbo(x.round(), generator).shape == (2,)


def test_the_network_has_the_published_sizes():
    """Weights and biases of Sylvester's layers, counted by hand from protocols 2.3."""
    model = build(ModelSpec(name="gated_vae:ConvVAE", args={}), (1, 28, 28))

    def gated(inputs, outputs, kernel):
        return 2 * outputs * (inputs * kernel + 1)

    encoder = sum(gated(*layer) for layer in ((1, 32, 25), (32, 32, 25), (32, 64, 25), (64, 64, 25),
                                              (64, 64, 25), (64, 256, 49)))  # fmt: skip
    decoder = sum(
        gated(*layer) for layer in ((64, 64, 49), (64, 64, 25), (64, 32, 25), *3 * [(32, 32, 25)])
    )
    heads = 2 * (256 * 64 + 64)
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder + 33 + heads


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"posterior": "planer"}, "planar"),
        ({"prior": "standart"}, "standard"),
        ({"posterior": "planar", "posterior_args": {"layers": 3}}, "layers"),
        ({"posterior": "sylvester-orthogonal", "posterior_args": {"vectors": 65}}, "1 to 64"),
    ],
)
def test_wrong_parts_are_refused_in_one_line(args, text):
    with pytest.raises(DeclarationError, match=text) as refusal:
        build(ModelSpec(name="gated_vae:ConvVAE", args=args), (1, 28, 28))
    assert "\n" not in str(refusal.value)


def test_images_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(DeclarationError, match="DenseVAE"):
        build(ModelSpec(name="gated_vae:ConvVAE", args={}), (1, 10, 10))
