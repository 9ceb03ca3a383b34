"""Damaged forms of a sample: what disks, networks and attackers make of a file."""

import struct

from hypothesis import strategies as st

#: Integers that sizes, counts and offsets break at.
BOUNDARIES = sorted(
    {
        sign * (2**bits + step)
        for bits in (0, 7, 8, 15, 16, 31, 32, 46, 63)
        for step in (-1, 0, 1)
        for sign in (1, -1)
    }
)
#: What opens a level of nesting: JSON, TOML, pickles, HDF5 and MATLAB do with less.
OPENERS = (b"[", b'{"a":', b"a=[", b"a.", b"(", b"]\x94", b"}", b"\x85")
#: Texts that numbers, names and paths break at.
WORDS = (b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"../../x", b"\x00", b"\xff", b"\n", b"None")


def flip(data: bytes, at: int, bit: int) -> bytes:
    """Flip one bit."""
    if not data:
        return data
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def cut(data: bytes, at: int, _: int) -> bytes:
    """Keep the beginning."""
    return data[: at % (len(data) + 1)]


def delete(data: bytes, at: int, length: int) -> bytes:
    """Take a part out."""
    at %= len(data) + 1
    return data[:at] + data[at + length :]


def copy(data: bytes, at: int, other: int) -> bytes:
    """Put a part of the file in another place of it."""
    at, other = at % (len(data) + 1), other % (len(data) + 1)
    return data[:at] + data[other : other + 40] + data[at:]


def place(data: bytes, at: int, what: bytes) -> bytes:
    """Write over what is there."""
    at %= len(data) + 1
    return data[:at] + what + data[at + len(what) :]


def insert(data: bytes, at: int, what: bytes) -> bytes:
    """Put between what is there."""
    at %= len(data) + 1
    return data[:at] + what + data[at:]


def _packed(number: int) -> st.SearchStrategy[bytes]:
    """The number in every binary form that holds it, and in decimals."""
    forms = [str(number).encode()]
    for code in "bhiqBHIQ":
        try:
            forms += [struct.pack(order + code, number) for order in "<>"]
        except struct.error:
            continue
    return st.sampled_from(forms)


_WHERE = st.integers(0, 2**16)
_NUMBERS = st.sampled_from(BOUNDARIES).flatmap(_packed)
#: The deepest is what recursion in C breaks at, and rare, since reading it takes long.
_DEPTHS = (*[2, 200] * 5, 100_000)
_NESTS = st.builds(bytes.__mul__, st.sampled_from(OPENERS), st.sampled_from(_DEPTHS))
_BYTES = st.one_of(_NUMBERS, st.sampled_from(WORDS), st.binary(min_size=1, max_size=8))
_EDITS = st.one_of(
    st.tuples(st.just(flip), _WHERE, st.integers(0, 7)),
    st.tuples(st.sampled_from((cut, delete, copy)), _WHERE, _WHERE),
    st.tuples(st.sampled_from((place, insert)), _WHERE, _BYTES),
    st.tuples(st.just(place), _WHERE, _NUMBERS),
    st.tuples(st.just(insert), _WHERE, _NESTS),
)


def _applied(data: bytes, edits: list[tuple]) -> bytes:
    for edit, at, how in edits:
        data = edit(data, at, how)
    return data


def mutants(sample: bytes) -> st.SearchStrategy[bytes]:
    """Return forms of a sample with one to four faults, and now and then random bytes."""
    damaged = st.lists(_EDITS, min_size=1, max_size=4).map(lambda edits: _applied(sample, edits))
    return st.integers(0, 19).flatmap(lambda n: damaged if n else st.binary(max_size=200))
