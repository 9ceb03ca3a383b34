"""Base of autoregressive models of the levels of pixels: likelihood and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor, nn

from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError
from dgm_bench.models.arguments import require_images
from dgm_bench.models.codes.priors.code_prior import evaluating
from dgm_bench.models.codes.priors.weight_norm import NormedLinear, initialising
from dgm_bench.models.elementwise import elu
from dgm_bench.models.pixels.logistics import LogisticMixture, parameters_of, scaled

#: Most levels that a pixel can have: those of a byte.
MOST_LEVELS = 256


@runtime_checkable
class CachedFeatures(Protocol):
    """A network evaluated one position at a time in raster order, with what it needs cached."""

    def begin_row(self, row: int) -> None:
        """Compute all that does not depend on the pixels of the row."""

    def step(self, column: int) -> Float[Tensor, "n hidden"]:
        """Return the features at a column of the row."""

    def feed(self, x: Float[Tensor, "n channels"], column: int) -> None:
        """Append the pixels drawn at a column, scaled to [-1, 1]."""


class PixelModel(nn.Module):
    """A distribution of images with integer levels, pixel by pixel in raster order.

    A pixel's channels have a mixture of discretised logistics; its numbers are a 1 x 1 convolution
    of the features that a network of a subclass has of the pixels before.

    Args:
        event_shape: Channels, height and width.
        levels: Number of levels of a channel.
        components: Number of logistics of a mixture.
        hidden: Number of features of a position.

    Raises:
        DeclarationError: Examples are not images, or there are not 2 to 256 levels.
    """

    #: As many as openai/pixel-cnn takes.
    initial_examples: int | None = 100

    def __init__(
        self, event_shape: tuple[int, ...], levels: int, components: int, hidden: int
    ) -> None:
        super().__init__()
        require_images(event_shape)
        if not 2 <= levels <= MOST_LEVELS:
            reason = f"are not 2 to {MOST_LEVELS}"
            raise DeclarationError(f"{levels} levels", reason, "use 256, or those of the images")
        self.event_shape, self.levels = tuple(event_shape), levels
        self.head = NormedLinear(hidden, parameters_of(event_shape[0], components))

    def features(
        self, x: Float[Tensor, "n rows columns channels"]
    ) -> Float[Tensor, "n rows columns hidden"]:
        """Return the features of every position from the pixels before it, in [-1, 1]."""
        raise NotImplementedError

    def cached(self, n: int) -> CachedFeatures:
        """Return the network with empty caches, at the first position."""
        raise NotImplementedError

    def mixture(self, features: Float[Tensor, "*grid hidden"]) -> LogisticMixture:
        """Return the mixtures of pixels with these features."""
        return LogisticMixture.of(self.head(elu(features)), self.event_shape[0])

    def log_prob(self, x: Num[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the log probability of images, in nats.

        Args:
            x: Levels, from 0.
        """
        pixels = x.movedim(1, -1)
        inputs = scaled(pixels, self.levels, self.head.bias.dtype)
        return self.mixture(self.features(inputs)).log_prob(pixels, self.levels).flatten(1).sum(1)

    def initialise(self, x: Num[Tensor, "batch channels height width"]) -> None:
        """Set lengths and biases of all layers from levels of images."""
        with initialising(self):
            self.log_prob(x)

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator
    ) -> UInt8[Tensor, "{n} channels height width"]:
        """Return levels of images, at the cost of about one pass over them, without dropout.

        Args:
            n: Number of images.
            generator: Source of the noise, on the model's device.
        """
        x = self._zeros(n)
        with evaluating(self):
            cached = self.cached(n)
            for row, column in self._places():
                if column == 0:
                    cached.begin_row(row)
                drawn = self.mixture(cached.step(column)).draw(self.levels, generator)
                x[:, :, row, column] = drawn.to(x.dtype)
                cached.feed(scaled(drawn, self.levels, self.head.bias.dtype), column)
        return x

    @torch.no_grad()
    def sample_uncached(
        self, n: int, generator: torch.Generator, positions: int | None = None
    ) -> UInt8[Tensor, "{n} channels height width"]:
        """Return the same as :meth:`sample`, by one pass of the network for each position.

        Args:
            n: Number of images.
            generator: Source of the noise, on the model's device.
            positions: Number of positions to draw, the others being zero; None for all.
        """
        x = self._zeros(n)
        with evaluating(self):
            for row, column in islice(self._places(), positions):
                inputs = scaled(x.movedim(1, -1), self.levels, self.head.bias.dtype)
                here = self.features(inputs)[:, row, column]
                drawn = self.mixture(here).draw(self.levels, generator)
                x[:, :, row, column] = drawn.to(x.dtype)
        return x

    def _zeros(self, n: int) -> UInt8[Tensor, "{n} channels height width"]:
        return torch.zeros(n, *self.event_shape, dtype=torch.uint8, device=self.head.bias.device)

    def _places(self) -> Iterator[tuple[int, int]]:
        _, height, width = self.event_shape
        for place in product(range(height), range(width)):
            ask_within()
            yield place
