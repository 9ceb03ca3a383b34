"""Gradients by the solver's steps: those through it, in the memory of one step."""

import gc
import weakref

import pytest
import torch
import torchdiffeq

from dgm_bench.models.continuous.discrete_adjoint import solve_with_discrete_adjoint
from dgm_bench.models.continuous.dynamics import DynamicsNetwork
from dgm_bench.models.continuous.ffjord import FFJORD


class Pendulum(torch.nn.Module):
    """A right-hand side with a parameter, and a constant that has a history."""

    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(1.3))
        self.raw = torch.nn.Parameter(torch.randn(2, 3))
        self.constant = self.raw.exp()
        self.calls = 0

    def forward(self, t, state):
        self.calls += 1
        x, v = state
        return v, -self.strength * x.sin() * self.constant + t * v.mean()

    def callback_step(self, t, state, step):
        pass


class FirstStep(Pendulum):
    """A right-hand side that keeps the size of the first step taken."""

    step = None

    def callback_step(self, t, state, step):
        self.step = float(step) if self.step is None else self.step


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"first_step": 0.05}, {"first_step": 9.0}, {"step_size": 0.17}]
)
def test_gradient_by_steps_is_that_of_the_solver(options, reverse):
    span = torch.tensor([0.1, 2.3])
    span = span.flip(0) if reverse else span
    method = "rk4" if "step_size" in options else "dopri5"
    settings = {"method": method, "rtol": 1e-4, "atol": 1e-4, "options": options}
    f, x, v = FirstStep(), torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    variables = [x, f.strength, f.raw]
    steps = solve_with_discrete_adjoint(f, (x, v), span, [f.strength, f.constant], settings)
    # torchdiffeq differentiates its choice of the first step, unless it is told.
    told = {"step_size": 0.17} if method == "rk4" else {"first_step": f.step}
    if "first_step" in options:
        told["step_t"] = span[1:]
    settings["options"] = told
    plain = tuple(part[-1] for part in torchdiffeq.odeint(f, (x, v), span, **settings))
    weights = [torch.randn(2, 3) for _ in range(2)]
    found = torch.autograd.grad(steps, variables, weights, retain_graph=True)
    expected = torch.autograd.grad(plain, variables, weights)
    for one, two in zip([*steps, *found], [*plain, *expected], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_the_backward_pass_repeats_what_the_result_depends_on_alone():
    f, state, span = Pendulum(), (torch.randn(2, 3), torch.randn(2, 3)), torch.tensor([0.0, 1.0])
    settings = {"method": "dopri5", "rtol": 1.0, "atol": 1.0, "options": {"first_step": 0.5}}
    x, _ = solve_with_discrete_adjoint(f, state, span, [f.strength], settings)
    assert f.calls == 1 + 2 * 6
    x.sum().backward(retain_graph=True)
    assert f.calls == 1 + 2 * 6 + 2 * 6


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_nothing_of_a_solve_outlives_its_result(method):
    settings = {"method": method, "rtol": 1e-4, "atol": 1e-4}
    f, state = Pendulum(), (torch.randn(2, 3), torch.randn(2, 3))
    gc.collect()
    gc.disable()
    try:
        span = torch.tensor([0.0, 1.0])
        x = solve_with_discrete_adjoint(f, state, span, [f.strength, f.constant], settings)[0]
        x.sum().backward()
        held = weakref.ref(f.constant)
        del x, f
        assert held() is None
    finally:
        gc.enable()


def test_solver_by_steps_serves_every_continuous_flow(generator):
    model, x = FFJORD((3,), flows=2, hidden=[8], rtol=1e-9, atol=1e-9), torch.randn(5, 3)
    gradients = []
    for checkpointed in (False, True):
        model.solve_with(checkpointed=checkpointed, adjoint=False)
        loss = model.log_prob_estimate(x, generator.manual_seed(2)).mean()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8)
    assert isinstance(model.flows[0].network, DynamicsNetwork)
