"""Vector quantisation by the nearest entry of a codebook (van den Oord et al., 2017).

The losses are mean squared distances, as in Sonnet's layer; the exponential moving average of the
codebook is that of appendix A.1 (https://arxiv.org/abs/1711.00937) as the authors' layer has it
(``VectorQuantizerEMA`` of google-deepmind/sonnet): averages from zero, debiased, and smoothed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError, require_positive
from dgm_bench.models import whole_batch
from dgm_bench.models.networks.discrete_relaxations import straight_through

CodebookRule = Literal["ema", "gradient"]
#: Largest number of distances in memory at a time.
MAX_DISTANCES = 2**25
#: Sonnet's epsilon: the count, in examples, that smoothing adds to each code.
SMOOTHING = 1e-5


@dataclass(frozen=True)
class Quantised:
    """Quantised vectors, and their distances to the vectors before.

    Attributes:
        values: Entries of the codebook, with straight-through gradients.
        codes: Their indices.
        commitment: Mean squared distance, with a gradient for the encoder's vectors.
        codebook: The same with a gradient for the codebook, or None for a moving average.
    """

    values: Float[Tensor, "batch dim rows columns"]
    codes: Int[Tensor, "batch rows columns"]
    commitment: Float[Tensor, ""]
    codebook: Float[Tensor, ""] | None


@torch.no_grad()
def nearest_codes(
    z: Float[Tensor, "n dim"], codebook: Float[Tensor, "codes dim"], limit: int = MAX_DISTANCES
) -> Int[Tensor, " n"]:
    """Return the index of the nearest code of each vector.

    Args:
        z: The vectors.
        codebook: The codes.
        limit: Largest number of distances in memory at a time, at least those of one vector.
    """
    rows = max(1, limit // len(codebook))
    # |z - e|^2 without |z|^2, which is the same for all codes.
    squares = codebook.square().sum(1)
    parts = [torch.addmm(squares, part, codebook.T, alpha=-2).argmin(1) for part in z.split(rows)]
    return torch.cat(parts)


class VectorQuantiser(nn.Module):
    """A codebook that learns by gradient or as an exponential moving average.

    Each code has an average count ``N_i`` and an average sum ``m_i``; a batch with ``n_i`` vectors
    at code ``i`` updates the count to ``decay N_i + (1 - decay) n_i``, and the sum likewise. Both
    begin at zero and are debiased: divided by ``w = 1 - decay^t`` after ``t`` batches. With
    ``C_i = N_i / w`` and ``C = sum C_i`` the code is ``(m_i / w) / C'_i`` where
    ``C'_i = (C_i + eps) / (C + codes eps) C``. So the first batch replaces the initial codes, and
    those that none of its vectors is nearest to are moved to the origin.

    Van den Oord, Vinyals and Kavukcuoglu (2017), https://arxiv.org/abs/1711.00937, section 3.2
    and appendix A.1.

    Args:
        codes: Number of codes.
        dim: Dimensions of each.
        codebook: ``ema`` for the average, ``gradient`` for a parameter with a codebook loss.
        decay: Decay of the average.
        restart: Codes whose average count in a batch, ``C_i``, is below this are set to random
            vectors of the batch, with this count: in the first batch all that it does not use.
            None for never, as in the papers.

    Raises:
        DeclarationError: An argument is out of range, or codes that learn by gradient are to
            restart.

    Example:
        >>> quantiser = VectorQuantiser(codes=16, dim=4)
        >>> codes = torch.arange(16).view(1, 4, 4)
        >>> quantised = quantiser(quantiser.values_of(codes))  # they are their own codes
        >>> torch.equal(quantised.codes, codes), quantised.commitment.item()
        (True, 0.0)
    """

    codebook: Float[Tensor, "codes dim"]
    counts: Float[Tensor, " codes"]
    sums: Float[Tensor, "codes dim"]
    weight: Float[Tensor, ""]

    def __init__(
        self,
        codes: int,
        dim: int,
        codebook: CodebookRule = "ema",
        decay: float = 0.99,
        restart: float | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(codes, dim, codebook, decay, restart)
        self.decay, self.restart, self.is_ema = decay, restart, codebook == "ema"
        # Sonnet's initialiser: variance 1 / dim, uniform.
        bound = math.sqrt(3 / dim)
        initial = torch.empty(codes, dim).uniform_(-bound, bound)
        if not self.is_ema:
            self.codebook = nn.Parameter(initial)
            return
        self.register_buffer("codebook", initial)
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros_like(initial))
        # 1 - decay^t is the average, from zero, of ones.
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, z: Float[Tensor, "batch dim rows columns"]) -> Quantised:
        """Return ``z`` quantised; the codebook does not change.

        Distances are computed in the codebook's precision, under autocast too.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.codebook.dtype)
            codes = nearest_codes(_rows(z.detach()), self.codebook)
            codes = codes.view(len(z), *z.shape[2:])
            values = self.values_of(codes)
            fixed = values.detach()
            codebook = None if self.is_ema else (values - z.detach()).square().mean()
            commitment = (fixed - z).square().mean()
            return Quantised(straight_through(fixed, z), codes, commitment, codebook)

    def values_of(
        self, codes: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch dim rows columns"]:
        """Return the entries of the codebook with indices ``codes``."""
        return F.embedding(codes.long(), self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def learn(
        self,
        z: Float[Tensor, "batch dim rows columns"],
        codes: Int[Tensor, "batch rows columns"],
        generator: torch.Generator,
    ) -> None:
        """Update the average with a batch in training mode; do nothing otherwise.

        Args:
            z: Vectors before quantisation.
            codes: Their codes.
            generator: Source of the vectors that replace rarely used codes.
        """
        if not (self.training and self.is_ema):
            return
        rows, index = _rows(z).to(self.sums), codes.flatten()
        ones = torch.ones_like(self.counts[:1]).expand(len(rows))
        for average, values in ((self.counts, ones), (self.sums, rows)):
            batch = torch.zeros_like(average).index_add_(0, index, values)
            average.lerp_(whole_batch.summed(batch), 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        if self.restart is not None:
            self._restart(rows, self.restart, generator)
        self._move_codes()

    def _restart(
        self, rows: Float[Tensor, "n dim"], threshold: float, generator: torch.Generator
    ) -> None:
        shape = (len(self.counts),)
        count = whole_batch.count(rows, [0])
        drawn = torch.randint(count, shape, generator=generator, device=rows.device)
        least = threshold * self.weight
        unused = self.counts < least
        self.sums.copy_(
            torch.where(unused[:, None], least * whole_batch.picked(rows, drawn), self.sums)
        )
        self.counts.copy_(torch.where(unused, least, self.counts))

    def _move_codes(self) -> None:
        """Set the codebook to the debiased sums by the debiased and smoothed counts."""
        counts = self.counts / self.weight
        total = counts.sum()
        smoothed = (counts + SMOOTHING) / (total + len(counts) * SMOOTHING) * total
        self.codebook.copy_(self.sums / self.weight / smoothed[:, None])

    def extra_repr(self) -> str:
        """Return size and rule."""
        rule = f"ema, decay={self.decay}" if self.is_ema else "gradient"
        return f"{len(self.codebook)}, {self.codebook.shape[1]}, {rule}, restart={self.restart}"


def _rows(z: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch*rows*columns dim"]:
    return z.movedim(1, -1).flatten(0, -2)


def _check_arguments(
    codes: int, dim: int, codebook: CodebookRule, decay: float, restart: float | None
) -> None:
    if codes < 1 or dim < 1:
        thing = f"a codebook of {codes} codes with {dim} dimensions"
        raise DeclarationError(thing, "holds nothing", "use at least one of both")
    if not 0 <= decay < 1:
        raise DeclarationError(f"decay {decay}", "is not in [0, 1)", "use 0.99")
    if restart is None:
        return
    if codebook == "gradient":
        raise DeclarationError("restart", "needs counts of codes", "use codebook 'ema'")
    require_positive(restart=restart)
