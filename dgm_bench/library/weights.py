"""Where the weights of a run are: in the results, with the suite, or at its releases.

Every run that was evaluated leaves its weights with its pictures, in ``artifacts/<run>`` of the
user's results, however large they are. With the stored results come those of some small models, as
``weights/<run>.safetensors``; others are assets of a release under the same name. A record has the
SHA-256 of its weights: wherever they come from, they are those that its numbers are of.
"""

from __future__ import annotations

import os
from pathlib import Path

from dgm_bench.catalog import load_catalog
from dgm_bench.data.cards import Download
from dgm_bench.errors import DataError, ResultsError, UsageError
from dgm_bench.planner import run_command
from dgm_bench.records import WEIGHTS, RunRecord
from dgm_bench.remote import mirrored_at
from dgm_bench.sealed import read_known
from dgm_bench.spec import Cell, Recipe
from dgm_bench.store import Store

#: Names the address of a release whose assets are weights of stored runs: ``<run>.safetensors``.
RELEASE = "DGM_BENCH_RELEASE"
#: Of the stored results: weights of small models.
STORED = "weights"
#: Below the data root: weights that were fetched.
FETCHED = "models"
#: Bytes that a file of weights has at most: in double precision, with a mask beside each matrix.
_BYTES_A_WEIGHT, _BYTES_BESIDES = 16, 2**20


def one_cell(cell: str) -> Cell:
    """Return the cell of that name, or the only one of a pattern.

    Raises:
        UsageError: There is none, or several match.
    """
    found = load_catalog().select(cell)
    if len(found) > 1:
        reason = f"names {len(found)} cells, {found[0].id} and others"
        raise UsageError(cell, reason, "name one of them")
    return found[0]


def require_recipe(cell: Cell) -> Recipe:
    """Return the recipe of a cell.

    Raises:
        UsageError: It has none.
    """
    if cell.recipe is None:
        reason = f"has no recipe: {cell.no_recipe}" if cell.no_recipe else "has no recipe yet"
        raise UsageError(cell.id, reason, "dgm-bench list says which cells have")
    return cell.recipe


def record_to_load(cell: Cell, store: Store, seed: int) -> RunRecord:
    """Return the record of a cell and seed that tables use: that of the model to be loaded.

    Raises:
        UsageError: The cell has no recipe.
        ResultsError: It was not run with this seed, or the run was cut short.
    """
    require_recipe(cell)
    known = {record.seed: record for record in store.for_cell(cell)}
    if seed not in known:
        seeds = ", ".join(map(str, sorted(known)))
        reason = f"no run of seed {seed} is here, but of {seeds}" if known else "was not run here"
        raise ResultsError(cell.id, reason, _run(cell, seed))
    if not known[seed].outcome.complete:
        record = known[seed]
        reason = f"its run {record.run_id} is not finished ({record.outcome.reason})"
        raise ResultsError(cell.id, reason, f"{_run(cell, seed)} goes on; or name it as run=")
    return known[seed]


def _run(cell: Cell, seed: int) -> str:
    return run_command(cell, "none", seed + 1)


def find_weights(record: RunRecord, store: Store, data_root: Path) -> Path | None:
    """Return the file of a run's weights, or None where it is not on this machine."""
    folder, fetched = store.folder_of(record), data_root / FETCHED / _name(record)
    own = record.weights_file(folder)
    if (remote := mirrored_at(folder)) is not None and not own.is_file():
        remote.fetch_file(own.relative_to(folder).as_posix())
    return weights_in_results(record, store) or (fetched if fetched.is_file() else None)


def weights_in_results(record: RunRecord, store: Store) -> Path | None:
    """Return the file of a run's weights among its results, or None where it is not there."""
    folder = store.folder_of(record)
    here = record.weights_file(folder), folder / STORED / _name(record)
    return next((path for path in here if path.is_file()), None)


def read_weights(record: RunRecord, cell: Cell, store: Store, data_root: Path) -> bytes:
    """Return the weights of a run, as they were written.

    Raises:
        ResultsError: They are not on this machine, or damaged.
    """
    path = find_weights(record, store, data_root)
    if path is None:
        again = f"{_run(cell, record.seed)} makes them"
        remedy = f"{again}, or dgm-bench data fetch {cell.id} where a release has them"
        raise ResultsError(cell.id, f"the weights of run {record.run_id} are not here", remedy)
    return read_known(path, record.artifacts[WEIGHTS], f"delete it; {_run(cell, record.seed)}")


def fetch_weights(
    cell: Cell, store: Store, data_root: Path, *, seed: int = 0, progress: bool = True
) -> Path:
    """Download the weights of a cell's stored run, unless they are here, and return their file.

    Raises:
        DataError: No release is named, it does not have them, or they are not those that the
            record names.
        ResultsError: As :func:`record_to_load`.
    """
    record = record_to_load(cell, store, seed)
    if (here := find_weights(record, store, data_root)) is not None:
        return here
    from dgm_bench.data.download import download

    address = os.environ.get(RELEASE)
    if not address:
        remedy = f"set {RELEASE} to the address of one that has its weights, or {_run(cell, seed)}"
        raise DataError(cell.id, "no release is named", remedy)
    item = _download(record, address)
    try:
        download(item, data_root, progress=progress)
    except DataError as error:
        raise DataError(cell.id, error.reason, _run(cell, seed)) from error
    return data_root / item.path


def _name(record: RunRecord) -> str:
    return f"{record.run_id}.safetensors"


def _download(record: RunRecord, address: str) -> Download:
    return Download(
        urls=(f"{address.rstrip('/')}/{_name(record)}",),
        path=f"{FETCHED}/{_name(record)}",
        size=_BYTES_A_WEIGHT * record.scale.parameters + _BYTES_BESIDES,
        sha256=record.artifacts.get(WEIGHTS),
    )
