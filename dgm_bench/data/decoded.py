"""Image files decoded once into one array of bytes on disk, from which splits are mapped.

ImageNet at 256x256 takes 260 GB: more than memory holds, and too slow to decode in every epoch.
The array and its index lie in ``decoded/<set>/<key>`` below the data root. The key covers path,
size and time of change of every file, so that a changed folder is decoded anew. An array grows in
a folder ``<key>.part``, which gets its final name when it is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from dgm_bench.data.dataset import begun_fingerprint
from dgm_bench.data.files import Listed
from dgm_bench.errors import DataError

#: Turns an open image into one of the array's size and mode, and names what it did to it.
Prepare = Callable[[Image.Image, Path], tuple[Image.Image, tuple[str, ...]]]

ARRAY, INDEX = "images.u8", "index.json"
_AT_A_TIME = 256


@dataclass(frozen=True)
class Source:
    """Image files in the order of the array.

    Attributes:
        name: What they are and how they are prepared; part of the key.
        home: The folder that their paths are relative to.
        splits: The files of each split.
        shape: ``(channels, height, width)`` of a prepared image.
        prepare: Makes an image one of that shape; its threads run it at the same time.
    """

    name: str
    home: Path
    splits: Mapping[str, Sequence[Listed]]
    shape: tuple[int, int, int]
    prepare: Prepare

    @property
    def key(self) -> str:
        """A short hash that changes with the files, their order and the preparation."""
        digest = hashlib.sha256(f"{self.name} {self.shape}\n".encode())
        for split, files in self.splits.items():
            lines = "".join(f"{file.path} {file.size} {file.mtime_ns}\n" for file in files)
            digest.update(f"{split} {len(files)}\n{lines}".encode())
        return digest.hexdigest()[:16]

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return sum(map(len, self.splits.values())) * math.prod(self.shape)


@dataclass(frozen=True)
class Decoded:
    """Splits mapped from disk, read only, and what was found while they were written.

    Attributes:
        splits: Bytes of shape ``(n, channels, height, width)``; selecting rows reads only these.
        fingerprints: As :meth:`Dataset.fingerprints` gives them.
        files: For each split, SHA-256 over the SHA-256 and paths of its files in their order.
        treated: How many images were treated in which way by ``Source.prepare``.
    """

    splits: dict[str, Tensor]
    fingerprints: dict[str, str]
    files: dict[str, str]
    treated: dict[str, int]


def decoded(source: Source, cache: Path) -> Decoded:
    """Return the images of a folder, decoding them first where that was not done before.

    Args:
        source: The files.
        cache: The set's folder of arrays.

    Raises:
        DataError: An image cannot be used, the disk has no room, or the folder is not writable.
    """
    place = cache / source.key
    try:
        if not _is_whole(place, source):
            with _locked(cache):
                if not _is_whole(place, source):
                    _write(source, place)
    except OSError as error:
        remedy = "make it writable, or name another data root in DGM_BENCH_DATA"
        raise DataError(cache, f"cannot be written ({error})", remedy) from error
    index = json.loads((place / INDEX).read_text())
    return Decoded(splits=_mapped(place / ARRAY, source), **index)


@contextmanager
def opened(path: Path, stream: io.BytesIO | None = None) -> Iterator[Image.Image]:
    """Open an image, from ``stream`` where its bytes are read already.

    Raises:
        DataError: It is truncated or is not an image; also when that shows only later.
    """
    try:
        with Image.open(stream or path) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # a corrupt image can raise anything
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else str(error) or type(error).__name__
        remedy = "replace it, or take it out of the folder"
        raise DataError(path, f"is not a readable image ({reason})", remedy) from error


# -------------------------------------------------------------------------------- the cache


def _is_whole(place: Path, source: Source) -> bool:
    array = place / ARRAY
    try:
        json.loads((place / INDEX).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return array.is_file() and array.stat().st_size == source.size


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when a process ends."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(source: Source, place: Path) -> None:
    """Decode everything into a temporary folder and move it into place: all of it or nothing."""
    part = place.with_name(f"{place.name}.part")
    _remove_others(part.parent, keep=None, suffix=".part")
    _require_space(source, place)
    part.mkdir()
    try:
        index = _write_array(source, part / ARRAY)
        (part / INDEX).write_text(json.dumps(index))
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _remove_others(place.parent, keep=place)


def _remove_others(cache: Path, keep: Path | None, suffix: str = "") -> None:
    """Remove remains of killed processes, and arrays of folders that have changed since."""
    for other in cache.iterdir():
        if other.is_dir() and other != keep and other.name.endswith(suffix):
            shutil.rmtree(other, ignore_errors=True)


def _require_space(source: Source, place: Path) -> None:
    free = shutil.disk_usage(place.parent).free
    if free < source.size:
        reason = f"decoding needs {source.size / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free"
        remedy = f"free some, or make {place.parent} a link to a folder of a larger disk"
        raise DataError(place.parent, reason, remedy)


def _mapped(path: Path, source: Source) -> dict[str, Tensor]:
    """Return the splits, mapped read-only: writable mappings count as memory."""
    sizes = [len(files) for files in source.splits.values()]
    array = np.memmap(path, dtype=np.uint8, mode="r", shape=(sum(sizes), *source.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nobody writes into splits
        whole = torch.from_numpy(array)
    return dict(zip(source.splits, whole.split(sizes), strict=True))


# -------------------------------------------------------------------------------- decoding


def _write_array(source: Source, path: Path) -> dict[str, dict[str, str] | dict[str, int]]:
    """Write all images, and return the index."""
    fingerprints, digests, treated = {}, {}, Counter[str]()
    total = sum(map(len, source.splits.values()))
    with (
        path.open("wb") as stream,
        ThreadPoolExecutor() as pool,  # Pillow decodes and resizes outside of Python's lock
        tqdm(desc=f"decoding {source.name}", total=total, disable=not sys.stderr.isatty()) as bar,
    ):
        for split, files in source.splits.items():
            fingerprint = begun_fingerprint(torch.uint8, (len(files), *source.shape))
            digest = hashlib.sha256()
            for sha256, name, levels, done in _decode_all(source, files, pool):
                stream.write(levels)
                fingerprint.update(levels)
                digest.update(f"{sha256}  {name}\n".encode())
                treated.update(done)
                bar.update()
            fingerprints[split], digests[split] = fingerprint.hexdigest(), digest.hexdigest()
        stream.flush()
        os.fsync(stream.fileno())
    return {"fingerprints": fingerprints, "files": digests, "treated": dict(treated)}


def _decode_all(
    source: Source, files: Sequence[Listed], pool: ThreadPoolExecutor
) -> Iterator[tuple[str, str, bytes, tuple[str, ...]]]:
    """Return SHA-256, path, bytes and treatment of each file, in order, a few at a time."""
    for start in range(0, len(files), _AT_A_TIME):
        some = files[start : start + _AT_A_TIME]
        yield from pool.map(lambda file: _decode(source, file), some)


def _decode(source: Source, file: Listed) -> tuple[str, str, bytes, tuple[str, ...]]:
    path = source.home / file.path
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error})", "make it readable") from error
    with opened(path, io.BytesIO(raw)) as image:
        prepared, done = source.prepare(image, path)
        levels: UInt8[np.ndarray, "channels height width"]
        levels = np.asarray(prepared).transpose(2, 0, 1)
    if levels.shape != source.shape or levels.dtype != np.uint8:
        raise DataError(path, f"gave {levels.dtype} of {levels.shape}", "replace it")
    return hashlib.sha256(raw).hexdigest(), file.path, levels.tobytes(), done
