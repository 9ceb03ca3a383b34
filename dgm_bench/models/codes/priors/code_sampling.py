"""Draws codes from an autoregressive network: as fast as it can be done, and as it is defined.

Both draw standard Gumbel noise of shape (n, codes) for each position in turn and take the code
where logits plus noise are largest, so from one state of a generator they give the same codes.
Only where two codes are closer than rounding, about 1e-6 in single precision, could they differ.
"""

from __future__ import annotations

from itertools import islice, product
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dgm_bench.models.networks.discrete_relaxations import gumbel_noise

Context = Float[Tensor, "n rows columns hidden"] | None


class CachedNetwork(Protocol):
    """A network that goes from position to position, row by row from left to right."""

    def begin_row(self, row: int) -> None:
        """Prepare all that does not depend on the codes of the row."""

    def logits(self, column: int) -> Float[Tensor, "n codes"]:
        """Return the logits at a column of the row."""

    def feed(self, code: Int[Tensor, " n"], column: int) -> None:
        """Take in the codes that were drawn there."""


class CodeNetwork(Protocol):
    """An autoregressive network over a grid of codes."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""

    def logits(
        self, codes: Int[Tensor, "n rows columns"], context: Context
    ) -> Float[Tensor, "n rows columns codes"]:
        """Return all logits, each from the codes before it."""

    def cached(self, n: int, context: Context) -> CachedNetwork:
        """Return the network at the first position."""


@torch.no_grad()
def draw_codes(
    network: CodeNetwork, n: int, context: Context, generator: torch.Generator
) -> Int[Tensor, "n rows columns"]:
    """Return ``n`` grids of codes, for the work of about one pass over them."""
    rows, columns = network.grid
    codes = torch.empty(rows, columns, n, dtype=torch.long, device=generator.device)
    cached = network.cached(n, context)
    for row in range(rows):
        cached.begin_row(row)
        for column in range(columns):
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
) -> Int[Tensor, "n rows columns"]:
    """Return what :func:`draw_codes` does, from one pass of the whole network per position.

    Args:
        network: Without dropout, in evaluation.
        n: Number of grids.
        context: What they are conditioned on.
        generator: Source of the noise.
        positions: How many to fill in, the others being zero; None for all.
    """
    rows, columns = network.grid
    codes = torch.zeros(n, rows, columns, dtype=torch.long, device=generator.device)
    for row, column in islice(product(range(rows), range(columns)), positions):
        logits = network.logits(codes, context)[:, row, column]
        codes[:, row, column] = (logits + gumbel_noise(logits, generator)).argmax(-1)
    return codes
