"""PixelSNAIL (https://arxiv.org/abs/1712.09763) over codes: VQ-VAE-2's prior of the top level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0, Fraction
from dgm_bench.errors import DeclarationError
from dgm_bench.models.codes.priors.causal import (
    CachedCausalAttention,
    CachedCausalConv,
    CachedGatedBlock,
    CausalAttention,
    CausalConv,
    GatedBlock,
    Head,
    PointwiseBlock,
)
from dgm_bench.models.codes.priors.code_prior import CachedPrior, CodeLevel, CodePrior
from dgm_bench.models.codes.priors.code_sampling import Context


class Group(nn.Module):
    """Gated residual blocks, then attention, merged by a gated 1 x 1 block (figure 2).

    Queries are computed from features and coordinates; keys and values also from the embedded codes
    themselves.

    Args:
        blocks: Number of residual blocks.
        block: Arguments of each: hidden, residual, kernel, dropout, conditional.
        heads: Number of heads of the attention.
        head_width: Length of the keys of a head, and of its values.
    """

    def __init__(
        self, blocks: int, block: tuple[int, int, int, float, bool], heads: int, head_width: int
    ) -> None:
        super().__init__()
        hidden, residual, _, dropout, _ = block
        self.blocks = nn.ModuleList(GatedBlock(*block) for _ in range(blocks))
        self.attention = CausalAttention(hidden + 2, 2 * hidden + 2, heads, head_width)
        self.merge = PointwiseBlock(hidden, residual, dropout, heads * head_width)

    def forward(
        self,
        x: Float[Tensor, "n rows columns hidden"],
        embedded: Float[Tensor, "n rows columns hidden"],
        coordinates: Float[Tensor, "rows columns 2"],
        context: Context,
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the output at every position."""
        for block in self.blocks:
            x = block(x, context)
        query = torch.cat([x, coordinates.expand(len(x), -1, -1, -1)], -1)
        y: Tensor = self.merge(x, self.attention(query, torch.cat([query, embedded], -1)))
        return y


class PixelSNAIL(CodePrior):
    """Causal convolutions and attention over one level's codes, given class and levels above.

    The published widths of queries and keys (16) and of values (128) are ambiguous: per head, or in
    all. Here each of 8 heads has 16 of each, 128 values in all.

    Chen, Mishra, Rohaninejad and Abbeel (2017), https://arxiv.org/abs/1712.09763, figure 2; over
    codes: Razavi, van den Oord and Vinyals (2019), https://arxiv.org/abs/1906.00446, section 3.2.

    Args:
        event_shape: Shape of a row of packed codes.
        grids: Rows and columns of each level, top first.
        level: The level to model; 0 is the top.
        codes: Number of codes of each level, or one number for all.
        classes: Number of classes to be conditioned on, or None.
        hidden: Hidden units: channels between the blocks.
        residual: Residual units: channels inside the blocks.
        layers: Number of gated residual blocks.
        attention_layers: Number of attention layers, evenly spaced among them.
        heads: Number of heads of each.
        head_width: Length of the keys of a head, and of its values.
        kernel: Width of the convolutions, odd.
        dropout: Dropout probability in the residual blocks.
        output_layers: Number of 1 x 1 residual blocks before the logits.
        conditioning_layers: Number of residual blocks over the levels above, if any.
        conditioning_residual: Channels inside those blocks; ``hidden`` if None.

    Raises:
        DeclarationError: Shape, grids, level and numbers of codes are inconsistent, or there is no
            attention layer, or more of them than residual blocks.

    Example:
        >>> shape = {"grids": [[1, 1]], "level": 0, "codes": 3, "hidden": 8, "residual": 4}
        >>> model = PixelSNAIL((2,), **shape, layers=1, attention_layers=1, output_layers=1)
        >>> rows = torch.tensor([[0, 0], [1, 0], [2, 0]])  # code and class, which is unused
        >>> round(model.log_prob(rows).exp().sum().item(), 4)
        1.0
    """

    coordinates: Float[Tensor, "rows columns 2"]

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
        attention_layers: Count = 4,
        heads: Count = 8,
        head_width: Count = 16,
        kernel: Count = 5,
        dropout: Fraction = 0.0,
        output_layers: CountFrom0 = 20,
        conditioning_layers: CountFrom0 = 20,
        conditioning_residual: Count | None = None,
    ) -> None:
        code_level = CodeLevel(event_shape, grids, level, codes, classes)
        super().__init__(code_level, hidden, conditioning_residual or hidden, conditioning_layers)
        self.first = CausalConv(hidden, hidden, kernel, strict=True)
        block = (hidden, residual, kernel, dropout, self.conditional)
        sizes = group_sizes(layers, attention_layers)
        self.groups = nn.ModuleList(Group(size, block, heads, head_width) for size in sizes)
        self.head = Head(hidden, residual, output_layers, dropout, self.codes)
        self.register_buffer("coordinates", coordinates_of(self.grid), persistent=False)

    def network(
        self, embedded: Float[Tensor, "n rows columns hidden"], context: Context
    ) -> Float[Tensor, "n rows columns codes"]:
        """Return the logits of every position given the embedded codes before it."""
        x = self.first(embedded)
        for group in self.groups:
            x = group(x, embedded, self.coordinates, context)
        logits: Tensor = self.head(x)
        return logits

    def cached(self, n: int, context: Context) -> CachedPixelSNAIL:
        """Return the network with empty caches and without dropout, at the first position."""
        return CachedPixelSNAIL(self, n, context)


class CachedGroup:
    """A :class:`Group` evaluated one position at a time.

    Args:
        group: The group, whose weights are read once.
        n: Batch.
        grid: Rows and columns.
    """

    def __init__(self, group: Group, n: int, grid: tuple[int, int]) -> None:
        blocks = cast(Sequence[GatedBlock], group.blocks)
        self.group = group
        self.blocks = [CachedGatedBlock(block, n, grid[1]) for block in blocks]
        self.attention = CachedCausalAttention(group.attention, n, grid[0] * grid[1])

    def begin_row(self, context: Float[Tensor, "n columns hidden"] | None) -> None:
        """Start the next row."""
        for block in self.blocks:
            block.begin_row(context)

    def end_row(self) -> None:
        """Cache the row for the rows below."""
        for block in self.blocks:
            block.end_row()

    def step(
        self, x: Float[Tensor, "n hidden"], column: int, coordinates: Float[Tensor, "n 2"]
    ) -> Float[Tensor, "n hidden"]:
        """Append the input at a column; return the output there."""
        for block in self.blocks:
            x = block.step(x, column)
        self._query = torch.cat([x, coordinates], -1)
        y: Tensor = self.group.merge(x, self.attention.step(self._query))
        return y

    def append(self, embedded: Float[Tensor, "n hidden"]) -> None:
        """Append keys and values of this position, whose code is now known."""
        self.attention.append(torch.cat([self._query, embedded], -1))


class CachedPixelSNAIL(CachedPrior):
    """A :class:`PixelSNAIL` evaluated one position at a time.

    Args:
        model: In evaluation mode.
        n: Batch.
        context: The features that the codes are conditioned on.
    """

    def __init__(self, model: PixelSNAIL, n: int, context: Context) -> None:
        super().__init__(model, n, context)
        self.head = model.head
        self.first = CachedCausalConv(model.first, n, model.grid[1])
        groups = cast(Sequence[Group], model.groups)
        self.groups = [CachedGroup(group, n, model.grid) for group in groups]
        self.coordinates = model.coordinates.unsqueeze(2).expand(-1, -1, n, -1)

    def begin_row(self, row: int) -> None:
        """Convolve the rows above."""
        if row > 0:
            self._end_row()
        self.first.begin_row()
        for group in self.groups:
            group.begin_row(self.context_of(row))
        self.places = self.coordinates[row].unbind(0)

    def logits(self, column: int) -> Float[Tensor, "n codes"]:
        """Return the logits at a column of the row."""
        x = self.first.step(self.row[:, column], column)
        for group in self.groups:
            x = group.step(x, column, self.places[column])
        logits: Tensor = self.head(x)
        return logits

    def feed(self, code: Int[Tensor, " n"], column: int) -> None:
        """Append the codes drawn at a column."""
        super().feed(code, column)
        for group in self.groups:
            group.append(self.row[:, column + 1])

    def _end_row(self) -> None:
        self.first.end_row(self.row[:, 1:])
        for group in self.groups:
            group.end_row()


def group_sizes(layers: int, groups: int) -> list[int]:
    """Return the numbers of layers before each attention layer, as even as possible.

    Raises:
        DeclarationError: There is no attention layer, or more of them than layers.
    """
    if not 1 <= groups <= layers:
        reason = f"do not fit among {layers} layers"
        raise DeclarationError(f"{groups} attention layers", reason, "use 1 to as many as layers")
    return [layers * (i + 1) // groups - layers * i // groups for i in range(groups)]


def coordinates_of(grid: tuple[int, int]) -> Float[Tensor, "rows columns 2"]:
    """Return row and column of each position, divided by the grid's sides, minus 1/2."""
    lengths = (torch.arange(length) / length - 0.5 for length in grid)
    return torch.stack(torch.meshgrid(*lengths, indexing="ij"), -1)
