"""The longest chain of dependent operations: the sequential cost of a computation.

A sampler that fills in one dimension after another makes a chain whose length grows with the
dimension, however cleverly it is written; one that passes through a network once does not. Chains
are counted where torch executes operations, so that it does not matter how a model is put together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class DependencyDepth(TorchDispatchMode):
    """While it is on, keeps the longest chain of operations behind every tensor's memory.

    Views are free, and writing into a part of a tensor counts for all of it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._depths: dict[int, int] = {}
        # Memory that is given back would be another tensor's later, under the same address.
        self._alive: list[torch.UntypedStorage] = []

    def of(self, tensor: Tensor) -> int:
        """Return the number of operations in the longest chain that led to ``tensor``."""
        return self._depths.get(tensor.untyped_storage().data_ptr(), 0)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  torch's own operator type is private
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the operation returns
        """Run one operation and note how deep its outputs are."""
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        depth = 1 + max(map(self.of, inputs), default=0)
        known = {t.untyped_storage().data_ptr() for t in inputs}
        for tensor in outputs:
            storage = tensor.untyped_storage()
            if func._schema.is_mutable or storage.data_ptr() not in known:
                self._depths[storage.data_ptr()] = depth
                self._alive.append(storage)
        return result


def depth_of(function: Callable[[], Tensor]) -> int:
    """Return the longest chain of dependent operations behind what ``function`` returns."""
    counter = DependencyDepth()
    with torch.no_grad(), counter:
        result = function()
    return counter.of(result)


def growth(depths: dict[int, int]) -> float:
    """Return the exponent ``a`` of ``depth ~ dim^a``, from the smallest to the largest dimension.

    It is 0 for a depth that does not depend on the dimension and near 1 for one dimension at a
    time.
    """
    low, high = min(depths), max(depths)
    return math.log(depths[high] / depths[low]) / math.log(high / low)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
