"""Recipes of the two-level VAEs of the VampPrior paper: ``models/*HVAE_2level.py`` of its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN, SMALL_BATCH, small_vae_stage, vampprior_stage
from dgm_bench.spec import (
    Cost,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    ScheduleSpec,
    Stage,
    StoppingSpec,
)

SMALL = "digits-binary"
#: Of digits-binary.
SMALL_EPOCHS, SMALL_LR, SMALL_SAMPLES = 100, 1e-2, 1_000
SAMPLES = 5_000
#: Examples of the test set that the importance-weighted bound is taken of.
EXAMPLES: Mapping[str, int] = {"digits-binary": 100, "mnist-static": 100}

ARGS: dict[str, Any] = {"latents": [40, 40], "filters": 32, "hidden": 300, "maps": 64}
ARGS |= {"components": 500, "init_mean": 0.05, "init_std": 0.01}
SMALL_ARGS: dict[str, Any] = {"latents": [8, 8], "filters": 8, "hidden": 64, "maps": 16}
SMALL_ARGS |= {"components": 50, "init_mean": 0.5, "init_std": 0.1}

NOTES = (
    "Adam instead of the code's AdamNormGrad, which divides each parameter's gradient by its norm",
    "pseudo-inputs are parameters clipped to [0, 1] and begin at the constant of "
    "utils/load_data.py, which overwrites the option of experiment.py",
    "the importance-weighted bound is of the first 100 test images, the paper's of all",
)
PIXEL_NOTE = "batch normalisation learns no scale, and adds 1e-4 to the variance instead of 1e-5"


def vamp_hvae(data: str, decoder: Literal["conv", "pixel"]) -> Recipe | None:
    """A two-level VAE with a VampPrior (Tomczak and Welling, 2018, section 4).

    Args:
        data: The column's data set.
        decoder: Of gated convolutions, or of masked ones, which see earlier pixels.
    """
    if data not in EXAMPLES:
        return None
    small = data == SMALL
    name = f"vamp_hvae:{'ConvHVAE' if decoder == 'conv' else 'PixelHVAE'}"
    model = ModelSpec(name=name, args=SMALL_ARGS if small else ARGS)
    stage = _small_stage(data, model) if small else _stage(data, model)
    drawn = SMALL_SAMPLES if small else SAMPLES
    return Recipe(
        name=f"{decoder}-hvae-vamp/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(
            metrics=("elbo", "importance"),
            batch_size=100,
            importance_samples=drawn,
            importance_examples=EXAMPLES[data],
        ),
        cost=_cost(data, stage, decoder, drawn),
        source=OWN_COLUMN if small else f"VampPrior code, models/{name[10:]}_2level.py",
        notes=() if small else NOTES + ((PIXEL_NOTE,) if decoder == "pixel" else ()),
    )


def _stage(data: str, model: ModelSpec) -> Stage:
    return vampprior_stage(
        data, model, OptimizerSpec(name="adam", lr=5e-4), patience=50, validation_batch=1_000
    )


def _small_stage(data: str, model: ModelSpec) -> Stage:
    steps = SMALL_EPOCHS * (card(data).sizes["train"] // SMALL_BATCH)
    return small_vae_stage(
        data,
        model,
        lr=SMALL_LR,
        stopping=StoppingSpec(max_epochs=SMALL_EPOCHS),
        schedule=ScheduleSpec(cosine_steps=steps),
    )


# ----------------------------------------------------------------------------- cost

#: Epochs until patience is over, outside of digits.
EXPECTED_EPOCHS = 300
#: Tensor operations of a training step, and numbers that it keeps for each pixel and map.
LAUNCHES, KEPT = 450, 8


def _cost(data: str, stage: Stage, decoder: str, samples: int) -> Cost:
    """Count the convolutions; the posteriors of all pseudo-inputs serve a whole batch."""
    sizes, args, dim = card(data).sizes, stage.model.args, card(data).dim
    filters, maps = int(args["filters"]), int(args["maps"])
    above, below = (_encoder(dim, filters, kernels) for kernels in ((49, 25), (9, 9)))
    convolutions = 2 * 3 if decoder == "conv" else 7  # gated ones have twice the outputs
    decoded = dim * (9 * convolutions * maps**2 + 27 * maps)
    pseudo = above * int(args["components"]) / stage.batch_size
    steps = sizes["train"] // stage.batch_size
    looks = costs.PASS * (above + below + decoded) * sizes["val"] / steps
    step = costs.TRAINING * (above + below + decoded + pseudo) * stage.batch_size
    weights = 10 * dim * int(args["hidden"]) + int(args["components"]) * dim
    return Cost(
        steps=(SMALL_EPOCHS if data == SMALL else EXPECTED_EPOCHS) * steps,
        flops_per_step=step + looks,
        launches_per_step=LAUNCHES,
        evaluation_flops=costs.PASS * decoded * samples * min(EXAMPLES[data], sizes["test"]),
        memory_bytes=costs.memory(data, weights, KEPT * stage.batch_size * dim * maps),
    )


def _encoder(dim: int, filters: int, kernels: tuple[int, int]) -> float:
    """Return the multiplications of one pass of an encoder of gated convolutions."""
    first, third = kernels
    full = dim * 2 * filters * first
    halved = dim / 4 * 2 * filters * (9 * filters + 2 * third * filters)
    quartered = dim / 16 * 2 * (9 * 4 * filters**2 + 9 * 2 * filters * 6)
    return full + halved + quartered
