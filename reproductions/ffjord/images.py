"""The rows of convolutional flows on images: Glow, Real NVP and FFJORD with several scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from dgm_bench import costs
from dgm_bench.data import card
from dgm_bench.protocols import OWN_COLUMN
from dgm_bench.spec import (
    Cost,
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

from .protocols import small_stage
from .shared import IMAGES, image_shape, pixel_data, required_setting

# --------------------------------------------------------------------------- Glow

GLOW_BATCH = 512  # 8 workers with 64 images each
GLOW_SOURCE = "released Glow code (README, train.py, model.py)"
GLOW_NOTES = (
    "how long the published model was trained is not known: 500 epochs here",
    "the checkpoint is the best on test, as in the released code: there is no validation set",
)
GLOW_CIFAR_NOTE = (
    "mirrored images, the FFJORD code's augmentation; the Glow code shifts them instead"
)
GLOW_MNIST_NOTE = "settings of the published number were not found: those of CIFAR-10, two levels"


def glow_multiscale(data: str) -> Recipe:
    """Glow as released for CIFAR-10: three levels of 32 steps, affine couplings, width 512."""
    if data not in IMAGES:
        small = {"levels": 2, "depth": 4, "width": 48, "image_shape": image_shape(data)}
        return _small(data, "glow-multiscale", "glow_images:Glow", small, lr=1e-3)
    levels = 3 if data == "cifar10" else 2
    args: dict[str, Any] = {"levels": levels, "depth": 32, "width": 512, "image_shape": None}
    per_epoch = -(-_train_images(data) // GLOW_BATCH)
    stage = Stage(
        data=pixel_data(data),
        model=ModelSpec(name="glow_images:Glow", args=args),
        # The second moment is averaged over an epoch (train.py: polyak_epochs).
        optimizer=OptimizerSpec(
            name="adamax-glow", lr=1e-3, betas=(0.9, round(1 - 1 / per_epoch, 6))
        ),
        schedule=ScheduleSpec(warmup_steps=10 * per_epoch),
        batch_size=GLOW_BATCH,
        validation=ValidationSpec(every=50, unit="epochs", batch_size=500),
        stopping=StoppingSpec(max_epochs=500),
    )
    return _published(
        data,
        "glow-multiscale",
        stage,
        size=_glow_size(data, args),
        networks=args["levels"] * args["depth"],
        source=GLOW_SOURCE,
        notes=(*GLOW_NOTES, GLOW_MNIST_NOTE if data == "mnist" else GLOW_CIFAR_NOTE),
    )


def _glow_size(data: str, args: dict[str, Any]) -> Size:
    channels, height, width = card(data).event_shape
    hidden, depth, products, weights, kept = args["width"], args["depth"], 0, 0, 0
    for _ in range(args["levels"]):
        channels, height, width = 4 * channels, height // 2, width // 2
        network = 9 * channels // 2 * hidden + hidden * hidden + 9 * hidden * channels
        weights += depth * (network + channels * channels)
        products += depth * height * width * (network + channels * channels)
        kept += depth * height * width * (4 * hidden + 6 * channels)
        channels //= 2
    return Size(products, weights, kept)


# --------------------------------------------------------------------------- Real NVP

REAL_NVP_SOURCE = (
    "Real NVP paper, sections 3.4 to 3.7 and 4.1; gradient clipping from its authors' released code"
)
REAL_NVP_NOTES = (
    "how long the published model was trained is not known: 500 epochs here",
    "the last checkpoint: there is no validation set, and the test set chooses nothing",
)
REAL_NVP_MNIST_NOTE = "settings of the published number were not found: those of CIFAR-10"


def real_nvp_multiscale(data: str) -> Recipe:
    """Real NVP with convolutional couplings at two scales, as for CIFAR-10 in the paper."""
    model = "realnvp_images:MultiScaleRealNVP"
    shape = image_shape(data)
    args: dict[str, Any]
    if data not in IMAGES:
        args = {"features": 24, "blocks": 1, "scales": 2, "alpha": None, "image_shape": shape}
        return _small(data, "real-nvp-multiscale", model, args, lr=1e-3)
    args = {"features": 64, "blocks": 8, "scales": 2, "alpha": 0.05, "image_shape": shape}
    stage = Stage(
        data=pixel_data(data),
        model=ModelSpec(name=model, args=args),
        # The loss has 5e-5 times a sum of squares; weight decay is its gradient's factor.
        optimizer=OptimizerSpec(lr=1e-3, weight_decay=1e-4),
        batch_size=64,
        validation=ValidationSpec(every=10, unit="epochs", batch_size=500),
        stopping=StoppingSpec(max_epochs=500),
        clip_norm=100.0,
    )
    return _published(
        data,
        "real-nvp-multiscale",
        stage,
        size=_real_nvp_size(data, args),
        networks=10 * args["blocks"],
        source=REAL_NVP_SOURCE,
        notes=REAL_NVP_NOTES + ((REAL_NVP_MNIST_NOTE,) if data == "mnist" else ()),
        checkpoint="last",
    )


def _real_nvp_size(data: str, args: dict[str, Any]) -> Size:
    """Count each coupling's residual network: two 3 x 3 convolutions a block."""
    _, height, width = card(data).event_shape
    features, products, weights, kept = args["features"], 0, 0, 0
    for scale in range(args["scales"]):
        last = scale == args["scales"] - 1
        # Couplings by checkerboard at this size, then by channel at the next one.
        for couplings, shrink, wide in ((4 if last else 3, 1, 1), (0 if last else 3, 2, 2)):
            pixels, channels = height * width // shrink**2, wide * features
            network = couplings * 2 * 9 * channels**2 * args["blocks"]
            weights, products = weights + network, products + network * pixels
            kept += couplings * pixels * channels * 8 * args["blocks"]
        height, width, features = height // 2, width // 2, 2 * features
    return Size(products, weights, kept)


# --------------------------------------------------------------------------- FFJORD

FFJORD_SOURCE = "FFJORD appendix B.1 and released FFJORD code (README, train_cnf.py, lib/odenvp.py)"
FFJORD_NOTES: tuple[str, ...] = (
    "three hidden layers, the released code's README; the paper says three layers in all",
    "the checkpoint is the best on test: there is no validation set",
    "rate 1e-3, after epoch 250 1e-4 (appendix B.1; not in the released script)",
    "the likelihood is an estimate with one noise vector per flow, as published",
)
ALPHA_NOTE = "logit's alpha 1e-6, the code's default; what CIFAR-10 had in the paper is not known"
TWO_HIDDEN_NOTE = "two hidden layers, three layers in all as the paper says; the README has three"
FFJORD_BATCH = 900
#: Continuous flows of the multi-scale model, and evaluations of the dynamics that each is expected
#: to take: those of the 2-D toys (FFJORD section 4.1).
FLOWS = {"mnist": 10, "cifar10": 14, "digits": 6}
EVALUATIONS = 100
#: Of its cost: numbers that training keeps for each dimension of an image, and weights.
FFJORD_KEPT, FFJORD_WEIGHTS = 400, 1_400_000


def ffjord_multiscale(data: str, filters: Sequence[int] = (64, 64, 64)) -> Recipe:
    """FFJORD with several scales: ``*`` in FFJORD Table 2."""
    label = "ffjord-multiscale" + ("" if len(filters) == 3 else "-two-hidden")
    model = "ffjord_images:MultiScaleFFJORD"
    if data not in IMAGES:
        narrow = [24 for _ in filters]
        args = {"flows": 2, "filters": narrow, "alpha": None, **_small_solver(data)}
        return _small(data, label, model, args, lr=3e-3, products=_ffjord_products(data, narrow))
    notes = FFJORD_NOTES if len(filters) == 3 else (TWO_HIDDEN_NOTE, *FFJORD_NOTES[1:])
    notes += (ALPHA_NOTE,) if data == "cifar10" else ()
    args = {"flows": 2, "filters": list(filters), "alpha": 1e-6, **_published_solver(data)}
    products = _ffjord_products(data, filters)
    return _published_ffjord(data, label, model, args, products, notes, flows=FLOWS[data])


def ffjord_single(data: str) -> Recipe:
    """FFJORD as one flow whose dynamics are an encoder and a decoder: ``†`` in FFJORD Table 2."""
    model = "ffjord_images:EncoderDecoderFFJORD"
    if data not in IMAGES:
        narrow = [16, 16, 32, 32]
        args = {"filters": narrow, "alpha": None, **_small_solver(data)}
        products = _single_products(data, narrow)
        return _small(data, "ffjord-single", model, args, lr=3e-3, products=products)
    filters = [64, 64, 128, 128]
    args = {"filters": filters, "alpha": 1e-6, **_published_solver(data)}
    products = _single_products(data, filters)
    notes = FFJORD_NOTES[1:]
    return _published_ffjord(data, "ffjord-single", model, args, products, notes, flows=1)


def rnode(data: str) -> Recipe:
    """RNODE on images: FFJORD's multi-scale model, regularised (Finlay et al. 2020).

    Released RNODE code, example-scripts: both coefficients 0.01, 100 epochs, batch 200; rk4 with
    step 0.25 on MNIST, dopri5 at 1e-5 on CIFAR-10, and dopri5 at 1e-5 in tests.
    """
    model, filters = "ffjord_images:MultiScaleFFJORD", [64, 64, 64]
    solver: dict[str, Any] = {"noise": "gaussian"}
    if data == "mnist":
        solver |= {"solver": "rk4", "step_size": 0.25}
    alpha = 0.05 if data == "cifar10" else 1e-5
    args = {"flows": 2, "filters": filters, "alpha": alpha, **_published_solver(data), **solver}
    stage = _ffjord_stage(data, model, args).model_copy(
        update={
            "objective": ObjectiveSpec(name="rnode", args={"kinetic": 0.01, "jacobian": 0.01}),
            "schedule": ScheduleSpec(warmup_steps=1_000),
            "batch_size": 200,
            "stopping": StoppingSpec(max_epochs=100),
        }
    )
    steps = 16 if data == "mnist" else EVALUATIONS
    return Recipe(
        name=f"rnode/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(
            trace="estimate", batch_size=200, model_overrides={"solver": "dopri5"}
        ),
        cost=_ode_cost(data, stage, _ffjord_products(data, filters), steps, flows=FLOWS[data]),
        source="released RNODE code (train.py, example-scripts)",
        notes=(
            "the checkpoint is the best on test: there is no validation set",
            "last layers start as the others, not at zero; test pixels with noise, not bin centres",
            "epochs are compared with the solver of training",
        ),
    )


def _published_solver(data: str) -> dict[str, Any]:
    """Return FFJORD's solver for images (its appendix C)."""
    return {
        "image_shape": image_shape(data),
        "solver": "dopri5",
        "rtol": 1e-5,
        "atol": 1e-5,
        "step_size": None,
        "adjoint": True,
        "noise": "rademacher",
    }


def _small_solver(data: str) -> dict[str, Any]:
    return _published_solver(data) | {"solver": "rk4", "step_size": 0.5, "adjoint": False}


def _published_ffjord(
    data: str,
    label: str,
    model: str,
    args: dict[str, Any],
    products: int,
    notes: tuple[str, ...],
    flows: int,
) -> Recipe:
    stage = _ffjord_stage(data, model, args)
    return Recipe(
        name=f"{label}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(trace="estimate", batch_size=500),
        cost=_ode_cost(data, stage, products, EVALUATIONS, flows),
        source=FFJORD_SOURCE,
        notes=notes,
    )


def _ffjord_stage(data: str, model: str, args: dict[str, Any]) -> Stage:
    per_epoch = _train_images(data) // FFJORD_BATCH
    return Stage(
        data=pixel_data(data),
        model=ModelSpec(name=model, args=args),
        objective=ObjectiveSpec(args={"trace": "estimate"}),
        optimizer=OptimizerSpec(lr=1e-3),
        schedule=ScheduleSpec(warmup_steps=1_000, milestones=(250 * per_epoch,)),
        batch_size=FFJORD_BATCH,
        validation=ValidationSpec(every=1, unit="epochs", trace="estimate", batch_size=500),
        stopping=StoppingSpec(max_epochs=500),
    )


def _ffjord_products(data: str, filters: Sequence[int]) -> int:
    """Return multiplications of one evaluation of every flow's dynamics for one example."""
    channels, height, width = card(data).event_shape
    products = 0
    while min(height, width) >= 4:
        products += 2 * _conv_products(channels, height * width, filters)
        channels, height, width = 4 * channels, height // 2, width // 2
        if min(height, width) >= 4:
            products += 2 * _conv_products(channels, height * width, filters)
            channels //= 2
    return products


def _conv_products(channels: int, pixels: int, filters: Sequence[int]) -> int:
    widths = (channels, *filters, channels)
    return 9 * pixels * sum((i + 1) * o for i, o in pairwise(widths))


def _single_products(data: str, filters: Sequence[int]) -> int:
    """Return multiplications of one evaluation: down to a quarter of the size and up again."""
    channels, height, width = card(data).event_shape
    return 2 * _conv_products(channels, height * width // 2, filters)


# --------------------------------------------------------------------------- both


class Size(NamedTuple):
    """What a pass of one example takes.

    Attributes:
        products: Multiplications.
        weights: Weights of the model.
        kept: Numbers that training keeps for one example.
    """

    products: int
    weights: int
    kept: int


#: Of a small model on 8x8 digits: products of a pass, and numbers that training keeps for an image.
SMALL_PRODUCTS, SMALL_KEPT = 2_000_000, 4_000 * 64


def _train_images(data: str) -> int:
    """Return the images of FFJORD's convention: those of training and validation, no flips."""
    return {"mnist": 60_000, "cifar10": 50_000}[data]


def _published(
    data: str,
    label: str,
    stage: Stage,
    *,
    size: Size,
    networks: int,
    source: str,
    notes: tuple[str, ...],
    checkpoint: Literal["best", "last"] = "best",
) -> Recipe:
    epochs = stage.stopping.max_epochs or 0
    steps = epochs * _train_images(data) // stage.batch_size
    return Recipe(
        name=f"{label}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(checkpoint=checkpoint, batch_size=500),
        cost=costs.network_cost(
            data,
            stage,
            products=size.products,
            networks=networks,
            steps=steps,
            kept=size.kept,
            weights=size.weights,
        ),
        source=source,
        notes=notes,
    )


def _ode_cost(data: str, stage: Stage, products: int, evaluations: int, flows: int) -> Cost:
    """Return the cost of ``flows`` flows that take ``products`` together, ``evaluations`` each."""
    epochs = stage.stopping.max_epochs or 0
    return costs.ode_cost(
        data,
        stage,
        products=products // flows,
        evaluations=evaluations * flows,
        steps=epochs * _train_images(data) // stage.batch_size,
        tested=EVALUATIONS * flows,
        kept=FFJORD_KEPT * card(data).dim,
        weights=FFJORD_WEIGHTS,
        exact=False,
    )


def _small(
    data: str, label: str, model: str, args: dict[str, Any], lr: float, products: int | None = None
) -> Recipe:
    """Return a small model of the same form on one of our columns."""
    small = required_setting(data)
    stage = small_stage(data, ModelSpec(name=model, args=args), small._replace(lr=lr))
    if products is None:
        cost = costs.network_cost(
            data, stage, products=SMALL_PRODUCTS, networks=40, steps=small.steps, kept=SMALL_KEPT
        )
        return Recipe(name=f"{label}/{data}", stages=(stage,), cost=cost, source=OWN_COLUMN)
    # The exact trace of an image takes a pass for each pixel.
    stage = stage.model_copy(
        update={
            "objective": ObjectiveSpec(args={"trace": "estimate"}),
            "validation": stage.validation.model_copy(update={"trace": "estimate"}),
        }
    )
    return Recipe(
        name=f"{label}/{data}",
        stages=(stage,),
        evaluation=EvaluationSpec(model_overrides={"solver": "dopri5"}, batch_size=250),
        cost=costs.ode_cost(
            data,
            stage,
            products=products,
            evaluations=8,
            steps=small.ffjord_steps,
            kept=SMALL_KEPT,
            tested=EVALUATIONS,
        ),
        source=OWN_COLUMN,
        notes=("tested with the exact trace, and dopri5 at tolerances of 1e-5",),
    )
