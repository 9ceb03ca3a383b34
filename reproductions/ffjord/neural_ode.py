"""Gradients through solvers (neural ODEs, section 2), on one small flow: ways of taking them."""

from __future__ import annotations

from typing import Any

from dgm_bench import costs
from dgm_bench.spec import EvaluationSpec, ModelSpec, OptimizerSpec, Recipe

from .protocols import brief_stage

#: Steps of training, and tensor operations of each.
STEPS, LAUNCHES = 100, 3_000
SOURCE = "neural ODEs (Chen et al. 2018), section 2; sizes chosen for this project"
#: Training is the same for all rows, so that all measure the gradient at the same weights.
TRAINED: dict[str, Any] = {
    "flows": 1,
    "hidden": [32, 32],
    "layer": "concatsquash",
    "activation": "tanh",
    "noise": "gaussian",
    "solver": "rk4",
    "rtol": 1e-4,
    "atol": 1e-4,
    "step_size": 0.25,
    "adjoint": False,
}
#: Settings of the solver for each way of taking gradients.
WAYS: dict[str, dict[str, Any]] = {
    "adjoint-dopri5": {"solver": "dopri5", "step_size": None, "adjoint": True},
    "backprop-dopri5": {"solver": "dopri5", "step_size": None, "adjoint": False},
    "steps-dopri5": {"solver": "dopri5", "step_size": None, "adjoint": False, "checkpointed": True},
    # The metric sets the step for each tolerance.
    "adjoint-rk4": {"solver": "rk4", "adjoint": True},
    "backprop-rk4": {"solver": "rk4", "adjoint": False},
}


def gradients(data: str, way: str) -> Recipe:
    """Measure gradients of a briefly trained flow, taken one of the :data:`WAYS`."""
    return _recipe(data, way, EvaluationSpec(metrics=("gradients",), model_overrides=WAYS[way]))


def residual_network(data: str) -> Recipe:
    """Compare a residual network, whose blocks are trained dynamics, with Euler's solution."""
    return _recipe(data, "residual-network", EvaluationSpec(metrics=("residual-network",)))


def _recipe(data: str, name: str, evaluation: EvaluationSpec) -> Recipe:
    model = ModelSpec(name="ffjord:FFJORD", args=TRAINED)
    stage = brief_stage(data, model, OptimizerSpec(lr=5e-3), STEPS)
    return Recipe(
        name=f"neural-ode-{name}/{data}",
        stages=(stage,),
        evaluation=evaluation.model_copy(update={"checkpoint": "last"}),
        cost=costs.small_cost(data, STEPS, LAUNCHES),
        source=SOURCE,
    )
