"""What the recipes of all rows share: geometry, stages, evaluation and costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any, TypedDict

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.spec import (
    Cost,
    DataSpec,
    EvaluationSpec,
    ImageEvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    Recipe,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

#: Multiplications for an image in the whole training of a classifier on such images; those of
#: Inception v3 where none is trained.
LEARNING = {
    "digits-labelled": 2.1e7,
    "mnist-labelled": 1.2e7,
    "cifar10-labelled": 3.1e9,
    "imagenet-256": 1.6e11,
    "imagenet-128": 2e9,
    "imagenet-512": 2e9,
    "ffhq-1024": 2e9,
}

#: Names of the first stage, and of the priors by number of levels, top first.
AUTOENCODER = "autoencoder"
PRIOR_NAMES = {
    1: ("prior",),
    2: ("top-prior", "bottom-prior"),
    3: ("top-prior", "middle-prior", "bottom-prior"),
}

SAMPLED = ("samples", "reconstructions", "codes")


def grids_of(data: str, strides: Sequence[int]) -> list[list[int]]:
    """Return rows and columns of each level's grid, top first.

    Args:
        data: Name of the data set.
        strides: Of the bottom level, then of each above it, as the autoencoders take them.
    """
    _, height, width = card(data).event_shape
    finest_first = [[height // k, width // k] for k in accumulate(strides, mul)]
    return finest_first[::-1]


def named(model: str, data: str, images: ImageEvaluationSpec) -> str:
    """Return the name of a recipe: model, data, and the networks of others that evaluate it."""
    return "/".join([model, data, *images.weights])


# --------------------------------------------------------------------------- stages


class Rule(TypedDict):
    """How a stage is trained: what :func:`until` gives it."""

    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    batch_size: int
    validation: ValidationSpec
    stopping: StoppingSpec


def first_stage(data: str, model: ModelSpec, objective: ObjectiveSpec, rule: Rule) -> Stage:
    """Return the stage that trains the autoencoder."""
    return Stage(
        name=AUTOENCODER, data=DataSpec(name=data), model=model, objective=objective, **rule
    )


def prior_stages(
    data: str, models: Sequence[ModelSpec], rules: Sequence[Rule]
) -> tuple[Stage, ...]:
    """Return the second stages, top first.

    Args:
        data: Name of the data set.
        models: The prior of each level.
        rules: How each is trained.
    """
    names = PRIOR_NAMES[len(models)]
    codes = DataSpec(name=data, codes_of=AUTOENCODER)
    return tuple(
        Stage(name=name, data=codes, model=model, objective=ObjectiveSpec(name="nll"), **rule)
        for name, model, rule in zip(names, models, rules, strict=True)
    )


def transformer(
    data: str,
    grid: list[int],
    codes: int,
    widths: dict[str, Any],
    prefix: str,
    captions: list[str] | None,
) -> ModelSpec:
    """Return the transformer over the codes of a discrete VAE.

    Args:
        data: Name of the data set.
        grid: Rows and columns of codes.
        codes: Size of the codebook.
        widths: Width, depth, heads and dropout.
        prefix: What stands before the codes: ``class``, or ``text``.
        captions: The caption of each class, for ``text``.
    """
    args = {
        "grids": [grid],
        "level": 0,
        "codes": codes,
        "classes": card(data).classes,
        "prefix": prefix,
        "captions": captions,
        **widths,
    }
    return ModelSpec(name="code_transformer:CodeTransformer", args=args)


def until(
    steps: int,
    *,
    lr: float,
    batch_size: int,
    every: int,
    patience: int | None = None,
    validation_batch: int = 500,
    cosine: bool = False,
) -> Rule:
    """Return Adam for a number of steps at most, validated at intervals.

    Args:
        steps: At most as many.
        lr: Learning rate.
        batch_size: Images at a time.
        every: Steps from one validation to the next.
        patience: Validations without improvement after which training ends; None for never.
        validation_batch: Images validated at a time.
        cosine: Whether the learning rate falls to zero along half a cosine.
    """
    return {
        "optimizer": OptimizerSpec(lr=lr),
        "schedule": ScheduleSpec(cosine_steps=steps if cosine else None),
        "batch_size": batch_size,
        "validation": ValidationSpec(every=every, unit="steps", batch_size=validation_batch),
        "stopping": StoppingSpec(patience=patience, max_steps=steps),
    }


def evaluation(
    images: ImageEvaluationSpec, batch_size: int, metrics: tuple[str, ...] = SAMPLED
) -> EvaluationSpec:
    """Return the evaluation of images, with the best validated parameters of every stage."""
    return EvaluationSpec(metrics=metrics, batch_size=batch_size, judge=images)


# --------------------------------------------------------------------------- real images


def real_images(data: str, images: ImageEvaluationSpec, source: str) -> Recipe:
    """Return the recipe that measures held-out images as if they were reconstructions."""
    stage = Stage(
        name=AUTOENCODER,
        data=DataSpec(name=data),
        model=ModelSpec(name="identity:Identity"),
        objective=ObjectiveSpec(name="reconstruction"),
        optimizer=OptimizerSpec(lr=0),
        batch_size=100,
        validation=ValidationSpec(batch_size=100),
        stopping=StoppingSpec(max_steps=0),
    )
    plain = images.model_copy(update={"keep": None})
    flops = classifier_flops(data, min(images.samples, card(data).sizes["train"]))
    return Recipe(
        name=named("real", data, images),
        stages=(stage,),
        evaluation=evaluation(plain, 100, ("reconstructions",)),
        cost=Cost(
            steps=0,
            flops_per_step=0.0,
            launches_per_step=0.0,
            evaluation_flops=flops,
            memory_bytes=memory_of(data),
        ),
        source=source,
        notes=("the images themselves stand in the place of reconstructions",),
    )


# --------------------------------------------------------------------------- cost

#: Tensor operations of a training step.
LAUNCHES = 700
#: Bytes of the process, and of each pixel.
PROCESS_BYTES, PIXEL_BYTES = 700_000_000, 3
#: A guess, good to a factor of a few: for 64 products of a layer 6.4 bytes are kept at 64 channels,
#: and fewer the wider it is.
KEPT_BYTES = 6.4


def cost(
    data: str,
    stages: Sequence[Stage],
    images: ImageEvaluationSpec,
    sets: int,
) -> Cost:
    """Return the expected work of a recipe.

    Args:
        data: Name of the data set.
        stages: Autoencoder and priors.
        images: Says how many images are drawn.
        sets: How many sets of images are evaluated.
    """
    steps = [_expected_steps(stage) for stage in stages]
    products = [_products(data, stage.model) for stage in stages]
    flops = [
        costs.TRAINING * stage.batch_size * count
        for stage, count in zip(stages, products, strict=True)
    ]
    whole = [count * step for count, step in zip(flops, steps, strict=True)]
    drawn = images.samples / (images.keep or 1.0)
    drawing = costs.PASS * drawn * sum(products[1:]) + costs.PASS * drawn * products[0]
    batch = max(
        stage.batch_size * count / _width(stage.model.args)
        for stage, count in zip(stages, products, strict=True)
    )
    return Cost(
        steps=sum(steps),
        flops_per_step=sum(whole) / sum(steps),
        launches_per_step=LAUNCHES,
        evaluation_flops=drawing + sets * classifier_flops(data, images.samples),
        memory_bytes=memory_of(data) + int(KEPT_BYTES * batch),
        stage_shares=tuple(part / sum(whole) for part in whole),
        weights=int(max(map(_weights, stages, products))),
    )


def _weights(stage: Stage, products: float) -> float:
    """Return about how many weights a prior has, as each takes part at every place of its grid.

    An autoencoder has far fewer, and counts as none.
    """
    args = stage.model.args
    return products / math.prod(args["grids"][args.get("level", 0)]) if "grids" in args else 0.0


def _width(args: dict[str, Any]) -> float:
    """Return the typical number of channels of a model."""
    hidden = args.get("hidden") or args["width"]
    return math.sqrt(hidden * args.get("residual", hidden))


def _expected_steps(stage: Stage) -> int:
    """Return how many steps a stage takes: with patience about half of the most."""
    most = stage.stopping.max_steps or 0
    return most if stage.stopping.patience is None else most // 2


def memory_of(data: str) -> int:
    """Return the bytes of the images, which ImageNet and FFHQ leave on the disk, and of torch."""
    on_disk = bool(card(data).layout)
    pixels = 0 if on_disk else card(data).dim * costs.examples(data)
    return PROCESS_BYTES + PIXEL_BYTES * pixels


def classifier_flops(data: str, images: int) -> float:
    """Return the work of training a classifier on images."""
    return costs.TRAINING * LEARNING[data] * images


def _products(data: str, model: ModelSpec) -> float:
    """Return the multiplications in one pass of a model over an image."""
    name, args = model.name, model.args
    if name.startswith("vqvae:"):
        return _convolution_products(data, args)
    if name == "dvae:DVAE":
        return costs.dvae_products(card(data).event_shape, args)
    if name.startswith("code_transformer:"):
        return _transformer_products(args)
    if name.startswith("pixelcnnpp:"):
        return _stream_products(args)
    return _prior_products(args)


def _convolution_products(data: str, args: dict[str, Any]) -> float:
    """Return the multiplications of a VQ-VAE for an image: encoders, decoders, residual units."""
    _, height, width = card(data).event_shape
    hidden, units, layers = args["hidden"], args["residual_units"], args["residual_layers"]
    # All but one of several strided convolutions have half the hidden units.
    block = 12.5 * hidden**2 + layers * 10 * hidden * units
    places = [height * width / k**2 for k in accumulate(args["strides"], mul)]
    return float(2 * block * sum(places))


def _prior_products(args: dict[str, Any]) -> float:
    """Return the multiplications of a convolutional prior for an image: weights times places."""
    grids = args["grids"]
    hidden, units, level = args["hidden"], args["residual"], args["level"]
    reach = args["kernel"] // 2
    taps = reach * args["kernel"] + reach + 1
    attention = args.get("attention_layers")
    gated = (reach + 1) * args["kernel"] * 2 * hidden**2 + (reach + 4) * hidden * units * 2
    block = taps * 3 * hidden * units if attention else gated
    places = math.prod(grids[level])
    output = args["output_layers"] * 3 * hidden * units
    above = args["conditioning_layers"] * 10 * hidden**2 * math.prod(grids[level - 1])
    return float(places * (args["layers"] * block + output) + (above if level else 0))


def _stream_products(args: dict[str, Any]) -> float:
    """Return the multiplications of PixelCNN++: a quarter of the layers' at each coarser scale."""
    grids, level, hidden = args["grids"], args["level"], args["hidden"]
    places, blocks = math.prod(grids[level]), args["blocks"]
    # Down: both streams' blocks on six and four taps, and one side input; up: three more of those.
    layer_down, layer_up = (6 * (6 + 4) + 2) * hidden**2, (6 * (6 + 4) + 6) * hidden**2
    scales = sum(4.0**-scale for scale in range(args["scales"]))
    above = args["conditioning_layers"] * 10 * hidden**2 * math.prod(grids[level - 1])
    whole = blocks * layer_down + (blocks + 1) * layer_up
    return float(places * scales * whole + (above if level else 0))


def _transformer_products(args: dict[str, Any]) -> float:
    """Return the multiplications of a transformer for an image, and the caption before it."""
    text = max((len(caption) for caption in args["captions"] or ()), default=0)
    tokens = math.prod(args["grids"][0]) + text
    return costs.transformer_products(tokens, args["width"], args["depth"], args["codes"])
