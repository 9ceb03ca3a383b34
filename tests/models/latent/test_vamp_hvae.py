"""Two-level VAEs with a VampPrior: likelihoods by sums, causality of pixels, what is refused."""

from itertools import product

import pytest
import torch

from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.bounds.variational import importance_bound
from dgm_bench.models.latent.vamp_hvae import ConvHVAE, MaskedConv, PixelHVAE

SMALL = {"filters": 3, "hidden": 5, "maps": 4, "components": 3, "init_mean": 0.5, "init_std": 0.3}
MODELS = [ConvHVAE, PixelHVAE]


def vae(kind, shape, latents=(1, 1)):
    model = kind(shape, latents, **SMALL)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def images(n, shape):
    return (torch.rand(n, *shape) < 0.5).double()


@pytest.mark.parametrize("kind", MODELS)
def test_importance_weights_have_the_likelihood_as_mean(kind, generator):
    """Of one variable in each layer, by a sum over a grid."""
    model, x = vae(kind, (1, 3, 4)), images(3, (1, 3, 4))
    for head in (model.posterior_above, model.posterior_below, model.prior_below):
        head.mean.weight.data *= 0.2  # so that posteriors and priors overlap
        head.log_variance.weight.data *= 0.2
    for parameter in model.pixels.parameters():
        parameter.data *= 2.5
    line = torch.linspace(-10, 10, 61)
    below, above = torch.cartesian_prod(line, line)[:, None].unbind(2)
    prior = model._log_prior(below[None], above[None])[0]
    area = 2 * (line[1] - line[0]).log()
    assert abs((prior.logsumexp(0) + area).exp() - 1) < 1e-3
    fits = torch.cat([model._log_likelihood(one[None], below[None], above[None]) for one in x])
    found = importance_bound(model, x, 800, generator)
    error = 4.5 * found.error + 1e-3
    assert ((found.log_marginal - (fits + prior).logsumexp(1) - area).abs() < error).all()
    assert error.min() < 0.4
    assert fits.std(1).min() > 0.1  # the latent variables matter


def test_the_likelihood_of_all_images_sums_to_one():
    """Of 2 x 3 pixels, given the latent variables: a product of conditionals."""
    model = vae(PixelHVAE, (1, 2, 3), (2, 2))
    x = torch.tensor(list(product((0.0, 1.0), repeat=6))).view(-1, 1, 2, 3)
    z = torch.randn(1, 1, 2).expand(len(x), 1, 2)
    total = model._log_likelihood(x, z, -z).logsumexp(0)
    torch.testing.assert_close(total.squeeze(), torch.zeros(()), atol=1e-10, rtol=0)


def test_a_pixel_depends_on_those_before_it_alone():
    model = vae(PixelHVAE, (1, 4, 5), (2, 2))
    z = torch.randn(1, 2)
    slopes = torch.autograd.functional.jacobian(
        lambda x: model.logits(x.view(1, 1, 4, 5), z, z)[0], torch.rand(20)
    )
    assert not slopes.triu().any()
    assert (slopes.diagonal(-1) != 0).sum() > 10  # of the one before, but for the first of a row
    of_latents = torch.autograd.functional.jacobian(
        lambda z: model.logits(torch.rand(1, 1, 4, 5), z, z)[0], z
    )
    assert of_latents.abs().sum(-1)[1:].min() > 0


@pytest.mark.parametrize("middle", [False, True])
def test_masked_weights_have_no_effect(middle):
    conv = MaskedConv(1, 1, middle).double()
    conv.weight.data.fill_(1.0)
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    seen = conv(x)[0, 0].nonzero().tolist()
    after = [[2, 2]] if middle else []
    assert seen == [*after, [2, 3], [3, 1], [3, 2], [3, 3]]


def test_sampled_pixels_have_the_chances_of_their_logits(generator):
    """Given one pseudo-input, by the chain rule: the mean of all images' probabilities."""
    model = vae(PixelHVAE, (1, 1, 2), (1, 1))
    x = model.sample(2_000, generator)
    below, above = model.draw_latents(2_000, torch.Generator().manual_seed(8))
    with torch.no_grad():
        for pair in product((0.0, 1.0), repeat=2):
            one = torch.tensor(pair).view(1, 1, 1, 2)
            likelihood = model._log_likelihood(
                one.expand(2_000, 1, 1, 2), below[:, None], above[:, None]
            ).exp()
            share = (x == one).all(-1).double()
            error = (share.var() / 2_000 + likelihood.var() / 2_000) ** 0.5
            assert abs(share.mean() - likelihood.mean()) < 4.5 * error


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_not_served_is_refused(kind):
    with pytest.raises(DeclarationError, match="are no images"):
        kind((12,), **SMALL)
    with pytest.raises(DeclarationError, match="3 layers of latent variables"):
        kind((1, 4, 4), (2, 2, 2), **SMALL)
