"""What autograd holds for backward passes, in bytes: the same on every device and in every run."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class SavedMemory:
    """Counts the bytes that autograd holds for backward passes inside its ``with`` block.

    Parameters are left out, and tensors that share their memory count once. What a backward pass
    saves for gradients of its own counts too, for as long as it is held.

    Args:
        parameters: What is not to count.

    Attributes:
        peak: The most bytes that were held at once.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.left_out = {_storage(parameter) for parameter in parameters}
        self.holders: dict[int, int] = {}
        self.bytes = self.peak = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _Held.unpack)

    def __enter__(self) -> SavedMemory:
        """Count what is saved from here on."""
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Count no more."""
        self.hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> _Held:
        return _Held(tensor.detach(), self)

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's memory unless it is held already."""
        place = _storage(tensor)
        if place not in self.left_out:
            if self.holders.get(place, 0) == 0:
                self.bytes += tensor.untyped_storage().nbytes()
                self.peak = max(self.peak, self.bytes)
            self.holders[place] = self.holders.get(place, 0) + 1

    def release(self, tensor: Tensor) -> None:
        """Count a tensor's memory no more once nothing else holds it."""
        place = _storage(tensor)
        if place not in self.left_out:
            self.holders[place] -= 1
            if self.holders[place] == 0:
                self.bytes -= tensor.untyped_storage().nbytes()


class _Held:
    """A saved tensor, for as long as autograd holds it."""

    def __init__(self, tensor: Tensor, memory: SavedMemory) -> None:
        self.tensor, self.memory = tensor, memory
        memory.hold(tensor)

    def unpack(self) -> Tensor:
        return self.tensor

    def __del__(self) -> None:
        self.memory.release(self.tensor)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
