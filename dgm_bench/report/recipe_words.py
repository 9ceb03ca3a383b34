"""A recipe in words: data, model, objective, optimiser, stop and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dgm_bench.data.cards import DatasetCard
from dgm_bench.spec import EvaluationSpec, Recipe, Stage, ValidationSpec
from dgm_bench.wording import counted

Line = tuple[str, str]


def recipe_in_words(recipe: Recipe, cards: Mapping[str, DatasetCard]) -> Iterator[Line]:
    """Yield what a recipe does, line by line, each with what it is about.

    Args:
        recipe: Whose stages come one after the other.
        cards: Of the data sets, by name.
    """
    for stage in recipe.stages:
        name = f" ({stage.name})" if len(recipe.stages) > 1 else ""
        yield f"data{name}", _data(stage, cards)
        yield "model", _model(stage)
        if stage.stopping.max_steps != 0:
            yield "objective", _called(stage.objective.name, stage.objective.args)
            yield "optimiser", _optimiser(stage)
            yield "stop", _stop(stage)
    yield "evaluation", _evaluation(recipe.evaluation)
    if recipe.source:
        yield "recipe of", recipe.source
    for note in recipe.notes:
        yield "note", note


def _data(stage: Stage, cards: Mapping[str, DatasetCard]) -> str:
    if stage.data.codes_of:
        return f"the codes that stage {stage.data.codes_of} gives the images"
    card, name = cards.get(stage.data.name), _called(stage.data.name, stage.data.args)
    if card is None:
        return name
    sizes = ", ".join(f"{size:,} {split}" for split, size in card.sizes.items() if size)
    shape = " x ".join(map(str, card.event_shape))
    classes = ", and the class of each" if stage.data.with_classes else ""
    return f"{name}: {card.title}; {sizes}; examples of {shape}{classes}"


def _model(stage: Stage) -> str:
    name = _called(stage.model.name.partition(":")[2], stage.model.args)
    exact = "" if stage.precision == "float32" else f", in {stage.precision}"
    return f"{name}{exact}" + ("" if stage.stopping.max_steps != 0 else ", fitted without training")


def _optimiser(stage: Stage) -> str:
    optimizer, schedule = stage.optimizer, stage.schedule
    parts = [f"{optimizer.name}, learning rate {optimizer.lr:g}"]
    if stage.discriminator is not None:
        parts.append(f"of the discriminator {stage.discriminator.lr:g}")
    if optimizer.weight_decay:
        parts.append(f"weight decay {optimizer.weight_decay:g}")
    parts.append(f"batches of {stage.batch_size:,}")
    if schedule.warmup_steps:
        parts.append(f"warm-up over {schedule.warmup_steps:,} steps")
    if schedule.drops or schedule.milestones:
        drops = counted(len(schedule.drops or schedule.milestones), "drop")
        parts.append(f"{drops} of the rate to {schedule.factor:g} of it")
    if schedule.cosine_steps:
        parts.append(f"cosine over {schedule.cosine_steps:,} steps")
    if schedule.decay < 1:
        parts.append(f"times {schedule.decay} a step")
    if stage.clip_norm:
        parts.append(f"gradients clipped at {stage.clip_norm:g}")
    if stage.average_decay:
        parts.append(f"weights averaged, decay {stage.average_decay:g}")
    return ", ".join(parts)


def _stop(stage: Stage) -> str:
    stop, parts = stage.stopping, []
    if stop.patience is not None:
        bad = counted(stop.patience, "validation")
        parts.append(f"after more than {bad} ({_every(stage.validation)}) without improvement")
    if stop.max_epochs is not None:
        parts.append(f"after {counted(stop.max_epochs, 'epoch')}")
    if stop.max_steps is not None:
        parts.append(f"after {stop.max_steps:,} steps")
    return " or ".join(parts) or "never by itself"


def _every(validation: ValidationSpec) -> str:
    number, unit = validation.every, validation.unit
    return f"every {unit.removesuffix('s')}" if number == 1 else f"every {number:,} {unit}"


def _evaluation(evaluation: EvaluationSpec) -> str:
    parts = [f"{', '.join(evaluation.metrics)} on {evaluation.split}"]
    parts.append(f"with the {evaluation.checkpoint} checkpoint")
    if evaluation.importance_samples:
        parts.append(f"{evaluation.importance_samples:,} importance samples")
    if evaluation.judge is not None:
        parts.append(f"{evaluation.judge.samples:,} images drawn")
    return ", ".join(parts)


def _called(name: str, args: Mapping[str, Any]) -> str:
    """Return a name with its arguments; those that are off are left out."""
    told = [f"{key} {_plain(value)}" for key, value in args.items() if value not in (None, {}, "")]
    return f"{name} ({', '.join(told)})" if told else name


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "-".join(map(_plain, value))
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_plain(part)}' for key, part in value.items())})"
    return f"{value:g}" if isinstance(value, float) else str(value)
