"""The ResNet VAE: likelihoods by quadrature, divergences by variable, free bits, its start."""

import pytest
import torch

from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.bounds.variational import importance_bound
from dgm_bench.models.latent.posteriors.iaf import InverseAutoregressive
from dgm_bench.models.latent.priors import build_prior
from dgm_bench.models.latent.resnet_vae import ResNetVAE
from dgm_bench.spec import ObjectiveSpec
from dgm_bench.train.objectives import build_objective, require_fit

SHAPE = (1, 5, 4)
PARTS = {
    "standard": {},
    "iaf": {"posterior": "iaf", "posterior_args": {"flows": 3, "width": 12}},
    "af-prior": {"prior": "maf-shift", "prior_args": {"layers": 2, "hidden": [7]}},
    "flow-posterior": {"posterior": "glow", "posterior_args": {"layers": 2, "hidden": [5]}},
    "flow-prior": {"prior": "glow", "prior_args": {"layers": 2, "hidden": [5]}},
}
FACTORS = ("standard", "iaf", "af-prior")


def vae(part, latent=2, shaken=0.3):
    args = {"channels": [3, 4], "strides": [2, 1], "hidden": 6, **PARTS[part]}
    model = ResNetVAE(SHAPE, latent, **args)
    for parameter in model.parameters():
        parameter.data += shaken * torch.randn_like(parameter)
    return model


def images(n):
    return (torch.rand(n, *SHAPE) < 0.4).double()


@pytest.mark.parametrize("part", PARTS)
def test_importance_weights_have_the_likelihood_as_mean(part, generator):
    """Of two latent variables, by a sum over a grid."""
    model, x = vae(part, shaken=0.1).eval(), images(3)
    model.posterior.raw_variance.bias.data += 6  # wider than the true posterior
    line = torch.linspace(-8, 8, 61)
    grid, area = torch.cartesian_prod(line, line), 2 * (line[1] - line[0]).log()
    prior = model.density.log_prob(grid)
    assert abs((prior.logsumexp(0) + area).exp() - 1) < 1e-3
    pixels = model.decode(grid)
    fits = torch.stack([pixels.log_prob(one.flatten()[None]) for one in x])
    found = importance_bound(model, x, 1_000, generator)
    error = 4.5 * found.error + 1e-3
    assert ((found.log_marginal - (fits + prior).logsumexp(1) - area).abs() < error).all()
    assert error.min() < 0.5


@pytest.mark.parametrize("part", FACTORS)
def test_terms_of_the_variables_sum_to_the_divergence_of_the_draw(part):
    model, x = vae(part, latent=6), images(5)
    whole = model.draw(x, 1, torch.Generator().manual_seed(4))
    fit, terms = model.draw_by_variable(x, torch.Generator().manual_seed(4))
    assert terms.shape == (5, 6)
    torch.testing.assert_close(fit, whole.log_likelihood[:, 0])
    torch.testing.assert_close(terms.sum(1), (whole.log_posterior - whole.log_prior)[:, 0])
    assert terms.std(1).min() > 1e-3


def test_a_term_is_the_divergence_of_its_variable(generator):
    """Between Gaussians, in closed form."""
    model, x = vae("standard", latent=3), images(1)
    with torch.no_grad():
        _, terms = model.draw_by_variable(x.expand(20_000, *SHAPE), generator)
        mean, variance = model.posterior_moments(x)
    exact = 0.5 * (mean.square() + variance - 1 - variance.log())[0]
    assert ((terms.mean(0) - exact).abs() < 4.5 * terms.std(0) / len(terms) ** 0.5).all()


def test_a_term_of_an_autoregressive_posterior_is_of_its_own_gates():
    """The diagonal of each map's Jacobian, which is triangular, on the variable it belongs to."""
    flow = InverseAutoregressive(features=4, latent=3, flows=2, width=6)
    for parameter in flow.parameters():
        parameter.data += torch.randn_like(parameter)
    z, features = torch.randn(3), torch.randn(1, 4)
    context = flow.context(features)[:, None]

    def mapped(k, z):
        return flow.maps[k](z.view(1, 1, 3), context)[0].flatten()

    def logs(k, z):
        return torch.autograd.functional.jacobian(lambda z: mapped(k, z), z).diagonal().log()

    between = mapped(0, z).flip(0)
    _, terms = flow.transform_by_variable(z.view(1, 1, 3), features)
    torch.testing.assert_close(terms.flatten(), logs(0, z).flip(0) + logs(1, between))


def test_the_shifting_prior_keeps_volumes_and_orders():
    """Each map's Jacobian is triangular, with ones: the density is a product of conditionals."""
    prior = build_prior("maf-shift", 4, {"layers": 1, "hidden": [9]})
    for parameter in prior.parameters():
        parameter.data += torch.randn_like(parameter)
    z = torch.randn(4)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: prior.forward_and_log_det(z[None])[0][0], z
    )
    torch.testing.assert_close(jacobian.triu(), torch.eye(4))
    assert jacobian.tril(-1).abs().max() > 0.01
    back = prior.inverse(prior.forward_and_log_det(z[None])[0])
    torch.testing.assert_close(back[0], z)


# ----------------------------------------------------------------------------- free bits


def free_bits(nats):
    return build_objective(ObjectiveSpec(name="free-bits", args={"nats": nats}))


def loss_of(model, nats, x):
    loss = free_bits(nats)(model, x, 0, torch.Generator().manual_seed(5))
    model.zero_grad()
    loss.total.backward()
    return loss.total.detach(), {n: p.grad for n, p in model.named_parameters()}


def test_what_is_below_the_free_nats_has_no_gradient():
    """By hand: each variable's mean term, or what is free where that is more."""
    model, x = vae("af-prior", latent=5), images(6)
    fit, terms = model.draw_by_variable(x, torch.Generator().manual_seed(5))
    means = terms.mean(0).detach()
    middle = means.sort().values[1:3].mean().item()  # two variables below it
    total, gradients = loss_of(model, middle, x)
    torch.testing.assert_close(total, means.clamp_min(middle).sum() - fit.mean().detach())
    counted = (terms.mean(0) * (means > middle)).sum() - fit.mean()
    model.zero_grad()
    counted.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
    total, gradients = loss_of(model, 1e3, x)
    assert all(not g.any() for name, g in gradients.items() if name.startswith("prior"))
    torch.testing.assert_close(total, 5e3 - fit.mean().detach())


def test_nothing_is_free_where_a_model_is_evaluated():
    model, x = vae("iaf", latent=3).eval(), images(6)
    total, _ = loss_of(model, 1e3, x)
    bound = model.elbo(x, torch.Generator().manual_seed(5)).mean()
    torch.testing.assert_close(total, -bound.detach())


@pytest.mark.parametrize(("part", "told"), [("flow-posterior", "posterior SharedGlow"),
                                            ("flow-prior", "prior CouplingFlow")])  # fmt: skip
def test_free_bits_need_a_factor_for_each_variable(part, told):
    spec = ObjectiveSpec(name="free-bits", args={"nats": 0.01})
    with pytest.raises(DeclarationError, match=f"{told}.*has no factor for each variable"):
        require_fit(spec, vae(part))
    for fine in FACTORS:
        require_fit(spec, vae(fine, latent=3))


# ----------------------------------------------------------------------------- the model


@pytest.mark.parametrize("part", PARTS)
def test_everything_normalised_starts_from_the_data(part):
    model, x, seen = vae(part, latent=4, shaken=0.0), images(200), []
    model.initialise(x)
    again = {n: p.clone() for n, p in model.named_parameters()}
    model.initialise(x)
    for name, parameter in model.named_parameters():  # at the start already
        torch.testing.assert_close(parameter.data, again[name].data, atol=1e-4, rtol=1e-4)
    model.decoder[-2].register_forward_hook(lambda _, given, out: seen.append(out))
    model.elbo(x, torch.Generator().manual_seed(0))
    assert not any(getattr(module, "initialising", False) for module in model.modules())
    assert 0.5 < seen[0].std() < 2.5  # of a sum of two with variance 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"channels": [3, 4], "strides": [2]}, "2 blocks have 1 strides"),
        ({"channels": [], "strides": []}, "0 blocks have 0 strides"),
        ({"channels": [3], "strides": [3]}, "3 is more than 2"),
        ({"posterior": "ffjord"}, "does not count its solver"),
    ],
)
def test_what_is_not_served_is_refused(args, told):
    with pytest.raises(DeclarationError, match=told):
        ResNetVAE(SHAPE, 2, **args)
    with pytest.raises(DeclarationError, match="are no images"):
        ResNetVAE((20,), 2)
