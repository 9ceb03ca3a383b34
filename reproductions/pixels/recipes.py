"""Recipes of density models of pixels: as released for CIFAR-10, ours for digits and MNIST."""

from __future__ import annotations

from typing import Any, NamedTuple

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

#: Of both released programs.
BETAS = (0.95, 0.9995)


class Setting(NamedTuple):
    """How the models of a data set are trained.

    Attributes:
        levels: Of a channel.
        components: Logistics of a mixture.
        pixelcnnpp: Widths of PixelCNN++.
        pixelsnail: Widths of PixelSNAIL.
        batch: Examples of a step.
        steps: As many are taken.
        every: Steps from one validation to the next.
        average: Decay of the averaged weights.
        at_once: Images that are evaluated at a time.
    """

    levels: int
    components: int
    pixelcnnpp: dict[str, Any]
    pixelsnail: dict[str, Any]
    batch: int
    steps: int
    every: int
    average: float
    at_once: int


SETTINGS = {
    "digits-levels": Setting(
        levels=17,
        components=5,
        pixelcnnpp={"hidden": 32, "blocks": 2, "scales": 2, "dropout": 0.5},
        pixelsnail={"hidden": 48, "groups": 2, "blocks": 2, "key_size": 16, "dropout": 0.3},
        batch=64,
        steps=800,
        every=50,
        average=0.99,
        at_once=250,
    ),
    "mnist-levels": Setting(
        levels=256,
        components=10,
        pixelcnnpp={"hidden": 32, "blocks": 1, "scales": 3, "dropout": 0.1},
        pixelsnail={"hidden": 32, "groups": 2, "blocks": 2, "key_size": 16, "dropout": 0.1},
        batch=16,
        steps=8_000,
        every=2_000,
        average=0.999,
        at_once=100,
    ),
}
OURS = "chosen for this project: the papers have no such images"
SMALL_NOTES = (
    "sizes, rates and lengths are chosen by what a step takes; betas are the released code's",
    "the rate falls to zero along a cosine",
)


def pixelcnnpp(data: str) -> Recipe:
    """PixelCNN++: as in openai/pixel-cnn on CIFAR-10, small on other images."""
    if data == "cifar10-levels":
        return _released_pixelcnnpp(data)
    setting = SETTINGS[data]
    args = {"levels": setting.levels, "components": setting.components, **setting.pixelcnnpp}
    return _ours(data, "pixelcnnpp", ModelSpec(name="pixelcnnpp_images:PixelCNNPP", args=args))


def pixelsnail(data: str) -> Recipe:
    """PixelSNAIL: as in neocxi/pixelsnail-public on CIFAR-10, small on other images."""
    if data == "cifar10-levels":
        return _released_pixelsnail(data)
    setting = SETTINGS[data]
    args = {"levels": setting.levels, "components": setting.components, **setting.pixelsnail}
    return _ours(data, "pixelsnail", ModelSpec(name="pixelsnail_images:PixelSNAIL", args=args))


def _ours(data: str, name: str, model: ModelSpec) -> Recipe:
    setting = SETTINGS[data]
    stage = Stage(
        data=DataSpec(name=data),
        model=model,
        optimizer=OptimizerSpec(lr=2e-3, betas=BETAS),
        schedule=ScheduleSpec(cosine_steps=setting.steps),
        batch_size=setting.batch,
        validation=ValidationSpec(every=setting.every, unit="steps", batch_size=setting.at_once),
        stopping=StoppingSpec(max_steps=setting.steps),
        average_decay=setting.average,
    )
    return Recipe(
        name=f"{name}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=setting.at_once),
        cost=_cost(data, stage, setting.steps),
        source=OURS,
        notes=SMALL_NOTES,
    )


# --------------------------------------------------------------------------- as released

#: Most epochs by the flags of both programs.
EPOCHS = 5_000
RELEASED_NOTES = (
    "5,000 of 50,000 training images validate; the released code trains on all and watches the "
    "test set alone",
    "Adam adds its epsilon outside of the root; the released code inside, to a loss that is "
    "summed over the batch",
    "data-dependent initialisation without dropout",
)


def _released_pixelcnnpp(data: str) -> Recipe:
    args = {
        "levels": 256,
        "components": 10,
        "hidden": 160,
        "blocks": 5,
        "scales": 3,
        "dropout": 0.5,
    }
    model = ModelSpec(name="pixelcnnpp_images:PixelCNNPP", args=args)
    notes = ("12 images on each of 8 devices", *RELEASED_NOTES)
    return _released(data, "pixelcnnpp", model, 96, 0.999995, "openai/pixel-cnn, train.py", notes)


def _released_pixelsnail(data: str) -> Recipe:
    args = {
        "levels": 256,
        "components": 10,
        "hidden": 256,
        "groups": 12,
        "blocks": 4,
        "key_size": 16,
        "dropout": 0.5,
    }
    model = ModelSpec(name="pixelsnail_images:PixelSNAIL", args=args)
    notes = (
        "8 images on each device, by the flags; on how many is not stated: 8 here, as PixelCNN++",
        "4 residual blocks before each attention and ELU alone, as the flags have it; the function "
        "behind them has 5 and concatenated ELU by default",
        "the softmax of the attention has a start token with a logit of 0",
        "initialised on 100 images, where the flags have 8",
        *RELEASED_NOTES,
    )
    source = "neocxi/pixelsnail-public, README and train.py"
    return _released(data, "pixelsnail", model, 64, 0.999998, source, notes)


def _released(
    data: str,
    name: str,
    model: ModelSpec,
    batch: int,
    decay: float,
    source: str,
    notes: tuple[str, ...],
) -> Recipe:
    stage = Stage(
        data=DataSpec(name=data),
        model=model,
        optimizer=OptimizerSpec(lr=1e-3, betas=BETAS),
        schedule=ScheduleSpec(decay=decay),
        batch_size=batch,
        validation=ValidationSpec(every=10, batch_size=batch),
        stopping=StoppingSpec(max_epochs=EPOCHS),
        average_decay=0.9995,
    )
    return Recipe(
        name=f"{name}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(batch_size=batch),
        cost=_cost(data, stage, EPOCHS * (card(data).sizes["train"] // batch)),
        source=source,
        notes=notes,
    )


# --------------------------------------------------------------------------- VQ-VAE

#: Section 4.1: convolutions, units, rate, batch and steps; 512 codes as for ImageNet.
PUBLISHED_VQVAE = {
    "levels": 256,
    "stride": 4,
    "per_place": 10,
    "hidden": 256,
    "residual_units": 256,
    "residual_layers": 2,
    "codes": 512,
    "dim": 64,
    "decay": 0.99,
    "restart": None,
}
SMALL_VQVAE = PUBLISHED_VQVAE | {
    "levels": 17,
    "stride": 2,
    "per_place": 2,
    "hidden": 48,
    "residual_units": 32,
    "codes": 16,
    "dim": 16,
    "restart": 0.1,
}


def vqvae(data: str) -> Recipe:
    """VQ-VAE with ten codes a place on CIFAR-10 (section 4.1), with two on digits."""
    published = data == "cifar10-levels"
    args = PUBLISHED_VQVAE if published else SMALL_VQVAE
    steps, batch = (250_000, 128) if published else (1_500, 64)
    stage = Stage(
        data=DataSpec(name=data),
        model=ModelSpec(name="vqvae_levels:LevelVQVAE", args=args),
        objective=ObjectiveSpec(name="vq-likelihood", args={"commitment": 0.25}),
        optimizer=OptimizerSpec(lr=2e-4 if published else 2e-3),
        schedule=ScheduleSpec(cosine_steps=None if published else steps),
        batch_size=batch,
        validation=ValidationSpec(every=1_000 if published else 100, unit="steps", batch_size=500),
        stopping=StoppingSpec(max_steps=steps),
    )
    return Recipe(
        name=f"vqvae/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(metrics=("elbo",), batch_size=500),
        cost=_vqvae_cost(data, stage, steps),
        source="van den Oord et al. (2017), section 4.1" if published else OURS,
        notes=(
            "independent discretised logistics with a scale for each channel, and 512 codes (on "
            "digits 16): the paper states neither its likelihood of pixels nor its codes",
            "the codebook is a moving average; the loss is in nats per dimension",
        ),
    )


# --------------------------------------------------------------------------- cost


def _vqvae_cost(data: str, stage: Stage, steps: int) -> Cost:
    channels, height, width = card(data).event_shape
    args, doublings = stage.model.args, stage.model.args["stride"].bit_length() - 1
    hidden, places = args["hidden"], height * width // args["stride"] ** 2
    codes = args["per_place"] * args["dim"]
    units = 2 * args["residual_layers"] * 10 * hidden * args["residual_units"]
    ends = units + 10 * hidden * codes
    products = places * (ends + args["per_place"] * args["codes"] * args["dim"])
    for halving in range(doublings):
        inputs = hidden if halving else channels
        products += 2 * 16 * hidden * inputs * height * width // 4 ** (halving + 1)
    weights = ends + 2 * 16 * hidden * (channels + hidden * (doublings - 1))
    return costs.network_cost(
        data,
        stage,
        products=products,
        networks=4,
        steps=steps,
        kept=height * width * hidden * 4,
        weights=weights,
    )


def _cost(data: str, stage: Stage, steps: int) -> Cost:
    channels, height, width = card(data).event_shape
    args, places = stage.model.args, height * width
    if stage.model.name.startswith("pixelcnnpp"):
        layers, weights, products = _streams(args, places)
        kept = 60 * args["hidden"] * places * layers * 4 // 3
    else:
        layers, weights, products = _snail(args, places)
        kept = (15 * args["hidden"] * layers + 2 * args["groups"] * places) * places
    head = args["hidden"] * args["components"] * (1 + 2 * channels + channels * (channels - 1) // 2)
    return costs.network_cost(
        data,
        stage,
        products=products + places * head,
        networks=layers,
        steps=steps,
        kept=kept,
        weights=weights + head,
    )


def _streams(args: dict[str, Any], places: int) -> tuple[int, int, int]:
    """Return layers of a scale, weights, and products for an image, of PixelCNN++.

    A layer of the way down has ``62 hidden^2`` weights, one of the way up 66: 36 and 24 of the
    blocks, 2 and 0 or 2 and 4 of side inputs; from one scale to the next and back are 20.
    """
    square, blocks, scales = args["hidden"] ** 2, args["blocks"], args["scales"]
    of_scale = [
        (blocks * 62 + (blocks + (scale < scales - 1)) * 66 + 20 * (scale > 0)) * square
        for scale in range(scales)
    ]
    products = sum(weights * places // 4**scale for scale, weights in enumerate(of_scale))
    return 2 * blocks + 1, sum(of_scale), products


def _snail(args: dict[str, Any], places: int) -> tuple[int, int, int]:
    """Return layers, weights, and products for an image, of PixelSNAIL.

    A residual block has ``12 hidden^2`` weights, the blocks around an attention about ten.
    """
    hidden, groups, blocks = args["hidden"], args["groups"], args["blocks"]
    weights = groups * (12 * blocks + 10) * hidden**2
    attention = groups * places * (args["key_size"] + hidden // 2)
    return groups * (blocks + 3), weights, places * (weights + attention)
