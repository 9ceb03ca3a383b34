"""How far the samples of an adversarial game are from held-out examples, and whether they vary.

A discriminator's loss says little of either.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from dgm_bench.models.capabilities import AdversarialGame

#: Examples that are compared, numbers in these at most, and directions that they are projected on.
COMPARED, NUMBERS, DIRECTIONS = 2_048, 2**26, 256
#: Part of the data's variance within classes below which a generator counts as collapsed.
COLLAPSED = 0.01


class Comparison(NamedTuple):
    """Samples beside held-out examples.

    Attributes:
        distance: The sliced Wasserstein distance, in the game's own scale.
        variance: That of samples within classes, as a part of that of the examples.
    """

    distance: float
    variance: float


def compared(examples: Num[Tensor, "n *event"]) -> Num[Tensor, "n_compared *event"]:
    """Return the first examples: fewer where they are large."""
    return examples[: min(COMPARED, max(NUMBERS // examples[0].numel(), 2))]


def compare(
    game: AdversarialGame,
    inputs: Num[Tensor, "n *row"],
    batch_size: int,
    generator: torch.Generator,
) -> Comparison:
    """Return how samples compare with examples, as many, of the same classes if there are any.

    Args:
        game: In evaluation mode.
        inputs: Examples as the game is trained on them.
        batch_size: Samples that are drawn at a time.
        generator: Source of the noise.
    """
    examples, classes = game.examples_and_classes(inputs)
    samples = sampled(game, classes, len(examples), batch_size, generator)
    within = variance_within(examples, classes)
    return Comparison(
        sliced_wasserstein(samples, examples, generator),
        variance_within(samples, classes) / within if within else 1.0,
    )


@torch.no_grad()
def sampled(
    game: AdversarialGame,
    classes: Int[Tensor, " n"] | None,
    n: int,
    batch_size: int,
    generator: torch.Generator,
) -> Float[Tensor, "n *event"]:
    """Return ``n`` examples in the game's own scale, of these classes if it is told of any."""
    parts = []
    for start in range(0, n, batch_size):
        own = None if classes is None else classes[start : start + batch_size]
        z = game.draw_noise(min(batch_size, n - start), generator)
        parts.append(game.generator(z, own))
    return torch.cat(parts)


def sliced_wasserstein(
    x: Float[Tensor, "n *event"], y: Float[Tensor, "n *event"], generator: torch.Generator
) -> float:
    """Return the sliced Wasserstein-2 distance of equally many examples, in the data's units.

    The root of the mean, over random unit vectors, of the squared distance of the projections'
    quantiles (Rabin et al. 2012, https://doi.org/10.1007/978-3-642-24785-9_37). Two examples that
    differ by d in every number are at distance d, about.
    """
    x, y = x.flatten(1).double(), y.flatten(1).double()
    directions = torch.empty(x.shape[1], DIRECTIONS, dtype=x.dtype, device=x.device)
    directions.normal_(generator=generator)
    directions = directions / directions.norm(dim=0)
    gaps = (x @ directions).sort(dim=0).values - (y @ directions).sort(dim=0).values
    return float(gaps.square().mean().sqrt())


def variance_within(x: Float[Tensor, "n *event"], classes: Int[Tensor, " n"] | None) -> float:
    """Return the variance of a number of an example among those of its class, on average."""
    flat = x.flatten(1).double()
    if classes is None:
        return float(flat.var(dim=0, correction=0).mean())
    parts = [flat[classes == own] for own in classes.unique()]
    sums = [part.var(dim=0, correction=0).mean() * len(part) for part in parts]
    return float(torch.stack(sums).sum() / len(flat))
