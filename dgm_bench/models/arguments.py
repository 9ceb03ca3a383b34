"""Checks of arguments that models share. Imports no torch: the catalogue makes them too."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dgm_bench.arguments import fitted
from dgm_bench.errors import DeclarationError, choose_from
from dgm_bench.models.names import locate
from dgm_bench.signatures import Definition, module

if TYPE_CHECKING:
    from torch import nn

    from dgm_bench.spec import ModelSpec


def model_definition(name: str) -> Definition:
    """Return the class of a declared model, read from its source.

    Raises:
        DeclarationError: No model has that name.
    """
    file, class_name = locate(name)
    definition: Definition = module(f"dgm_bench.models.{file}")[class_name]
    return definition


def fitted_model(spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments of a declared model as they are annotated.

    Raises:
        DeclarationError: No such model or argument, or a value of another type or size.
    """
    return fitted(model_definition(spec.name), spec.args, ("event_shape",))


def require_images(event_shape: Sequence[int]) -> None:
    """Refuse examples that are not of channels, height and width.

    Raises:
        DeclarationError: They are not.
    """
    if len(event_shape) != 3:
        thing = f"examples of shape {tuple(event_shape)}"
        raise DeclarationError(thing, "are no images", "use a data set of images")


def require_known(
    thing: str, make: Callable[..., nn.Module], args: Iterable[str], given: int
) -> None:
    """Refuse arguments that a component does not have.

    Args:
        thing: The component, for the message.
        make: Its constructor; arguments that a ``partial`` sets are not free.
        args: Names of the declared arguments.
        given: Number of leading arguments that the model itself passes.

    Raises:
        DeclarationError: One of them is not known.
    """
    fixed = getattr(make, "keywords", {})
    known = [name for name in inspect.signature(make).parameters if name not in fixed][given:]
    for name in args:
        if name not in known:
            raise DeclarationError(thing, f"has no argument {name!r}", choose_from(name, known))
