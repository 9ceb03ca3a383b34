"""``--set key=value``: change recipes from the command line, and mark their cells as changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dgm_bench.errors import UsageError, did_you_mean
from dgm_bench.spec import Cell, Cost, Recipe, Stage


def change_cells(cells: Sequence[Cell], overrides: Mapping[str, str]) -> list[Cell]:
    """Return the cells with values of their recipes replaced, as ``modified`` says of each.

    Of several recipes each is changed as far as it has the keys.

    Args:
        cells: The cells; one without a recipe stays as it is.
        overrides: Values by key, as :func:`apply_overrides` takes them.

    Raises:
        UsageError: When no recipe has a key, or a value does not fit.
    """
    changed, faults = [], []
    for cell in cells:
        if cell.recipe is not None:
            recipe, unknown = _applied(cell.recipe, overrides)
            faults.append(unknown)
            used = tuple(f"{key}={overrides[key]}" for key in overrides if key not in unknown)
            changed.append(_marked(cell, recipe, used))
        else:
            changed.append(cell)
    for key in overrides:
        if faults and all(key in unknown for unknown in faults):
            raise faults[0][key]
    return changed


def apply_overrides(recipe: Recipe, overrides: Mapping[str, str]) -> Recipe:
    """Return the recipe with values replaced, and its cost in proportion.

    A key is a path such as ``optimizer.lr``, ``model.args.layers`` or ``stopping.max_steps``,
    which is looked up in every stage, or ``evaluation.trace``. The name of a stage ahead of it, as
    in ``top-prior.optimizer.lr``, is for that stage alone. Values are read as JSON and, where that
    fails, as plain text.

    Raises:
        UsageError: When a key does not exist or a value does not fit.
    """
    changed, unknown = _applied(recipe, overrides)
    for fault in unknown.values():
        raise fault
    return changed


def _applied(recipe: Recipe, overrides: Mapping[str, str]) -> tuple[Recipe, dict[str, UsageError]]:
    """Return the recipe with values replaced, and by its name the fault of a key it lacks."""
    body, unknown = recipe.model_dump(mode="json"), {}
    for key, text in overrides.items():
        try:
            places = [_place(target, path, key) for target, path in _targets(body, key)]
        except UsageError as fault:
            unknown[key] = fault
        else:
            for folder, last in places:
                folder[last] = _parse(text)
    try:
        changed = Recipe.model_validate(body)
    except ValidationError as error:
        raise _misfit(error, overrides) from error
    return changed.model_copy(update={"cost": _cost(recipe, changed)}), unknown


def _misfit(error: ValidationError, overrides: Mapping[str, str]) -> UsageError:
    """Say which ``--set`` gave a value that does not fit, and what would."""
    first = error.errors()[0]
    path = ".".join(part for part in first["loc"] if isinstance(part, str) and part != "stages")
    given = (f"{key}={text}" for key, text in overrides.items() if f".{key}".endswith(f".{path}"))
    reason = first["msg"].replace("Input should", "should")
    return UsageError(f"--set {next(given, path)}", reason, "give a value that fits")


def _marked(cell: Cell, recipe: Recipe, modified: tuple[str, ...]) -> Cell:
    """Return the cell with another recipe, or as it is where nothing that matters changed."""
    if cell.recipe is None or recipe.content_hash == cell.recipe.content_hash:
        return cell
    return cell.model_copy(update={"recipe": recipe, "modified": modified})


def _targets(body: dict[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
    """Return where a key is looked up, and the path from there."""
    first, _, rest = key.partition(".")
    if first == "evaluation":
        return [(body, key)]
    named = [stage for stage in body["stages"] if stage["name"] == first and rest]
    return [(stage, rest) for stage in named] or [(stage, key) for stage in body["stages"]]


def _place(target: dict[str, Any], path: str, key: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that holds the value at the end of a path, and its name there."""
    *folders, last = path.split(".")
    if path == "model.revision":
        remedy = "take a version of dgm-bench that has that code"
        raise UsageError(f"--set {key}", "counts changes of the code, and is no setting", remedy)
    for folder in folders:
        if not isinstance(target.get(folder), dict):
            raise _unset(key, folder) if folder in target else _unknown(key, folder, target)
        target = target[folder]
    # Arguments of models, data and objectives are open; every other key must exist.
    if last not in target and "args" not in folders:
        raise _unknown(key, last, target)
    return target, last


def _unknown(key: str, part: str, target: Mapping[str, Any]) -> UsageError:
    remedy = did_you_mean(part, target) or f"known here: {', '.join(target)}"
    return UsageError(f"--set {key}", f"a recipe has no {part!r}", remedy)


def _unset(key: str, part: str) -> UsageError:
    remedy = f"set {part} itself, to a JSON object where it may be one"
    return UsageError(f"--set {key}", f"{part!r} has no parts in this recipe", remedy)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


# --------------------------------------------------------------------------- cost


def _cost(before: Recipe, after: Recipe) -> Cost | None:
    """Return the declared cost for other batches, other epochs and other numbers of steps.

    The work of a step is in proportion to the batch; what else may change it is left out.
    """
    cost = before.cost
    if cost is None or before.stages == after.stages:
        return cost
    pairs = list(zip(before.stage_shares, before.stages, after.stages, strict=True))
    steps = cost.steps * sum(share * _steps_ratio(old, new) for share, old, new in pairs)
    most = [stage.stopping.max_steps for stage in after.stages]
    if None not in most:
        steps = min(steps, sum(n for n in most if n is not None))
    work = sum(share * new.batch_size / old.batch_size for share, old, new in pairs)
    update = {"steps": round(steps), "flops_per_step": work * cost.flops_per_step}
    return cost.model_copy(update=update)


def _steps_ratio(before: Stage, after: Stage) -> float:
    """Return how many times as many steps a stage takes whose epochs are counted, else 1."""
    old, new = before.stopping, after.stopping
    patient = new.patience is not None
    if new.max_epochs is None and not (patient and after.validation.unit == "epochs"):
        return 1.0
    epochs = 1.0
    if not patient and old.max_epochs and new.max_epochs is not None:
        epochs = new.max_epochs / old.max_epochs
    return epochs * before.batch_size / after.batch_size
