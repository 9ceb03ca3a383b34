"""Sums in double precision, where the device has it."""

from __future__ import annotations

import torch
from torch import Tensor


def widest(device: torch.device) -> torch.dtype:
    """Return ``float64``, or ``float32`` on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def precise(x: Tensor) -> Tensor:
    """Return a tensor in the widest format of its device."""
    return x.to(widest(x.device))
