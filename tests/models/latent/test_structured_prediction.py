"""Structured prediction: both averages, and gradients, against sums over all latent values."""

import math
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.bounds.prediction import prediction_metrics
from dgm_bench.metrics.evaluate import require_fit
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.models.latent.structured_prediction import StructuredPrediction
from dgm_bench.spec import EvaluationSpec
from dgm_bench.train.discrete_objectives import (
    NORMALISED,
    PREDICTION_ESTIMATORS,
    negative_prediction,
)


def tiny(classes=3, variables=1, **args):
    model = StructuredPrediction((2, 3), variables, classes, **args)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter)
    return model


def binary(n):
    return (torch.rand(n, 2, 3) < 0.5).double()


def in_turn(layers, logits):
    return layers.pop().expand_as(logits)


def enumerated(model, x):
    """``log p(lower|h_2)`` and ``log p(h_1, h_2|upper)`` for every pair of values, one by one."""
    values = [torch.stack(v) for v in product(torch.eye(model.classes), repeat=model.variables)]
    rows = []
    for first, second in product(values, repeat=2):
        layers = [second, first]
        rows.append(model.predict(x, 1, partial(in_turn, layers)))
    return tuple(torch.cat(part, 1) for part in zip(*rows, strict=True))


def test_the_enumerated_layers_are_the_networks(generator):
    """By hand for one binary variable a layer: sigmoids of linear functions."""
    model, x = tiny(classes=2), binary(1)
    flat, weight = x.flatten(1)[0], {n: p.detach() for n, p in model.named_parameters()}
    p_first = torch.sigmoid(weight["first.weight"] @ flat[:3] + weight["first.bias"])
    fit, log_p = enumerated(model, x)
    expected = []
    for first, second in product((0.0, 1.0), repeat=2):
        p_second = torch.sigmoid(weight["second.weight"][:, 0] * first + weight["second.bias"])
        pixels = torch.sigmoid(weight["pixels.weight"][:, 0] * second + weight["pixels.bias"])
        p = (p_first if first else 1 - p_first) * (p_second if second else 1 - p_second)
        right = torch.where(flat[3:] == 1, pixels, 1 - pixels).log().sum()
        expected.append((right, p.log().squeeze()))
    torch.testing.assert_close(fit[0].detach(), torch.stack([a for a, _ in expected]))
    torch.testing.assert_close(log_p[0].detach(), torch.stack([b for _, b in expected]))


@pytest.mark.parametrize(("classes", "variables"), [(2, 2), (3, 1)])
def test_both_averages_are_those_of_the_enumeration(classes, variables):
    model, x = tiny(classes, variables).eval(), binary(8)
    spec = EvaluationSpec(metrics=("prediction",), importance_samples=20_000)
    data = Dataset("toy", "1", {"train": x, "test": x})
    found = {m.name: m.value for m in prediction_metrics(Evaluation(model, data, spec, 1, Path()))}
    with torch.no_grad():
        fit, log_p = enumerated(model, x)
    torch.testing.assert_close(log_p.logsumexp(1), torch.zeros(8))
    of_logs, of_values = (log_p.exp() * fit).sum(1), (log_p + fit).logsumexp(1)
    assert found["prediction-mean"] == pytest.approx(-of_logs.mean().item(), abs=0.03)
    assert found["prediction-nll"] == pytest.approx(-of_values.mean().item(), abs=0.03)
    assert found["prediction-mean"] > found["prediction-nll"] + 0.1


def layers_of(model):
    return [*model.first.parameters(), *model.second.parameters(), *model.pixels.parameters()]


@pytest.mark.usefixtures("unchecked")
def test_the_score_function_has_the_gradient_of_the_mean():
    model, x = tiny(classes=2, baseline_hidden=[4]), binary(10)
    for layer in (model.second, model.pixels):  # so that the latent values matter
        layer.weight.data *= 4
    fit, log_p = enumerated(model, x)
    exact = torch.autograd.grad(-(log_p.exp() * fit).sum(1).mean(), layers_of(model))
    noise, rows = torch.Generator().manual_seed(2), []
    for _ in range(60):
        model.baseline.moments.zero_()  # no scale
        loss = negative_prediction("sf")(model, x.repeat(200, 1, 1), 0, noise).total
        rows.append(torch.autograd.grad(loss, layers_of(model)))
    told = []
    for draws, expected in zip(zip(*rows, strict=True), exact, strict=True):
        stack = torch.stack(draws)
        error = 4.5 * stack.std(0) / math.sqrt(len(stack)) + 1e-12
        assert ((stack.mean(0) - expected).abs() < error).all()
        told.append(bool((expected.abs() > error).any()))
    assert sum(told) >= 4


def test_the_latent_layers_gradient_is_in_units_of_the_signals_deviation():
    model, x = tiny(classes=2, baseline_hidden=[4]), binary(10)
    for parameter in model.baseline.network.parameters():
        parameter.data.zero_()

    def gradients(deviation):
        model.baseline.moments = torch.tensor([1.0, -2.0, 4.0 + deviation**2])
        loss = negative_prediction("sf")(model, x, 0, torch.Generator().manual_seed(2)).total
        return torch.autograd.grad(loss, layers_of(model))

    for place, (one, four) in enumerate(zip(gradients(1.0), gradients(4.0), strict=True)):
        assert one.abs().max() > 0
        torch.testing.assert_close(4 * four if place < 4 else four, one)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("estimator", PREDICTION_ESTIMATORS)
def test_every_estimator_reaches_every_parameter(estimator, classes, generator):
    model = tiny(classes, 2, baseline_hidden=[4] if estimator in NORMALISED else None)
    negative_prediction(estimator)(model, binary(9), 0, generator).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_in_evaluation_the_loss_is_that_of_the_discrete_network():
    model, x = tiny().eval(), binary(6)
    loss = negative_prediction("gumbel", temperature=5.0)(
        model, x, 0, torch.Generator().manual_seed(3)
    )
    expected = -model.log_likelihoods(x, 1, torch.Generator().manual_seed(3)).mean()
    torch.testing.assert_close(loss.total, expected)


def test_the_number_of_draws_has_to_be_said():
    data = Dataset("toy", "1", {"train": binary(3), "test": binary(3)})
    with pytest.raises(DeclarationError, match=r"set evaluation\.importance_samples"):
        require_fit(EvaluationSpec(metrics=("prediction",)), tiny(), data, Path())
