"""What the scores of drawn images need, checked before anything is trained. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.spec import ImageEvaluationSpec

_OPTION = "evaluation.judge"


class Layers(NamedTuple):
    """Which of a network's layers are used, by torch-fidelity's names; logits of classes or None.

    Without logits, precision and recall alone are taken: what VGG-16 is used for in the
    literature (Kynkaanniemi et al., 2019).
    """

    features: str
    logits: str | None


#: The networks that there are, by the names of ``ImageEvaluationSpec.features``.
LAYERS: dict[str, Layers] = {
    "classifier": Layers("features", "logits"),
    "inception-v3-compat": Layers("2048", "logits_unbiased"),
    "vgg16": Layers("fc2_relu", None),
}


def require_sample_sizes(settings: ImageEvaluationSpec, reference: int) -> None:
    """Refuse a declaration whose scores cannot be taken.

    Args:
        settings: How images are to be evaluated.
        reference: Number of images in the training set.

    Raises:
        DeclarationError: A network is unknown, or there are too few images for a score.
    """
    for name in settings.features:
        require_choice(f"{_OPTION}.features", name, LAYERS)
    asked = settings.reference or reference
    if asked > reference:
        thing, reason = f"{_OPTION}.reference={asked}", f"the training set has {reference} images"
        raise DeclarationError(thing, reason, f"set it to at most {reference}, or leave it out")
    _require(settings, asked, "neighbours", settings.neighbours + 1, "precision and recall")
    if any(LAYERS[name].logits for name in settings.features):
        _require(settings, asked, "kid_subset_size", settings.kid_subset_size, "KID")
        _require(
            settings, settings.samples, "isc_splits", settings.isc_splits, "the Inception score"
        )


def _require(
    settings: ImageEvaluationSpec, reference: int, option: str, need: int, what: str
) -> None:
    """Compare what a score needs with what there is of generated and of reference images."""
    for name, there in (("samples", settings.samples), ("reference", reference)):
        if there < need:
            thing = f"{_OPTION}.{option}={getattr(settings, option)}"
            reason = f"{what} needs at least {need} images, and {_OPTION}.{name} is {there}"
            raise DeclarationError(thing, reason, f"raise {_OPTION}.{name} or lower {option}")
