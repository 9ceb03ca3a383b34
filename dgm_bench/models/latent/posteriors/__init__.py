"""Posteriors of latent variable models, by name: a Gaussian, and flows that transform its draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.models.arguments import require_known
from dgm_bench.models.latent.posteriors.ffjord import AmortisedFFJORD
from dgm_bench.models.latent.posteriors.gaussian import GaussianPosterior
from dgm_bench.models.latent.posteriors.glow import SharedGlow
from dgm_bench.models.latent.posteriors.iaf import InverseAutoregressive
from dgm_bench.models.latent.posteriors.planar import AmortisedPlanar
from dgm_bench.models.latent.posteriors.sylvester import AmortisedSylvester

#: Constructors of a posterior's flow from the numbers of features and of latent variables.
FLOWS: Mapping[str, Callable[..., nn.Module] | None] = {
    "no-flow": None,
    "planar": AmortisedPlanar,
    "sylvester-orthogonal": partial(AmortisedSylvester, kind="orthogonal"),
    "sylvester-householder": partial(AmortisedSylvester, kind="householder"),
    "sylvester-triangular": partial(AmortisedSylvester, kind="triangular"),
    "iaf": InverseAutoregressive,
    "glow": SharedGlow,
    "ffjord": AmortisedFFJORD,
}


def build_posterior(
    name: str,
    features: int,
    latent: int,
    args: Mapping[str, Any],
    variance_bounds: tuple[float, float] | None = None,
) -> GaussianPosterior:
    """Return a posterior.

    Raises:
        DeclarationError: There is none of that name, or its flow has no such argument.
    """
    require_choice("posterior", name, FLOWS)
    make = FLOWS[name]
    if make is None:
        if args:
            reason = f"takes no posterior_args ({', '.join(args)})"
            raise DeclarationError(f"posterior {name!r}", reason, "name a flow, or leave them out")
        return GaussianPosterior(features, latent, variance_bounds)
    require_known(f"posterior {name!r}", make, args, given=2)
    return GaussianPosterior(features, latent, variance_bounds, make(features, latent, **args))
