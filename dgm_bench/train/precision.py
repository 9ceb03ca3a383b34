"""The number format in which a stage computes, where the hardware has it."""

from __future__ import annotations

from typing import Literal

import torch

from dgm_bench.provenance import processor_features
from dgm_bench.spec import Stage

Precision = Literal["float32", "float64", "bfloat16"]

#: Features of processors with products in bfloat16; others compute them at a fraction of the speed
#: of single precision.
IN_HARDWARE = {"avx512_bf16", "amx_bf16", "bf16"}


def dtype_of(stage: Stage) -> torch.dtype:
    """Return the precision of a stage's weights and data."""
    return torch.float64 if stage.precision == "float64" else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Say whether a device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and not IN_HARDWARE.isdisjoint(processor_features())


def precision_on(device: torch.device, wanted: Precision) -> Precision:
    """Return what a stage computes in: single precision where ``bfloat16`` is not in hardware.

    Mixed precision saves time and is no part of what a paper reports, and single precision is no
    less exact.
    """
    return "float32" if wanted == "bfloat16" and not has_bfloat16(device) else wanted
