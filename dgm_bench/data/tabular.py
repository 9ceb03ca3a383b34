"""POWER, GAS, HEPMASS, MINIBOONE and BSDS300, prepared step by step as the MAF paper's code does.

Each follows the released MAF code (datasets/*.py), bugs included: every published number of these
sets was measured on exactly these arrays. Fixing what a comment calls a bug would make another
data set. The paper is https://arxiv.org/abs/1705.07057, appendix D.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from dgm_bench.data.arrays import broken, read_hdf5, read_npy, require_finite
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.files import checksums
from dgm_bench.data.frames import read_frame
from dgm_bench.data.patches import whole_patch
from dgm_bench.errors import DataError, reading

Table = Float[np.ndarray, "n dim"]


class Splits(NamedTuple):
    """Train, validation and test rows."""

    train: Table
    val: Table
    test: Table


def load(card: DatasetCard, home: Path) -> Dataset:
    """Load one of the five sets as float32.

    Raises:
        DataError: A file is truncated, corrupt or of another layout, or the numbers of rows are
            not the published ones.
    """
    splits = PREPARE[card.name](home)._asdict()
    sizes = {name: len(rows) for name, rows in splits.items()}
    if sizes != dict(card.sizes) or splits["train"].shape[1] != card.dim:
        shapes = {name: rows.shape for name, rows in splits.items()}
        reason = f"{home} gives {shapes}, published are {dict(card.sizes)} rows of {card.dim}"
        raise DataError(card.name, reason, f"delete its files and run {card.fetch_command}")
    is_image = card.name == "bsds300"
    return Dataset(
        name=card.name,
        version=card.version,
        splits={name: torch.from_numpy(_as_float32(rows)) for name, rows in splits.items()},
        unit=card.unit,
        files=checksums(card, home)[0],
        image_shape=(1, 8, 8) if is_image else None,
        to_pixels=whole_patch if is_image else None,
        note=card.note,
    )


def _as_float32(rows: Table) -> Table:
    return np.ascontiguousarray(rows, dtype=np.float32)


# ------------------------------------------------------------------------------- the sets


def prepare_power(home: Path) -> Splits:
    """Prepare POWER from ``power/data.npy``: eight columns of household measurements."""
    rows = read_table(home / "power/data.npy", columns=8)
    # One generator shuffles and then draws the three kinds of noise: the order matters.
    rng = np.random.RandomState(42)
    rng.shuffle(rows)
    # Without global intensity (3) and global reactive power (1).
    rows = np.delete(np.delete(rows, 3, axis=1), 1, axis=1)
    n = len(rows)
    voltage = 0.01 * rng.rand(n, 1)
    active_power = 0.001 * rng.rand(n, 1)
    sub_metering = rng.rand(n, 3)
    time = np.zeros((n, 1))
    noise = np.hstack((active_power, voltage, sub_metering, time))
    return standardised_by_train_and_val(tenths_from_the_end(rows + noise))


def prepare_gas(home: Path) -> Splits:
    """Prepare GAS from ``gas/ethylene_CO.pickle``: a data frame of sensor readings."""
    path = home / "gas/ethylene_CO.pickle"
    frame = read_frame(path)
    if missing := {"Meth", "Eth", "Time"} - set(frame.columns):
        raise broken(path, f"has no column {min(missing)}")
    require_finite(path, frame.to_numpy(), list(frame.columns))
    frame = frame.drop(columns=["Meth", "Eth", "Time"])
    while (twins := (frame.corr() > 0.98).to_numpy().sum(axis=1) > 1).any():
        frame = frame.drop(columns=frame.columns[twins.argmax()])
    # Bug: mean and deviation (of n - 1) are those of all rows, test rows included.
    frame = (frame - frame.mean()) / frame.std()
    return tenths_from_the_end(frame.to_numpy())


def prepare_hepmass(home: Path) -> Splits:
    """Prepare HEPMASS from ``hepmass/1000_train.csv`` and ``1000_test.csv``, signal rows only."""
    train = _signal_rows(home / "hepmass/1000_train.csv")
    # The test file names a column more than it has values.
    test = _signal_rows(home / "hepmass/1000_test.csv")
    if train.shape[1] != test.shape[1]:
        reason = f"has {test.shape[1]} features, 1000_train.csv has {train.shape[1]}"
        raise broken(home / "hepmass/1000_test.csv", reason)
    mean, deviation = train.mean(axis=0), train.std(axis=0, ddof=1)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    keep = ~has_repeated_minimum(train)
    cut = len(train) - len(train) // 10
    return Splits(train[:cut, keep], train[cut:, keep], test[:, keep])


def prepare_miniboone(home: Path) -> Splits:
    """Prepare MINIBOONE from ``miniboone/data.npy``, which its authors had cleaned already."""
    rows = read_table(home / "miniboone/data.npy", columns=None)
    return standardised_by_train_and_val(tenths_from_the_end(rows))


def prepare_bsds300(home: Path) -> Splits:
    """Read BSDS300 from ``BSDS300/BSDS300.hdf5``, as it is stored."""
    path = home / "BSDS300/BSDS300.hdf5"
    splits = Splits(*read_hdf5(path, "train", "validation", "test"))
    for rows in splits:
        if rows.ndim != 2:
            raise broken(path, f"is of another layout: an array has shape {rows.shape}")
        require_finite(path, rows)
    return splits


PREPARE: dict[str, Callable[[Path], Splits]] = {
    "power": prepare_power,
    "gas": prepare_gas,
    "hepmass": prepare_hepmass,
    "miniboone": prepare_miniboone,
    "bsds300": prepare_bsds300,
}

# -------------------------------------------------------------------------- common steps


def tenths_from_the_end(rows: Table) -> Splits:
    """Split off the last tenth as test, and the last tenth of the rest as validation."""
    rest = len(rows) - len(rows) // 10
    train = rest - rest // 10
    return Splits(rows[:train], rows[train:rest], rows[rest:])


def standardised_by_train_and_val(splits: Splits) -> Splits:
    """Standardise all rows by mean and deviation (of n) of train and validation together."""
    known = np.vstack(splits[:2])
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    return Splits(*((rows - mean) / deviation for rows in splits))


def has_repeated_minimum(rows: Table) -> Bool[np.ndarray, " dim"]:
    """Return which features have a smallest value that occurs more than five times.

    Bug: the count was meant to be that of the most frequent value, but is the first of the
    counts sorted by value.
    """
    repeated: Bool[np.ndarray, " dim"] = (rows == rows.min(axis=0)).sum(axis=0) > 5
    return repeated


def _signal_rows(path: Path) -> Table:
    """Read a csv and return the rows whose first column, the label, is 1, without it.

    A last column that is empty, which has a name alone, is left out.
    """
    import pandas as pd

    try:
        with reading(path, DataError):
            frame = pd.read_csv(path, index_col=False).astype(np.float64)
    except (OverflowError, TypeError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = str(error).partition("\n")[0][:200]
        raise broken(path, f"is not a table of numbers ({reason})") from error
    if frame.shape[1] > 1 and frame.iloc[:, -1].isna().all():
        frame = frame.iloc[:, :-1]
    table: Table = frame.to_numpy()
    require_finite(path, table, list(frame.columns))
    return table[table[:, 0] == 1, 1:]


def read_table(path: Path, columns: int | None) -> Table:
    """Read a two-dimensional array of numbers; never unpickles.

    Args:
        path: The file.
        columns: How many columns it must have, or None for any number.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    rows = read_npy(path)
    if rows.ndim != 2 or (columns is not None and rows.shape[1] != columns):
        wanted = f"{columns} columns" if columns else "two dimensions"
        raise broken(path, f"has shape {rows.shape}, expected {wanted}")
    require_finite(path, rows)
    table: Table = rows
    return table
