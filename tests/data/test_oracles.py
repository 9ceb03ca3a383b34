"""Oracles: inverses, determinants, and entropies against sampled log densities."""

import math
from pathlib import Path

import pytest
import torch

from dgm_bench.data import card
from dgm_bench.data.oracles import (
    ENTROPIES,
    autoregressive_oracle,
    estimate_entropy,
    gaussian_oracle,
    load,
    transformed_oracle,
)

ORACLES = {
    "gaussian": gaussian_oracle(5),
    "autoregressive": autoregressive_oracle(5),
    "oracle-6": transformed_oracle(6),
    "oracle-21": transformed_oracle(21),
}


@pytest.mark.parametrize("name", ORACLES)
def test_the_mean_log_density_of_samples_is_minus_the_entropy(name):
    oracle = ORACLES[name]
    surprise = -oracle.log_density(oracle.sample(40_000, seed=7))
    error = float(surprise.std()) / math.sqrt(len(surprise))
    known = oracle.entropy
    assert abs(float(surprise.mean()) - known.value) < 4 * math.hypot(error, known.se)


@pytest.mark.parametrize("dim", [2, 6, 21])
def test_every_layer_inverts_and_agrees_on_its_determinant(dim):
    oracle = transformed_oracle(dim)
    z = oracle.base.sample(50, seed=1)
    for layer in oracle.layers:
        x, forward = layer.forward(z)
        back, inverse = layer.inverse(x)
        assert torch.allclose(back, z, atol=1e-10)
        assert torch.allclose(forward, inverse, atol=1e-10)
        z = x


@pytest.mark.parametrize("dim", [2, 6])
def test_the_log_determinant_is_that_of_the_jacobian(dim):
    oracle = transformed_oracle(dim)
    for z in oracle.base.sample(5, seed=2):
        jacobian = torch.autograd.functional.jacobian(lambda p: oracle.transform(p[None])[0][0], z)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(oracle.transform(z[None])[1]) == pytest.approx(float(expected), rel=1e-9)


def test_a_two_dimensional_oracle_integrates_to_one():
    oracle = transformed_oracle(2)
    axis = torch.arange(-8, 8, 0.02, dtype=torch.float64)
    mass = oracle.log_density(torch.cartesian_prod(axis, axis)).exp().sum() * 0.02**2
    assert float(mass) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dim", ENTROPIES)
def test_the_stored_entropies_are_what_the_estimate_gives(dim):
    again = estimate_entropy(transformed_oracle(dim), n=20_000, seed=3)
    stored = ENTROPIES[dim]
    assert stored.se < 0.002
    assert abs(again.value - stored.value) < 4 * math.hypot(again.se, stored.se)


def test_the_base_entropy_of_normal_coordinates_is_exact():
    base = transformed_oracle(6).base
    normal = base.mode == 0
    plain = type(base)(base.mode[normal], base.scale[normal])
    expected = (0.5 * math.log(2 * math.pi * math.e) + plain.scale.log()).sum()
    assert plain.entropy == pytest.approx(float(expected), abs=1e-12)


def test_the_gaussian_entropy_is_the_textbook_one():
    oracle = gaussian_oracle(4, seed=1)
    covariance = oracle.factor @ oracle.factor.T
    textbook = torch.distributions.MultivariateNormal(oracle.mean, covariance)
    assert oracle.entropy.value == pytest.approx(float(textbook.entropy()), abs=1e-10)
    x = oracle.sample(5, seed=2)
    assert torch.allclose(oracle.log_density(x), textbook.log_prob(x))


def test_autoregressive_conditionals_look_only_back():
    oracle = autoregressive_oracle(4)
    x = oracle.sample(1, seed=3)
    jacobian = torch.autograd.functional.jacobian(lambda p: torch.cat(oracle._conditionals(p)), x)
    by_output = jacobian[:, :, 0]
    assert float(by_output.triu().abs().max()) == 0
    assert float(by_output.tril(-1).abs().max()) > 0.1


@pytest.mark.parametrize("dim", [6, 21])
def test_an_oracle_is_standardised_and_far_from_a_gaussian(dim):
    loaded = load(card(f"oracle-{dim}"), Path())
    x = loaded.splits["train"].double()
    assert float(x.mean(0).abs().max()) < 0.05
    assert float((x.std(0) - 1).abs().max()) < 0.05
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    gap = loaded.log_density(loaded.splits["test"]) - gaussian.log_prob(
        loaded.splits["test"].double()
    )
    assert float(gap.mean()) > 5
