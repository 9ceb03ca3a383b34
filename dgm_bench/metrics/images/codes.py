"""What is measured of models of two stages: reconstructions, use of codebooks, priors of codes.

Sums are in float64. Metrics of the test split have plain names; those of another split end in its
name (``reconstruction-mse-train``), so that a record's metrics have names of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.data.labelled_images import pixels
from dgm_bench.errors import DeclarationError, RunFailure
from dgm_bench.metrics.bounds.likelihood import mean_metric
from dgm_bench.models.capabilities import HasCodePrior, HasCodes, Reconstructs
from dgm_bench.models.codes.packing import Grids
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


# ----------------------------------------------------------------------------- reconstructions


@torch.no_grad()
def reconstruction_metrics(
    model: Reconstructs,
    data: Dataset,
    *,
    split: str,
    batch_size: int,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return ``reconstruction-mse``: squared error over pixels in [0, 1], mean over images.

    Args:
        model: In evaluation mode.
        data: Images.
        split: Which of them.
        batch_size: Images at a time.
        generator: On the model's device; source of dequantisation noise, where there is any.
        protocol: How the model was prepared.

    Raises:
        RunFailure: A reconstruction is not finite.
    """
    errors = []
    for x in _batches(data, split, batch_size, generator):
        gap = model.reconstruct(x).double() - x.double()
        errors.append(gap.square().flatten(1).mean(1))
    values = torch.cat(errors)
    _require_finite(values, "the reconstruction error", split)
    how = f"mean over pixels in [0, 1]; {protocol}"
    return [mean_metric(_named("reconstruction-mse", split), values, "mse", split, how)]


# ----------------------------------------------------------------------------- codebooks


@torch.no_grad()
def code_counts(
    model: HasCodes, data: Dataset, *, split: str, batch_size: int, generator: torch.Generator
) -> list[Int[Tensor, " codes"]]:
    """Return how often each code of each level is used by the images of a split, top first.

    As everywhere here, the generator is on the model's device, and images are moved there.
    """
    device = generator.device
    counts = [torch.zeros(k, dtype=torch.int64, device=device) for k in model.codebook_sizes]
    for x in _batches(data, split, batch_size, generator):
        for count, codes in zip(counts, model.encode(x), strict=True):
            count += codes.flatten().bincount(minlength=len(count))
    return counts


def perplexity(counts: Int[Tensor, " codes"]) -> float:
    """Return ``exp(H)`` of the relative frequencies: K where K codes are used alike."""
    shares = counts.double() / counts.sum()
    return math.exp(-torch.xlogy(shares, shares).sum().item())


def codebook_metrics(
    model: HasCodes,
    data: Dataset,
    *,
    split: str,
    batch_size: int,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return ``codebook-perplexity-<level>`` and ``codebook-used-<level>``, in codes.

    Both count codes over all images and places of the split; ``n`` is the number of images.

    Raises:
        DeclarationError: The model has no levels, or more than three.
    """
    names = level_names(len(model.codebook_sizes))
    counts = code_counts(model, data, split=split, batch_size=batch_size, generator=generator)
    images, found = len(data.splits[split]), []
    for name, count in zip(names, counts, strict=True):
        how = f"of {len(count)} codes, over {int(count.sum())} places; {protocol}"
        used = float((count > 0).sum())
        for what, value in (("perplexity", perplexity(count)), ("used", used)):
            metric = _named(f"codebook-{what}-{name}", split)
            found.append(_count_metric(metric, value, images, split, how))
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
        parts = packed.split(batch_size)
        nats = torch.cat([prior.log_prob(part.to(device)).double() for part in parts])
        _require_finite(nats, f"the log probability of level {names[prior.level]}", split)
        places = math.prod(grids[prior.level])
        how = f"mean over the {places} codes of an image; {protocol}"
        metric = _named(f"prior-nll-{names[prior.level]}", split)
        found.append(mean_metric(metric, -nats / places, "nats/code", split, how))
    return found


# ----------------------------------------------------------------------------- small things


def _batches(
    data: Dataset, split: str, batch_size: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "batch channels height width"]]:
    """Yield a split's images as the model sees them."""
    for part in data.splits[split].split(batch_size):
        moved = part.to(generator.device)  # large splits stay on the host
        yield data.dequantise(moved, generator) if data.dequantise else pixels(moved)


def _named(name: str, split: str) -> str:
    return name if split == "test" else f"{name}-{split}"


def _require_finite(values: Float[Tensor, " n"], what: str, split: str) -> None:
    broken = int((~torch.isfinite(values)).sum())
    if broken:
        reason = f"{what} of {broken} of {len(values)} {split} images is not finite"
        raise RunFailure("diverged", reason, "train longer, or lower the learning rate")
