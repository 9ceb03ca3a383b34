"""The bound that a discriminator gives beside the true one, and both beside the log-likelihood."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import each
from dgm_bench.metrics.bounds.likelihood import mean_metric
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.quadrature import log_marginal, require_standard_prior
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import HasDecoder, HasPosteriorDraws
from dgm_bench.models.latent.avb import AVB
from dgm_bench.records import Metric

EXAMPLES = 250  # of the split
DRAWS = 2_000  # from the posterior of each example
AT_ONCE = 50  # examples whose draws are decoded together
NEIGHBOUR = 1  # whose distance measures the density of draws; the bias grows with it
NODES = 400  # a side of the grid over latent variables
REACH = 6.0  # of that grid, in standard deviations of the prior


class Bounds(NamedTuple):
    """Of each example, in nats; expectations are means over draws from its posterior.

    Attributes:
        fit: Expectation of ``log p(x|z)``.
        estimated: Divergence of posterior from prior as the model has it, by its discriminator.
        true: The same divergence by the posterior's density.
    """

    fit: Float[Tensor, " n"]
    estimated: Float[Tensor, " n"]
    true: Float[Tensor, " n"]


# ----------------------------------------------------------------------------- metrics


def require_bounds(evaluation: Evaluation) -> None:
    """Refuse what has no two bounds to compare, or no integral to compare them with.

    Raises:
        DeclarationError: There are no draws from the posterior, not two latent variables, or
            another prior than the standard normal.
    """
    model, thing = evaluation.model, "metric 'avb'"
    if not isinstance(model, AVB | HasPosteriorDraws):
        reason = f"needs draws from a posterior, which {type(model).__name__} lacks"
        raise DeclarationError(thing, reason, "use avb:VAE or avb:AVB")
    if model.latent != 2:
        reason = f"the latent space has {model.latent} dimensions"
        raise DeclarationError(thing, reason, "use two latent variables")
    require_standard_prior(model, thing)


@metric("avb", needs=HasDecoder, words="a decoder", check=require_bounds)
def avb_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the negative ELBO by the discriminator, and the true one, in nats.

    ``negative-elbo`` has the discriminator's log-odds for the divergence (a model without one has
    the exact density). ``negative-elbo-true`` has the density of the posterior, or where it is not
    known the entropy of its draws. ``discriminator-error`` is the estimated divergence minus the
    true one: where it is below zero the ELBO is overestimated. ``nll-quadrature`` is
    ``-log p(x)`` by an integral over the two latent variables, ``posterior-gap`` the true negative
    ELBO minus it, which cannot be below zero, and ``quadrature-error`` how much a grid of half the
    nodes differs. Standard errors are over examples.

    Raises:
        RunFailure: A value is not finite.
    """
    model, split, generator = evaluation.model, evaluation.spec.split, evaluation.generator()
    x = evaluation.data.dequantised(evaluation.examples[:EXAMPLES], generator)
    found = bounds(model, x, generator)
    decoder = cast(HasDecoder, model)
    marginal, coarse = (log_marginal(decoder, x, nodes, REACH) for nodes in (NODES, NODES // 2))
    grid = f"midpoint rule on {NODES} x {NODES} points"
    estimated, true = found.estimated - found.fit, found.true - found.fit
    values = {
        "negative-elbo": (estimated, "the model's own divergence"),
        "negative-elbo-true": (true, _words(model)),
        "discriminator-error": (found.estimated - found.true, _words(model)),
        "nll-quadrature": (-marginal, grid),
        "posterior-gap": (true + marginal, f"{_words(model)}; {grid}"),
        "quadrature-error": ((marginal - coarse).abs(), "against half the nodes a side"),
    }
    how = f"first {len(x):,} examples, {DRAWS:,} draws of each; {evaluation.protocol}"
    for name, (nats, _) in values.items():
        require_finite(nats, name, f"{split} examples")
    return [
        mean_metric(name, nats, "nats", split, f"{words}; {how}")
        for name, (nats, words) in values.items()
    ]


def _words(model: nn.Module) -> str:
    known = not isinstance(model, AVB) or model.has_density
    by_distance = f"density of the posterior by the distance of neighbour {NEIGHBOUR}"
    return "known density of the posterior" if known else by_distance


# ----------------------------------------------------------------------------- the two bounds


@torch.no_grad()
def bounds(
    model: nn.Module,
    x: Float[Tensor, "n *event"],
    generator: torch.Generator,
    draws: int = DRAWS,
) -> Bounds:
    """Return the parts of both bounds of each example, in float64.

    Args:
        model: In evaluation mode: adversarial, or with a posterior of known density.
        x: Examples as the model sees them.
        generator: Source of the draws.
        draws: From the posterior of each example.
    """
    of = _of_adversarial if isinstance(model, AVB) else _of_known
    parts = each(x.split(AT_ONCE), lambda part: tuple(of(model, part, generator, draws)), generator)
    return Bounds(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _of_adversarial(
    model: nn.Module, x: Float[Tensor, "n *event"], generator: torch.Generator, draws: int
) -> Bounds:
    game = cast(AVB, model)
    z, log_q = game.draw_posterior(x, draws, generator)
    estimated = game.log_ratio(x, z, game.contrast(x, generator))
    repeated = x.flatten(1).repeat_interleave(draws, 0)
    fit = game.decode(z.flatten(0, 1)).log_prob(repeated).view(z.shape[:2])
    expected = log_q.double().mean(1) if log_q is not None else -entropy(z)
    true = expected - game.log_prior(z).double().mean(1)
    return Bounds(fit.double().mean(1), estimated.double().mean(1), true)


def _of_known(
    model: nn.Module, x: Float[Tensor, "n *event"], generator: torch.Generator, draws: int
) -> Bounds:
    drawn = cast(HasPosteriorDraws, model).draw(x, draws, generator)
    divergence = (drawn.log_posterior - drawn.log_prior).double().mean(1)
    return Bounds(drawn.log_likelihood.double().mean(1), divergence, divergence)


def entropy(z: Float[Tensor, "n draws latent"]) -> Float[Tensor, " n"]:
    """Return the entropy in nats of the distribution of each row of draws, in float64.

    It is Kozachenko and Leonenko's (1987) estimate ``psi(N) - psi(k) + log c + D E[log r]``, with
    ``r`` the distance to the neighbour ``k`` and ``c`` the volume of the unit ball; its bias
    vanishes with the number of draws.
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    draws, dim = z.shape[1:]
    points = z.double().cpu().numpy()
    distances = []
    for row in points:
        ask_within()
        distances.append(cKDTree(row).query(row, k=[NEIGHBOUR + 1])[0])
    radius = np.stack(distances).reshape(len(points), draws)
    with np.errstate(divide="ignore"):
        mean = np.log(radius).mean(1)
    ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
    found = digamma(draws) - digamma(NEIGHBOUR) + ball + dim * mean
    return torch.from_numpy(found).to(z.device)
