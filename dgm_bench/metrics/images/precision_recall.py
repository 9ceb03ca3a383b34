"""Precision and recall of generated images, by hyperspheres around their features.

A sphere around a point has the distance to its k-th nearest neighbour in its own set, itself not
counted, as radius. A point ``g`` counts when it is near a set: there is a ``g'`` in the set with

    ``|g - g'| <= radius(g')``    (Kynkaanniemi et al. 2019, equation 1; lectures of 2022)
    ``|g - g'| <= radius(g)``     (lectures of 2021)

Precision is the fraction of the generated that are near the reference set, recall that of the
reference that are near the generated set (their equation 2). Their released code has k = 3 by
default (kynkaat/improved-precision-and-recall-metric). The second definition is printed as
``|g - g'| <= |g - NN_k(g, G)|``. With neighbours in the other set it would hold for every ``g``,
by its nearest neighbour; they are therefore sought in the point's own set. Its recall is then
what is called coverage by Naeem et al. (2020).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from dgm_bench.control import beside
from dgm_bench.kept import each

#: Bytes for distances that are held at a time.
MEMORY = 1 << 30
#: Bytes for each distance in a block: the distances, a copy as pieces are joined or sorted, and
#: the order of the sorted, in double precision.
_BYTES = 24


class PrecisionRecall(NamedTuple):
    """Both as fractions."""

    precision: float
    recall: float


def reference_radius(
    generated: Float[Tensor, "n dim"],
    reference: Float[Tensor, "m dim"],
    neighbours: int,
    rows: int | None = None,
) -> PrecisionRecall:
    """Return precision and recall with spheres around the points of the set, by torch-fidelity.

    Args:
        generated: Features of generated images.
        reference: Features of real images.
        neighbours: The k of the radius.
        rows: Points at a time; None for as many as :data:`MEMORY` holds.
    """
    found = beside(
        lambda: prc_features_to_metric(
            generated,
            reference,
            prc_neighborhood=neighbours,
            prc_batch_size=rows or block_rows(len(generated), len(reference)),
            save_cpu_ram=True,
            verbose=False,
        )
    )
    return PrecisionRecall(found["precision"], found["recall"])


def query_radius(
    generated: Float[Tensor, "n dim"],
    reference: Float[Tensor, "m dim"],
    neighbours: int,
    rows: int | None = None,
) -> PrecisionRecall:
    """Return precision and recall with a sphere around the point that is asked about.

    The arguments are those of :func:`reference_radius`.
    """
    rows = rows or block_rows(len(generated), len(reference))
    return PrecisionRecall(
        _fraction_near(generated, reference, neighbours, rows),
        _fraction_near(reference, generated, neighbours, rows),
    )


def block_rows(n: int, m: int) -> int:
    """Return how many points at a time against all of the larger set :data:`MEMORY` holds."""
    return max(1, MEMORY // (_BYTES * max(n, m)))


def in_own_spheres(
    block: Float[Tensor, "rows dim"],
    own: Float[Tensor, "n dim"],
    others: Float[Tensor, "m dim"],
    neighbours: int,
) -> Bool[Tensor, " rows"]:
    """Return which points of a block of a set have one of the others in their own sphere."""
    nearest_own = torch.cdist(block, own).topk(neighbours + 1, largest=False).values
    return torch.cdist(block, others).amin(1) <= nearest_own[:, -1]


def _fraction_near(
    queries: Float[Tensor, "n dim"],
    others: Float[Tensor, "m dim"],
    neighbours: int,
    rows: int,
) -> float:
    """Return the fraction of the queries that have one of the others in their own sphere."""
    blocks = each(
        queries.split(rows), lambda block: in_own_spheres(block, queries, others, neighbours)
    )
    return sum(int(near.sum()) for near in blocks) / len(queries)
