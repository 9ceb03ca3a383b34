"""Writes data frames as pandas 0.20 pickled them under Python 2."""

import pickle
import types
from pathlib import Path

import numpy as np


class OldFrame:
    def __init__(self, manager):
        self._metadata, self._typ, self._data = [], "dataframe", manager


class OldBlocks:
    def __init__(self, columns, rows, blocks):
        self.state = columns, rows, blocks

    def __getstate__(self):
        columns, rows, blocks = self.state
        axes = [columns, rows]
        values = [block["values"] for block in blocks]
        return axes, values, [columns] * len(blocks), {"0.14.1": {"axes": axes, "blocks": blocks}}


class OldIndex:
    def __init__(self, **parts):
        self.parts = parts

    def __reduce__(self):
        return old_new_index, (OldIndex, self.parts)


def old_new_index(kind, parts):
    raise AssertionError("only ever pickled by name")


NAMES = {
    OldFrame: "pandas.core.frame DataFrame",
    OldBlocks: "pandas.core.internals BlockManager",
    OldIndex: "pandas.indexes.base Index",
    old_new_index: "pandas.indexes.base _new_Index",
}


class OldPickler(pickle._Pickler):
    """Pickles the stand-ins above under the names that pandas had in 2017."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, type | types.FunctionType) and obj in NAMES:
            self.write(pickle.GLOBAL + NAMES[obj].replace(" ", "\n").encode() + b"\n")
        else:
            super().save(obj, save_persistent_id)


def save_frame(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write a pickle as pandas 0.20 under Python 2 did: two blocks, protocol 2."""
    names = np.array(list(columns), dtype=object)
    table = np.stack(list(columns.values()))
    blocks = [
        {"mgr_locs": slice(0, 2, 1), "values": table[:2]},
        {"mgr_locs": np.arange(2, len(table)), "values": table[2:]},
    ]
    rows = OldIndex(data=np.arange(table.shape[1])[::-1].copy(), name=None)
    frame = OldFrame(OldBlocks(OldIndex(data=names, name=None), rows, blocks))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        OldPickler(stream, protocol=2).dump(frame)
