"""What recipes are expected to take: operations, tensor operations and bytes, counted by hand.

A product is a multiplication with the addition after it. Recipes count the products of their
models; all that follows from them is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from dgm_bench.data import card
from dgm_bench.spec import Cost, Stage

#: Operations per product and example: one pass, and a step of training, whose gradients take two
#: passes more.
PASS, TRAINING = 2.0, 6.0
#: To evaluate dynamics with an estimate of their trace, and with the gradients of both.
TRACED_PASS, TRACED_TRAINING = 4.0, 16.0

#: Tensor operations of a training step: a masked network with its affine map, batch
#: normalisation, gradients and optimiser; one evaluation of a continuous flow's dynamics.
LAUNCHES_PER_NETWORK, LAUNCHES_PER_EVALUATION = 60, 100

#: Bytes of a process with torch in it.
PROCESS_BYTES = 500_000_000
#: Bytes of a number in single precision, and as how many numbers a weight counts, with its
#: gradient and moments.
NUMBER_BYTES, NUMBERS_PER_WEIGHT = 4, 6

#: Of a model of two dimensions: operations of a step and of its evaluation, weights, and numbers
#: kept for each dimension.
SMALL_STEP, SMALL_EVALUATION, SMALL_WEIGHTS, SMALL_KEPT = 1e8, 5e11, 10_000, 10_000


def weights(widths: Sequence[int]) -> int:
    """Return the number of weights of a fully connected network: the products of one pass."""
    return sum(inputs * outputs for inputs, outputs in pairwise(widths))


def examples(data: str) -> int:
    """Return the number of examples of all splits."""
    return sum(card(data).sizes.values())


def memory(data: str, weights: int, batch_numbers: int = 0, extra_bytes: int = 0) -> int:
    """Return bytes: the process, the data, weights with gradient and moments, and a batch."""
    numbers = examples(data) * card(data).dim + NUMBERS_PER_WEIGHT * weights + batch_numbers
    return PROCESS_BYTES + NUMBER_BYTES * numbers + extra_bytes


def small_cost(data: str, steps: int, launches: int) -> Cost:
    """Return the cost of a small model of two dimensions, whatever its kind."""
    return Cost(
        steps=steps,
        flops_per_step=SMALL_STEP,
        launches_per_step=launches,
        evaluation_flops=SMALL_EVALUATION,
        memory_bytes=memory(data, SMALL_WEIGHTS, SMALL_KEPT * card(data).dim),
        weights=SMALL_WEIGHTS,
    )


def dvae_products(event_shape: Sequence[int], args: Mapping[str, Any]) -> float:
    """Return the products of a discrete VAE for an image: as many in each group of a network."""
    channels, height, width = event_shape
    groups, hidden = 2 * (args["poolings"] + 1), args["hidden"]
    blocks = groups * args["blocks"] * 3.6 * hidden**2
    return float(height * width * (blocks + 49 * channels * hidden))


def transformer_products(tokens: int, width: int, depth: int, classes: int) -> float:
    """Return the products of a transformer over so many tokens, each one of ``classes``."""
    blocks = depth * (12 * width**2 + 2 * tokens * width)
    return float(tokens * (blocks + width * classes))


def network_cost(
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
    """Return the cost of a model that is evaluated in one pass.

    Args:
        data: The data set.
        stage: The stage of training.
        products: In one pass of one example: the weights, where none is shared.
        networks: Networks of the model, for the number of tensor operations.
        steps: Expected steps.
        kept: Numbers that training keeps for one example.
        weights: Weights of the model, where they are not the products.
        calibrates: Whether each validation looks at the whole training set first.
    """
    sizes = card(data).sizes
    calibration = sizes["train"] if calibrates else 0
    validation = PASS * products * (sizes["val"] + calibration)
    return Cost(
        steps=steps,
        flops_per_step=TRAINING * products * stage.batch_size
        + validation / _steps_between_validations(data, stage),
        launches_per_step=LAUNCHES_PER_NETWORK * networks,
        evaluation_flops=PASS * products * (sizes["test"] + calibration),
        memory_bytes=memory(data, weights or products, stage.batch_size * kept),
        weights=weights or products,
    )


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
    exact: bool = True,
) -> Cost:
    """Return the cost of a continuous flow.

    An exact trace takes a product per dimension, or one pass more where the dynamics have two
    hidden layers and it is a product of the weights.

    Args:
        data: The data set.
        stage: The stage of training.
        products: In one evaluation of one flow's dynamics for one example.
        evaluations: Of the dynamics in one pass through all flows.
        steps: Expected steps.
        kept: Numbers that training keeps for one example.
        weights: Weights of the model, where they are not the products.
        tested: Evaluations of the dynamics in one pass after training, where they are others.
        exact: Whether the test takes the exact trace.
    """
    dim, sizes = card(data).dim, card(data).sizes
    tested = evaluations if tested is None else tested
    two_hidden = len(stage.model.args.get("hidden", ())) == 2
    passes = {"exact": TRACED_PASS if two_hidden else PASS + PASS * dim, "estimate": TRACED_PASS}
    looks = passes[stage.validation.trace] * products * evaluations * sizes["val"]
    return Cost(
        steps=steps,
        flops_per_step=TRACED_TRAINING * products * evaluations * stage.batch_size
        + looks / _steps_between_validations(data, stage),
        launches_per_step=LAUNCHES_PER_EVALUATION * evaluations,
        evaluation_flops=passes["exact" if exact else "estimate"]
        * products
        * tested
        * sizes["test"],
        memory_bytes=memory(data, weights or products, stage.batch_size * kept),
        weights=weights or products,
    )


def _steps_between_validations(data: str, stage: Stage) -> float:
    per_epoch = card(data).sizes["train"] / stage.batch_size
    return stage.validation.every * (per_epoch if stage.validation.unit == "epochs" else 1.0)
