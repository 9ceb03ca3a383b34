"""What a recipe's evaluation is of: its split, its trace, its noise, and a prepared model."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.metrics.evaluate import evaluate, prepare
from dgm_bench.spec import EvaluationSpec


class Levels(nn.Module):
    """The density of each point is its first number; an estimate of it is one lower."""

    def __init__(self):
        super().__init__()
        self.unused, self.seen = nn.Parameter(torch.zeros(())), None

    def log_prob(self, x):
        return x[:, 0]

    def log_prob_estimate(self, x, generator):
        return x[:, 0] - 1

    def calibrate(self, x):
        self.seen = x


def data(**settings):
    splits = {name: torch.full((4, 2), 10.0 * k) for k, name in enumerate(("train", "val", "test"))}
    return Dataset("levels", "1", splits, **settings)


def nll(data, **settings):
    spec = EvaluationSpec(metrics=("nll",), **settings)
    return evaluate(Levels().eval(), data, spec, 3, Path())[0]


def test_a_model_is_prepared_by_the_training_set_in_evaluation_mode():
    model, points = Levels().train(), data()
    prepare(model, points, EvaluationSpec())
    assert not model.training
    assert torch.equal(model.seen, points.splits["train"])


@pytest.mark.parametrize(("split", "value"), [("train", 0.0), ("val", -10.0), ("test", -20.0)])
def test_a_number_is_of_the_split_that_it_names(split, value):
    found = nll(data(), split=split)
    assert (found.split, found.value) == (split, value)


@pytest.mark.parametrize(("trace", "value"), [("exact", -20.0), ("estimate", -19.0)])
def test_a_likelihood_has_the_trace_that_the_recipe_says(trace, value):
    assert nll(data(), trace=trace).value == value


def test_another_unit_is_of_the_inputs_that_the_likelihood_is_of():
    noisy = data(
        dequantise=lambda x, generator: x + torch.rand(x.shape, generator=generator),
        to_unit=lambda nats, inputs: nats - inputs[:, 0],
        unit="bits/dim",
    )
    assert nll(noisy, batch_size=3).value == 0
