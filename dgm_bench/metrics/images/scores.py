"""Inception score, FID and KID from features, by torch-fidelity's own functions.

Its random numbers (which images form a split or a subset) are those of its default seed, so that
the values are the ones that its ``calculate_metrics`` gives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)

from dgm_bench.control import beside

RESAMPLES = 20
#: Widest features whose FID is taken again for every resample.
WIDEST_RESAMPLED = 256

#: Mean and covariance of features, by torch-fidelity's names.
Moments = dict[str, npt.NDArray[np.floating]]


class Score(NamedTuple):
    """A number, its standard error where there is one, and what that is."""

    value: float
    se: float | None
    error: str


def inception_score(logits: Float[Tensor, "n classes"], splits: int) -> Score:
    """Return ``exp(E KL(p(y|x) || p(y)))``, the mean over parts of the images."""
    found = isc_features_to_metric(logits, splits)
    se = found[KEY_METRIC_ISC_STD] / math.sqrt(splits)
    return Score(found[KEY_METRIC_ISC_MEAN], se, f"sd over {splits} splits / sqrt({splits})")


def kernel_distance(
    generated: Float[Tensor, "n dim"],
    reference: Float[Tensor, "m dim"],
    subsets: int,
    subset_size: int,
) -> Score:
    """Return KID: the squared MMD under ``(x.y / dim + 1)^3``, the mean over subsets.

    Subsets overlap, and their spread is that of sets of their size: the variance of an unbiased
    estimate falls with the number of images, of which the smaller set has the say.
    """
    found = beside(
        lambda: kid_features_to_metric(
            generated, reference, kid_subsets=subsets, kid_subset_size=subset_size, verbose=False
        )
    )
    images = min(len(generated), len(reference))
    error = f"sd over {subsets} subsets * sqrt({subset_size} / {images})"
    se = found[KEY_METRIC_KID_STD] * math.sqrt(subset_size / images)
    return Score(found[KEY_METRIC_KID_MEAN], se, error)


def moments(features: Float[Tensor, "n dim"]) -> Moments:
    """Return mean and (unbiased) covariance."""
    found: Moments = fid_features_to_statistics(features)
    return found


def frechet(first: Moments, second: Moments) -> float:
    """Return ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^{1/2})`` of two sets of moments."""
    found = beside(lambda: fid_statistics_to_metric(first, second, verbose=False))
    return float(found[KEY_METRIC_FID])


def frechet_distance(
    generated: Float[Tensor, "n dim"], reference: Moments, generator: torch.Generator
) -> Score:
    """Return FID; where the features are narrow enough, with a bootstrap over the generated.

    Args:
        generated: Features of generated images.
        reference: Moments of the features of real images.
        generator: Source of the bootstrap's resamples.
    """
    value = frechet(moments(generated), reference)
    if generated.shape[1] > WIDEST_RESAMPLED:
        return Score(value, None, "no se")
    resampled = [
        frechet(moments(_resample(generated, generator)), reference) for _ in range(RESAMPLES)
    ]
    error = f"bootstrap of the generated, {RESAMPLES} resamples"
    return Score(value, float(np.std(resampled, ddof=1)), error)


def fraction(value: float, n: int) -> Score:
    """Return a fraction of ``n`` images with its binomial standard error."""
    return Score(value, math.sqrt(value * (1 - value) / n), "binomial")


def _resample(
    features: Float[Tensor, "n dim"], generator: torch.Generator
) -> Float[Tensor, "n dim"]:
    n = len(features)
    drawn = torch.randint(n, (n,), generator=generator, device=generator.device)
    return features[drawn.to(features.device)]
