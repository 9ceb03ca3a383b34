"""Discrete latent variables: samplers, relaxations, gradient estimators and bounds."""

import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.bounds.variational import importance_bound
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.gradients.relaxation import (
    DRAWS,
    TEMPERATURES,
    errors,
    exact_gradient,
    gradient_draws,
    one_variable,
    ratio,
    relaxation_metrics,
)
from dgm_bench.models.capabilities import HasElbo, HasPosteriorDraws, HasSample
from dgm_bench.models.latent.discrete import Centring, DiscreteVAE, SignalBaseline, log_prob
from dgm_bench.models.networks.discrete_relaxations import (
    concrete_log_density,
    gumbel_max,
    gumbel_noise,
    log_gumbel_softmax,
    surrogate_values,
)
from dgm_bench.report.relaxation import points_of
from dgm_bench.spec import EvaluationSpec
from dgm_bench.train.discrete_objectives import (
    ESTIMATORS,
    NORMALISED,
    leave_one_out_signal,
    negative_discrete_elbo,
)

LOGITS = torch.tensor([0.5, -1.0, 1.5, 0.0, -2.0], dtype=torch.float64)


def tiny(classes=3, variables=2, **args):
    """A model whose latent space can be enumerated, away from what it starts at."""
    model = DiscreteVAE((5,), variables, classes, decoder_hidden=[4], **args)
    for parameter in model.parameters():
        parameter.data += 0.7 * torch.randn_like(parameter)
    return model


def binary(n, dim=5):
    return (torch.rand(n, dim) < 0.5).to(torch.get_default_dtype())


def all_values(model):
    """Every one-hot value of all latent variables: (values, variables, classes)."""
    eye = torch.eye(model.classes)
    return torch.stack([torch.stack(v) for v in product(eye, repeat=model.variables)])


def exact_log_marginal(model, x):
    z = all_values(model).expand(len(x), -1, -1, -1)
    return (model.log_likelihood(x, z) + model.log_prior(z)).logsumexp(1)


def exact_bound(model, x):
    """The mean of the discrete bound, summed over every value of the latent variables."""
    logits = model.posterior_logits(x)
    z = all_values(model).expand(len(x), -1, -1, -1)
    log_q = log_prob(logits[:, None], z)
    return (log_q.exp() * (model.log_likelihood(x, z) + model.log_prior(z) - log_q)).sum(1)


# ----------------------------------------------------------------------------- samplers


def test_gumbel_noise_has_its_mean_and_variance(generator):
    noise = gumbel_noise(torch.empty(200_000), generator)
    assert abs(noise.mean() - 0.5772157) < 4 * noise.std() / math.sqrt(len(noise))
    assert abs(noise.var() - math.pi**2 / 6) < 0.05
    assert noise.mean() > 0  # log(-log u), as one set of slides has it, has a negative mean


def test_gumbel_max_draws_from_the_categorical_distribution(generator):
    n = 100_000
    counts = gumbel_max(LOGITS.expand(n, -1), generator).sum(0)
    assert chisquare(counts.numpy(), (n * LOGITS.softmax(0)).numpy()).pvalue > 0.01
    wrong = (n * (0.95 * LOGITS).softmax(0)).numpy()
    assert chisquare(counts.numpy(), wrong).pvalue < 1e-6  # the test can tell 5 % in the logits


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_relaxed_draws_peak_as_the_categorical_distribution(temperature, generator):
    n = 50_000
    peaks = log_gumbel_softmax(LOGITS.expand(n, -1), temperature, generator).argmax(1)
    counts = torch.bincount(peaks, minlength=len(LOGITS))
    assert chisquare(counts.numpy(), (n * LOGITS.softmax(0)).numpy()).pvalue > 0.01


@pytest.mark.parametrize("estimator", ["st", "st-gumbel"])
def test_straight_through_values_are_one_hot_and_carry_gradients(estimator, generator):
    logits = torch.randn(50, 4).log_softmax(-1).requires_grad_()
    z = surrogate_values(logits, estimator, 0.7, generator)
    assert set(z.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(z.sum(-1), torch.ones(50))
    (z * torch.randn(4)).sum().backward()
    assert (logits.grad != 0).all()


# ----------------------------------------------------------------------------- densities


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
def test_binary_concrete_density_integrates_to_one(temperature):
    y = torch.linspace(-120, 120, 200_001)
    log_z = torch.stack([-torch.nn.functional.softplus(-y), -torch.nn.functional.softplus(y)], -1)
    density = concrete_log_density(
        log_z, torch.tensor([0.8, -0.3]).expand_as(log_z), temperature
    ).exp()
    assert abs(torch.trapezoid(density, y) - 1) < 1e-6


def test_concrete_density_of_three_classes_integrates_to_one():
    axis = torch.linspace(-40, 40, 801)
    y = torch.cartesian_prod(axis, axis)
    log_z = torch.cat([y, torch.zeros(len(y), 1)], 1).log_softmax(-1)
    density = concrete_log_density(
        log_z, torch.tensor([0.8, -0.3, 0.1]).expand_as(log_z), 0.8
    ).exp()
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) < 1e-4


def test_concrete_density_is_that_of_its_draws(generator):
    """The mean of ``q / p`` over draws from ``p`` is one, for another Concrete density ``q``."""
    p, q = torch.tensor([[0.5, -0.5, 0.2], [0.2, -0.1, 0.3]])[:, None].expand(-1, 50_000, -1)
    log_z = log_gumbel_softmax(p, 0.8, generator)
    ratio = concrete_log_density(log_z, q, 1.0) - concrete_log_density(log_z, p, 0.8)
    assert abs(ratio.exp().mean() - 1) < 4 * ratio.exp().std() / math.sqrt(len(ratio))


# ----------------------------------------------------------------------------- gradients


def bend(z):
    """A fixed function that is not linear in one-hot values."""
    weight = torch.tensor([0.3, -1.2, 0.8, 2.0, -0.5], dtype=z.dtype)
    return (z @ weight).square() + (2 * z[..., 0] - z[..., 3]).tanh()


def toy_errors(estimator, temperature, n=60_000):
    logits, noise = LOGITS[None], torch.Generator().manual_seed(5)
    draws = gradient_draws(logits, bend, estimator, temperature, n, noise)
    return draws, exact_gradient(logits, bend)


def test_exact_gradient_is_that_of_the_sum_over_classes():
    logits = LOGITS[None].clone().requires_grad_()
    (logits.softmax(-1) * bend(torch.eye(5))).sum().backward()
    torch.testing.assert_close(exact_gradient(logits.detach(), bend), logits.grad)


def test_score_function_gradient_is_unbiased():
    draws, exact = toy_errors("sf", 1.0)
    error = draws.std(1) / math.sqrt(draws.shape[1])
    assert ((draws.mean(1) - exact).abs() < 4 * error).all()


def test_relaxed_gradient_loses_bias_and_gains_variance_as_it_cools():
    found = [errors(*toy_errors("gumbel", t)) for t in (2.0, 1.0, 0.5, 0.1)]
    bias = [(e.squared_bias / e.squared_gradient).item() for e in found]
    variance = [e.variance.item() for e in found]
    assert bias[0] > bias[1] > bias[2] > bias[3]
    assert bias[0] > 0.1
    assert bias[3] < 0.01
    assert variance == sorted(variance)
    assert variance[3] > 5 * variance[0]


def mean_gradient(loss, model, x, steps):
    """Means and standard errors of the encoder's gradient over independent draws."""
    noise, rows = torch.Generator().manual_seed(2), []
    parameters = list(model.encoder.parameters())
    for step in range(steps):
        gradients = torch.autograd.grad(loss(model, x, step, noise).total, parameters)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    stack = torch.stack(rows)
    return stack.mean(0), stack.std(0) / math.sqrt(steps)


@pytest.mark.usefixtures("unchecked")
def test_score_function_loss_has_the_gradient_of_the_bound():
    model, x = tiny(baseline_hidden=[4]), binary(3)
    exact = torch.autograd.grad(-exact_bound(model, x).mean(), list(model.encoder.parameters()))
    exact = torch.cat([g.flatten() for g in exact])
    mean, error = mean_gradient(negative_discrete_elbo("sf"), model, x, 4_000)
    assert ((mean - exact).abs() <= 4.5 * error).all()
    assert (exact.abs() > 4.5 * error).any()


@pytest.mark.usefixtures("unchecked")
def test_vimco_has_the_gradient_of_the_bound_of_several_samples():
    """Two binary variables and two samples: all sixteen pairs of values are summed."""
    model, x = tiny(classes=2), binary(2)
    logits = model.posterior_logits(x)
    z = all_values(model).expand(2, -1, -1, -1)
    log_q = log_prob(logits[:, None], z)
    weight = model.log_likelihood(x, z) + model.log_prior(z) - log_q
    bound = torch.logaddexp(weight[:, :, None], weight[:, None]) - math.log(2)
    pairs = (log_q[:, :, None] + log_q[:, None]).exp()
    parameters = list(model.encoder.parameters())
    exact = torch.autograd.grad(-(pairs * bound).sum((1, 2)).mean(), parameters)
    mean, error = mean_gradient(negative_discrete_elbo("vimco", samples=2), model, x, 4_000)
    assert ((mean - torch.cat([g.flatten() for g in exact])).abs() <= 4.5 * error).all()


def test_leave_one_out_signals_by_hand():
    signal = leave_one_out_signal(torch.tensor([[1.0, 2.0, 4.0]]))[0]
    bound = math.log(sum(map(math.exp, (1, 2, 4))))
    for place, others in enumerate([(2, 4), (1, 4), (1, 2)]):
        without = math.log(sum(map(math.exp, (*others, sum(others) / 2))))
        assert abs(signal[place] - (bound - without)) < 1e-12


# ----------------------------------------------------------------------------- losses


def capable(estimator, classes):
    several = {"samples": 3} if estimator in ("concrete", "vimco") else {}
    return tiny(classes, baseline_hidden=[4] if estimator in NORMALISED else None), several


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_reaches_every_parameter(estimator, classes, generator):
    model, several = capable(estimator, classes)
    negative_discrete_elbo(estimator, **several)(model, binary(6), 0, generator).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_in_evaluation_the_loss_is_the_discrete_bound(estimator):
    model, several = capable(estimator, 3)
    model.eval()
    x = binary(3)
    with torch.no_grad():
        loss = negative_discrete_elbo(estimator, **several)
        noise = torch.Generator().manual_seed(3)
        values = torch.stack([loss(model, x, 0, noise).total for _ in range(1_000)])
        exact = -exact_bound(model, x).mean()
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(len(values))


def test_temperature_falls_in_steps_to_its_floor(monkeypatch):
    seen = []

    def relaxed(logits, estimator, temperature, generator):
        seen.append(temperature)
        return logits.exp()

    monkeypatch.setattr("dgm_bench.train.discrete_objectives.surrogate_values", relaxed)
    loss = negative_discrete_elbo("gumbel", rate=1e-2, every=10, floor=0.5)
    for step in (0, 9, 10, 39, 1000):
        loss(tiny(), binary(2), step, torch.Generator())
    assert seen == pytest.approx([1, 1, math.exp(-0.1), math.exp(-0.3), 0.5])


def test_concrete_loss_is_a_bound_of_the_relaxed_model(generator):
    """Posterior and prior have temperatures of their own (Maddison et al., equation 20)."""
    model, x = tiny(classes=3), binary(4)
    loss = negative_discrete_elbo("concrete", temperature=0.7, prior_temperature=0.4)
    again = torch.Generator().set_state(generator.get_state())
    logits = model.posterior_logits(x)[:, None]
    log_z = log_gumbel_softmax(logits, 0.7, again)
    log_q = concrete_log_density(log_z, logits, 0.7).sum(-1)
    log_p = concrete_log_density(log_z, torch.zeros_like(log_z), 0.4).sum(-1)
    expected = (log_q - log_p - model.log_likelihood(x, log_z.exp())).mean()
    torch.testing.assert_close(loss(model, x, 0, generator).total, expected)


@pytest.mark.parametrize(
    ("estimator", "args", "told"),
    [
        ("reinforce", {}, "is not known"),
        ("vimco", {"samples": 1}, "use 2 or more"),
        ("gumbel", {"samples": 5}, "use 1, or estimator concrete or vimco"),
        ("sf", {"samples": 5}, "use 1, or estimator concrete or vimco"),
        ("concrete", {"samples": 0}, "use 1 or more"),
        ("st", {"every": 0}, "every 0: is not positive"),
        ("gumbel", {"temperature": 0.0, "floor": 0.5}, "temperature 0.0: is not positive"),
        ("st-gumbel", {"temperature": math.nan}, "temperature nan: is not positive"),
        ("concrete", {"prior_temperature": -0.5}, "prior_temperature -0.5: is not positive"),
    ],
)
def test_what_cannot_be_trained_is_refused(estimator, args, told, unchecked):
    with pytest.raises(DeclarationError, match=told):
        negative_discrete_elbo(estimator, **args)


def test_score_function_without_baseline_is_refused(generator):
    with pytest.raises(DeclarationError, match="baseline"):
        negative_discrete_elbo("sf")(tiny(), binary(2), 0, generator)


# ----------------------------------------------------------------------------- the model


@pytest.mark.parametrize(("classes", "centred"), [(2, False), (2, True), (3, False)])
def test_shapes_and_capabilities(classes, centred, generator):
    model = DiscreteVAE((1, 3, 2), 4, classes, [5], [6], centred).eval()
    assert isinstance(model, HasPosteriorDraws)
    assert isinstance(model, HasElbo)
    assert isinstance(model, HasSample)
    x = model.sample(7, generator)
    assert x.shape == (7, 1, 3, 2)
    assert set(x.flatten().tolist()) == {0.0, 1.0}
    draws = model.draw(x, 3, generator)
    assert draws.z.shape == (7, 3, model.latent)
    assert set(draws.z.flatten().tolist()) == ({-1.0, 1.0} if centred else {0.0, 1.0})
    assert (
        draws.log_likelihood.shape == draws.log_prior.shape == draws.log_posterior.shape == (7, 3)
    )
    assert model.elbo(x, generator).shape == (7,)


@pytest.mark.parametrize("classes", [2, 3])
def test_log_posterior_is_that_of_the_enumerated_latent_space(classes, generator):
    model, x = tiny(classes).eval(), binary(1)
    draws = model.draw(x, 3_000, generator)
    codes = model.decoder_input(all_values(model))
    found = (draws.z[0, :, None] == codes).all(-1)
    assert (found.sum(1) == 1).all()
    first = found.int().argmax(0)
    assert found.any(0).all()  # every value is drawn, so that the sum below is over all of them
    log_q = draws.log_posterior[0, first]
    assert abs(log_q.exp().sum() - 1) < 1e-12
    torch.testing.assert_close(draws.log_prior, torch.full((1, 3_000), -math.log(len(codes))))
    assert chisquare(found.sum(0).numpy(), (3_000 * log_q.exp()).detach().numpy()).pvalue > 0.01
    torch.testing.assert_close(draws.log_posterior[0], log_q[found.int().argmax(1)])


def test_bound_and_divergence_are_those_of_the_enumeration(generator):
    model, x = tiny().eval(), binary(2)
    weights = model.draw(x, 40_000, generator).log_weight
    error = weights.std(1) / math.sqrt(weights.shape[1])
    assert ((weights.mean(1) - exact_bound(model, x)).abs() < 4 * error).all()
    assert (exact_bound(model, x) < exact_log_marginal(model, x)).all()
    logits = model.posterior_logits(x)
    z = all_values(model).expand(2, -1, -1, -1)
    log_q = log_prob(logits[:, None], z)
    kl = (log_q.exp() * (log_q - model.log_prior(z))).sum(1)
    torch.testing.assert_close(model.divergence(logits), kl)


def test_importance_bound_approaches_the_enumerated_likelihood(generator):
    model, x = tiny().eval(), binary(6)
    exact = exact_log_marginal(model, x)
    gaps = [(exact - importance_bound(model, x, k, generator).log_marginal).mean().item()
            for k in (1, 10, 10_000)]  # fmt: skip
    assert gaps[0] > gaps[1] > gaps[2]
    found = importance_bound(model, x, 10_000, generator)
    assert ((found.log_marginal - exact).abs() < 4 * found.error).all()


def test_centred_model_starts_at_the_pixels_log_odds(generator):
    x = (torch.rand(2_000, 5) < torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])).double()
    model = DiscreteVAE((5,), 3, 2, decoder_hidden=(), centred=True)
    model.initialise(x)
    torch.testing.assert_close(model.decoder[-1].bias.sigmoid(), x.mean(0))
    layer = Centring(5).train()
    for _ in range(200):
        layer(x)
    torch.testing.assert_close(layer.mean, x.mean(0), rtol=0, atol=1e-6)
    assert torch.equal(layer.eval()(x), x - layer.mean)


def test_baseline_is_a_running_mean_and_a_scaled_network():
    """Decayed by 0.9 and without bias towards zero; the scale is 1 at least (NVIL, 3.2)."""
    baseline, x = SignalBaseline(5, [8]), binary(4)
    signals = [scale * torch.randn(4, 2) - 100 for scale in (0.5, 30.0, 30.0)]
    moments, weight = torch.zeros(2), 0.0
    for signal in signals:
        mean, square = moments / weight if weight else moments
        deviation = max(1.0, float(square - mean**2)) ** 0.5
        error = (signal - mean) / deviation - baseline.network(x)
        centred, scale, loss = baseline(x, signal)
        torch.testing.assert_close(centred, deviation * error.detach())
        assert scale.item() == pytest.approx(deviation)
        torch.testing.assert_close(loss, 0.5 * error.square().mean())
        moments = 0.9 * moments + 0.1 * torch.stack([signal.mean(), signal.square().mean()])
        weight = 0.9 * weight + 0.1


def test_baseline_learns_the_signal():
    baseline, x = SignalBaseline(5, [8]), binary(200)
    optimizer = torch.optim.Adam(baseline.parameters(), 1e-2)
    signal = (-100 + 10 * x[:, :1]).expand(-1, 2)
    for _ in range(500):
        centred_signal, _, loss = baseline(x, signal)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert centred_signal.square().mean() < 0.05 * signal.var()


# ----------------------------------------------------------------------------- measurements


def test_gradient_of_one_variable_is_that_of_the_whole_model(generator):
    """By autograd: the expected log-likelihood over one variable's values, others as drawn."""
    model, x = tiny(classes=4, variables=3).eval(), binary(5)
    logits, function = one_variable(model, x, generator)
    mine = logits.clone().requires_grad_()
    values = function(torch.eye(4).expand(5, -1, -1))
    (mine.softmax(-1) * values).sum().backward()
    torch.testing.assert_close(exact_gradient(logits, function), mine.grad)
    at = [0, 1, 2, 0, 1]
    torch.testing.assert_close(logits, model.posterior_logits(x)[range(5), at])
    # The others are one draw: the values are among those of the enumeration.
    every = model.log_likelihood(x, all_values(model).expand(5, -1, -1, -1))
    assert (values[:, :, None] - every[:, None]).abs().amin(2).max() < 1e-12


def test_metrics_have_a_value_for_each_temperature():
    model, x = tiny(classes=4, variables=3).eval(), binary(20)
    data = Dataset("digits-binary", "test", {"test": x}, unit="nats")
    found = relaxation_metrics(Evaluation(model, data, EvaluationSpec(), 1, Path()), "gumbel")
    names = [metric.name for metric in found]
    assert names[:2] == ["squared-bias-0.1", "variance-0.1"]
    assert len(set(names)) == 2 * len(TEMPERATURES)
    variance = [metric.value for metric in found if metric.name.startswith("variance")]
    assert variance == sorted(variance, reverse=True)
    assert all(metric.se > 0 for metric in found)
    points = points_of([SimpleNamespace(metrics=found)], "variance")
    assert [point[0] for point in points] == list(TEMPERATURES)
    assert [point[1] for point in points] == variance


def test_the_score_function_is_measured_once_for_all_temperatures():
    model, x = tiny(classes=4, variables=3).eval(), binary(20)
    data = Dataset("digits-binary", "test", {"test": x}, unit="nats")
    found = relaxation_metrics(Evaluation(model, data, EvaluationSpec(), 1, Path()), "sf")
    assert len({metric.name for metric in found}) == 2 * len(TEMPERATURES)
    for quantity in ("variance", "squared-bias"):
        values = {metric.value for metric in found if metric.name.startswith(quantity)}
        assert len(values) == 1
    again = torch.Generator().manual_seed(1)
    logits, function = one_variable(model, x, again)
    draws = gradient_draws(logits, function, "sf", 0.1, DRAWS, again)
    first = errors(draws, exact_gradient(logits, function))
    variance, _ = ratio(first.variance, first.squared_gradient)
    assert found[1].value == pytest.approx(variance, rel=1e-12)


def test_ratio_has_the_error_of_paired_means():
    top, bottom = torch.rand(400, 1000) + 1, torch.rand(400, 1000) + 1
    top = top + bottom
    found = [ratio(a, b) for a, b in zip(top, bottom, strict=True)]
    values = torch.tensor([value for value, _ in found])
    claimed = torch.tensor([se for _, se in found]).mean()
    assert abs(values.std() / claimed - 1) < 0.15
