"""From a declared name to a model."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Literal, get_args, get_origin, get_type_hints

from torch import nn

from dgm_bench.errors import DeclarationError, choose_from, require_choice
from dgm_bench.models.names import locate
from dgm_bench.spec import ModelSpec


def build(spec: ModelSpec, event_shape: tuple[int, ...]) -> nn.Module:
    """Return a freshly initialised model, on the CPU and in torch's default precision.

    Weights are drawn from torch's global generator.

    Raises:
        DeclarationError: No such model or argument, a value of the wrong type, or a size
            of zero.
    """
    cls = model_class(spec.name)
    known = list(inspect.signature(cls).parameters)[1:]
    for name, value in spec.args.items():
        if name not in known:
            raise DeclarationError(spec.name, f"has no argument {name!r}", choose_from(name, known))
        _check_choice(cls, name, value)
    try:
        arguments = inspect.signature(cls).bind(event_shape, **spec.args)
    except TypeError as error:
        raise DeclarationError(spec.name, str(error), "add it to the model's arguments") from error
    try:
        model = cls(*arguments.args, **arguments.kwargs)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        remedy = "look at the types of the model's arguments"
        raise DeclarationError(spec.name, f"cannot be built: {error}", remedy) from error
    empty = next((n for n, weight in model.named_parameters() if weight.numel() == 0), None)
    if empty is not None:
        remedy = "look for a size of 0 in the model's arguments"
        raise DeclarationError(spec.name, f"cannot be built: {empty} would be empty", remedy)
    vars(model)["declaration"] = spec
    return model


def build_like(model: nn.Module, event_shape: tuple[int, ...]) -> nn.Module:
    """Return a fresh model of the declaration of ``model``, for examples of any shape.

    Raises:
        DeclarationError: The model did not come from :func:`build`.
    """
    if "declaration" not in vars(model):
        name = type(model).__name__
        raise DeclarationError(name, "has no declaration", "make it by models.build.build")
    return build(vars(model)["declaration"], event_shape)


def _check_choice(cls: type[nn.Module], name: str, value: object) -> None:
    """Refuse a value that is not among those that the argument's ``Literal`` names."""
    hint = get_type_hints(cls.__init__)[name]
    if get_origin(hint) is Literal:
        require_choice(name, value, get_args(hint))


def model_class(name: str) -> type[nn.Module]:
    """Return the class of a declared model.

    Raises:
        DeclarationError: No model has that name.
    """
    module, class_name = locate(name)
    cls: type[nn.Module] = getattr(import_module(f"dgm_bench.models.{module}"), class_name)
    return cls
