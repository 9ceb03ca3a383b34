"""What many models ask of their arguments."""

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
    """Refuse arguments that a part does not have.

    Args:
        thing: The part, in words.
        make: What makes it; arguments that a ``partial`` sets are not free.
        args: Names of the arguments that are declared.
        given: How many of the first arguments the model itself gives.

    Raises:
        DeclarationError: One of them is not known.
    """
    fixed = getattr(make, "keywords", {})
    known = [name for name in inspect.signature(make).parameters if name not in fixed][given:]
    for name in args:
        if name not in known:
            raise DeclarationError(thing, f"has no argument {name!r}", choose_from(name, known))
