"""Records as rows of plain values, and records of rows: small in memory and fast to make.

Of thousands of records the recipes, machines, data sets and versions of the code are few, and so
are the names, units and protocols of their metrics: each is kept once, and has a number in rows.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Iterable
from functools import cache, partial
from operator import attrgetter
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel

from dgm_bench.records import Code, Data, Environment, Metric, RunRecord, Scale
from dgm_bench.spec import Recipe

M = TypeVar("M", bound=BaseModel)
Row = list[Any]
Fields = dict[str, Any]
Maker = Callable[[Any], Any]

#: Blocks that many records have in common.
BLOCKS: dict[str, type[BaseModel]] = {
    "recipe": Recipe,
    "environment": Environment,
    "data": Data,
    "code": Code,
    "scale": Scale,
}
#: All fields that they have in common.
SHARED = (*BLOCKS, "cells", "recipe_hash", "paper", "table", "row", "column")
#: Of marshal: later ones write references, so that what is equal may have other bytes.
_PLAIN = 2
_FIELDS = list(RunRecord.model_fields)
_SHARED_PLACES = [_FIELDS.index(name) for name in SHARED]
_METRICS = _FIELDS.index("metrics")
_NUMBERS = [list(Metric.model_fields).index(name) for name in ("value", "se", "n")]


class Shared:
    """What records share, by the numbers that it has in their rows.

    Args:
        texts: Kind and JSON of each, a block's as a row, in the order of their numbers.
    """

    def __init__(self, texts: Iterable[tuple[str, str]] = ()) -> None:
        self.texts = list(texts)
        self._numbers = {text: number for number, text in enumerate(self.texts)}
        self._seen: dict[tuple[str, bytes], int] = {}
        self._made: dict[int, Any] = {}

    def row(self, fields: Fields) -> Row:
        """Return the row of a record's fields, validated.

        Raises:
            ValidationError: When they are no record's.
        """
        before = len(self.texts)
        try:
            numbers = {name: self._number(name, fields[name]) for name in SHARED}
            shared = {name: self._value(number) for name, number in numbers.items()}
            row = _packed(RunRecord.model_validate(fields | shared))
        except (KeyError, ValueError, TypeError):
            self._forget(before)
            RunRecord.model_validate(fields)  # which says where in the record it is wrong
            raise
        for place, number in zip(_SHARED_PLACES, numbers.values(), strict=True):
            row[place] = number
        row[_METRICS] = [self._metric_row(values) for values in row[_METRICS]]
        return row

    def record(self, row: Row) -> RunRecord:
        """Return the record of a row; its shared parts are the same objects as those of others."""
        full = list(row)
        for place in _SHARED_PLACES:
            full[place] = self._value(full[place])
        full[_METRICS] = [self._metric_values(packed) for packed in full[_METRICS]]
        return _made(RunRecord, full)

    def _metric_row(self, values: Row) -> Row:
        """Return a metric's numbers after the number of what else there is of it."""
        words = [None if place in _NUMBERS else value for place, value in enumerate(values)]
        return [self._number("metric", words), *(values[place] for place in _NUMBERS)]

    def _metric_values(self, row: Row) -> Row:
        values = list(self._value(row[0]))
        for place, number in zip(_NUMBERS, row[1:], strict=True):
            values[place] = number
        return values

    def _number(self, kind: str, value: Any) -> int:  # noqa: ANN401  of JSON
        key = kind, marshal.dumps(value, _PLAIN)
        if key not in self._seen:
            block = BLOCKS.get(kind)
            row = value if block is None else _packed(block.model_validate(value))
            text = kind, json.dumps(row)
            if text not in self._numbers:
                self._numbers[text] = len(self.texts)
                self.texts.append(text)
            self._seen[key] = self._numbers[text]
        return self._seen[key]

    def _value(self, number: int) -> Any:  # noqa: ANN401  a block, a text, or a metric's row
        if number not in self._made:
            kind, text = self.texts[number]
            value = json.loads(text)
            if kind in BLOCKS:
                value = _made(BLOCKS[kind], value)
            elif kind == "cells" and isinstance(value, list):
                value = tuple(value)
            self._made[number] = value
        return self._made[number]

    def _forget(self, first: int) -> None:
        """Forget what has this number or a later one: it may be of no record."""
        del self.texts[first:]
        self._numbers = {text: number for text, number in self._numbers.items() if number < first}
        self._seen = {key: number for key, number in self._seen.items() if number < first}
        self._made = {number: made for number, made in self._made.items() if number < first}


# --------------------------------------------------------------------------- rows


def _packed(model: BaseModel) -> Row:
    return [
        _packed(value)
        if isinstance(value, BaseModel)
        else [_packed(v) if isinstance(v, BaseModel) else v for v in value]
        if isinstance(value, tuple)
        else value
        for value in _getter(type(model))(model)
    ]


@cache
def _getter(kind: type[BaseModel]) -> Callable[[BaseModel], tuple[Any, ...]]:
    return attrgetter(*kind.model_fields)


def _made(kind: type[M], row: Iterable[object]) -> M:
    """Return a model of values that were validated before.

    Its attributes are set one by one: Python then keeps their names once for all of its kind, and
    pydantic's set of the names that were given is shared too. Both are most of a model's memory.
    """
    forms, given = _forms(kind)
    model, put = kind.__new__(kind), object.__setattr__
    for (name, make), value in zip(forms, row, strict=True):
        put(model, name, value if make is None else make(value))
    put(model, "__pydantic_fields_set__", given)
    put(model, "__pydantic_extra__", None)
    put(model, "__pydantic_private__", None)
    return model


@cache
def _forms(kind: type[BaseModel]) -> tuple[list[tuple[str, Maker | None]], set[str]]:
    """Return a class's fields, each with what makes it of its packed value, and their names."""
    fields = kind.model_fields.items()
    shared = SHARED if kind is RunRecord else ()
    forms = [(name, None if name in shared else _maker(field.annotation)) for name, field in fields]
    return forms, set(kind.model_fields)


def _maker(annotation: object) -> Maker | None:
    """Return what makes a value of its packed form; None where the two are the same."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return partial(_made, annotation)
    if isinstance(annotation, UnionType):
        made = next(filter(None, map(_maker, get_args(annotation))), None)
        return None if made is None else lambda row: None if row is None else made(row)
    if get_origin(annotation) is tuple:
        make = _maker(get_args(annotation)[0])
        return tuple if make is None else lambda rows: tuple(map(make, rows))
    return None
