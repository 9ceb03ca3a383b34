"""Whether the arguments that a recipe names are what models, objectives and data sets take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dgm_bench import data
from dgm_bench.arguments import ArgumentError, fitted, known_arguments
from dgm_bench.errors import choose_from, require_choice
from dgm_bench.models.arguments import fitted_model, model_definition
from dgm_bench.signatures import module
from dgm_bench.spec import DataSpec, ObjectiveSpec, Recipe, Stage

#: Parts of a stage that have arguments.
Part = Literal["model", "data", "objective"]
PARTS: tuple[Part, ...] = ("model", "data", "objective")


def require_arguments(recipe: Recipe) -> None:
    """Refuse a recipe with arguments that nobody takes, or of another type or size.

    Nothing is imported that takes long, and nothing built.

    Raises:
        DeclarationError: A model, objective or optimiser is not known, or an argument does not fit.
        UsageError: There is no data set of that name.
    """
    for stage in recipe.stages:
        require_choice("optimizer", stage.optimizer.name, _optimizers())
        for part in PARTS:
            fitted_args(stage, part)
    fitted_overrides(recipe.evaluation.model_overrides)


def fitted_args(stage: Stage, part: Part) -> dict[str, Any]:
    """Return the arguments of a part of a stage as they are annotated; see ``arguments.fitted``.

    Raises:
        DeclarationError: As :func:`require_arguments`.
    """
    try:
        if part == "model":
            return fitted_model(stage.model)
        return _options(stage.data) if part == "data" else _objective_args(stage.objective)
    except ArgumentError as error:
        raise error.below(f"{part}.args") from error


def fitted_overrides(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return ``evaluation.model_overrides`` as the solver's settings are annotated.

    Raises:
        ArgumentError: One is none, or does not fit.
    """
    try:
        return fitted(module("dgm_bench.models.continuous.solver")["Overrides"], overrides)
    except ArgumentError as error:
        raise error.below("evaluation.model_overrides") from error


def known_args(part: str, name: str) -> list[str]:
    """Return names of arguments.

    Args:
        part: One of :data:`PARTS`, or ``evaluation`` for the settings of the solver.
        name: Of the model, data set or objective.

    Raises:
        DeclarationError: There is none of that name.
        UsageError: There is no data set of that name.
    """
    if part == "data":
        return list(data.card(name).options)
    if part == "evaluation":
        return list(known_arguments(module("dgm_bench.models.continuous.solver")["Overrides"]))
    make = model_definition(name) if part == "model" else _objective(name)
    return list(known_arguments(make, ("event_shape", "data_root")))


def _optimizers() -> Mapping[str, Any]:
    known: Mapping[str, Any] = module("dgm_bench.train.optimizers")["OPTIMIZERS"]
    return known


def _objective(name: str) -> Any:  # noqa: ANN401  a definition
    known = module("dgm_bench.train.objectives")["OBJECTIVES"]
    require_choice("objective", name, known)
    return known[name].args[0]


def _objective_args(spec: ObjectiveSpec) -> dict[str, Any]:
    return fitted(_objective(spec.name), spec.args, ("data_root",))


def _options(spec: DataSpec) -> dict[str, Any]:
    """Return the options of a data set's loader, each of which has a list of values."""
    options = data.card(spec.name).options
    for name, value in spec.args.items():
        if name not in options:
            raise ArgumentError(name, ..., "is no option", choose_from(name, options))
        if value not in options[name]:
            remedy = choose_from(str(value), options[name])
            raise ArgumentError(name, value, f"is not known to {spec.name}", remedy)
    return dict(spec.args)
