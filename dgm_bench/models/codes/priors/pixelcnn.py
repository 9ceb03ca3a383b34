"""Gated PixelCNN (https://arxiv.org/abs/1606.05328) over the codes of one level of a VQ-VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0, Fraction
from dgm_bench.models.codes.priors.causal import (
    CachedRowConv,
    CachedRowsConv,
    Head,
    by_column,
    condition,
    convolve,
    reach_of,
    shift_down,
    shift_right,
)
from dgm_bench.models.codes.priors.code_prior import CachedPrior, CodeLevel, CodePrior
from dgm_bench.models.codes.priors.code_sampling import Context
from dgm_bench.models.whole_batch import Dropout


def gate(x: Float[Tensor, "*grid twice"]) -> Float[Tensor, "*grid twice//2"]:
    """Return ``tanh(a) * sigmoid(b)`` of the two halves of the channels (equation 2)."""
    a, b = x.chunk(2, -1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2).

    The vertical stack depends on the rows above, the horizontal stack also on the codes to the left
    in the row. The first is an input of the second but not vice versa, so that there is no blind
    spot. The context enters the vertical stack before its gate, and through it the horizontal one.

    Args:
        hidden: Channels of both stacks.
        residual: Channels of the horizontal gate.
        kernel: Odd.
        dropout: Dropout probability after the horizontal gate.
        conditional: Whether there is a context, of ``hidden`` channels.
    """

    def __init__(
        self, hidden: int, residual: int, kernel: int, dropout: float, conditional: bool
    ) -> None:
        super().__init__()
        self.reach = reach_of(kernel)
        self.vertical = nn.Conv2d(hidden, 2 * hidden, (self.reach + 1, kernel))
        self.across = nn.Linear(2 * hidden, 2 * residual)
        self.horizontal = nn.Conv2d(hidden, 2 * residual, (1, self.reach + 1), bias=False)
        self.outward = nn.Linear(residual, hidden)
        self.dropout = Dropout(dropout)
        self.condition = nn.Linear(hidden, 2 * hidden, bias=False) if conditional else None

    def forward(
        self,
        vertical: Float[Tensor, "n rows columns hidden"],
        horizontal: Float[Tensor, "n rows columns hidden"],
        context: Context,
    ) -> tuple[
        Float[Tensor, "n rows columns hidden"],
        Float[Tensor, "n rows columns hidden"],
    ]:
        """Return the outputs of both stacks."""
        r = self.reach
        padded = F.pad(vertical, (0, 0, r, r, r, 0))
        v = convolve(padded, self.vertical.weight, self.vertical.bias)
        v = v + condition(self.condition, context)
        h = convolve(F.pad(horizontal, (0, 0, r, 0)), self.horizontal.weight, None)
        h = self.outward(self.dropout(gate(h + self.across(v))))
        return gate(v), horizontal + h


class PixelCNN(CodePrior):
    """Gated PixelCNN over one level's codes, given the class and the levels above.

    Residual connections are in the horizontal stack alone, as in the paper.

    Van den Oord et al. (2016), https://arxiv.org/abs/1606.05328, section 2; over codes: Van den
    Oord, Vinyals and Kavukcuoglu (2017), https://arxiv.org/abs/1711.00937, section 3.3.

    Args:
        event_shape: Shape of a row of packed codes.
        grids: Rows and columns of each level, top first.
        level: The level to model; 0 is the top.
        codes: Number of codes of each level, or one number for all.
        classes: Number of classes to be conditioned on, or None.
        hidden: Hidden units: channels of the stacks.
        residual: Residual units: channels of the gates inside the residual blocks.
        layers: Number of gated layers.
        kernel: Width of the convolutions, odd.
        dropout: Dropout probability in the residual blocks.
        output_layers: Number of 1 x 1 residual blocks before the logits.
        conditioning_layers: Number of residual blocks over the levels above, if any.
        conditioning_residual: Channels inside those blocks; ``hidden`` if None.

    Raises:
        DeclarationError: Shape, grids, level and numbers of codes are inconsistent.

    Example:
        >>> shape = {"grids": [[1, 1]], "level": 0, "codes": 3, "hidden": 8, "residual": 4}
        >>> model = PixelCNN((2,), **shape, layers=1)
        >>> rows = torch.tensor([[0, 0], [1, 0], [2, 0]])  # code and class, which is unused
        >>> round(model.log_prob(rows).exp().sum().item(), 4)
        1.0
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        grids: Sequence[Sequence[Count]],
        level: CountFrom0,
        codes: Count | Sequence[Count],
        classes: Count | None = None,
        hidden: Count,
        residual: Count,
        layers: Count,
        kernel: Count = 5,
        dropout: Fraction = 0.0,
        output_layers: CountFrom0 = 0,
        conditioning_layers: CountFrom0 = 20,
        conditioning_residual: Count | None = None,
    ) -> None:
        code_level = CodeLevel(event_shape, grids, level, codes, classes)
        super().__init__(code_level, hidden, conditioning_residual or hidden, conditioning_layers)
        block = (hidden, residual, kernel, dropout, self.conditional)
        self.layers = nn.ModuleList(GatedLayer(*block) for _ in range(layers))
        self.head = Head(hidden, residual, output_layers, dropout, self.codes)

    def network(
        self, embedded: Float[Tensor, "n rows columns hidden"], context: Context
    ) -> Float[Tensor, "n rows columns codes"]:
        """Return the logits of every position given the embedded codes before it."""
        v, h = shift_down(embedded), shift_right(embedded)
        for layer in self.layers:
            v, h = layer(v, h, context)
        logits: Tensor = self.head(h)
        return logits

    def cached(self, n: int, context: Context) -> CachedPixelCNN:
        """Return the network with empty caches and without dropout, at the first position."""
        return CachedPixelCNN(self, n, context)


class CachedGatedLayer:
    """A :class:`GatedLayer`: the vertical stack by rows, the horizontal one by positions.

    Args:
        layer: The layer, whose weights are read once.
        n: Batch.
        columns: Length of a row.
    """

    def __init__(self, layer: GatedLayer, n: int, columns: int) -> None:
        self.layer = layer
        self.vertical = CachedRowsConv(layer.vertical.weight, layer.vertical.bias, n, columns)
        self.horizontal = CachedRowConv(layer.horizontal.weight, n, columns)

    def begin_row(
        self,
        vertical: Float[Tensor, "n columns hidden"],
        context: Float[Tensor, "n columns hidden"] | None,
    ) -> Float[Tensor, "n columns hidden"]:
        """Append a row of the vertical stack's input; return its output."""
        self.vertical.append_row(vertical)
        v = self.vertical.convolve() + condition(self.layer.condition, context)
        self._terms = by_column(self.layer.across(v))
        return gate(v)

    def step(self, x: Float[Tensor, "n hidden"], column: int) -> Float[Tensor, "n hidden"]:
        """Append the horizontal stack's input at a column; return its output."""
        h = gate(self.horizontal.step(x, column, self._terms[column]))
        y: Tensor = self.layer.outward(h)
        return x + y


class CachedPixelCNN(CachedPrior):
    """A :class:`PixelCNN` evaluated one position at a time.

    Args:
        model: In evaluation mode.
        n: Batch.
        context: The features that the codes are conditioned on.
    """

    def __init__(self, model: PixelCNN, n: int, context: Context) -> None:
        super().__init__(model, n, context)
        self.head = model.head
        layers = cast(Sequence[GatedLayer], model.layers)
        self.layers = [CachedGatedLayer(layer, n, model.grid[1]) for layer in layers]

    def begin_row(self, row: int) -> None:
        """Run the vertical stack over the row."""
        v = self.row[:, 1:]
        for layer in self.layers:
            v = layer.begin_row(v, self.context_of(row))

    def logits(self, column: int) -> Float[Tensor, "n codes"]:
        """Return the logits at a column of the row."""
        h = self.row[:, column]
        for layer in self.layers:
            h = layer.step(h, column)
        logits: Tensor = self.head(h)
        return logits
