"""DARN and MuProp: their means over all latent values, against the exact gradient and formulas."""

from functools import partial
from itertools import product

import pytest
import torch

from dgm_bench.metrics.gradients import relaxation
from dgm_bench.models.latent.discrete import DiscreteVAE, log_prob
from dgm_bench.models.latent.structured_prediction import StructuredPrediction
from dgm_bench.models.networks import discrete_relaxations
from dgm_bench.train import discrete_objectives
from dgm_bench.train.discrete_objectives import negative_discrete_elbo, negative_prediction

KINDS = [(2, 2), (3, 2)]  # classes, variables


def shaken(model):
    for parameter in model.parameters():
        parameter.data += 0.7 * torch.randn_like(parameter)
    return model


def vae(classes, variables, hidden=(3,)):
    return shaken(DiscreteVAE((5,), variables, classes, decoder_hidden=[4], baseline_hidden=hidden))


def network(classes, variables, hidden=(3,)):
    return shaken(StructuredPrediction((6,), variables, classes, baseline_hidden=hidden))


def binary(dim):
    return (torch.rand(1, dim) < 0.5).double()


def values_of(model):
    """Every value of one layer: (values, variables, classes)."""
    eye = torch.eye(model.classes)
    return torch.stack([torch.stack(v) for v in product(eye, repeat=model.variables)])


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def learnt(model):
    """Parameters, without the baseline's, which have a loss of their own."""
    return [p for name, p in model.named_parameters() if not name.startswith("baseline")]


def drawing(monkeypatch, values):
    """Let the next draws be these values, of one layer after the other."""
    left = list(values)

    def next_value(logits, generator):
        return left.pop(0).expand_as(logits).clone()

    for module in (discrete_objectives, discrete_relaxations):
        monkeypatch.setattr(module, "gumbel_max", next_value)


def estimate(monkeypatch, model, loss, x, values, moments=(1.0, 3.0, 10.0)):
    """The gradient when the latent layers have these values; a running mean of 3, no scale."""
    model.baseline.moments = torch.tensor(moments)
    drawing(monkeypatch, values)
    return flat(torch.autograd.grad(loss(model, x, 0, torch.Generator()).total, learnt(model)))


def vae_draws(monkeypatch, model, estimator, x):
    """Probabilities and estimates of every latent value of one example."""
    z = values_of(model)
    logits = model.posterior_logits(x).detach()
    probability = log_prob(logits[:, None], z[None]).exp()[0]
    loss = negative_discrete_elbo(estimator)
    rows = [estimate(monkeypatch, model, loss, x, [value]) for value in z]
    return probability, torch.stack(rows)


def prediction_draws(monkeypatch, model, estimator, x):
    loss, rows, probabilities = negative_prediction(estimator), [], []
    for pair in product(values_of(model), repeat=2):
        left = list(pair)
        _, log_p = model.predict(x, 1, lambda logits, left=left: left.pop(0).expand_as(logits))
        probabilities.append(log_p.exp().detach().squeeze())
        rows.append(estimate(monkeypatch, model, loss, x, pair))
    return torch.stack(probabilities), torch.stack(rows)


def mean_and_variance(probability, rows):
    mean = probability @ rows
    return mean, (probability @ (rows - mean).square()).sum()


def exact_of_vae(model, x):
    z = values_of(model)[None]
    logits = model.posterior_logits(x)
    fit = (log_prob(logits[:, None], z).exp() * model.log_likelihood(x, z)).sum(1)
    return flat(torch.autograd.grad((model.divergence(logits) - fit).sum(), learnt(model)))


def exact_of_prediction(model, x):
    total = 0
    for pair in product(values_of(model), repeat=2):
        left = list(pair)
        fit, log_p = model.predict(x, 1, lambda logits, left=left: left.pop(0).expand_as(logits))
        total = total - (log_p.exp() * fit).sum()
    return flat(torch.autograd.grad(total, learnt(model)))


# ----------------------------------------------------------------------------- MuProp


@pytest.mark.parametrize("estimator", ["sf", "muprop"])
@pytest.mark.parametrize("kind", KINDS)
def test_unbiased_estimates_of_the_bound_have_its_gradient_as_mean(kind, estimator, monkeypatch):
    model, x = vae(*kind), binary(5)
    mean, variance = mean_and_variance(*vae_draws(monkeypatch, model, estimator, x))
    torch.testing.assert_close(mean, exact_of_vae(model, x))
    assert variance > 1e-3  # single estimates differ


@pytest.mark.parametrize("estimator", ["sf", "muprop"])
@pytest.mark.parametrize("kind", [(2, 2), (3, 1)])
def test_unbiased_estimates_of_two_layers_have_the_gradient_as_mean(kind, estimator, monkeypatch):
    model, x = network(*kind), binary(6)
    mean, variance = mean_and_variance(*prediction_draws(monkeypatch, model, estimator, x))
    torch.testing.assert_close(mean, exact_of_prediction(model, x))
    assert variance > 1e-3


@pytest.mark.parametrize(
    ("model", "draws", "dim"),
    [
        (partial(vae, 2, 2), vae_draws, 5),
        (partial(vae, 3, 2), vae_draws, 5),
        (partial(network, 2, 2), prediction_draws, 6),
        (partial(network, 3, 1), prediction_draws, 6),
    ],
    ids=["vae-binary", "vae", "prediction-binary", "prediction"],
)
def test_muprop_varies_less_than_the_plain_score_function(model, draws, dim, monkeypatch):
    monkeypatch.setattr(estimate, "__defaults__", ((1.0, 0.0, 1.0),))  # no running mean
    model, x = model(hidden=()), binary(dim)
    of_score, of_muprop = (
        mean_and_variance(*draws(monkeypatch, model, estimator, x))[1]
        for estimator in ("sf", "muprop")
    )
    assert of_muprop < 0.5 * of_score


def test_muprop_has_the_exact_gradient_of_what_is_linear(monkeypatch):
    """Then each estimate is exact, as nothing is left of the expansion."""
    logits = torch.randn(1, 4)
    slope = torch.randn(4)
    draws = one_variable_draws(monkeypatch, logits, lambda z: z @ slope, "muprop")
    exact = relaxation.exact_gradient(logits, lambda z: z @ slope)
    torch.testing.assert_close(draws, exact.expand(4, -1))


def test_residuals_are_what_the_expansion_through_all_layers_leaves(monkeypatch):
    """Slopes by central differences of the network of means."""
    logits, weight, value = (
        torch.randn(1, 1, 1, 3).log_softmax(-1),
        torch.randn(3, 3),
        torch.randn(3),
    )
    logits.requires_grad_()

    def above(first):
        return (first @ weight).log_softmax(-1)

    def fit_of(draw):
        return (draw(above(draw(logits))) @ value).square().squeeze(-1)

    z = [torch.eye(3)[[k]] for k in (2, 0)]
    drawing(monkeypatch, z)
    found = discrete_objectives.expand_around_means(fit_of, torch.Generator())
    first = logits.detach().exp()
    second = above(first).exp()
    steps = 1e-5 * torch.eye(3)
    ends = [
        [(second_of(first + h) @ value).square() - (second_of(first - h) @ value).square()
         for h in steps]
        for second_of in (lambda m: above(m).exp(), lambda m: m - first + second)
    ]  # fmt: skip
    slopes = [torch.cat(end, -1) / 2e-5 for end in ends]
    at_means = (second @ value).square()
    left = [
        ((z[1] @ value).square() - at_means).squeeze() - (slope * (drawn - mean)).sum()
        for slope, drawn, mean in zip(slopes, z, (first, second), strict=True)
    ]
    torch.testing.assert_close(found.residuals[0], torch.stack(left), rtol=1e-6, atol=1e-8)


# ----------------------------------------------------------------------------- DARN


def half_mean(model, x):
    """Gu et al., equation 7 with 1/k, summed over all values: the mean of DARN for a VAE."""
    z = values_of(model)[None].requires_grad_()
    logits = model.posterior_logits(x)
    q = log_prob(logits[:, None], z.detach()).exp()
    fit = model.log_likelihood(x, z)
    slope = torch.autograd.grad(fit.sum(), z, retain_graph=True)[0]
    p = logits.exp()[:, None]
    chosen = (z.detach() * p).sum(-1)  # x^T mu, of which x^T d mu is the gradient
    steps = (slope * (z.detach() - 1 / model.classes)).sum(-1)
    encoder = (q.detach()[..., None] * steps / chosen.detach() * chosen).sum()
    total = model.divergence(logits).sum() - encoder - (q.detach() * fit).sum()
    return flat(torch.autograd.grad(total, learnt(model)))


@pytest.mark.parametrize("kind", KINDS)
def test_darns_mean_is_its_formula_and_not_the_gradient(kind, monkeypatch):
    model, x = vae(*kind), binary(5)
    mean, _ = mean_and_variance(*vae_draws(monkeypatch, model, "darn", x))
    torch.testing.assert_close(mean, half_mean(model, x))
    bias = (mean - exact_of_vae(model, x)).norm() / mean.norm()
    assert bias > 1e-3


def test_darn_of_two_layers_is_backpropagated_through_both(monkeypatch):
    """One binary variable a layer, in sigmoids: each layer's factor is 1 / (2 p(h))."""
    model, x = network(2, 1), binary(6)
    mean, _ = mean_and_variance(*prediction_draws(monkeypatch, model, "darn", x))
    weight = {name: p.detach() for name, p in model.named_parameters()}
    upper, lower = x[0].split(3)
    mu = torch.sigmoid(weight["first.weight"] @ upper + weight["first.bias"])
    first = second = 0.0
    for h, k in product((0.0, 1.0), repeat=2):
        nu = torch.sigmoid(weight["second.weight"][:, 0] * h + weight["second.bias"])
        pixels = torch.sigmoid(weight["pixels.weight"][:, 0] * k + weight["pixels.bias"])
        slope = ((lower - pixels) * weight["pixels.weight"][:, 0]).sum()
        p_h, p_k = (p if value else 1 - p for p, value in ((mu, h), (nu, k)))
        to_logit = slope * nu * (1 - nu) / (2 * p_k)
        second = second - p_h * p_k * to_logit
        to_first = to_logit * weight["second.weight"][0, 0] * mu * (1 - mu) / (2 * p_h)
        first = first - p_h * p_k * to_first
    sizes = [p.numel() for p in learnt(model)]
    bias_of_first, bias_of_second = mean.split(sizes)[1], mean.split(sizes)[3]
    torch.testing.assert_close(bias_of_first, first)
    torch.testing.assert_close(bias_of_second, second)
    exact = exact_of_prediction(model, x)
    assert (mean - exact).abs().max() > 1e-3
    torch.testing.assert_close(mean.split(sizes)[4:], exact.split(sizes)[4:])  # of the pixels


def one_variable_draws(monkeypatch, logits, function, estimator):
    """The estimates of every class of one variable."""
    eye = torch.eye(logits.shape[-1])
    for module in (relaxation, discrete_relaxations):
        monkeypatch.setattr(module, "gumbel_max", lambda *given: eye[None].clone())
    given = (logits, function, estimator, 1.0, len(eye), torch.Generator())
    return relaxation.gradient_draws(*given)[0]


def bend(z):
    return (z @ torch.tensor([0.3, -1.2, 0.8, 2.0])).square() + (2 * z[..., 0] - z[..., 3]).tanh()


@pytest.mark.parametrize(("estimator", "biased"), [("sf", False), ("muprop", False),
                                                   ("darn", True)])  # fmt: skip
def test_measured_draws_have_the_exact_mean_or_not(estimator, biased, monkeypatch):
    logits = torch.tensor([[0.5, -1.0, 1.5, 0.2]])
    mean = logits.softmax(-1)[0] @ one_variable_draws(monkeypatch, logits, bend, estimator)
    error = (mean - relaxation.exact_gradient(logits, bend)[0]).norm()
    assert (error > 0.05) == biased
    assert biased or error < 1e-12


def test_darn_is_unbiased_for_quadratic_functions_of_one_binary_variable(monkeypatch):
    def quadratic(z):
        return 1.3 * z[..., 1].square() - 0.4 * z[..., 1]

    def cubic(z):
        return quadratic(z) + z[..., 1] ** 3

    logits = torch.tensor([[0.4, -0.9]])
    for function, biased in ((quadratic, False), (cubic, True)):
        mean = logits.softmax(-1)[0] @ one_variable_draws(monkeypatch, logits, function, "darn")
        error = (mean - relaxation.exact_gradient(logits, function)[0]).norm()
        assert (error > 1e-2) == biased


# ----------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize("estimator", ["darn", "muprop"])
@pytest.mark.parametrize(("make", "dim", "loss", "of_decoder"), [
    (vae, 5, negative_discrete_elbo, "decoder"),
    (network, 6, negative_prediction, "pixels"),
])  # fmt: skip
def test_latent_layers_gradients_are_in_units_of_the_deviation(
    make, dim, loss, of_decoder, estimator, monkeypatch
):
    model, x = make(3, 2, hidden=()), binary(dim)
    z = [values_of(model)[4]] * 2
    given = (monkeypatch, model, loss(estimator), x, z)
    one, four, none = (estimate(*given, (1.0, 2.0, 4.0 + d**2)) for d in (1.0, 4.0, 0.5))
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in learnt(model)]
    torch.testing.assert_close(none, one)  # never multiplied
    for name, a, b in zip(names, one.split(sizes), four.split(sizes), strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(b if name.startswith(of_decoder) else 4 * b, a)


@pytest.mark.parametrize("estimator", ["sf", "darn", "muprop"])
def test_the_running_mean_alone_can_be_the_baseline(estimator):
    model = vae(3, 2, hidden=())
    loss = negative_discrete_elbo(estimator)(model, binary(5), 0, torch.Generator()).total
    loss.backward()
    assert model.baseline.network is None
    assert all(p.grad.abs().max() > 0 for p in model.parameters())
    assert model.baseline.moments[0] > 0
