"""How good and how diverse a model's reconstructions are, scored as samples are."""

from __future__ import annotations

from typing import cast

import torch

from dgm_bench.data.labelled_images import pixels
from dgm_bench.kept import each
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.images.checks import require_image_evaluation
from dgm_bench.metrics.images.image_bytes import Bytes, as_bytes, gathered
from dgm_bench.metrics.images.image_evaluator import image_evaluator, spread
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import Reconstructs
from dgm_bench.records import Metric


@metric(
    "reconstructions", needs=Reconstructs, words="reconstructions", check=require_image_evaluation
)
def reconstructed_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the scores of reconstructions of held-out images, their names begun accordingly.

    The classification accuracy score is that of reconstructions of the training set. With
    :class:`~dgm_bench.models.codes.identity.Identity` all are of real images.
    """
    data, generator = evaluation.data, evaluation.generator()
    evaluator = evaluation.once(image_evaluator)
    settings = evaluator.settings
    images = reconstructed(evaluation, "test", settings.compared or settings.samples)
    how = f"{len(images)} held-out images; {evaluation.protocol}"
    found = evaluator.scores(images, "reconstruction-", generator, how)
    if settings.score and data.classes:
        # As many as samples are learnt from: otherwise the accuracies would not compare.
        train = reconstructed(evaluation, "train", settings.samples)
        labels = spread(data.labels["train"], settings.samples).cpu()
        how = f"of training images; {evaluation.protocol}"
        found += evaluator.accuracy(train, labels, "reconstruction-", evaluation.seed, how)
    return found


@torch.no_grad()
def reconstructed(evaluation: Evaluation, split: str, n: int) -> Bytes:
    """Return reconstructions of ``n`` images of a split, evenly spaced, on the host.

    Raises:
        RunFailure: A pixel is not finite.
    """
    model, device = cast(Reconstructs, evaluation.model), evaluation.device
    images = spread(evaluation.data.splits[split], n)
    parts = each(
        images.split(evaluation.spec.batch_size),
        lambda part: as_bytes(model.reconstruct(pixels(part.to(device)))),
    )
    return gathered(parts, len(images))
