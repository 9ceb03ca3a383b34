"""Recipes of the networks that classify digits in neural ODEs' Table 1."""

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

#: Chen et al. (2018), Table 1 and section 3; what it leaves open from the released code
#: (torchdiffeq, examples/odenet_mnist.py): SGD with momentum 0.9 and rate 0.1 in batches of 128,
#: without weight decay, for 160 epochs, a tenth of the rate after 60, 100 and 140 of them; a
#: tolerance of 1e-3. Digits, which are ours, have half the channels and half the epochs.
SOURCE = "Chen et al. 2018, Table 1; released code, examples/odenet_mnist.py"
BATCH, RATE, TOLERANCE = 128, 0.1, 1e-3
EPOCHS = {"mnist-classes": 160, "digits-classes": 80}
#: Parts of the epochs after which the rate drops.
DROPS = (60 / 160, 100 / 160, 140 / 160)
CHANNELS = {"mnist-classes": 64, "digits-classes": 32}
SHAPES = {"mnist-classes": [1, 28, 28], "digits-classes": [1, 8, 8]}
BLOCKS, HIDDEN = 6, 300
MEASURED = ("classification", "gradient-costs")


def perceptron(data: str, epochs: int | None = None) -> Recipe:
    """One hidden layer of 300 units: 0.24 million parameters on MNIST.

    Args:
        data: The data set.
        epochs: Where they are not those of the set.
    """
    model = ModelSpec(
        name="classifiers:Perceptron", args={"image_shape": SHAPES[data], "hidden": [HIDDEN]}
    )
    notes = (
        "the source says nothing of its training: that of the other rows, on images as they are; "
        "the 1.6 % are of images of 20x20 that were deslanted (LeCun et al. 1998, figure 9)",
    )
    args = {"shifts": "none"} if "shifts" in card(data).options else {}
    first = (card(data).dim - 1) * HIDDEN
    # No gradient goes to the images.
    work = _Work(TRAINING * (2 / 3 * first + 10 * HIDDEN), first + 10 * HIDDEN, 24)
    named = f"perceptron/{data}"
    return _recipe(named, DataSpec(name=data, args=args), model, MEASURED, work, epochs, notes)


def residual(data: str, epochs: int | None = None) -> Recipe:
    """Two blocks of stride 2 and six blocks: 0.60 million parameters.

    Args:
        data: The data set.
        epochs: Where they are not those of the set.
    """
    model = ModelSpec(name="classifiers:ResidualNetwork", args={**_shared(data), "blocks": BLOCKS})
    products = _down(data) + BLOCKS * _block(data)
    work = _Work(TRAINING * products, products, LAUNCHES * (DOWN_LAYERS + 2 * BLOCKS))
    return _recipe(f"residual/{data}", DataSpec(name=data), model, MEASURED, work, epochs)


def ode(data: str, adjoint: bool, epochs: int | None = None) -> Recipe:
    """One equation in place of the six blocks.

    Args:
        data: The data set.
        adjoint: Gradients by the adjoint equation, or through the solver's steps.
        epochs: Where they are not those of the set.
    """
    solver = {
        "solver": "dopri5",
        "rtol": TOLERANCE,
        "atol": TOLERANCE,
        "step_size": None,
        "adjoint": adjoint,
    }
    model = ModelSpec(name="classifiers:ODENetwork", args={**_shared(data), **solver})
    solved = EVALUATIONS * _block(data)
    # The adjoint equation computes the dynamics anew on the way back.
    training = TRAINING * (_down(data) + solved) + (costs.PASS * CONVOLUTION * solved * adjoint)
    layers = DOWN_LAYERS + 2 * EVALUATIONS * (ADJOINT if adjoint else 1)
    work = _Work(training, _down(data) + solved, int(LAUNCHES * layers), looks=LOOKS)
    named, metrics = "ode-net" if adjoint else "rk-net", (*MEASURED, "tolerances")
    return _recipe(f"{named}/{data}", DataSpec(name=data), model, metrics, work, epochs)


def _shared(data: str) -> dict[str, Any]:
    return {
        "image_shape": SHAPES[data],
        "channels": CHANNELS[data],
        "downsampling": "residual",
    }


# ----------------------------------------------------------------------------- cost

#: Operations of a product, in units of those of the matrices by which the planner knows a
#: machine, as steps on a CPU took: convolutions are up to twice as fast.
CONVOLUTION = 0.5
TRAINING = CONVOLUTION * costs.TRAINING
#: Tensor operations that take as long as one small layer with its gradients, and layers besides
#: the blocks.
LAUNCHES, DOWN_LAYERS = 100, 8
#: Evaluations of the dynamics in one pass, as first steps have them; how many times as long they
#: take with the adjoint equation; and how many times as many all tolerances of the test have.
EVALUATIONS, ADJOINT, LOOKS = 26, 1.4, 7
#: About as many as the largest of the networks has.
WEIGHTS = 600_000


class _Work(NamedTuple):
    """What one step takes of each image, and altogether.

    Attributes:
        training: Operations of each image.
        products: Of each image's pass, with no gradient.
        launches: Of a step.
        looks: Passes through the test images after training.
    """

    training: float
    products: int
    launches: int
    looks: int = 1


def _recipe(
    name: str,
    data: DataSpec,
    model: ModelSpec,
    metrics: tuple[str, ...],
    work: _Work,
    epochs: int | None,
    notes: tuple[str, ...] = (),
) -> Recipe:
    """Return a recipe; ``notes`` are what is known to differ from the source besides."""
    given, per_epoch = epochs or EPOCHS[data.name], card(data.name).sizes["train"] // BATCH
    stage = Stage(
        data=data,
        model=model,
        objective=ObjectiveSpec(name="classification"),
        optimizer=OptimizerSpec(name="sgd-momentum", lr=RATE, betas=(0.9, 0.999)),
        schedule=ScheduleSpec(
            milestones=tuple(int(part * given) * per_epoch for part in DROPS), factor=0.1
        ),
        batch_size=BATCH,
        validation=ValidationSpec(every=1, unit="epochs", batch_size=1_000),
        stopping=StoppingSpec(max_epochs=given),
    )
    return Recipe(
        name=name if epochs is None else f"{name}/{epochs}-epochs",
        stages=(stage,),
        evaluation=EvaluationSpec(metrics=metrics, checkpoint="last", batch_size=1_000),
        cost=_cost(data.name, given * per_epoch, per_epoch, work),
        source=SOURCE,
        notes=("the last parameters are evaluated; the code keeps the best on the test", *notes),
    )


def _sides(data: str) -> tuple[int, int, int]:
    """Return the side of the image after the first convolution, and after each halving."""
    first = SHAPES[data][1] - 2
    second = (first + 1) // 2
    return first, second, (second + 1) // 2


def _block(data: str) -> int:
    """Return the products of the two convolutions of a block."""
    return int(2 * 9 * CHANNELS[data] ** 2 * _sides(data)[2] ** 2)


def _down(data: str) -> int:
    """Return the products of downsampling."""
    first, second, third = _sides(data)
    channels = CHANNELS[data]
    halving = (9 + 9 + 1) * channels**2 * (second**2 + third**2)
    return int(9 * channels * first**2 + halving)


def _cost(data: str, steps: int, per_epoch: int, work: _Work) -> Cost:
    sizes, one_pass = card(data).sizes, costs.PASS * CONVOLUTION * work.products
    kept = 6 * CHANNELS[data] * sum(side**2 for side in _sides(data))
    return Cost(
        steps=steps,
        flops_per_step=work.training * BATCH
        + one_pass * sizes.get("val", sizes["test"]) / per_epoch,
        launches_per_step=work.launches,
        evaluation_flops=work.looks * one_pass * sizes["test"],
        memory_bytes=costs.memory(data, WEIGHTS, kept * 1_000),
        weights=WEIGHTS,
    )
