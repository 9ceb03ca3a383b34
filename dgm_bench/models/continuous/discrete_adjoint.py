"""The discrete adjoint: gradients of the numerical solution, with checkpoints at every step.

The forward pass stores the state at the start of each accepted step only. The backward pass
recomputes the steps in reverse order, each with its graph, which is freed before the next: six
evaluations for a step of Dormand and Prince's, and no judgement of errors. The
gradient is that of the computed solution with its step sizes fixed, in the memory of one step; no
adjoint equation is integrated, whatever the number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from dgm_bench.models.continuous.integration import integrate
from dgm_bench.models.continuous.runge_kutta import (
    FORMULAS,
    ROUNDING,
    Formula,
    RightHandSide,
    State,
    Time,
    combine,
    stages,
    time_at,
)


class _Recorder:
    """A right-hand side that records time, size and state of each step of a fixed-step solver."""

    def __init__(self, function: RightHandSide) -> None:
        self.function = function
        self.times: list[float] = []
        self.steps: list[float] = []
        self.states: list[State] = []

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        return self.function(t, state)

    def callback_step(self, t: Time, state: State, step: Time) -> None:
        self.function.callback_step(t, state, step)
        self._record(t, state, step)

    def _record(self, t: Time, state: State, step: Time) -> None:
        self.times.append(float(t))
        self.steps.append(float(step))
        self.states.append(state)


class _AdaptiveRecorder(_Recorder):
    """A right-hand side that records time, size and state of each accepted step."""

    def callback_step(self, t: Time, state: State, step: Time) -> None:
        self.function.callback_step(t, state, step)

    callback_accept_step = _Recorder._record


class _Context(FunctionCtx):
    """What the forward pass stores for the backward pass, besides saved tensors."""

    function: RightHandSide
    formula: Formula
    parts: int
    times: list[float]
    steps: list[float]
    saved_tensors: tuple[Tensor, ...]


class _Steps(torch.autograd.Function):
    """The solution as one differentiable operation of the initial state and of ``inputs``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        function: RightHandSide,
        span: Float[Tensor, "2"],
        settings: Mapping[str, Any],
        parts: int,
        *state_and_inputs: Tensor,
    ) -> State:
        ctx = cast(_Context, ctx)
        adaptive = settings["method"] == "dopri5"
        recorder = (_AdaptiveRecorder if adaptive else _Recorder)(function)
        solution = integrate(recorder, state_and_inputs[:parts], span, settings)
        ctx.function, ctx.formula, ctx.parts = function, FORMULAS[settings["method"]], parts
        ctx.steps, ctx.times = recorder.steps, [*recorder.times, float(span[-1])]
        states = [part for state in recorder.states for part in state]
        ctx.save_for_backward(*states, *state_and_inputs[parts:])
        return solution

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx = cast(_Context, ctx)
        parts, count = ctx.parts, len(ctx.steps)
        saved = ctx.saved_tensors
        inputs = saved[parts * count :]
        totals: list[Tensor | None] = [None] * len(inputs)
        for k in reversed(range(count)):
            start = tuple(part.detach().requires_grad_() for part in saved[parts * k :][:parts])
            with torch.enable_grad():
                end = _repeat_step(
                    ctx.function, ctx.formula, ctx.times[k : k + 2], ctx.steps[k], start
                )
                gradients = torch.autograd.grad(end, (*start, *inputs), gradient, allow_unused=True)
            gradient = tuple(
                torch.zeros_like(part) if gradient_of is None else gradient_of
                for part, gradient_of in zip(start, gradients, strict=False)
            )
            _accumulate(totals, gradients[parts:])
        return None, None, None, None, *gradient, *totals


def _repeat_step(
    function: RightHandSide, formula: Formula, times: Sequence[float], size: float, start: State
) -> State:
    """Return the state after a step, or at the end of the span if that is within the step."""
    t, end = times
    step = math.copysign(size, end - t)
    slopes = stages(function, formula, t, step, start)
    if (part := abs(end - t) / size) > 1 - ROUNDING:
        return combine(start, step, formula.weights, slopes)
    after = combine(start, step, formula.weights, slopes)
    slopes.append(function(time_at(t + step, start), after))
    return combine(start, step, formula.at(part), slopes)


def _accumulate(totals: list[Tensor | None], gradients: Sequence[Tensor | None]) -> None:
    """Add each gradient found to its total."""
    for i, gradient_of in enumerate(gradients):
        if gradient_of is not None:
            total = totals[i]
            # What autograd returns may be shared with another input, or be an expanded view.
            totals[i] = gradient_of.clone() if total is None else total.add_(gradient_of)


def solve_with_discrete_adjoint(
    function: RightHandSide,
    state: State,
    span: Float[Tensor, "2"],
    inputs: Sequence[Tensor],
    settings: Mapping[str, Any],
) -> State:
    """Return the state at the end of ``span``, differentiable in ``state`` and ``inputs``.

    Step sizes count as constants, and so do the two times.

    Args:
        function: The right-hand side.
        state: The state at the start, in parts.
        span: Start and end; time may run backwards.
        inputs: Parameters and other tensors on which ``function`` depends.
        settings: As for :func:`~dgm_bench.models.continuous.integration.integrate`.
    """
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    end: State = _Steps.apply(function, span, settings, len(state), *state, *wanted)
    return end
