"""A recipe as CONTRIBUTING describes one."""

from __future__ import annotations

from dgm_bench.spec import (
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
)


def affine(data: str) -> Recipe:
    """Maximum likelihood, a few steps."""
    stage = Stage(
        data=DataSpec(name=data),
        model=ModelSpec(name="affine:Affine"),
        optimizer=OptimizerSpec(lr=0.1),
        batch_size=100,
        stopping=StoppingSpec(max_steps=20),
    )
    evaluation = EvaluationSpec(metrics=("nll", "sample-norm"))
    return Recipe(name=f"affine/{data}", stages=(stage,), evaluation=evaluation)
