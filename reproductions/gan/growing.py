"""Games that grow: ProGAN (Karras et al., 2018) and StyleGAN (Karras et al., 2019)."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from dgm_bench.data import card
from dgm_bench.spec import ImageEvaluationSpec, ModelSpec, Recipe

from .shared import DRAWN, SOURCE, TUNED, Rule, Size, image_evaluation, recipe, stage

#: Adam's moments (both papers).
BETAS = (0.0, 0.99)
#: ProGAN's loss (appendix A.1) and, for CIFAR-10, its other target (section 6.5); StyleGAN's for
#: FFHQ (appendix C).
CRITIC = {"loss": "wasserstein", "gradient_penalty": 10.0, "drift": 0.001}
TARGETS = {"cifar10-labelled": 750.0}
#: StyleGAN's R1 and mapping network for FFHQ (appendix C), and for smaller images: slopes over
#: pixels grow with the size of pixels, a deep mapping network keeps images alike in so short a
#: training, and blurs at a few pixels leave little.
PUBLISHED_STYLES = {"mapping_layers": 8, "mixing": 0.9, "bilinear": True}
OUR_STYLES = {"mapping_layers": 2, "mixing": 0.0, "bilinear": False}
PUBLISHED_R1, OUR_R1 = 10.0, 0.01
SOURCES = {
    "progan/cifar10-labelled": "tkarras/progressive_growing_of_gans, Theano version, config.py",
    "progan/ffhq-1024": "Karras et al. (2018), appendix A; the authors' config.py for CelebA-HQ",
    "stylegan/ffhq-1024": "Karras et al. (2019), section 2 and appendix C; NVlabs/stylegan",
}
#: StyleGAN's table 1: 50,000 samples beside as many images of the training set.
FFHQ_EVALUATION = ImageEvaluationSpec(
    samples=50_000,
    compared=50_000,
    reference=50_000,
    features=("inception-v3-compat",),
    score=False,
)
#: Of ``w`` in StyleGAN, among those of its authors' pictures; ProGAN has no such trick.
TRUNCATIONS: dict[str, tuple[float, ...]] = {"progan": (), "stylegan": (0.85, 0.7, 0.5, 0.3)}


class Setting(NamedTuple):
    """What is chosen for a data set.

    Attributes:
        rule: How the game is trained.
        latent: Number of noise variables.
        filters: Feature maps of each resolution, the smallest first.
        growth: Shorter side of the first images; images for which a resolution is trained before
            the next one is faded in, and for which that is.
        group: Images over which the discriminator sees a deviation; None for a batch.
    """

    rule: Rule
    latent: int
    filters: list[int]
    growth: tuple[int, int, int]
    group: int | None = None

    @property
    def args(self) -> dict[str, Any]:
        """The arguments that both models have."""
        start, stable, fade = self.growth
        return {
            "latent": self.latent,
            "filters": self.filters,
            "start": start,
            "stable": stable,
            "fade": fade,
            "deviation_group": self.group,
        }


def _rule(
    updates: int, batch_size: int, lr: float, average: float, *, at_once: bool = False
) -> Rule:
    """Return how a game is trained, its players in turn or at once, with the same rate."""
    return Rule(updates, None if at_once else 1, batch_size, lr, lr, BETAS, average)


#: For 1024 x 1024, of both papers.
LARGE = [512, 512, 512, 512, 256, 128, 64, 32, 16]
#: For MNIST.
MEDIUM = [64, 64, 32, 16]
PROGAN = {
    "digits-labelled": Setting(_rule(4_000, 32, 2e-3, 0.998), 32, [32, 32], (4, 8_000, 16_000)),
    "mnist-labelled": Setting(_rule(8_000, 32, 2e-3, 0.999), 64, MEDIUM, (4, 12_000, 16_000)),
    "cifar10-labelled": Setting(
        _rule(1_250_000, 16, 1e-3, 0.999, at_once=True), 128, [128] * 4, (4, 400_000, 400_000)
    ),
    "ffhq-1024": Setting(_rule(1_187_500, 16, 1e-3, 0.999), 512, LARGE, (4, 800_000, 800_000)),
}
STYLEGAN = {
    "digits-labelled": Setting(_rule(4_000, 32, 2e-3, 0.998), 32, [32, 32], (4, 8_000, 16_000)),
    "mnist-labelled": Setting(_rule(8_000, 32, 2e-3, 0.999), 64, MEDIUM, (4, 12_000, 16_000)),
    "cifar10-labelled": Setting(
        _rule(625_000, 32, 1e-3, 0.9978), 128, [128] * 4, (8, 600_000, 600_000)
    ),
    "ffhq-1024": Setting(_rule(781_250, 32, 3e-3, 0.9978), 512, LARGE, (8, 600_000, 600_000), 4),
}


def progan(data: str, features: str = "classifier") -> Recipe | None:
    """ProGAN with the Wasserstein loss and a gradient penalty.

    Args:
        data: The column's data set.
        features: Those by which images are compared.
    """
    if (setting := PROGAN.get(data)) is None:
        return None
    model = ModelSpec(name="progan:ProGAN", args=setting.args)
    loss = {**CRITIC, "gradient_target": TARGETS.get(data, 1.0)}
    return _recipe(data, features, setting, model, loss)


def stylegan(data: str, features: str = "classifier") -> Recipe | None:
    """StyleGAN with the non-saturating loss and R1.

    Args:
        data: The column's data set.
        features: Those by which images are compared.
    """
    if (setting := STYLEGAN.get(data)) is None:
        return None
    published = data == "ffhq-1024"
    styles = PUBLISHED_STYLES if published else OUR_STYLES
    args = {**setting.args, **styles, "truncated_layers": None}
    model = ModelSpec(name="stylegan:StyleGAN", args=args)
    loss = {"loss": "non-saturating", "r1": PUBLISHED_R1 if published else OUR_R1}
    return _recipe(data, features, setting, model, loss)


def _recipe(
    data: str, features: str, setting: Setting, model: ModelSpec, loss: dict[str, object]
) -> Recipe:
    name = model.name.partition(":")[0]
    large = data == "ffhq-1024"
    drawn = setting.rule.batch_size if large else DRAWN
    train = stage(data, model, setting.rule, loss, conditional=False, drawn=drawn)
    images = FFHQ_EVALUATION if large else image_evaluation(data, features, TRUNCATIONS[name])
    source = SOURCES.get(f"{name}/{data}", SOURCE)
    size = _size(data, setting, model.args.get("mapping_layers"))
    return recipe(data, name, train, size, images, _notes(name, data), source)


def _notes(name: str, data: str) -> tuple[str, ...]:
    """Return what is not as in the papers."""
    if f"{name}/{data}" not in SOURCES:
        return ("widths, rate, length and growth are chosen", TUNED, "no classes")
    kept = "Adam's moments are kept where a layer comes in; the authors' code forgets them"
    batch = "one batch size and one rate, where the authors' depend on the resolution"
    if data == "cifar10-labelled":
        return (kept, "45,000 images, of 50,000")
    return (kept, batch, "no mirror images; 55,000 images, of 70,000")


# --------------------------------------------------------------------------- costs


def _size(data: str, setting: Setting, mapping: int | None) -> Size:
    """Count products, of which each resolution has its share of the images that are shown."""
    _, height, width = card(data).event_shape
    top = int(math.log2(min(height, width) // 4))
    filters = [*setting.filters, *setting.filters[-1:] * top][: top + 1]
    places = [(height >> (top - level)) * (width >> (top - level)) for level in range(top + 1)]
    convolutions = [9 * filters[0] ** 2] + [9 * (a * b + b * b) for a, b in pairwise(filters)]
    products = list(accumulate(n * at for n, at in zip(convolutions, places, strict=True)))
    shown = sum(share * n for share, n in zip(_shares(setting, top), products, strict=True))
    latent, ends = setting.latent, places[0] * filters[0]
    styles = latent * (mapping * latent + 4 * sum(filters)) if mapping else latent * ends
    kept = sum(12 * n * at for n, at in zip(filters, places, strict=True))
    weights = 2 * sum(convolutions) + styles + ends * filters[0]
    return Size(shown + styles, shown + ends * filters[0], weights, kept)


def _shares(setting: Setting, top: int) -> list[float]:
    """Return the part of the images for which each resolution is the largest."""
    start, stable, fade = setting.growth
    images = setting.rule.updates * setting.rule.batch_size
    first = int(math.log2(start // 4))
    begins = [0, *(stable + k * (stable + fade) for k in range(top - first))]
    ends = [*begins[1:], images]
    return [0.0] * first + [
        (min(end, images) - min(begin, images)) / images
        for begin, end in zip(begins, ends, strict=True)
    ]
