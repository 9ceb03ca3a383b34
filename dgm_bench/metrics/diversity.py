"""How good and how diverse a model's images are: its samples, and what is left by its codes.

VQ-VAE-2 (Razavi et al. 2019, section 4) and whatever draws images are judged alike: scores of
features against the training set, and the accuracy of a classifier trained on the images alone.
Images are bytes here, as they would be in a file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from dgm_bench.data import default_root
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.labelled_images import pixels
from dgm_bench.data.weights import find_weights
from dgm_bench.errors import DataError, DeclarationError
from dgm_bench.metrics.accuracy_score import RESNET_SIDE, accuracy_score
from dgm_bench.metrics.classifier import (
    ImageClassifier,
    reference_classifier,
    require_classes,
)
from dgm_bench.metrics.codes import (
    codebook_metrics,
    prior_metrics,
    reconstruction_metrics,
)
from dgm_bench.metrics.fidelity.enough import require_enough
from dgm_bench.metrics.image_bytes import Bytes, gathered, require_room
from dgm_bench.metrics.rejection import most_confident, own_probabilities, rejection_curve
from dgm_bench.models.capabilities import DrawsImages, HasCodes, Reconstructs
from dgm_bench.models.packing import encoded
from dgm_bench.models.two_stage import TwoStage
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec, JudgeSpec

if TYPE_CHECKING:
    from dgm_bench.metrics.fidelity.features import Extractor

#: Fractions of a pool that a rejection curve keeps, where the pool allows.
KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


class Court:
    """What images are judged by: the reference's features by each network, and a classifier.

    Args:
        data: Images, with classes where the classifier is asked for.
        judge: How they are judged.
        device: Where to compute.

    Raises:
        DataError: Weights of others are missing or not the published ones.
        DeclarationError: The data set has no classes, and the classifier is asked for.
    """

    def __init__(self, data: Dataset, judge: JudgeSpec, device: torch.device) -> None:
        from dgm_bench.metrics.fidelity.judge import Reference

        self.data, self.judge, self.device = data, judge, device
        self.classifier, self.weights = _classifier(data, judge, device)
        images = spread(data.splits["train"], judge.reference)
        self.references = {
            name: Reference(images, self._extractor(name), "train", device=device)
            for name in judge.features
        }

    def _extractor(self, name: str) -> Extractor:
        from dgm_bench.metrics.fidelity import features

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
            raise ValueError("the classifier was not asked for")
        return self.classifier

    def scores(
        self, images: Bytes, prefix: str, generator: torch.Generator, protocol: str
    ) -> list[Metric]:
        """Return all scores of images by every network, each name begun by ``prefix``."""
        from dgm_bench.metrics.fidelity.judge import judge_images

        compared, found = images[: self.judge.compared], []
        for reference in self.references.values():
            found += judge_images(compared, reference, self.judge, generator, protocol)
        return [metric.model_copy(update={"name": prefix + metric.name}) for metric in found]

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
    data: Dataset, judge: JudgeSpec, device: torch.device
) -> tuple[ImageClassifier | None, str]:
    if "classifier" not in judge.features and judge.keep is None:
        return None, ""
    return reference_classifier(data, default_root() / "classifiers", device)


# ----------------------------------------------------------------------------- samples


def sample_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the scores of images that the model draws, as many of each class as of any other.

    With rejection there are the same scores of what is kept, their names begun by ``rejected-``,
    and precision and recall at other thresholds, their names ended by ``-kept-<per cent>``.
    """
    judge, court = _judge(spec), Court(data, _judge(spec), _device(model))
    keep = judge.keep or 1.0
    labels = _balanced(math.ceil(judge.samples / keep), data, cast(DrawsImages, model).classes)
    pool = drawn(cast(DrawsImages, model), labels, spec.batch_size, generator)
    images, its_labels = pool[: judge.samples], labels[: judge.samples]
    drawing = f"{judge.samples} samples drawn; {protocol}"
    found = court.scores(images, "", generator, drawing)
    seed = generator.initial_seed()
    scored = judge.score and cast(DrawsImages, model).classes is not None
    if scored:
        found += court.accuracy(images, its_labels, "", seed, drawing)
    if judge.keep is None:
        return found
    sure = own_probabilities(court.trained, pool, labels)
    kept = in_turn(most_confident(sure, labels, judge.keep).cpu(), labels)[: judge.samples]
    of = f"the {judge.keep:.0%} of which the classifier is surest, of {len(pool)}; {protocol}"
    if "classifier" in judge.features:
        of = f"judged by the classifier that rejects; {of}"
    found += court.scores(pool[kept], "rejected-", generator, of)
    if scored:
        found += court.accuracy(pool[kept], labels[kept], "rejected-", seed, of)
    return found + _curve(court, pool, labels, sure, protocol)


def _balanced(n: int, data: Dataset, classes: int | None) -> Int[Tensor, " n"]:
    return torch.arange(n) % (classes or 1)


@torch.no_grad()
def drawn(
    model: DrawsImages, labels: Int[Tensor, " n"], batch_size: int, generator: torch.Generator
) -> Bytes:
    """Return images of the given classes, ``batch_size`` at a time, on the host.

    Raises:
        RunFailure: A pixel is not finite.
    """
    device = generator.device
    parts = (model.draw_images(own.to(device), generator) for own in labels.split(batch_size))
    return gathered(parts, len(labels))


def _curve(
    court: Court,
    pool: Bytes,
    labels: Int[Tensor, " n"],
    sure: Tensor,
    protocol: str,
) -> list[Metric]:
    """Return precision and recall as the threshold moves, of equally many images each."""
    from dgm_bench.metrics.fidelity.judge import precision_recall

    judge = court.judge
    size = judge.compared or judge.samples
    fractions = [kept for kept in KEPT if kept * len(pool) >= size]
    chosen = rejection_curve(labels, sure, fractions, size)
    found = []
    for reference in court.references.values():
        features = reference.extract(pool)[reference.extractor.layers.features]
        for kept, indices in chosen.items():
            part = features[indices.cpu()]
            for metric in precision_recall(part, reference, judge.neighbours, protocol):
                found.append(metric.model_copy(update={"name": f"{metric.name}-kept-{kept:.0%}"}))
    return found


# ----------------------------------------------------------------------------- reconstructions


def reconstructed_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the scores of reconstructions of held-out images, their names begun accordingly.

    The classification accuracy score is that of reconstructions of the training set (VQ-VAE-2,
    section 4.3). With :class:`~dgm_bench.models.identity.Identity` it is all of real images.
    """
    judge, court = _judge(spec), Court(data, _judge(spec), _device(model))
    coder, prefix, size = cast(Reconstructs, model), "reconstruction-", spec.batch_size
    held_out = spread(data.splits["test"], judge.compared or judge.samples)
    images = reconstructed(coder, held_out, size, generator.device)
    found = court.scores(images, prefix, generator, f"{len(images)} held-out images; {protocol}")
    if judge.score and data.classes:
        # As many as samples are learnt from: otherwise the accuracies would not compare.
        train = spread(data.splits["train"], judge.samples)
        labels = spread(data.labels["train"], judge.samples).cpu()
        learnt = reconstructed(coder, train, size, generator.device)
        how = f"of training images; {protocol}"
        found += court.accuracy(learnt, labels, prefix, generator.initial_seed(), how)
    return found


@torch.no_grad()
def reconstructed(
    model: Reconstructs, images: Tensor, batch_size: int, device: torch.device
) -> Bytes:
    """Return reconstructions of images, ``batch_size`` at a time, on the host.

    Raises:
        RunFailure: A pixel is not finite.
    """
    parts = (model.reconstruct(pixels(part.to(device))) for part in images.split(batch_size))
    return gathered(parts, len(images))


# ----------------------------------------------------------------------------- codes


def code_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return reconstruction error, use of the codebooks, and the priors' negative log-likelihood.

    Those of the training set have names that end in ``-train``.
    """
    found: list[Metric] = []
    coder = model.autoencoder if isinstance(model, TwoStage) else model
    for split in ("test", "train"):
        options: dict[str, Any] = {
            "split": split,
            "batch_size": spec.batch_size,
            "generator": generator,
            "protocol": protocol,
        }
        found += reconstruction_metrics(cast(Reconstructs, model), data, **options)
        found += codebook_metrics(cast(HasCodes, coder), data, **options)
        if isinstance(model, TwoStage):
            labels = data.labels.get(split)
            packed = encoded(
                model.coder, data.splits[split], labels, spec.batch_size, _device(model)
            )
            priors = [model.prior(level) for level in range(len(model.priors))]
            found += prior_metrics(
                priors,
                packed,
                model.coder.grids,
                split=split,
                batch_size=spec.batch_size,
                protocol=protocol,
            )
    return found


# ----------------------------------------------------------------------------- small things


def spread(items: Tensor, n: int | None) -> Tensor:
    """Return ``n`` of the items, evenly spaced, or all: folders hold images class by class."""
    if n is None or n >= len(items):
        return items
    return items[torch.arange(n, device=items.device) * len(items) // n]


def in_turn(indices: Int[Tensor, " n"], labels: Int[Tensor, " m"]) -> Int[Tensor, " n"]:
    """Return the indices so that the classes of what they point at take turns, as drawn."""
    own = labels[indices]
    rank = torch.zeros_like(indices)
    for label in own.unique().tolist():
        rank[own == label] = torch.arange(int((own == label).sum()))
    return indices[(rank * (int(labels.max()) + 1) + own).argsort()]


def _device(model: nn.Module) -> torch.device:
    """Return where the model is; one without parameters is on the CPU."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _judge(spec: EvaluationSpec) -> JudgeSpec:
    if spec.judge is None:
        reason, remedy = "are asked for without evaluation.judge", "say how images are judged"
        raise DeclarationError("metrics of images", reason, remedy)
    return spec.judge


def require_judge(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    """Refuse what cannot be judged, before anything is trained.

    Raises:
        DeclarationError: There are too few images, classes are missing, or rejection is asked of
            a model that knows no classes.
        DataError: Weights of a network are missing or not the published ones.
    """
    judge = _judge(spec)
    compared = min(judge.compared or judge.samples, judge.samples)
    if "reconstructions" in spec.metrics:
        compared = min(compared, len(data.splits["test"]))
    within = judge.model_copy(update={"samples": compared})
    require_enough(within, len(data.splits["train"]))
    if "classifier" in judge.features or judge.keep is not None:
        require_classes(data)
        _require_cache()
    require_room(math.ceil(judge.samples / (judge.keep or 1.0)) * data.dim)
    require_same_classes(spec, model, data)
    if judge.keep is not None and getattr(model, "classes", None) is None:
        reason = f"keeps what a classifier is sure of, and {type(model).__name__} knows no classes"
        raise DeclarationError("evaluation.judge.keep", reason, "leave it out")
    _require_weights(judge)


def _require_cache() -> None:
    """Refuse a data root that cannot keep the classifier.

    Raises:
        DataError: It cannot be written.
    """
    folder = default_root() / "classifiers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason, remedy = f"cannot be written ({error.strerror})", "name another with --data-root"
        raise DataError(folder, reason, remedy) from error


def require_same_classes(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    """Refuse a model that knows another number of classes than the data has.

    Raises:
        DeclarationError: It does.
    """
    known = getattr(model, "classes", None)
    if known is not None and known != len(data.classes):
        reason = f"knows {known} classes, and {data.name} has {len(data.classes)}"
        raise DeclarationError(type(model).__name__, reason, "give its priors as many")


def _require_weights(judge: JudgeSpec) -> None:
    for name in judge.weights:
        find_weights(name, default_root())
