"""The suite's own image classifier: it gives features, rejects samples, and scores accuracy.

It is small, needs no weights of others, and is the same for every model of a data set: it is
trained on the data set's train split with a seed of its own, and known by a hash of its weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset, fingerprint
from dgm_bench.data.labelled_images import pixels
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import each, scope, steps
from dgm_bench.keyed_tensors import read_keyed, weights_hash, write_keyed

#: Part of the key of a stored classifier: changes whenever the same settings give another network.
ARCHITECTURE = "residual-1"
REFERENCE_SEED = 0

#: Bytes, or floats in [0, 1].
Images = Num[Tensor, "n channels height width"]


@dataclass(frozen=True)
class ClassifierSettings:
    """What network is trained, and how.

    Attributes:
        widths: Channels of each stage; every stage but the first halves height and width. The
            last is the number of features.
        blocks: Residual blocks of each stage.
        stem_stride: Stride of the first convolution.
        epochs: Passes over the images.
        batch_size: Images at a time; an incomplete last batch of an epoch is left out.
        lr: Largest learning rate, of SGD with Nesterov's momentum 0.9; it rises linearly in the
            first tenth of the steps, then falls to 0 along a cosine.
        weight_decay: Of all parameters.
        shift: Images are moved by up to as many pixels, both ways; zeros come in.
        flip: Whether images are mirrored with probability one half.
    """

    widths: tuple[int, ...]
    blocks: int = 1
    stem_stride: int = 1
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    shift: int = 2
    flip: bool = False


def settings_for(image_shape: tuple[int, int, int]) -> ClassifierSettings:
    """Return the settings for images ``(channels, height, width)``; grey ones are not mirrored."""
    colour, side = image_shape[0] > 1, max(image_shape[1:])
    if side <= 16:
        return ClassifierSettings((16, 64), epochs=12, batch_size=64, shift=1, flip=colour)
    if side <= 64 and not colour:
        return ClassifierSettings((16, 32, 64), stem_stride=2, epochs=4, batch_size=128)
    if side <= 64:
        widths = (32, 64, 128)
        return ClassifierSettings(widths, 2, epochs=30, batch_size=256, shift=4, flip=True)
    large, shift = (64, 128, 128, 128, 128), side // 16
    return ClassifierSettings(large, 2, 4, epochs=30, batch_size=256, shift=shift, flip=colour)


# ----------------------------------------------------------------------------- the network


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., 2016, figure 2)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels, 3, stride)
        self.second = _convolution(channels, channels, 3, 1)
        same = channels_in == channels and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(channels_in, channels, 1, stride)

    def forward(
        self, x: Float[Tensor, "batch channels_in height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Return the block's activations."""
        residual: Tensor = self.second(self.first(x).relu())
        activations: Tensor = (self.shortcut(x) + residual).relu()
        return activations


class ImageClassifier(nn.Module):
    """A small residual network for images of any size, in float32.

    Batch normalisation uses its running averages in evaluation, so that an image's features do
    not depend on the images beside it.

    Args:
        image_shape: Channels, height and width.
        classes: Number of classes.
        settings: Widths, blocks and first stride; those of :func:`settings_for` without.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        settings: ClassifierSettings | None = None,
    ) -> None:
        super().__init__()
        settings = settings or settings_for(image_shape)
        widths, stride = settings.widths, settings.stem_stride
        self.stem = _convolution(image_shape[0], widths[0], max(3, 2 * stride - 1), stride)
        steps = [(widths[0], widths[0], 1), *((a, b, 2) for a, b in pairwise(widths))]
        blocks = []
        for narrow, wide, step in steps:
            blocks.append(ResidualBlock(narrow, wide, step))
            blocks += [ResidualBlock(wide, wide, 1) for _ in range(settings.blocks - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)
        self.float()

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch d"]:
        """Return the last layer's inputs of images with pixels in [0, 1]; ``d`` is 64 or 128."""
        activations: Tensor = self.blocks(self.stem(x.float()).relu())
        return activations.mean((2, 3))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return unnormalised log probabilities of the classes."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _convolution(channels_in: int, channels: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


# ----------------------------------------------------------------------------- training


def train_classifier(
    images: Images,
    labels: Int[Tensor, " n"],
    classes: int,
    settings: ClassifierSettings | None = None,
    *,
    seed: int,
    device: torch.device | str,
) -> ImageClassifier:
    """Return a classifier trained on images, in evaluation mode and without gradients.

    On a CPU the same arguments give the same weights, bit for bit, with as many threads.

    Args:
        images: Bytes, or floats in [0, 1]; they stay on the device that they are on.
        labels: Classes, from 0 on.
        classes: Number of classes.
        settings: Those of :func:`settings_for` without.
        seed: Of initial weights, order and augmentation.
        device: Where the classifier is trained.

    Raises:
        DeclarationError: There are fewer than two images, or not as many labels.
    """
    shape = (images.shape[1], images.shape[2], images.shape[3])
    settings = settings or settings_for(shape)
    model = _built(shape, classes, settings)
    fit(model, images, labels, settings, seed=seed, device=device)
    return model


def _built(
    shape: tuple[int, int, int], classes: int, settings: ClassifierSettings | None = None
) -> ImageClassifier:
    """Construct a classifier and leave torch's global generator, a run's own, as it was."""
    with torch.random.fork_rng(devices=[]):
        return ImageClassifier(shape, classes, settings)


@torch.enable_grad()
def fit(
    model: nn.Module,
    images: Images,
    labels: Int[Tensor, " n"],
    settings: ClassifierSettings,
    *,
    seed: int,
    device: torch.device | str,
) -> None:
    """Initialise a network of logits from ``seed`` and minimise its cross-entropy.

    Where gradients are off, as around pictures, they are on within.

    Raises:
        DeclarationError: As :func:`train_classifier`.
    """
    if len(images) < 2 or len(images) != len(labels):
        reason = f"has {len(images)} images and {len(labels)} labels"
        raise DeclarationError("a classifier's data", reason, "give at least two, each with one")
    _initialise(model, torch.Generator().manual_seed(seed))
    model.to(device).train()
    generator = torch.Generator(images.device).manual_seed(seed)
    labels = labels.to(images.device)
    optimizer = torch.optim.SGD(
        model.parameters(), settings.lr, 0.9, weight_decay=settings.weight_decay, nesterov=True
    )
    size = min(settings.batch_size, len(images))
    per_epoch = len(images) // size
    progress = _Progress(model, optimizer, generator)
    for step in steps(settings.epochs * per_epoch, progress.state, progress.load):
        if step % per_epoch == 0:
            progress.order = torch.randperm(len(images), generator=generator, device=images.device)
        chosen = progress.order[(step % per_epoch) * size :][:size]
        batch = pixels(_augmented(images[chosen], settings, generator).to(device))
        optimizer.param_groups[0]["lr"] = settings.lr * _share(step, settings.epochs * per_epoch)
        optimizer.zero_grad()
        F.cross_entropy(model(batch.float()), labels[chosen].to(device)).backward()
        optimizer.step()
    model.eval().requires_grad_(False)


class _Progress:
    """All that a step of :func:`fit` changes.

    Attributes:
        order: In which the images of the epoch come.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        self.model, self.optimizer, self.generator = model, optimizer, generator
        self.order = torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Any]:
        own = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**own, "noise": self.generator.get_state(), "order": self.order}

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["noise"])
        self.order = state["order"]


def _share(step: int, total: int) -> float:
    """Return the learning rate of a step as a part of the largest."""
    warm = max(1, total // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights anew: constructors use torch's global generator and default type."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(module.bias)


def _augmented(
    images: Num[Tensor, "batch channels height width"],
    settings: ClassifierSettings,
    generator: torch.Generator,
) -> Num[Tensor, "batch channels height width"]:
    """Return the images moved, each by its own amount, and mirrored where requested."""
    n, _, height, width = images.shape
    device, reach = images.device, settings.shift
    offsets = torch.randint(2 * reach + 1, (2, n, 1), generator=generator, device=device)
    rows = torch.arange(height, device=device) + offsets[0]
    columns = torch.arange(width, device=device) + offsets[1]
    if settings.flip:
        coins = torch.rand(n, 1, generator=generator, device=device)
        columns = torch.where(coins < 0.5, columns.flip(1), columns)
    padded = F.pad(images, (reach, reach, reach, reach))
    each = torch.arange(n, device=device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


# ----------------------------------------------------------------------------- use


@torch.no_grad()
def class_probabilities(
    model: nn.Module, images: Images, batch_size: int = 512
) -> Float[Tensor, "n classes"]:
    """Return the probabilities of the classes (float32) by a network of logits."""
    device = next(model.parameters()).device
    parts = each(
        images.split(batch_size),
        lambda part: model(pixels(part.to(device)).float()).softmax(1),
    )
    return torch.cat(list(parts))


@torch.no_grad()
def image_features(
    model: ImageClassifier, images: Images, batch_size: int = 512
) -> Float[Tensor, "n d"]:
    """Return the features of images (float32), on the model's device."""
    device = model.head.weight.device
    parts = each(images.split(batch_size), lambda part: model.features(pixels(part.to(device))))
    return torch.cat(list(parts))


# ----------------------------------------------------------------------------- one a data set


def reference_classifier(
    data: Dataset, cache: Path | None, device: torch.device | str
) -> tuple[ImageClassifier, str]:
    """Return the classifier of a data set and the hash of its weights.

    It is trained on the whole train split with seed 0, whatever the seed of a run. A stored one
    is used where it has the key of this data, these settings and this architecture, and is whole;
    any other file in its place is replaced.

    Args:
        data: Images as bytes, or as floats in [0, 1], with labels.
        cache: Folder of classifiers, or None to store none.
        device: Where it is trained and stays.

    Raises:
        DeclarationError: The data set has no images, or no classes.
        ResultsError: The folder cannot be written.
    """
    shape, labels = require_classes(data)
    key = _key(data, shape, labels)
    path = cache / f"classifier-{data.name}-{key[:16]}.safetensors" if cache else None
    stored = _read(path, key, _built(shape, len(data.classes))) if path else None
    if stored is not None:
        return stored.to(device).eval().requires_grad_(False), weights_hash(stored)
    images, classes = data.splits["train"], len(data.classes)
    with _threads_of(shape), scope(f"classifier-{key[:16]}"):
        model = train_classifier(images, labels, classes, seed=REFERENCE_SEED, device=device)
    found = weights_hash(model)
    if path:
        write_keyed(path, key, model.state_dict())
    return model, found


@contextmanager
def _threads_of(shape: tuple[int, int, int]) -> Iterator[None]:
    """Train on grey images by one CPU thread: the sums, and so the weights, depend on how many.

    Runs with other numbers of threads then use the same classifier. In colour it would take hours.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if shape[0] == 1 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_classes(data: Dataset) -> tuple[tuple[int, int, int], Int[Tensor, " n"]]:
    """Return the shape of a data set's images and the labels of its train split.

    Raises:
        DeclarationError: The data set has no images, or no classes.
    """
    shape, labels = data.image_shape, data.labels.get("train")
    thing = f"data set {data.name!r}"
    if shape is None:
        raise DeclarationError(thing, "holds no images", "evaluate images only")
    if labels is None or not data.classes:
        reason = "has no classes, so no classifier can be trained on it"
        remedy = "use features inception-v3-compat or vgg16 with weights at hand"
        raise DeclarationError(thing, reason, remedy)
    return shape, labels


def _key(data: Dataset, shape: tuple[int, int, int], labels: Int[Tensor, " n"]) -> str:
    """Return SHA-256 of all that decides the weights, but for the machine."""
    decisive = {
        "architecture": ARCHITECTURE,
        "settings": asdict(settings_for(shape)),
        "classes": len(data.classes),
        "seed": REFERENCE_SEED,
        "images": data.known_fingerprints.get("train") or fingerprint(data.splits["train"]),
        "labels": fingerprint(labels),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _read(path: Path, key: str, model: ImageClassifier) -> ImageClassifier | None:
    """Return the model with the weights of a file, or None where they are not the ones sought."""
    stored = read_keyed(path, key)
    if stored is None:
        return None
    try:
        model.load_state_dict(stored[0])
    except RuntimeError:
        return None
    return model
