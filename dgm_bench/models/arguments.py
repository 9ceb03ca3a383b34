"""Checks of arguments that models share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from dgm_bench.errors import DeclarationError, choose_from


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
