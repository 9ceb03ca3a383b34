"""Pictures of a two-stage model of images: its codes, its samples, and what they are near to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.data.captioned_images import classified
from dgm_bench.data.captions import CAPTIONS, KNOWN
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.labelled_images import pixels
from dgm_bench.kept import each
from dgm_bench.metrics.images.classifier import (
    ImageClassifier,
    image_features,
    reference_classifier,
)
from dgm_bench.metrics.images.codes import code_counts, level_names
from dgm_bench.metrics.images.image_evaluator import spread
from dgm_bench.metrics.images.neighbours import nearest
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.pictures.diversity import (
    codebook_figure,
    neighbours_figure,
    reconstructions_figure,
    samples_figure,
)
from dgm_bench.records import Metric
from dgm_bench.report.rejection import rejection_figure, rejection_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Images reconstructed, samples of each class, classes shown, samples with neighbours, neighbours.
RECONSTRUCTED, PER_CLASS, CLASSES, QUERIES, NEAREST = 8, 10, 10, 8, 5
#: Images encoded at a time; training images among which neighbours are sought, and their pixels.
BATCH, SOUGHT, SOUGHT_PIXELS = 100, 10_000, 1 << 28


def two_stage_figures(
    model: TwoStage,
    data: Dataset,
    title: str,
    generator: torch.Generator,
    metrics: Sequence[Metric],
    data_root: Path,
) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of each picture.

    Args:
        model: Trained, in evaluation mode.
        data: Its images.
        title: Name of model and data, for the headings.
        generator: Source of the samples, on the model's device.
        metrics: Of the run; the rejection curve is drawn from them.
        data_root: Where the classifier of the data set is kept.
    """
    yield "reconstructions", _reconstructions(model, data, title, generator)
    samples = _samples(model, generator)
    yield "samples", _drawn_figure(samples, data, title, 0)
    if data.classes == CAPTIONS:
        held_out = _samples(model, generator, first=KNOWN)
        yield "held-out", _drawn_figure(held_out, data, f"{title}: captions not in training", KNOWN)
    some = samples[:: len(samples) // QUERIES][:QUERIES]
    classifier = _classifier(data, data_root, generator.device)
    yield "neighbours", _neighbours(some, data, title, classifier)
    yield "codes", _codebooks(model, data, title, generator)
    for features, points in rejection_points(metrics).items():
        yield f"rejection-{features}", rejection_figure(points, f"{title}, {features} features")


def _reconstructions(
    model: TwoStage, data: Dataset, title: str, generator: torch.Generator
) -> Figure:
    """Decode the codes of more and more levels; those below are drawn, given what is kept."""
    x = pixels(data.splits["test"][:RECONSTRUCTED].to(generator.device))
    labels = data.labels["test"][:RECONSTRUCTED] if data.labels else torch.zeros(len(x)).long()
    codes, names = model.coder.encode(x), level_names(len(model.coder.grids))

    def decoded(known: int) -> Tensor:
        whole = model.draw_codes(labels.to(generator.device), generator, codes[:known])
        return model.coder.decode(whole).cpu()

    rows = []
    for known in range(1, len(codes) + 1):
        kept = " + ".join(names[:known])
        rows.append(kept if known == len(codes) else f"{kept}, the rest drawn")
    images = each(range(1, len(codes) + 1), decoded, generator)
    return reconstructions_figure(x.cpu(), list(zip(rows, images, strict=True)), title)


def _samples(
    model: TwoStage, generator: torch.Generator, first: int = 0
) -> Float[Tensor, "n c h w"]:
    """Draw samples of classes from ``first`` on, or without classes as many of none."""
    classes = min(model.classes or CLASSES, CLASSES)
    labels = first + torch.arange(classes).repeat_interleave(PER_CLASS)
    given = labels if model.classes else torch.zeros_like(labels)
    draw = partial(model.draw_images, generator=generator)
    (images,) = each([given.to(generator.device)], draw, generator)
    return images.cpu()


def _drawn_figure(
    samples: Float[Tensor, "n c h w"], data: Dataset, title: str, first: int
) -> Figure:
    rows = samples.unflatten(0, (-1, PER_CLASS))
    names = data.classes[first : first + len(rows)] or [""] * len(rows)
    return samples_figure(rows, names, title)


def _neighbours(
    queries: Float[Tensor, "n c h w"],
    data: Dataset,
    title: str,
    classifier: ImageClassifier | None,
) -> Figure:
    """Find neighbours by the classifier's features, or by pixels where there is none."""
    train = pixels(spread(data.splits["train"], min(SOUGHT, SOUGHT_PIXELS // data.dim)))
    if classifier is not None:
        ours, theirs = (image_features(classifier, images) for images in (queries, train))
        by = "the classifier's features"
    else:
        ours, theirs = queries.flatten(1), train.flatten(1).cpu()
        by = "pixels"
    found = nearest(ours, theirs, NEAREST)
    near = train[found.indices.flatten().to(train.device)].cpu().unflatten(0, found.indices.shape)
    heading = f"{title}: nearest of {len(train):,} training images by {by}"
    return neighbours_figure(queries, near, found.distances.cpu(), heading)


def _classifier(data: Dataset, data_root: Path, device: torch.device) -> ImageClassifier | None:
    """Return the classifier of the data set.

    None is trained on data that does not fit the device for the sake of a picture.
    """
    if not (data.classes and data.resident):
        return None
    return reference_classifier(classified(data), data_root / "classifiers", device)[0]


def _codebooks(model: TwoStage, data: Dataset, title: str, generator: torch.Generator) -> Figure:
    split = "train" if data.resident else "test"
    counts = code_counts(model.coder, data, split=split, batch_size=BATCH, generator=generator)
    names = level_names(len(counts))
    return codebook_figure([(n, c.cpu()) for n, c in zip(names, counts, strict=True)], title)
