"""Adversarial variational Bayes: its bound, its players, and what its bound is compared with."""

import math
from pathlib import Path

import pytest
import torch
from factories import make_context, make_dataset, make_stage
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.bounds.avb import avb_metrics, bounds, entropy
from dgm_bench.metrics.evaluate import require_fit
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.quadrature import log_density_of_pairs, log_marginal
from dgm_bench.models.build import build
from dgm_bench.models.latent.avb import AVB, VAE, Contrast
from dgm_bench.spec import (
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train.adversarial_bayes import adversarial_variational_bayes, player_losses
from dgm_bench.train.loop import Trainer

SMALL = {"hidden": (16, 16), "discriminator_hidden": (16,)}


def gaussian_of(game, x):
    """The posterior's mean and deviation."""
    mean, variance = game.posterior.moments(game.encoder(x.flatten(1)))
    return mean, variance.sqrt()


def optimal(game, x, contrast=None):
    """The discriminator at its optimum, ``log q(z|x) - log r(z|x)``, for draws of all ``x``."""

    def discriminator(inputs):
        standardised = inputs[:, -game.latent :].view(len(x), -1, game.latent)
        mean, scale = gaussian_of(game, x)
        at = contrast or Contrast(torch.zeros_like(mean), torch.ones_like(mean))
        z = at.location[:, None] + at.scale[:, None] * standardised
        log_q = Normal(mean[:, None], scale[:, None]).log_prob(z).sum(-1)
        log_r = Normal(at.location[:, None], at.scale[:, None]).log_prob(z).sum(-1)
        return (log_q - log_r).view(-1, 1)

    return discriminator


def test_with_the_optimal_discriminator_the_bound_is_the_elbo(generator):
    game = AVB((3,), likelihood="gaussian", posterior="gaussian", **SMALL)
    x = torch.randn(5, 3)
    z, log_q = game.draw_posterior(x, 20_000, generator)
    ratio = game.log_ratio(x, z, game.contrast(x, generator), optimal(game, x))
    torch.testing.assert_close(ratio, log_q - game.log_prior(z), rtol=0, atol=1e-10)
    mean, scale = gaussian_of(game, x)
    exact = (0.5 * (mean.square() + scale.square() - 1) - scale.log()).sum(1)
    error = ratio.std(1) / math.sqrt(ratio.shape[1])
    assert ((ratio.mean(1) - exact).abs() < 4 * error).all()


def test_the_ratio_does_not_depend_on_the_adaptive_contrast(generator):
    game = AVB((3,), posterior="gaussian", contrast_draws=7, **SMALL)
    x = torch.randn(5, 3)
    z, log_q = game.draw_posterior(x, 50, generator)
    for _ in range(3):
        contrast = game.contrast(x, generator)
        ratio = game.log_ratio(x, z, contrast, optimal(game, x, contrast))
        torch.testing.assert_close(ratio, log_q - game.log_prior(z), rtol=0, atol=1e-10)


def test_the_adaptive_contrast_has_the_moments_of_the_posterior(generator):
    game = AVB((3,), posterior="gaussian", contrast_draws=40_000, **SMALL)
    x = torch.randn(4, 3)
    contrast, (mean, scale) = game.contrast(x, generator), gaussian_of(game, x)
    torch.testing.assert_close(contrast.location, mean, rtol=0, atol=0.03)
    torch.testing.assert_close(contrast.scale, scale, rtol=0.02, atol=0)
    assert not contrast.location.requires_grad


def test_a_trained_discriminator_recovers_the_ratio_of_two_gaussians(generator):
    """To 0.1 nats on average over draws from the posterior, whose divergence is 0.97 nats."""
    game = AVB((1,), posterior="gaussian", hidden=(4,), discriminator_hidden=(32, 32))
    for layer in (game.posterior.mean, game.posterior.raw_variance):
        nn.init.zeros_(layer.weight)
    game.posterior.mean.bias.data = torch.tensor([1.0, -0.5])
    game.posterior.raw_variance.bias.data = torch.tensor([-1.2, -0.2])
    x = torch.zeros(512, 1)
    optimizer = torch.optim.Adam(game.discriminator.parameters(), lr=3e-3)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 600)
        optimizer.zero_grad()
        player_losses(game, x, generator, both=False)["discriminator"].backward()
        optimizer.step()
    found = bounds(game.eval(), x[:1], generator, 5_000)
    z, log_q = game.draw_posterior(x[:1], 5_000, generator)
    error = game.log_ratio(x[:1], z, game.contrast(x[:1], generator)) - log_q + game.log_prior(z)
    assert found.true.item() > 0.9
    assert error.abs().mean() < 0.1
    assert (found.estimated - found.true).abs().item() < 0.05


@pytest.mark.parametrize("contrast_draws", [None, 8])
@pytest.mark.parametrize("posterior", ["implicit", "gaussian"])
def test_each_loss_moves_its_own_player_only(posterior, contrast_draws, generator):
    game = AVB((3,), posterior=posterior, contrast_draws=contrast_draws, **SMALL)
    own = {f"discriminator.{name}" for name, _ in game.discriminator.named_parameters()}
    every = {name for name, _ in game.named_parameters()}
    losses = player_losses(game, torch.rand(6, 3).round(), generator, both=True)
    for player, expected in (("discriminator", own), ("negative-elbo", every - own)):
        game.zero_grad()
        losses[player].backward()
        moved = {n for n, p in game.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == expected


def test_between_two_updates_the_discriminator_moves_alone(generator):
    game, x = AVB((3,), **SMALL), torch.rand(6, 3).round()
    loss = adversarial_variational_bayes(3)
    players = [set(loss(game, x, step, generator).terms) for step in range(4)]
    alone, both = {"discriminator"}, {"discriminator", "negative-elbo"}
    assert players == [both, alone, alone, both]
    assert set(loss(game.eval(), x, 1, generator).terms) == {"negative-elbo"}
    with pytest.raises(DeclarationError, match="0 steps"):
        adversarial_variational_bayes(0)


def test_quadrature_of_a_linear_gaussian_decoder_is_its_closed_form():
    game = AVB((3,), likelihood="gaussian", **SMALL)
    linear = game.decoder.network = nn.Linear(2, 3)
    game.decoder.log_scale.data = torch.tensor([-0.5, 0.1, -0.2])
    x = torch.randn(6, 3)
    noise = torch.diag((2 * game.decoder.log_scale).exp())
    exact = MultivariateNormal(linear.bias, linear.weight @ linear.weight.T + noise).log_prob(x)
    torch.testing.assert_close(log_marginal(game, x, 200, 6.0), exact, rtol=0, atol=1e-6)


def test_every_pair_of_binary_examples_and_latent_variables():
    game = AVB((1, 2, 2), **SMALL)
    given, x = game.decode(torch.randn(7, 2)), torch.rand(5, 4).round()
    torch.testing.assert_close(log_density_of_pairs(given, x), given.log_prob(x[:, None]))


def test_entropy_of_gaussians(generator):
    scale = torch.linspace(-6, 1, 30).exp()[:, None, None] * torch.tensor([1.0, 0.2])
    draws = scale * torch.randn(30, 2_000, 2, generator=generator)
    exact = scale.log().sum((1, 2)) + 1 + math.log(2 * math.pi)
    error = entropy(draws) - exact
    assert error.abs().max() < 0.15
    assert abs(error.mean()) < 0.02


def test_entropy_by_distance_agrees_with_the_known_density(generator, monkeypatch):
    game, x = AVB((3,), posterior="gaussian", **SMALL).eval(), torch.randn(30, 3)
    known = bounds(game, x, generator, 2_000).true
    draw = game.draw_posterior
    monkeypatch.setattr(game, "draw_posterior", lambda *args: (draw(*args)[0], None))
    assert abs((bounds(game, x, generator, 2_000).true - known).mean()) < 0.03


@pytest.mark.parametrize("posterior", ["implicit", "gaussian", None])
def test_true_bounds_are_below_the_likelihood(posterior, generator):
    x = torch.randn(30, 2)
    data = Dataset("toy", "1", {"train": x, "val": x, "test": x})
    kinds = {"likelihood": "gaussian", "hidden": (16, 16)}
    model = VAE((2,), **kinds) if posterior is None else AVB((2,), posterior=posterior, **kinds)
    metrics = avb_metrics(Evaluation(model.eval(), data, EvaluationSpec(), 1, Path()))
    value = {metric.name: metric.value for metric in metrics}
    assert value["posterior-gap"] > 0
    assert value["quadrature-error"] < 1e-6
    gap = value["negative-elbo-true"] - value["nll-quadrature"]
    assert gap == pytest.approx(value["posterior-gap"])
    error = value["negative-elbo"] - value["negative-elbo-true"]
    assert error == pytest.approx(value["discriminator-error"])
    assert (error == 0) == (posterior is None)


def test_the_quadrature_needs_two_latent_variables():
    x = torch.rand(4, 3).round()
    data = Dataset("toy", "1", {"train": x, "val": x, "test": x})
    with pytest.raises(DeclarationError, match="3 dimensions"):
        require_fit(EvaluationSpec(metrics=("avb",)), AVB((3,), latent=3, **SMALL), data, Path())


@pytest.mark.parametrize("draws", [None, 8])
def test_training_through_the_loop_raises_the_true_bound(draws, generator):
    x = torch.randn(600, 1, generator=generator) * torch.tensor([2.0, 1.0]) + 3
    x = x + 0.3 * torch.randn(600, 2, generator=generator)
    data = make_dataset(x, 400, 100)
    args = {"likelihood": "gaussian", "contrast_draws": draws}
    stage = make_stage(
        ModelSpec(name="avb:AVB", args={**args, "hidden": [16], "noise": 2}),
        objective=ObjectiveSpec(name="avb", args={"discriminator_steps": 2}),
        optimizer=OptimizerSpec(lr=3e-3, betas=(0.5, 0.999)),
        batch_size=64,
        validation=ValidationSpec(every=50, unit="steps"),
        stopping=StoppingSpec(max_steps=300),
    )
    game = build(stage.model, data.event_shape)
    before = bounds(game, data.splits["test"], generator, 200)
    trainer = Trainer(stage, game, data, make_context(), seed=0)
    assert trainer.run() == "max_steps"
    losses = [row[4] for row in trainer.tally.curve]
    assert losses[-1] < losses[0] - 0.5
    after = bounds(game.eval(), data.splits["test"], generator, 200)
    assert (after.fit - after.true).mean() > (before.fit - before.true).mean() + 1


def test_samples_repeat_with_their_generator():
    for model in (AVB((1, 2, 2), **SMALL), VAE((1, 2, 2), hidden=(8, 8))):
        first, again = (model.sample(5, torch.Generator().manual_seed(1)) for _ in range(2))
        assert first.shape == (5, 1, 2, 2)
        assert torch.equal(first, again)
