"""Gradients through solvers: Euler's residual networks, exact gradients, memory, the metrics."""

from pathlib import Path

import pytest
import torch
from factories import make_cell, make_metric, make_record, make_table

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.gradients import solver_gradients
from dgm_bench.metrics.gradients.memory import SavedMemory
from dgm_bench.metrics.gradients.solver_gradients import (
    at_tolerance,
    exact_linear_gradient,
    gradient_metrics,
    linear_flow,
    loss_gradient,
    measured_gradient,
    reference_gradient,
    relative_error,
    residual_metrics,
    use,
)
from dgm_bench.models.continuous.dynamics import DynamicsNetwork
from dgm_bench.models.continuous.ffjord import FFJORD
from dgm_bench.models.continuous.residual_network import ResidualODENet
from dgm_bench.models.continuous.solver import Solver
from dgm_bench.report.gradients import PANELS, gradient_plot, points_of
from dgm_bench.spec import EvaluationSpec

WAYS = [(solver, adjoint) for solver in ("dopri5", "rk4") for adjoint in (True, False)]


def solver_of(name, adjoint, tolerance):
    step = 1.0 if name == "rk4" else None
    gradient = "adjoint" if adjoint else "backpropagation"
    return at_tolerance(Solver(name, step_size=step, gradient=gradient), tolerance)


def toy_flow():
    return FFJORD((2,), hidden=[8, 8], rtol=1e-4, atol=1e-4)


def gradient_of(network, function, x):
    return torch.autograd.grad(function(x).square().sum(), tuple(network.parameters()))


@pytest.mark.parametrize("layers", [1, 5, 16])
def test_a_residual_network_is_the_euler_solution(layers):
    network = ResidualODENet(DynamicsNetwork(3, [8], "concatsquash", "tanh"), layers)
    x = torch.randn(7, 3)
    torch.testing.assert_close(network(x), network.solve(x), rtol=0, atol=1e-12)
    pairs = zip(gradient_of(network, network, x), gradient_of(network, network.solve, x),
                strict=True)  # fmt: skip
    for own, solved in pairs:
        torch.testing.assert_close(own, solved, rtol=1e-12, atol=1e-12)


def test_its_adjoint_gradient_is_another_that_comes_nearer_with_layers():
    dynamics, x = DynamicsNetwork(3, [8], "concatsquash", "tanh"), torch.randn(7, 3)
    found = []
    for layers in (8, 64):
        network = ResidualODENet(dynamics, layers)
        own, adjoint = (
            torch.cat([part.flatten() for part in gradient_of(network, function, x)])
            for function in (network, lambda h, n=network: n.solve(h, adjoint=True))
        )
        found.append(relative_error(adjoint, own))
    assert 1e-5 < found[1] < found[0] / 4


def test_a_residual_network_has_a_block():
    with pytest.raises(DeclarationError, match="give at least one"):
        ResidualODENet(DynamicsNetwork(3, [8], "concat", "tanh"), 0)


@pytest.mark.parametrize(("name", "adjoint"), WAYS)
def test_gradients_of_a_linear_equation_approach_the_exact_one(name, adjoint, generator):
    flow = linear_flow(4, generator, Solver())
    x = torch.randn(16, 4, generator=generator)
    exact = exact_linear_gradient(flow, x)
    errors = [
        relative_error(loss_gradient(use(flow, solver_of(name, adjoint, t)), x).value, exact)
        for t in (1e-3, 1e-5, 1e-8)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 1e-6


def test_the_reference_of_a_linear_equation_is_exact(generator):
    flow = linear_flow(4, generator, Solver())
    x = torch.randn(16, 4, generator=generator)
    assert relative_error(reference_gradient(flow, x), exact_linear_gradient(flow, x)) < 1e-9


@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_backpropagation_holds_memory_by_the_step_and_the_adjoint_does_not():
    flow, x = toy_flow(), torch.randn(16, 2)
    held = {}
    for adjoint in (True, False):
        for tolerance in (1e-2, 1e-6):
            _, held[adjoint, tolerance] = measured_gradient(
                flow, x, solver_of("rk4", adjoint, tolerance)
            )
    assert held[True, 1e-2] == held[True, 1e-6] > 0
    # 4 steps and 32.
    assert held[False, 1e-6] > 6 * held[False, 1e-2] > 6 * held[True, 1e-2]


def test_saved_memory_counts_what_is_held_once_and_not_parameters():
    weight = torch.randn(4, 4, requires_grad=True)
    x = torch.randn(10, 4)
    with SavedMemory([weight]) as memory:
        y = (x @ weight).exp()
        z = y * y
    # x and y; y is saved by the exponential and twice by the product.
    assert memory.bytes == memory.peak == 2 * 10 * 4 * 8
    z.sum().backward()
    assert memory.bytes == 0


def test_evaluations_are_counted_on_both_ways():
    flow, x = toy_flow(), torch.randn(4, 2)
    through = loss_gradient(use(flow, solver_of("rk4", False, 1e-3)), x)
    assert (through.forward, through.backward) == (24, 0)
    adjoint = loss_gradient(use(flow, solver_of("rk4", True, 1e-3)), x)
    assert (adjoint.forward, adjoint.backward) == (24, 24)


def small_run(function, flow, monkeypatch):
    monkeypatch.setattr(solver_gradients, "TOLERANCES", ("1e-2", "1e-6"))
    monkeypatch.setattr(solver_gradients, "REPEATS", 1)
    monkeypatch.setattr(solver_gradients, "REFERENCE", 1e-9)
    monkeypatch.setattr(solver_gradients, "CHECK", 1e-8)
    data = Dataset("toy", "1", {"test": torch.randn(9, 2)}, verified=False)
    metrics = function(Evaluation(flow, data, EvaluationSpec(), 0, Path()))
    return {metric.name: metric for metric in metrics}


@pytest.mark.parametrize(("name", "adjoint"), WAYS)
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_the_metrics_of_a_small_flow(name, adjoint, monkeypatch):
    flow = toy_flow().float()
    flow.solve_with(solver=name, adjoint=adjoint, step_size=0.5)
    before = vars(flow.solver).copy()
    found = small_run(gradient_metrics, flow, monkeypatch)
    assert vars(flow.solver) == before
    assert next(flow.parameters()).dtype == torch.float32
    assert found["gradient-error-1e-6"].value < found["gradient-error-1e-2"].value
    assert (found["discrete-error-1e-2"].value > 0) == adjoint
    assert (found["backward-evaluations-1e-2"].value > 0) == adjoint
    assert found["time-ratio-1e-2"].value > 0
    assert found["reference-error"].value < 1e-4
    assert all(metric.n == 9 for metric in found.values())


def test_the_metrics_of_a_residual_network(monkeypatch):
    found = small_run(residual_metrics, toy_flow(), monkeypatch)
    assert found["output-difference-16"].value < 1e-12
    assert found["solver-difference-16"].value < 1e-12
    assert found["adjoint-difference-64"].value < found["adjoint-difference-4"].value


def test_the_plot_has_a_line_for_each_way_and_leaves_out_zeros():
    cell = make_cell("adjoint")
    values = {"gradient-error-1e-3": 0.1, "gradient-error-1e-5": 0.0, "seconds-1e-3": 2.0}
    metrics = tuple(make_metric(value, name=name) for name, value in values.items())
    record = make_record(cell).model_copy(update={"metrics": metrics})
    assert points_of([record], PANELS[0]) == [(1e-3, 0.1)]
    assert points_of([record], PANELS[2]) == [(2.0, 0.1)]
    figure = gradient_plot(make_table([cell]), {cell.id: [record]})
    assert [line.get_label() for line in figure.axes[0].lines] == ["ADJOINT"]
    assert gradient_plot(make_table([cell]), {}) is None
