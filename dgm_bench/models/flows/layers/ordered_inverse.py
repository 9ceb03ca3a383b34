"""Inverting an autoregressive network at the cost of about one pass.

The usual inverse runs the whole network once for each dimension (MAF paper, section 3.1). But a
hidden unit of degree t depends on the first t dimensions alone, so that each unit need be computed
only once: when a dimension becomes known, the units of its degree and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.control import ask_within
from dgm_bench.models.flows.layers.masked import MaskedLayer

#: Returns the values of dimension ``d`` from its parameters.
Value = Callable[[int, Float[Tensor, "outputs n"]], Float[Tensor, " n"]]


@runtime_checkable
class AutoregressiveNetwork(Protocol):
    """A masked network that gives access to its layers."""

    @property
    def order(self) -> Int[Tensor, " dim"]:
        """Degree of each input, a permutation of 1 ... dim."""

    def masked_layers(self) -> Sequence[MaskedLayer]:
        """Return the layers, the output layer last."""


@torch.no_grad()
def invert_in_order(
    network: AutoregressiveNetwork, n: int, value: Value
) -> Float[Tensor, "{n} dim"]:
    """Return ``n`` vectors, their dimensions computed by ``value`` in the network's order.

    Args:
        network: Where the parameters of each dimension come from. No gradient reaches it.
        n: Number of vectors.
        value: Called with the number of each dimension and its parameters, in the order of the
            factorisation; row ``k`` of the parameters is output ``k * dim + d`` of the network.
    """
    units = _KnownUnits(network, n)
    for known, d in enumerate(network.order.argsort().tolist()):
        units.compute_units(known)
        units.set(known, value(d, units.parameters(known)))
    return units.vectors(network.order)


class _LayerUnits:
    """Units of one layer, sorted by degree: a unit depends on the first rows of the layer below.

    Rows are units, columns examples.

    Args:
        degrees: Degree of each unit: the number of dimensions that it depends on.
        dim: Number of dimensions.
        values: Memory for the units.
        activation: Nonlinearity of the layer above.
    """

    def __init__(
        self,
        degrees: Int[Tensor, " units"],
        dim: int,
        values: Float[Tensor, "units n"],
        activation: nn.Module | None,
    ) -> None:
        self.degrees, self.values, self.activation = degrees, values, activation
        self.units = degrees.argsort(stable=True)
        counts = torch.bincount(degrees, minlength=dim + 1).cumsum(0)
        #: Units of degree t are the rows from ``ends[t]`` to ``ends[t + 1]``.
        self.ends: list[int] = [0, *counts.tolist()]
        self.activated = values if activation is None else torch.empty_like(values)

    def activate(self, rows: slice) -> None:
        """Apply the nonlinearity of the layer above to rows that have become known."""
        if self.activation is not None:
            self.activated[rows] = self.activation(self.values[rows])


class _KnownUnits:
    """The units known so far, as one dimension after another becomes known.

    Args:
        network: The network.
        n: Number of vectors.
    """

    def __init__(self, network: AutoregressiveNetwork, n: int) -> None:
        self.layers, dim = network.masked_layers(), len(network.order)
        weights = [layer.linear.masked_weight() for layer in self.layers]
        self.levels: list[_LayerUnits] = []
        degrees = network.order
        for layer, weight in zip(self.layers, weights, strict=True):
            values = weight.new_empty(weight.shape[1], n)
            self.levels.append(_LayerUnits(degrees, dim, values, layer.activation))
            # Degrees are those of the masks, which a loaded state dict may have changed.
            degrees = (layer.linear.mask * degrees).amax(1).long()
        outputs = self.layers[-1].linear.places().view(-1, dim)
        # The outputs of one dimension side by side, and dimensions in order.
        rows = [level.units for level in self.levels[1:]] + [outputs[:, self.levels[0].units].T]
        # Copying whole rows is faster than picking elements.
        self.weights = [
            weight.T.contiguous()[level.units].T.contiguous()[units]
            for weight, units, level in zip(weights, rows, self.levels, strict=True)
        ]
        self.biases = [
            layer.linear.bias[units][..., None]
            for layer, units in zip(self.layers, rows, strict=True)
        ]

    def compute_units(self, known: int) -> None:
        """Compute the hidden units of degree ``known``."""
        ask_within()
        for i, (below, level) in enumerate(pairwise(self.levels)):
            rows, seen = slice(*level.ends[known : known + 2]), below.ends[known + 1]
            if rows.start < rows.stop:
                self._compute(i, rows, seen)
                level.activate(rows)

    def parameters(self, known: int) -> Float[Tensor, "outputs n"]:
        """Return the outputs for the dimension after the first ``known``."""
        below = self.levels[-1]
        seen = below.ends[known + 1]
        weight, bias = self.weights[-1][known, :, :seen], self.biases[-1][known]
        return torch.addmm(bias, weight, below.activated[:seen])

    def set(self, known: int, x: Float[Tensor, " n"]) -> None:
        """Set the dimension after the first ``known``."""
        inputs = self.levels[0]
        inputs.values[known] = x
        inputs.activate(slice(known, known + 1))

    def vectors(self, order: Int[Tensor, " dim"]) -> Float[Tensor, "n dim"]:
        """Return all dimensions."""
        return self.levels[0].values[order - 1].T.contiguous()

    def _compute(self, i: int, rows: slice, seen: int) -> None:
        """Compute some units of hidden layer ``i`` from the units of the layer below."""
        below, values = self.levels[i].activated[:seen], self.levels[i + 1].values[rows]
        torch.addmm(self.biases[i][rows], self.weights[i][rows, :seen], below, out=values)
        skip_from = self.layers[i].skip_from
        if skip_from is not None:
            values += self.levels[skip_from + 1].values[rows]
