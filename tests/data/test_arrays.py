"""Readers of arrays: like NumPy's and SciPy's own, and never more memory than the file has."""

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dgm_bench.data import tabular
from dgm_bench.data.arrays import read_hdf5, read_idx, read_npy, read_npz, require_finite
from dgm_bench.data.matlab import read_mat
from dgm_bench.errors import DataError

TYPES = st.sampled_from(("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))
ARRAYS = arrays(TYPES, array_shapes(min_dims=2, max_dims=3, max_side=4))
FEW = settings(max_examples=25, deadline=None, database=None, derandomize=True)
MANY = 2**26


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("arrays") / "some file"


# -------------------------------------------------------------------------------- oracles


@FEW
@given(ARRAYS, st.booleans(), st.sampled_from("<>"))
def test_npy_and_npz_are_what_numpy_wrote(path, array, turned, order):
    array = (array.T if turned else array).astype(array.dtype.newbyteorder(order))
    with path.open("wb") as stream:
        np.save(stream, array)
    found = [read_npy(path)]
    for save in (np.savez, np.savez_compressed):
        with path.open("wb") as stream:
            save(stream, array=array)
        found += read_npz(path, "array")
    for one in found:
        assert one.dtype == array.dtype
        assert np.array_equal(one, array, equal_nan=array.dtype.kind == "f")
        assert one.flags.writeable


@FEW
@given(ARRAYS, ARRAYS, st.booleans())
def test_mat_is_what_scipy_reads(path, one, other, packed):
    stored = {"one": one, "a long name of something": other, "text": "words", "cells": [1, "a"]}
    with path.open("wb") as stream:
        scipy.io.savemat(stream, stored, do_compression=packed)
    expected = scipy.io.loadmat(path.open("rb"))
    found = read_mat(path, "one", "a long name of something", "missing")
    assert set(found) == {"one", "a long name of something"}
    for name, array in found.items():
        assert np.array_equal(array, expected[name], equal_nan=array.dtype.kind == "f")


def test_mat_of_another_order_of_bytes_is_read(path):
    """As a Sun or a PowerPC wrote it: by hand, since SciPy writes the machine's order."""

    def element(kind, content):
        return struct.pack(">2I", kind, len(content)) + content + bytes(-len(content) % 8)

    parts = element(6, struct.pack(">2I", 6, 0)) + element(5, struct.pack(">2i", 2, 1))
    parts += struct.pack(">2H", 1, 1) + b"x\0\0\0" + element(9, struct.pack(">2d", 1.5, -2))
    path.write_bytes(b"x" * 124 + struct.pack(">H", 0x100) + b"MI" + element(14, parts))
    assert read_mat(path, "x")["x"].tolist() == [[1.5], [-2]]
    assert scipy.io.loadmat(path.open("rb"))["x"].tolist() == [[1.5], [-2]]


# ------------------------------------------------- headers that declare more than there is


def npy(shape, descr="<f8", content=b""):
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


def zipped(content, **settings):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **settings) as archive:
        archive.writestr("array.npy", content)
    return stream.getvalue()


def idx(*shape):
    return gzip.compress(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape))


def mat(content):
    return bytes(124) + struct.pack("<H", 0x100) + b"IM" + content


def deflated(kind, length, content=b""):
    packed = zlib.compress(struct.pack("<2I", kind, length) + content)
    return mat(struct.pack("<2I", 15, len(packed)) + packed)


def hdf5(**settings):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as stored:
        stored.create_dataset("array", **settings)
    return stream.getvalue()


def linked():
    stream = io.BytesIO()
    with h5py.File(stream, "w") as stored:
        stored["array"] = h5py.ExternalLink("other", "array")
    return stream.getvalue()


def virtual():
    stream = io.BytesIO()
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("other", "array", (4,))
    with h5py.File(stream, "w") as stored:
        stored.create_virtual_dataset("array", layout)
    return stream.getvalue()


READERS = {
    "npy": read_npy,
    "npz": lambda path: read_npz(path, "array"),
    "idx": read_idx,
    "mat": lambda path: read_mat(path, "array"),
    "hdf5": lambda path: read_hdf5(path, "array"),
}
ZEROS = bytes(MANY)
HOSTILE = {
    "npy of 64 TB": (npy((2**43,)), "declares 70,368,744,177,664 bytes and has 0"),
    "npy of less than nothing": (npy((-1, -4), content=bytes(32)), "truncated or corrupt"),
    "npy of objects": (npy((1,), "|O", bytes(8)), "expected numbers"),
    "npy of parts": (npy((1,), [("a", "<f8")], bytes(8)), "expected numbers"),
    "npz of 64 TB": (zipped(npy((2**43,))), "declares 70,368,744,177,664 bytes"),
    "npz packed by bzip2": (zipped(npy(()), compression=zipfile.ZIP_BZIP2), "unknown way"),
    "idx of 64 TB": (idx(2**15, 2**15, 2**16), "more than it can hold"),
    "idx of more than there is": (idx(2, 2, 2), "not an idx file of images: it has not the bytes"),
    "mat of 4 GB": (mat(struct.pack("<2I", 14, 2**32 - 8)), "longer than the file"),
    "mat deflated from 4 GB": (deflated(14, 2**32 - 8), "more than it can hold"),
    "mat that goes on": (deflated(14, 16, ZEROS), "deflated element is no matrix"),
    "hdf5 of 64 TB": (hdf5(shape=(2**43,), dtype="f8", chunks=(1,)), "more than it can hold"),
    "hdf5 in another file": (linked(), "holds no 'array'"),
    "hdf5 made of other files": (virtual(), "lies in another file"),
    "hdf5 in large chunks": (
        hdf5(data=np.zeros(2**19), chunks=(2**19,), compression="gzip"),
        "packed in an unknown way",
    ),
    "hdf5 of texts": (hdf5(data=[b"words"]), "no array of numbers"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_file_cannot_hold_is_refused_before_memory_is_taken(case, path):
    content, says = HOSTILE[case]
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError, match=says) as refusal:
        READERS[case.split()[0]](path)
    assert tracemalloc.get_traced_memory()[1] < MANY // 2
    tracemalloc.stop()
    assert "\n" not in str(refusal.value)


def test_external_storage_of_hdf5_is_not_followed(path, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(80)))
    with h5py.File(path, "w") as stored:
        external = [(str(tmp_path / "secret"), 0, 80)]
        stored.create_dataset("array", (10,), "f8", external=external)
    with pytest.raises(DataError, match="lies in another file"):
        read_hdf5(path, "array")


def test_a_file_that_may_not_be_read_is_not_called_corrupt(tmp_path):
    for read in READERS.values():
        with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
            read(tmp_path)


# -------------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_named_by_row_and_column(value, path):
    table = np.ones((40, 3))
    require_finite(path, table)
    table[30:, 1] = value
    with pytest.raises(DataError, match=rf"row 31, column 2 is {value}; delete"):
        require_finite(path, table)
    with pytest.raises(DataError, match=rf"row 31, column 2 \(b\) is {value}"):
        require_finite(path, table, ["a", "b", "c"])


def test_large_numbers_whose_sum_is_infinite_are_numbers(path):
    require_finite(path, np.full((4, 4), 1e308))


def test_numbers_that_are_none_are_found_in_every_table(tmp_path):
    for folder in ("power", "miniboone", "hepmass", "BSDS300"):
        (tmp_path / folder).mkdir()
    rows = np.ones((20, 8))
    rows[4, 2] = np.nan
    for name in ("power", "miniboone"):
        np.save(tmp_path / name / "data.npy", rows)
    lines = ["# label,f0,f1", *["1,0.5,0.5"] * 7, "1,nan,0.5"]
    (tmp_path / "hepmass/1000_train.csv").write_text("\n".join(lines))
    with h5py.File(tmp_path / "BSDS300/BSDS300.hdf5", "w") as stored:
        for key in ("train", "validation", "test"):
            stored[key] = rows
    for name, place in {
        "power": "row 5, column 3 is nan",
        "miniboone": "row 5, column 3 is nan",
        "hepmass": r"row 8, column 2 \(f0\) is nan",
        "bsds300": "row 5, column 3 is nan",
    }.items():
        with pytest.raises(DataError, match=place):
            tabular.PREPARE[name](tmp_path)
