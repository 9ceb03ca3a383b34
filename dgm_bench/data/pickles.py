"""Published pickles, read without executing code.

A pickle can have any importable function called. These readers allow the few names that the
published files need; any other is an error.
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from dgm_bench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Globals = Mapping[tuple[str, str], Callable[..., Any]]

ARRAYS: Globals = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler that resolves only the names it was given.

    Args:
        stream: The pickle.
        path: Its file, for the error.
        allowed: What each permitted ``(module, name)`` stands for.
        encoding: Of Python 2's strings: ``bytes`` leaves them as they are.
    """

    def __init__(self, stream: IO[bytes], path: Path, allowed: Globals, encoding: str) -> None:
        super().__init__(stream, encoding=encoding)
        self.path, self.allowed = path, allowed

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return what a permitted name stands for.

        Raises:
            DataError: The name is not permitted.
        """
        if (module, name) not in self.allowed:
            reason = f"this pickle asks for the forbidden global {module}.{name}"
            raise DataError(self.path, reason, "it is not the published file: delete it")
        return self.allowed[module, name]


def read_pickle(path: Path, allowed: Globals = ARRAYS, encoding: str = "bytes") -> Any:  # noqa: ANN401
    """Read a pickle that may hold built-in containers and what ``allowed`` permits.

    Raises:
        DataError: The file is truncated, corrupt, or asks for a name that is not permitted.
    """
    try:
        with path.open("rb") as stream:
            return RestrictedUnpickler(stream, path, allowed, encoding).load()
    except DataError:
        raise
    except Exception as error:  # a corrupt pickle can raise anything
        reason = f"is truncated or corrupt ({type(error).__name__}: {error})"
        raise DataError(path, reason, "delete it and fetch it again") from error


# ---------------------------------------------------------------- data frames of old pandas


class _Frame:
    """Stands for a pickled DataFrame: its state becomes its attributes, the values ``_data``."""


class _Blocks:
    """Stands for pandas' BlockManager, in the state that pandas 0.14 to 1.2 wrote."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        current = state[3]["0.14.1"]
        self.columns, self.rows = current["axes"]
        self.blocks = [(block["mgr_locs"], block["values"]) for block in current["blocks"]]


def _new_index(kind: object, parts: Mapping[str, Any]) -> np.ndarray:
    """Return the labels of an index, of whichever kind."""
    if "data" in parts:
        return np.asarray(parts["data"])
    return np.arange(parts["start"], parts["stop"], parts["step"])


def _frame_globals() -> Globals:
    """The names in a DataFrame pickled by pandas 0.14 to 1.2: modules moved in between."""
    homes = ("pandas.core.index", "pandas.indexes", "pandas.core.indexes")
    modules = (
        *homes,
        *(f"{home}.{part}" for home in homes for part in ("base", "numeric", "range")),
    )
    kinds = ("Index", "Int64Index", "Float64Index", "RangeIndex")
    return {
        **ARRAYS,
        ("pandas.core.frame", "DataFrame"): _Frame,
        ("pandas.core.internals", "BlockManager"): _Blocks,
        ("pandas.core.internals.managers", "BlockManager"): _Blocks,
        ("__builtin__", "slice"): slice,
        ("builtins", "slice"): slice,
        **{(module, "_new_Index"): _new_index for module in modules},
        **dict.fromkeys(product(modules, kinds), object),
    }


def read_frame(path: Path) -> pd.DataFrame:
    """Read a numeric DataFrame from a pickle of pandas 0.14 to 1.2.

    The unpickling uses no code of pandas, so that the installed version does not matter.

    Raises:
        DataError: The file is truncated, corrupt, no such pickle, or asks for other names.
    """
    import pandas as pd

    frame = read_pickle(path, _frame_globals(), encoding="latin1")
    blocks = getattr(frame, "_data", None)
    if not isinstance(frame, _Frame) or not isinstance(blocks, _Blocks):
        raise DataError(path, "does not hold an old data frame", "it is not the published file")
    table = np.empty((len(blocks.rows), len(blocks.columns)))
    for places, values in blocks.blocks:
        table[:, places] = values.T
    return pd.DataFrame(table, columns=[str(label) for label in blocks.columns])
