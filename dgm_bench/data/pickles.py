"""Published pickles, read as data: a pickle is a program, and this runs none.

Its operations (named as in Python's ``pickletools``) are interpreted here, those that published
files need: they make numbers, texts and containers, and call a few names, each of which stands for
a function of this package. Nothing is imported, no class is instantiated, and no object is given a
state by the file. Lengths are compared with the file before memory is taken.
"""

from __future__ import annotations

import codecs
import math
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from dgm_bench.errors import DataError, reading

_AGAIN = "delete it and fetch it again"
#: The largest published pickle has 0.64 GB, the one with the most values some 50,000 and three
#: arrays; what a call or a state may repeat is bounded too, so that time and memory are.
LARGEST, MOST_VALUES, MOST_STATES = 2**30, 300_000, 200
_MOST_AXES = 8
_DTYPE = re.compile("[biuf][1248]")
T = TypeVar("T")


class MalformedError(ValueError):
    """A pickle that is no published one; the message becomes the reason of an error."""


class Named(NamedTuple):
    """What a permitted name stands for: a function of this package, or nothing that is called."""

    call: Callable[..., Any] | None = None


Names = Mapping[tuple[str, str], Named]


class Unbuilt:
    """What a call made and a later ``BUILD`` gives its value: an array, a type, a frame."""

    def __init__(self) -> None:
        self.keys: list[int] = []  # of the memo, where the value has to take its place

    def built(self, state: object) -> Any:  # noqa: ANN401
        """Return the value.

        Raises:
            MalformedError: The state is not what such a thing has.
        """
        raise NotImplementedError


def require(truth: object, what: str) -> None:
    """Refuse a pickle unless something holds.

    Raises:
        MalformedError: What is wrong with it.
    """
    if not truth:
        raise MalformedError(what)


def expect(value: object, kind: type[T]) -> T:
    """Return a value of a pickle, which has to be of a kind.

    Raises:
        MalformedError: It is of another.
    """
    require(type(value) is kind, f"{type(value).__name__} where {kind.__name__} belongs")
    return value  # type: ignore[return-value]


def as_text(value: object) -> str:
    """Return a text, which Python 2 pickled as bytes.

    Raises:
        MalformedError: It is none.
    """
    return value.decode("latin1") if isinstance(value, bytes) else expect(value, str)


# ------------------------------------------------------------------------------- arrays


class _Dtype(Unbuilt):
    """A type of numbers: NumPy pickles its code, and then a state with its order of bytes."""

    def __init__(self, code: object, *_: object) -> None:
        super().__init__()
        self.code = as_text(code)

    def built(self, state: object) -> np.dtype[Any] | None:
        """Return a type of numbers, or None for one of Python's objects."""
        _, order, *parts = expect(state, tuple)
        require(parts[:3] == [None] * 3, "a type of several parts")
        if self.code in ("O", "O4", "O8"):
            return None
        require(_DTYPE.fullmatch(self.code), "a type that is not of numbers")
        require(as_text(order) in ("<", ">", "|", "="), "a type of an unknown order of bytes")
        return np.dtype(as_text(order).strip("|") + self.code)


class _Array(Unbuilt):
    """An array: its state has a version, the shape, the type, the order and the bytes."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def built(self, state: object) -> np.ndarray | list[Any]:
        """Return an array of numbers that cannot be written, or a list of Python's objects."""
        _, sizes, dtype, by_columns, content = expect(state, tuple)
        shape = tuple(expect(size, int) for size in expect(sizes, tuple))
        require(len(shape) <= _MOST_AXES and min(shape, default=0) >= 0, "an array of no shape")
        if dtype is None:
            labels: list[Any] = expect(content, list)
            require(shape == (len(labels),), "labels of another shape")
            return labels
        require(isinstance(dtype, np.dtype), "an array without a type")
        size = math.prod(shape) * dtype.itemsize
        require(size == len(expect(content, bytes)), "an array of another size")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _encoded(value: object, encoding: object) -> bytes:
    """Return the bytes that Python 3 wrote as a text, for want of bytes in old pickles."""
    require(as_text(encoding) in ("latin1", "latin-1"), "a text of another encoding")
    return as_text(value).encode("latin1")


ARRAYS: Names = {
    ("numpy.core.multiarray", "_reconstruct"): Named(_Array),
    ("numpy._core.multiarray", "_reconstruct"): Named(_Array),
    ("numpy", "ndarray"): Named(),
    ("numpy", "dtype"): Named(_Dtype),
    ("_codecs", "encode"): Named(_encoded),
}


# ------------------------------------------------------------------------------ operations


class _Machine:
    """Interprets the operations of one pickle."""

    def __init__(self, stream: IO[bytes], size: int, names: Names) -> None:
        self.stream, self.size, self.left, self.names = stream, size, size, names
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.values = self.states = self.encoded = 0

    def run(self) -> Any:  # noqa: ANN401
        """Return the value that is left at the end."""
        while (code := self.take(1)) != b".":
            require(code in _OPERATIONS, f"an operation {code!r} that no published file has")
            _OPERATIONS[code](self)
        return self.pop()

    # Reading.

    def take(self, length: int) -> bytes:
        """Return the next bytes, which the file has to hold."""
        require(0 <= length <= self.left, "it ends too early")
        self.left -= length
        return self.stream.read(length)

    def number(self, form: str) -> Any:  # noqa: ANN401
        """Return a number of a form of :mod:`struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        """Return the rest of the line."""
        found = self.stream.readline()
        self.left -= len(found)
        require(found.endswith(b"\n"), "it ends too early")
        return found[:-1]

    # The stack.

    def push(self, value: Any) -> None:  # noqa: ANN401
        """Put a value on the stack."""
        self.count()
        self.stack.append(value)

    def count(self) -> None:
        """Count what takes memory: values, marks and what is remembered."""
        self.values += 1
        require(self.values <= MOST_VALUES, f"it has more than {MOST_VALUES:,} values")

    def mark(self) -> None:
        """Remember where a container begins."""
        self.count()
        self.marks.append(len(self.stack))

    def pop(self) -> Any:  # noqa: ANN401
        """Take the last value."""
        return self.popped(1)[0]

    def popped(self, count: int) -> tuple[Any, ...]:
        """Take the last values, which lie above the last mark, in the order in which they came."""
        begin = len(self.stack) - count
        require(begin >= (self.marks[-1] if self.marks else 0), "a value is missing")
        found = tuple(self.stack[begin:])
        del self.stack[begin:]
        return found

    def since_mark(self) -> list[Any]:
        """Take the values above the last mark, and the mark."""
        require(self.marks, "a mark is missing")
        begin = self.marks.pop()
        found = self.stack[begin:]
        del self.stack[begin:]
        return found

    def put(self, key: int) -> None:
        """Remember the last value."""
        self.count()
        self.memo[key] = value = self.stack[-1]
        if isinstance(value, Unbuilt):
            value.keys.append(key)

    # Containers.

    def extend(self, values: list[Any]) -> None:
        """Append to a list."""
        expect(self.stack[-1], list).extend(values)

    def update(self, values: list[Any]) -> None:
        """Set items of a dictionary: keys and values alternate."""
        expect(self.stack[-1], dict).update(_items(values))

    # Names.

    def find(self, module: object, name: object) -> None:
        """Push what a permitted name stands for.

        Raises:
            MalformedError: The name is not permitted.
        """
        key = as_text(module), as_text(name)
        require(key in self.names, f"it asks for the forbidden global {'.'.join(key)}")
        self.push(self.names[key])

    def call(self) -> None:
        """Push what a permitted name gives for its arguments."""
        name, arguments = self.popped(2)
        require(isinstance(name, Named) and name.call, "a call of what cannot be called")
        value = name.call(*expect(arguments, tuple))
        self.encoded += len(value) if isinstance(value, bytes) else 0
        require(self.encoded <= 2 * self.size, "a text that is repeated")
        self.push(value)

    def build(self) -> None:
        """Give something its state, here and where it is remembered."""
        self.states += 1
        require(self.states <= MOST_STATES, f"it has more than {MOST_STATES} objects")
        thing, state = self.popped(2)
        require(isinstance(thing, Unbuilt), "a state of what has none")
        value = thing.built(state)
        self.memo.update(dict.fromkeys(thing.keys, value))
        self.push(value)


def _items(values: list[Any]) -> dict[Any, Any]:
    require(len(values) % 2 == 0, "a key without a value")
    keys = values[::2]
    require(all(type(key) in (str, bytes, int) for key in keys), "a key of no text or number")
    return dict(zip(keys, values[1::2], strict=True))


def _integer(line: bytes) -> int:
    return line == b"01" if line in (b"00", b"01") else int(line)


def _quoted(line: bytes) -> bytes:
    require(len(line) > 1 and line[:1] == line[-1:] and line[:1] in b"'\"", "a text of no quotes")
    content: bytes = codecs.escape_decode(line[1:-1])[0]
    return content


_Operation = Callable[[_Machine], Any]

#: What each operation does; the comment names it.
_OPERATIONS: dict[bytes, _Operation] = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME
    # Values.
    b"N": lambda m: m.push(None),  # NONE
    b"\x88": lambda m: m.push(True),  # NEWTRUE
    b"\x89": lambda m: m.push(False),  # NEWFALSE
    b"I": lambda m: m.push(_integer(m.line())),  # INT
    b"J": lambda m: m.push(m.number("<i")),  # BININT
    b"K": lambda m: m.push(m.number("<B")),  # BININT1
    b"M": lambda m: m.push(m.number("<H")),  # BININT2
    b"L": lambda m: m.push(int(m.line().rstrip(b"L"))),  # LONG
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"F": lambda m: m.push(float(m.line())),  # FLOAT
    b"G": lambda m: m.push(m.number(">d")),  # BINFLOAT
    b"S": lambda m: m.push(_quoted(m.line())),  # STRING
    b"T": lambda m: m.push(m.take(m.number("<i"))),  # BINSTRING
    b"U": lambda m: m.push(m.take(m.number("<B"))),  # SHORT_BINSTRING
    b"B": lambda m: m.push(m.take(m.number("<I"))),  # BINBYTES
    b"C": lambda m: m.push(m.take(m.number("<B"))),  # SHORT_BINBYTES
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),  # BINBYTES8
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),  # UNICODE
    b"X": lambda m: m.push(m.take(m.number("<I")).decode()),  # BINUNICODE
    b"\x8c": lambda m: m.push(m.take(m.number("<B")).decode()),  # SHORT_BINUNICODE
    # Containers.
    b"(": lambda m: m.mark(),  # MARK
    b"0": lambda m: m.pop(),  # POP
    b"1": lambda m: m.since_mark(),  # POP_MARK
    b")": lambda m: m.push(()),  # EMPTY_TUPLE
    b"t": lambda m: m.push(tuple(m.since_mark())),  # TUPLE
    b"\x85": lambda m: m.push(m.popped(1)),  # TUPLE1
    b"\x86": lambda m: m.push(m.popped(2)),  # TUPLE2
    b"\x87": lambda m: m.push(m.popped(3)),  # TUPLE3
    b"]": lambda m: m.push([]),  # EMPTY_LIST
    b"l": lambda m: m.push(m.since_mark()),  # LIST
    b"a": lambda m: m.extend([m.pop()]),  # APPEND
    b"e": lambda m: m.extend(m.since_mark()),  # APPENDS
    b"}": lambda m: m.push({}),  # EMPTY_DICT
    b"d": lambda m: m.push(_items(m.since_mark())),  # DICT
    b"s": lambda m: m.update(list(m.popped(2))),  # SETITEM
    b"u": lambda m: m.update(m.since_mark()),  # SETITEMS
    # The memo.
    b"p": lambda m: m.put(int(m.line())),  # PUT
    b"q": lambda m: m.put(m.number("<B")),  # BINPUT
    b"r": lambda m: m.put(m.number("<I")),  # LONG_BINPUT
    b"\x94": lambda m: m.put(len(m.memo)),  # MEMOIZE
    b"g": lambda m: m.push(m.memo[int(m.line())]),  # GET
    b"h": lambda m: m.push(m.memo[m.number("<B")]),  # BINGET
    b"j": lambda m: m.push(m.memo[m.number("<I")]),  # LONG_BINGET
    # Names.
    b"c": lambda m: m.find(m.line(), m.line()),  # GLOBAL
    b"\x93": lambda m: m.find(*m.popped(2)),  # STACK_GLOBAL
    b"R": lambda m: m.call(),  # REDUCE
    b"\x81": lambda m: m.call(),  # NEWOBJ
    b"b": lambda m: m.build(),  # BUILD
}


def read_pickle(path: Path, names: Names = ARRAYS) -> Any:  # noqa: ANN401
    """Read a pickle of built-in containers, numbers, texts and what ``names`` permits.

    Texts of Python 2 are bytes; arrays cannot be written.

    Raises:
        DataError: The file is truncated, corrupt, too large, or asks for a name that is not
            permitted.
    """
    try:
        with reading(path, DataError), path.open("rb") as stream:
            size = path.stat().st_size
            require(size <= LARGEST, f"it has {size:,} bytes")
            return _Machine(stream, size, names).run()
    except MalformedError as error:
        remedy = "it is not the published file: delete it"
        raise DataError(path, f"is truncated or corrupt ({error})", remedy) from error
    except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
        reason = f"is truncated or corrupt ({type(error).__name__}: {error})"
        raise DataError(path, reason, _AGAIN) from error
