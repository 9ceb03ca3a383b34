"""Refusals of declarations of an adversarial game, before anything is trained."""

from __future__ import annotations

from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import AdversarialGame
from dgm_bench.spec import Stage


def require_classes(stage: Stage, model: nn.Module, data: Dataset) -> None:
    """Refuse batches with classes of data that have none, or for a game that is told of none.

    Raises:
        DeclarationError: They are asked for and not there, or the reverse.
    """
    thing = f"data.with_classes={stage.data.with_classes}"
    if stage.data.with_classes and not data.labels:
        raise DeclarationError(thing, f"{data.name} has no classes", "leave it out")
    if not isinstance(model, AdversarialGame):
        return
    wanted = model.classes is not None
    if wanted != stage.data.with_classes:
        name = type(model).__name__
        reason = f"{name} is told of {model.classes or 'no'} classes"
        remedy = "set it" if wanted else "leave it out, or give the model's classes"
        raise DeclarationError(thing, reason, remedy)
    if wanted and model.classes != len(data.classes):
        reason = f"{data.name} has {len(data.classes)} classes"
        raise DeclarationError(f"classes={model.classes}", reason, "give the model as many")


def require_players(stage: Stage, model: nn.Module) -> None:
    """Refuse a rule for a discriminator that cannot be followed.

    Raises:
        DeclarationError: The model has none, or its optimiser differs in more than may differ.
    """
    own, common = stage.discriminator, stage.optimizer
    if own is None:
        return
    if not isinstance(model, AdversarialGame):
        reason = f"{type(model).__name__} has no such player"
        raise DeclarationError("discriminator", reason, "leave it out")
    if (own.name, own.eps) != (common.name, common.eps) or not common.lr:
        reason = "differs from the generator's optimiser in more than rate, betas and weight decay"
        raise DeclarationError("discriminator", reason, "give both the same name and eps")
