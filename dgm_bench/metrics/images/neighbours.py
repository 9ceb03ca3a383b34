"""Nearest training images of generated ones: shows what a model has memorised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import each


@dataclass(frozen=True)
class Neighbours:
    """The k nearest references of each query, the nearest first.

    Attributes:
        indices: Which references.
        distances: Euclidean distances to them, in float64.
    """

    indices: Int[Tensor, "n k"]
    distances: Float[Tensor, "n k"]


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "n d"],
    references: Float[Tensor, "m d"],
    k: int,
    *,
    block: int = 4096,
) -> Neighbours:
    """Return the nearest references of each query, in feature space or pixels (flattened).

    At most ``block`` times ``block`` distances are held at a time.

    Args:
        queries: Features of generated images.
        references: Features of training images, on the same device.
        k: Number of neighbours.
        block: Rows of either side compared at a time.

    Raises:
        DeclarationError: ``k`` is not between 1 and the number of references.
    """
    if not 1 <= k <= len(references):
        reason = f"asks for {k} of {len(references)} training images"
        raise DeclarationError("nearest neighbours", reason, "use 1 <= k <= their number")

    def found(part: Float[Tensor, "rows d"]) -> tuple[Tensor, Tensor]:
        near = _nearest_of(part, references, k, block)
        return near.indices, near.distances

    indices, distances = zip(*each(queries.split(block), found), strict=True)
    return Neighbours(torch.cat(indices), torch.cat(distances))


def _nearest_of(
    queries: Float[Tensor, "n d"], references: Float[Tensor, "m d"], k: int, block: int
) -> Neighbours:
    """Return the neighbours of one block of queries, references taken block by block."""
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    distances = queries.new_empty(len(queries), 0)
    for start in range(0, len(references), block):
        ask_within()
        found = torch.cdist(queries, references[start : start + block])
        near = found.topk(min(k, found.shape[1]), largest=False)
        distances = torch.cat([distances, near.values], 1)
        indices = torch.cat([indices, near.indices + start], 1)
        best = distances.topk(min(k, distances.shape[1]), largest=False)
        distances, indices = best.values, indices.gather(1, best.indices)
    return _measured(queries, references, indices)


def _measured(
    queries: Float[Tensor, "n d"], references: Float[Tensor, "m d"], indices: Int[Tensor, "n k"]
) -> Neighbours:
    """Measure the chosen again: products of matrices lose the distance of near copies."""
    gaps = [references[column].double() - queries.double() for column in indices.unbind(1)]
    distances = torch.stack([gap.norm(dim=1) for gap in gaps], 1)
    order = distances.argsort(dim=1, stable=True)
    return Neighbours(indices.gather(1, order), distances.gather(1, order))
