"""Whether a model copies its training images: the test of Meehan, Chaudhuri and Dasgupta (2020).

"A Non-Parametric Test to Detect Data-Copying in Generative Models",
https://arxiv.org/abs/2004.05675. Generated images that are nearer to training images than held-out
ones are, are copies of them. In each of several cells of space the distances to the nearest
training image of the cell, of ``m`` generated and ``n`` held-out images, are compared by the rank
test of Mann and Whitney, with ``U`` the number of pairs in which the generated image is further
away (ties count half):

    ``Z = (U - m n / 2) / sqrt(m n (m + n + 1) / 12)``

``C_T`` is the mean of ``Z`` over the cells with enough generated images, weighted by the share of
held-out images in each. Within a cell ``Z`` is about standard normal where generated images are as
far from training images as held-out ones; far below zero there are copies, and above it the
images are further away than real ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from torch import Tensor

from dgm_bench.control import beside
from dgm_bench.metrics.images.neighbours import nearest
from dgm_bench.metrics.images.scores import Score

#: Most cells: as many as the authors took of MNIST (casey-meehan/data-copying, MNIST_kde_test.py).
CELLS = 50
#: Images to a cell, on average, of those generated and of those held out; a choice of ours.
IMAGES = 50
#: A cell with at most as many generated images does not count, as in the authors' experiments.
FEWEST = 20

Distances = npt.NDArray[np.float64]


class Partition(NamedTuple):
    """Cells of space, by their centres, and the cell of each training image."""

    centres: Float[Tensor, "cells dim"]
    own: Int[Tensor, " images"]

    @property
    def cells(self) -> int:
        """How many there are."""
        return len(self.centres)


class CopyingTest:
    """Training and held-out images, for any number of generated sets.

    Args:
        train: Features of the training images.
        held_out: Features of images that the model has not seen.
    """

    def __init__(self, train: Float[Tensor, "t dim"], held_out: Float[Tensor, "n dim"]) -> None:
        self.train, self.held_out = train, held_out
        self._partitions: dict[int, Partition] = {}

    def score(self, generated: Float[Tensor, "m dim"]) -> Score:
        """Return ``C_T`` with its standard error if nothing is copied.

        Where no cell has more than :data:`FEWEST` generated images and any held-out one, space is
        a single cell.
        """
        few = min(len(generated), len(self.held_out))
        found = self._scored(generated, min(CELLS, max(1, few // IMAGES)))
        return found or self._scored(generated, 1) or Score(math.nan, None, "no images")

    def partition(self, cells: int) -> Partition:
        """Return cells by k-means of the training images, found once."""
        if cells not in self._partitions:
            self._partitions[cells] = _partition(self.train, cells)
        return self._partitions[cells]

    def _scored(self, generated: Float[Tensor, "m dim"], cells: int) -> Score | None:
        """Return the weighted mean over the cells that count; None where none does."""
        partition = self.partition(cells)
        near, far = (_cells_of(images, partition) for images in (self.held_out, generated))
        found = []
        for cell in range(cells):
            held_out, drawn = self.held_out[near == cell], generated[far == cell]
            if len(held_out) and len(drawn) and (len(drawn) > FEWEST or cells == 1):
                train = self.train[partition.own == cell]
                z = rank_statistic(_distances(drawn, train), _distances(held_out, train))
                found.append((len(held_out), z))
        if not found:
            return None
        weights, statistics = (np.array(column, float) for column in zip(*found, strict=True))
        weights /= weights.sum()
        error = f"of a mean over {len(found)} of {cells} cells, if nothing is copied"
        return Score(float(weights @ statistics), float(np.sqrt(weights @ weights)), error)


def rank_statistic(generated: Distances, held_out: Distances) -> float:
    """Return ``Z`` of Mann and Whitney's ``U``: below zero where generated distances are smaller.

    Args:
        generated: Distances to the nearest training image.
        held_out: The same of held-out images.
    """
    m, n = len(generated), len(held_out)
    ranks = rankdata(np.concatenate([generated, held_out]))
    u = ranks[:m].sum() - m * (m + 1) / 2
    return float((u - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12))


def _partition(train: Float[Tensor, "t dim"], cells: int) -> Partition:
    if cells == 1:
        return Partition(train.mean(0, keepdim=True), torch.zeros(len(train), dtype=torch.int64))
    means = KMeans(cells, n_init=1, random_state=0)
    found = beside(lambda: means.fit(train.numpy()))
    own = torch.from_numpy(found.labels_.astype(np.int64))
    return Partition(torch.from_numpy(found.cluster_centers_).to(train), own)


def _cells_of(images: Float[Tensor, "n dim"], partition: Partition) -> Int[Tensor, " n"]:
    """Return the cell of each image."""
    return nearest(images, partition.centres, 1).indices[:, 0]


def _distances(images: Float[Tensor, "n dim"], train: Float[Tensor, "t dim"]) -> Distances:
    found: Distances = nearest(images, train, 1).distances[:, 0].numpy()
    return found
