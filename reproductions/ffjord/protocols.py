"""How the rows of vectors are trained: one function for the protocol of each source."""

from __future__ import annotations

from typing import Literal

from dgm_bench.spec import (
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)

from .shared import IMAGES, SmallSetting, flat_data, last_batch

LIKELIHOOD = ObjectiveSpec()
#: Columns whose stored runs had one epoch more of patience than the MAF code; it changed no number.
ONE_EPOCH_LATER = ("mnist", "bsds300-patches")


def maf_stage(data: str, model: ModelSpec, lr: float) -> Stage:
    """Return the protocol of the MAF paper.

    Batches of 100, Adam with weight decay 1e-6, and the best parameters by a validation each
    epoch, until 30 epochs bring no better one (released code: trainers.py, step_strategies.py,
    data_streams.py).
    """
    return Stage(
        data=flat_data(data),
        model=model,
        optimizer=OptimizerSpec(name="adam-maf", lr=lr, weight_decay=1e-6),
        batch_size=100,
        validation=ValidationSpec(
            every=1, unit="epochs", batch_size=1_000 if data in IMAGES else 10_000
        ),
        # The code stops at the 30th epoch without a better one, not after it (trainers.py).
        stopping=StoppingSpec(patience=30 if data in ONE_EPOCH_LATER else 29),
        last_batch=last_batch(data, 100, "wrap"),
    )


def ffjord_stage(
    data: str,
    model: ModelSpec,
    optimizer: OptimizerSpec,
    batch_size: int,
    *,
    objective: ObjectiveSpec = LIKELIHOOD,
    trace: Literal["exact", "estimate"] = "exact",
    validation_batch: int = 10_000,
) -> Stage:
    """Return the protocol of FFJORD's tables (released code: train_tabular.py).

    Validated every 200 steps; a tenth of the learning rate after 10 validations without
    improvement and a hundredth after 20, until 30 bring none.

    Args:
        data: The column's data set.
        model: The model.
        optimizer: Of the first validations.
        batch_size: Examples at a time in training.
        objective: What is trained.
        trace: How validations compute the trace of a continuous flow.
        validation_batch: Examples at a time in validations.
    """
    return Stage(
        data=flat_data(data),
        model=model,
        objective=objective,
        optimizer=optimizer,
        schedule=ScheduleSpec(drops=(10, 20)),
        batch_size=batch_size,
        validation=ValidationSpec(
            every=200, unit="steps", trace=trace, batch_size=validation_batch
        ),
        stopping=StoppingSpec(patience=30),
        last_batch=last_batch(data, batch_size, "use"),
    )


def small_stage(
    data: str,
    model: ModelSpec,
    small: SmallSetting,
    *,
    objective: ObjectiveSpec = LIKELIHOOD,
    weight_decay: float = 0.0,
) -> Stage:
    """Return a stage that trains to convergence on one of our columns, as FFJORD's tables do."""
    return Stage(
        data=flat_data(data),
        model=model,
        objective=objective,
        optimizer=OptimizerSpec(lr=small.lr, weight_decay=weight_decay),
        schedule=ScheduleSpec(drops=small.drops),
        batch_size=small.batch_size,
        validation=ValidationSpec(every=small.every, unit="steps"),
        stopping=StoppingSpec(patience=small.patience, max_steps=small.max_steps),
    )


def brief_stage(
    data: str,
    model: ModelSpec,
    optimizer: OptimizerSpec,
    steps: int,
    objective: ObjectiveSpec = LIKELIHOOD,
) -> Stage:
    """Return a fixed number of steps on a 2-D density, validated ten times; no paper's protocol."""
    return Stage(
        data=flat_data(data),
        model=model,
        objective=objective,
        optimizer=optimizer,
        batch_size=256,
        validation=ValidationSpec(every=steps // 10, unit="steps"),
        stopping=StoppingSpec(max_steps=steps),
    )
