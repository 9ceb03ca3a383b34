"""The test of copying: what it finds of copies, of new images and of worse ones."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from dgm_bench.metrics.images.copying import FEWEST, CopyingTest, rank_statistic


def images(n, generator, dim=4):
    """Features in five clusters of unequal spread."""
    centres = 6 * torch.arange(5.0)[:, None] * torch.ones(dim)
    which = torch.arange(n) % 5
    noise = torch.randn(n, dim, generator=generator)
    return centres[which] + (1 + which[:, None] / 4) * noise


@pytest.fixture
def test(generator):
    return CopyingTest(images(1000, generator), images(500, generator))


def test_copies_are_caught_and_new_images_are_not(test, generator):
    """Copying half lies between; images further from training than real ones are above zero."""
    fresh, near = images(500, generator), test.train + 1e-3 * torch.randn(1000, 4)
    copies = near[torch.randperm(1000, generator=generator)[:500]]
    half = torch.cat([copies[:250], fresh[:250]])
    found = {
        name: test.score(drawn).value
        for name, drawn in (("fresh", fresh), ("half", half), ("copies", copies))
    }
    blurred = test.score(fresh + 4 * torch.randn(500, 4, generator=generator)).value
    assert abs(found["fresh"]) < 3 * test.score(fresh).se
    assert found["copies"] < 1.6 * found["half"] < -5
    assert blurred > 3


def plainly(test, drawn, cells):
    """The statistic pair by pair, as the paper has it."""
    partition = test.partition(cells)
    train, held_out, generated = (x.double().numpy() for x in (test.train, test.held_out, drawn))
    centres = partition.centres.double().numpy()

    def cell(x):
        return int(np.argmin(((centres - x) ** 2).sum(1)))

    def nearest(x, own):
        return min(np.sqrt(((t - x) ** 2).sum()) for t in train if cell(t) == own)

    total = weight = 0.0
    for own in range(cells):
        near = [nearest(x, own) for x in held_out if cell(x) == own]
        far = [nearest(x, own) for x in generated if cell(x) == own]
        m, n = len(far), len(near)
        if m <= FEWEST or not n:
            continue
        u = sum((q > p) + (q == p) / 2 for q in far for p in near)
        total += n * (u - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12)
        weight += n
    return total / weight


def test_the_statistic_is_the_papers(generator):
    small = CopyingTest(images(120, generator), images(150, generator))
    drawn = torch.cat([small.train[:60], images(90, generator)])  # copies tie with one another
    assert small.score(drawn).value == pytest.approx(plainly(small, drawn, 3), abs=1e-9)


def test_ranks_are_those_of_mann_and_whitney(generator):
    far, near = (torch.rand(n, generator=generator).double().numpy() for n in (30, 40))
    peer = mannwhitneyu(far, near, use_continuity=False, method="asymptotic", alternative="less")
    cumulative = 0.5 * math.erfc(-rank_statistic(far, near) / math.sqrt(2))
    assert cumulative == pytest.approx(peer.pvalue, abs=1e-12)


def test_the_error_is_the_spread_where_nothing_is_copied(generator):
    test, found = CopyingTest(images(600, generator), images(150, generator)), []
    for _ in range(40):
        test.held_out = images(150, generator)
        found.append(test.score(images(150, generator)))
    values = torch.tensor([score.value for score in found])
    se = torch.tensor([score.se for score in found]).mean()
    assert abs(values.mean()) < 4 * se / math.sqrt(40)
    assert 0.65 < values.std() / se < 1.5


def test_a_collapsed_model_and_few_images_have_a_number(test, generator):
    lost = torch.full((100, 4), 1e4) + torch.rand(100, 4, generator=generator)
    assert test.score(lost).value > 5
    assert math.isfinite(test.score(images(5, generator)).value)
