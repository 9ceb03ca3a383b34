"""The tensor operations of a computation, written down once to be repeated without the rest.

The rest is Python, modules, autograd and transforms of functions. The transforms leave behind views
that change nothing, factors of one and sums that a matrix product could have begun with; of a model
whose operations take microseconds each, these are a third of the time, and are taken out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

#: From the tensors that the computation was traced with, or others of their shapes, to its results.
Repeat = Callable[..., Any]

_ATEN: Any = torch.ops.aten
_SAME_SHAPE = {_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.expand.default}
_ALIASES = {_ATEN.detach.default, _ATEN.alias.default}
_BY_ONE = {_ATEN.mul.Scalar, _ATEN.pow.Tensor_Scalar}


def trace(compute: Callable[..., Any], inputs: Sequence[Tensor]) -> Repeat:
    """Return a function that repeats the operations of a computation on tensors like these.

    Tensors that ``compute`` takes from elsewhere, and all numbers and decisions that are not
    tensors, are what they were this time.

    Args:
        compute: A function of tensors to tensors.
        inputs: It is called with these once.
    """
    recorder = _Recorder()
    recorder.take(inputs)
    with recorder:
        results = compute(*inputs)
    graph = recorder.graph
    graph.output(tree_map_only(Tensor, recorder.node, results))
    _simplify(graph)
    repeat: Repeat = fx.GraphModule(recorder.constants, graph).forward
    return repeat


class _Recorder(TorchDispatchMode):
    """Writes down the operations that are computed while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.constants = fx.Graph(), dict[str, Tensor]()
        self._nodes: dict[int, fx.Node] = {}
        #: Tensors are known by where they are: as long as they are kept, nothing else is there.
        self._kept: list[Tensor] = []

    def take(self, inputs: Sequence[Tensor]) -> None:
        """Take these as what is another in each repetition."""
        for number, tensor in enumerate(inputs):
            self._note(self.graph.placeholder(f"input_{number}"), tensor)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  torch's own operator type is private
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the operation returns
        """Compute an operation, and write it down."""
        results = func(*args, **(kwargs or {}))
        given = tree_map_only(Tensor, self.node, (args, kwargs or {}))
        self._note(self.graph.call_function(func, *given), results)
        return results

    def node(self, tensor: Tensor) -> fx.Node:
        """Return the node of a tensor, which is a constant where no operation made it."""
        if id(tensor) not in self._nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            self._note(self.graph.get_attr(name), tensor)
        return self._nodes[id(tensor)]

    def _note(self, node: fx.Node, results: object) -> None:
        if isinstance(results, Tensor):
            node.meta["val"] = results
            self._nodes[id(results)] = node
            self._kept.append(results)
        elif isinstance(results, tuple | list):
            for number, result in enumerate(results):
                self._note(self.graph.call_function(operator.getitem, (node, number)), result)


def _simplify(graph: fx.Graph) -> None:
    """Take superfluous operations out, now that autograd is done with them."""
    changes = any(_changes_its_input(node) for node in graph.nodes)
    for node in list(graph.nodes):
        same = _same_value(node, changes)
        if same is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)  # no longer one that needs the value before it
        else:
            _begin_product_with_sum(node)
    graph.eliminate_dead_code()


def _same_value(node: fx.Node, changes: bool) -> fx.Node | None:
    """Return the node before this one that has the same value, or None.

    Where the graph ``changes`` tensors in place, those that share no memory stay apart.
    """
    source = node.args[0] if node.args else None
    if node.op != "call_function" or not isinstance(source, fx.Node):
        return None
    if node.target in _ALIASES:
        return source
    if node.target in _SAME_SHAPE and _shape(node) == _shape(source):
        return source
    if node.target in _BY_ONE and node.args[1] == 1 and not changes and _same_type(node, source):
        return source
    twice = node.target is _ATEN.transpose.int and source.target is node.target
    if twice and node.args[1:] == source.args[1:]:
        before = source.args[0]
        return before if isinstance(before, fx.Node) else None
    return None


def _begin_product_with_sum(node: fx.Node) -> None:
    """Make ``bmm(a, b) + c`` one operation."""
    if node.target is not _ATEN.add.Tensor or node.kwargs:
        return
    one, other = node.args
    for product, term in ((one, other), (other, one)):
        if not (isinstance(product, fx.Node) and isinstance(term, fx.Node)):
            return
        alone = product.target is _ATEN.bmm.default and len(product.users) == 1
        if alone and _shape(product) == _shape(node) and _same_type(product, term):
            node.target, node.args = _ATEN.baddbmm.default, (term, *product.args)
            return


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _same_type(one: fx.Node, other: fx.Node) -> bool:
    return bool(one.meta["val"].dtype == other.meta["val"].dtype)


def _changes_its_input(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is operator.getitem:
        return False
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)
