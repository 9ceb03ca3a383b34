"""Couplings on vectors: every second dimension is kept and parametrises the map of the others.

The coupling layers of Real NVP (https://arxiv.org/abs/1605.08803, section 3.2).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class EvenOddCoupling(nn.Module):
    """Base of couplings that keep the even dimensions and transform the odd ones, or vice versa.

    Args:
        dim: Number of dimensions.
        keep_even: Whether dimensions 0, 2, 4, ... are kept, or 1, 3, 5, ...

    Attributes:
        kept: The dimensions that stay the same.
        transformed: The other dimensions.
        inputs: Number of kept dimensions.
        outputs: Number of transformed dimensions.
    """

    def __init__(self, dim: int, keep_even: bool) -> None:
        super().__init__()
        self.kept = slice(0 if keep_even else 1, None, 2)
        self.transformed = slice(1 if keep_even else 0, None, 2)
        self.inputs, self.outputs = len(range(dim)[self.kept]), len(range(dim)[self.transformed])

    def split(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch k"], Float[Tensor, "batch m"]]:
        """Return what is kept and what is to be transformed."""
        return x[:, self.kept], x[:, self.transformed]

    def join(
        self, kept: Float[Tensor, "batch k"], transformed: Float[Tensor, "batch m"]
    ) -> Float[Tensor, "batch k+m"]:
        """Return both halves in the order of the dimensions."""
        whole = transformed.new_empty(transformed.shape[0], kept.shape[1] + transformed.shape[1])
        whole[:, self.kept] = kept
        whole[:, self.transformed] = transformed
        return whole

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return f"keeps={'even' if self.kept.start == 0 else 'odd'}"
