"""Which code takes the solver's steps: torchdiffeq's, or ours where it evaluates less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from dgm_bench.models.continuous.runge_kutta import (
    AdaptiveSteps,
    RightHandSide,
    State,
    take_fixed_steps,
)


def integrate(
    function: RightHandSide, state: State, span: Float[Tensor, "2"], settings: Mapping[str, Any]
) -> State:
    """Return the state at the end of ``span``.

    Args:
        function: The right-hand side.
        state: The state at the start, in parts.
        span: Start and end; time may run backwards.
        settings: Of the solver: ``method``, ``rtol``, ``atol`` (one, or one for each part) and
            ``options`` with the ``step_size`` of ``"rk4"`` and ``"rk5"`` or, optional, the
            ``first_step`` of ``"dopri5"``. Without one, torchdiffeq chooses it by two evaluations,
            and steps beyond the end.
    """
    options = settings.get("options") or {}
    ends = cast(tuple[float, float], tuple(span.tolist()))
    if "step_size" in options:
        return take_fixed_steps(function, settings["method"], state, ends, options["step_size"])
    if "first_step" in options:
        atol = settings["atol"]
        each = atol if isinstance(atol, tuple) else (atol,) * len(state)
        return AdaptiveSteps(function, settings["rtol"], each).take(
            state, ends, options["first_step"]
        )
    import torchdiffeq  # here: it imports all solvers of scipy, for every run of any model

    return tuple(part[-1] for part in torchdiffeq.odeint(function, state, span, **settings))
