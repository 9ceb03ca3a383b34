"""The losses of a generator and a discriminator that play against each other.

Each player has gradients of its own loss only. A step is one player's, unless both move at once;
parameters without a gradient are left alone by the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import NonNegative, Positive, Steps
from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.models import whole_batch
from dgm_bench.models.capabilities import AdversarialGame, Grows
from dgm_bench.models.networks.frozen import frozen
from dgm_bench.train.losses import Batch, Loss, Objective, detached

Scores = Float[Tensor, " batch"]
Classes = Int[Tensor, " batch"]
Game = Literal["non-saturating", "hinge", "wasserstein"]


class GameLosses(NamedTuple):
    """What each player minimises, by the scores that the discriminator gives.

    Attributes:
        discriminator: Of its scores of data and of generated examples.
        generator: Of the scores of generated examples.
    """

    discriminator: Callable[[Scores, Scores], Scores]
    generator: Callable[[Scores], Scores]


def _raise_score(score: Scores) -> Scores:
    return -score


LOSSES: Mapping[str, GameLosses] = {
    # Goodfellow et al. (2014, https://arxiv.org/abs/1406.2661), section 3.
    "non-saturating": GameLosses(
        lambda data, fake: F.softplus(-data) + F.softplus(fake), lambda fake: F.softplus(-fake)
    ),
    # Lim and Ye (2017, https://arxiv.org/abs/1705.02894); SAGAN (1805.08318), equation 4.
    "hinge": GameLosses(lambda data, fake: F.relu(1 - data) + F.relu(1 + fake), _raise_score),
    # Arjovsky et al. (2017, https://arxiv.org/abs/1701.07875), algorithm 1.
    "wasserstein": GameLosses(lambda data, fake: fake - data, _raise_score),
}


class Penalties(NamedTuple):
    """Weights of what is added to the players' losses; see :func:`adversarial`."""

    gradient_penalty: float
    gradient_target: float
    drift: float
    r1: float
    orthogonal: float


def adversarial(
    loss: Game = "non-saturating",
    discriminator_steps: Steps | None = None,
    gradient_penalty: NonNegative = 0.0,
    gradient_target: Positive = 1.0,
    drift: NonNegative = 0.0,
    r1: NonNegative = 0.0,
    orthogonal: NonNegative = 0.0,
) -> Objective:
    """Return the loss of the player whose turn it is, or the sum of both players' losses.

    Args:
        loss: Of the game: ``non-saturating``, ``hinge`` or ``wasserstein``.
        discriminator_steps: Steps of the discriminator before each of the generator; None lets
            both move in every step, by the same batch.
        gradient_penalty: Weight of ``(|grad D| - target)^2 / target^2`` at points between data and
            generated examples (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, eq. 3).
        gradient_target: The target (progressive growing, https://arxiv.org/abs/1710.10196,
            section 6.5).
        drift: Weight of the squared score of data (the same, appendix A.1).
        r1: Weight gamma of ``|grad D|^2 / 2`` at data (Mescheder et al. 2018,
            https://arxiv.org/abs/1801.04406, equation 9).
        orthogonal: Weight of BigGAN's penalty on the generator (https://arxiv.org/abs/1809.11096,
            equation 3).

    Raises:
        DeclarationError: No game has that loss, or its discriminator takes no step.
    """
    require_choice("loss", loss, LOSSES)
    if discriminator_steps is not None and discriminator_steps < 1:
        reason = f"{discriminator_steps} steps of the discriminator are no training"
        raise DeclarationError("objective 'adversarial'", reason, "use 1, or leave it out")
    losses = LOSSES[loss]
    weights = Penalties(gradient_penalty, gradient_target, drift, r1, orthogonal)

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        game = cast(AdversarialGame, model)
        if isinstance(model, Grows) and model.training:
            seen = _discriminator_steps_before(step, discriminator_steps)
            model.grow(seen * whole_batch.count(x, [0]))
        examples, classes = game.examples_and_classes(x)
        z = game.draw_noise(len(x), generator)
        moves = _whose_turn(step, discriminator_steps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and "generator" in moves):
            fake = game.generator(z, classes)
        terms = {}
        if "discriminator" in moves:
            terms["discriminator"] = _discriminator_loss(
                game, losses, weights, (examples, fake.detach(), classes), generator
            )
        if "generator" in moves:
            score = frozen(game.discriminator)(fake, classes)
            terms["generator"] = losses.generator(score).mean()
            if weights.orthogonal:
                penalty = non_orthogonality(game.generator)
                terms["generator"] = terms["generator"] + weights.orthogonal * penalty
        return Loss(cast(Tensor, sum(terms.values())), detached(terms))

    return objective


def _whose_turn(step: int, discriminator_steps: int | None) -> tuple[str, ...]:
    if discriminator_steps is None:
        return "discriminator", "generator"
    of_generator = step % (discriminator_steps + 1) == discriminator_steps
    return ("generator",) if of_generator else ("discriminator",)


def _discriminator_steps_before(step: int, discriminator_steps: int | None) -> int:
    if discriminator_steps is None:
        return step
    cycles, since = divmod(step, discriminator_steps + 1)
    return cycles * discriminator_steps + since


def _discriminator_loss(
    game: AdversarialGame,
    losses: GameLosses,
    weights: Penalties,
    batch: tuple[Tensor, Tensor, Classes | None],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    examples, fake, classes = batch
    data = examples.requires_grad_() if weights.r1 else examples
    for_data, for_fake = game.discriminator(data, classes), game.discriminator(fake, classes)
    loss = losses.discriminator(for_data, for_fake)
    if weights.drift:
        loss = loss + weights.drift * for_data.square()
    if weights.r1:
        loss = loss + weights.r1 / 2 * _slope(for_data, data).flatten(1).square().sum(1)
    if weights.gradient_penalty:
        between = _between(examples.detach(), fake, generator)
        norm = _slope(game.discriminator(between, classes), between).flatten(1).norm(dim=1)
        excess = (norm - weights.gradient_target) / weights.gradient_target
        loss = loss + weights.gradient_penalty * excess.square()
    return loss.mean()


def _between(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Return points uniform on the lines between examples."""
    t = whole_batch.uniform_(x.new_empty(len(x)), generator).view(-1, *[1] * (x.dim() - 1))
    return torch.lerp(x, y, t).requires_grad_()


def _slope(score: Scores, x: Tensor) -> Tensor:
    """Return the gradient of each example's score, which gradients can be taken of."""
    (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return slope


def non_orthogonality(network: nn.Module) -> Float[Tensor, ""]:
    """Return the sum over weights of ``|W W^T * (1 - I)|_F^2``, rows being output units.

    BigGAN (https://arxiv.org/abs/1809.11096), equation 3. Embeddings of classes are left out.
    """
    embeddings = {
        id(p) for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    total = torch.zeros(())
    for weight in network.parameters():
        if weight.dim() > 1 and id(weight) not in embeddings:
            rows = weight.flatten(1)
            product = rows @ rows.T
            off = product - product.diagonal().diag()
            total = total.to(weight) + off.square().sum()
    return total
