"""Classification accuracy score: how well a classifier trained on samples alone does on real data.

Ravuri and Vinyals, "Classification Accuracy Score for Conditional Generative Models" (2019); used
among the evaluations of VQ-VAE-2. The papers train a ResNet-50 on 256x256 samples of ImageNet. Here
the network is the suite's own, which fits small images, except where ResNet-50 is chosen.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.images.classifier import (
    ClassifierSettings,
    ImageClassifier,
    Images,
    class_probabilities,
    fit,
    settings_for,
)

Network = Literal["own", "resnet50"]

#: Side from which the papers' network makes sense: it halves images five times.
RESNET_SIDE = 128


class AccuracyScore(NamedTuple):
    """Accuracies on real test images.

    Attributes:
        top1: Share of images whose class is the most probable one.
        top5: Share of images whose class is among the five most probable ones.
        se: Binomial standard error of ``top1`` over test images.
        n: Number of test images.
    """

    top1: float
    top5: float
    se: float
    n: int


def accuracy_score(
    samples: Images,
    sample_labels: Int[Tensor, " n"],
    test_images: Num[Tensor, "m channels height width"],
    test_labels: Int[Tensor, " m"],
    classes: int,
    *,
    seed: int,
    device: torch.device | str,
    settings: ClassifierSettings | None = None,
    network: Network = "own",
) -> AccuracyScore:
    """Train a classifier on samples and their classes alone and test it on real images.

    Args:
        samples: Bytes, or floats in [0, 1].
        sample_labels: The classes that the samples were drawn for.
        test_images: Real images of the same shape.
        test_labels: Their classes.
        classes: Number of classes.
        seed: Of the classifier's weights, order and augmentation.
        device: Where it is trained.
        settings: Those of the suite for this size of images without.
        network: ``own``, or ``resnet50``, the papers' one.

    Raises:
        DeclarationError: There are not as many images as labels, or ResNet-50 is chosen and
            images are too small or torchvision is missing.
    """
    shape = (samples.shape[1], samples.shape[2], samples.shape[3])
    settings = settings or settings_for(shape)
    with torch.random.fork_rng(devices=[]):  # constructors draw from a run's own generator
        model = _network(network, shape, classes, settings)
    fit(model, samples, sample_labels, settings, seed=seed, device=device)
    return accuracy(class_probabilities(model, test_images), test_labels)


def accuracy(probabilities: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> AccuracyScore:
    """Return the accuracies of predicted probabilities."""
    n, classes = probabilities.shape
    ranked = probabilities.topk(min(5, classes), dim=1).indices
    hits = ranked == labels.to(ranked.device)[:, None]
    top1, top5 = hits[:, 0].double().mean().item(), hits.any(1).double().mean().item()
    return AccuracyScore(top1, top5, math.sqrt(top1 * (1 - top1) / n), n)


def resnet50(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return torchvision's ResNet-50 without weights, in float32.

    Raises:
        DeclarationError: Images are not of three channels and at least 128x128, or torchvision is
            missing.
    """
    channels, height, width = image_shape
    if channels != 3 or min(height, width) < RESNET_SIDE:
        reason = f"takes colour images of at least {RESNET_SIDE}x{RESNET_SIDE}"
        given = f"these are {height}x{width} in {channels}; use network 'own'"
        raise DeclarationError("network 'resnet50'", reason, given)
    try:
        models = import_module("torchvision.models")
    except ImportError as error:
        reason = "needs torchvision, which is not installed"
        raise DeclarationError("network 'resnet50'", reason, "pip install torchvision") from error
    network: nn.Module = models.resnet50(num_classes=classes)
    return network.float()


def _network(
    name: Network, shape: tuple[int, int, int], classes: int, settings: ClassifierSettings
) -> nn.Module:
    if name == "resnet50":
        return resnet50(shape, classes)
    return ImageClassifier(shape, classes, settings)
