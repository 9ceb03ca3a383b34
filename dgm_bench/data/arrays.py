"""Readers of files of arrays (idx, npy, npz, HDF5), and what they refuse.

What a header declares is compared with the file before memory is taken.
"""

from __future__ import annotations

import gzip
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num, UInt8

from dgm_bench.errors import DataError, DgmBenchError, reading

if TYPE_CHECKING:
    import h5py

#: Bytes: more than any published array has (BSDS300's training rows, 0.5 GB).
LARGEST = 600_000_000
#: How many times deflate makes bytes fewer at best (zlib's "technical details").
RATIO = 1032
#: Filters of HDF5 that chunks may have passed: deflate, shuffle, Fletcher's checksum; and the
#: largest chunk, as h5py chooses it, with what deflate adds at most.
FILTERS, LARGEST_CHUNK, ADDED = (1, 2, 3), 2**20, 1024
_OF = {1: "labels", 3: "images"}
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def broken(path: Path, reason: str) -> DataError:
    """Return the error of a file that is not as its publisher gave it."""
    return DataError(path, reason, "delete it and fetch it again")


def _corrupt(path: Path, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0][:200] or type(error).__name__
    return broken(path, f"is truncated or corrupt ({reason})")


@contextmanager
def decoding(
    path: Path, explained: Callable[[Path, Exception], DataError] = _corrupt
) -> Iterator[None]:
    """Turn what goes wrong while a file is read into an error of it.

    Args:
        path: The file.
        explained: Makes the error of what a reader raised on another.

    Raises:
        DataError: It cannot be read, or is truncated or corrupt: then readers can raise anything.
    """
    try:
        with reading(path, DataError):
            yield
    except DgmBenchError:
        raise
    except MemoryError as error:
        raise DataError(path, "does not fit into memory", "use a larger machine") from error
    except Exception as error:
        raise explained(path, error) from error


def require_room(path: Path, declared: int, packed: int) -> None:
    """Refuse a file that declares more bytes than it can hold, or than any published one has.

    Args:
        path: The file.
        declared: Bytes of an array.
        packed: Bytes that it takes in the file, perhaps deflated.

    Raises:
        DataError: It does.
    """
    if declared > min(RATIO * packed, LARGEST):
        raise broken(path, f"declares {declared:,} bytes, more than it can hold")


def require_finite(
    path: Path, table: Num[np.ndarray, "rows columns"], names: Sequence[str] = ()
) -> None:
    """Refuse numbers that are not finite.

    Args:
        path: The file that they are from.
        table: Its rows.
        names: Of the columns, where they have some.

    Raises:
        DataError: It names the first one's row and column, both counted from 1.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(table.sum(dtype=np.float64)):  # in less time and memory than each of them
            return
    wrong = ~np.isfinite(table)
    if wrong.any():
        row, column = (int(places[0]) for places in wrong.nonzero())
        name = f"{column + 1} ({names[column]})" if names else f"{column + 1}"
        raise broken(path, f"row {row + 1:,}, column {name} is {table[row, column]}")


# ---------------------------------------------------------------------------------- idx


def read_idx(path: Path, axes: int = 3) -> UInt8[np.ndarray, "*shape"]:
    """Read a gzipped idx file of unsigned bytes.

    Args:
        path: The file.
        axes: How many dimensions it must have: three of images, one of labels.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    with decoding(path), gzip.open(path) as stream:
        header = stream.read(4 + 4 * axes)
        if len(header) < 4 + 4 * axes or header[:4] != bytes([0, 0, 8, axes]):
            raise broken(path, f"is not an idx file of {_OF[axes]}")
        shape = tuple(int(length) for length in np.frombuffer(header[4:], dtype=">u4"))
        require_room(path, math.prod(shape), path.stat().st_size)
        content = stream.read(math.prod(shape) + 1)
        if len(content) != math.prod(shape):
            raise broken(
                path, f"is not an idx file of {_OF[axes]}: it has not the bytes it declares"
            )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


# ----------------------------------------------------------------------------- npy, npz


def read_npy(path: Path) -> Num[np.ndarray, "*shape"]:
    """Read an array of numbers; never unpickles.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    with decoding(path), path.open("rb") as stream:
        return _npy(path, stream, path.stat().st_size)


def read_npz(path: Path, *keys: str) -> list[Num[np.ndarray, "*shape"]]:
    """Read arrays of numbers from a zip file of them.

    Raises:
        DataError: The file is truncated, corrupt or of another layout, or lacks one.
    """
    found = []
    with decoding(path), zipfile.ZipFile(path) as archive:
        for key in keys:
            member = archive.getinfo(f"{key}.npy")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise broken(path, f"{key} is packed in an unknown way")
            require_room(path, member.file_size, member.compress_size)
            with archive.open(member) as stream:
                found.append(_npy(path, stream, member.file_size))
    return found


def _npy(path: Path, stream: Any, size: int) -> Num[np.ndarray, "*shape"]:  # noqa: ANN401
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise broken(path, f"is of version {version} of the npy format, expected 1.0 or 2.0")
    shape, by_columns, dtype = _HEADERS[version](stream)
    if dtype.kind not in "biuf":
        raise broken(path, f"holds {dtype}, expected numbers")
    declared, left = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if declared != left or min(shape, default=0) < 0:
        raise broken(path, f"declares {declared:,} bytes and has {left:,}: truncated or corrupt")
    array = np.empty(math.prod(shape), dtype)
    if stream.readinto(array.view(np.uint8)) != declared:
        raise broken(path, "is truncated")
    return array.reshape(shape, order="F" if by_columns else "C")


# --------------------------------------------------------------------------------- HDF5


def read_hdf5(path: Path, *keys: str) -> list[Num[np.ndarray, "*shape"]]:
    """Read arrays of numbers that an HDF5 file holds itself.

    Raises:
        DataError: The file is truncated, corrupt or of another layout, or lacks one.
    """
    import h5py

    # What the system says to Python fits into a line.
    with decoding(path), path.open("rb"), h5py.File(path, "r") as stored:
        found = []
        for key in keys:
            if not isinstance(stored.get(key, getlink=True), h5py.HardLink):
                raise broken(path, f"is of another layout: it holds no {key!r}")
            _require_plain(path, key, stored[key])
            found.append(stored[key][:])
        return found


def _require_plain(path: Path, key: str, item: h5py.Dataset) -> None:
    """Refuse what is no array of numbers in this file, or declares more than it can hold."""
    import h5py

    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf" or not item.shape:
        raise broken(path, f"{key!r} is no array of numbers")
    if item.is_virtual or item.external:
        raise broken(path, f"{key!r} lies in another file")
    require_room(path, item.nbytes, item.id.get_storage_size())
    plist = item.id.get_create_plist()
    if not plist.get_nfilters():
        return
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    chunk = math.prod(item.chunks) * item.dtype.itemsize
    stored = [item.id.get_chunk_info(number).size for number in range(item.id.get_num_chunks())]
    if not set(filters) <= set(FILTERS) or max(chunk, *stored) > LARGEST_CHUNK + ADDED:
        raise broken(path, f"{key!r} is packed in an unknown way")
