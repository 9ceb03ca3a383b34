"""What is measured of models of two stages, on models small enough to work out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError, RunFailure
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.images.codes import (
    codebook_metrics,
    level_names,
    perplexity,
    prior_metrics,
    reconstruction_metrics,
)
from dgm_bench.models.capabilities import HasCodePrior, HasCodes, Reconstructs
from dgm_bench.models.codes.packing import pack, unpack
from dgm_bench.spec import EvaluationSpec


class Rounding(nn.Module):
    """Two levels: which of four greys the mean is of, and which of eight each pixel is of."""

    grids = ((1, 1), (4, 4))
    codebook_sizes = (4, 8)

    def encode(self, x):
        mean = x.mean((1, 2, 3), keepdim=True)[:, 0]
        return [self._levels(mean, 4), self._levels(x[:, 0], 8)]

    def decode(self, codes):
        return (codes[1][:, None] + 0.5) / 8

    def reconstruct(self, x):
        return self.decode(self.encode(x))

    @staticmethod
    def _levels(x, k):
        return (x * k).long().clamp(max=k - 1)


class Table(nn.Module):
    """A prior that draws each code of a level by itself, with given probabilities."""

    def __init__(self, level, probabilities, grids):
        super().__init__()
        self.level, self.grids, self.log = level, grids, torch.tensor(probabilities).log()
        self.codebook_sizes, self.classes = (len(probabilities),) * len(grids), None

    def log_prob(self, x):
        return self.log[unpack(x, self.grids)[0][self.level]].flatten(1).sum(1)

    def sample_codes(self, above, labels, generator):
        raise NotImplementedError


@pytest.fixture
def data(generator):
    def draw(n):
        return torch.randint(256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)

    return Dataset("grey", "1", {"train": draw(30), "test": draw(20)}, image_shape=(1, 4, 4))


def measured(function, data, split="test", batch_size=7, model=None):
    spec = EvaluationSpec(metrics=("codes",), batch_size=batch_size)
    evaluation = Evaluation(model or Rounding(), data, spec, 0, Path())
    return function(evaluation, split, evaluation.generator())


def test_the_toys_are_what_they_stand_for():
    assert isinstance(Rounding(), HasCodes)
    assert isinstance(Rounding(), Reconstructs)
    assert isinstance(Table(0, [1.0], ((1, 1),)), HasCodePrior)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_error_is_that_of_numpy(data, split):
    (found,) = measured(reconstruction_metrics, data, split)
    x = data.splits[split].numpy() / np.float32(255)
    gap = (np.floor(x * 8).clip(max=7) + 0.5) / 8 - x.astype(np.float64)
    errors = (gap**2).reshape(len(x), -1).mean(1)
    assert found.value == pytest.approx(errors.mean(), rel=1e-12)
    assert found.se == pytest.approx(errors.std(ddof=1) / math.sqrt(len(x)), rel=1e-9)
    assert found.n == len(x)
    assert found.split == split
    assert found.direction == "lower"
    assert found.name == {"test": "reconstruction-mse", "train": "reconstruction-mse-train"}[split]


def test_the_error_is_of_images_as_the_model_sees_them(data):
    black = Dataset(
        "grey",
        "1",
        data.splits,
        dequantise=lambda x, generator: torch.full(x.shape, 0.25),
    )
    (found,) = measured(reconstruction_metrics, black)
    assert found.value == pytest.approx(0.0625**2)  # 0.25 is the lower edge of [0.25, 0.375)


def test_an_error_that_is_not_finite_ends_the_run(data):
    class Broken(Rounding):
        def reconstruct(self, x):
            return x / 0

    with pytest.raises(RunFailure, match="reconstruction error of 20 of 20 test images"):
        measured(reconstruction_metrics, data, model=Broken())


def test_the_perplexity_of_a_uniform_code_is_the_number_of_codes():
    assert perplexity(torch.full((512,), 3)) == pytest.approx(512, rel=1e-12)
    assert perplexity(torch.tensor([5, 0, 0])) == pytest.approx(1)
    half = torch.tensor([1, 1, 0, 0])
    assert perplexity(half) == pytest.approx(2)
    assert perplexity(torch.tensor([3, 1])) == pytest.approx(4 / 3**0.75)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_codebooks_are_counted_over_the_whole_split(data, batch_size):
    found = {m.name: m for m in measured(codebook_metrics, data, "train", batch_size)}
    x = data.splits["train"].numpy() / np.float32(255)
    top = np.bincount(np.floor(x.mean((1, 2, 3)) * 4).astype(int), minlength=4)
    bottom = np.bincount(np.floor(x * 8).clip(max=7).astype(int).ravel(), minlength=8)
    for name, counts in (("top", top), ("bottom", bottom)):
        p = counts[counts > 0] / counts.sum()
        perplexity_, used = (found[f"codebook-{w}-{name}-train"] for w in ("perplexity", "used"))
        assert perplexity_.value == pytest.approx(np.exp(-(p * np.log(p)).sum()))
        assert used.value == (counts > 0).sum()
        assert perplexity_.n == 30
    assert "over 480 places" in found["codebook-perplexity-bottom-train"].protocol


def test_priors_are_measured_in_nats_for_a_code(data):
    model, tables = Rounding(), ([0.1, 0.2, 0.3, 0.4], [1 / 8] * 8)
    codes = model.encode(data.splits["test"] / 255)
    packed = pack(codes, torch.zeros(20, dtype=torch.int64)).to(torch.int16)
    priors = [Table(level, tables[level], model.grids) for level in (0, 1)]
    top, bottom = prior_metrics(
        priors, packed, model.grids, split="test", batch_size=6, protocol="as it is"
    )
    assert bottom.name == "prior-nll-bottom"
    assert bottom.value == pytest.approx(math.log(8))
    assert bottom.se == pytest.approx(0, abs=1e-12)
    each = -np.log(tables[0])[codes[0].flatten().numpy()]
    assert top.name == "prior-nll-top"
    assert top.value == pytest.approx(each.mean())
    assert top.se == pytest.approx(each.std(ddof=1) / math.sqrt(20))
    assert top.unit == "nats/code"


def test_a_prior_that_rules_an_image_out_ends_the_run():
    grids = ((1, 1),)
    packed = torch.tensor([[0, 0], [1, 0]])
    with pytest.raises(RunFailure, match="log probability of level codes of 1 of 2 train images"):
        prior_metrics(
            [Table(0, [1.0, 0.0], grids)], packed, grids, split="train", batch_size=9, protocol=""
        )


def test_levels_have_names():
    assert level_names(1) == ("codes",)
    assert level_names(2) == ("top", "bottom")
    assert level_names(3) == ("top", "middle", "bottom")
    with pytest.raises(DeclarationError, match="4 levels of codes: have no names"):
        level_names(4)
