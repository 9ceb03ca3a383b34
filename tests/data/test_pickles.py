"""Pickles are read as data: like Python's own where they are plain, and never as programs."""

import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dgm_bench.data.frames import read_frame
from dgm_bench.data.pickles import read_pickle
from dgm_bench.errors import DataError

#: Old protocols have no bytes, and make none where they are empty by yet another name.
BYTES = st.binary(min_size=1, max_size=300)
KEYS = st.one_of(st.text(max_size=8), BYTES, st.integers())
NUMBERS = st.one_of(st.integers(-(2**900), 2**900), st.floats(allow_nan=False), st.booleans())
PLAIN = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(), BYTES),
    lambda parts: st.one_of(
        st.lists(parts), st.lists(parts).map(tuple), st.dictionaries(KEYS, parts, max_size=4)
    ),
    max_leaves=12,
)
TYPES = st.sampled_from(("u1", "<i2", ">i4", "<f4", ">f8", "b1"))
ARRAYS = arrays.arrays(TYPES, arrays.array_shapes(max_dims=3, max_side=4))
#: The end of an array that has a type, given by what stands before its last argument.
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"


class Exploit:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles") / "some.pkl"


def read(path, content, by=read_pickle):
    path.write_bytes(content)
    return by(path)


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(PLAIN, st.integers(0, 4))
def test_plain_data_are_what_python_reads(path, value, protocol):
    content = pickle.dumps(value, protocol)
    assert repr(read(path, content)) == repr(pickle.loads(content))


@settings(max_examples=20, deadline=None, database=None, derandomize=True)
@given(ARRAYS, st.integers(0, 4), st.booleans())
def test_arrays_are_what_numpy_wrote_also_where_they_occur_twice(path, array, protocol, turned):
    array = array.T if turned else array
    found, again = read(path, pickle.dumps([array, array], protocol))
    assert found is again
    assert found.dtype == array.dtype
    assert np.array_equal(found, array, equal_nan=True)


def dtype(code, state):
    return (
        b"cnumpy\ndtype\n(X" + struct.pack("<I", len(code)) + code + b"K\x00K\x01tR" + state + b"b"
    )


def array(code, content, state=b"(K\x03C\x01|NNNK\x00K\x00K\x00t", shape=b"(K\x01t"):
    """An array of one value, with its type and content as they are given."""
    return b"\x80\x03" + ARRAY + b"(K\x01" + shape + dtype(code, state) + b"\x89" + content + b"tb."


EIGHT = b"C\x08" + b"A" * 8
PARTS = b"(K\x03C\x01|NC\x01aNK\x00K\x00K\x00t"
HOSTILE = {
    "objects in a buffer": (pickle.dumps(Exploit(np.ndarray, (1,), "O", b"A" * 8)), "be called"),
    "objects from bytes": (array(b"O8", EIGHT), "bytes where list belongs"),
    "a type of parts": (array(b"V8", EIGHT, PARTS), "type of several parts"),
    "objects in parts": (array(b"O8", EIGHT, PARTS), "type of several parts"),
    "a type of dates": (array(b"M8", EIGHT), "not of numbers"),
    "too large a shape": (array(b"u1", EIGHT, shape=b"(J\xff\xff\xff\x7ft"), "of another size"),
    "a negative shape": (array(b"u1", EIGHT, shape=b"(J\xff\xff\xff\xfft"), "of no shape"),
    "a state for a class": (b"cnumpy\nndarray\n}b.", "state of what has none"),
    "a state for a list": (b"]}b.", "state of what has none"),
    "a codec": (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00ziptR.", "encoding"),
    "a long text": (b"\x80\x04\x8e" + struct.pack("<Q", 2**46) + b"a", "ends too early"),
    "a negative length": (b"T" + struct.pack("<i", -5) + b"aaaaaaa.", "ends too early"),
    "many values": (b"(" + b"]" * 1_100 + b"t.", "more than 1,000 values"),
    "a text again and again": (
        b"c_codecs\nencode\nq\x00X\x80\x00\x00\x00"
        + b"a" * 128
        + b"q\x01X\x06\x00\x00\x00latin1q\x02"
        b"(" + b"h\x00h\x01h\x02\x86R" * 100 + b"t.",
        "text that is repeated",
    ),
    "a key that is deep": (b"})" + b"\x85" * 900 + b"Ns.", "key of no text"),
    "an extension": (b"\x82\x01.", "operation"),
    "an instance": (b"(ios\nsystem\n.", "operation"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_published_pickle_does_is_refused_without_taking_memory(case, path, monkeypatch):
    monkeypatch.setattr("dgm_bench.data.pickles.MOST_VALUES", 1_000)
    content, says = HOSTILE[case]
    for by in (read_pickle, read_frame):
        tracemalloc.start()
        with pytest.raises(DataError, match=says):
            read(path, content, by)
        assert tracemalloc.get_traced_memory()[1] < 2**26
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("exploit", "name"),
    [
        (Exploit(os.mkdir, "pwned"), r"\w+\.mkdir"),
        (Exploit(np.memmap, "pwned", "uint8", "w+", 0, (1,)), r"numpy\.memmap"),
        (Exploit(np.arange, 3), r"numpy\.arange"),
    ],
    ids=["os", "file-of-numpy", "numpy"],
)
def test_a_pickle_that_asks_for_code_is_refused_and_runs_nothing(
    exploit, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.pkl"
    path.write_bytes(pickle.dumps(exploit))
    for read in (read_frame, read_pickle):
        with pytest.raises(DataError, match=f"forbidden global {name}"):
            read(path)
    assert not Path("pwned").exists()


def test_an_array_that_is_right_passes_the_same_way(path):
    """So that the cases above are refused for what is wrong with them."""
    assert read(path, array(b"u8", EIGHT)).tobytes() == b"A" * 8
    labels = array(b"O8", b"](K\x05e")
    assert read(path, labels) == [5]


def test_a_list_that_holds_itself_is_no_trouble(path):
    found = read(path, b"]q\x00h\x00a.")
    assert found[0] is found


def test_a_pickle_larger_than_any_published_is_not_read(path, monkeypatch):
    monkeypatch.setattr("dgm_bench.data.pickles.LARGEST", 10)
    with pytest.raises(DataError, match="it has 14 bytes"):
        read(path, pickle.dumps(b"0123456789")[:14])
