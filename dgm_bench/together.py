"""Which recipes have their seeds trained together, as one batch of models, and why others do not.

Imports no torch: plans say it too. What is decided here is by declarations alone, so that the same
command always does the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from dgm_bench.spec import Recipe, Stage

#: Models that compute the same as one of a batch: their likelihood is exact, without noise, and
#: what they do next never depends on a number.
MODELS = frozenset(
    {
        "glow:TabularGlow",
        "made:MADE",
        "maf:MAF",
        "naf:MAFDDSF",
        "nice:NICE",
        "nsf:NSFAutoregressive",
        "nsf:NSFCoupling",
        "realnvp:RealNVP",
        "tan:TAN",
    }
)
#: Floating-point operations for each tensor operation above which its start no longer counts.
#: Three seeds then take nearly three times as long as one (measured at widths 64 to 512).
MOST_WORK = 4e6


def why_apart(recipe: Recipe) -> str:
    """Return why the seeds of a recipe are trained one after the other; empty where together."""
    if len(recipe.stages) > 1:
        return "it has several stages"
    if recipe.fitted:
        return "nothing is trained"
    (stage,) = recipe.stages
    return _why_not_alike(stage) or _why_not_faster(recipe)


def _why_not_alike(stage: Stage) -> str:
    """Return why numbers together would be others than alone, or would not be known to be equal."""
    model = stage.model
    if stage.objective.name != "nll":
        return f"objective {stage.objective.name} draws noise or depends on the step"
    if model.name not in MODELS:
        return f"model {model.name} solves, searches or draws noise, or nobody checked"
    if model.args.get("dropout"):
        return "dropout draws noise"
    return "" if stage.precision != "bfloat16" else "bfloat16 rounds too much to compare"


def _why_not_faster(recipe: Recipe) -> str:
    cost = recipe.cost
    if cost is None or not cost.launches_per_step:
        return "its cost is not declared"
    large = cost.flops_per_step > MOST_WORK * cost.launches_per_step
    return "it is too large to gain by it" if large else ""


class HasRecipe(Protocol):
    """A planned run."""

    @property
    def chosen_recipe(self) -> Recipe:
        """What runs."""
        ...


Run = TypeVar("Run", bound=HasRecipe)


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs in order, those that are trained together in one group at the first one's place.

    Args:
        runs: Each with a seed of its own where they share a recipe.
    """
    groups: dict[str, list[Run]] = {}
    for place, run in enumerate(runs):
        recipe = run.chosen_recipe
        key = str(place) if why_apart(recipe) else recipe.content_hash
        groups.setdefault(key, []).append(run)
    return list(groups.values())
