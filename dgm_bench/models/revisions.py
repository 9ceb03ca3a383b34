"""Changes of models' code after which a declared model gives other numbers than before.

A recipe is hashed by what it declares. Where the code behind a declaration comes to give other
numbers, a change below raises the revision of the models concerned, and with it the hash of their
recipes: records of before are shown as of an older recipe, and nothing pools the two. Imports no
torch: the catalogue applies it to all recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dgm_bench.spec import ModelSpec, Recipe


class Change(NamedTuple):
    """A change of the numbers of some models.

    Args:
        models: Names of the models concerned.
        what: What changed.
        where: Arguments that a declared model must have to be concerned, or none.
    """

    models: tuple[str, ...]
    what: str
    where: Mapping[str, Any] = {}

    def concerns(self, spec: ModelSpec) -> bool:
        """Say whether a declared model gives other numbers since."""
        missing = object()
        return spec.name in self.models and all(
            spec.args.get(name, missing) == value for name, value in self.where.items()
        )


#: All changes, oldest first; an entry is never removed or edited.
CHANGES: tuple[Change, ...] = (
    Change(
        models=("vqvae:VQVAE", "vqvae:VQVAE2"),
        what="averages of codebooks begin at zero and are debiased, as in the published layer",
        where={"codebook": "ema"},
    ),
    Change(
        models=("gated_vae:ConvVAE", "gated_vae:ContinuousConvVAE"),
        what="transposed convolutions start as wide as separate ones for value and gate would",
    ),
    Change(
        models=("naf:MAFDDSF",),
        what="maps start with slope 1 and are clipped before the logit, hidden degrees are "
        "shuffled, and the base has log variance 1, as in the released code",
    ),
    Change(
        models=("gated_vae:ConvVAE", "gated_vae:DenseVAE"),
        what="hidden units of inverse autoregressive flows come in one block for each dimension",
        where={"posterior": "iaf"},
    ),
    Change(
        models=("realnvp_images:MultiScaleRealNVP",),
        what="couplings batch-normalise the half that they move, not their whole output",
    ),
    Change(
        models=("discrete:DiscreteVAE",),
        what="score functions have NVIL's variance normalisation, as the sources of SF and NVIL",
        where={"baseline_hidden": [100]},
    ),
)


def current(recipe: Recipe) -> Recipe:
    """Return a recipe whose models have the revisions of the code as it is."""
    return recipe.with_revisions(_revision(stage.model) for stage in recipe.stages)


def _revision(spec: ModelSpec) -> int:
    return 1 + sum(change.concerns(spec) for change in CHANGES)
