"""ImageNet at 256x256 and FFHQ at 1024x1024, from folders that the user has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dgm_bench.data.cards import DataFile, DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.decoded import Decoded, Prepare, Source, decoded
from dgm_bench.data.files import Listed, listed
from dgm_bench.data.image_files import oddities, opened
from dgm_bench.data.labelled_images import image_dataset
from dgm_bench.errors import DataError

#: Largest size of the validation split, which is otherwise a tenth of the train images.
IMAGENET_VALIDATION = 10_000
VALIDATION_SEED = 256
#: Number of images that are checked before a folder is decoded.
PROBED = 256
#: Raised where images are read in another way, or others are refused: arrays are then made anew.
PREPARED = 2
GREY_MODES = ("1", "L", "LA")
#: What is said of the oddities of images.
ODDITIES = {
    "palette": "of a palette",
    "transparent": "transparent and shown opaque",
    "turned": "to be shown turned and left as stored",
    "frames": "of several frames, of which the first is taken",
}
COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


# -------------------------------------------------------------------------------- ImageNet


def load_imagenet(card: DatasetCard, home: Path) -> Dataset:
    """Load ImageNet from ``train/<wnid>/`` and ``val/<wnid>/``; its validation images are the test.

    Of the train images a fixed random tenth, at most 10,000, validates. See :func:`square` for how
    images get their size.

    Raises:
        DataError: The folders hold no images, images outside of class folders, a class in val
            alone, only grey or only smaller images, or one that cannot be decoded.
    """
    train, test = (_images_in(card, home, file) for file in card.files)
    classes = _classes(home, train, test)
    side = card.event_shape[-1]
    _probe(home / card.files[0].path, home, train, side)
    splits = {**_validating_on_random(card, home, train), "test": test}
    number = {wnid: label for label, wnid in enumerate(classes)}
    labels = {
        name: torch.tensor([number[_wnid(file)] for file in files], dtype=torch.int64)
        for name, files in splits.items()
    }
    found = _decoded(card, home, splits, partial(square, side=side))
    return _dataset(card, found, labels, classes)


def square(image: Image.Image, path: Path, *, side: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the square in the middle, as long as the shorter side, as ``side`` by ``side`` in RGB.

    It is resized with Pillow's bicubic filter, whose support grows with the reduction, so that
    nothing is aliased. Grey and CMYK images, of which ImageNet has some, become RGB, and smaller
    ones are enlarged; both are counted, and so are :func:`oddities`.

    Raises:
        DataError: Pixels are not 8 bits a channel.
    """
    _require_bytes(image, path)
    done = (image.mode,) if image.mode in (*GREY_MODES, "CMYK") else ()
    done = (*done, *oddities(image))
    shorter = min(image.size)
    left, top = ((length - shorter) // 2 for length in image.size)
    middle = image.convert("RGB").crop((left, top, left + shorter, top + shorter))
    resized = middle.resize((side, side), Image.Resampling.BICUBIC)
    return resized, (*done, "smaller") if shorter < side else done


def _wnid(file: Listed) -> str:
    return file.path.split("/")[1]


def _classes(home: Path, train: Sequence[Listed], test: Sequence[Listed]) -> tuple[str, ...]:
    """Return the classes of train, sorted; every image lies in the folder of one of them."""
    for file in (*train, *test):
        if file.path.count("/") != 2:
            folder = file.path.split("/")[0]
            reason, remedy = "lies in no class folder", f"put it into {folder}/<wnid>/"
            raise DataError(home / file.path, reason, remedy)
    known = {_wnid(file) for file in train}
    for wnid in sorted({_wnid(file) for file in test} - known):
        reason = "is a class that train does not have"
        raise DataError(home / "val" / wnid, reason, f"add train/{wnid}, or take it out of val")
    return tuple(sorted(known))


def _validating_on_random(
    card: DatasetCard, home: Path, train: Sequence[Listed]
) -> dict[str, list[Listed]]:
    """Split the train images, which are sorted by class, at random into train and validation."""
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(train))
    validating = min(IMAGENET_VALIDATION, max(len(train) // 10, 1))
    if validating == len(train):
        _too_few(home / card.files[0].path, len(train), 2)
    chosen = set(order[-validating:].tolist())
    return {
        "train": [file for i, file in enumerate(train) if i not in chosen],
        "val": [train[i] for i in sorted(chosen)],
    }


def _probe(folder: Path, home: Path, files: Sequence[Listed], side: int) -> None:
    """Check some images before hours of decoding.

    Raises:
        DataError: All of them are grey, all are too small, or one is not an image.
    """
    some = files[:: -(-len(files) // PROBED)]
    modes, sides = set(), set()
    for file in some:
        with opened(home / file.path) as image:
            modes.add(image.mode)
            sides.add(min(image.size))
    first = home / some[0].path
    if modes <= set(GREY_MODES):
        reason = f"all {len(some)} images looked at are grey, {first} among them, expected colour"
        raise DataError(folder, reason, "put the images in colour there, or convert them to RGB")
    if max(sides) < side:
        reason = (
            f"all {len(some)} images looked at, {first} among them, are smaller than {side}x{side}"
        )
        raise DataError(folder, reason, "put the images in their original size there")


# -------------------------------------------------------------------------------- FFHQ


def load_ffhq(card: DatasetCard, home: Path) -> Dataset:
    """Load FFHQ from its PNG files in the order of their paths, which is that of their numbers.

    The first six sevenths train and the last seventh is the test, as in the published list
    (60,000 and 10,000); the last twelfth of the first part validates (5,000).

    Raises:
        DataError: There are no images, or one is grey, of another size, or cannot be decoded.
    """
    published = "images1024x1024"  # beside it lie thumbnails and the originals
    (folder,) = card.files
    whole = (home / published).is_dir()
    files = _images_in(card, home, folder, published if whole else folder.path)
    test, val = len(files) // 7, len(files) // 14
    if not val:
        _too_few(home, len(files), 14)
    train = len(files) - test - val
    splits = {"train": files[:train], "val": files[train:-test], "test": files[-test:]}
    prepare = partial(as_published, side=card.event_shape[-1])
    return _dataset(card, _decoded(card, home, splits, prepare), {}, ())


def as_published(
    image: Image.Image, path: Path, *, side: int
) -> tuple[Image.Image, tuple[str, ...]]:
    """Return an image of ``side`` by ``side`` in colour as it is, in RGB, and its oddities.

    Raises:
        DataError: It is grey, of another size, or its pixels are not 8 bits a channel.
    """
    _require_bytes(image, path)
    if image.mode in GREY_MODES:
        remedy = "replace it by the image in colour, or convert it to RGB"
        raise DataError(path, f"is grey (mode {image.mode}), expected colour", remedy)
    if image.size != (side, side):
        found = "x".join(map(str, image.size))
        reason = f"is {found}, expected {side}x{side}"
        raise DataError(path, reason, "put the images of images1024x1024 there")
    return image.convert("RGB"), oddities(image)


# -------------------------------------------------------------------------------- both


def _images_in(
    card: DatasetCard, home: Path, file: DataFile, folder: str | None = None
) -> list[Listed]:
    """Return the image files of a folder, of which there has to be one at least."""
    folder = folder or file.path
    found = listed(home, folder, file.suffixes)
    if not found:
        reason = f"holds no images ({', '.join(file.suffixes)})"
        raise DataError(home / folder, reason, f"lay them out as {card.layout}")
    return found


def _require_bytes(image: Image.Image, path: Path) -> None:
    if image.mode not in (*GREY_MODES, *COLOUR_MODES):
        remedy = "convert it to 8 bits a channel in RGB"
        raise DataError(path, f"has pixels of mode {image.mode}", remedy)


def _too_few(folder: Path, found: int, needed: int) -> NoReturn:
    reason = f"holds {found} images, and the splits need {needed}"
    raise DataError(folder, reason, "put more of them there")


def _decoded(
    card: DatasetCard, home: Path, splits: Mapping[str, Sequence[Listed]], prepare: Prepare
) -> Decoded:
    """Return the arrays of the images, which go below the data root, which holds ``home``."""
    channels, height, width = card.event_shape
    shape = (channels, height, width)
    source = Source(f"{card.name} {card.version} {PREPARED}", home, splits, shape, prepare)
    return decoded(source, home.parent / "decoded" / card.name)


def expected(card: DatasetCard) -> Dataset:
    """Return a set as its card says it is, with splits of no images: for checks of all else."""
    nothing = torch.zeros((), dtype=torch.uint8)
    splits = {name: nothing.expand(size, *card.event_shape) for name, size in card.sizes.items()}
    first = torch.zeros((), dtype=torch.int64)
    labels = {name: first.expand(size) for name, size in card.sizes.items()}
    classes = tuple(map(str, range(card.classes or 0)))
    return image_dataset(card, splits, labels if classes else {}, classes)


def _dataset(
    card: DatasetCard, found: Decoded, labels: Mapping[str, Tensor], classes: tuple[str, ...]
) -> Dataset:
    """Return the set; it counts as verified when its splits have the published sizes."""
    sizes = {name: len(split) for name, split in found.splits.items()}
    verified = sizes == dict(card.sizes)
    return replace(
        image_dataset(card, found.splits, labels, classes),
        files=found.files,
        verified=verified,
        note="; ".join((card.note, *_remarks(card, sizes, found.treated))),
        resident=False,
        known_fingerprints=found.fingerprints,
    )


def _remarks(card: DatasetCard, sizes: Mapping[str, int], treated: Mapping[str, int]) -> list[str]:
    """Return remarks on converted images and unpublished numbers of images."""
    counts = Counter(treated)
    grey = sum(counts[mode] for mode in GREY_MODES)
    words = {"grey": grey, "CMYK": counts["CMYK"], "enlarged": counts["smaller"]}
    words |= {word: counts[name] for name, word in ODDITIES.items()}
    remarks = [", ".join(f"{n:,} {word}" for word, n in words.items() if n)]
    if sizes != dict(card.sizes):
        here = ", ".join(f"{n:,} {name}" for name, n in sizes.items())
        remarks.append(f"not the published numbers of images: {here}")
    return [remark for remark in remarks if remark]
