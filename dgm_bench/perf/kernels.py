"""Plain networks to measure times by: what they take does not depend on this suite's code."""

from __future__ import annotations

import torch
from torch import nn

#: Width of each by its name; about as many operations an operator as the cases have.
KERNELS = {"kernel-64": 64, "kernel-256": 256}
_LAYERS, _BATCH, _SEED = 8, 100, 7


class PlainStep:
    """A training step of a plain network: forward, backward, Adam.

    Args:
        width: Of its layers.
        device: Where.
    """

    def __init__(self, width: int, device: str = "cpu") -> None:
        torch.manual_seed(_SEED)
        layers = [part for _ in range(_LAYERS) for part in (nn.Linear(width, width), nn.ReLU())]
        self.model: nn.Module = nn.Sequential(*layers).to(device)
        self.x = torch.randn(_BATCH, width, device=device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0, fused=True)

    def __call__(self) -> None:
        """Take the step, and wait for the device."""
        self.model(self.x).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.x.is_cuda:
            torch.cuda.synchronize()
