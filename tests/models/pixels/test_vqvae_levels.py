"""VQ-VAE with several codes at a place: its bound, its codes, what its loss moves."""

import itertools
import math

import torch

from dgm_bench.models.capabilities import HasPosteriorDraws
from dgm_bench.models.pixels.vqvae_levels import LevelVQVAE
from dgm_bench.train.codebook_objectives import quantised_likelihood


def new(shape=(3, 4, 4), levels=8, **args):
    small = {"stride": 2, "per_place": 2, "hidden": 6, "residual_units": 4, "codes": 5, "dim": 3}
    return LevelVQVAE(shape, levels=levels, **{**small, **args})


def test_likelihoods_of_all_images_given_the_codes_sum_to_one(generator):
    model = new((1, 2, 2), levels=3).eval()
    assert isinstance(model, HasPosteriorDraws)
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 1, 2, 2)
    _, level = model._quantised(every[40:41].expand(81, -1, -1, -1))
    assert abs(model._log_likelihood(every, level).exp().sum().item() - 1) < 1e-12


def test_the_bound_is_the_likelihood_and_a_uniform_prior(generator):
    model, x = new().eval(), torch.randint(8, (6, 3, 4, 4))
    draws = model.draw(x, 2, generator)
    assert draws.z.shape == (6, 2, 2 * 4)
    expected, _ = model.quantised_log_likelihood(x, generator)
    torch.testing.assert_close(draws.log_weight[:, 1], expected - 8 * math.log(5))


def test_each_place_has_codes_of_its_own(generator):
    """The codes of an image are those of its own rows, in the order of the decoder's inputs."""
    model, x = new().eval(), torch.randint(8, (4, 3, 4, 4))
    _, level = model._quantised(x)
    for i in range(4):
        _, alone = model._quantised(x[i : i + 1])
        assert torch.equal(alone.codes, level.codes[2 * i : 2 * i + 2])
        own = model._log_likelihood(x[i : i + 1], alone)
        torch.testing.assert_close(own, model._log_likelihood(x, level)[i : i + 1])


def test_the_loss_moves_everything_and_the_codebook(generator):
    model, x = new(), torch.randint(8, (6, 3, 4, 4))
    before = model.quantiser.codebook.clone()
    loss = quantised_likelihood(0.25)(model, x, 0, generator)
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert not torch.equal(model.quantiser.codebook, before)
    terms = loss.terms
    torch.testing.assert_close(
        loss.total.detach(), terms["reconstruction"] + terms["commitment"] / 4
    )
