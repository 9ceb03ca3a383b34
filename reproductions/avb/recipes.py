"""Recipes of adversarial variational Bayes and of the VAE beside it, all on columns of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.spec import (
    Cost,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    Recipe,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

SOURCE = "sizes chosen for this project: no paper has these columns"

#: Updates of encoder and decoder, and updates of the discriminator for each of them.
UPDATES, DISCRIMINATOR_STEPS = 1_000, 3
HIDDEN, DISCRIMINATOR_HIDDEN = [64, 64], [128, 128]
#: Draws for the moments of the adaptive contrast; the bias of its bound is about 2 / 64 nats.
CONTRAST_DRAWS = 64

VARIANTS: Mapping[str, dict[str, Any]] = {
    "avb": {"posterior": "implicit", "contrast_draws": None},
    "avb-adaptive-contrast": {"posterior": "implicit", "contrast_draws": CONTRAST_DRAWS},
    "avb-gaussian": {"posterior": "gaussian", "contrast_draws": None},
    "avb-gaussian-adaptive-contrast": {"posterior": "gaussian", "contrast_draws": CONTRAST_DRAWS},
}


def avb(data: str, variant: str) -> Recipe:
    """Encoder and decoder against a discriminator."""
    args = {
        **_shared(data),
        "noise": 4,
        "discriminator_hidden": DISCRIMINATOR_HIDDEN,
        **VARIANTS[variant],
    }
    objective = ObjectiveSpec(name="avb", args={"discriminator_steps": DISCRIMINATOR_STEPS})
    steps = UPDATES * DISCRIMINATOR_STEPS
    notes = (
        f"the discriminator is updated in each of {steps:,} steps, encoder and decoder in one of "
        f"{DISCRIMINATOR_STEPS}; the last parameters are evaluated, as a bound estimated by a "
        "discriminator is no criterion to choose them by",
    )
    return _recipe(data, variant, ModelSpec(name="avb:AVB", args=args), objective, steps, notes)


def vae(data: str) -> Recipe:
    """The same encoder and decoder, by the exact bound of a Gaussian posterior."""
    model = ModelSpec(name="avb:VAE", args=_shared(data))
    notes = ("as many updates of encoder and decoder as in the other rows",)
    return _recipe(data, "vae", model, ObjectiveSpec(name="elbo"), UPDATES, notes)


def _shared(data: str) -> dict[str, Any]:
    likelihood = "gaussian" if card(data).dim == 2 else "bernoulli"
    return {"latent": 2, "hidden": HIDDEN, "likelihood": likelihood}


def _recipe(
    data: str,
    name: str,
    model: ModelSpec,
    objective: ObjectiveSpec,
    steps: int,
    notes: tuple[str, ...],
) -> Recipe:
    stage = Stage(
        data=DataSpec(name=data),
        model=model,
        objective=objective,
        optimizer=OptimizerSpec(lr=1e-3, betas=(0.5, 0.999)),
        schedule=ScheduleSpec(milestones=(steps * 6 // 10, steps * 85 // 100), factor=0.3),
        batch_size=128,
        validation=ValidationSpec(every=steps // 10, unit="steps"),
        stopping=StoppingSpec(max_steps=steps),
    )
    return Recipe(
        name=f"{name}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(metrics=("avb",), checkpoint="last"),
        cost=_cost(data, stage, steps),
        source=SOURCE,
        notes=notes,
    )


# ----------------------------------------------------------------------------- cost

#: Tensor operations of a training step.
LAUNCHES = 200
#: Passes of the evaluation, and the likelihoods on two grids over latent variables: so many points
#: for each of so many test examples.
EVALUATION_PASSES, GRID_POINTS, GRID_EXAMPLES = 450_000, 200_000, 250
#: What the grids take, beside the process.
GRID_BYTES = 400_000_000


def _cost(data: str, stage: Stage, steps: int) -> Cost:
    """Count all three networks in training, and the grid in the evaluation."""
    dim = card(data).dim
    sides = [[dim, *HIDDEN, 4], [2, *HIDDEN, dim], [dim + 2, *DISCRIMINATOR_HIDDEN, 1]]
    weights = sum(map(costs.weights, sides))
    return Cost(
        steps=steps,
        flops_per_step=costs.TRAINING * weights * stage.batch_size,
        launches_per_step=LAUNCHES,
        evaluation_flops=costs.PASS * weights * EVALUATION_PASSES
        + costs.PASS * GRID_EXAMPLES * GRID_POINTS * dim,
        memory_bytes=costs.memory(data, weights, extra_bytes=GRID_BYTES),
    )
