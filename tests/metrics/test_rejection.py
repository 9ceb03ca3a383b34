"""Rejection sampling by a classifier."""

import pytest
import torch
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.images.rejection import (
    most_confident,
    own_probabilities,
    rejection_curve,
)

LABELS = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
OWN = torch.tensor([0.9, 0.1, 0.2, 0.8, 0.7, 0.3, 0.1, 0.4])


class Brightness(nn.Module):
    """Says class 1 the surer the brighter an image is."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        bright = self.scale * x.flatten(1).mean(1)
        return torch.stack([1 - bright, bright], 1).log()


def test_the_surest_half_of_each_class_is_kept():
    assert most_confident(OWN, LABELS, 0.5).tolist() == [0, 3, 4, 7]


def test_all_are_kept_in_order():
    assert most_confident(OWN, LABELS, 1.0).tolist() == list(range(8))


def test_a_class_keeps_its_share_even_where_the_classifier_is_unsure_of_it():
    own = torch.where(LABELS == 0, OWN + 10, OWN)
    assert most_confident(own, LABELS, 0.25).tolist() == [0, 3]


def test_parts_are_rounded_up_but_not_by_the_error_of_a_product():
    labels, own = torch.zeros(100, dtype=torch.int64), torch.arange(100.0)
    assert len(most_confident(own, labels, 0.07)) == 7  # 0.07 * 100 > 7 in floating point
    assert len(most_confident(own, labels, 0.071)) == 8
    assert len(most_confident(own[:3], labels[:3], 0.01)) == 1


def test_of_equals_the_first_are_kept():
    assert most_confident(torch.full((8,), 0.5), LABELS, 0.5).tolist() == [0, 1, 2, 3]


def test_the_probability_is_that_of_the_own_class():
    images = torch.tensor([10, 200, 200, 30], dtype=torch.uint8)[:, None, None, None]
    labels = torch.tensor([0, 0, 1, 1])
    found = own_probabilities(Brightness(), images, labels)
    expected = torch.tensor([245, 55, 200, 30]).double() / 255
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
    sure = own_probabilities(Brightness(), images, labels)
    assert most_confident(sure, labels, 0.5).tolist() == [0, 2]


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5])
def test_parts_out_of_range_are_refused(keep):
    with pytest.raises(DeclarationError, match="use 0 < keep <= 1"):
        most_confident(OWN, LABELS, keep)


def test_all_thresholds_compare_as_many_images(generator):
    labels = torch.randint(3, (1000,), generator=generator)
    own = torch.rand(1000, generator=generator)
    found = rejection_curve(labels, own, (1.0, 0.5, 0.2), 200)
    counts = labels.bincount() * 0.2
    for fraction, indices in found.items():
        assert len(indices) == len(indices.unique()) == 200
        assert ((labels[indices].bincount() - counts).abs() <= 1).all()
        assert set(indices.tolist()) <= set(most_confident(own, labels, fraction).tolist())
    assert own[found[0.2]].mean() > own[found[0.5]].mean() > own[found[1.0]].mean()


def test_within_a_threshold_samples_are_taken_as_they_were_drawn():
    found = rejection_curve(LABELS, OWN, (1.0, 0.5), 4)
    assert found[1.0].tolist() == [0, 1, 2, 3]
    assert found[0.5].tolist() == [0, 3, 4, 7]


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_that_keeps_just_enough_is_enough(seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(7, (90,), generator=g)
    own = torch.rand(90, generator=g)
    assert len(rejection_curve(labels, own, (0.3,), 27)[0.3]) == 27


def test_thresholds_that_keep_too_few_are_refused():
    with pytest.raises(DeclarationError, match=r"keeps fewer of 8 samples.*draw at least 16"):
        rejection_curve(LABELS, OWN, (0.5, 0.25), 4)
