"""The combinations of training options that recipes use, made small enough for the tiny model."""

from __future__ import annotations

from typing import get_args

from train.tiny import Traits

from dgm_bench.catalog import load_catalog
from dgm_bench.models.build import model_class
from dgm_bench.spec import (
    DataSpec,
    LastBatch,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train.optimizers import OPTIMIZERS

Combination = tuple[Stage, Traits]


def used_combinations() -> dict[str, Combination]:
    """Return each combination once, by the first recipe and stage that has it."""
    recipes = {c.recipe.content_hash: (c.id, c.recipe) for c in load_catalog().cells if c.recipe}
    found: dict[tuple[str, Traits], tuple[str, Stage]] = {}
    for cell, recipe in recipes.values():
        for stage in recipe.stages:
            small, traits = shrunk(stage), Traits.of(model_class(stage.model.name))
            found.setdefault((small.model_dump_json(), traits), (f"{cell}:{stage.name}", small))
    return {name: (stage, traits) for (_, traits), (name, stage) in found.items()}


def shrunk(stage: Stage) -> Stage:
    """Return a stage of the same options, with values for a run of about a dozen short steps."""
    return stage.model_copy(
        update={
            "name": "train",
            "data": DataSpec(name="tiny"),
            "model": ModelSpec(name="tiny"),
            "objective": _objective(stage.objective),
            "optimizer": _optimizer(stage.optimizer),
            # The tiny model has one player; rules of a second are tested in test_adversarial.py.
            "discriminator": None,
            "schedule": _schedule(stage.schedule),
            "validation": _validation(stage.validation),
            "stopping": _stopping(stage),
            "batch_size": 5,
            "average_decay": None if stage.average_decay is None else 0.8,
            "clip_norm": None if stage.clip_norm is None else 2.5,
            # Numbers are compared closely; float32 is one of the further combinations.
            "precision": "float64" if stage.precision == "float32" else stage.precision,
        }
    )


def _objective(spec: ObjectiveSpec) -> ObjectiveSpec:
    if spec.name == "nll" or spec == ObjectiveSpec(name="elbo"):
        return spec
    if spec.name == "warmed-elbo":
        return ObjectiveSpec(name=spec.name, args={"warmup_epochs": 3, "steps_per_epoch": 3})
    return ObjectiveSpec(name="probe")


def _optimizer(spec: OptimizerSpec) -> OptimizerSpec:
    rate = {"sgd-momentum": 0.01, "adamax": 0.8}.get(spec.name, 0.3)
    decay = 0.2 if spec.weight_decay else 0.0
    return spec.model_copy(update={"lr": rate, "weight_decay": decay})


def _schedule(spec: ScheduleSpec) -> ScheduleSpec:
    return spec.model_copy(
        update={
            "drops": tuple(range(1, len(spec.drops) + 1)),
            "warmup_steps": 3 if spec.warmup_steps else 0,
            "milestones": tuple(range(4, 4 + 2 * len(spec.milestones), 2)),
            "cosine_steps": None if spec.cosine_steps is None else 8,
            "decay": 1.0 if spec.decay == 1 else 0.9,
        }
    )


def _validation(spec: ValidationSpec) -> ValidationSpec:
    return spec.model_copy(update={"every": min(spec.every, 2), "batch_size": 3})


def _stopping(stage: Stage) -> StoppingSpec:
    spec, patience = stage.stopping, len(stage.schedule.drops) + 1
    return spec.model_copy(
        update={
            "patience": None if spec.patience is None else patience,
            "patience_from": 5 if spec.patience_from else 0,
            "max_epochs": None if spec.max_epochs is None else 7,
            "max_steps": spec.max_steps and 16,
        }
    )


def further_combinations() -> dict[str, Combination]:
    """Return what no recipe has, and what only other numbers than those of :func:`shrunk` show."""
    base = Stage(
        data=DataSpec(name="tiny"),
        model=ModelSpec(name="tiny"),
        optimizer=OptimizerSpec(lr=0.3),
        batch_size=5,
        validation=ValidationSpec(every=2, unit="steps", batch_size=3),
        stopping=StoppingSpec(max_steps=14),
        precision="float64",
    )
    options = {
        "all that a rate can do": {
            "optimizer": OptimizerSpec(lr=0.3, weight_decay=0.2),
            "schedule": ScheduleSpec(
                drops=(0, 2), factor=0.5, warmup_steps=4, milestones=(3, 9), cosine_steps=12,
                cosine_floor=0.1,
            ),
            "average_decay": 0.7,
            "clip_norm": 3.0,
        },
        "equal validations": {
            "optimizer": OptimizerSpec(lr=0.0),
            "stopping": StoppingSpec(patience=2),
        },
        "no step": {"stopping": StoppingSpec(max_steps=0), "average_decay": 0.7},
        "larger batch than data": {"batch_size": 50},
        "float32": {"precision": "float32", "average_decay": 0.7, "clip_norm": 3.0},
    }  # fmt: skip
    every = Traits(calibrates=True, decays=True, initialises=True)
    found = {name: (base.model_copy(update=changes), every) for name, changes in options.items()}
    for name in OPTIMIZERS:
        rule = OptimizerSpec(name=name, lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2)
        found[name] = (base.model_copy(update={"optimizer": rule}), Traits(decays=True))
    for kept in get_args(LastBatch):
        found[f"last batch: {kept}"] = (base.model_copy(update={"last_batch": kept}), Traits())
    return found
