"""What is measured of models of two stages: reconstructions, use of codebooks, priors of codes.

Sums are in float64. Metrics of the test split have plain names; those of another split end in its
name (``reconstruction-mse-train``), so that a record's metrics have names of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.data.labelled_images import pixels
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import each
from dgm_bench.metrics.bounds.likelihood import mean_metric
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.images.checks import require_codes
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import HasCodePrior, HasCodes, Reconstructs
from dgm_bench.models.codes.packing import Grids, encoded
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.records import Metric

#: Names of levels, top first, by their number.
LEVELS: dict[int, tuple[str, ...]] = {
    1: ("codes",),
    2: ("top", "bottom"),
    3: ("top", "middle", "bottom"),
}


def level_names(levels: int) -> tuple[str, ...]:
    """Return the names of a model's levels, top first.

    Raises:
        DeclarationError: There are none, or more than three.
    """
    if levels not in LEVELS:
        raise DeclarationError(f"{levels} levels of codes", "have no names", "use one to three")
    return LEVELS[levels]


@metric("codes", needs=TwoStage, words="codes and a prior for each level", check=require_codes)
def code_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return reconstruction error, use of the codebooks, and the priors' negative log-likelihood.

    Those of the training set have names that end in ``-train``.
    """
    generator = evaluation.generator()
    found: list[Metric] = []
    for split in ("test", "train"):
        found += reconstruction_metrics(evaluation, split, generator)
        found += codebook_metrics(evaluation, split, generator)
        found += _metrics_of_priors(evaluation, split)
    return found


def _metrics_of_priors(evaluation: Evaluation, split: str) -> list[Metric]:
    """Return the metrics of the priors over the codes of a split's images."""
    model, data = cast(TwoStage, evaluation.model), evaluation.data
    size, device = evaluation.spec.batch_size, evaluation.device
    packed = encoded(model.coder, data.splits[split], data.labels.get(split), size, device)
    priors = [model.prior(level) for level in range(len(model.priors))]
    return prior_metrics(
        priors,
        packed,
        model.coder.grids,
        split=split,
        batch_size=size,
        protocol=evaluation.protocol,
    )


# ----------------------------------------------------------------------------- reconstructions


@torch.no_grad()
def reconstruction_metrics(
    evaluation: Evaluation, split: str, generator: torch.Generator
) -> list[Metric]:
    """Return ``reconstruction-mse``: squared error over pixels in [0, 1], mean over images.

    Args:
        evaluation: Of a model that :class:`Reconstructs`.
        split: Of the data set.
        generator: Source of dequantisation noise, where there is any.

    Raises:
        RunFailure: A reconstruction is not finite.
    """
    model, data = cast(Reconstructs, evaluation.model), evaluation.data

    def errors(part: Tensor) -> Tensor:
        x = _as_seen(data, part, generator)
        gap = model.reconstruct(x).double() - x.double()
        return gap.square().flatten(1).mean(1)

    parts = data.splits[split].split(evaluation.spec.batch_size)
    values = torch.cat(list(each(parts, errors, generator)))
    require_finite(values, "the reconstruction error", f"{split} images")
    how = f"mean over pixels in [0, 1]; {evaluation.protocol}"
    return [mean_metric(_named("reconstruction-mse", split), values, "mse", split, how)]


# ----------------------------------------------------------------------------- codebooks


@torch.no_grad()
def code_counts(
    model: HasCodes, data: Dataset, *, split: str, batch_size: int, generator: torch.Generator
) -> list[Int[Tensor, " _codes"]]:
    """Return how often each code of each level is used by the images of a split, top first.

    As everywhere here, the generator is on the model's device, and images are moved there.
    """
    device = generator.device
    sizes = model.codebook_sizes
    counts = [torch.zeros(k, dtype=torch.int64, device=device) for k in sizes]

    def used(part: Tensor) -> list[Tensor]:
        codes = model.encode(_as_seen(data, part, generator))
        return [own.flatten().bincount(minlength=k) for own, k in zip(codes, sizes, strict=True)]

    for part in each(data.splits[split].split(batch_size), used, generator):
        for count, more in zip(counts, part, strict=True):
            count += more
    return counts


def perplexity(counts: Int[Tensor, " codes"]) -> float:
    """Return ``exp(H)`` of the relative frequencies: K where K codes are used alike."""
    shares = counts.double() / counts.sum()
    return math.exp(-torch.xlogy(shares, shares).sum().item())


def codebook_metrics(
    evaluation: Evaluation, split: str, generator: torch.Generator
) -> list[Metric]:
    """Return ``codebook-perplexity-<level>`` and ``codebook-used-<level>``, in codes.

    Both count codes over all images and places of the split; ``n`` is the number of images.

    Raises:
        DeclarationError: The model has no levels, or more than three.
    """
    coder, data, size = _coder(evaluation.model), evaluation.data, evaluation.spec.batch_size
    names = level_names(len(coder.codebook_sizes))
    counts = code_counts(coder, data, split=split, batch_size=size, generator=generator)
    images, found = len(data.splits[split]), []
    for name, count in zip(names, counts, strict=True):
        how = f"of {len(count)} codes, over {int(count.sum())} places; {evaluation.protocol}"
        used = float((count > 0).sum())
        for what, value in (("perplexity", perplexity(count)), ("used", used)):
            full_name = _named(f"codebook-{what}-{name}", split)
            found.append(_count_metric(full_name, value, images, split, how))
    return found


def _count_metric(name: str, value: float, n: int, split: str, protocol: str) -> Metric:
    return Metric(
        name=name,
        value=value,
        se=None,
        n=n,
        unit="codes",
        direction="higher",
        split=split,
        protocol=protocol,
    )


# ----------------------------------------------------------------------------- priors


@torch.no_grad()
def prior_metrics(
    priors: Sequence[HasCodePrior],
    packed: Int[Tensor, "n packed"],
    grids: Grids,
    *,
    split: str,
    batch_size: int,
    protocol: str,
) -> list[Metric]:
    """Return ``prior-nll-<level>`` in nats for a code, given the levels above and the class.

    Args:
        priors: In evaluation mode; each says which level it models.
        packed: Codes of all levels and classes of the split's images, on the priors' device.
        grids: Height and width of each level, top first.
        split: Name of the split.
        batch_size: Images at a time.
        protocol: How the priors were prepared.

    Raises:
        DeclarationError: There are no levels, or more than three.
        RunFailure: A likelihood is not finite.
    """
    names, found = level_names(len(grids)), []
    device = next(cast(nn.Module, priors[0]).parameters(), packed).device
    for prior in priors:
        parts = each(packed.split(batch_size), partial(_nats, prior, device))
        nats = torch.cat(list(parts))
        what = f"the log probability of level {names[prior.level]}"
        require_finite(nats, what, f"{split} images")
        places = math.prod(grids[prior.level])
        how = f"mean over the {places} codes of an image; {protocol}"
        name = _named(f"prior-nll-{names[prior.level]}", split)
        found.append(mean_metric(name, -nats / places, "nats/code", split, how))
    return found


# ----------------------------------------------------------------------------- small things


def _nats(
    prior: HasCodePrior, device: torch.device, part: Int[Tensor, "batch packed"]
) -> Float[Tensor, " batch"]:
    return prior.log_prob(part.to(device)).double()


def _as_seen(
    data: Dataset, part: Num[Tensor, "batch channels height width"], generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Return stored images as the model sees them; large splits stay on the host."""
    return pixels(data.dequantised(part.to(generator.device), generator))


def _coder(model: nn.Module) -> HasCodes:
    """Return what encodes images: the first of two stages, or the model itself."""
    return model.coder if isinstance(model, TwoStage) else cast(HasCodes, model)


def _named(name: str, split: str) -> str:
    return name if split == "test" else f"{name}-{split}"
