"""PixelSNAIL (https://arxiv.org/abs/1712.09763): a density model of images with attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Fraction
from dgm_bench.models.codes.priors.causal import shift_down, shift_right
from dgm_bench.models.codes.priors.pixelsnail import coordinates_of
from dgm_bench.models.codes.priors.two_streams import LEFT, ShiftedBlock, with_ones
from dgm_bench.models.codes.priors.two_streams_sampling import (
    CachedLeftBeginning,
    CachedLeftBlock,
    Place,
)
from dgm_bench.models.codes.priors.weight_norm import NormedLinear, ShiftedConv
from dgm_bench.models.pixels.pixel_model import PixelModel

#: Kernel of blocks of 1 x 1 convolutions.
POINT = (1, 1)


class Memory(nn.Module):
    """Queries, keys and values of an attention from each position to all before it.

    Each is a gated block of 1 x 1 convolutions and a 1 x 1 convolution: of features and
    coordinates, and for keys and values also of the pixels themselves. A start token has zeros.

    Args:
        channels: Of the pixels.
        hidden: Channels of the features; values have half as many.
        key_size: Length of queries and keys.
        dropout: Dropout probability of the blocks.
    """

    def __init__(self, channels: int, hidden: int, key_size: int, dropout: float) -> None:
        super().__init__()
        width, wider = hidden + 2, hidden + 2 + channels
        self.key_size, self.value_size = key_size, max(1, hidden // 2)
        self.query_block = ShiftedBlock(width, POINT, 0, dropout, False, concatenated=False)
        self.query = NormedLinear(width, key_size)
        self.memory_block = ShiftedBlock(wider, POINT, 0, dropout, False, concatenated=False)
        self.memory = NormedLinear(wider, key_size + self.value_size)

    def queries(self, x: Float[Tensor, "n rows columns width"]) -> Tensor:
        """Return the query of each position, of shape ``(n, rows, columns, key_size)``."""
        query: Tensor = self.query(self.query_block(x, None))
        return query

    def keys_and_values(self, x: Float[Tensor, "n rows columns width"]) -> tuple[Tensor, Tensor]:
        """Return the key and the value of each position."""
        both = self.memory(self.memory_block(x, None))
        keys, values = both.split([self.key_size, self.value_size], -1)
        return keys, values

    def forward(
        self,
        x: Float[Tensor, "n rows columns width"],
        pixels: Float[Tensor, "n rows columns channels"],
    ) -> Float[Tensor, "n rows columns values"]:
        """Return the attended values at each position."""
        query = self.queries(x).flatten(1, 2)
        # Shifted by one, so that the usual causal mask excludes the position itself.
        keys, values = (
            F.pad(m.flatten(1, 2), (0, 0, 1, 0))[:, :-1]
            for m in self.keys_and_values(torch.cat([x, pixels], -1))
        )
        query, keys, values = query[:, None], keys[:, None], values[:, None]
        y = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
        return y.reshape(*x.shape[:3], -1)


class Group(nn.Module):
    """Gated residual blocks, then attention, merged by a gated block of 1 x 1 convolutions.

    Args:
        channels: Of the pixels.
        hidden: Channels of the features.
        blocks: Number of residual blocks.
        key_size: Length of queries and keys.
        dropout: Dropout probability of all blocks.
    """

    def __init__(
        self, channels: int, hidden: int, blocks: int, key_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ShiftedBlock(hidden, LEFT, 0, dropout, False, concatenated=False) for _ in range(blocks)
        )
        self.attention = Memory(channels, hidden, key_size, dropout)
        values = self.attention.value_size
        self.merge = ShiftedBlock(hidden, POINT, values, dropout, False, concatenated=False)

    def forward(
        self,
        x: Float[Tensor, "n rows columns hidden"],
        pixels: Float[Tensor, "n rows columns channels"],
        coordinates: Float[Tensor, "rows columns 2"],
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the output at every position."""
        for block in self.blocks:
            x = block(x, None)
        placed = torch.cat([x, coordinates.expand(len(x), -1, -1, -1)], -1)
        y: Tensor = self.merge(x, None, self.attention(placed, pixels))
        return y


class PixelSNAIL(PixelModel):
    """PixelSNAIL: causal convolutions interleaved with attention, logistic mixtures.

    As the released model of CIFAR-10 (neocxi/pixelsnail-public, ``h12_noup_smallkey`` with the
    flags of its train.py), whose sizes are the defaults: one stream, one head, ELU alone, weight
    normalisation. The softmax here has a start token with a logit of 0.

    Chen, Mishra, Rohaninejad and Abbeel (2017), https://arxiv.org/abs/1712.09763.

    Args:
        event_shape: Channels, height and width.
        levels: Number of levels of a channel.
        components: Number of logistics of a mixture.
        hidden: Channels of the features.
        groups: Number of attentions.
        blocks: Residual blocks before each.
        key_size: Length of queries and keys; values have half the channels.
        dropout: Dropout probability of all blocks.

    Raises:
        DeclarationError: Examples are not images, or there are not 2 to 256 levels.

    Example:
        >>> model = PixelSNAIL((1, 1, 1), levels=5, hidden=4, groups=1, blocks=1, key_size=2)
        >>> every = torch.arange(5).view(5, 1, 1, 1)
        >>> round(model.log_prob(every).exp().sum().item(), 4)
        1.0
    """

    coordinates: Float[Tensor, "rows columns 2"]

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        levels: Count = 256,
        components: Count = 10,
        hidden: Count = 256,
        groups: Count = 12,
        blocks: Count = 4,
        key_size: Count = 16,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__(event_shape, levels, components, hidden)
        channels = event_shape[0]
        self.row = ShiftedConv(channels + 1, hidden, (1, 3))
        self.column = ShiftedConv(channels + 1, hidden, (2, 1))
        self.groups = nn.ModuleList(
            Group(channels, hidden, blocks, key_size, dropout) for _ in range(groups)
        )
        coordinates = coordinates_of((event_shape[1], event_shape[2]))
        self.register_buffer("coordinates", coordinates, persistent=False)

    def features(
        self, x: Float[Tensor, "n rows columns channels"]
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the features of every position from the pixels before it, in [-1, 1]."""
        inputs = with_ones(x)
        y: Tensor = shift_down(self.row(inputs)) + shift_right(self.column(inputs))
        for group in self.groups:
            y = group(y, x, self.coordinates)
        return y

    def cached(self, n: int) -> CachedPixelSNAIL:
        """Return the network with empty caches and without dropout, at the first position."""
        return CachedPixelSNAIL(self, n)


class CachedGroup:
    """A :class:`Group` evaluated one position at a time.

    Args:
        group: The group, whose weights are read once.
        n: Batch.
        grid: Rows and columns.
    """

    def __init__(self, group: Group, n: int, grid: tuple[int, int]) -> None:
        blocks = cast(Iterable[ShiftedBlock], group.blocks)
        self.group = group
        self.blocks = [CachedLeftBlock(block, n, grid[1]) for block in blocks]
        memory = group.attention
        places = grid[0] * grid[1] + 1
        self.keys = memory.query.bias.new_zeros(n, places, memory.key_size)
        self.values = self.keys.new_zeros(n, places, memory.value_size)
        #: The start token's are zeros.
        self.length = 1

    def begin_row(self) -> None:
        """Start a row."""
        for block in self.blocks:
            block.begin_row(None, None)

    def end_row(self) -> None:
        """Keep the row for the one below."""
        for block in self.blocks:
            block.end_row()

    def step(self, x: Place, column: int, coordinates: Float[Tensor, "n 2"]) -> Place:
        """Append the input at a column; return the output there."""
        for block in self.blocks:
            x = block.step(x, column)
        self._placed = torch.cat([x, coordinates], -1)[:, None, None]
        query = self.group.attention.queries(self._placed)[:, 0]
        keys, values = self.keys[:, : self.length], self.values[:, : self.length]
        attended = F.scaled_dot_product_attention(query, keys, values)
        y: Tensor = self.group.merge(x[:, None, None], None, attended[:, None])
        return y[:, 0, 0]

    def append(self, pixels: Float[Tensor, "n channels"]) -> None:
        """Append key and value of this position, whose pixel is now known."""
        both = torch.cat([self._placed, pixels[:, None, None]], -1)
        keys, values = self.group.attention.keys_and_values(both)
        self.keys[:, self.length], self.values[:, self.length] = keys[:, 0, 0], values[:, 0, 0]
        self.length += 1


class CachedPixelSNAIL:
    """A :class:`PixelSNAIL` evaluated one position at a time.

    Args:
        model: In evaluation mode; its weights are read once.
        n: Batch.
    """

    def __init__(self, model: PixelSNAIL, n: int) -> None:
        channels, height, width = model.event_shape
        self.beginning = CachedLeftBeginning(model.row, model.column, n, width)
        groups = cast(Iterable[Group], model.groups)
        self.groups = [CachedGroup(group, n, (height, width)) for group in groups]
        self.coordinates = model.coordinates.unsqueeze(2).expand(-1, -1, n, -1)
        self.inputs = model.head.bias.new_zeros(n, width, channels + 1)

    def begin_row(self, row: int) -> None:
        """Convolve the rows above."""
        if row:
            for group in self.groups:
                group.end_row()
        self.beginning.begin_row(self.inputs if row else None)
        for group in self.groups:
            group.begin_row()
        self.places = self.coordinates[row]

    def step(self, column: int) -> Place:
        """Return the features at a column of the row."""
        x = self.beginning.step(self.inputs[:, column - 1] if column else None, column)
        for group in self.groups:
            x = group.step(x, column, self.places[column])
        return x

    def feed(self, x: Float[Tensor, "n channels"], column: int) -> None:
        """Append the pixels drawn at a column, scaled to [-1, 1]."""
        self.inputs[:, column] = with_ones(x)
        for group in self.groups:
            group.append(x)
