"""Floors: what a step cannot do without, alone, so that its time says how far from it a step is.

The usual floor is the matrix products and convolutions of one real step, forward and backward
(three a layer: outputs, gradients of the inputs, gradients of the weights), recorded while it runs
and repeated into the memory that holds their results: no list of shapes could follow a model as
well. Which step is recorded, a case says: that of the plain dense formulation, so that skipping
products shows as a time below the floor.

Where there are next to no products, the floor is the copying of what must be read and written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from contestants import Contestant
from jaxtyping import Shaped
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry


class Product:
    """One matrix product, convolution or attention of a step, with its operands.

    Args:
        operator: The operator that ran.
        args: Its positional arguments; tensors are kept as they are, without their graph.
        kwargs: Its keyword arguments, likewise.
        result: What it returned: results of a repetition go there, where the operator allows it.
    """

    def __init__(
        self, operator: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], result: object
    ) -> None:
        kept = tree_map_only(Tensor, torch.Tensor.detach, (args, kwargs, result))
        self.args, self.kwargs, self.result = kept
        packet = operator.overloadpacket
        self.flops = int(flop_registry[packet](*args, **kwargs, out_val=result))
        # The convolutions' forms with given memory compute elsewhere and copy.
        takes_memory = packet in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)
        self.operator = packet.out if takes_memory else operator
        if takes_memory:
            self.kwargs = {**self.kwargs, "out": self.result}

    def __call__(self) -> None:
        """Compute it again."""
        self.operator(*self.args, **self.kwargs)


class Recorder(TorchDispatchMode):
    """While active, collects the products that run, those of backward passes too.

    Attributes:
        products: In the order in which they ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.products.append(Product(func, args, kwargs or {}, result))
        return result


class Products(Contestant):
    """The products of a step and nothing else.

    Args:
        step: Runs once, to be recorded: a :class:`~interleaved.Step` or any function.
        is_cuda: Whether it runs on a GPU.

    Raises:
        AssertionError: The step has no products.
    """

    def __init__(self, step: Callable[[], object], is_cuda: bool = False) -> None:
        super().__init__("products", is_cuda)
        with Recorder() as recorder:
            step()
        assert recorder.products, "a step without products: its floor is of copies"
        self.products = recorder.products
        self.flops = sum(product.flops for product in self.products)

    @torch.no_grad()
    def run(self) -> None:
        """Compute every product again."""
        for product in self.products:
            product()


class Copies(Contestant):
    """The copying of tensors, each read once and written once.

    Args:
        tensors: What a step must at least read; as much is written.
    """

    def __init__(self, tensors: Sequence[Shaped[Tensor, "..."]]) -> None:
        super().__init__("copies", tensors[0].is_cuda)
        self.sources = [tensor.detach() for tensor in tensors]
        self.targets = [torch.empty_like(source) for source in self.sources]

    @torch.no_grad()
    def run(self) -> None:
        """Copy all of them."""
        for source, target in zip(self.sources, self.targets, strict=True):
            target.copy_(source)


def floor_of(step: Contestant) -> Products:
    """Return the products of the step."""
    return Products(step, step.is_cuda)


def least_floor(steps: Sequence[Contestant]) -> Products:
    """Return the products of the step that has fewest floating-point operations in them."""
    return min(map(floor_of, steps), key=lambda floor: floor.flops)
