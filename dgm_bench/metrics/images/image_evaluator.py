"""What sets of images are judged by: reference images, and a classifier of the data set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from dgm_bench.data import default_root
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.images.accuracy_score import RESNET_SIDE, accuracy_score
from dgm_bench.metrics.images.classifier import (
    ImageClassifier,
    reference_classifier,
    require_classes,
)
from dgm_bench.metrics.images.image_bytes import Bytes
from dgm_bench.records import Metric
from dgm_bench.spec import ImageEvaluationSpec

if TYPE_CHECKING:
    from dgm_bench.metrics.images.features import Extractor


class ImageEvaluator:
    """What images are judged by: the reference's features by each network, and a classifier.

    Args:
        data: Images, with classes where the classifier is asked for.
        settings: How they are judged.
        device: Where to compute.

    Raises:
        DataError: Weights of others are missing or not the published ones.
        DeclarationError: The data set has no classes, and the classifier is asked for.
    """

    def __init__(self, data: Dataset, settings: ImageEvaluationSpec, device: torch.device) -> None:
        from dgm_bench.metrics.images.fidelity import Reference

        self.data, self.settings, self.device = data, settings, device
        self.classifier, self.weights = _classifier(data, settings, device)
        images = spread(data.splits["train"], settings.reference)
        self.references = {
            name: Reference(images, self._extractor(name), "train", device=device)
            for name in settings.features
        }

    def _extractor(self, name: str) -> Extractor:
        from dgm_bench.metrics.images import features

        if name == features.CLASSIFIER:
            channels = self.data.event_shape[0]
            return features.classifier_extractor(self.trained, self.weights, channels)
        return features.published_extractor(name, default_root())

    @property
    def trained(self) -> ImageClassifier:
        """The classifier.

        Raises:
            DeclarationError: The data set has no classes.
        """
        if self.classifier is None:
            require_classes(self.data)
            remedy = "add it to evaluation.judge.features"
            raise DeclarationError("the classifier", "was not asked for", remedy)
        return self.classifier

    def scores(
        self, images: Bytes, prefix: str, generator: torch.Generator, protocol: str
    ) -> list[Metric]:
        """Return all scores of images by every network, each name begun by ``prefix``."""
        from dgm_bench.metrics.images.fidelity import score_images

        compared, found = images[: self.settings.compared], []
        for reference in self.references.values():
            found += score_images(compared, reference, self.settings, generator, protocol)
        return [metric.model_copy(update={"name": prefix + metric.name}) for metric in found]

    def scored(
        self,
        images: Bytes,
        labels: Int[Tensor, " n"] | None,
        prefix: str,
        generator: torch.Generator,
        protocol: str,
    ) -> list[Metric]:
        """Return all scores, and the accuracy score where the images are of known classes."""
        found = self.scores(images, prefix, generator, protocol)
        if self.settings.score and labels is not None:
            found += self.accuracy(images, labels, prefix, generator.initial_seed(), protocol)
        return found

    def accuracy(
        self, images: Bytes, labels: Int[Tensor, " n"], prefix: str, seed: int, protocol: str
    ) -> list[Metric]:
        """Return the classification accuracy score of images, in per cent of real test images."""
        data, classes = self.data, len(self.data.classes)
        large = min(data.event_shape[1:]) >= RESNET_SIDE
        found = accuracy_score(
            images,
            labels,
            data.splits["test"],
            data.labels["test"],
            classes,
            seed=seed,
            device=self.device,
            network="resnet50" if large else "own",
        )
        network = "ResNet-50" if large else "this project's small residual network, not ResNet-50"
        how = (
            f"{network}, trained on {len(images)} of these images, tested on real ones; {protocol}"
        )
        return [
            _accuracy_metric(f"{prefix}cas-top1", found.top1, found.n, how),
            _accuracy_metric(f"{prefix}cas-top5", found.top5, found.n, how),
        ]


def _accuracy_metric(name: str, share: float, n: int, protocol: str) -> Metric:
    return Metric(
        name=name,
        value=100 * share,
        se=100 * math.sqrt(share * (1 - share) / n),
        n=n,
        unit="%",
        direction="higher",
        split="test",
        protocol=f"se: binomial; {protocol}",
    )


def _classifier(
    data: Dataset, settings: ImageEvaluationSpec, device: torch.device
) -> tuple[ImageClassifier | None, str]:
    if "classifier" not in settings.features and settings.keep is None:
        return None, ""
    return reference_classifier(data, default_root() / "classifiers", device)


def spread(items: Tensor, n: int | None) -> Tensor:
    """Return ``n`` of the items, evenly spaced, or all: folders hold images class by class."""
    if n is None or n >= len(items):
        return items
    return items[torch.arange(n, device=items.device) * len(items) // n]
