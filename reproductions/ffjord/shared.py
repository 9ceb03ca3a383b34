"""What the recipes of all rows share: the settings of columns that no paper has, and costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from dgm_bench.data import card
from dgm_bench.spec import (
    Cost,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

IMAGES = ("mnist", "cifar10")
TABLES = ("power", "gas", "hepmass", "miniboone", "bsds300", "bsds300-patches")

SMALL_SOURCE = "chosen for this project: no paper has this column"

# --------------------------------------------------------------------------- our columns


class SmallSetting(NamedTuple):
    """What converges within about a minute on one core, for a column that no paper has.

    ``steps`` and ``ffjord_steps`` are what the stopping rule was seen to take, for the cost;
    ``max_steps`` only guards against a run that never stops improving.
    """

    hidden: tuple[int, ...]
    batch_size: int
    lr: float
    every: int
    steps: int
    ffjord_hidden: tuple[int, ...]
    ffjord_steps: int
    ffjord_lr: float = 5e-3
    ffjord_every: int = 50
    patience: int = 4
    drops: tuple[int, ...] = (1, 2)
    max_steps: int = 20_000
    ffjord_max_steps: int = 4_000


#: In 43 dimensions and more, 64 units leave a continuous flow short of what it can do.
LARGE_ORACLE: dict[str, Any] = {
    "ffjord_hidden": (256, 256),
    "ffjord_lr": 2e-3,
    "ffjord_every": 200,
    "ffjord_steps": 5_000,
    "ffjord_max_steps": 6_000,
}


def small_setting(data: str) -> SmallSetting | None:
    """Return the setting of one of our columns; None for a column of the papers."""
    if data == "digits":
        return SmallSetting((128,), 128, 1e-3, 50, 1_000, (128, 128), 2_200)
    if data.startswith("oracle-"):
        setting = SmallSetting((128,), 256, 2e-3, 200, 7_000, (64, 64), 2_800)
        return setting if card(data).dim < 43 else setting._replace(**LARGE_ORACLE)
    if card(data).dim == 2:
        return SmallSetting((64, 64), 256, 2e-3, 100, 3_000, (64, 64), 2_000)
    return None


def required_setting(data: str) -> SmallSetting:
    """Return the setting of one of our columns.

    Raises:
        ValueError: It is no column of ours.
    """
    small = small_setting(data)
    if small is None:
        raise ValueError(f"{data} is no column of ours")
    return small


def small_stage(data: str, model: str, args: dict[str, Any], small: SmallSetting) -> Stage:
    """Return a stage that trains to convergence on one of our columns."""
    return Stage(
        data=flat_data(data),
        model=ModelSpec(name=model, args=args),
        optimizer=OptimizerSpec(lr=small.lr),
        schedule=ScheduleSpec(drops=small.drops),
        batch_size=small.batch_size,
        validation=ValidationSpec(every=small.every, unit="steps"),
        stopping=StoppingSpec(patience=small.patience, max_steps=small.max_steps),
    )


# --------------------------------------------------------------------------- data


def flat_data(data: str) -> DataSpec:
    """Return the data set, images in the MAF paper's convention."""
    return DataSpec(name=data, args={"convention": "maf"} if data in IMAGES else {})


def pixel_data(data: str) -> DataSpec:
    """Return the data set, images in the FFJORD paper's convention: pixels with fresh noise."""
    return DataSpec(name=data, args={"convention": "ffjord"} if data in IMAGES else {})


def image_shape(data: str) -> list[int] | None:
    """Return what a convolving model has to be told; None where examples are images already."""
    return None if data in IMAGES else list(card(data).event_shape)


# --------------------------------------------------------------------------- cost

# Tensor operations of a training step, counted by hand: a masked network with its affine map,
# batch normalisation, gradients and optimiser; one evaluation of a continuous flow's dynamics.
LAUNCHES_PER_NETWORK = 60
LAUNCHES_PER_EVALUATION = 100


def weights(widths: tuple[int, ...]) -> int:
    """Return the number of weights of a fully connected network."""
    return sum(inputs * outputs for inputs, outputs in pairwise(widths))


def examples(data: str) -> int:
    """Return the number of examples of all splits."""
    return sum(card(data).sizes.values())


def memory(data: str, weights: int, batch_numbers: int) -> int:
    """Return bytes: the process, the data, weights with gradient and moments, and a batch."""
    numbers = examples(data) * card(data).dim + 6 * weights + batch_numbers
    return 500_000_000 + 4 * numbers


def cost(
    data: str,
    stage: Stage,
    *,
    products: int,
    networks: int,
    steps: int,
    kept: int,
    weights: int | None = None,
    calibrates: bool = False,
) -> Cost:
    """Count 6 operations per product and example in training, and 2 in each pass after it.

    Args:
        data: The data set.
        stage: The stage of training.
        products: Multiplications in one pass of one example: the weights, where none is shared.
        networks: Networks of the model, for the number of tensor operations.
        steps: Expected steps.
        kept: Numbers that training keeps for one example.
        weights: Weights of the model, where they are not the products.
        calibrates: Whether each validation looks at the whole training set first.
    """
    sizes = card(data).sizes
    seen = sizes["val"] + (sizes["train"] if calibrates else 0)
    looks = 2.0 * products * seen / _steps_between_validations(data, stage)
    return Cost(
        steps=steps,
        flops_per_step=6.0 * products * stage.batch_size + looks,
        launches_per_step=LAUNCHES_PER_NETWORK * networks,
        evaluation_flops=2.0 * products * (sizes["test"] + (sizes["train"] if calibrates else 0)),
        memory_bytes=memory(data, weights or products, stage.batch_size * kept),
    )


def bilinear(stage: Stage) -> bool:
    """Say whether the dynamics have the two hidden layers that make their exact trace cheap."""
    return len(stage.model.args.get("hidden", ())) == 2


def _steps_between_validations(data: str, stage: Stage) -> float:
    per_epoch = card(data).sizes["train"] / stage.batch_size
    return stage.validation.every * (per_epoch if stage.validation.unit == "epochs" else 1.0)


def ode_cost(
    data: str,
    stage: Stage,
    *,
    products: int,
    evaluations: int,
    steps: int,
    kept: int,
    weights: int | None = None,
    tested: int | None = None,
) -> Cost:
    """Count 4 operations per product and example to evaluate dynamics and an estimated trace.

    The gradient takes 12 more. The exact trace takes 2 per dimension, unless it is bilinear.

    Args:
        data: The data set.
        stage: The stage of training.
        products: Multiplications in one evaluation of one flow's dynamics for one example.
        evaluations: Of the dynamics in one pass through all flows.
        steps: Expected steps.
        kept: Numbers that training keeps for one example.
        weights: Weights of the model, where they are not the products.
        tested: Evaluations of the dynamics in one pass after training, where they are others.
    """
    dim, sizes = card(data).dim, card(data).sizes
    tested = evaluations if tested is None else tested
    # With two hidden layers the exact trace is a product of the weights and costs one pass more.
    by_trace = {"exact": 4.0 if bilinear(stage) else 2.0 + 2.0 * dim, "estimate": 4.0}
    looks = by_trace[stage.validation.trace] * products * evaluations * sizes["val"]
    validation = looks / _steps_between_validations(data, stage)
    traced = by_trace["estimate" if data in IMAGES else "exact"]
    return Cost(
        steps=steps,
        flops_per_step=16.0 * products * evaluations * stage.batch_size + validation,
        launches_per_step=LAUNCHES_PER_EVALUATION * evaluations,
        evaluation_flops=traced * products * tested * sizes["test"],
        memory_bytes=memory(data, weights or products, stage.batch_size * kept),
    )
