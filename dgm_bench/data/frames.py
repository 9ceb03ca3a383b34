"""Data frames that pandas 0.14 to 1.2 pickled, read without pandas' code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dgm_bench.data.pickles import (
    ARRAYS,
    LARGEST,
    MalformedError,
    Named,
    Names,
    Unbuilt,
    as_text,
    expect,
    read_pickle,
    require,
)
from dgm_bench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

#: Labels of an axis: an array of numbers, a list of texts, or a range.
Labels = np.ndarray | Sequence[Any]


class _Block(NamedTuple):
    """Columns of one type: their numbers in the frame, and their values, a column a row."""

    places: np.ndarray | slice
    values: np.ndarray


class _Blocks(NamedTuple):
    """The values of a frame, as pandas' BlockManager holds them."""

    columns: Labels
    rows: Labels
    blocks: tuple[_Block, ...]

    def table(self) -> Float[np.ndarray, "rows columns"]:
        """Return the values, each column in its place.

        Raises:
            MalformedError: The blocks are not all columns of all rows.
        """
        height, width = len(self.rows), len(self.columns)
        values = [block.values for block in self.blocks]
        require(all(part.size and part.shape[1] == height for part in values), "an uneven block")
        require(sum(map(len, values)) == width, "blocks of other columns than it has")
        require(8 * height * width <= LARGEST, "values that are repeated")
        numbers = np.arange(width)
        places = [numbers[block.places] for block in self.blocks]
        require(sorted(np.concatenate(places)) == [*numbers], "blocks of the same columns")
        table = np.empty((height, width))
        for part, place in zip(values, places, strict=True):
            table[:, place] = part.T
        return table


class _BlockManager(Unbuilt):
    """Of its state, pandas 0.14 to 1.2 keep what can be read under the name of the first."""

    def built(self, state: object) -> _Blocks:
        """Return the blocks."""
        *_, named = expect(state, tuple)
        current = _texted(_texted(named)["0.14.1"])
        columns, rows = expect(current["axes"], list)
        blocks = tuple(_block(_texted(block)) for block in expect(current["blocks"], list))
        return _Blocks(_labels(columns), _labels(rows), blocks)


class _Frame(Unbuilt):
    """A DataFrame: of its state only the values matter, named ``_data``."""

    def built(self, state: object) -> _Blocks:
        """Return the blocks."""
        return expect(_texted(state)["_data"], _Blocks)


def _texted(mapping: object) -> dict[str, Any]:
    """Return a dictionary whose keys Python 2 may have written as bytes."""
    return {as_text(key): value for key, value in expect(mapping, dict).items()}


def _labels(found: object) -> Labels:
    require(isinstance(found, np.ndarray | list | range), "an axis without labels")
    return found  # type: ignore[return-value]


def _block(parts: Mapping[str, Any]) -> _Block:
    places, values = parts["mgr_locs"], expect(parts["values"], np.ndarray)
    require(isinstance(places, slice | np.ndarray), "a block without places")
    require(values.ndim == 2, "a block of no columns")
    return _Block(places, values)


def _slice(*ends: object) -> slice:
    require(all(end is None or type(end) is int for end in ends), "a slice without numbers")
    return slice(*ends)


def _new_index(kind: object, parts: object) -> Labels:
    """Return the labels of an index, of whichever kind."""
    found = _texted(parts)
    if "data" in found:
        return _labels(found["data"])
    return range(*(expect(found[end], int) for end in ("start", "stop", "step")))


def _names() -> Names:
    """The names in a DataFrame pickled by pandas 0.14 to 1.2: modules moved in between."""
    homes = ("pandas.core.index", "pandas.indexes", "pandas.core.indexes")
    modules = (
        *homes,
        *(f"{home}.{part}" for home in homes for part in ("base", "numeric", "range")),
    )
    kinds = ("Index", "Int64Index", "Float64Index", "RangeIndex")
    return {
        **ARRAYS,
        ("pandas.core.frame", "DataFrame"): Named(_Frame),
        ("pandas.core.internals", "BlockManager"): Named(_BlockManager),
        ("pandas.core.internals.managers", "BlockManager"): Named(_BlockManager),
        ("__builtin__", "slice"): Named(_slice),
        ("builtins", "slice"): Named(_slice),
        **dict.fromkeys(product(modules, ["_new_Index"]), Named(_new_index)),
        **dict.fromkeys(product(modules, kinds), Named()),
    }


def read_frame(path: Path) -> pd.DataFrame:
    """Read a numeric DataFrame from a pickle of pandas 0.14 to 1.2, whichever is installed.

    Raises:
        DataError: The file is truncated, corrupt, no such pickle, or asks for other names.
    """
    import pandas as pd

    blocks = read_pickle(path, _names())
    if not isinstance(blocks, _Blocks):
        raise DataError(path, "does not hold an old data frame", "it is not the published file")
    try:
        return pd.DataFrame(blocks.table(), columns=[*map(_named, blocks.columns)])
    except (MalformedError, LookupError, TypeError, ValueError) as error:
        remedy = "delete it and fetch it again"
        raise DataError(path, f"is no whole data frame ({error})", remedy) from error


def _named(column: object) -> str:
    if isinstance(column, str | bytes):
        return as_text(column)
    require(isinstance(column, int | float | np.number), "a column without a name")
    return str(column)
