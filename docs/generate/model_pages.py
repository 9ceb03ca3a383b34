"""What is appended to a model's page: its numbers, and its code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import evidence

from dgm_bench.models.names import MODELS
from dgm_bench.spec import Cell, Recipe
from dgm_bench.wording import counted

HEAD = "| cell | published | measured | unit | verdict |\n| --- | --- | --- | --- | --- |"


def appended(meta: Mapping[str, Any]) -> str:
    """Return the parts of a page that are made from declarations, records and code.

    Args:
        meta: The page's header. ``models`` are names as recipes have them, with ``args`` only
            where a stage has those arguments, and ``objectives`` only where it has one of those;
            ``also`` are models whatever their arguments; ``code`` are further classes below
            ``dgm_bench.models``.
    """
    cells = [cell for cell in evidence.catalog().cells if _concerns(cell, meta)]
    parts = ["## Published and measured", *_numbers(cells)]
    parts += ["## Code", *(f"::: dgm_bench.models.{where}" for where in _code(meta))]
    return "\n\n".join(parts) + "\n"


def _code(meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the classes of a page are."""
    named = () if meta.get("code_only") else meta.get("models", ())
    for place in (*(MODELS[name] for name in named), *meta.get("code", ())):
        yield place.replace(":", ".")


def _numbers(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the paper's numbers, then those of columns and rows of ours, which are folded."""
    shown = [cell for cell in cells if not cell.repeats]
    published = evidence.lines_of([cell for cell in shown if cell.published])
    ours = evidence.lines_of([cell for cell in shown if not cell.published])
    if published:
        yield evidence.numbers("\n".join([HEAD, *published]))
    if ours:
        table = evidence.numbers("\n".join([HEAD, *ours])).replace("\n", "\n    ")
        yield f'??? note "{counted(len(ours), "number")} that no paper has"\n\n    {table}'
    without = counted(len(shown) - len(published) - len(ours), "cell")
    yield f"{without} without a number: `dgm-bench plan` says what they take."


def _concerns(cell: Cell, meta: Mapping[str, Any]) -> bool:
    return cell.recipe is not None and _has(cell.recipe, meta)


def _has(recipe: Recipe, meta: Mapping[str, Any]) -> bool:
    """Say whether a stage of a recipe is of a page's models, arguments and objectives."""
    wanted, objectives = meta.get("args", {}), meta.get("objectives")
    return any(
        stage.model.name in meta.get("also", ())
        or (
            (stage.model.name in meta["models"] or "*" in meta["models"])
            and (objectives is None or stage.objective.name in objectives)
            and all(stage.model.args.get(key) in _several(value) for key, value in wanted.items())
        )
        for stage in recipe.stages
    )


def _several(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else [value]
