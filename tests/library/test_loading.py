"""Which trained model a cell has, where its weights come from, and what is told without any."""

import shutil
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec
import pytest
import torch
from kept_models import CELLS, keep

import dgm_bench
from dgm_bench.errors import DamagedError, DataError, ResultsError, UsageError
from dgm_bench.library import weights
from dgm_bench.library.weights import one_cell
from dgm_bench.store import Store

CELL, OTHER = "ffjord/density/made/8gaussians", "ffjord/density/maf-5/8gaussians"


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "own").mkdir()
    return {"results": tmp_path / "own", "stored": tmp_path / "stored", "data_root": tmp_path}


def files_of(folders):
    return sorted(folders["results"].rglob("weights.safetensors"))


def test_ones_own_model_comes_before_the_stored_one(folders):
    theirs = keep(folders["stored"], CELL, created="2027-01-01T00:00:00Z", run_id="theirs")
    assert dgm_bench.load(CELL, **folders).record == theirs
    mine = keep(folders["results"], CELL, run_id="mine")
    assert dgm_bench.load(CELL, **folders).record == mine
    assert dgm_bench.load(CELL, run="theirs", **folders).record == theirs


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, f"{CELL}: was not run here; dgm-bench run {CELL} --budget none"),
        ({"seed": 2}, f"{CELL}: was not run here; dgm-bench run {CELL} --seeds 3 --budget none"),
        ({"run": "20260101t000000-abcdef"}, "no such run in"),
    ],
)
def test_what_was_not_run_is_told_with_the_command_that_runs_it(folders, asked, message):
    with pytest.raises(ResultsError) as told:
        dgm_bench.load(CELL, **asked, **folders)
    assert message in str(told.value)


def test_a_seed_that_is_not_here_is_told_with_those_that_are(folders):
    keep(folders["results"], CELL, seed=1)
    with pytest.raises(ResultsError, match="no run of seed 0 is here, but of 1;"):
        dgm_bench.load(CELL, **folders)


def test_a_run_that_was_cut_short_is_loaded_by_its_name_alone(folders):
    record = keep(folders["results"], CELL, status="budget")
    with pytest.raises(ResultsError, match=f"its run {record.run_id} is not finished"):
        dgm_bench.load(CELL, **folders)
    assert dgm_bench.load(CELL, run=record.run_id, **folders).record == record


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("ffjord/density/*/8gaussians", "names .* cells, .* and others; name one of them"),
        ("ffjord/density/maed/8gaussians", "did you mean 'ffjord/density/made/8gaussians'"),
        ("vqvae2/diversity/vqvae-2-rejection-published/isc", "has no recipe"),
    ],
)
def test_what_is_no_cell_with_a_recipe_is_told(folders, cell, message):
    with pytest.raises(UsageError, match=message):
        dgm_bench.load(cell, **folders)


def test_a_run_of_another_cell_is_told(folders):
    record = keep(folders["results"], OTHER)
    with pytest.raises(UsageError, match=f"is no run of {CELL}; it is of {OTHER}"):
        dgm_bench.load(CELL, run=record.run_id, **folders)


def test_damaged_weights_are_no_model(folders):
    keep(folders["results"], CELL)
    (file,) = files_of(folders)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match=r"its SHA-256 is another\); delete it; dgm-bench run"):
        dgm_bench.load(CELL, **folders)


def test_weights_of_earlier_code_are_refused(folders):
    cell = "discrete/gumbel/sf/digits-bernoulli"
    recipe = CELLS[cell].recipe.unrevised
    record = keep(folders["results"], cell, recipe=recipe, recipe_hash=recipe.content_hash)
    with pytest.raises(ResultsError, match="earlier revision of its model's code"):
        dgm_bench.load(cell, run=record.run_id, **folders)


def test_weights_from_a_file_take_the_place_of_the_runs(folders, tmp_path):
    record = keep(folders["results"], CELL)
    file = shutil.move(files_of(folders)[0], tmp_path / "mine.safetensors")
    with pytest.raises(ResultsError, match=f"the weights of run {record.run_id} are not here"):
        dgm_bench.load(CELL, **folders)
    model = dgm_bench.load(CELL, weights=file, **folders)
    assert model.record == record
    nothing = {**folders, "results": folders["stored"].parent}
    alone = dgm_bench.load(CELL, weights=file, **nothing)
    assert (alone.record, alone.recipe) == (None, CELLS[CELL].recipe)
    assert torch.equal(alone.sample(3), model.sample(3))
    with pytest.raises(ResultsError, match=r"mine\.safetensors: holds no weights of MAF: "):
        dgm_bench.load(OTHER, weights=file, **folders)
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ResultsError, match="text: holds no weights of MADE"):
        dgm_bench.load(CELL, weights=tmp_path / "text", **folders)


def test_weights_that_came_with_the_suite_lie_beside_its_records(folders):
    record = keep(folders["stored"], CELL)
    place = folders["stored"] / "weights" / f"{record.run_id}.safetensors"
    place.parent.mkdir()
    shutil.move(record.weights_file(folders["stored"]), place)
    assert dgm_bench.load(CELL, **folders).record == record


# ------------------------------------------------------------------------------ a release


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A folder that a server on this machine gives as the assets of the release."""
    folder = tmp_path / "release"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(weights.RELEASE, f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()


def test_weights_are_fetched_by_the_digest_of_the_record(folders, release, tmp_path):
    record = keep(folders["results"], CELL)
    asset = release / f"{record.run_id}.safetensors"
    shutil.move(files_of(folders)[0], asset)
    store, cell = Store(folders["results"]), one_cell(CELL)
    whole = asset.read_bytes()
    for wrong in (whole[:-1], whole[:-1] + b"!"):
        asset.write_bytes(wrong)
        with pytest.raises(DataError, match="dgm-bench run ffjord/density/made/8gaussians"):
            weights.fetch_weights(cell, store, tmp_path, progress=False)
        assert weights.find_weights(record, store, tmp_path) is None
    asset.write_bytes(whole)
    fetched = weights.fetch_weights(cell, store, tmp_path, progress=False)
    assert fetched.read_bytes() == whole
    assert dgm_bench.load(CELL, **folders).record == record
    asset.unlink()
    assert weights.fetch_weights(cell, store, tmp_path, progress=False) == fetched


def test_where_no_release_is_named_it_is_told(folders, tmp_path, monkeypatch):
    monkeypatch.delenv(weights.RELEASE, raising=False)
    keep(folders["results"], CELL)
    files_of(folders)[0].unlink()
    with pytest.raises(DataError, match=f"no release is named; set {weights.RELEASE} to"):
        weights.fetch_weights(one_cell(CELL), Store(folders["results"]), tmp_path)


def test_a_release_without_the_weights_is_told(folders, release, tmp_path):
    keep(folders["results"], CELL)
    files_of(folders)[0].unlink()
    store, cell = Store(folders["results"]), one_cell(CELL)
    with pytest.raises(DataError, match=r"cannot be downloaded \(127.*404\); dgm-bench run"):
        weights.fetch_weights(cell, store, tmp_path, progress=False)


def test_of_results_at_an_address_only_the_weights_that_are_loaded_are_fetched(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address, files = "memory://models/results", fsspec.filesystem("memory")
    for cell in (CELL, OTHER):
        keep(tmp_path / "there", cell)
    files.put(f"{tmp_path / 'there'}/", "/models/results/", recursive=True)
    try:
        model = dgm_bench.load(CELL, results=address, stored="none", data_root=tmp_path)
    finally:
        files.rm("/models", recursive=True)
    (fetched,) = (tmp_path / "cache").rglob("*.safetensors")
    assert fetched.parent.name == model.record.run_id
