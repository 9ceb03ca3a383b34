"""Arguments by name, checked against the annotations of who takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from dgm_bench.annotations import ArgumentsOf
from dgm_bench.errors import DeclarationError, choose_from, shortened
from dgm_bench.signatures import Definition, Parameter, parameters

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
#: What to do about a value, by pydantic's name of what is wrong with it.
_REMEDIES = {
    "bool_type": "use true or false",
    "int_type": "use a whole number",
    "int_from_float": "use a whole number",
    "float_type": "use a number",
    "list_type": 'use a list, such as [64, 64] or ["nll"]',
    "tuple_type": 'use a list, such as [64, 64] or ["nll"]',
    "too_short": "give at least {min_length}",
    "greater_than": "use a number above {gt}",
    "greater_than_equal": "use {ge} or more",
    "less_than": "use a number below {lt}",
    "less_than_equal": "use {le} or less",
    "mapping_type": "use an object of JSON, with names and values",
    "dict_type": "use an object of JSON, with names and values",
}


class ArgumentError(DeclarationError):
    """An argument that does not fit.

    Args:
        path: Its name, after those of what it is in: ``model.args.hidden``.
        value: What it was given, or ``...`` for nothing.
        reason: What is wrong with it.
        remedy: What to do about it.
    """

    def __init__(self, path: str, value: object, reason: str, remedy: str) -> None:
        self.path, self.value = path, value
        given = "" if value is ... else f" = {shortened(json.dumps(value, default=str))}"
        super().__init__(f"{path}{given}", reason, remedy)

    def below(self, path: str) -> ArgumentError:
        """Return it as of an argument of something else."""
        return ArgumentError(f"{path}.{self.path}", self.value, self.reason, self.remedy)


def known_arguments(make: Callable[..., Any], given: Iterable[str] = ()) -> dict[str, Parameter]:
    """Return what a constructor takes.

    Args:
        make: A definition, or a ``partial`` of one.
        given: Arguments that others give it.
    """
    fixed: tuple[str, ...] = ()
    definition = make
    if isinstance(make, partial):
        fixed, definition = tuple(make.keywords), make.func
    if not isinstance(definition, Definition):
        raise TypeError(f"{make!r} is not read from source")
    taken = (*given, *fixed)
    return {name: p for name, p in parameters(definition).items() if name not in taken}


def fitted(
    make: Callable[..., Any], args: Mapping[str, Any], given: Iterable[str] = ()
) -> dict[str, Any]:
    """Return arguments as their annotations have them: where a float is wanted, 1 becomes 1.0.

    Args:
        make: Who takes them, as for :func:`known_arguments`.
        args: Arguments by name.
        given: Arguments that others give it.

    Raises:
        ArgumentError: One is not known, missing, or not of its type.
    """
    model = _model(make, tuple(given))
    try:
        checked = model.model_validate_json(json.dumps(args, allow_nan=False))
    except ValidationError as error:
        raise explained(error, model.model_fields) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise _no_json(args) from error
    values = checked.model_dump(mode="json", exclude_unset=True)
    known = known_arguments(make, given)
    for name, parameter in known.items():
        for mark in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(mark, ArgumentsOf):
                values |= _fitted_part(name, mark, values, known)
    return values


def _fitted_part(
    name: str, mark: ArgumentsOf, values: Mapping[str, Any], known: Mapping[str, Parameter]
) -> dict[str, Any]:
    """Return the arguments of a part that another argument chooses, by their name."""
    chosen = mark.name or values.get(mark.by, known[mark.by].default)
    if chosen not in mark.makers:
        raise ArgumentError(mark.by, chosen, "is not known", choose_from(chosen, mark.makers))
    args, make = values.get(name), mark.makers[chosen]
    if make is None and args:
        raise ArgumentError(name, args, f"are for a part, and {chosen} is none", "leave them out")
    try:
        return {name: fitted(make, args, mark.given)} if args and make else {}
    except ArgumentError as error:
        raise error.below(name) from error


@cache
def _model(make: Callable[..., Any], given: tuple[str, ...]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is ... else None)
        for name, parameter in known_arguments(make, given).items()
    }
    return create_model("Arguments", __config__=_STRICT, **fields)


def explained(error: ValidationError, known: Iterable[str]) -> ArgumentError:
    """Return the first fault of many, with what to do about it.

    A misspelt name is unknown and missing at once: the former says more.

    Args:
        error: The faults.
        known: Names that there are.
    """
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    kind, where = first["type"], [str(part) for part in first["loc"]] or ["value"]
    path = ".".join(where)
    if kind == "missing":
        return ArgumentError(path, ..., "is missing", f"give {where[-1]}")
    if kind == "extra_forbidden":
        return ArgumentError(path, ..., "is no argument", choose_from(where[-1], known))
    reason = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    remedy = _REMEDIES.get(kind, "give a value that fits").format(**first.get("ctx", {}))
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        remedy = choose_from(str(first["input"]), choices)
    return ArgumentError(path, first["input"], reason, remedy)


def _no_json(args: Mapping[str, Any]) -> ArgumentError:
    for name, value in args.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return ArgumentError(name, repr(value), "is no finite value of JSON", "use one")
    return ArgumentError("args", ..., "are no values of JSON", "use texts, numbers and lists")
