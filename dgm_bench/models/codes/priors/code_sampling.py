"""Ancestral sampling of codes from an autoregressive network, with caches and without.

Both use the Gumbel-max trick with noise of shape (n, codes) for each position in turn, so that they
give the same codes from one state of a generator. They could differ only where the two largest
sums are closer than rounding, about 1e-6 in single precision.
"""

from __future__ import annotations

from itertools import islice, product
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dgm_bench.control import ask_within
from dgm_bench.models.networks.discrete_relaxations import gumbel_noise

Context = Float[Tensor, "n rows columns hidden"] | None


@runtime_checkable
class CachedNetwork(Protocol):
    """A network evaluated one position at a time in raster order, with what it needs cached."""

    def begin_row(self, row: int) -> None:
        """Compute all that does not depend on the codes of the row."""

    def logits(self, column: int) -> Float[Tensor, "n codes"]:
        """Return the logits at a column of the row."""

    def feed(self, code: Int[Tensor, " n"], column: int) -> None:
        """Append the codes drawn at a column."""


@runtime_checkable
class CodeNetwork(Protocol):
    """An autoregressive network over a grid of codes."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""

    def logits(
        self, codes: Int[Tensor, "n rows columns"], context: Context
    ) -> Float[Tensor, "n rows columns codes"]:
        """Return the logits of every position given the codes before it."""

    def cached(self, n: int, context: Context) -> CachedNetwork:
        """Return the network with empty caches, at the first position."""


@torch.no_grad()
def draw_codes(
    network: CodeNetwork, n: int, context: Context, generator: torch.Generator
) -> Int[Tensor, "{n} rows columns"]:
    """Return ``n`` grids of codes, at the cost of about one pass over them."""
    rows, columns = network.grid
    codes = torch.empty(rows, columns, n, dtype=torch.long, device=generator.device)
    cached = network.cached(n, context)
    for row in range(rows):
        cached.begin_row(row)
        for column in range(columns):
            ask_within()
            logits = cached.logits(column)
            code = (logits + gumbel_noise(logits, generator)).argmax(-1)
            codes[row, column] = code
            cached.feed(code, column)
    return codes.permute(2, 0, 1).contiguous()


@torch.no_grad()
def draw_codes_uncached(
    network: CodeNetwork,
    n: int,
    context: Context,
    generator: torch.Generator,
    positions: int | None = None,
) -> Int[Tensor, "{n} rows columns"]:
    """Return the codes of :func:`draw_codes`, by one pass of the whole network per position.

    Args:
        network: In evaluation mode.
        n: Number of grids.
        context: What they are conditioned on.
        generator: Source of the noise.
        positions: Number of positions to draw, the others being zero; None for all.
    """
    rows, columns = network.grid
    codes = torch.zeros(n, rows, columns, dtype=torch.long, device=generator.device)
    for row, column in islice(product(range(rows), range(columns)), positions):
        ask_within()
        logits = network.logits(codes, context)[:, row, column]
        codes[:, row, column] = (logits + gumbel_noise(logits, generator)).argmax(-1)
    return codes
