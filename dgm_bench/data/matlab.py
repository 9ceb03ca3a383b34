"""Matrices of numbers from MATLAB 5 files, by the layout that MathWorks publishes.

"MAT-File Format", sections on level 5: a header of 128 bytes, then elements of a type and a length;
a matrix is an element of elements (flags, dimensions, name, values), and may be deflated.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from dgm_bench.data.arrays import LARGEST, broken, decoding, require_room

_HEADER = 128
_MATRIX, _DEFLATED, _FLAGS, _DIMENSIONS, _NAME = 14, 15, 6, 5, 1
#: NumPy's codes of the types of values.
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
#: Classes of arrays of numbers, and the flag of complex ones.
_NUMBERS, _COMPLEX = range(6, 16), 0x800


class _Element(NamedTuple):
    """A type and its content."""

    kind: int
    content: memoryview


def read_mat(path: Path, *keys: str) -> dict[str, Num[np.ndarray, "*shape"]]:
    """Return those of the matrices that are there.

    Raises:
        DataError: The file is truncated, corrupt, or of another layout.
    """
    with decoding(path):
        if path.stat().st_size > LARGEST:
            raise broken(path, "is larger than any published file")
        content = memoryview(path.read_bytes())
        order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:_HEADER]))
        if order is None or content[124:126] != struct.pack(f"{order}H", 0x100):
            raise broken(path, "is truncated or corrupt: no MATLAB 5 file")
        found = {}
        for kind, element in _elements(path, content[_HEADER:], order):
            matrix = _inflated(path, element, order) if kind == _DEFLATED else element
            name, parts = _named(path, matrix, order)
            if name in keys:
                found[name] = _values(path, name, parts, order)
        return found


def _elements(path: Path, content: memoryview, order: str) -> Iterator[_Element]:
    """Split what is a sequence of elements; short ones have their type and length in a word."""
    while content:
        kind, length = struct.unpack_from(f"{order}2I", content)
        begin = 8
        if kind >> 16:
            kind, length, begin = kind & 0xFFFF, kind >> 16, 4
        if begin + length > len(content):
            raise broken(path, "is truncated or corrupt: an element is longer than the file")
        yield _Element(kind, content[begin : begin + length])
        end = begin + length
        content = content[end if kind == _DEFLATED else -(-end // 8) * 8 :]


def _inflated(path: Path, content: memoryview, order: str) -> memoryview:
    """Return the content of a deflated matrix."""
    stream = zlib.decompressobj()
    kind, length = struct.unpack(f"{order}2I", stream.decompress(content, 8))
    require_room(path, length, len(content))
    matrix = stream.decompress(stream.unconsumed_tail, length + 1)
    if kind != _MATRIX or len(matrix) != length or not stream.eof:
        raise broken(path, "is truncated or corrupt: a deflated element is no matrix")
    return memoryview(matrix)


def _named(path: Path, matrix: memoryview, order: str) -> tuple[str, list[_Element]]:
    """Return the name of a matrix, and its flags, dimensions, name and values."""
    parts = [part for part, _ in zip(_elements(path, matrix, order), range(4), strict=False)]
    if [part.kind for part in parts[:3]] != [_FLAGS, _DIMENSIONS, _NAME]:
        raise broken(path, "is truncated or corrupt: an element is no matrix")
    return bytes(parts[2].content).decode("latin1"), parts


def _values(path: Path, name: str, parts: list[_Element], order: str) -> Num[np.ndarray, "*shape"]:
    (flags,) = struct.unpack_from(f"{order}I", parts[0].content)
    if flags & 0xFF not in _NUMBERS or flags & _COMPLEX or parts[-1].kind not in _TYPES:
        raise broken(path, f"{name!r} is no matrix of numbers")
    shape = tuple(int(n) for n in np.frombuffer(parts[1].content, f"{order}i4"))
    values = np.frombuffer(parts[3].content, order + _TYPES[parts[3].kind])
    if min(shape) < 0 or math.prod(shape) != len(values):
        raise broken(path, f"{name!r} has {len(values):,} values, expected {shape}")
    return values.reshape(shape, order="F")
