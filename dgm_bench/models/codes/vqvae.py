"""Autoencoders of images with vector-quantised latent variables on one or several levels.

VQ-VAE (https://arxiv.org/abs/1711.00937) and VQ-VAE-2 (https://arxiv.org/abs/1906.00446). Apart
from the number of levels they differ here in the widths of their convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0, Fraction, Positive
from dgm_bench.errors import DeclarationError
from dgm_bench.models.arguments import require_images
from dgm_bench.models.codes.quantiser import CodebookRule, Quantised, VectorQuantiser
from dgm_bench.models.codes.vq_networks import Decoder, Encoder, upsampling


class VQVAE2(nn.Module):
    """VQ-VAE-2 with two levels or more (section 3.1, algorithm 1, figure 2).

    Bottom-up, each level's encoder takes the features of the level below. Top-down, each level is
    quantised, conditioned on a decoder's features of the levels above. The quantised vectors of the
    levels above are upsampled by transposed convolutions to the grid of the level below and
    concatenated with its own, level by level: the input of the decoders. Images are rescaled to
    [-1, 1] inside.

    Strided convolutions but the last, and transposed ones but the first, have half the hidden
    units: the paper does not say, and the authors' example of a VQ-VAE in Sonnet has it so.

    Razavi, van den Oord and Vinyals (2019), https://arxiv.org/abs/1906.00446, section 3.1.

    Args:
        event_shape: Channels, height and width.
        strides: Downsampling from the image to the bottom level's grid, from there to the next
            level's, and so on; powers of 2.
        hidden: Hidden units of encoders and decoders.
        residual_units: Channels inside their residual units.
        residual_layers: Number of residual units of each.
        codes: Size of each level's codebook.
        dim: Dimensions of a code.
        codebook: ``ema`` for codebooks that are exponential moving averages, or ``gradient``.
        decay: Decay of the average.
        restart: Average count in a batch below which codes are reinitialised; None for never.

    Raises:
        DeclarationError: The strides are not powers of 2, or do not divide the image's sides, or
            are too few; an argument is out of range.

    Example:
        >>> model = VQVAE2((3, 8, 8), strides=[2, 2], hidden=8, codes=16, dim=4)
        >>> x = torch.rand(5, 3, 8, 8)
        >>> [tuple(level.shape) for level in model.encode(x)]  # top first
        [(5, 2, 2), (5, 4, 4)]
        >>> model.reconstruct(x).shape
        torch.Size([5, 3, 8, 8])
    """

    smooth = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        strides: Sequence[Count] = (4, 2),
        hidden: Count = 128,
        residual_units: Count = 64,
        residual_layers: CountFrom0 = 2,
        codes: Count = 512,
        dim: Count = 64,
        codebook: CodebookRule = "ema",
        decay: Fraction = 0.99,
        restart: Positive | None = None,
    ) -> None:
        super().__init__()
        bottom_up = grids_of(event_shape, strides)
        self._require_levels(len(strides))
        self.event_shape = event_shape
        self.grids = tuple(reversed(bottom_up))
        self.codebook_sizes = (codes,) * len(strides)
        levels, doublings = len(strides), [stride.bit_length() - 1 for stride in strides]
        shape = residual_units, residual_layers

        def encoder(inputs: int, count: int) -> Encoder:
            return Encoder(inputs, self._widths(hidden, count), *shape, smooth=self.smooth)

        def decoder(inputs: int, count: int, outputs: int) -> Decoder:
            return Decoder(inputs, self._widths(hidden, count)[::-1], *shape, outputs)

        # All lists are bottom-up.
        below = [event_shape[0], *[hidden] * (levels - 1)]
        joined = [dim * (levels - level) for level in range(levels)]
        given = [dim] * (levels - 1) + [0]
        self.encoders = nn.ModuleList(map(encoder, below, doublings))
        self.projections = nn.ModuleList(nn.Conv2d(hidden + extra, dim, 1) for extra in given)
        self.quantisers = nn.ModuleList(
            VectorQuantiser(codes, dim, codebook, decay, restart) for _ in strides
        )
        above = list(zip(joined[1:], doublings[1:], strict=True))
        self.upsamplings = nn.ModuleList(upsampling(*sizes) for sizes in above)
        self.conditioners = nn.ModuleList(decoder(*sizes, dim) for sizes in above)
        self.decoder = decoder(joined[0], doublings[0], event_shape[0])

    def encode(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> list[Int[Tensor, "batch _rows _columns"]]:
        """Return the codes of each level, top first, of images with pixels in [0, 1]."""
        with torch.no_grad():
            return [level.codes for level in self._quantised(x, None)]

    def decode(
        self, codes: Sequence[Int[Tensor, "batch _rows _columns"]]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return pixels in [0, 1]; levels left out at the end are zeros in the decoder's input."""
        quantisers = list(reversed(cast(Sequence[VectorQuantiser], self.quantisers)))
        values = [
            quantiser.values_of(level) for quantiser, level in zip(quantisers, codes, strict=False)
        ]
        for grid in self.grids[len(codes) :]:
            values.append(values[0].new_zeros(*values[0].shape[:2], *grid))
        return self._pixels(values).clamp(0, 1)

    def reconstruct(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the reconstructions of images, pixels in [0, 1]."""
        return self.decode(self.encode(x))

    def quantised_reconstruction(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch channels height width"], dict[str, Float[Tensor, ""]]]:
        """Return pixels, not clamped to [0, 1], and the quantisers' losses summed over levels.

        Gradients pass the quantisers straight through. In training mode codebooks that are moving
        averages are updated with the batch.
        """
        levels = self._quantised(x, generator)
        losses = {"commitment": torch.stack([level.commitment for level in levels]).sum()}
        codebook = [level.codebook for level in levels if level.codebook is not None]
        if codebook:
            losses["codebook"] = torch.stack(codebook).sum()
        return self._pixels([level.values for level in levels]), losses

    def _widths(self, hidden: int, count: int) -> list[int]:
        """Return the channels after each of ``count`` strided convolutions of an encoder."""
        return [max(1, hidden // 2)] * (count - 1) + [hidden]

    def _require_levels(self, levels: int) -> None:
        if levels < 2:
            raise DeclarationError("strides", "VQVAE2 has two levels or more", "use vqvae:VQVAE")

    def _quantised(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator | None
    ) -> list[Quantised]:
        """Return each level quantised, top first; with a generator codebooks are updated."""
        features = [2 * x - 1]
        for encoder in self.encoders:
            features.append(encoder(features[-1]))
        above: list[Quantised] = []
        joined: Tensor | None = None
        for level in reversed(range(len(self.encoders))):
            h = features[level + 1]
            if joined is not None:
                h = torch.cat([self.conditioners[level](joined), h], 1)
            z = self.projections[level](h)
            quantiser = cast(VectorQuantiser, self.quantisers[level])
            above.append(quantiser(z))
            if generator is not None:
                quantiser.learn(z, above[-1].codes, generator)
            joined = self._join(level, above[-1].values, joined)
        return above

    def _join(
        self,
        level: int,
        values: Float[Tensor, "batch dim rows columns"],
        above: Float[Tensor, "batch joined _rows _columns"] | None,
    ) -> Float[Tensor, "batch more rows columns"]:
        """Return a level's values concatenated with the upsampled ones of all levels above."""
        if above is None:
            return values
        return torch.cat([values, self.upsamplings[level](above)], 1)

    def _pixels(
        self, values: Sequence[Float[Tensor, "batch dim _rows _columns"]]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the decoded values of all levels, top first."""
        joined: Tensor | None = None
        for level, own in zip(reversed(range(len(values))), values, strict=True):
            joined = self._join(level, own, joined)
        shifted: Tensor = self.decoder(joined)
        return (shifted + 1) / 2


class VQVAE(VQVAE2):
    """VQ-VAE with one level (section 4.1).

    All convolutions have the same number of hidden units, and residual units follow the strided
    ones directly. The paper gives neither number nor dimension of the codes for CIFAR-10; the
    defaults are the 512 codes of ImageNet and 64 dimensions.

    Van den Oord, Vinyals and Kavukcuoglu (2017), https://arxiv.org/abs/1711.00937, section 4.1.

    Args:
        event_shape: Channels, height and width.
        strides: One entry, the downsampling from the image to the grid; a power of 2.
        hidden: Hidden units of encoder and decoder.
        residual_units: Channels inside their residual units.
        residual_layers: Number of residual units of each.
        codes: Size of the codebook.
        dim: Dimensions of a code.
        codebook: ``ema`` for a codebook that is an exponential moving average, or ``gradient``.
        decay: Decay of the average.
        restart: Average count in a batch below which codes are reinitialised; None for never.

    Raises:
        DeclarationError: As for :class:`VQVAE2`.

    Example:
        >>> model = VQVAE((3, 8, 8), strides=[2], hidden=8, codes=16, dim=4)
        >>> x = torch.rand(5, 3, 8, 8)
        >>> model.encode(x)[0].shape, model.reconstruct(x).shape
        (torch.Size([5, 4, 4]), torch.Size([5, 3, 8, 8]))
    """

    smooth = False

    def __init__(
        self,
        event_shape: tuple[int, ...],
        strides: Sequence[Count] = (4,),
        hidden: Count = 256,
        residual_units: Count = 256,
        residual_layers: CountFrom0 = 2,
        codes: Count = 512,
        dim: Count = 64,
        codebook: CodebookRule = "ema",
        decay: Fraction = 0.99,
        restart: Positive | None = None,
    ) -> None:
        super().__init__(
            event_shape,
            strides,
            hidden,
            residual_units,
            residual_layers,
            codes,
            dim,
            codebook,
            decay,
            restart,
        )

    def _widths(self, hidden: int, count: int) -> list[int]:
        return [hidden] * count

    def _require_levels(self, levels: int) -> None:
        if levels != 1:
            raise DeclarationError("stride", "VQVAE has one level", "use vqvae:VQVAE2")


def grids_of(event_shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Return height and width of each level's grid, bottom first.

    Raises:
        DeclarationError: Examples are not images, or strides are not powers of 2 or do not divide
            sides.
    """
    require_images(event_shape)
    if not strides or any(stride < 2 or stride & (stride - 1) for stride in strides):
        raise DeclarationError(f"strides {list(strides)}", "are not powers of 2", "use 2 or 4")
    height, width = event_shape[1:]
    whole = math.prod(strides)
    if height % whole or width % whole:
        reason = f"do not divide an image of {height} x {width}"
        remedy = f"use images with sides that are multiples of {whole}"
        raise DeclarationError(f"strides {list(strides)}", reason, remedy)
    return [(height // factor, width // factor) for factor in accumulate(strides, mul)]
