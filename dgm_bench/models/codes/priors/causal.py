"""Causal layers on grids, over whole grids and, for sampling, one position at a time.

Grids are of shape (batch, rows, columns, channels), in raster order. A layer is causal if its
output at a position depends on inputs there and before alone. The input of a network is shifted
(:func:`shift_down`, :func:`shift_right`, a strict convolution), so that no position depends on
itself.

Classes whose names begin with ``Cached`` compute the same one position at a time, at the cost of
that position alone: rows above are convolved once per row, and inputs to the left are cached.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.elementwise import elu
from dgm_bench.models.whole_batch import Dropout


def shift_down(x: Float[Tensor, "n rows columns c"]) -> Float[Tensor, "n rows columns c"]:
    """Return the grid moved down by one row, with zeros in the first."""
    return F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1]


def shift_right(x: Float[Tensor, "n rows columns c"]) -> Float[Tensor, "n rows columns c"]:
    """Return the grid moved right by one column, with zeros in the first."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def convolve(
    x: Float[Tensor, "n rows columns c"],
    weight: Float[Tensor, "out c height width"],
    bias: Float[Tensor, " out"] | None,
    stride: int = 1,
) -> Float[Tensor, "n less_rows less_columns out"]:
    """Return the convolution without padding, channels last."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride).permute(0, 2, 3, 1)


def reach_of(kernel: int) -> int:
    """Return the number of positions to each side in a kernel.

    Raises:
        DeclarationError: The kernel is even, or below 3.
    """
    if kernel < 3 or kernel % 2 == 0:
        raise DeclarationError(f"kernel {kernel}", "is not an odd number from 3", "use 3 or 5")
    return kernel // 2


def condition(
    projection: nn.Linear | None, context: Float[Tensor, "*grid hidden"] | None
) -> Float[Tensor, "*grid out"] | float:
    """Return the projected context, zero if there is none."""
    return 0.0 if projection is None or context is None else projection(context)


class CausalConv(nn.Module):
    """A masked convolution over rows above and, in its row, positions that are not to the right.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        kernel: Width, odd; it covers ``kernel // 2`` positions up, left and, in rows above, right.
        strict: Whether the position itself is excluded (mask A), the window then shifted left.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, strict: bool = False) -> None:
        super().__init__()
        self.reach, self.shift = reach_of(kernel), int(strict)
        self.above = nn.Conv2d(inputs, outputs, (self.reach, kernel), bias=False)
        self.here = nn.Conv2d(inputs, outputs, (1, self.reach + 1))

    def forward(
        self, x: Float[Tensor, "n rows columns inputs"]
    ) -> Float[Tensor, "n rows columns outputs"]:
        """Return the output at every position."""
        r, s = self.reach, self.shift
        parts = [F.pad(self.above.weight, (s, 0)), F.pad(self.here.weight, (0, r + s))]
        return convolve(F.pad(x, (0, 0, r + s, r, r, 0)), torch.cat(parts, 2), self.here.bias)


class GatedBlock(nn.Module):
    """A gated residual block of two causal convolutions (PixelSNAIL, figure 3, residual block).

    ``x + a * sigmoid(b)`` with ``a`` and ``b`` the outputs of ELU, convolution, ELU, convolution;
    the context is added before the gate.

    Args:
        hidden: Channels in and out.
        residual: Channels between the convolutions.
        kernel: Odd.
        dropout: Dropout probability before the second convolution.
        conditional: Whether there is a context, of ``hidden`` channels.
    """

    def __init__(
        self, hidden: int, residual: int, kernel: int, dropout: float, conditional: bool
    ) -> None:
        super().__init__()
        self.inner = CausalConv(hidden, residual, kernel)
        self.outer = CausalConv(residual, 2 * hidden, kernel)
        self.dropout = Dropout(dropout)
        self.condition = nn.Linear(hidden, 2 * hidden, bias=False) if conditional else None

    def forward(
        self,
        x: Float[Tensor, "n rows columns hidden"],
        context: Float[Tensor, "n rows columns hidden"] | None,
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the output at every position."""
        h = self.outer(self.dropout(elu(self.inner(elu(x)))))
        return x + F.glu(h + condition(self.condition, context), -1)


class PointwiseBlock(nn.Module):
    """A gated residual block of 1 x 1 convolutions, for whole grids and single positions.

    Args:
        hidden: Channels in and out.
        residual: Channels between the convolutions.
        dropout: Dropout probability before the second convolution.
        side: Channels of a second input; 0 for none.
    """

    def __init__(self, hidden: int, residual: int, dropout: float, side: int = 0) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, residual)
        self.side = nn.Linear(side, residual, bias=False) if side else None
        self.outer = nn.Linear(residual, 2 * hidden)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "*grid hidden"], side: Float[Tensor, "*grid side"] | None = None
    ) -> Float[Tensor, "*grid hidden"]:
        """Return the output at every position given."""
        h: Tensor = self.inner(elu(x))
        if self.side is not None and side is not None:
            h = h + self.side(elu(side))
        return x + F.glu(self.outer(self.dropout(elu(h))), -1)


class Head(nn.Module):
    """The output stack: 1 x 1 residual blocks, and logits of the codes.

    Args:
        hidden: Channels in.
        residual: Channels inside the blocks.
        layers: Number of blocks.
        dropout: Dropout probability inside the blocks.
        codes: Number of codes.
    """

    def __init__(self, hidden: int, residual: int, layers: int, dropout: float, codes: int) -> None:
        super().__init__()
        blocks = (PointwiseBlock(hidden, residual, dropout) for _ in range(layers))
        self.blocks = nn.Sequential(*blocks)
        self.logits = nn.Linear(hidden, codes)

    def forward(self, x: Float[Tensor, "*grid hidden"]) -> Float[Tensor, "*grid codes"]:
        """Return logits at every position given."""
        logits: Tensor = self.logits(elu(self.blocks(x)))
        return logits


class CausalAttention(nn.Module):
    """Multi-head attention from each position to all before it, but not to itself.

    Each position also attends to a start token whose key and value are zero, the first position to
    that alone. Keys and values may therefore depend on the code at their own position.

    Args:
        queries: Channels of the input of queries.
        memory: Channels of the input of keys and values.
        heads: Number of heads.
        width: Length of the keys of a head, and of its values.
    """

    def __init__(self, queries: int, memory: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.query = nn.Linear(queries, heads * width)
        self.memory = nn.Linear(memory, 2 * heads * width)

    def forward(
        self,
        x: Float[Tensor, "n rows columns queries"],
        memory: Float[Tensor, "n rows columns memory"],
    ) -> Float[Tensor, "n rows columns values"]:
        """Return the attended values of all heads at each position."""
        query = self._by_head(self.query(x))
        # Shifted by one, so that the usual causal mask excludes the position itself.
        keys, values = (F.pad(m, (0, 0, 1, 0))[:, :, :-1] for m in self._memory_by_head(memory))
        y = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
        return y.transpose(1, 2).reshape(*x.shape[:-1], -1)

    def _by_head(self, x: Float[Tensor, "n *grid all"]) -> Float[Tensor, "n heads positions width"]:
        return x.reshape(len(x), -1, self.heads, self.width).transpose(1, 2)

    def _memory_by_head(self, memory: Float[Tensor, "n *grid c"]) -> tuple[Tensor, Tensor]:
        keys, values = self.memory(memory).chunk(2, -1)
        return self._by_head(keys), self._by_head(values)


class CachedRowConv:
    """The part of a causal convolution over the current row, one position at a time.

    Args:
        weight: Of one row; the last column is for the position itself.
        n: Batch size.
        columns: Length of a row.
    """

    def __init__(self, weight: Float[Tensor, "out c 1 taps"], n: int, columns: int) -> None:
        _, channels, _, taps = weight.shape
        self.weight = weight[:, :, 0].permute(2, 1, 0).reshape(taps * channels, -1).contiguous()
        padded = weight.new_zeros(n, columns + taps - 1, channels)
        self.row = padded[:, taps - 1 :]
        self._slots = self.row.unbind(1)
        # Views are created once: creating one costs as much as the arithmetic.
        flat = padded.flatten(1)
        ends = range(taps * channels, flat.shape[1] + 1, channels)
        self._patches = [flat[:, end - taps * channels : end] for end in ends]

    def put(self, x: Float[Tensor, "n c"], column: int) -> None:
        """Append the input at a column."""
        self._slots[column].copy_(x)

    def step(
        self, x: Float[Tensor, "n c"], column: int, term: Float[Tensor, "n out"]
    ) -> Float[Tensor, "n out"]:
        """Append the input at a column; return the output there plus ``term``."""
        self.put(x, column)
        return torch.addmm(term, self._patches[column], self.weight)


class CachedRowsConv:
    """A convolution over the latest rows, one row at a time.

    Args:
        weight: Kernel; its height is the number of cached rows.
        bias: Bias of the convolution.
        n: Batch size.
        columns: Length of a row.
    """

    def __init__(
        self,
        weight: Float[Tensor, "out c height width"],
        bias: Float[Tensor, " out"] | None,
        n: int,
        columns: int,
    ) -> None:
        self.weight, self.bias = weight, bias
        _, channels, height, width = weight.shape
        self.rows = weight.new_zeros(n, height, columns + width - 1, channels)
        self._within = slice(width // 2, width // 2 + columns)

    def append_row(self, row: Float[Tensor, "n columns c"]) -> None:
        """Append a row and drop the oldest."""
        self.rows[:, :-1] = self.rows[:, 1:].clone()
        self.rows[:, -1, self._within] = row

    def convolve(self) -> Float[Tensor, "n columns out"]:
        """Return the convolution at every column."""
        return convolve(self.rows, self.weight, self.bias)[:, 0]


class CachedCausalConv:
    """A :class:`CausalConv` evaluated one position at a time.

    If it is strict, the input at a column is that of the column to the left, zeros at the first.

    Args:
        conv: The convolution, whose weights are read once.
        n: Batch size.
        columns: Length of a row.
    """

    def __init__(self, conv: CausalConv, n: int, columns: int) -> None:
        self._above = CachedRowsConv(conv.above.weight, conv.here.bias, n, columns)
        self._here = CachedRowConv(conv.here.weight, n, columns)

    def begin_row(self, term: Float[Tensor, "n columns out"] | float = 0.0) -> None:
        """Start the next row, in which ``term`` is added to the output."""
        self._terms = by_column(self._above.convolve() + term)

    def end_row(self, row: Float[Tensor, "n columns c"] | None = None) -> None:
        """Cache the row for the rows below: the inputs so far, or ``row`` for a strict one."""
        self._above.append_row(self._here.row if row is None else row)

    def step(self, x: Float[Tensor, "n c"], column: int) -> Float[Tensor, "n out"]:
        """Append the input at a column; return the output there."""
        return self._here.step(x, column, self._terms[column])


class CachedGatedBlock:
    """A :class:`GatedBlock` evaluated one position at a time, without dropout.

    Args:
        block: The block, whose weights are read once.
        n: Batch size.
        columns: Length of a row.
    """

    def __init__(self, block: GatedBlock, n: int, columns: int) -> None:
        self.block = block
        self.inner = CachedCausalConv(block.inner, n, columns)
        self.outer = CachedCausalConv(block.outer, n, columns)

    def begin_row(self, context: Float[Tensor, "n columns hidden"] | None) -> None:
        """Start the next row, with this context."""
        self.inner.begin_row()
        self.outer.begin_row(condition(self.block.condition, context))

    def end_row(self) -> None:
        """Cache the row for the rows below."""
        self.inner.end_row()
        self.outer.end_row()

    def step(self, x: Float[Tensor, "n hidden"], column: int) -> Float[Tensor, "n hidden"]:
        """Append the input at a column; return the output there."""
        h = self.outer.step(elu(self.inner.step(elu(x), column)), column)
        return x + F.glu(h, -1)


class CachedCausalAttention:
    """A :class:`CausalAttention` evaluated one position at a time, with cached keys and values.

    Args:
        attention: The layer.
        n: Batch size.
        positions: Number of positions.
    """

    def __init__(self, attention: CausalAttention, n: int, positions: int) -> None:
        self.attention, self.shape = attention, (n * attention.heads, attention.width)
        weight = attention.query.weight
        # Keys are stored transposed, for their product with the query.
        self.keys = weight.new_zeros(*self.shape, positions + 1)
        self.values = weight.new_zeros(len(self.keys), positions + 1, attention.width)
        self.length = 1

    def step(self, x: Float[Tensor, "n queries"]) -> Float[Tensor, "n values"]:
        """Return the attended values of the next position."""
        query = self.attention.query(x).view(*self.shape).unsqueeze(1) * self.shape[1] ** -0.5
        weights = torch.bmm(query, self.keys[:, :, : self.length]).softmax(-1)
        return torch.bmm(weights, self.values[:, : self.length]).view(len(x), -1)

    def append(self, memory: Float[Tensor, "n memory"]) -> None:
        """Append the keys and values of this position."""
        keys, values = self.attention.memory(memory).chunk(2, -1)
        self.keys[:, :, self.length] = keys.reshape(self.shape)
        self.values[:, self.length] = values.reshape(self.shape)
        self.length += 1


def by_column(row: Float[Tensor, "n columns c"]) -> tuple[Float[Tensor, "n c"], ...]:
    """Return the features of each column."""
    return row.transpose(0, 1).contiguous().unbind(0)
