"""SAGAN, BigGAN and BigGAN-deep: the papers' settings on ImageNet, ours on smaller images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from dgm_bench.data import card
from dgm_bench.spec import ImageEvaluationSpec, ModelSpec, Recipe, ScheduleSpec

from .shared import SOURCE as CHOSEN
from .shared import TRUNCATIONS, TUNED, Rule, Size, image_evaluation, recipe, stage

#: Weight of orthogonal regularisation (BigGAN, section 3.1).
ORTHOGONAL = 1e-4
#: Adam's moments: SAGAN, section 4; BigGAN, appendix C.
SAGAN_BETAS, BETAS = (0.0, 0.9), (0.0, 0.999)

# ------------------------------------------------------------------------- models


class Widths(NamedTuple):
    """Of both players, as multiples of a width.

    Attributes:
        width: Channels that the others are multiples of.
        up: Of the generator.
        down: Of the discriminator.
        halvings: Of its images.
        attention: Height of images where both players attend; None for none.
    """

    width: int
    up: tuple[int, ...]
    down: tuple[int, ...]
    halvings: int
    attention: tuple[int, int] | None

    @property
    def args(self) -> dict[str, Any]:
        """The arguments of models."""
        of_generator, of_discriminator = self.attention or (None, None)
        return {
            "width": self.width,
            "generator_widths": list(self.up),
            "discriminator_widths": list(self.down),
            "halvings": self.halvings,
            "generator_attention": of_generator,
            "discriminator_attention": of_discriminator,
        }


#: Tables 4 to 9 of BigGAN's appendix B, but the discriminators' widths, which are those of its
#: authors' code: printed are 2, 4, 8, 16, 16 and 16 at 128x128. SAGAN's are of its authors' code.
UP = {
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
DOWN = {
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}
#: Where the generator of BigGAN attends; the discriminator, and BigGAN-deep, at 64x64.
GENERATOR_ATTENTION = {128: 64, 256: 128, 512: 64}
DIGITS = Widths(16, (4, 2), (2, 4, 4), 2, (8, 4))
MNIST = Widths(16, (4, 4, 2, 1), (1, 2, 4, 4), 3, (16, 16))
#: ajbrock/BigGAN-PyTorch, of 32x32: no attention, two of the discriminator's blocks halve.
CIFAR10 = Widths(64, (4, 4, 4, 4), (4, 4, 4, 4), 2, None)
SMALL = {"digits-labelled": DIGITS, "mnist-labelled": MNIST, "cifar10-labelled": CIFAR10}
#: Parts of the noise, and the classes' vectors.
PARTS = {"digits-labelled": (8, 16), "mnist-labelled": (8, 32), "cifar10-labelled": (32, 128)}


def _widths(data: str, width: int, attention: dict[int, int]) -> Widths:
    side = card(data).event_shape[-1]
    at = (attention[side], min(attention[side], 64))
    return Widths(width, UP[side], DOWN[side], len(UP[side]) - 1, at)


# ------------------------------------------------------------------------- rules

#: Of BigGAN on ImageNet: table 1 and appendix C. How long is chosen: it trains until it collapses.
PUBLISHED = Rule(150_000, 2, 2_048, 5e-5, 2e-4, BETAS, 0.9999)
#: Updates of the generator; both rates fall along half a cosine.
RULES = {
    "digits-labelled": Rule(2_500, 1, 64, 2.5e-4, 1e-3, BETAS, 0.99),
    "mnist-labelled": Rule(10_000, 1, 64, 2.5e-4, 1e-3, BETAS, 0.999),
}
#: mit-han-lab/data-efficient-gans, biggan-cifar10.sh: 1,000 epochs of its 50,000 images, 200 an
#: update.
CIFAR10_RULE = Rule(250_000, 4, 50, 2e-4, 2e-4, BETAS, 0.9999)
SAGAN_RULES = {
    "digits-labelled": Rule(2_500, 1, 64, 2.5e-4, 1e-3, SAGAN_BETAS, 0.99),
    "mnist-labelled": Rule(10_000, 1, 64, 2.5e-4, 1e-3, SAGAN_BETAS, 0.999),
    "cifar10-labelled": Rule(250_000, 1, 64, 1e-4, 4e-4, SAGAN_BETAS, 0.9999),
    "imagenet-128": Rule(1_000_000, 1, 256, 1e-4, 4e-4, SAGAN_BETAS, None),
}
#: ImageNet, compared as published: 50,000 samples, Inception v3.
IMAGENET = ImageEvaluationSpec(
    samples=50_000,
    compared=50_000,
    reference=50_000,
    features=("inception-v3-compat",),
    score=False,
    truncations=TRUNCATIONS,
)
#: Images that are drawn at a time: of ImageNet, and of small ones.
DRAWN = (50, 500)

NOTES = (
    "widths, rates and lengths for digits and MNIST are chosen, and so is that both rates fall "
    "along half a cosine; the noise has 8 numbers a part",
    "shared embedding, parts of the noise, projection, orthogonal initialisation and "
    "regularisation (1e-4) and standing statistics are the paper's",
    TUNED,
)
CIFAR10_NOTES = (
    "rates, batch, updates and initial weights of data-efficient-gans (biggan-cifar10.sh), whose "
    "CIFAR-10 generator has a table of batch norms for each class, and its noise in one piece",
    "no attention and no orthogonal regularisation, as there; without its mirror images",
    "trained on 45,000 of the 50,000 images that are theirs; the last checkpoint, theirs the best",
)
IMAGENET_NOTES = (
    "rates, updates a step, batch and moments as stated in the authors' released code; the weight "
    "1e-4 of orthogonal regularisation and the decay 0.9999 are recalled, not verified",
    "the paper trains until the game collapses and takes a checkpoint from before: 150,000 updates "
    "here, as the released code's script; the last parameters",
)
DEEP_NOTE = (
    "at 128x128 the released generator has 125 channels more in its last convolution, which "
    "nothing reads and the published 50.4 million parameters count: so here too"
)
SAGAN_NOTES = (
    "widths are those of the authors' code, whose attention pools keys and values; weights begin "
    "by Xavier and Bengio's rule as there",
)
SAGAN_IMAGENET_NOTES = (
    "rates and moments are the paper's (section 4), with one update of each player; up to a "
    "million updates; the batch of 256 is that of public re-implementations",
)


# ------------------------------------------------------------------------- recipes


def sagan(data: str, features: str = "classifier") -> Recipe | None:
    """SAGAN: the paper's at 128x128, ours on small images.

    Args:
        data: The column's data set.
        features: Those by which small images are compared.
    """
    if data not in SAGAN_RULES:
        return None
    widths = SMALL.get(data) or _widths(data, 64, {128: 32})
    small, rule = data in SMALL, SAGAN_RULES[data]
    args: dict[str, Any] = {
        "classes": card(data).classes,
        "latent": 128,
        **widths.args,
        "initial": "xavier",
    }
    notes = SAGAN_NOTES + ((NOTES[0], TUNED) if small else SAGAN_IMAGENET_NOTES)
    source = CHOSEN if small else "Zhang et al. (2019), sections 3 and 4"
    return _recipe("sagan", data, "sagan:SAGAN", args, rule, 0.0, features, notes, source)


def biggan(data: str, features: str = "classifier") -> Recipe:
    """BigGAN: the paper's at 128x128, 256x256 and 512x512, ours on small images.

    Args:
        data: The column's data set.
        features: Those by which small images are compared.
    """
    widths = SMALL.get(data) or _widths(data, 96, GENERATOR_ATTENTION)
    part, embedding = PARTS.get(data, (20, 128))
    latent = part * len(widths.up)
    return _biggan("biggan", data, "biggan:BigGAN", widths, latent, embedding, features, {})


def biggan_deep(data: str, features: str = "classifier") -> Recipe:
    """BigGAN-deep: the paper's at 128x128, 256x256 and 512x512, ours on small images.

    Args:
        data: The column's data set.
        features: Those by which small images are compared.
    """
    attention = dict.fromkeys(GENERATOR_ATTENTION, 64)
    widths = SMALL.get(data) or _widths(data, 128, attention)
    if data in RULES:  # its discriminator has a convolution before the first block
        widths = widths._replace(down=(widths.down[0], *widths.down))
    part, embedding = PARTS.get(data, (32, 128))
    latent = 4 * part
    more = {"unused": 0 if data in SMALL else 125}
    return _biggan(
        "biggan-deep", data, "biggan_deep:BigGANDeep", widths, latent, embedding, features, more
    )


def _biggan(
    kind: str,
    data: str,
    model: str,
    widths: Widths,
    latent: int,
    embedding: int,
    features: str,
    more: dict[str, Any],
) -> Recipe:
    initial = "normal" if data == "cifar10-labelled" else "orthogonal"
    args: dict[str, Any] = {"classes": card(data).classes, "latent": latent}
    args |= {"embedding": embedding, **widths.args, "initial": initial, **more}
    notes: tuple[str, ...] = IMAGENET_NOTES
    source = "Brock et al. (2019), section 3 and appendices B and C"
    rule, orthogonal = PUBLISHED, ORTHOGONAL
    if data in RULES:
        notes, source, rule = NOTES, CHOSEN, RULES[data]
    elif data in SMALL:
        notes, rule, orthogonal = CIFAR10_NOTES, CIFAR10_RULE, 0.0
        source = "data-efficient-gans, biggan-cifar10.sh"
    elif more:
        notes = (*notes, DEEP_NOTE)
    return _recipe(kind, data, model, args, rule, orthogonal, features, notes, source)


def _recipe(
    kind: str,
    data: str,
    model: str,
    args: dict[str, Any],
    rule: Rule,
    orthogonal: float,
    features: str,
    notes: tuple[str, ...],
    source: str,
) -> Recipe:
    loss = {"loss": "hinge", "orthogonal": orthogonal}
    spec, drawn = ModelSpec(name=model, args=args), DRAWN[data in SMALL]
    train = stage(data, spec, rule, loss, conditional=True, drawn=drawn)
    if data in RULES:
        schedule = ScheduleSpec(cosine_steps=rule.steps)
        train = train.model_copy(update={"schedule": schedule})
    images = image_evaluation(data, features) if data in SMALL else IMAGENET
    return recipe(data, kind, train, _size(data, model, args), images, notes, source)


# ------------------------------------------------------------------------- costs


class Layer(NamedTuple):
    """A convolution, or several that are alike.

    Attributes:
        weights: Of all of them.
        places: Where they are applied.
        kept: Channels that training keeps of their inputs, normalised and rectified.
    """

    weights: int
    places: int
    kept: int


def _size(data: str, model: str, args: dict[str, Any]) -> Size:
    """Count convolutions; attention counts as its 1x1 ones."""
    channels, side, _ = card(data).event_shape
    up = [args["width"] * n for n in args["generator_widths"]]
    down = [args["width"] * n for n in args["discriminator_widths"]]
    deep = model.endswith("Deep")
    first = side >> (len(up) - 1)
    generator = [Layer(9 * up[-1] * channels, side**2, up[-1])]
    generator += _up(up, first, deep)
    discriminator = list(_down(down, channels, side, args["halvings"], deep))
    condition = args["latent"] + args.get("embedding", 0)
    maps = 2 * condition * sum(up) * (5 if deep else 2) + condition * up[0] * first**2
    both = [*generator, *discriminator]
    return Size(
        sum(layer.weights * layer.places for layer in generator),
        sum(layer.weights * layer.places for layer in discriminator),
        sum(layer.weights for layer in both) + maps,
        sum(layer.kept * layer.places for layer in both),
        1_200 if deep else 400,
    )


def _up(widths: Sequence[int], first: int, deep: bool) -> Iterator[Layer]:
    for i, (before, after) in enumerate(pairwise(widths)):
        places = (first << (i + 1)) ** 2
        if deep:
            inner = before // 4
            yield Layer(2 * before * inner + 18 * inner**2, places // 4, 3 * before)
            yield Layer(18 * inner**2 + inner * after, places, 6 * inner + 2 * after)
        else:
            yield Layer(9 * (before + after) * after, places, 3 * (before + after))


def _down(
    widths: Sequence[int], channels: int, side: int, halvings: int, deep: bool
) -> Iterator[Layer]:
    for i, (before, after) in enumerate(pairwise([channels, *widths])):
        places = (side >> min(max(i - deep, 0), halvings)) ** 2
        if deep and i == 0:
            yield Layer(9 * before * after, places, after)
        elif deep:
            inner, later = after // 4, places // 4 if i <= halvings else places
            yield Layer(before * inner + 18 * inner**2, places, before + 6 * inner)
            yield Layer(after * after + 18 * inner**2, later, 4 * after)
        else:
            yield Layer(9 * (before + after) * after, places, 3 * after)
