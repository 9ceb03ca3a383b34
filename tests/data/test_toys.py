"""The 2-D densities: samples against their log densities, and the integrals of those."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm_bench.data import card, toys

KNOWN = sorted(toys.LOG_DENSITY)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_density_integrates_to_one(name):
    axis = torch.arange(-6, 6, 0.02, dtype=torch.float64) + 0.01
    mass = toys.LOG_DENSITY[name](torch.cartesian_prod(axis, axis)).exp().sum() * 0.02**2
    assert float(mass) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", KNOWN)
def test_samples_agree_with_the_density_and_its_entropy(name):
    x = torch.from_numpy(toys.DRAW[name](50_000, np.random.default_rng(3)))
    surprise = -toys.LOG_DENSITY[name](x)
    error = float(surprise.std()) / math.sqrt(len(x))
    assert abs(float(surprise.mean()) - toys.entropy_of(name).value) <= 4 * error + 1e-9


@pytest.mark.parametrize("name", KNOWN)
def test_samples_fall_into_cells_as_the_density_says(name):
    n, width = 50_000, 0.25
    x = toys.DRAW[name](n, np.random.default_rng(4))
    edges = np.arange(-6, 6 + width, width)
    seen = np.histogram2d(x[:, 0], x[:, 1], bins=[edges, edges])[0]
    fine = torch.arange(-6, 6, width / 10, dtype=torch.float64) + width / 20
    mass = toys.LOG_DENSITY[name](torch.cartesian_prod(fine, fine)).exp() * (width / 10) ** 2
    expected = n * mass.view(48, 10, 48, 10).sum((1, 3)).numpy()
    full = expected > 20
    score = (seen[full] - expected[full]) / np.sqrt(expected[full])
    assert np.square(score).mean() == pytest.approx(1, abs=0.3)


def test_stored_splits_stay_within_the_checkerboard():
    loaded = toys.load(card("checkerboard"), Path())
    for split in loaded.splits.values():
        assert bool(loaded.log_density(split.double()).isfinite().all())


def test_the_checkerboard_is_empty_on_the_other_colour_and_outside():
    x = torch.tensor([[1.0, -1.0], [5.0, 0.5], [1.0, 1.0]])
    assert toys.checkerboard_log_density(x).tolist() == [-math.inf, -math.inf, -math.log(32)]


@pytest.mark.parametrize("name", ["2spirals", "pinwheel", "swissroll", "moons"])
def test_shapes_without_a_known_density_lie_where_their_curves_do(name):
    x = toys.DRAW[name](5_000, np.random.default_rng(5))
    assert x.shape == (5_000, 2)
    assert 1 < np.abs(x).max() < 7
    assert card(name).dim == 2


def test_two_spirals_are_each_others_image_through_the_origin():
    x = toys.two_spirals(40_000, np.random.default_rng(6))
    assert np.abs(x.mean(axis=0)).max() < 0.05
    turn = np.linalg.norm(x, axis=1) * 3
    assert turn.max() == pytest.approx(3 * math.pi, abs=1.5)
