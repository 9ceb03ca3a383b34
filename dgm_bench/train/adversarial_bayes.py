"""The losses of adversarial variational Bayes (Mescheder, Nowozin and Geiger, 2017)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Steps
from dgm_bench.errors import DeclarationError
from dgm_bench.models.latent.avb import AVB
from dgm_bench.models.networks.frozen import frozen
from dgm_bench.models.whole_batch import normal_
from dgm_bench.train.losses import Batch, Loss, Objective, detached, mean_over_batch


def adversarial_variational_bayes(discriminator_steps: Steps = 1) -> Objective:
    """Return the sum of both players' losses; see :func:`player_losses`.

    Args:
        discriminator_steps: Encoder and decoder have a loss in one of so many steps only.

    Raises:
        DeclarationError: It is below 1.
    """
    if discriminator_steps < 1:
        reason = f"{discriminator_steps} steps of the discriminator are no training"
        raise DeclarationError("objective 'avb'", reason, "use discriminator_steps = 1")

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        both = step % discriminator_steps == 0 or not model.training
        parts = player_losses(cast(AVB, model), x, generator, both=both)
        return Loss(torch.stack(list(parts.values())).sum(), detached(parts))

    return objective


def player_losses(
    game: AVB, x: Float[Tensor, "batch *event"], generator: torch.Generator, *, both: bool
) -> dict[str, Float[Tensor, ""]]:
    """Return the players' losses, each with gradients for its own player only (algorithm 1).

    ``discriminator`` is the cross-entropy of telling posterior from contrast;
    ``negative-elbo`` is that of encoder and decoder, in nats with the discriminator
    held. In evaluation mode there is the latter alone.

    Args:
        game: The model with its discriminator.
        x: Examples.
        generator: Source of the noise.
        both: Whether encoder and decoder have a loss.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and both):
        z, _ = game.draw_posterior(x, 1, generator)
    contrast = game.contrast(x, generator)
    found = {}
    if game.training:
        reference = normal_(torch.empty_like(z), generator)
        ours = game.log_odds(x, contrast.standardise(z.detach()))
        theirs = game.log_odds(x, reference)
        found["discriminator"] = (F.softplus(-ours) + F.softplus(theirs)).mean()
    if both:
        fit = game.decode(z.flatten(0, 1)).log_prob(x.flatten(1))
        ratio = game.log_ratio(x, z, contrast, frozen(game.discriminator)).squeeze(1)
        found["negative-elbo"] = mean_over_batch(ratio - fit)
    return found
