"""The network of PixelCNN++ one position at a time.

What depends on rows above alone is computed once a row, and at a coarser scale once in two rows of
the finer one; the left stream of a scale at those positions that the scale has: one in four of the
finer one's. Inputs to the left and above are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor

from dgm_bench.models.codes.priors.causal import (
    CachedRowConv,
    CachedRowsConv,
    by_column,
    condition,
)
from dgm_bench.models.codes.priors.two_streams import (
    Beginning,
    ShiftedBlock,
    TwoStreamLayer,
    TwoStreams,
    layers_of,
    with_ones,
)
from dgm_bench.models.codes.priors.weight_norm import (
    ShiftedConv,
    ShiftedTransposedConv,
)

#: Features of a row of a scale, and of one of its positions.
Row = Float[Tensor, "n columns hidden"]
Place = Float[Tensor, "n hidden"]


class CachedRowsBlock:
    """A :class:`ShiftedBlock` of the stream of rows above, one row at a time, without dropout.

    Args:
        block: The block, whose weights are read once.
        n: Batch size.
        columns: Length of a row.
    """

    def __init__(self, block: ShiftedBlock, n: int, columns: int) -> None:
        self.block = block
        self.inner, self.outer = (
            CachedRowsConv(conv.weight, conv.bias, n, columns)
            for conv in (block.inner, block.outer)
        )

    def step(self, x: Row, context: Row | None, side: Row | None) -> Row:
        """Append a row; return the output there."""
        activation = self.block.activation
        self.inner.append_row(activation(x))
        h = self.inner.convolve()
        if self.block.side is not None and side is not None:
            h = h + self.block.side(activation(side))
        self.outer.append_row(activation(h))
        return x + F.glu(self.outer.convolve() + condition(self.block.condition, context), -1)


class CachedLeftConv:
    """A :class:`ShiftedConv` of two rows and two columns, one position at a time.

    Args:
        conv: The convolution, whose weights are read once.
        n: Batch size.
        columns: Length of a row of its inputs.
    """

    def __init__(self, conv: ShiftedConv, n: int, columns: int) -> None:
        weight = conv.weight
        self._above = CachedRowsConv(weight[:, :, :1], conv.bias, n, columns)
        self._here = CachedRowConv(weight[:, :, 1:], n, columns)

    def begin_row(self, term: Row | float = 0.0) -> None:
        """Start a row, in which ``term`` is added to the output."""
        self._terms = by_column(self._above.convolve() + term)

    def end_row(self) -> None:
        """Keep the row for the one below."""
        self._above.append_row(self._here.row)

    def put(self, x: Place, column: int) -> None:
        """Append the input at a column."""
        self._here.put(x, column)

    def step(self, x: Place, column: int) -> Float[Tensor, "n out"]:
        """Append the input at a column; return the output there."""
        return self._here.step(x, column, self._terms[column])


class CachedLeftBlock:
    """A :class:`ShiftedBlock` of the left stream, one position at a time, without dropout.

    Args:
        block: The block, whose weights are read once.
        n: Batch size.
        columns: Length of a row.
        skips: Whether the side input has a skip connection after the features of rows above.
    """

    def __init__(self, block: ShiftedBlock, n: int, columns: int, skips: bool = False) -> None:
        self.block = block
        self.inner, self.outer = (
            CachedLeftConv(conv, n, columns) for conv in (block.inner, block.outer)
        )
        self.activation, self.from_skip = block.activation, None
        if block.side is not None:
            # Of the positive and the negative parts: features of rows above, skip connection.
            parts = block.side.weight.unflatten(1, (2, 2 if skips else 1, -1)).unbind(2)
            self.from_above, *rest = (part.flatten(1) for part in parts)
            self.from_skip = rest[0].T if rest else None

    def begin_row(self, above: Row | None, context: Row | None) -> None:
        """Start a row, with the features of the rows above if they are a side input."""
        term: Tensor | float = 0.0
        if self.block.side is not None and above is not None:
            term = F.linear(self.activation(above), self.from_above, self.block.side.bias)
        self.inner.begin_row(term)
        self.outer.begin_row(condition(self.block.condition, context))

    def end_row(self) -> None:
        """Keep the row for the one below."""
        self.inner.end_row()
        self.outer.end_row()

    def step(self, x: Place, column: int, skip: Place | None = None) -> Place:
        """Append the input at a column; return the output there."""
        h = self.inner.step(self.activation(x), column)
        if self.from_skip is not None and skip is not None:
            h = torch.addmm(h, self.activation(skip), self.from_skip)
        return x + F.glu(self.outer.step(self.activation(h), column), -1)


class CachedLayer:
    """A :class:`TwoStreamLayer`: the stream of rows above by rows, the left one by positions.

    Args:
        layer: The layer.
        n: Batch size.
        columns: Length of a row.
        skips: Whether there are skip connections.
    """

    def __init__(self, layer: TwoStreamLayer, n: int, columns: int, skips: bool) -> None:
        self.above = CachedRowsBlock(layer.above, n, columns)
        self.left = CachedLeftBlock(layer.left, n, columns, skips)

    def begin_row(self, x: Row, context: Row | None, skip: Row | None = None) -> Row:
        """Start a row; return the features of the rows above it."""
        above = self.above.step(x, context, skip)
        self.left.begin_row(above, context)
        return above


class CachedLeftBeginning:
    """The left stream of a :class:`Beginning`: what is above by rows, what is left by positions.

    Args:
        row: The convolution over the row above.
        column: That over the column to the left.
        n: Batch size.
        columns: Length of a row.
    """

    def __init__(self, row: ShiftedConv, column: ShiftedConv, n: int, columns: int) -> None:
        weight = column.weight
        self.row = CachedRowsConv(row.weight, row.bias, n, columns)
        self.above = CachedRowsConv(weight[:, :, :1], column.bias, n, columns)
        self.left = weight[:, :, 1, 0].T

    def begin_row(self, before: Float[Tensor, "n columns inputs"] | None) -> None:
        """Start a row after the row before, or the first."""
        terms = torch.zeros_like(self.row.convolve())
        if before is not None:
            for cached in (self.row, self.above):
                cached.append_row(before)
            terms = self.row.convolve()
        self._terms = by_column(terms)
        self._lefts = by_column(self.above.convolve())

    def step(self, left: Float[Tensor, "n inputs"] | None, column: int) -> Place:
        """Return the left stream at a column, given the input to its left, if any."""
        if left is None:
            return self._terms[column]
        return self._terms[column] + torch.addmm(self._lefts[column - 1], left, self.left)


class CachedBeginning:
    """A :class:`Beginning`: the stream of rows above by rows, the left one by positions.

    Args:
        beginning: The layer, whose weights are read once.
        n: Batch size.
        columns: Length of a row.
    """

    def __init__(self, beginning: Beginning, n: int, columns: int) -> None:
        rows = beginning.rows
        self.rows = CachedRowsConv(rows.weight, rows.bias, n, columns)
        self.left = CachedLeftBeginning(beginning.row, beginning.column, n, columns)

    def begin_row(self, before: Float[Tensor, "n columns inputs"] | None) -> Row:
        """Start a row after the row before, or the first; return the features of rows above."""
        self.left.begin_row(before)
        if before is None:
            return torch.zeros_like(self.rows.convolve())
        self.rows.append_row(before)
        return self.rows.convolve()


class CachedFiner:
    """The transposed convolution of the left stream, from a scale to the finer one.

    Args:
        conv: The convolution, whose weights are read once.
        n: Batch size.
        columns: Length of a row of the coarser scale.
    """

    def __init__(self, conv: ShiftedTransposedConv, n: int, columns: int) -> None:
        # By rows and columns of the finer scale within a position of the coarser one.
        self.weight, self.bias = conv.weight.permute(2, 3, 1, 0).contiguous(), conv.bias
        self.row = conv.bias.new_zeros(columns, n, self.weight.shape[2])
        self.places: list[Place] = [self.bias] * (2 * columns)

    def begin_row(self, odd: bool) -> None:
        """Start a row of the finer scale; an odd one depends on the coarser row before alone."""
        if odd:
            first, second = (self.row @ part + self.bias for part in self.weight[1])
            self.places[::2], self.places[1::2] = first.unbind(0), second.unbind(0)

    def put(self, x: Place, column: int) -> None:
        """Append the features at a column of the coarser scale, in an even row of the finer."""
        self.row[column] = x
        for side in range(2):
            self.places[2 * column + side] = torch.addmm(self.bias, x, self.weight[0, side])


class CachedScale:
    """All of one scale.

    Args:
        network: The network, whose weights are read once.
        scale: 0 is the finest.
        n: Batch size.
        columns: Length of a row of the scale.
    """

    def __init__(self, network: TwoStreams, scale: int, n: int, columns: int) -> None:
        self.down, self.up = (
            [CachedLayer(layer, n, columns, skips) for layer in layers_of(layers, scale)]
            for layers, skips in ((network.down, False), (network.up, True))
        )
        self.columns, self.last = columns, scale == network.scales - 1
        if self.last:
            return
        coarser, finer = network.at_edge(scale)
        self.rows = CachedRowsConv(coarser.above.weight, coarser.above.bias, n, columns)
        self.coarser = CachedLeftConv(coarser.left, n, columns)
        self.finer_rows = finer.above
        self.finer = CachedFiner(finer.left, n, (columns + 1) // 2)
        self.other: Row | None = None

    def begin_row(self, odd: bool) -> None:
        """Start a row, which is odd on this scale or not."""
        if not self.last:
            self.finer.begin_row(odd)
            self.coarser.begin_row()

    def coarse_row(self, x: Row) -> Tensor:
        """Append the stream of rows above; return that of the coarser scale."""
        self.rows.append_row(x)
        return self.rows.convolve()[:, ::2]

    def fine_row(self, x: Row | None) -> Tensor:
        """Return the stream of rows above, from that of the coarser scale or from what is left."""
        if x is None:
            assert self.other is not None
            return self.other
        first: Tensor
        first, self.other = self.finer_rows(x[:, None])[:, :, : self.columns].unbind(1)
        return first

    def fine_place(self, x: Place | None, column: int) -> Place:
        """Return the left stream from that of the coarser scale, or from what it was before."""
        if x is not None:
            self.finer.put(x, column // 2)
        return self.finer.places[column]

    def end_row(self) -> None:
        """Keep the row for the one below."""
        for layer in (*self.down, *self.up):
            layer.left.end_row()
        if not self.last:
            self.coarser.end_row()


class CachedTwoStreams:
    """A :class:`TwoStreams` evaluated one position at a time, without dropout.

    Args:
        network: In evaluation mode; its weights are read once.
        n: Batch size.
        columns: Length of a row.
        context: Of the whole grid.
    """

    def __init__(
        self,
        network: TwoStreams,
        n: int,
        columns: int,
        context: Float[Tensor, "n rows columns hidden"] | None,
    ) -> None:
        self.context = context
        self.beginning = CachedBeginning(network.beginning, n, columns)
        lengths = [-(-columns // 2**scale) for scale in range(network.scales)]
        self.scales = [
            CachedScale(network, scale, n, length) for scale, length in enumerate(lengths)
        ]
        inputs = network.beginning.row.direction.shape[1]
        self.inputs = network.beginning.row.bias.new_zeros(n, columns, inputs)
        #: The scales that have this row.
        self._here: list[int] = []

    def begin_row(self, row: int) -> None:
        """Compute all that does not depend on the inputs of the row."""
        for scale in self._here:
            self.scales[scale].end_row()
        here = self._here = [s for s in range(len(self.scales)) if row % 2**s == 0]
        for scale in here:
            self.scales[scale].begin_row(odd=bool((row >> scale) % 2))
        x = self.beginning.begin_row(self.inputs if row else None)
        skips: list[Row] = []
        for scale in here:
            if scale:
                x = self.scales[scale - 1].coarse_row(x)
            skips.append(x)
            for layer in self.scales[scale].down:
                x = layer.begin_row(x, self._context_of(row, scale))
                skips.append(x)
        if not self.scales[here[-1]].last:
            self.scales[here[-1]].rows.append_row(x)
        self._begin_row_up(row, skips)

    def _begin_row_up(self, row: int, skips: list[Row]) -> None:
        x: Row | None = None
        for scale in reversed(self._here):
            at = self.scales[scale]
            x = skips.pop() if at.last else at.fine_row(x)
            for layer in at.up:
                x = layer.begin_row(x, self._context_of(row, scale), skips.pop())

    def step(self, column: int) -> Place:
        """Return the features at a column of the row, given the inputs before it."""
        x = self.beginning.left.step(self.inputs[:, column - 1] if column else None, column)
        here, skips = [scale for scale in self._here if column % 2**scale == 0], []
        for scale in here:
            if scale:
                x = self.scales[scale - 1].coarser.step(x, column >> scale - 1)
            skips.append(x)
            for layer in self.scales[scale].down:
                x = layer.left.step(x, column >> scale)
                skips.append(x)
        if not self.scales[here[-1]].last:
            self.scales[here[-1]].coarser.put(x, column >> here[-1])
        return self._step_up(column, here, skips)

    def _step_up(self, column: int, here: Sequence[int], skips: list[Place]) -> Place:
        x: Place | None = None
        for scale in reversed(here):
            at, place = self.scales[scale], column >> scale
            x = skips.pop() if at.last else at.fine_place(x, place)
            for layer in at.up:
                x = layer.left.step(x, place, skips.pop())
        assert x is not None
        return x

    def feed(self, x: Float[Tensor, "n inputs"], column: int) -> None:
        """Append the inputs at a column."""
        self.inputs[:, column] = with_ones(x)

    def _context_of(self, row: int, scale: int) -> Row | None:
        return None if self.context is None else self.context[:, row, :: 2**scale]
