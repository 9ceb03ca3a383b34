"""``--set key=value``: change a recipe from the command line, and mark it as changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dgm_bench.errors import UsageError, did_you_mean
from dgm_bench.spec import Recipe


def apply_overrides(recipe: Recipe, overrides: Mapping[str, str]) -> Recipe:
    """Return the recipe with values replaced.

    A key is a path such as ``optimizer.lr``, ``model.args.layers`` or ``stopping.max_steps``,
    which is looked up in every stage, or ``evaluation.trace``. The name of a stage ahead of it, as
    in ``top-prior.optimizer.lr``, is for that stage alone. Values are read as JSON and, where that
    fails, as plain text.

    Raises:
        UsageError: When a key does not exist or a value does not fit.
    """
    body = recipe.model_dump(mode="json")
    for key, text in overrides.items():
        for target, path in _targets(body, key):
            _set(target, path, _parse(text), key)
    try:
        return Recipe.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        raise UsageError(f"--set {where}", first["msg"], "see the recipe in a record") from error


def _targets(body: dict[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
    """Return where a key is looked up, and the path from there."""
    first, _, rest = key.partition(".")
    if first == "evaluation":
        return [(body, key)]
    named = [stage for stage in body["stages"] if stage["name"] == first and rest]
    return [(stage, rest) for stage in named] or [(stage, key) for stage in body["stages"]]


def _set(target: dict[str, Any], path: str, value: object, key: str) -> None:
    *folders, last = path.split(".")
    for folder in folders:
        if not isinstance(target.get(folder), dict):
            raise _unknown(key, folder, target)
        target = target[folder]
    # Arguments of models, data and objectives are open; every other key must exist.
    if last not in target and "args" not in folders:
        raise _unknown(key, last, target)
    target[last] = value


def _unknown(key: str, part: str, target: Mapping[str, Any]) -> UsageError:
    remedy = did_you_mean(part, target) or f"known here: {', '.join(target)}"
    return UsageError(f"--set {key}", f"a recipe has no {part!r}", remedy)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
