"""An autoregressive network of residual blocks: the ResMADE of neural spline flows.

The paper is https://arxiv.org/abs/1906.04032.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.models.flows.layers.masked import MaskedLayer, MaskedLinear, made_masks
from dgm_bench.models.flows.layers.transposed import transposed_outputs
from dgm_bench.models.whole_batch import Dropout


class ResidualMaskedNetwork(nn.Module):
    """Masked residual blocks ``h + W_2 relu(W_1 relu(h))``; all hidden layers share their degrees.

    As in the released NSF code (``nde``'s MADE): degrees cycle through 1 ... dim-1, layers are
    initialised as torch does, the last of each block near zero, and dropout, if any, is in the
    middle of a block.

    Args:
        order: Degree of each input, a permutation of 1 ... dim.
        hidden: Width of the hidden layers.
        blocks: Number of blocks.
        outputs: Outputs per input dimension; output ``k * dim + d`` belongs to dimension ``d``.
        dropout: Probability that a unit in the middle of a block is dropped in training.
    """

    order: Int[Tensor, " dim"]

    def __init__(
        self,
        order: Int[Tensor, " dim"],
        hidden: int,
        blocks: int,
        outputs: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        masks = made_masks(order, (1 + 2 * blocks) * [hidden], outputs, "sequential")
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        for layer in self._linears:
            layer.reset_parameters()
        for last in self._linears[2:-1:2]:
            nn.init.uniform_(last.weight, -1e-3, 1e-3)
            nn.init.uniform_(last.bias, -1e-3, 1e-3)
        self.relu, self.dropout = nn.ReLU(), Dropout(dropout)
        self.register_buffer("order", order, persistent=False)

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs for all dimensions."""
        outputs: Tensor = self._linears[-1](self._hidden(x))
        return outputs

    def transposed(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "outputs batch"]:
        """Return the same outputs, one column an example."""
        return transposed_outputs(self._linears[-1], self._hidden(x))

    def _hidden(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch hidden"]:
        first, *inner, _ = self._linears
        h: Tensor = first(x)
        for one, other in zip(inner[::2], inner[1::2], strict=True):
            h = h + other(self.dropout(self.relu(one(self.relu(h)))))
        return h

    def masked_layers(self) -> list[MaskedLayer]:
        """Return the layers, each with the nonlinearity before it and what is added after."""
        first, *inner, last = self._linears
        layers = [MaskedLayer(first)]
        for i, linear in enumerate(inner):
            layers.append(MaskedLayer(linear, self.relu, skip_from=i - 1 if i % 2 else None))
        return [*layers, MaskedLayer(last)]

    @property
    def _linears(self) -> tuple[MaskedLinear, ...]:
        return cast(tuple[MaskedLinear, ...], tuple(self.layers))


class ResidualNetwork(nn.Module):
    """The same residual network without masks, for couplings.

    Args:
        inputs: Number of inputs.
        hidden: Width of the hidden layers.
        blocks: Number of blocks.
        outputs: Number of outputs.
        dropout: Probability that a unit in the middle of a block is dropped in training.
    """

    def __init__(
        self, inputs: int, hidden: int, blocks: int, outputs: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2 * blocks))
        for last in cast(tuple[nn.Linear, ...], tuple(self.inner))[1::2]:
            nn.init.uniform_(last.weight, -1e-3, 1e-3)
            nn.init.uniform_(last.bias, -1e-3, 1e-3)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs."""
        outputs: Tensor = self.last(self._hidden(x))
        return outputs

    def transposed(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "outputs batch"]:
        """Return the same outputs, one column an example."""
        return transposed_outputs(self.last, self._hidden(x))

    def _hidden(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        h: Tensor = self.first(x)
        layers = list(self.inner)
        for one, other in zip(layers[::2], layers[1::2], strict=True):
            h = h + other(self.dropout(torch.relu(one(torch.relu(h)))))
        return h
