"""Errors of classifiers, what their gradients hold, and what a solver's tolerance changes."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from dgm_bench.data.class_rows import as_inputs, with_classes, without_classes
from dgm_bench.data.dataset import Dataset
from dgm_bench.metrics.classification import errors
from dgm_bench.metrics.classification.errors import error_rate
from dgm_bench.metrics.evaluate import evaluate
from dgm_bench.models.classifiers.ode_network import ODENetwork, ResidualNetwork
from dgm_bench.spec import EvaluationSpec
from dgm_bench.train.objectives import classification

SHAPE = (1, 8, 8)


class Fixed(nn.Module):
    """Says the class that the first pixel, times ten, says."""

    image_shape = SHAPE

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def class_logits(self, images):
        said = (images[:, 0, 0, 0] * 255).round().long()
        return self.scale * nn.functional.one_hot(said, 10).to(images)


@pytest.fixture
def data(generator):
    images = torch.randint(10, (40, *SHAPE), generator=generator, dtype=torch.uint8)
    classes = images[:, 0, 0, 0].long()
    classes[:6] = (classes[:6] + 1) % 10
    rows = with_classes(images, classes)
    return Dataset("rows", "1", {"train": rows, "test": rows}, classes=tuple("0123456789"))


def measured(model, data, *metrics):
    found = evaluate(model, data, EvaluationSpec(metrics=metrics), 0, Path())
    return {metric.name: metric for metric in found}


def test_errors_are_counted_and_probabilities_are_those_of_the_classes(data):
    found = measured(Fixed(), data, "classification")
    assert found["test-error"].value == pytest.approx(100 * 6 / 40)
    assert found["test-error"].se == pytest.approx(100 * math.sqrt(0.15 * 0.85 / 40))
    log_z = math.log(math.exp(3.0) + 9)
    assert found["class-nll"].value == pytest.approx(log_z - 3.0 * 34 / 40)
    assert found["parameters"].value == pytest.approx(1e-6)


def test_the_objective_is_the_mean_of_the_same_losses(data, generator):
    model, rows = Fixed(), data.splits["test"].double()
    rows[:, :-1] /= 255
    loss = classification()(model, rows, 0, generator).total
    assert loss.item() == pytest.approx(measured(model, data, "classification")["class-nll"].value)


def test_no_errors_have_no_error():
    metric = error_rate("test-error", torch.zeros(5), "test", "")
    assert (metric.value, metric.se) == (0.0, 0.0)


@torch.no_grad()
def evaluations_of(model, rows):
    before = model.function_evaluations
    model.class_logits(without_classes(as_inputs(rows).double(), SHAPE)[0])
    return model.function_evaluations - before


@pytest.mark.parametrize("adjoint", [True, False])
def test_the_adjoint_s_memory_does_not_grow_with_the_steps(data, adjoint, monkeypatch):
    """Neural ODEs, section 2 and Table 1: O(1), and O(L) through the solver's steps."""
    monkeypatch.setattr(errors, "TOLERANCES", ("1e-3", "1e-1"))
    model = ODENetwork((65,), SHAPE, channels=4, adjoint=adjoint)
    before = model.solver_settings
    found = measured(model, data, "tolerances", "gradient-costs")
    values = {name: metric.value for name, metric in found.items()}
    evaluations, memory = (
        [values[f"{name}-{tolerance}"] for tolerance in ("1e-1", "1e-3")]
        for name in ("forward-evaluations", "gradient-memory")
    )
    assert evaluations[1] > evaluations[0]
    assert (memory[1] == memory[0]) is adjoint
    assert adjoint or memory[1] > memory[0]
    assert all((values[f"backward-evaluations-{t}"] > 0) is adjoint for t in ("1e-1", "1e-3"))
    assert model.solver_settings == before == "dopri5 rtol 0.001, atol 0.001"
    for name in ("forward-evaluations", "backward-evaluations", "gradient-memory"):
        assert values[name] == values[f"{name}-1e-3"]
    assert values["forward-evaluations"] == evaluations_of(model, data.splits["test"][:32])
    assert "trace" not in found["test-error-1e-1"].protocol


def test_memory_of_a_residual_network_grows_with_its_blocks(data):
    def held(blocks):
        model = ResidualNetwork((65,), SHAPE, channels=4, blocks=blocks)
        return measured(model, data, "gradient-costs")["gradient-memory"].value

    one, two, four = held(1), held(2), held(4)
    assert four - two == pytest.approx(2 * (two - one), rel=1e-6)
    assert two > one


def test_the_time_of_a_gradient_is_the_median_of_several(data, monkeypatch):
    times = iter([0.0, 5.0, 10.0, 11.0, 20.0, 29.0, 30.0, 33.0, 40.0, 42.0])
    monkeypatch.setattr(errors.time, "perf_counter", lambda: next(times))
    found = measured(Fixed(), data, "gradient-costs")["gradient-seconds"]
    assert found.value == 3.0
    assert "from 1 to 9" in found.protocol
