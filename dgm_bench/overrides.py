"""``--set key=value``: change recipes from the command line, and mark their cells as changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dgm_bench.arguments import ArgumentError, explained
from dgm_bench.errors import DgmBenchError, UsageError, choose_from, shortened
from dgm_bench.json_text import UnusableJSON, read_json
from dgm_bench.models.revisions import current
from dgm_bench.recipe_checks import PARTS, fitted_args, fitted_overrides, known_args
from dgm_bench.spec import Cell, Cost, Recipe, Stage

#: What is read as JSON has it, whichever way it is written.
_CONSTANTS = {"True": True, "False": False, "None": None}


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
    fails, as plain text; Python's ``True``, ``False`` and ``None`` are JSON's. The recipe has each
    value with the type that whoever takes it wants, or there is none.

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
                folder[last] = value = _parse(key, text)
                if last == "model" and isinstance(value, dict) and "revision" in value:
                    raise _no_setting(key)
    try:
        changed = current(_typed(recipe, Recipe.model_validate_json(json.dumps(body))))
    except ValidationError as error:
        raise _misfit(explained(error, ()), overrides) from error
    except ArgumentError as error:
        raise _misfit(error, overrides) from error
    return changed.model_copy(update={"cost": _cost(recipe, changed)}), unknown


def _misfit(fault: ArgumentError, overrides: Mapping[str, str]) -> UsageError:
    """Say which ``--set`` gave a value that does not fit, and what would."""
    parts = [part for part in fault.path.split(".") if part != "stages"]
    path = ".".join(part for part in parts if not part.isdecimal())
    given = [key for key in overrides if key == path or _concerns(key, path)]
    key = next(iter(given or overrides))
    reason = fault.reason if given else f"{path} {fault.reason}"
    return UsageError(f"--set {key}={shortened(overrides[key])}", reason, fault.remedy)


def _concerns(key: str, path: str) -> bool:
    """Say whether a key, with or without the name of a stage, is that of a path or above it."""
    return any(f"{path}.".startswith(f"{end}.") for end in (key, key.partition(".")[2]) if end)


def _typed(before: Recipe, after: Recipe) -> Recipe:
    """Return a recipe whose changed arguments have the types of their annotations.

    Raises:
        DeclarationError: One does not fit.
    """
    stages = tuple(map(_typed_stage, before.stages, after.stages))
    old, new = before.evaluation.model_overrides, after.evaluation.model_overrides
    args = _kept(old, new, fitted_overrides(new))
    evaluation = after.evaluation.model_copy(update={"model_overrides": args})
    return after.model_copy(update={"stages": stages, "evaluation": evaluation})


def _typed_stage(before: Stage, after: Stage) -> Stage:
    update: dict[str, Any] = {}
    for part in PARTS:
        spec, old = getattr(after, part), getattr(before, part).args
        args = _kept(old, spec.args, fitted_args(after, part))
        update[part] = spec.model_copy(update={"args": args})
    return after.model_copy(update=update)


def _kept(
    before: Mapping[str, Any], after: Mapping[str, Any], fitted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return fitted arguments; what did not change stays as it was declared, hash and all."""
    same = {name for name, value in after.items() if name in before and before[name] == value}
    return {name: before[name] if name in same else fitted[name] for name in after}


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
    stage = target
    if path == "model.revision":
        raise _no_setting(key)
    for depth, folder in enumerate(folders):
        if folder not in target:
            raise _unknown(key, folder, target)
        if not isinstance(target[folder], dict):
            raise _unset(key, key.rsplit(".", len(folders) - depth)[0], target[folder])
        target = target[folder]
    known = _known(stage, folders, target)
    if known is not None and last not in known:
        raise _unknown(key, last, known)
    return target, last


def _known(
    stage: Mapping[str, Any], folders: Sequence[str], target: Mapping[str, Any]
) -> Iterable[str] | None:
    """Return the keys of a mapping of a recipe: arguments also where they are not declared.

    None for those of a part of a model, such as a posterior, which are checked with their values.
    """
    if folders == ["evaluation", "model_overrides"]:
        return known_args("evaluation", "")
    if "args" not in folders:
        return target
    if folders[1:] != ["args"]:
        return None
    try:
        return known_args(folders[0], stage[folders[0]]["name"])
    except DgmBenchError:  # of a name that is not known either, which is told of later
        return target


def _unknown(key: str, part: str, known: Iterable[str]) -> UsageError:
    return UsageError(f"--set {key}", f"a recipe has no {part!r}", choose_from(part, known))


def _no_setting(key: str) -> UsageError:
    remedy = "take a version of dgm-bench that has that code"
    return UsageError(f"--set {key}", "counts changes of the code, and is no setting", remedy)


def _unset(key: str, whole: str, value: object) -> UsageError:
    """Refuse a key that goes on below a value that is no mapping, but may be where it is null."""
    remedy = f"set {whole} itself" + (", to a JSON object where it may be one" if not value else "")
    return UsageError(f"--set {key}", f"{whole!r} has no parts in this recipe", remedy)


def _parse(key: str, text: str) -> object:
    try:
        return read_json(str(text.encode(), "utf-8"))
    except (UnusableJSON, UnicodeEncodeError) as error:
        thing = f"--set {key}={shortened(text)}"
        reason = str(error) if isinstance(error, UnusableJSON) else "is no text of UTF-8"
        raise UsageError(thing, reason, "give finite values, as in JSON") from error
    except ValueError:
        return _CONSTANTS.get(text, text)


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
