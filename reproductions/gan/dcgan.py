"""DCGAN (Radford et al., 2016): the plain baseline, on small images."""

from __future__ import annotations

from dgm_bench.data import card
from dgm_bench.spec import ModelSpec, Recipe

from .shared import Rule, Size, image_evaluation, recipe, stage

#: Adam's rate and first moment are the paper's (section 4); so is the latent uniform in 100
#: dimensions, of which digits need fewer.
LR, BETAS = 2e-4, (0.5, 0.999)
SETTINGS = {
    "digits-labelled": (Rule(4_000, 1, 64, LR, LR, BETAS, 0.99), {"latent": 16, "width": 64}),
    "mnist-labelled": (Rule(12_000, 1, 64, LR, LR, BETAS, 0.999), {"latent": 100, "width": 32}),
    "cifar10-labelled": (
        Rule(100_000, 1, 128, LR, LR, BETAS, 0.999),
        {"latent": 100, "width": 128},
    ),
}
#: Its noise is uniform within 1.
TRUNCATIONS = (0.75, 0.5, 0.25)
NOTES = (
    "rate and betas are the paper's, which trains on other images; width, length and the average "
    "of weights are chosen",
    "no classes: no accuracy score and no rejection",
)


def dcgan(data: str, features: str = "classifier") -> Recipe:
    """DCGAN with the non-saturating loss, its players in turn.

    Args:
        data: The column's data set.
        features: Those by which images are compared.
    """
    rule, widths = SETTINGS[data]
    model = ModelSpec(name="dcgan:DCGAN", args=widths)
    train = stage(data, model, rule, {"loss": "non-saturating"}, conditional=False)
    images = image_evaluation(data, features, TRUNCATIONS)
    return recipe(data, "dcgan", train, _size(data, **widths), images, NOTES)


def _size(data: str, latent: int, width: int) -> Size:
    """Count convolutions of 16 taps, each from a map to one of twice the side or half of it."""
    channels, side, _ = card(data).event_shape
    widths, products, weights, kept = [channels, width], 0.0, 0, 0
    while side > 4:
        inputs, outputs = widths[-2:]
        side //= 2
        products += 16 * inputs * outputs * side**2
        weights += 16 * inputs * outputs
        kept += 3 * (outputs * side**2 + inputs * 4 * side**2)
        widths.append(2 * outputs)
    ends = 16 * widths[-2]
    generator, discriminator = products + latent * ends, products + ends
    return Size(generator, discriminator, 2 * weights + (latent + 1) * ends, 3 * kept)
