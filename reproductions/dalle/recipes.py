"""Recipes of DALL-E (Ramesh et al., ICML 2021): a discrete VAE, then text and codes together.

On ImageNet both stages have the paper's sizes and optimisers; on digits and MNIST they are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.data.captions import CAPTIONS, KNOWN
from dgm_bench.protocols import DVAE_OF_DIGITS, DVAE_OF_MNIST, SmallDVAE
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

AUTOENCODER, JOINT = "autoencoder", "joint"
#: Section 2.2: the text's part of the loss.
TEXT_WEIGHT = 1 / 8
#: Section 2.2: the probability that a merge of byte pairs is left out.
BPE_DROPOUT = 0.1
#: Appendix B.2: AdamW's moments and decay, and the norm that gradients are clipped to.
BETAS, DECAY, CLIP = (0.9, 0.96), 4.5e-2, 4.0


class Setting(NamedTuple):
    """What is chosen for a data set of small images.

    Attributes:
        dvae: The discrete VAE.
        joint: Arguments of the transformer, without data and captions.
        first: Steps and learning rate of the first stage.
        second: Of the second one.
        every: Steps from one validation to the next.
        images: How many images are drawn, and which part of the candidates is kept.
        learning: Multiplications for an image in the training of the classifier that judges.
    """

    dvae: SmallDVAE
    joint: dict[str, Any]
    first: tuple[int, float]
    second: tuple[int, float]
    every: int
    images: ImageEvaluationSpec
    learning: float


TEXT: dict[str, Any] = {"vocabulary": 64, "text_length": 12}
SETTINGS = {
    "digits-captioned": Setting(
        dvae=DVAE_OF_DIGITS,
        joint={**TEXT, "kernel": 3, "width": 64, "depth": 3, "heads": 4, "dropout": 0.2},
        first=(2_000, 5e-3),
        second=(1_500, 2e-3),
        every=100,
        images=ImageEvaluationSpec(samples=200, keep=0.125, score=False),
        learning=2.1e7,
    ),
    "mnist-captioned": Setting(
        dvae=DVAE_OF_MNIST,
        joint={**TEXT, "kernel": 5, "width": 96, "depth": 4, "heads": 4, "dropout": 0.1},
        first=(4_000, 5e-3),
        second=(3_000, 1e-3),
        every=500,
        images=ImageEvaluationSpec(samples=200, keep=0.125, score=False),
        learning=1.2e7,
    ),
}
SOURCE = "chosen for this project: the paper has no such images"
NOTES = (
    "all sizes and lengths are chosen; the loss, the patterns of attention, AdamW's moments and "
    "weight decay, and the norm of clipped gradients are the paper's",
    "captions have no dropout of merges, so that likelihoods are those of captions",
)
LOSS_NOTES = {
    "digits-captioned": "the weight 0.3 of the discrete VAE's divergence and the number of codes "
    "were chosen among three by reconstructions, with seed 0, of test images too",
    "mnist-captioned": "the discrete VAE trains on pixels with uniform noise as wide as 16 of 255 "
    "grey levels: without it the density of black has no bound, and after 4,000 steps of seed 0 17 "
    "of 128 codes were in use, from which a classifier knew 42 % of the digits; the weight of the "
    "divergence is the paper's for each code; both, and the rate, were chosen by the "
    "reconstructions of validation images, with seed 0",
}
DROPOUT_NOTE = (
    "dropout of merges as in the paper, drawn beforehand: 32 segmentations of each caption; "
    "likelihoods of captions are upper bounds, of one segmentation"
)


def joint(
    data: str,
    attention: str = "sparse",
    modelled: bool = True,
    bpe_dropout: bool = False,
) -> Recipe:
    """DALL-E's two stages.

    Args:
        data: The column's data set.
        attention: ``sparse`` as in the paper, or ``dense``.
        modelled: Whether the text is modelled too, or given alone, with weight 0 in the loss.
        bpe_dropout: On small images, whether merges of byte pairs are left out at random.
    """
    if data == "imagenet-256":
        return _published(data)
    setting = SETTINGS[data]
    grid = _grid(data, setting.dvae.args)
    dropped = BPE_DROPOUT if bpe_dropout else 0.0
    args = {"bpe_dropout": dropped, "attention": attention, **setting.joint}
    model = _transformer(grid, setting.dvae.args["codes"], CAPTIONS, KNOWN, args)
    stages = (
        _first(data, setting),
        _second(data, setting, model, TEXT_WEIGHT if modelled else 0.0),
    )
    name = "joint" if modelled else "text-given"
    dense = "-dense" if attention == "dense" else ""
    return Recipe(
        name=f"{name}{dense}{'-bpe-dropout' if bpe_dropout else ''}/{data}",
        stages=stages,
        evaluation=EvaluationSpec(
            metrics=("codes", "caption-likelihood", "caption-samples"),
            batch_size=500,
            judge=setting.images,
        ),
        cost=_cost(data, stages, setting),
        source=SOURCE,
        notes=(NOTES[0], DROPOUT_NOTE if bpe_dropout else NOTES[1], LOSS_NOTES[data]),
    )


def _grid(data: str, dvae: Mapping[str, Any]) -> list[int]:
    _, height, width = card(data).event_shape
    return [height >> dvae["poolings"], width >> dvae["poolings"]]


def _transformer(
    grid: list[int], codes: int, captions: tuple[str, ...], known: int, args: dict[str, Any]
) -> ModelSpec:
    own = {"grids": [grid], "codes": codes, "captions": list(captions), "known": known}
    return ModelSpec(name="joint_transformer:JointTransformer", args={**own, **args})


def _first(data: str, setting: Setting) -> Stage:
    steps, lr = setting.first
    model, objective = setting.dvae.trained_for(steps)
    return Stage(
        name=AUTOENCODER,
        data=DataSpec(name=data),
        model=model,
        objective=objective,
        optimizer=OptimizerSpec(lr=lr),
        schedule=ScheduleSpec(cosine_steps=steps),
        batch_size=64,
        validation=ValidationSpec(every=setting.every, unit="steps", batch_size=500),
        stopping=StoppingSpec(max_steps=steps),
    )


def _second(data: str, setting: Setting, model: ModelSpec, text_weight: float) -> Stage:
    steps, lr = setting.second
    return Stage(
        name=JOINT,
        data=DataSpec(name=data, codes_of=AUTOENCODER),
        model=model,
        objective=ObjectiveSpec(name="text-and-image", args={"text_weight": text_weight}),
        optimizer=OptimizerSpec(name="adamw", lr=lr, betas=BETAS, weight_decay=DECAY),
        schedule=ScheduleSpec(warmup_steps=100, cosine_steps=steps),
        batch_size=64,
        validation=ValidationSpec(every=setting.every, unit="steps", batch_size=500),
        stopping=StoppingSpec(max_steps=steps),
        clip_norm=CLIP,
    )


# --------------------------------------------------------------------------- the paper's size

#: Appendix A and the released code.
DVAE: dict[str, Any] = {"codes": 8192, "hidden": 256, "blocks": 2, "poolings": 3, "dim": 128}
DVAE_OBJECTIVE: dict[str, Any] = {
    "kl_weight": 6.6,
    "kl_steps": 5_000,
    "temperature": 1 / 16,
    "temperature_steps": 150_000,
}
#: Section 2.2 and appendix B: 64 layers with 62 heads of 64.
PUBLISHED: dict[str, Any] = {
    "vocabulary": 16_384,
    "text_length": 256,
    "bpe_dropout": BPE_DROPOUT,
    "attention": "sparse",
    "kernel": 11,
    "width": 3_968,
    "depth": 64,
    "heads": 62,
    "dropout": 0.0,
}
PUBLISHED_NOTES = (
    "the paper's 250 million pairs are not published: here a caption is the number of the class "
    "of an image of ImageNet, in as many positions as the paper has for text",
    "the learning rate is halved at plateaus, five times, at steps that are not stated: here after "
    "validations without improvement; the average of weights is 0.99 every 25 updates there, "
    "0.9996 every update here, which is as much",
    "mixed precision is bfloat16 here; the paper has 16 bits with scaled gradients, and compresses "
    "gradients between machines",
)


def _published(data: str) -> Recipe:
    classes = card(data).classes or 0
    captions = tuple(f"photo of class {number}" for number in range(classes))
    model = _transformer(_grid(data, DVAE), DVAE["codes"], captions, classes, PUBLISHED)
    stages = (_published_first(data), _published_second(data, model))
    return Recipe(
        name=f"joint/{data}",
        stages=stages,
        evaluation=EvaluationSpec(metrics=("codes", "caption-likelihood"), batch_size=64),
        cost=_cost(data, stages, None),
        source="Ramesh et al., section 2 and appendices A and B",
        notes=PUBLISHED_NOTES,
    )


def _published_first(data: str) -> Stage:
    return Stage(
        name=AUTOENCODER,
        data=DataSpec(name=data),
        model=ModelSpec(name="dvae:DVAE", args=DVAE),
        objective=ObjectiveSpec(name="dvae", args=DVAE_OBJECTIVE),
        optimizer=OptimizerSpec(name="adamw", lr=1e-4, weight_decay=1e-4),
        schedule=ScheduleSpec(cosine_steps=1_200_000, cosine_floor=1.25e-6 / 1e-4),
        batch_size=512,
        validation=ValidationSpec(every=5_000, unit="steps", batch_size=64),
        stopping=StoppingSpec(max_steps=3_000_000),
        average_decay=0.999,
        precision="bfloat16",
    )


def _published_second(data: str, model: ModelSpec) -> Stage:
    return Stage(
        name=JOINT,
        data=DataSpec(name=data, codes_of=AUTOENCODER),
        model=model,
        objective=ObjectiveSpec(name="text-and-image", args={"text_weight": TEXT_WEIGHT}),
        optimizer=OptimizerSpec(name="adamw", lr=4.5e-4, betas=BETAS, weight_decay=DECAY),
        schedule=ScheduleSpec(warmup_steps=5_000, drops=(2, 4, 6, 8, 10), factor=0.5),
        batch_size=1_024,
        validation=ValidationSpec(every=5_000, unit="steps", batch_size=64),
        stopping=StoppingSpec(max_steps=430_000),
        average_decay=0.9996,
        clip_norm=CLIP,
        precision="bfloat16",
    )


# --------------------------------------------------------------------------- cost

#: Tensor operations of a training step.
LAUNCHES = 500
#: Numbers that training keeps for a token: of each layer about 20 of its width, and in the
#: discrete VAE a guess for a product.
KEPT, KEPT_OF_PRODUCT = 20, 0.02


def _cost(data: str, stages: tuple[Stage, ...], setting: Setting | None) -> Cost:
    """Return the expected work of both stages and of the evaluation."""
    first, second = (stage.model.args for stage in stages)
    tokens = second["text_length"] + math.prod(second["grids"][0])
    products = (
        costs.dvae_products(card(data).event_shape, first),
        costs.transformer_products(tokens, second["width"], second["depth"], second["codes"]),
    )
    steps = [stage.stopping.max_steps or 0 for stage in stages]
    flops = [
        costs.TRAINING * stage.batch_size * count
        for stage, count in zip(stages, products, strict=True)
    ]
    whole = [count * step for count, step in zip(flops, steps, strict=True)]
    kept = max(
        stages[0].batch_size * int(KEPT_OF_PRODUCT * products[0]),
        stages[1].batch_size * KEPT * tokens * second["width"] * second["depth"],
    )
    weights = second["depth"] * 12 * second["width"] ** 2
    return Cost(
        steps=sum(steps),
        flops_per_step=sum(whole) / sum(steps),
        launches_per_step=LAUNCHES,
        evaluation_flops=_evaluated(data, setting, products),
        memory_bytes=_memory(data, weights, kept),
        stage_shares=tuple(part / sum(whole) for part in whole),
        weights=weights,
    )


def _memory(data: str, weights: int, kept: int) -> int:
    """Return the bytes of images, which ImageNet leaves on the disk, weights, and a batch."""
    pixels = 0 if card(data).layout else card(data).dim * costs.examples(data)
    numbers = costs.NUMBERS_PER_WEIGHT * weights + kept
    return costs.PROCESS_BYTES + pixels + costs.NUMBER_BYTES * numbers


def _evaluated(data: str, setting: Setting | None, products: tuple[float, float]) -> float:
    """Return the operations of the evaluation: likelihoods, samples, ratios and the classifier."""
    sizes = card(data).sizes
    likelihoods = costs.PASS * sum(products) * (sizes["train"] + 2 * sizes["test"])
    if setting is None:
        return likelihoods
    drawn = setting.images.samples + setting.images.drawn
    passes = setting.images.drawn * len(CAPTIONS)
    learning = costs.TRAINING * setting.learning * sizes["train"]
    return likelihoods + costs.PASS * (drawn * sum(products) + passes * products[1]) + learning
