"""Metrics are declared beside their functions, each once, and measured by their names."""

import ast
import inspect
from pathlib import Path

import pytest
import torch

from dgm_bench import metrics
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError, RunFailure
from dgm_bench.metrics.evaluate import DECLARED_IN, evaluate, require_fit
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.registry import METRICS, MetricDeclaration, metric
from dgm_bench.models.capabilities import HasLogProb
from dgm_bench.models.flows.gaussian import Gaussian
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec

TOY = EvaluationSpec(metrics=("toy",))
FILES = sorted(Path(metrics.__file__).parent.rglob("*.py"))


def toy_metrics(evaluation):
    """Return the mean of three draws."""
    noise = torch.randn(3, generator=evaluation.generator())
    words = {"se": None, "unit": "nats", "direction": "lower", "split": "test"}
    return [
        Metric(name="draw", value=noise.mean().item(), n=3, protocol=evaluation.protocol, **words)
    ]


def require_few(evaluation):
    if len(evaluation.examples) > 5:
        raise DeclarationError("metric 'toy'", "has too many examples", "give it five")


@pytest.fixture
def toy():
    """A metric that is known within a test."""
    metric("toy", needs=HasLogProb, words="a log density", check=require_few)(toy_metrics)
    yield
    METRICS.remove("toy")


def data(n=5):
    return Dataset("points", "1", {"train": torch.randn(n, 2), "test": torch.randn(n, 2)})


def test_a_metric_of_a_test_is_measured_by_its_name(toy):
    (found,) = evaluate(Gaussian((2,)).eval(), data(), TOY, 7, Path())
    expected = torch.randn(3, generator=torch.Generator().manual_seed(7)).mean()
    assert found.value == expected.item()
    assert found.protocol == "best checkpoint; float64 sums"


def test_every_metric_has_the_noise_of_the_seed_whatever_is_measured_before(toy):
    spec = EvaluationSpec(metrics=("toy", "nll", "toy"))
    first, *_, last = evaluate(Gaussian((2,)).eval(), data(), spec, 7, Path())
    assert first == last


def test_what_a_metric_needs_is_told_before_it_is_measured(toy):
    with pytest.raises(DeclarationError, match="needs a log density, which Linear lacks"):
        require_fit(TOY, torch.nn.Linear(2, 2), data(), Path())
    with pytest.raises(DeclarationError, match="too many examples"):
        require_fit(TOY, Gaussian((2,)), data(6), Path())


def test_a_metric_that_is_gone_is_not_known():
    with pytest.raises(DeclarationError, match="metric 'toy': is not known; use abilities, "):
        METRICS["toy"]


def test_a_name_is_given_once():
    with pytest.raises(DeclarationError, match="metric 'nll': is declared twice"):
        METRICS.add(MetricDeclaration("nll", toy_metrics))


def declared_names(path):
    """The names that a file gives in its calls of ``metric(...)``, as they are written."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "metric"
    ]


def test_every_file_that_declares_a_metric_is_read():
    files = {path for path in FILES if declared_names(path)}
    assert files == {Path(module.__file__) for module in DECLARED_IN}


def test_every_metric_is_named_in_exactly_one_place():
    written = [name for path in FILES for name in declared_names(path)]
    assert len(set(written)) == len(written)
    known = {repr(declaration.name) for declaration in METRICS}
    family = "f'relaxation-{_estimator}'"
    assert set(written) - {family} == {name for name in known if "relaxation-" not in name}
    assert family in written


def test_every_metric_is_documented_and_says_what_it_needs():
    for declaration in METRICS:
        function = getattr(declaration.measure, "func", declaration.measure)
        assert inspect.getdoc(function).startswith("Return"), declaration.name
        assert bool(declaration.words) == (declaration.needs is not torch.nn.Module)


def test_what_is_built_once_is_shared_by_the_metrics_of_one_evaluation():
    built = []

    def build(evaluation):
        built.append(evaluation)
        return object()

    one, other = (Evaluation(Gaussian((2,)), data(), TOY, 0, Path()) for _ in range(2))
    assert one.once(build) is one.once(build)
    assert one.once(build) is not other.once(build)
    assert built == [one, other]


@pytest.mark.parametrize(
    ("values", "broken"), [([1.0, torch.inf, torch.nan], 2), ([[1.0, torch.nan], [2.0, 3.0]], 1)]
)
def test_values_that_are_not_finite_end_a_run(values, broken):
    told = f"the bound of {broken} of {len(values)} test examples is not finite"
    with pytest.raises(RunFailure, match=told) as failure:
        require_finite(torch.tensor(values), "the bound", "test examples")
    assert "learning rate" in failure.value.hint
    require_finite(torch.ones(3), "the bound", "test examples")
    require_finite(torch.zeros(2, 3, dtype=torch.uint8), "a pixel", "images")
