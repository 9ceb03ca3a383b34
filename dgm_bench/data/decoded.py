"""Image files decoded once into one array of bytes on disk, from which splits are mapped.

ImageNet at 256x256 takes 260 GB: more than memory holds, and too slow to decode in every epoch.
The array and its index lie in ``decoded/<set>/<key>`` below the data root. The key covers path,
size and time of change of every file, so that a changed folder is decoded anew. An array grows in
a folder ``<key>.part``, which gets its final name when it is whole. Beside the array grows a list
of what is in it, with digests: a process that is stopped or killed leaves what it has decoded to
the next one, and from where something is damaged on, images are decoded again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dgm_bench.control import ask
from dgm_bench.data.dataset import begun_fingerprint
from dgm_bench.data.files import Listed, as_bytes
from dgm_bench.data.image_files import opened
from dgm_bench.errors import DataError, ResultsError, reading
from dgm_bench.locks import holding
from dgm_bench.sealed import read_sealed, write_sealed

#: Turns an open image into one of the array's size and mode, and names what it did to it.
Prepare = Callable[[Image.Image, Path], tuple[Image.Image, tuple[str, ...]]]

ARRAY, LIST, INDEX = "images.u8", "images.list", "index.json"
_LOG = logging.getLogger("dgm_bench")
_AT_A_TIME = 256
#: Bytes read between two questions whether to stop.
_CHUNK = 1 << 26
#: What is done where something is damaged.
_INSTEAD = "what is damaged is decoded again"


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
            digest.update(as_bytes(f"{split} {len(files)}\n{lines}"))
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
        Interrupted: It is time to stop; what is decoded by then is kept.
    """
    try:
        index = _whole(cache / source.key, source) or _written(source, cache)
    except (OSError, ResultsError) as error:
        reason = error.reason if isinstance(error, ResultsError) else f"cannot be written ({error})"
        remedy = "make it writable, or name another data root in DGM_BENCH_DATA"
        raise DataError(cache, reason, remedy) from error
    return Decoded(splits=_mapped(cache / source.key / ARRAY, source), **index)


# -------------------------------------------------------------------------------- the cache


def _whole(place: Path, source: Source) -> dict[str, Any] | None:
    """Return the index of an array that is whole, every byte of it, or None."""
    if not place.is_dir():
        return None
    content = read_sealed(place / INDEX, _INSTEAD)
    if content is None:
        return None
    index: dict[str, Any] = json.loads(content)
    try:
        with (place / ARRAY).open("rb") as stream:
            found = _fingerprints(stream, source)
    except FileNotFoundError:
        return None
    if found == index["fingerprints"]:
        return index
    _LOG.warning("%s: is damaged (its SHA-256 is another); %s", place / ARRAY, _INSTEAD)
    (place / INDEX).unlink(missing_ok=True)
    return None


def _fingerprints(stream: BinaryIO, source: Source) -> dict[str, str]:
    """Return the fingerprints of an array's splits, as the file has them now."""
    found, at_a_time = {}, max(1, _CHUNK // math.prod(source.shape))
    for split, files in source.splits.items():
        digest = begun_fingerprint(torch.uint8, (len(files), *source.shape))
        for start in range(0, len(files), at_a_time):
            ask()
            digest.update(stream.read(min(at_a_time, len(files) - start) * math.prod(source.shape)))
        found[split] = digest.hexdigest()
    return found if not stream.read(1) else {}


def _written(source: Source, cache: Path) -> dict[str, Any]:
    """Write an array that is not whole; of several processes one does, and the others wait."""
    words = ("these images are being decoded", "wait for it, or stop it first")
    with holding(cache / ".lock", *words, patience=math.inf, waiting=ask):
        return _whole(cache / source.key, source) or _write(source, cache / source.key)


def _write(source: Source, place: Path) -> dict[str, Any]:
    """Decode what is not decoded yet into a folder of its own, and move it into place."""
    part = place.with_name(f"{place.name}.part")
    _remove_others(part.parent, keep=(part, place))
    if place.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        place.rename(part)
    _require_space(source, part)
    part.mkdir(exist_ok=True)
    try:
        index = _Growing(source, part).finished()
    except Exception:  # of an image, say: once that is replaced, the key is another
        shutil.rmtree(part, ignore_errors=True)
        raise
    write_sealed(part / INDEX, json.dumps(index).encode())
    part.rename(place)
    return index


def _remove_others(cache: Path, keep: tuple[Path, Path]) -> None:
    """Remove arrays, and parts of them, of folders that have changed since."""
    for other in cache.iterdir():
        if other.is_dir() and other not in keep:
            shutil.rmtree(other, ignore_errors=True)


def _require_space(source: Source, part: Path) -> None:
    here = part / ARRAY
    needed = source.size - (here.stat().st_size if here.exists() else 0)
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        reason = f"decoding needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free"
        remedy = f"free some, or make {part.parent} a link to a folder of a larger disk"
        raise DataError(part.parent, reason, remedy)


def _mapped(path: Path, source: Source) -> dict[str, Tensor]:
    """Return the splits, mapped read-only: writable mappings count as memory."""
    sizes = [len(files) for files in source.splits.values()]
    array = np.memmap(path, dtype=np.uint8, mode="r", shape=(sum(sizes), *source.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nobody writes into splits
        whole = torch.from_numpy(array)
    return dict(zip(source.splits, whole.split(sizes), strict=True))


# -------------------------------------------------------------------------------- decoding


@dataclass(frozen=True)
class _Found:
    """What is listed of an image: SHA-256 of its file, and its treatment."""

    sha256: str
    done: tuple[str, ...]


class _Growing:
    """An array and its list, which grow by some images at a time, and the index of what is there.

    Args:
        source: The files.
        part: The folder of both.
    """

    def __init__(self, source: Source, part: Path) -> None:
        self.source, self.part = source, part
        self.files = [(split, file) for split, files in source.splits.items() for file in files]
        self.fingerprints = {
            split: begun_fingerprint(torch.uint8, (len(files), *source.shape))
            for split, files in source.splits.items()
        }
        self.digests = {split: hashlib.sha256() for split in source.splits}
        self.treated, self.done = Counter[str](), 0

    def finished(self) -> dict[str, Any]:
        """Return the index, having decoded what is not there.

        Raises:
            DataError: An image cannot be used.
            Interrupted: It is time to stop.
        """
        for name in (ARRAY, LIST):
            (self.part / name).touch()
        with (self.part / ARRAY).open("r+b") as array, (self.part / LIST).open("r+b") as listed:
            self._take_over(array, listed)
            self._decode_rest(array, listed)
            os.fsync(array.fileno())
        return {
            "fingerprints": {split: d.hexdigest() for split, d in self.fingerprints.items()},
            "files": {split: d.hexdigest() for split, d in self.digests.items()},
            "treated": dict(self.treated),
        }

    def _take_over(self, array: BinaryIO, listed: BinaryIO) -> None:
        """Take what an earlier process has written, up to the first that is not as it wrote it."""
        size, end = math.prod(self.source.shape), 0
        for line in listed:
            ask()
            found, sha256 = _read_line(line)
            levels = array.read(len(found) * size)
            whole = sha256 == hashlib.sha256(levels).hexdigest()
            if not (found and whole and self.done + len(found) <= len(self.files)):
                break
            self._take(levels, found)
            end += len(line)
        for stream, length in ((array, self.done * size), (listed, end)):
            stream.truncate(length)
            stream.seek(length)

    def _take(self, levels: bytes, found: Sequence[_Found]) -> None:
        size = math.prod(self.source.shape)
        for number, image in enumerate(found):
            split, file = self.files[self.done]
            self.fingerprints[split].update(levels[number * size : (number + 1) * size])
            self.digests[split].update(as_bytes(f"{image.sha256}  {file.path}\n"))
            self.treated.update(image.done)
            self.done += 1

    def _decode_rest(self, array: BinaryIO, listed: BinaryIO) -> None:
        total, source = len(self.files), self.source
        hidden = not sys.stderr.isatty()
        with (
            ThreadPoolExecutor() as pool,  # Pillow decodes and resizes outside of Python's lock
            tqdm(
                desc=f"decoding {source.name}", total=total, initial=self.done, disable=hidden
            ) as bar,
        ):
            for start in range(self.done, total, _AT_A_TIME):
                some = [file for _, file in self.files[start : start + _AT_A_TIME]]
                self._decode_some(some, pool, array, listed)
                bar.update(len(some))

    def _decode_some(
        self, files: Sequence[Listed], pool: ThreadPoolExecutor, array: BinaryIO, listed: BinaryIO
    ) -> None:
        """Decode images side by side; a stop, too, leaves those before it written."""
        levels, found = bytearray(), list[_Found]()
        try:
            for image, own in pool.map(lambda file: _decode(self.source, file), files):
                levels += own
                found.append(image)
                ask()
        finally:
            if found:
                array.write(levels)
                array.flush()
                listed.write(_line(bytes(levels), found))
                listed.flush()
                self._take(bytes(levels), found)


def _line(levels: bytes, found: Sequence[_Found]) -> bytes:
    """Return the line that lists images: their digest, theirs in the array, and the line's own."""
    images = [[image.sha256, image.done] for image in found]
    text = json.dumps([hashlib.sha256(levels).hexdigest(), images])
    return f"{hashlib.sha256(text.encode()).hexdigest()} {text}\n".encode()


def _read_line(line: bytes) -> tuple[list[_Found], str]:
    """Return what a line lists and the digest of its images; nothing of one that is not whole."""
    own, _, text = line.rstrip(b"\n").partition(b" ")
    if own.decode(errors="replace") != hashlib.sha256(text).hexdigest():
        return [], ""
    sha256, images = json.loads(text)
    return [_Found(file, tuple(done)) for file, done in images], sha256


def _decode(source: Source, file: Listed) -> tuple[_Found, bytes]:
    path = source.home / file.path
    with reading(path, DataError):
        raw = path.read_bytes()
    with opened(path, io.BytesIO(raw)) as image:
        prepared, done = source.prepare(image, path)
        levels: UInt8[np.ndarray, "channels height width"]
        levels = np.asarray(prepared).transpose(2, 0, 1)
    if levels.shape != source.shape or levels.dtype != np.uint8:
        raise DataError(path, f"gave {levels.dtype} of {levels.shape}", "replace it")
    return _Found(hashlib.sha256(raw).hexdigest(), done), levels.tobytes()
