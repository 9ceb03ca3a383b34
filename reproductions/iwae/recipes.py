"""Recipes of the table of importance-weighted autoencoders.

Sources: Burda, Grosse and Salakhutdinov (ICLR 2016), section 5 and Table 1; where the paper is
silent, the released code (``iwae.py``, ``nnet.py``, ``experiments.py``).
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Literal

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN
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

OURS = "digits-binary"
METRICS = ("elbo", "importance", "active-units")
BATCH, SAMPLES, EVALUATION_BATCH = 20, 5_000, 100
#: Phase i, counted from 0, has 3^i epochs at 10^(-i/7) times the first rate; eight in the paper.
LENGTHENING, FACTOR = 3, 10 ** (-1 / 7)
PHASES, LR, EPS = 8, 1e-3, 1e-4
#: Variables of each stochastic layer, and the tanh layers below it, by number of layers.
LAYERS: dict[int, dict[str, Any]] = {
    1: {"latents": [50], "hidden": [[200, 200]]},
    2: {"latents": [100, 50], "hidden": [[200, 200], [100, 100]]},
}
OUR_LAYERS: dict[int, dict[str, Any]] = {
    1: {"latents": [20], "hidden": [[64, 64]]},
    2: {"latents": [20, 10], "hidden": [[64, 64], [32, 32]]},
}
OUR_PHASES, OUR_LR = 4, 3e-3

NOTES = (
    "beta1 0.9 and rates as the paper has them; the released code has 0.99, second moments that "
    "start at 1 and are not corrected beside epsilon, and rates rounded to two digits",
    "all training images, as the paper says; the released code leaves out 400 of MNIST and 1,345 "
    "of Omniglot, and shuffles images once or never, not in each epoch",
    "the bias of the pixels starts at the log-odds of one draw of each training image, where the "
    "released code has those of the grey means; its layers of one shape start with equal weights",
)


def autoencoder(data: str, objective: Literal["vae", "iwae"], layers: int, samples: int) -> Recipe:
    """A VAE or an IWAE (Table 1 of the paper). With one sample the two are the same.

    Args:
        data: The column's data set.
        objective: ``vae`` averages the log weights of the samples, ``iwae`` the weights.
        layers: Stochastic layers.
        samples: Of the objective, k.
    """
    ours = data == OURS
    name = "elbo" if objective == "vae" or samples == 1 else "iwae"
    model = ModelSpec(
        name="hierarchical_vae:HierarchicalVAE", args=(OUR_LAYERS if ours else LAYERS)[layers]
    )
    phases, lr = (OUR_PHASES, OUR_LR) if ours else (PHASES, LR)
    stage = _stage(data, model, ObjectiveSpec(name=name, args={"samples": samples}), phases, lr)
    return Recipe(
        name=f"{'vae' if name == 'elbo' else 'iwae'}-{layers}-{samples}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(
            metrics=METRICS,
            checkpoint="best" if ours else "last",
            batch_size=EVALUATION_BATCH,
            importance_samples=SAMPLES,
        ),
        cost=_cost(data, stage),
        source=OWN_COLUMN if ours else "Burda et al., section 5",
        notes=() if ours else NOTES,
    )


def _stage(data: str, model: ModelSpec, objective: ObjectiveSpec, phases: int, lr: float) -> Stage:
    steps = card(data).sizes["train"] // BATCH
    ends = list(accumulate(LENGTHENING**phase for phase in range(phases)))
    return Stage(
        data=DataSpec(name=data),
        model=model,
        objective=objective,
        optimizer=OptimizerSpec(lr=lr, eps=EPS),
        schedule=ScheduleSpec(
            milestones=tuple(steps * epochs for epochs in ends[:-1]), factor=FACTOR
        ),
        batch_size=BATCH,
        # Nothing depends on it where the last parameters are evaluated: a curve of 80 points.
        validation=ValidationSpec(every=1 if data == OURS else ends[-1] // 80, batch_size=100),
        stopping=StoppingSpec(max_epochs=ends[-1]),
    )


# ----------------------------------------------------------------------------- cost

#: Tensor operations of a training step for each stochastic layer, and numbers that are kept for
#: each pixel of a sample.
LAUNCHES, KEPT = 100, 8


def _cost(data: str, stage: Stage) -> Cost:
    """Count the encoder of the pixels once an example, and all that follows for each sample."""
    sizes, dim = card(data).sizes, card(data).dim
    encoder, rest = _products(stage.model.args, dim)
    samples = int(stage.objective.args["samples"])
    epochs = stage.stopping.max_epochs or 0
    looks = costs.PASS * (encoder + samples * rest) * sizes.get("val", sizes["test"])
    per_step = looks / (stage.validation.every * (sizes["train"] // BATCH))
    return Cost(
        steps=epochs * (sizes["train"] // BATCH),
        flops_per_step=costs.TRAINING * BATCH * (encoder + samples * rest) + per_step,
        launches_per_step=LAUNCHES * len(stage.model.args["latents"]),
        evaluation_flops=costs.PASS * rest * SAMPLES * sizes["test"],
        memory_bytes=costs.memory(data, encoder + rest, BATCH * samples * KEPT * dim),
    )


def _products(args: dict[str, Any], dim: int) -> tuple[int, int]:
    """Return the multiplications of the first posterior layer, and of all others."""
    dims = [dim, *args["latents"]]
    joints = list(zip(dims[:-1], args["hidden"], dims[1:], strict=True))
    up = [costs.weights([below, *hidden, 2 * above]) for below, hidden, above in joints]
    down = [costs.weights([above, *hidden, 2 * below]) for below, hidden, above in joints[1:]]
    pixels = costs.weights([dims[1], *args["hidden"][0], dim])
    return up[0], sum(up[1:]) + sum(down) + pixels
