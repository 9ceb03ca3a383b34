"""How likely captions and their images are, and whether drawn images are what a caption says.

Captions that no training image has are held out: what is measured of them has a name that ends in
``-held-out``, and that of the others, which are in training, a plain one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dgm_bench.data.captioned_images import SAID, attributes, classified, cuts_between, levels_of
from dgm_bench.data.captions import CAPTIONS
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import each
from dgm_bench.metrics.bounds.likelihood import mean_metric
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.images.checks import require_codes
from dgm_bench.metrics.images.classifier import class_probabilities, reference_classifier
from dgm_bench.metrics.images.image_bytes import Bytes, as_bytes, gathered
from dgm_bench.metrics.images.image_evaluator import classifier_folder, required_settings
from dgm_bench.metrics.images.reconstructions import reconstructed
from dgm_bench.metrics.registry import metric
from dgm_bench.models.codes.packing import encoded
from dgm_bench.models.codes.priors.joint_transformer import JointTransformer
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.records import Metric

HELD_OUT = "-held-out"
Codes = Int[Tensor, "n rows columns"]


def require_joint(evaluation: Evaluation) -> None:
    """Refuse a second stage that does not model captions.

    Raises:
        DeclarationError: It does not, or knows another number of captions than the data has.
    """
    prior = cast(TwoStage, evaluation.model).prior(0)
    if not isinstance(prior, JointTransformer):
        reason = f"needs a transformer over text and image, which {type(prior).__name__} is not"
        raise DeclarationError("a metric of captions", reason, "measure something else of it")
    require_codes(evaluation)


def require_judged(evaluation: Evaluation) -> None:
    """Refuse captions that no judge can read, and what :func:`require_joint` refuses.

    Raises:
        DeclarationError: They are not those of digits, or the evaluation of images is missing.
    """
    require_joint(evaluation)
    required_settings(evaluation.spec)
    if len(evaluation.data.classes) != len(CAPTIONS):
        reason, remedy = "has no captions of digits", "use digits-captioned or mnist-captioned"
        raise DeclarationError(evaluation.data.name, reason, remedy)


# ----------------------------------------------------------------------------- likelihoods


@metric("caption-likelihood", needs=TwoStage, words="codes and a prior", check=require_joint)
def caption_likelihoods(evaluation: Evaluation) -> list[Metric]:
    """Return negative log-likelihoods of captions, and of the codes of images given captions.

    ``text-nll`` is in nats per caption, ``text-nll-token`` the same by the mean number of tokens
    with the end, ``image-nll`` in nats per code; of the test images. ``caption-mass`` is the
    probability of all captions together: the rest of 1 is of other texts. Captions are those
    without dropout of merges, so that after training with it these are upper bounds.

    Raises:
        RunFailure: A likelihood is not finite.
    """
    model, data = cast(TwoStage, evaluation.model), evaluation.data
    joint, size = cast(JointTransformer, model.prior(0)), evaluation.spec.batch_size
    labels = data.labels["test"].to(evaluation.device)
    packed = encoded(model.coder, data.splits["test"], labels, size, evaluation.device)
    places, of_texts = math.prod(joint.grids[0]), text_log_probs(joint, size)
    with torch.no_grad():
        parts = each(packed.split(size), lambda part: joint.log_prob(part.to(labels.device)))
        nats = -torch.cat(list(parts)).double()
    require_finite(nats, "the log probability of codes given a caption", "test images")
    require_finite(of_texts, "the log probability of a caption", "captions")
    lengths = joint.lengths(joint.caption_tokens(labels)).double()
    found = [_mass(of_texts, evaluation.protocol)]
    for suffix, of in groups(data, labels).items():
        how = f"{int(of.sum())} test images; {evaluation.protocol}"
        texts = -of_texts[labels[of]]
        for name, values, unit in (
            ("text-nll", texts, "nats/caption"),
            ("text-nll-token", texts / lengths[of].mean(), "nats/token"),
            ("image-nll", nats[of] / places, "nats/code"),
        ):
            found.append(mean_metric(name + suffix, values, unit, "test", how))
    return found


def groups(data: Dataset, captions: Int[Tensor, " n"]) -> dict[str, Bool[Tensor, " n"]]:
    """Return which captions are in training and which are held out, by suffix; no empty ones."""
    known = torch.isin(captions, data.labels["train"].unique().to(captions.device))
    return {suffix: of for suffix, of in (("", known), (HELD_OUT, ~known)) if of.any()}


@torch.no_grad()
def text_log_probs(joint: JointTransformer, batch_size: int) -> Float[Tensor, " captions"]:
    """Return the log probability of each caption in nats, in float64."""
    texts = joint.segmentations[:, 0].split(batch_size)
    return torch.cat(list(each(texts, joint.log_prob_of_text))).double()


def _mass(of_texts: Float[Tensor, " captions"], protocol: str) -> Metric:
    mass = of_texts.logsumexp(0).exp().item()
    return Metric(
        name="caption-mass",
        value=mass,
        se=None,
        n=len(of_texts),
        unit="probability",
        direction="none",
        split="test",
        protocol=protocol,
    )


@torch.no_grad()
def likelihood_ratios(
    joint: JointTransformer, codes: Codes, captions: Int[Tensor, " n"], batch_size: int
) -> Float[Tensor, " n"]:
    """Return ``log p(codes | caption) - log p(codes)`` in nats, which CLIP's score stands for.

    That is ``log p(caption | codes) - log p(caption)``: how much more likely an image makes its
    caption. Exact by Bayes' rule where the captions of the model are all texts there are:
    ``p(codes)`` is the sum over them of ``p(caption) p(codes | caption)``.

    Args:
        joint: In evaluation mode.
        codes: Of images.
        captions: The numbers of their captions.
        batch_size: Images at a time.
    """
    texts = joint.segmentations[:, 0]
    prior = text_log_probs(joint, batch_size)

    def ratios(part: tuple[Tensor, Tensor]) -> Tensor:
        own, wanted = part
        given = [joint.log_prob_given(own, text.expand(len(own), -1)) for text in texts]
        table = torch.stack(given, 1).double()
        return table.gather(1, wanted[:, None])[:, 0] - (table + prior).logsumexp(1)

    parts = list(zip(codes.split(batch_size), captions.split(batch_size), strict=True))
    return torch.cat(list(each(parts, ratios)))


# ----------------------------------------------------------------------------- samples


class CaptionJudge:
    """Says of images of digits whether they are what their captions say.

    The class is judged by a classifier trained on the training images, and thickness and slant are
    measured: their levels are divided halfway between training images of neighbouring ones.

    Args:
        data: Images with captions.
        data_root: Folder of trained classifiers.
        device: Where to compute.
    """

    def __init__(self, data: Dataset, data_root: Path, device: torch.device) -> None:
        said = SAID[data.labels["train"].cpu()]
        folder = classifier_folder(data_root)
        self._classifier, _ = reference_classifier(classified(data), folder, device)
        values = attributes(data.splits["train"].cpu())
        self._cuts = [
            cuts_between(own, said[:, 0], said[:, 1 + place]) for place, own in enumerate(values)
        ]

    def right(self, images: Bytes, captions: Int[Tensor, " n"]) -> dict[str, Bool[Tensor, " n"]]:
        """Return whether ``class``, ``thickness``, ``slant``, and all of the ``caption``, fit."""
        said = SAID[captions.cpu()]
        probabilities = class_probabilities(self._classifier, images)
        found = {"class": probabilities.argmax(1).cpu() == said[:, 0]}
        for place, (name, values) in enumerate(
            zip(("thickness", "slant"), attributes(images.cpu()), strict=True)
        ):
            levels = levels_of(values, said[:, 0], self._cuts[place])
            found[name] = levels == said[:, 1 + place]
        return {**found, "caption": torch.stack(list(found.values())).all(0)}


def caption_judge(evaluation: Evaluation) -> CaptionJudge:
    """Return the judge of a run's data."""
    return CaptionJudge(evaluation.data, evaluation.data_root, evaluation.device)


@metric("caption-samples", needs=TwoStage, words="codes and a prior", check=require_judged)
def caption_samples(evaluation: Evaluation) -> list[Metric]:
    """Return the share of drawn images that are what their captions say.

    ``class-accuracy``, ``thickness-accuracy``, ``slant-accuracy`` and ``caption-accuracy`` (all
    three) are of images drawn for captions in turn. Of those for held-out captions there are
    ``1 / keep`` candidates for each image: names that begin with ``reranked-`` are of the
    candidates with the highest likelihood ratio, and with ``reconstruction-`` of reconstructed test
    images, which are what the codes allow.
    """
    model, settings = cast(TwoStage, evaluation.model), required_settings(evaluation.spec)
    judge, generator = evaluation.once(caption_judge), evaluation.generator()
    numbers = torch.arange(len(CAPTIONS))
    candidates = round(1 / (settings.keep or 1.0))
    found = []
    for suffix, of in groups(evaluation.data, numbers).items():
        own = numbers[of].repeat(math.ceil(settings.samples / int(of.sum())))[: settings.samples]
        drawn = own.repeat_interleave(candidates if suffix else 1)
        codes = draw_codes(model, drawn, evaluation.spec.batch_size, generator)
        images = _decoded(model, codes, evaluation.spec.batch_size)
        how = f"{len(images)} samples; {evaluation.protocol}"
        found += accuracies(judge.right(images, drawn), "", suffix, how)
        if suffix and candidates > 1:
            best = _reranked(evaluation, codes, drawn, candidates)
            how = f"the best of {candidates} candidates by likelihood ratio; {evaluation.protocol}"
            found += accuracies(judge.right(images[best], drawn[best]), "reranked-", suffix, how)
    return found + _of_reconstructions(evaluation, judge)


def _reranked(
    evaluation: Evaluation, codes: Codes, captions: Int[Tensor, " n"], candidates: int
) -> Int[Tensor, " kept"]:
    """Return the place of the best of each so many candidates, which follow each other."""
    joint = cast(JointTransformer, cast(TwoStage, evaluation.model).prior(0))
    on_device = captions.to(codes.device)
    ratios = likelihood_ratios(joint, codes, on_device, evaluation.spec.batch_size).cpu()
    best = ratios.view(-1, candidates).argmax(1)
    return torch.arange(len(best)) * candidates + best


def _of_reconstructions(evaluation: Evaluation, judge: CaptionJudge) -> list[Metric]:
    """Return the accuracies of reconstructed test images."""
    labels = evaluation.data.labels["test"].cpu()
    images = reconstructed(evaluation, "test", len(labels))
    found = []
    for suffix, of in groups(evaluation.data, labels).items():
        how = f"{int(of.sum())} reconstructed test images; {evaluation.protocol}"
        found += accuracies(judge.right(images[of], labels[of]), "reconstruction-", suffix, how)
    return found


def accuracies(
    right: Mapping[str, Bool[Tensor, " n"]], prefix: str, suffix: str, protocol: str
) -> list[Metric]:
    """Return the share of images that are right, by what of them is."""
    found = []
    for name, of in right.items():
        value = mean_metric(
            f"{prefix}{name}-accuracy{suffix}", of.double(), "fraction", "test", protocol
        )
        found.append(value.model_copy(update={"direction": "higher"}))
    return found


@torch.no_grad()
def draw_codes(
    model: TwoStage, captions: Int[Tensor, " n"], batch_size: int, generator: torch.Generator
) -> Codes:
    """Return codes for an image of each caption, on the model's device."""
    device = generator.device

    def drawn(own: Int[Tensor, " batch"]) -> Tensor:
        return model.draw_codes(own.to(device), generator)[0]

    return torch.cat(list(each(captions.split(batch_size), drawn, generator)))


@torch.no_grad()
def _decoded(model: TwoStage, codes: Codes, batch_size: int) -> Bytes:
    parts = each(codes.split(batch_size), lambda own: as_bytes(model.coder.decode([own])))
    return gathered(parts, len(codes))
