"""A learnt categorical prior, by enumeration; variance normalisation of score functions."""

from itertools import product

import pytest
import torch

from dgm_bench.models.latent.discrete import DiscreteVAE, LearntPriorDiscreteVAE, log_prob
from dgm_bench.models.networks.discrete_relaxations import log_gumbel_softmax
from dgm_bench.train.discrete_objectives import negative_discrete_elbo


def tiny(classes=3, cls=LearntPriorDiscreteVAE, **args):
    model = cls((5,), 2, classes, decoder_hidden=[4], **args)
    for parameter in model.parameters():
        parameter.data += 0.7 * torch.randn_like(parameter)
    return model


def binary(n):
    return (torch.rand(n, 5) < 0.5).double()


def all_values(model):
    eye = torch.eye(model.classes)
    return torch.stack([torch.stack(v) for v in product(eye, repeat=2)])


@pytest.mark.parametrize("classes", [2, 3])
def test_prior_divergence_and_bound_are_those_of_the_enumeration(classes, generator):
    model, x = tiny(classes).eval(), binary(2)
    z = all_values(model)
    log_prior = model.log_prior(z)
    assert log_prior.max() - log_prior.min() > 0.5
    assert log_prior.logsumexp(0).abs() < 1e-12
    logits = model.posterior_logits(x)
    log_q = log_prob(logits[:, None], z.expand(2, -1, -1, -1))
    kl = (log_q.exp() * (log_q - log_prior)).sum(1)
    torch.testing.assert_close(model.divergence(logits), kl)
    exact = (log_q.exp() * model.log_likelihood(x, z.expand(2, -1, -1, -1))).sum(1) - kl
    weights = model.draw(x, 20_000, generator).log_weight
    assert ((weights.mean(1) - exact).abs() < 4 * weights.std(1) / 20_000**0.5).all()


def test_a_prior_that_has_learnt_nothing_is_uniform():
    model, uniform = tiny(), tiny(cls=DiscreteVAE)
    model.load_state_dict({**uniform.state_dict(), "raw_prior": torch.full((2, 3), 1.7)})
    x, z = binary(4), all_values(model)
    torch.testing.assert_close(model.log_prior(z), uniform.log_prior(z))
    for estimator, args in (("gumbel", {}), ("concrete", {}), ("vimco", {"samples": 3})):
        loss = negative_discrete_elbo(estimator, **args)
        values = [loss(m, x, 0, torch.Generator().manual_seed(3)).total for m in (model, uniform)]
        torch.testing.assert_close(*values)


@pytest.mark.parametrize("estimator", ["gumbel", "concrete", "vimco"])
def test_every_estimator_sees_the_learnt_prior(estimator, generator):
    model = tiny()
    loss = negative_discrete_elbo(estimator, samples=1 if estimator == "gumbel" else 3)
    loss(model, binary(6), 0, generator).total.backward()
    assert model.raw_prior.grad.abs().max() > 0


def test_the_relaxed_bound_has_the_relaxed_learnt_prior(generator):
    """With the posterior equal to the prior only the log-likelihood is left."""
    model, x = tiny(), binary(4)
    for parameter in model.encoder.parameters():
        parameter.data.zero_()
    model.encoder[-1].bias.data.copy_(model.prior_logits.detach().flatten())
    again = torch.Generator().set_state(generator.get_state())
    z = log_gumbel_softmax(model.posterior_logits(x)[:, None], 0.7, again).exp()
    loss = negative_discrete_elbo("concrete", temperature=0.7, prior_temperature=0.7)
    expected = -model.log_likelihood(x, z).mean()
    torch.testing.assert_close(loss(model, x, 0, generator).total, expected)


def test_samples_follow_the_learnt_prior(generator):
    model = tiny(classes=2).eval()
    z, n = all_values(model), 40_000
    pixels = model.decoder(model.decoder_input(z)).sigmoid()
    expected = (model.log_prior(z).exp()[:, None] * pixels).sum(0)
    x = model.sample(n, generator)
    assert ((x.mean(0) - expected).abs() < 4 * (expected * (1 - expected) / n).sqrt()).all()


def test_the_encoders_gradient_is_in_units_of_the_signals_deviation():
    """NVIL's variance normalisation: a quarter where signals deviate by 4, and never more."""
    model, x = tiny(cls=DiscreteVAE, baseline_hidden=[4]), binary(6)
    for parameter in model.baseline.network.parameters():
        parameter.data.zero_()

    def gradients(deviation):
        model.baseline.moments = torch.tensor([1.0, -3.0, 9.0 + deviation**2])
        model.zero_grad()
        loss = negative_discrete_elbo("sf")(model, x, 0, torch.Generator().manual_seed(4)).total
        loss.backward()
        found = [
            [p.grad.clone() for p in part.parameters()] for part in (model.encoder, model.decoder)
        ]
        return loss.detach(), *found

    value, encoder, decoder = gradients(1.0)
    assert all(gradient.abs().max() > 0 for gradient in encoder)
    for deviation, part in ((4.0, 0.25), (0.5, 1.0)):
        again, of_encoder, of_decoder = gradients(deviation)
        torch.testing.assert_close(of_encoder, [part * gradient for gradient in encoder])
        torch.testing.assert_close(of_decoder, decoder)
        torch.testing.assert_close(again, value)
