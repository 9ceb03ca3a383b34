"""Losses of autoencoders of images with discrete codes: VQ-VAE's, and DALL-E's discrete VAE's."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from dgm_bench.annotations import NonNegative, Positive, Steps
from dgm_bench.errors import DeclarationError, require_positive
from dgm_bench.models.capabilities import QuantisesImages
from dgm_bench.models.codes.dvae import DVAE
from dgm_bench.models.pixels.vqvae_levels import LevelVQVAE
from dgm_bench.train.losses import Batch, Loss, Objective, detached


def vector_quantisation(commitment: NonNegative = 0.25, variance: Positive = 1.0) -> Objective:
    """Return VQ-VAE's loss (van den Oord et al., 2017, equation 3; Razavi et al., 2019, eq. 2).

    The mean squared error of pixels in [0, 1], divided by ``variance``; ``commitment`` times the
    mean squared distance of encoder's outputs from their codes, summed over levels; and, where
    codebooks learn by gradient, that distance for them. In evaluation mode the value is the same
    and no codebook moves.

    Args:
        commitment: The papers' beta.
        variance: 1/4 makes the error that of pixels in [-1, 1]; the variance of the data is what
            the authors' example in Sonnet divides by.

    Raises:
        DeclarationError: ``commitment`` is negative, or ``variance`` not positive.
    """
    if commitment < 0:
        raise DeclarationError(f"commitment {commitment}", "is negative", "use 0.25")
    require_positive(variance=variance)

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        pixels, terms = cast(QuantisesImages, model).quantised_reconstruction(x, generator)
        error = (pixels - x).square().mean()
        total = error / variance + commitment * terms["commitment"]
        if "codebook" in terms:
            total = total + terms["codebook"]
        return Loss(total, detached({"reconstruction": error, **terms}))

    return objective


def quantised_likelihood(commitment: NonNegative = 0.25) -> Objective:
    """Return VQ-VAE's loss with a likelihood of levels (van den Oord et al., 2017, equation 3).

    ``-log p(x | z)`` in nats per dimension, and ``commitment`` times the mean squared distance of
    the encoder's outputs from their codes; the codebook is a moving average.

    Args:
        commitment: The paper's beta.
    """

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        vqvae = cast(LevelVQVAE, model)
        log_likelihood, distance = vqvae.quantised_log_likelihood(x, generator)
        misfit = -log_likelihood.mean() / math.prod(x.shape[1:])
        terms = {"reconstruction": misfit, "commitment": distance}
        return Loss(misfit + commitment * distance, detached(terms))

    return objective


def discrete_autoencoding(
    kl_weight: NonNegative = 6.6,
    kl_steps: Steps = 5_000,
    temperature: Positive = 1 / 16,
    temperature_steps: Steps = 150_000,
) -> Objective:
    """Return the loss of DALL-E's discrete VAE in nats per dimension (Ramesh et al., 2021, A.2).

    In training ``(-log p(phi(x) | z) + beta KL) / D``: both terms are sums over an image, the
    divergence over its grid of codes, and ``D`` is the number of pixels times channels. For 256 x
    256 x 3 and 32 x 32 codes that gives the divergence of one code, on average, a weight of
    ``beta / 192``, as the paper says. Weight and temperature follow half a cosine each.

    In evaluation mode it is the negative bound of the model with its most probable codes, by
    ``D``, with a weight of 1 on the divergence: it does not depend on the step.

    Args:
        kl_weight: Last value of beta, from 0.
        kl_steps: Steps to get there.
        temperature: Last value of the relaxation's temperature, from 1.
        temperature_steps: Steps to get there.

    Raises:
        DeclarationError: An argument is not positive; a weight may be 0.
    """
    require_positive(temperature=temperature, kl_steps=kl_steps)
    require_positive(temperature_steps=temperature_steps)
    if kl_weight < 0:
        raise DeclarationError(f"kl_weight {kl_weight}", "is negative", "use 0 or more")

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        vae, dimensions = cast(DVAE, model), math.prod(x.shape[1:])
        if not vae.training:
            return Loss(vae.negative_elbo(x).mean() / dimensions)
        beta = half_cosine(0.0, kl_weight, kl_steps, step)
        now = half_cosine(1.0, temperature, temperature_steps, step)
        misfit, divergence = (
            term.mean() / dimensions for term in vae.relaxed_terms(x, now, generator)
        )
        terms = {"reconstruction": misfit, "divergence": divergence}
        return Loss(misfit + beta * divergence, detached(terms))

    return objective


def half_cosine(start: float, end: float, steps: int, step: int) -> float:
    """Return a value that goes from ``start`` to ``end`` along half a cosine and stays there."""
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * min(step / steps, 1.0)))
