"""JSON as people and other programs write it, read without surprises."""

from __future__ import annotations

import json
import math
import re

#: Digits of the largest whole number that still is a float.
MOST_DIGITS = 309
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class UnusableJSON(ValueError):  # noqa: N818  it may well be JSON
    """JSON that cannot be used: nested too deeply, or with a number that is none."""


def read_json(text: str | bytes) -> object:
    """Return the value of a JSON text.

    Raises:
        UnusableJSON: It has NaN, an infinity, a number beyond all floats, half a character, or
            too deep a nesting.
        json.JSONDecodeError: It is no JSON; like the other a ``ValueError``.
        UnicodeDecodeError: Bytes that are no UTF-8, -16 or -32.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_whole, parse_float=_float)
        if _SURROGATE.search(text if isinstance(text, bytes) else text.encode("utf-8", "replace")):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise UnusableJSON("is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise UnusableJSON("has half a character (a lone surrogate)") from error
    return value


def _refuse(text: str) -> float:
    raise UnusableJSON(f"has {text}, which is no number")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + 1 or not math.isfinite(float(text)):
        raise UnusableJSON(f"has a whole number of {len(text.lstrip('-'))} digits")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise UnusableJSON("has a number beyond the largest float")
    return number
