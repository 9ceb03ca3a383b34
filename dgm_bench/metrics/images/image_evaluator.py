"""Scores of sets of images against reference images, and by a classifier of the data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import scope
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.images.accuracy_score import RESNET_SIDE, accuracy_score
from dgm_bench.metrics.images.classifier import (
    ImageClassifier,
    reference_classifier,
    require_classes,
)
from dgm_bench.metrics.images.image_bytes import Bytes
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec, ImageEvaluationSpec

if TYPE_CHECKING:
    from dgm_bench.metrics.images.copying import CopyingTest
    from dgm_bench.metrics.images.features import Extractor
    from dgm_bench.metrics.images.fidelity import Reference


class ImageEvaluator:
    """Scores images by the reference's features of each network, and by a classifier.

    The reference goes through the networks once, when the first images are scored.

    Args:
        data: Images, with classes where the classifier is used.
        settings: How they are evaluated.
        data_root: Folder of published weights and trained classifiers.
        device: Where to compute.

    Raises:
        DeclarationError: The data set has no classes, and the classifier is used.
    """

    def __init__(
        self, data: Dataset, settings: ImageEvaluationSpec, data_root: Path, device: torch.device
    ) -> None:
        self.data, self.settings, self.data_root = data, settings, data_root
        self.device = device
        self.classifier: ImageClassifier | None = None
        self.weights = ""
        if settings.needs_classifier:
            folder = classifier_folder(data_root)
            self.classifier, self.weights = reference_classifier(data, folder, device)

    @cached_property
    def references(self) -> dict[str, Reference]:
        """The reference images as each network sees them.

        Raises:
            DataError: Weights of others are missing or not the published ones.
        """
        from dgm_bench.metrics.images.fidelity import Reference

        images = spread(self.data.splits["train"], self.settings.reference)
        with scope("references"):
            return {
                name: Reference(images, self._extractor(name), "train", device=self.device)
                for name in self.settings.features
            }

    @cached_property
    def copying(self) -> dict[str, CopyingTest]:
        """The test of copying by each network; our own small one sees the whole training set."""
        from dgm_bench.metrics.images.copying import CopyingTest
        from dgm_bench.metrics.images.features import CLASSIFIER

        splits, settings = self.data.splits, self.settings
        held_out = spread(splits["test"], settings.compared or settings.samples)
        found = {}
        with scope("copying"):
            for name, reference in self.references.items():
                layer, train = reference.extractor.layers.features, reference.features
                if name == CLASSIFIER and len(reference) < len(splits["train"]):
                    train = reference.extract(splits["train"])[layer]
                found[name] = CopyingTest(train, reference.extract(held_out)[layer])
        return found

    def _extractor(self, name: str) -> Extractor:
        from dgm_bench.metrics.images import features

        if name == features.CLASSIFIER:
            channels = self.data.event_shape[0]
            return features.classifier_extractor(self.trained, self.weights, channels)
        return features.published_extractor(name, self.data_root)

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
        for name, reference in self.references.items():
            copying = self.copying[name]
            found += score_images(compared, reference, self.settings, generator, protocol, copying)
        return [metric.model_copy(update={"name": prefix + metric.name}) for metric in found]

    def curve_scores(
        self,
        layers: Mapping[str, Float[Tensor, "n _width"]],
        reference: Reference,
        generator: torch.Generator,
        protocol: str,
    ) -> list[Metric]:
        """Return the scores of one point of a curve, of what a network gives of its images."""
        from dgm_bench.metrics.images.fidelity import curve_scores

        return curve_scores(layers, reference, self.settings, generator, protocol)

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


def image_evaluator(evaluation: Evaluation) -> ImageEvaluator:
    """Return the image evaluator of a run; :meth:`Evaluation.once` shares it between metrics.

    Raises:
        DeclarationError: As :func:`required_settings`, and as :class:`ImageEvaluator`.
    """
    # Without parameters a model, such as the identity, leaves the networks on the CPU.
    device = next((p.device for p in evaluation.model.parameters()), torch.device("cpu"))
    settings = required_settings(evaluation.spec)
    return ImageEvaluator(evaluation.data, settings, evaluation.data_root, device)


def required_settings(spec: EvaluationSpec) -> ImageEvaluationSpec:
    """Return how images are evaluated.

    Raises:
        DeclarationError: It is not declared.
    """
    if spec.judge is None:
        reason, remedy = "need evaluation.judge", "declare samples and features"
        raise DeclarationError("metrics of images", reason, remedy)
    return spec.judge


def classifier_folder(data_root: Path) -> Path:
    """Return the folder of trained classifiers."""
    return data_root / "classifiers"


def spread(items: Num[Tensor, "items *event"], n: int | None) -> Num[Tensor, "chosen *event"]:
    """Return ``n`` of the items, evenly spaced, or all: folders hold images class by class."""
    if n is None or n >= len(items):
        return items
    return items[torch.arange(n, device=items.device) * len(items) // n]
