"""Digits and MNIST with captions, made from the class and from what is measured of the image.

An image's label is the number of its caption in :data:`~dgm_bench.data.captions.CAPTIONS`. Whether
a stroke is thin or bold, and leans left or right, is said in comparison with the training images
of the same class: by thirds of their measured values. So attributes tell nothing of the class.
Morpho-MNIST (Castro et al., 2019, JMLR 20(178)) measures such attributes of MNIST, the slant in
the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int, Num
from torch import Tensor

from dgm_bench.data import labelled_images
from dgm_bench.data.captions import CAPTIONS, COMBINATIONS, KNOWN, LEVELS, NAMES
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.registry.computed import DIGITS_LABELLED
from dgm_bench.data.registry.labelled import MNIST_LABELLED

#: Images measured at a time.
AT_A_TIME = 500
#: What each caption says, in rows of class, thickness and slant.
SAID: Int[Tensor, "captions 3"] = torch.tensor(COMBINATIONS)


def load_digits(card: DatasetCard, home: Path) -> Dataset:
    """Return scikit-learn's digits with captions.

    Args:
        card: The set's.
        home: Not used; the images come with scikit-learn.
    """
    base = replace(card, sizes=DIGITS_LABELLED.sizes)
    return captioned(labelled_images.load_digits(base, home))


def load_mnist(card: DatasetCard, home: Path) -> Dataset:
    """Return MNIST, padded to 32x32, with captions.

    Raises:
        DataError: A file is truncated, corrupt, or not of MNIST's layout.
    """
    base = replace(card, sizes=MNIST_LABELLED.sizes)
    return captioned(labelled_images.load_mnist(base, home))


def captioned(data: Dataset) -> Dataset:
    """Return images of digits with captions in the place of their classes.

    Images with captions that are held out leave training and validation and join the test.
    """
    measured = {name: attributes(images) for name, images in data.splits.items()}
    cuts = [quantile_cuts(values, data.labels["train"]) for values in measured["train"]]
    labels = {name: _captions(of, data.labels[name], cuts) for name, of in measured.items()}
    known = {name: of < KNOWN for name, of in labels.items()}
    moved = ("train", "val")
    splits = {name: data.splits[name][known[name]] for name in moved}
    texts = {name: labels[name][known[name]] for name in moved}
    new = [(data.splits[name][~known[name]], labels[name][~known[name]]) for name in moved]
    splits["test"] = torch.cat([data.splits["test"], *(images for images, _ in new)])
    texts["test"] = torch.cat([labels["test"], *(of for _, of in new)])
    return replace(data, splits=splits, labels=texts, classes=CAPTIONS)


def classified(data: Dataset) -> Dataset:
    """Return the images with the class that their caption says; others as they are."""
    if data.classes != CAPTIONS:
        return data
    labels = {name: SAID[of.cpu(), 0] for name, of in data.labels.items()}
    return replace(data, labels=labels, classes=NAMES)


def _captions(
    measured: Sequence[Float[Tensor, " n"]],
    digits: Int[Tensor, " n"],
    cuts: Sequence[Float[Tensor, "classes cuts"]],
) -> Int[Tensor, " n"]:
    """Return the number of each image's caption."""
    pairs = zip(measured, cuts, strict=True)
    levels = [levels_of(values, digits, own) for values, own in pairs]
    numbers = torch.empty(len(NAMES), LEVELS, LEVELS, dtype=torch.int64)
    numbers[SAID.unbind(1)] = torch.arange(len(SAID))
    return numbers[digits, levels[0], levels[1]]


# ----------------------------------------------------------------------------- attributes


def attributes(
    images: Num[Tensor, "n channels height width"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return thickness and slant of images, bytes or pixels in [0, 1], in float64."""
    parts = images.split(AT_A_TIME)
    found = [(thickness(x), slant(x)) for x in (part.double()[:, 0] for part in parts)]
    widths, slants = zip(*found, strict=True)
    return torch.cat(widths), torch.cat(slants)


def thickness(x: Float[Tensor, "n height width"]) -> Float[Tensor, " n"]:
    """Return the width of the strokes in pixels: twice the ink over the length of its outline.

    A long stroke of ink 1, width w and length l has an area of w l and an outline of 2 l. Of grey
    images the outline is the total variation. Without ink it is 0.
    """
    padded = F.pad(x, (1, 1, 1, 1))
    down = padded[:, 1:, :-1] - padded[:, :-1, :-1]
    across = padded[:, :-1, 1:] - padded[:, :-1, :-1]
    outline = torch.hypot(down, across).sum((1, 2))
    return 2 * x.sum((1, 2)) / outline.clamp(min=torch.finfo(x.dtype).tiny)


def slant(x: Float[Tensor, "n height width"]) -> Float[Tensor, " n"]:
    """Return how far the strokes lean to the right, in degrees from the vertical.

    It is the shear that the image's moments tell, ``atan(-m_xy / m_yy)``, as rows count downwards.
    Without ink, or in one row of it, it is 0.
    """
    ink = x.sum((1, 2)).clamp(min=torch.finfo(x.dtype).tiny)
    rows, columns = (torch.arange(side, dtype=x.dtype, device=x.device) for side in x.shape[1:])
    down = rows - ((x.sum(2) @ rows) / ink)[:, None]
    across = columns - ((x.sum(1) @ columns) / ink)[:, None]
    spread = (x.sum(2) * down.square()).sum(1)
    mixed = torch.einsum("nhw,nh,nw->n", x, down, across)
    return torch.rad2deg(torch.atan2(-mixed, spread))


# ----------------------------------------------------------------------------- levels


def quantile_cuts(
    values: Float[Tensor, " n"], digits: Int[Tensor, " n"]
) -> Float[Tensor, "classes cuts"]:
    """Return what divides the values of each class into thirds."""
    shares = torch.arange(1, LEVELS, dtype=values.dtype) / LEVELS
    return torch.stack([values[digits == digit].quantile(shares) for digit in range(len(NAMES))])


def levels_of(
    values: Float[Tensor, " n"],
    digits: Int[Tensor, " n"],
    cuts: Float[Tensor, "classes cuts"],
) -> Int[Tensor, " n"]:
    """Return the level of each value among those of its class: how many cuts are below it."""
    return (values[:, None] > cuts[digits]).sum(1)


def cuts_between(
    values: Float[Tensor, " n"], digits: Int[Tensor, " n"], levels: Int[Tensor, " n"]
) -> Float[Tensor, "classes cuts"]:
    """Return cuts halfway between the values of captioned images, which know their levels.

    A cut is infinite where a class has no images on one of its sides.
    """
    found = values.new_empty(len(NAMES), LEVELS - 1)
    for digit in range(len(NAMES)):
        for cut in range(LEVELS - 1):
            below = values[(digits == digit) & (levels <= cut)]
            above = values[(digits == digit) & (levels > cut)]
            sides = (
                below.max().item() if len(below) else -torch.inf,
                above.min().item() if len(above) else torch.inf,
            )
            found[digit, cut] = sum(sides) / 2 if sum(map(len, (below, above))) else 0.0
    return found
