"""Base of the convolutional priors of codes: conditioning, likelihood and sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import Levels
from dgm_bench.models.codes.packing import packed_size, unpack
from dgm_bench.models.codes.priors.code_sampling import (
    CachedNetwork,
    Context,
    draw_codes,
    draw_codes_uncached,
)
from dgm_bench.models.codes.vq_networks import ResidualUnit


@dataclass(frozen=True)
class CodeLevel:
    """The level of a hierarchy of codes that a prior models.

    Args:
        event_shape: Shape of a packed row.
        grids: Rows and columns of each level, top first.
        level: The level that is modelled; 0 is the top.
        codes: Number of codes of each level, or one number for all.
        classes: Number of classes, or None.

    Raises:
        DeclarationError: These are inconsistent.
    """

    event_shape: tuple[int, ...]
    grids: Sequence[Sequence[int]]
    level: int
    codes: int | Sequence[int]
    classes: int | None

    def __post_init__(self) -> None:
        size, levels = packed_size(self.grids), len(self.grids)
        if tuple(self.event_shape) != (size,):
            reason = f"do not fit rows of shape {tuple(self.event_shape)}"
            raise DeclarationError(f"grids {self.grids}", reason, f"use rows of {size}")
        if not 0 <= self.level < levels:
            reason = f"is not among {levels} grids"
            remedy = f"use 0, the top, to {levels - 1}"
            raise DeclarationError(f"level {self.level}", reason, remedy)
        if not isinstance(self.codes, int) and len(self.codes) != levels:
            reason = f"are not one for each of {levels} grids"
            raise DeclarationError(f"codes {self.codes}", reason, "name one for all, or each")

    @property
    def sizes(self) -> list[int]:
        """Number of codes of each level, top first."""
        same = isinstance(self.codes, int)
        return [cast(int, self.codes)] * len(self.grids) if same else [*cast(list[int], self.codes)]

    @property
    def ratios(self) -> list[tuple[int, int]]:
        """Ratios of the sides of each grid, down to this level, to those of the grid above.

        Raises:
            DeclarationError: A ratio is not a whole number.
        """
        pairs = list(zip(self.grids[: self.level], self.grids[1 : self.level + 1], strict=True))
        for coarse, fine in pairs:
            if fine[0] % coarse[0] or fine[1] % coarse[1]:
                reason = f"is not a multiple of {tuple(coarse)} above it"
                raise DeclarationError(f"grid {tuple(fine)}", reason, "use whole ratios")
        return [(fine[0] // coarse[0], fine[1] // coarse[1]) for coarse, fine in pairs]


class ConditioningStack(nn.Module):
    """Features of the levels above at each position (VQ-VAE-2, section 3.2: conditioning stack).

    From the top down, embedded codes are upsampled by transposed convolutions to the next grid and
    added to its own; the residual blocks are on the grid just above.

    Args:
        code_level: A level below the top.
        hidden: Channels.
        residual: Channels inside the residual blocks.
        layers: Number of residual blocks.
    """

    def __init__(self, code_level: CodeLevel, hidden: int, residual: int, layers: int) -> None:
        super().__init__()
        sizes, ratios = code_level.sizes[: code_level.level], code_level.ratios
        self.embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
        self.finer = nn.ModuleList(nn.ConvTranspose2d(hidden, hidden, r, r) for r in ratios)
        self.blocks = nn.Sequential(*(ResidualUnit(hidden, residual) for _ in range(layers)))

    def forward(self, above: Levels) -> Float[Tensor, "n rows columns hidden"]:
        """Return features on this level's grid."""
        levels = zip(self.embeddings, above, strict=True)
        features = [embedding(codes).permute(0, 3, 1, 2) for embedding, codes in levels]
        x = features[0]
        for finer, more in zip(self.finer, features[1:], strict=False):
            x = finer(x) + more
        return cast(Tensor, self.finer[-1](self.blocks(x))).permute(0, 2, 3, 1)


class CodePrior(nn.Module):
    """A distribution of one level's codes, by an autoregressive network that subclasses define.

    Args:
        code_level: The level that is modelled.
        hidden: Channels.
        conditioning_residual: Channels inside the residual blocks of the conditioning stack.
        conditioning_layers: Number of residual blocks of the conditioning stack.
    """

    def __init__(
        self,
        code_level: CodeLevel,
        hidden: int,
        conditioning_residual: int,
        conditioning_layers: int,
    ) -> None:
        super().__init__()
        self.event_shape, self.level = tuple(code_level.event_shape), code_level.level
        self.grids, self.classes = tuple((g[0], g[1]) for g in code_level.grids), code_level.classes
        self.grid = self.grids[code_level.level]
        self.codebook_sizes = tuple(code_level.sizes)
        self.codes = code_level.sizes[code_level.level]
        self.embedding = nn.Embedding(self.codes, hidden)
        self.class_embedding = (
            nn.Embedding(code_level.classes, hidden) if code_level.classes else None
        )
        stack = (code_level, hidden, conditioning_residual, conditioning_layers)
        self.conditioning = ConditioningStack(*stack) if code_level.level else None

    @property
    def conditional(self) -> bool:
        """Whether there is a context."""
        return self.class_embedding is not None or self.conditioning is not None

    def context(self, above: Levels, labels: Int[Tensor, " n"]) -> Context:
        """Return features of the levels above and the class at each position, or None."""
        parts = []
        if self.class_embedding is not None:
            parts.append(self.class_embedding(labels)[:, None, None].expand(-1, *self.grid, -1))
        if self.conditioning is not None:
            parts.append(self.conditioning(above))
        return sum(parts[1:], start=parts[0]) if parts else None

    def network(
        self, embedded: Float[Tensor, "n rows columns hidden"], context: Context
    ) -> Float[Tensor, "n rows columns codes"]:
        """Return the logits of every position given the embedded codes before it."""
        raise NotImplementedError

    def cached(self, n: int, context: Context) -> CachedNetwork:
        """Return the network with empty caches, at the first position."""
        raise NotImplementedError

    def logits(
        self, codes: Int[Tensor, "n rows columns"], context: Context
    ) -> Float[Tensor, "n rows columns codes"]:
        """Return the logits of every position given the codes before it."""
        return self.network(self.embedding(codes), context)

    def log_prob(self, x: Int[Tensor, "batch packed"]) -> Float[Tensor, " batch"]:
        """Return the log probability of the level's codes, given those above and the class.

        Args:
            x: Codes of all levels and the class, packed.

        Returns:
            Nats per image.
        """
        levels, labels = unpack(x, self.grids)
        codes = levels[self.level]
        logits = self.logits(codes, self.context(levels[: self.level], labels))
        nats = F.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none")
        return -nats.view(len(x), -1).sum(1)

    def sample_codes(
        self, above: Levels, labels: Int[Tensor, " n"], generator: torch.Generator
    ) -> Int[Tensor, "n rows columns"]:
        """Return codes, given those above and the classes, without dropout.

        Args:
            above: Codes of the levels above, top first.
            labels: Classes; only their number matters without classes.
            generator: Source of the noise, on the model's device.
        """
        with evaluating(self), torch.no_grad():
            return draw_codes(self, len(labels), self.context(above, labels), generator)

    def sample_codes_uncached(
        self,
        above: Levels,
        labels: Int[Tensor, " n"],
        generator: torch.Generator,
        positions: int | None = None,
    ) -> Int[Tensor, "n rows columns"]:
        """Return the same as :meth:`sample_codes`, by one pass of the network per position.

        Args:
            above: Codes of the levels above, top first.
            labels: Classes; only their number matters without classes.
            generator: Source of the noise, on the model's device.
            positions: Number of positions to draw, the others being zero; None for all.
        """
        with evaluating(self), torch.no_grad():
            context = self.context(above, labels)
            return draw_codes_uncached(self, len(labels), context, generator, positions)


class CachedPrior:
    """Base of priors evaluated one position at a time: the context, and a row of embedded codes.

    Args:
        model: In evaluation mode.
        n: Batch.
        context: The features that the codes are conditioned on.
    """

    def __init__(self, model: CodePrior, n: int, context: Context) -> None:
        self.context, self.embedding = context, model.embedding.weight
        #: Embedded codes of the latest row, after a column of zeros.
        self.row = self.embedding.new_zeros(n, model.grid[1] + 1, self.embedding.shape[1])

    def context_of(self, row: int) -> Float[Tensor, "n columns hidden"] | None:
        """Return the features that the codes of a row are conditioned on."""
        return None if self.context is None else self.context[:, row]

    def feed(self, code: Int[Tensor, " n"], column: int) -> None:
        """Append the codes drawn at a column."""
        self.row[:, column + 1] = F.embedding(code, self.embedding)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode until the block ends."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)
