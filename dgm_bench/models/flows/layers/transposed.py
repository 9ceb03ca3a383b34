"""Outputs of a layer with one row a unit instead of one row an example, without a transposition.

What maps have many numbers for each dimension (splines, sigmoidal flows) is summed and sorted over
those numbers: with examples along contiguous memory, each such pass is a vector operation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.flows.layers.masked import MaskedLinear


def transposed_outputs(
    linear: nn.Linear, h: Float[Tensor, "batch inputs"]
) -> Float[Tensor, "outputs batch"]:
    """Return the outputs of a layer, masked or not, one column an example."""
    weight = linear.masked_weight() if isinstance(linear, MaskedLinear) else linear.weight
    return torch.addmm(linear.bias[:, None], weight, h.T)
