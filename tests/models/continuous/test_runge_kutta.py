"""Our Runge-Kutta steps against torchdiffeq's: the same numbers from fewer evaluations."""

import math

import pytest
import torch
import torchdiffeq

from dgm_bench.models.continuous.integration import integrate
from dgm_bench.models.continuous.runge_kutta import DOPRI5, factor

SPANS = {"forwards": (0.25, 1.5), "backwards": (1.5, 0.25)}


class Oscillator(torch.nn.Module):
    """A right-hand side of two coupled parts that depends on time, and counts its evaluations."""

    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.calls = 0

    def forward(self, t, state):
        self.calls += 1
        x, v = state
        return v * (2 * t).cos(), -5 * self.strength.exp() * x.sin() + t * v.mean()

    def callback_step(self, t, state, step):
        assert step > 0


def check(span, settings, theirs):
    """Compare values and gradients with torchdiffeq's, and return both numbers of evaluations."""
    f, span = Oscillator(), torch.tensor(span, dtype=torch.float64)
    state = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    ours = integrate(f, tuple(state), span, settings)
    calls = f.calls
    solution = torchdiffeq.odeint(f, tuple(state), span, **{**settings, **theirs})
    theirs = tuple(part[-1] for part in solution)
    weights = [torch.randn(2, 3, dtype=torch.float64) for _ in range(2)]
    variables = [*state, f.strength]
    found = [torch.autograd.grad(result, variables, weights) for result in (ours, theirs)]
    for one, two in zip([*ours, *found[0]], [*theirs, *found[1]], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    return calls, f.calls - calls


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("step", [0.2, 0.25, 5.0])
def test_steps_of_rk4(span, step):
    settings = {"method": "rk4", "rtol": 0.1, "atol": 0.1, "options": {"step_size": step}}
    ours, theirs = check(span, settings, {})
    assert ours == theirs == 4 * math.ceil(1.25 / step)


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("step", [0.3, 0.5, 5.0])
def test_steps_of_rk5_are_those_of_dopri5_with_nothing_to_judge(span, step):
    settings = {"method": "rk5", "rtol": 0.0, "atol": math.inf, "options": {"step_size": step}}
    size = min(step, 1.25)
    edges = {"step_t": torch.tensor(span[1:]), "first_step": size, "max_step": size}
    ours, theirs = check(span, settings, {"method": "dopri5", "options": edges})
    count = math.ceil(1.25 / step)
    assert (ours, theirs) == (6 * count, 6 * count + 1)


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-9])
@pytest.mark.parametrize("first", [0.01, 1.25])
def test_steps_of_dopri5_from_a_given_one(span, tolerance, first):
    options = {"first_step": first}
    settings = {"method": "dopri5", "rtol": tolerance, "atol": tolerance, "options": options}
    ours, theirs = check(span, settings, {"options": {**options, "step_t": torch.tensor(span[1:])}})
    assert ours == theirs


def test_a_step_as_large_as_the_span_costs_seven_evaluations():
    f, settings = Oscillator(), {"method": "dopri5", "rtol": 1.0, "atol": 1.0}
    state = (torch.zeros(2, 3), torch.zeros(2, 3))
    integrate(f, state, torch.tensor([0.0, 0.5]), {**settings, "options": {"first_step": 1.0}})
    assert f.calls == 7


class Wave(Oscillator):
    """Its second part depends on time alone, and its first part on nothing."""

    def forward(self, t, state):
        self.calls += 1
        return torch.zeros(2, 3), (9 * t).cos().expand(2, 3)


@pytest.mark.parametrize(("atol", "steps"), [((1e-6, 1e20), 1), ((1e-6, 1e-6), 14)])
def test_errors_of_parts_without_control_are_not_judged(atol, steps):
    f, state, options = Wave(), (torch.zeros(2, 3), torch.zeros(2, 3)), {"first_step": 1.0}
    settings = {"method": "dopri5", "rtol": 1e-6, "atol": atol, "options": options}
    integrate(f, state, torch.tensor([0.0, 1.0]), settings)
    assert f.calls == 1 + 6 * steps


def test_interpolation_has_the_ends_values_and_derivatives():
    weights = (*DOPRI5.weights, 0.0)
    assert DOPRI5.at(1.0) == pytest.approx(weights, abs=1e-13)
    assert DOPRI5.at(0.5) == pytest.approx(DOPRI5.middle, abs=1e-13)
    slope = [(two - one) / 1e-6 for one, two in zip(DOPRI5.at(1 - 1e-6), weights, strict=True)]
    assert slope == pytest.approx([0.0] * 6 + [1.0], abs=1e-4)


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 10), (1e-9, 10), (0.9**5, 1), (1e9, 0.2)])
def test_the_next_step_follows_from_the_error(ratio, expected):
    assert factor(ratio) == pytest.approx(expected)
    assert factor(math.nan) == 0
