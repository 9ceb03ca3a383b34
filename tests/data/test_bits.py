"""Bits per dimension against densities whose bits are known."""

import math

import pytest
import torch
from torch.distributions import Normal

from dgm_bench.data.bits import (
    bits_from_logit_density,
    bits_from_pixel_density,
    from_logits,
    to_logits,
)


@pytest.mark.parametrize(("levels", "bits"), [(256, 8.0), (17, math.log2(17)), (2, 1.0)])
def test_a_uniform_density_over_pixels_costs_all_bits(levels, bits):
    log_prob = torch.zeros(3, dtype=torch.float64)
    assert bits_from_pixel_density(log_prob, 784, levels).tolist() == pytest.approx([bits] * 3)


@pytest.mark.parametrize("lam", [1e-6, 0.05])
def test_the_uniform_density_seen_through_logits_costs_all_bits(lam):
    # z = lam + (1 - 2 lam) u is uniform on [lam, 1 - lam], so its logit is a cut logistic.
    u = torch.rand(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = to_logits(u, lam)
    log_prob = (-logits - 2 * torch.nn.functional.softplus(-logits)).sum(1)
    log_prob = log_prob - 40 * math.log(1 - 2 * lam)
    bits = bits_from_logit_density(log_prob, logits, lam)
    assert bits.tolist() == pytest.approx([8.0] * 5, abs=1e-10)


def test_both_conventions_agree_on_the_same_density():
    lam = 0.05
    pixels = torch.rand(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = to_logits(pixels, lam)
    log_prob = Normal(0.3, 1.7).log_prob(logits).flatten(1).sum(1)
    leaf = pixels.clone().requires_grad_()
    (slope,) = torch.autograd.grad(to_logits(leaf, lam).sum(), leaf)
    through_pixels = log_prob + slope.log().flatten(1).sum(1)
    expected = bits_from_pixel_density(through_pixels, 6)
    assert torch.allclose(bits_from_logit_density(log_prob, logits, lam), expected, atol=1e-12)


def test_the_expected_bits_of_a_known_density_are_its_entropy():
    # Triangular density 2x on [0, 1): differential entropy 1/2 - ln 2.
    x = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    bits = bits_from_pixel_density((2 * x).log(), 1)
    expected = 8 + (0.5 - math.log(2)) / math.log(2)
    assert float((bits * 2 * x).mean()) == pytest.approx(expected, abs=1e-6)


def test_logits_invert():
    pixels = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    for lam in (1e-6, 0.05):
        assert torch.allclose(from_logits(to_logits(pixels, lam), lam), pixels, atol=1e-9)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[800.0, -800.0]])
    assert bits_from_logit_density(torch.zeros(1), logits, 1e-6).isfinite().all()
