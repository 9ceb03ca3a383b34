"""From a cell to its trained model."""

from __future__ import annotations

import os
from pathlib import Path

from dgm_bench import data as datasets
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import ResultsError, UsageError, reading
from dgm_bench.execution import resolve_device
from dgm_bench.library.folders import Folder, data_folder, open_store
from dgm_bench.library.rebuilt import rebuilt
from dgm_bench.library.trained import TrainedModel
from dgm_bench.library.weights import (
    one_cell,
    read_weights,
    record_to_load,
    require_recipe,
)
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell, Recipe
from dgm_bench.store import Store
from dgm_bench.train.apple import home_of
from dgm_bench.train.precision import dtype_of


def load(
    cell: str,
    seed: int = 0,
    run: str | None = None,
    device: str = "cpu",
    *,
    weights: str | os.PathLike[str] | None = None,
    results: Folder = None,
    stored: Folder = None,
    data_root: Folder = None,
) -> TrainedModel:
    """Return the trained model of a cell: yours where you have run it, else the stored one.

    Args:
        cell: ``paper/table/row/column``.
        seed: Of the run.
        run: A run's identifier, in place of the one that the tables use; also of one that was cut
            short, or whose recipe was changed.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        weights: A file of weights in place of the run's.
        results: Your results folder or its address; None for ``$DGM_BENCH_RESULTS``, else
            ``dgm-results`` in the current folder.
        stored: Results that are read beside them; None for those that came with the suite,
            ``"none"`` for no others.
        data_root: Folder of the data sets; None for ``$DGM_BENCH_DATA``, else the user's cache.
            Data is not downloaded.

    Raises:
        UsageError: There is no such cell or device.
        ResultsError: No trained model of it is here; says which command makes one.
        DataError: Its data is missing or broken.

    Example:
        >>> model = load("ffjord/density/maf-5/8gaussians")  # doctest: +SKIP
        >>> model.can  # doctest: +SKIP
        ('sample', 'log_prob', 'encode', 'decode')
        >>> model.log_prob(model.sample(1000, seed=0)).mean()  # doctest: +SKIP
    """
    chosen, root, store = one_cell(cell), data_folder(data_root), open_store(results, stored)
    record: RunRecord | None
    if weights is None:
        record = _record(chosen, store, seed, run)
        content, where = read_weights(record, chosen, store, root), f"run {record.run_id}"
    else:
        record = _record_if_any(chosen, store, seed, run)
        content, where = _bytes_of(weights), os.fspath(weights)
    recipe = require_recipe(chosen) if record is None else record.recipe
    seed = seed if record is None else record.seed
    data = _data(recipe, seed, root, device)
    module = rebuilt(recipe, seed, data, content, where)
    return TrainedModel(chosen.id, recipe, seed, record, module, data, root)


def _record(cell: Cell, store: Store, seed: int, run: str | None) -> RunRecord:
    if run is None:
        return record_to_load(cell, store, seed)
    record = store.find(run)
    if cell.id not in record.cells:
        raise UsageError(run, f"is no run of {cell.id}", f"it is of {record.cells[0]}")
    return record


def _record_if_any(cell: Cell, store: Store, seed: int, run: str | None) -> RunRecord | None:
    """Return the record to compare other weights with."""
    if run is not None:
        return _record(cell, store, seed, run)
    return next((record for record in store.for_cell(cell) if record.seed == seed), None)


def _bytes_of(weights: str | os.PathLike[str]) -> bytes:
    with reading(os.fspath(weights), ResultsError):
        return Path(weights).read_bytes()


def _data(recipe: Recipe, seed: int, root: Path, device: str) -> Dataset:
    """Return a recipe's data set, on the device and in the precision of its first stage."""
    spec = recipe.stages[0]
    loaded = datasets.load(spec.data.name, root, args=spec.data.args, seed=seed, offline=True)
    return loaded.to(home_of(resolve_device(device)), dtype_of(spec))
