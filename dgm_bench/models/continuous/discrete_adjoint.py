"""The discrete adjoint: gradients of the numerical solution, with checkpoints at every step.

The forward pass stores the state at the start of each accepted step only. The backward pass
recomputes the steps in reverse order, each with its graph, which is freed before the next. The
gradient is that of the computed solution with its step sizes fixed, in the memory of one step; no
adjoint equation is integrated, whatever the number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torchdiffeq
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

State = tuple[Tensor, ...]


@runtime_checkable
class RightHandSide(Protocol):
    """``f`` of ``dy/dt = f(t, y)``, with a callback at each attempted step."""

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        """Return the derivative of each part of the state."""
        ...

    def callback_step(self, t: Float[Tensor, ""], state: State, step: Float[Tensor, ""]) -> None:
        """Receive time and state at the start of a step, and its size."""
        ...


class _Recorder:
    """A right-hand side that records time, state and size of each step of a fixed-step solver."""

    def __init__(self, function: RightHandSide) -> None:
        self.function = function
        self.times: list[Tensor] = []
        self.steps: list[Tensor] = []
        self.states: list[State] = []

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        return self.function(t, state)

    def callback_step(self, t: Float[Tensor, ""], state: State, step: Float[Tensor, ""]) -> None:
        self.function.callback_step(t, state, step)
        self._record(t, state, step)

    def _record(self, t: Float[Tensor, ""], state: State, step: Float[Tensor, ""]) -> None:
        self.times.append(t)
        self.steps.append(step)
        self.states.append(state)


class _AdaptiveRecorder(_Recorder):
    """A right-hand side that records time, state and size of each accepted step."""

    def callback_step(self, t: Float[Tensor, ""], state: State, step: Float[Tensor, ""]) -> None:
        self.function.callback_step(t, state, step)

    callback_accept_step = _Recorder._record


class _Context(FunctionCtx):
    """What the forward pass stores for the backward pass, besides saved tensors."""

    function: RightHandSide
    method: str
    parts: int
    times: list[Tensor]
    steps: list[Tensor]
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
        solution = torchdiffeq.odeint(recorder, state_and_inputs[:parts], span, **settings)
        ctx.function, ctx.method, ctx.parts = function, settings["method"], parts
        ctx.steps = recorder.steps
        ctx.times = [*recorder.times, span[-1].to(recorder.times[0])]
        states = [part for state in recorder.states for part in state]
        ctx.save_for_backward(*states, *state_and_inputs[parts:])
        return tuple(part[-1] for part in solution)

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
                    ctx.function, ctx.method, ctx.times[k : k + 2], ctx.steps[k], start
                )
                gradients = torch.autograd.grad(end, (*start, *inputs), gradient, allow_unused=True)
            gradient = tuple(
                torch.zeros_like(part) if gradient_of is None else gradient_of
                for part, gradient_of in zip(start, gradients, strict=False)
            )
            _accumulate(totals, gradients[parts:])
        return None, None, None, None, *gradient, *totals


def _repeat_step(
    function: RightHandSide,
    method: str,
    times: list[Float[Tensor, ""]],
    step: Float[Tensor, ""],
    start: State,
) -> State:
    """Return the state after a step; the last step ends at the end of the span."""
    # With infinite tolerance the solver accepts the first step, of the size that it is given.
    options = {"first_step": step} if method == "dopri5" else None
    solution = torchdiffeq.odeint(
        function,
        start,
        torch.stack(times),
        rtol=0.0,
        atol=math.inf,
        method=method,
        options=options,
    )
    return tuple(part[-1] for part in solution)


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
        settings: ``method``, one of torchdiffeq's Runge-Kutta methods of order 5 (``"dopri5"``) or
            of fixed steps, with its ``rtol``, ``atol`` and ``options``.
    """
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    end: State = _Steps.apply(function, span, settings, len(state), *state, *wanted)
    return end
