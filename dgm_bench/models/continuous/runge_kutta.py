"""Explicit Runge-Kutta steps that evaluate nothing twice, and that can be differentiated.

torchdiffeq evaluates the derivative at the end of the last step for its interpolation, steps beyond
the end of the interval, and keeps a graph of what only judges errors. The formulas and the rules
for the step size are torchdiffeq's own (``rk_common.py``, ``dopri5.py``, ``misc.py`` of its version
0.2.5), so that equal steps have equal results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.models.whole_batch import mean

State = tuple[Tensor, ...]
Row = tuple[float, ...]
#: A time or a step: torchdiffeq hands out tensors.
Time = float | Float[Tensor, ""]

#: Absolute tolerance of components left out of step-size control (released RNODE code, cnf.py).
NO_ERROR_CONTROL = 1e20
#: Of the next step: below the one that just meets the tolerance, and how it may grow and shrink.
SAFETY, GROWTH, SHRINKAGE = 0.9, 10.0, 0.2
#: Part of a step that may be missing or too much for rounding.
ROUNDING = 1e-6


@runtime_checkable
class RightHandSide(Protocol):
    """``f`` of ``dy/dt = f(t, y)``, with a callback at each attempted step."""

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        """Return the derivative of each part of the state."""
        ...

    def callback_step(self, t: Time, state: State, step: Time) -> None:
        """Receive time and state at the start of a step, and its size, which is positive."""
        ...


class Formula(NamedTuple):
    """An explicit Runge-Kutta formula.

    Attributes:
        nodes: Times of the stages within a step of 1.
        rows: What each stage's point takes of the derivatives before.
        weights: What the step takes of the stages.
        error: What the estimated error takes of them and of the derivative at the step's end.
        middle: The same for the point in the middle of the step, which interpolation needs.
    """

    nodes: Row
    rows: tuple[Row, ...]
    weights: Row
    error: Row = ()
    middle: Row = ()

    def at(self, part: float) -> Row:
        """Return what the point at a part of the step takes of the stages and the end's derivative.

        It is on the polynomial of degree 4 through start, middle and end that has the derivatives
        of both ends (torchdiffeq, ``interp.py``).
        """
        first, last = (1.0, *[0.0] * len(self.weights)), (*[0.0] * len(self.weights), 1.0)
        terms = zip(first, last, (*self.weights, 0.0), self.middle, strict=True)
        return tuple(
            part * f0
            + part**2 * (f1 - 4 * f0 - 5 * y1 + 16 * mid)
            + part**3 * (5 * f0 - 3 * f1 + 14 * y1 - 32 * mid)
            + part**4 * (2 * (f1 - f0) - 8 * y1 + 16 * mid)
            for f0, f1, y1, mid in terms
        )


#: The 3/8 rule, which torchdiffeq has for ``"rk4"``.
RK4 = Formula(
    nodes=(0.0, 1 / 3, 2 / 3, 1.0),
    rows=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    weights=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
)
#: Dormand and Prince (1980), with the error estimate of Shampine (1986).
DOPRI5 = Formula(
    nodes=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    rows=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    weights=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    error=(
        35 / 384 - 1951 / 21600,
        0.0,
        500 / 1113 - 22642 / 50085,
        125 / 192 - 451 / 720,
        -2187 / 6784 + 12231 / 42400,
        11 / 84 - 649 / 6300,
        -1 / 60,
    ),
    middle=(
        6025192743 / 30085553152 / 2,
        0.0,
        51252292925 / 65400821598 / 2,
        -2691868925 / 45128329728 / 2,
        187940372067 / 1594534317056 / 2,
        -1776094331 / 19743644256 / 2,
        11237099 / 235043384 / 2,
    ),
)
#: ``"rk5"`` is the formula of ``"dopri5"`` in steps of a given size.
FORMULAS = {"rk4": RK4, "rk5": DOPRI5, "dopri5": DOPRI5}


def combine(state: State, step: float, weights: Row, slopes: Sequence[State]) -> State:
    """Return the state plus the step times the weighted derivatives."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            pairs = zip(state, slope, strict=True)
            state = tuple(torch.add(y, dy, alpha=step * weight) for y, dy in pairs)
    return state


def stages(
    function: RightHandSide,
    formula: Formula,
    t: float,
    step: float,
    state: State,
    first: State | None = None,
) -> list[State]:
    """Return the derivatives at a step's stages.

    Args:
        function: The right-hand side.
        formula: The formula.
        t: Time at the start of the step.
        step: Its size; negative if time runs backwards.
        state: State at its start.
        first: Derivative there, if it is known.
    """
    slopes = [function(time_at(t, state), state) if first is None else first]
    for node, row in zip(formula.nodes[1:], formula.rows[1:], strict=True):
        slopes.append(function(time_at(t + node * step, state), combine(state, step, row, slopes)))
    return slopes


def time_at(t: float, state: State) -> Float[Tensor, ""]:
    """Return a time as the right-hand side expects it."""
    return torch.full((), t, dtype=state[0].dtype, device=state[0].device)


def take_fixed_steps(
    function: RightHandSide, method: str, state: State, span: tuple[float, float], step_size: float
) -> State:
    """Return the state at the end of the span after steps of one size; the last may be shorter.

    Args:
        function: The right-hand side.
        method: One of :data:`FORMULAS`.
        state: State at the start.
        span: Start and end; time may run backwards.
        step_size: Size of the steps, positive.
    """
    formula, (t, end) = FORMULAS[method], span
    # What rounding alone leaves is no step.
    count = math.ceil(abs(end - t) / step_size - ROUNDING)
    direction = math.copysign(step_size, end - t)
    edges = [*(t + k * direction for k in range(count)), end]
    for start, stop in pairwise(edges):
        function.callback_step(start, state, abs(stop - start))
        slopes = stages(function, formula, start, stop - start, state)
        state = combine(state, stop - start, formula.weights, slopes)
    return state


class Attempt(NamedTuple):
    """A step that may be rejected.

    Attributes:
        state: State after it.
        slope: Derivative there, the next step's first stage.
        ratio: Its error over what the tolerances allow.
    """

    state: State
    slope: State
    ratio: float


class AdaptiveSteps:
    """Dormand and Prince's steps, as large as the tolerances allow.

    Args:
        function: The right-hand side.
        rtol: Relative tolerance.
        atol: Absolute tolerance, of each part of the state.
    """

    def __init__(self, function: RightHandSide, rtol: float, atol: Sequence[float]) -> None:
        self.function, self.rtol, self.atol = function, rtol, atol

    def take(self, state: State, span: tuple[float, float], first_step: float) -> State:
        """Return the state at the end of the span, where the last step ends.

        Args:
            state: State at the start.
            span: Start and end; time may run backwards.
            first_step: Size of the first step tried, positive.
        """
        t, end = span
        step = math.copysign(first_step, end - t)
        slope = self.function(time_at(t, state), state)
        while t != end:
            left = end - t
            last = abs(step) > (1 - ROUNDING) * abs(left)
            step = left if last else step
            self.function.callback_step(t, state, abs(step))
            attempt = self._attempt(t, step, state, slope, last=last)
            if attempt.ratio <= 1:
                self._report(t, state, step)
                t, state, slope = end if last else t + step, attempt.state, attempt.slope
            step *= factor(attempt.ratio)
        return state

    def _attempt(self, t: float, step: float, state: State, slope: State, *, last: bool) -> Attempt:
        slopes = stages(self.function, DOPRI5, t, step, state, slope)
        after = combine(state, step, DOPRI5.weights, slopes)
        # After the last step nothing but the error depends on the derivative at its end.
        with torch.no_grad() if last else nullcontext():
            slopes.append(self.function(time_at(t + step, state), after))
        with torch.no_grad():
            return Attempt(after, slopes[-1], self._ratio(step, state, after, slopes))

    def _ratio(self, step: float, before: State, after: State, slopes: list[State]) -> float:
        zeros = tuple(torch.zeros_like(part) for part in before)
        errors = combine(zeros, step, DOPRI5.error, slopes)
        ratios = [
            mean((error / (atol + self.rtol * torch.maximum(one.abs(), two.abs()))).square())
            for error, one, two, atol in zip(errors, before, after, self.atol, strict=True)
            if atol < NO_ERROR_CONTROL
        ]
        return math.sqrt(float(torch.stack(ratios).max()))

    def _report(self, t: float, state: State, step: float) -> None:
        report = getattr(self.function, "callback_accept_step", None)
        if report is not None:
            report(t, state, abs(step))


def factor(ratio: float) -> float:
    """Return by how much the next step is larger, from the error over what is allowed."""
    if math.isnan(ratio):
        return 0.0
    if ratio == 0:
        return GROWTH
    return min(GROWTH, max(SAFETY * math.pow(ratio, -1 / 5), 1.0 if ratio < 1 else SHRINKAGE))
