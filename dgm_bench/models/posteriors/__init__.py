"""Posteriors of latent variable models, by name: a Gaussian, and flows that move its draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from dgm_bench.errors import DeclarationError, did_you_mean
from dgm_bench.models.posteriors.ffjord import AmortisedFFJORD
from dgm_bench.models.posteriors.gaussian import GaussianPosterior
from dgm_bench.models.posteriors.iaf import InverseAutoregressive
from dgm_bench.models.posteriors.planar import AmortisedPlanar
from dgm_bench.models.posteriors.sylvester import AmortisedSylvester

#: Each makes the flow of a posterior from the numbers of features and of latent variables.
FLOWS: Mapping[str, Callable[..., nn.Module] | None] = {
    "no-flow": None,
    "planar": AmortisedPlanar,
    "sylvester-orthogonal": partial(AmortisedSylvester, kind="orthogonal"),
    "sylvester-householder": partial(AmortisedSylvester, kind="householder"),
    "sylvester-triangular": partial(AmortisedSylvester, kind="triangular"),
    "iaf": InverseAutoregressive,
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
        DeclarationError: There is none of that name.
        TypeError: Its flow has no such argument.
    """
    if name not in FLOWS:
        remedy = did_you_mean(name, FLOWS) or f"known: {', '.join(FLOWS)}"
        raise DeclarationError(f"posterior {name!r}", "is not known", remedy)
    make = FLOWS[name]
    flow = make(features, latent, **args) if make is not None else None
    return GaussianPosterior(features, latent, variance_bounds, flow)
