"""Drawn images against real ones: all scores of one network's features, as metrics of a record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
import torch_fidelity
from jaxtyping import Float, UInt8
from torch import Tensor

from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.images.copying import CopyingTest
from dgm_bench.metrics.images.features import CLASSIFIER, Extractor, extract
from dgm_bench.metrics.images.precision_recall import (
    PrecisionRecall,
    query_radius,
    reference_radius,
)
from dgm_bench.metrics.images.requirements import require_sample_sizes
from dgm_bench.metrics.images.scores import (
    Moments,
    Score,
    fraction,
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
)
from dgm_bench.records import Metric
from dgm_bench.spec import Direction, ImageEvaluationSpec

_OWN_SCORE = "of this project's classifier, not comparable to scores of Inception v3"


class Reference:
    """Real images, seen once through a network, for any number of generated sets.

    Args:
        images: Bytes, or pixels in [0, 1]; in 1 channel or 3.
        extractor: The network.
        split: The split that they are of.
        batch_size: Images at a time.
        device: Where to compute.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "m channels height width"] | Float[Tensor, "m channels height width"],
        extractor: Extractor,
        split: str = "train",
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.extractor, self.split = extractor, split
        self.batch_size, self.device = batch_size, device
        self.features = self.extract(images)[extractor.layers.features]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the features."""
        return moments(self.features)

    def extract(
        self,
        images: UInt8[Tensor, "n channels height width"] | Float[Tensor, "n channels height width"],
    ) -> dict[str, Float[Tensor, "n _width"]]:
        """Return the network's layers of other images."""
        return extract(images, self.extractor, self.batch_size, self.device)


def score_images(
    generated: UInt8[Tensor, "n channels height width"] | Float[Tensor, "n channels height width"],
    reference: Reference,
    settings: ImageEvaluationSpec,
    generator: torch.Generator,
    protocol: str = "",
    copying: CopyingTest | None = None,
) -> list[Metric]:
    """Return all scores of generated images by one network, named ``<network>-<score>``.

    With logits: ``isc``, ``fid`` and ``kid``. Always ``precision`` and ``recall``, and
    ``precision-query`` and ``recall-query`` by the other definition of the radius. With a test of
    copying, ``copying``.

    Args:
        generated: Bytes, or pixels in [0, 1]; in 1 channel or 3.
        reference: Real images, with the network.
        settings: Numbers of neighbours, splits and subsets.
        generator: Source of the bootstrap of FID.
        protocol: How the images were made, in words.
        copying: Training and held-out images, as the network sees them.

    Raises:
        DeclarationError: There are too few images, as :func:`require_sample_sizes`.
        RunFailure: A pixel is not finite.
    """
    there = {"samples": len(generated), "reference": len(reference)}
    actual = settings.model_copy(update={**there, "features": (reference.extractor.name,)})
    require_sample_sizes(actual, len(reference))
    require_finite(generated, "a pixel", "images")
    report = _Report(reference, len(generated), protocol)
    layers, used = reference.extract(generated), reference.extractor.layers
    features = layers[used.features]
    found: list[Metric] = []
    if used.logits is not None:
        found += _distributional(report, layers[used.logits], features, settings, generator)
    found += _manifolds(report, features, settings.neighbours)
    return found + (_copying(report, features, copying) if copying is not None else [])


class _Report:
    """Makes metrics of scores: the names, and the words that all of them share."""

    def __init__(self, reference: Reference, n: int, protocol: str) -> None:
        extractor = reference.extractor
        self.reference, self.n, self.name = reference, n, extractor.name
        against = f"{n} generated against {len(reference)} of {reference.split}"
        network = f"{extractor.name} features, weights {extractor.weights[:12]}"
        parts = (protocol, network, f"torch-fidelity {torch_fidelity.__version__}", against)
        self.shared = tuple(part for part in parts if part)

    def metric(
        self,
        score: str,
        found: Score,
        unit: str,
        direction: Direction,
        *details: str,
        n: int | None = None,
    ) -> Metric:
        """Return a score as a metric of ``n`` images, those generated unless said."""
        words = (*self.shared, *details, f"se: {found.error}" if found.se is not None else "no se")
        return Metric(
            name=f"{self.name}-{score}",
            value=found.value,
            se=found.se,
            n=self.n if n is None else n,
            unit=unit,
            direction=direction,
            split=self.reference.split,
            protocol="; ".join(words),
        )


def _distributional(
    report: _Report,
    logits: Float[Tensor, "n classes"],
    features: Float[Tensor, "n dim"],
    settings: ImageEvaluationSpec,
    generator: torch.Generator,
) -> list[Metric]:
    """Return Inception score, FID and KID."""
    kid = kernel_distance(
        features, report.reference.features, settings.kid_subsets, settings.kid_subset_size
    )
    return [
        *_published(report, logits, features, settings, generator),
        report.metric("kid", kid, "squared MMD", "lower"),
    ]


def _published(
    report: _Report,
    logits: Float[Tensor, "n classes"],
    features: Float[Tensor, "n dim"],
    settings: ImageEvaluationSpec,
    generator: torch.Generator,
) -> list[Metric]:
    """Return Inception score and FID."""
    score = inception_score(logits, settings.isc_splits)
    fid = frechet_distance(features, report.reference.moments, generator)
    own = (_OWN_SCORE,) if report.name == CLASSIFIER else ()
    return [
        report.metric("isc", score, "classes", "higher", *own),
        report.metric("fid", fid, "squared distance", "lower"),
    ]


def curve_scores(
    layers: Mapping[str, Float[Tensor, "n _width"]],
    reference: Reference,
    settings: ImageEvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the scores of one point of a curve: precision, recall and, with logits, IS and FID.

    Args:
        layers: Of generated images, as the reference extracts them.
        reference: Real images, with the network.
        settings: Numbers of neighbours and splits.
        generator: Source of the bootstrap of FID.
        protocol: How the images were made, in words.
    """
    used, neighbours = reference.extractor.layers, settings.neighbours
    features, device = layers[used.features], reference.device
    report = _Report(reference, len(features), protocol)
    found = reference_radius(features.to(device), reference.features.to(device), neighbours)
    scores = _fractions(report, found, "", f"k = {neighbours}, radius of the point of the set")
    if used.logits is not None:
        scores += _published(report, layers[used.logits], features, settings, generator)
    return scores


def _copying(
    report: _Report, features: Float[Tensor, "n dim"], copying: CopyingTest
) -> list[Metric]:
    """Return the statistic of the test of copying."""
    among = f"copies of {len(copying.train)} training images, {len(copying.held_out)} held out"
    return [report.metric("copying", copying.score(features), "C_T", "none", among)]


def _manifolds(report: _Report, features: Float[Tensor, "n dim"], neighbours: int) -> list[Metric]:
    """Return precision and recall, by both definitions of the radius."""
    device = report.reference.device
    generated, real = features.to(device), report.reference.features.to(device)
    around = f"k = {neighbours}, radius of"
    published = reference_radius(generated, real, neighbours)
    other = query_radius(generated, real, neighbours)
    return [
        *_fractions(report, published, "", f"{around} the point of the set"),
        *_fractions(report, other, "-query", f"{around} the point asked about"),
    ]


def _fractions(report: _Report, found: PrecisionRecall, suffix: str, how: str) -> list[Metric]:
    """Return precision (of the generated) and recall (of the reference) as metrics."""
    m = len(report.reference)
    precision, recall = fraction(found.precision, report.n), fraction(found.recall, m)
    return [
        report.metric(f"precision{suffix}", precision, "fraction", "higher", how),
        report.metric(f"recall{suffix}", recall, "fraction", "higher", how, n=m),
    ]
