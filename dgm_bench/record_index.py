"""The index of a large folder of records: what was read of each file, while that is the same.

Reading and checking a record takes ten times as long as making it of its row here. The index is no
second truth: it lies in the user's cache, and a row counts only where the file is to the nanosecond
the one that was read. Whatever is wrong with the index, the records are read anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import VERSION

from dgm_bench.cache import cache_folder, keep_newest, make_private, sources
from dgm_bench.errors import ResultsError
from dgm_bench.lean_records import Row, Shared
from dgm_bench.records import RunRecord, read_as, read_record
from dgm_bench.sealed import read_sealed, write_sealed

#: Nanoseconds within which a file may change twice and look the same: FAT counts in two seconds.
RESOLUTION = 2 * 10**9
#: How many indexes are kept.
KEPT = 16


class RecordIndex:
    """Records of files, made of what was read before where that still holds.

    Args:
        root: The folder of the files; None for one that has no index.
    """

    def __init__(self, root: Path | None) -> None:
        self._file = None if root is None else _file_of(root)
        self._above = len(str(root)) + 1
        self._known: dict[bytes, tuple[bytes, bytes]] = {}
        self._kept: dict[bytes, tuple[bytes, bytes]] = {}
        self._shared, self._changed = Shared(self._read()), False

    def record(self, path: str) -> RunRecord:
        """Return the record of a file.

        Raises:
            ResultsError: When it is none.
        """
        if self._file is None:
            return self._shared.record(read_as(Path(path), self._shared.row))
        try:
            state = os.stat(path)
        except OSError:
            return read_record(Path(path))  # which says why it cannot
        key = json.dumps(path[self._above :]).encode()
        signature, row = self._known.get(key, (b"", b""))
        if signature == _signature(state):
            self._kept[key] = signature, row
            return self._shared.record(json.loads(row))
        return self._shared.record(self._read_anew(path, key, state))

    def _read_anew(self, path: str, key: bytes, state: os.stat_result) -> Row:
        """Return the row of a file, and keep it unless a later change of the file might not show.

        The state is that from before the reading.
        """
        row = read_as(Path(path), self._shared.row)
        if max(state.st_mtime_ns, state.st_ctime_ns) + RESOLUTION < time.time_ns():
            line = json.dumps(row, separators=(",", ":")).encode()
            self._kept[key], self._changed = (_signature(state), line), True
        return row

    def save(self) -> None:
        """Write what was found, if anything changed; say nothing where that cannot be done."""
        if self._file is None or not (self._changed or len(self._kept) < len(self._known)):
            return
        with suppress(OSError, ResultsError):
            make_private(self._file.parent)
            write_sealed(self._file, self._lines())
            keep_newest(self._file.parent, "*.index", KEPT)

    def _lines(self) -> Iterator[bytes]:
        yield _version() + b"\n" + json.dumps(self._shared.texts).encode()
        for key, (signature, row) in self._kept.items():
            yield b"\n" + b"\t".join((key, signature, row))

    def _read(self) -> list[tuple[str, str]]:
        """Take the rows of the index, and return the JSON of the parts that they share."""
        with suppress(OSError, ResultsError, ValueError):
            content = read_sealed(self._file, "it is made again") if self._file else None
            version, texts, *lines = (content or b"").split(b"\n")
            if version == _version():
                self._known = {key: (state, row) for key, state, row in map(_split, lines)}
                return [(name, text) for name, text in json.loads(texts)]
        return []


def _split(line: bytes) -> tuple[bytes, bytes, bytes]:
    key, signature, row = line.split(b"\t")
    return key, signature, row


def _signature(state: os.stat_result) -> bytes:
    """Return what no writing to a file leaves as it was."""
    parts = state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev
    return " ".join(map(str, parts)).encode()


def _file_of(root: Path) -> Path | None:
    """Return the index of a folder, in the user's cache; None where there is none."""
    folder = cache_folder("records")
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
    return None if folder is None else folder / f"{name}.index"


def _version() -> bytes:
    """Return what tells rows from those of another version of this program."""
    return f"{VERSION} {sources('*.py')}".encode()
