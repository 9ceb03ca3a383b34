"""What can be asked of a trained model, by what the model itself has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from dgm_bench.models.capabilities import (
    DrawsImages,
    HasCodes,
    HasDecoder,
    HasElbo,
    HasInverse,
    HasLogProb,
    HasPosteriorDraws,
    HasSample,
    Reconstructs,
)
from dgm_bench.models.codes.two_stage import TwoStage


class Ability(NamedTuple):
    """A method of a trained model.

    Attributes:
        words: What a model that has it not lacks.
        needs: Capabilities, each with others that it takes beside it, of which one is enough.
    """

    words: str
    needs: tuple[tuple[type, ...], ...]


ABILITIES: Mapping[str, Ability] = {
    "sample": Ability("samples", ((HasSample,), (DrawsImages,))),
    "log_prob": Ability("log density", ((HasLogProb,),)),
    "elbo": Ability("bound of the log density", ((HasElbo,),)),
    "reconstruct": Ability("reconstructions", ((Reconstructs,), (HasPosteriorDraws, HasDecoder))),
    "encode": Ability(
        "latent variables", ((HasInverse,), (HasPosteriorDraws,), (HasCodes,), (TwoStage,))
    ),
    "decode": Ability("decoder", ((HasInverse,), (HasDecoder,), (HasCodes,), (TwoStage,))),
}


def abilities_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of what a model can be asked for."""
    return tuple(
        name
        for name, ability in ABILITIES.items()
        if any(all(isinstance(model, kind) for kind in kinds) for kinds in ability.needs)
    )
