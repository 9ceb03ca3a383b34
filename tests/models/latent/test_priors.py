"""Priors of latent variable models: densities, samples, gradients, and those made of posteriors."""

import math

import pytest
import torch

from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.flow import StandardNormal
from dgm_bench.models.latent.gated_vae import ConvVAE, DenseVAE
from dgm_bench.models.latent.priors import GaussianMixture, build_prior

ARGS = {
    "standard": {},
    "mixture": {"components": 5},
    "vamp": {"components": 5, "init_mean": 0.5, "init_std": 0.3},
    "real-nvp": {"layers": 3, "hidden": [12]},
    "maf": {"layers": 2, "hidden": [12]},
    "maf-shift": {"layers": 2, "hidden": [12]},
    "glow": {"layers": 2, "hidden": [6]},
    "aggregated": {},
}
SHAPE = (1, 4, 4)


@pytest.fixture(autouse=True)
def in_double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=30):
    return (torch.rand(n, *SHAPE, generator=generator(1)) > 0.5).to(torch.get_default_dtype())


def vae(prior, latent=2, **changes):
    args = ARGS[prior] | changes
    return DenseVAE(SHAPE, latent, hidden=10, prior=prior, prior_args=args)


def ready(prior, latent=2):
    """A model whose prior is far from the standard normal where it can be."""
    model = vae(prior, latent)
    with torch.no_grad():
        # More, and the tails of the autoregressive flow leave the grid.
        for parameter in [*model.encoder.parameters(), *model.posterior.parameters()]:
            parameter.mul_(2.0)
    model.calibrate(images())
    return model.eval()


@pytest.mark.parametrize("prior", ARGS)
def test_density_integrates_to_one(prior):
    line = torch.linspace(-25, 25, 1_001)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        density = ready(prior).density.log_prob(grid).exp()
    assert density.sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("prior", ARGS)
def test_samples_have_the_density(prior):
    """Averages over samples are integrals of the density, for moments and for half-planes."""
    density = ready(prior).density
    z = density.sample(40_000, generator())
    line = torch.linspace(-25, 25, 1_001)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        weight = density.log_prob(grid).exp() * (line[1] - line[0]) ** 2
    for function in (torch.sin, torch.cos, torch.tanh):
        for at in (lambda v: v[:, 0], lambda v: v[:, 1] + v[:, 0]):
            seen, expected = function(at(z)), (function(at(grid)) * weight).sum()
            assert abs(seen.mean() - expected) < 4.5 * seen.std() / len(z) ** 0.5 + 1e-3


@pytest.mark.parametrize("prior", ["mixture", "vamp", "real-nvp", "maf"])
def test_gradients_reach_every_parameter(prior):
    model = vae(prior, latent=3)
    model.elbo(images(), generator()).mean().backward()
    assert any(True for _ in model.prior.parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("prior", ARGS)
def test_gradient_in_the_latent_variables(prior):
    """Through the prior alone, against finite differences."""
    density = ready(prior).density
    z = torch.randn(4, 2, requires_grad=True)
    assert torch.autograd.gradcheck(density.log_prob, z)


@pytest.mark.parametrize("prior", ARGS)
def test_single_precision_agrees_with_double(prior):
    model = ready(prior, latent=8)
    z = torch.randn(50, 8)
    with torch.no_grad():
        exact = model.density.log_prob(z)
        rounded = model.float().density.log_prob(z.float())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------- mixtures


def test_mixture_is_the_mean_of_its_components(monkeypatch):
    mean, variance = torch.randn(7, 3), torch.rand(7, 3) + 0.1
    z = torch.randn(11, 3) * 2
    normal = torch.distributions.Normal(mean, variance.sqrt())
    expected = normal.log_prob(z[:, None]).sum(-1).logsumexp(1) - math.log(7)
    torch.testing.assert_close(GaussianMixture(mean, variance).log_prob(z), expected)
    monkeypatch.setattr("dgm_bench.models.latent.priors.MAX_DENSITIES", 15)  # two rows at a time
    torch.testing.assert_close(GaussianMixture(mean, variance).log_prob(z), expected)


def test_narrow_far_components_keep_their_digits():
    """The written-out square cancels: single precision would lose whole nats here."""
    mean = torch.full((1, 40), 30.0, dtype=torch.float32)
    variance = torch.full((1, 40), 1e-4, dtype=torch.float32)
    z = mean + 0.01
    found = GaussianMixture(mean, variance).log_prob(z)
    normal = torch.distributions.Normal(mean.double(), variance.double().sqrt())
    assert abs(found.double() - normal.log_prob(z.double()).sum(1)) < 1e-3


# ----------------------------------------------------------------------------- of posteriors


def test_vamp_on_the_training_set_is_the_aggregated_posterior():
    x = images()
    vamp, aggregated = vae("vamp", components=len(x)), vae("aggregated")
    weights = {k: v for k, v in vamp.state_dict().items() if not k.startswith("prior")}
    aggregated.load_state_dict(weights, strict=False)
    with torch.no_grad():
        vamp.prior.unclipped.copy_(x)
    aggregated.calibrate(x, batch_size=7)
    z = torch.randn(50, 2)
    torch.testing.assert_close(
        aggregated.eval().density.log_prob(z), vamp.eval().density.log_prob(z)
    )
    mean, variance = vamp.posterior_moments(x)
    normal = torch.distributions.Normal(mean, variance.sqrt())
    expected = normal.log_prob(z[:, None]).sum(-1).logsumexp(1) - math.log(len(x))
    torch.testing.assert_close(vamp.density.log_prob(z), expected)


def test_aggregated_prior_is_standard_until_it_is_evaluated():
    model = vae("aggregated")
    assert isinstance(model.eval().density, StandardNormal)
    model.calibrate(images())
    assert isinstance(model.density, GaussianMixture)
    assert isinstance(model.train().density, StandardNormal)


def test_aggregated_prior_follows_the_weights_and_leaves_no_state():
    model = vae("aggregated")
    model.calibrate(images())
    before = model.eval().density.log_prob(torch.zeros(1, 2))
    with torch.no_grad():
        model.posterior.mean.bias += 3
    model.calibrate(images())
    assert model.density.log_prob(torch.zeros(1, 2)) != before
    assert not [name for name in model.state_dict() if name.startswith("prior")]


def test_calibration_leaves_other_priors_alone():
    model = vae("mixture")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.calibrate(images())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_pseudo_inputs_are_images():
    model = vae("vamp", components=200, init_mean=0.5, init_std=2.0)
    pseudo = model.prior.pseudo_inputs
    assert pseudo.shape == (200, *SHAPE)
    assert pseudo.min() == 0
    assert pseudo.max() == 1


def test_vamp_goes_with_convolutions():
    model = ConvVAE((1, 8, 8), latent=4, prior="vamp", prior_args={"components": 3})
    x = (torch.rand(5, 1, 8, 8) > 0.5).to(torch.get_default_dtype())
    assert model.elbo(x, generator()).shape == (5,)
    assert model.sample(3, generator()).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("prior", ["vamp", "aggregated"])
def test_priors_of_posteriors_refuse_flows(prior):
    with pytest.raises(DeclarationError, match="needs a Gaussian posterior"):
        DenseVAE(
            SHAPE,
            2,
            hidden=8,
            posterior="planar",
            posterior_args={"flows": 2},
            prior=prior,
            prior_args=ARGS[prior],
        )


def test_unknown_and_incomplete_priors():
    with pytest.raises(DeclarationError, match="did you mean 'mixture'"):
        build_prior("mixtur", 2, {})
    with pytest.raises(DeclarationError, match="examples' shape"):
        build_prior("vamp", 2, {})


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("mixture", {"component": 3}, "did you mean 'components'"),
        ("standard", {"width": 3}, "has no argument 'width'; leave it out"),
        ("vamp", {"event_shape": (2,)}, "use components, init_mean or init_std"),
        ("real-nvp", {"width": 3}, "use layers or hidden"),
    ],
)
def test_arguments_that_a_prior_does_not_have_are_refused(name, args, told):
    with pytest.raises(DeclarationError, match=told):
        build_prior(name, 2, args, SHAPE)


def test_aggregated_prior_prepares_its_mixture_once():
    model = vae("aggregated")
    model.calibrate(images())
    model.eval()
    assert model.density is model.density
    weights, _ = model.density._terms
    model.draw(images(), 3, generator())
    assert model.density._terms[0] is weights
    model.calibrate(images(20))
    assert len(model.density.mean) == 20
    model.float()
    assert model.density.mean.dtype == torch.float32
