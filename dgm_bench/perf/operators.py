"""Counting what a step asks of torch: operators, and the bytes of tensors that live at once."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


class OperatorCount(TorchDispatchMode):
    """Counts operators below autograd, of the forward and the backward pass and the optimiser.

    Floating-point operations are those of matrix products, convolutions and attention, by torch's
    own formulas (``torch.utils.flop_counter``, whose mode cannot follow a gradient within a
    backward pass). Bytes are those of storages that came to be while it counted and are still
    referred to; what an operator allocates for itself and frees before it returns is not seen.
    Both are exact and the same on every CPU, which an allocator's own figures are not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.flops = self.live_bytes = self.peak_bytes = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    @property
    def operators(self) -> int:
        """How many operators were called."""
        return self.calls.total()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the operator returns
        """Count an operator, and run it."""
        self._notice((args, kwargs), new=False)
        result = func(*args, **(kwargs or {}))
        self.calls[str(func)] += 1
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        self._notice(result, new=True)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return result

    def _notice(self, tree: object, *, new: bool) -> None:
        """Count the bytes of storages not seen before, where they are new, while they live."""
        for tensor in tree_iter(tree):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._remember(storage, storage.nbytes() if new else 0)

    def _remember(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        self._seen[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.live_bytes += size

    def _forget(self, key: int, size: int) -> None:
        del self._seen[key]
        self.live_bytes -= size
