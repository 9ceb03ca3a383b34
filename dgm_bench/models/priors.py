"""Priors of latent variable models, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dgm_bench.errors import DeclarationError, did_you_mean
from dgm_bench.models.flow import StandardNormal

#: Each makes a prior from the number of latent variables.
PRIORS: Mapping[str, Callable[..., nn.Module]] = {"standard": StandardNormal}


def build_prior(name: str, latent: int, args: Mapping[str, Any]) -> nn.Module:
    """Return a prior.

    Raises:
        DeclarationError: There is none of that name.
        TypeError: It has no such argument.
    """
    if name not in PRIORS:
        remedy = did_you_mean(name, PRIORS) or f"known: {', '.join(PRIORS)}"
        raise DeclarationError(f"prior {name!r}", "is not known", remedy)
    return PRIORS[name](latent, **args)
