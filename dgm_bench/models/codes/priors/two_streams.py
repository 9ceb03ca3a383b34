"""The network of PixelCNN++: two streams of shifted convolutions over several scales.

Salimans, Karpathy, Chen and Kingma (2017), https://arxiv.org/abs/1701.05517, section 2 and figure
2; widths, skip connections and shifts as in openai/pixel-cnn (pixel_cnn_pp/model.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.codes.priors.causal import condition, shift_down, shift_right
from dgm_bench.models.codes.priors.code_sampling import Context
from dgm_bench.models.codes.priors.weight_norm import (
    NormedLinear,
    ShiftedConv,
    ShiftedTransposedConv,
    concat_elu,
)
from dgm_bench.models.elementwise import elu
from dgm_bench.models.whole_batch import Dropout

#: Kernels of the stream of rows above, and of that of what is to the left, too.
ABOVE, LEFT = (2, 3), (2, 2)
#: Deviation of the outputs of a block's second convolution over the first batch.
BRANCH_SCALE = 0.1

#: Features of both streams: of rows above a position, and of what is to the left in its row, too.
Streams = tuple[Float[Tensor, "n rows columns hidden"], Float[Tensor, "n rows columns hidden"]]


class ShiftedBlock(nn.Module):
    """A gated residual block: ``x + a sigmoid(b)`` (openai/pixel-cnn, nn.py, ``gated_resnet``).

    Concatenated ELU, convolution, the same of a side input by a 1 x 1 convolution, concatenated
    ELU, dropout, convolution; the context is added before the gate.

    Args:
        hidden: Channels in and out.
        kernel: Height and width of both convolutions.
        side: Channels of the side input; 0 for none.
        dropout: Dropout probability before the second convolution.
        conditional: Whether there is a context, of ``hidden`` channels.
        concatenated: Whether ELU is concatenated with that of the negatives, or stands alone.
    """

    def __init__(
        self,
        hidden: int,
        kernel: tuple[int, int],
        side: int,
        dropout: float,
        conditional: bool,
        concatenated: bool = True,
    ) -> None:
        super().__init__()
        self.activation, wider = (concat_elu, 2) if concatenated else (elu, 1)
        self.inner = ShiftedConv(wider * hidden, hidden, kernel)
        self.side = NormedLinear(wider * side, hidden) if side else None
        self.outer = ShiftedConv(wider * hidden, 2 * hidden, kernel, scale=BRANCH_SCALE)
        self.dropout = Dropout(dropout)
        self.condition = nn.Linear(hidden, 2 * hidden, bias=False) if conditional else None
        if self.condition is not None:
            nn.init.normal_(self.condition.weight, std=0.05)

    def forward(
        self,
        x: Float[Tensor, "n rows columns hidden"],
        context: Context,
        side: Float[Tensor, "n rows columns side"] | None = None,
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the output at every position."""
        h = self.inner(self.activation(x))
        if self.side is not None and side is not None:
            h = h + self.side(self.activation(side))
        h = self.outer(self.dropout(self.activation(h)))
        return x + F.glu(h + condition(self.condition, context), -1)


class TwoStreamLayer(nn.Module):
    """A block of each stream; the left one also sees the other, and on the way up both see skips.

    Args:
        hidden: Channels of each stream.
        skips: Whether there are skip connections.
        dropout: Dropout probability of the blocks.
        conditional: Whether there is a context.
    """

    def __init__(self, hidden: int, skips: bool, dropout: float, conditional: bool) -> None:
        super().__init__()
        more = hidden if skips else 0
        self.above = ShiftedBlock(hidden, ABOVE, more, dropout, conditional)
        self.left = ShiftedBlock(hidden, LEFT, hidden + more, dropout, conditional)

    def forward(self, streams: Streams, context: Context, skips: Streams | None = None) -> Streams:
        """Return both streams."""
        u, v = streams
        if skips is None:
            u = self.above(u, context)
            return u, self.left(v, context, u)
        u = self.above(u, context, skips[0])
        return u, self.left(v, context, torch.cat([u, skips[1]], -1))


class Beginning(nn.Module):
    """The first layer: both streams from the inputs before each position, none at the edges.

    Args:
        inputs: Number of input channels.
        hidden: Channels of each stream.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.rows = ShiftedConv(inputs, hidden, ABOVE)
        self.row = ShiftedConv(inputs, hidden, (1, 3))
        self.column = ShiftedConv(inputs, hidden, (2, 1))

    def forward(self, x: Float[Tensor, "n rows columns inputs"]) -> Streams:
        """Return both streams."""
        return shift_down(self.rows(x)), shift_down(self.row(x)) + shift_right(self.column(x))


class Coarser(nn.Module):
    """Convolutions with stride 2 of both streams.

    Args:
        hidden: Channels of each stream.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.above = ShiftedConv(hidden, hidden, ABOVE, stride=2)
        self.left = ShiftedConv(hidden, hidden, LEFT, stride=2)

    def forward(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return both streams on a grid of half the sides, rounded up."""
        return self.above(streams[0]), self.left(streams[1])


class Finer(nn.Module):
    """Transposed convolutions with stride 2 of both streams.

    Args:
        hidden: Channels of each stream.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.above = ShiftedTransposedConv(hidden, hidden, ABOVE[1])
        self.left = ShiftedTransposedConv(hidden, hidden, LEFT[1])

    def forward(self, streams: Streams, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return both streams on a finer grid of these sides."""
        u, v = self.above(streams[0]), self.left(streams[1])
        return u[:, :rows, :columns], v[:, :rows, :columns]


class TwoStreams(nn.Module):
    """Features of every position of a grid, from the inputs before it in raster order.

    Down the scales with ``blocks`` layers at each, up with as many at the coarsest and one more at
    each finer one; every layer of the way up takes the output of one of the way down. A channel of
    ones tells zeros from what is outside.

    Args:
        inputs: Number of input channels.
        hidden: Channels of each stream; 160 in the paper.
        blocks: Layers at each scale; 5 in the paper.
        scales: Number of scales, each of half the sides of the one before, rounded up; 3 in the
            paper.
        dropout: Dropout probability of the blocks.
        conditional: Whether there is a context, of ``hidden`` channels.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        blocks: int,
        scales: int,
        dropout: float,
        conditional: bool,
    ) -> None:
        super().__init__()

        def layers(count: int, skips: bool) -> nn.ModuleList:
            return nn.ModuleList(
                TwoStreamLayer(hidden, skips, dropout, conditional) for _ in range(count)
            )

        self.beginning = Beginning(inputs + 1, hidden)
        #: From the finest scale to the coarsest.
        self.down = nn.ModuleList(layers(blocks, skips=False) for _ in range(scales))
        self.coarser = nn.ModuleList(Coarser(hidden) for _ in range(scales - 1))
        self.finer = nn.ModuleList(Finer(hidden) for _ in range(scales - 1))
        self.up = nn.ModuleList(
            layers(blocks + (scale < scales - 1), skips=True) for scale in range(scales)
        )

    @property
    def scales(self) -> int:
        """Number of scales."""
        return len(self.down)

    def at_edge(self, scale: int) -> tuple[Coarser, Finer]:
        """Return what leads from a scale to the coarser one, and back."""
        return cast(Coarser, self.coarser[scale]), cast(Finer, self.finer[scale])

    def forward(
        self, x: Float[Tensor, "n rows columns inputs"], context: Context
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the left stream after the last layer."""
        streams, skips = self.beginning(with_ones(x)), []
        for scale in range(self.scales):
            if scale:
                streams = self.coarser[scale - 1](streams)
            skips.append(streams)
            for layer in layers_of(self.down, scale):
                streams = layer(streams, at_scale(context, scale))
                skips.append(streams)
        streams = skips.pop()
        for scale in reversed(range(self.scales)):
            if scale < self.scales - 1:
                streams = self.finer[scale](streams, *skips[-1][0].shape[1:3])
            for layer in layers_of(self.up, scale):
                streams = layer(streams, at_scale(context, scale), skips.pop())
        features: Tensor = streams[1]
        return features


def layers_of(scales: nn.ModuleList, scale: int) -> Iterable[TwoStreamLayer]:
    """Return the layers of a scale."""
    return cast(Iterable[TwoStreamLayer], scales[scale])


def with_ones(x: Float[Tensor, "*grid c"]) -> Float[Tensor, "*grid more"]:
    """Return the channels with one of ones after them."""
    padded: Tensor = F.pad(x, (0, 1), value=1.0)
    return padded


def at_scale(context: Context, scale: int) -> Tensor | None:
    """Return the context of the positions that a scale has, or None."""
    step = 2**scale
    return None if context is None else context[:, ::step, ::step]
