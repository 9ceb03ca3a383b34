"""From a declared name to a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

import torch
from torch import nn
from torch.nn.modules import module as registration

from dgm_bench.arguments import ArgumentError
from dgm_bench.errors import DeclarationError
from dgm_bench.models.arguments import fitted_model
from dgm_bench.models.names import locate
from dgm_bench.spec import ModelSpec

#: Layers and tensors of the largest model that is no slip of the keyboard.
MOST_PARTS = 10_000


def build(spec: ModelSpec, event_shape: tuple[int, ...]) -> nn.Module:
    """Return a freshly initialised model, on the CPU and in torch's default precision.

    Weights are drawn from torch's global generator.

    Raises:
        DeclarationError: No such model or argument, a value of the wrong type, or a size
            of zero.
    """
    try:
        fitted_model(spec)
    except ArgumentError as error:
        raise error.below(spec.name) from error
    try:
        model = model_class(spec.name)(event_shape, **spec.args)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        remedy = "look at the types of the model's arguments"
        raise DeclarationError(spec.name, f"cannot be built: {error}", remedy) from error
    empty = next((n for n, weight in model.named_parameters() if weight.numel() == 0), None)
    if empty is not None:
        remedy = "look for a size of 0 in the model's arguments"
        raise DeclarationError(spec.name, f"cannot be built: {empty} would be empty", remedy)
    vars(model)["declaration"] = spec
    return model


def sketch(spec: ModelSpec, event_shape: tuple[int, ...], memory_bytes: int) -> nn.Module:
    """Return a model without values, to be asked what it is: it takes neither memory nor noise.

    Args:
        spec: The model.
        event_shape: Shape of an example.
        memory_bytes: What its parameters and buffers may take.

    Raises:
        DeclarationError: As :func:`build`; or it has too many parts, or takes too much memory.
    """
    with torch.device("meta"), _bounded(spec.name, memory_bytes):
        return build(spec, event_shape)


@contextmanager
def _bounded(name: str, memory_bytes: int) -> Iterator[None]:
    """Refuse a model while it is built, as soon as it is too large."""
    parts = taken = 0

    def add(part: nn.Module, _: str, value: nn.Module | torch.Tensor | None) -> None:
        nonlocal parts, taken
        parts += 1
        taken += value.nbytes if isinstance(value, torch.Tensor) else 0
        if parts > MOST_PARTS or taken > memory_bytes:
            size = f"more than {MOST_PARTS} layers and tensors"
            if taken > memory_bytes:
                size = f"more than {taken / 1e9:.0f} GB, and here are {memory_bytes / 1e9:.0f} GB"
            raise DeclarationError(f"model {name}", f"has {size}", "give it smaller arguments")

    with ExitStack() as stack:
        for kind in ("module", "parameter", "buffer"):
            hook = getattr(registration, f"register_module_{kind}_registration_hook")
            stack.callback(hook(add).remove)
        yield


def build_like(model: nn.Module, event_shape: tuple[int, ...]) -> nn.Module:
    """Return a fresh model of the declaration of ``model``, for examples of any shape.

    Raises:
        DeclarationError: The model did not come from :func:`build`.
    """
    if "declaration" not in vars(model):
        name = type(model).__name__
        raise DeclarationError(name, "has no declaration", "make it by models.build.build")
    return build(vars(model)["declaration"], event_shape)


def model_class(name: str) -> type[nn.Module]:
    """Return the class of a declared model.

    Raises:
        DeclarationError: No model has that name.
    """
    module, class_name = locate(name)
    cls: type[nn.Module] = getattr(import_module(f"dgm_bench.models.{module}"), class_name)
    return cls
