"""Arguments of a part of a model that is declared by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from torch import nn

from dgm_bench.errors import DeclarationError, did_you_mean


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
            every = f"known: {', '.join(known)}" if known else "it has none"
            remedy = did_you_mean(name, known) or every
            raise DeclarationError(thing, f"has no argument {name!r}", remedy)
