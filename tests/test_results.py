"""Stored records are earned: whole, in their place, of committed code, with their curves."""

import hashlib
from collections import defaultdict
from pathlib import Path

import pytest

import dgm_bench
from dgm_bench.catalog import load_catalog
from dgm_bench.records import WEIGHTS, read_record
from dgm_bench.spec import YES_NO
from dgm_bench.store import Store

RESULTS = Path(__file__).resolve().parent.parent / "results"
STORED = sorted((RESULTS / "runs").rglob("*.json"))
#: Trained models that come with the package, all of them together and the largest, in bytes.
MODELS = sorted((RESULTS / "weights").iterdir())
ALL_MODELS, LARGEST_MODEL = 3_000_000, 2**20
CELLS = {cell.id: cell for cell in load_catalog().cells}
RECIPES = {cell.recipe.content_hash: cell.recipe for cell in CELLS.values() if cell.recipe}
#: What each declared recipe would be by the first code of its models.
FIRST = {recipe.unrevised.content_hash: recipe for recipe in RECIPES.values()}


def curve_of(path, record):
    """The curve of a stored record, read as the verbs do, without looking for the record again."""
    store = Store(RESULTS)
    store._location = lambda _: path
    return store.curve(record)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_record_is_earned_and_of_a_recipe_that_is_declared_or_was(path):
    record = read_record(path)
    assert record.path(RESULTS) == path
    assert record.code.git_commit
    assert record.code.git_dirty is False
    assert not record.modified
    assert set(record.cells) <= CELLS.keys()
    assert (path.parent / record.curve).read_text().startswith("step,epoch,seconds")
    assert curve_of(path, record)
    # A change that changed a hash by accident would leave stored evidence without a cell.
    assert record.recipe.content_hash == record.recipe_hash
    if record.recipe_hash not in RECIPES:
        declared = FIRST[record.recipe.unrevised.content_hash]
        assert record.recipe.revisions < declared.revisions


def test_seeds_of_a_recipe_are_measured_by_one_method():
    """Else the verdict leaves some out: a protocol must not tell what came out but as such."""
    methods = defaultdict(set)
    for record in Store(RESULTS).records():
        for metric in record.metrics:
            if metric.unit != YES_NO:  # whose protocol is the evidence
                methods[record.recipe_hash, metric.name].add(metric.method)
    assert len(methods) > 2_000
    assert {key: found for key, found in methods.items() if len(found) > 1} == {}


def test_the_real_column_has_stored_runs_of_its_three_models():
    rows = {path.parent.name for path in STORED if path.parent.parent.name == "bsds300-patches"}
    assert rows >= {"made", "real-nvp-5", "maf-5"}


def test_stored_weights_are_small_and_those_of_records():
    digests = {path.stem: read_record(path).artifacts.get(WEIGHTS) for path in STORED}
    for path in MODELS:
        assert path.suffix == ".safetensors"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digests[path.stem], path
    sizes = [path.stat().st_size for path in MODELS]
    assert max(sizes) <= LARGEST_MODEL
    assert sum(sizes) <= ALL_MODELS


@pytest.mark.parametrize(
    "cell", ["ffjord/density/ffjord/8gaussians", "ffjord/vi/no-flow/digits-binary"]
)
def test_a_stored_model_gives_the_number_of_its_record(cell, tmp_path):
    model = dgm_bench.load(cell, results=RESULTS, data_root=tmp_path)
    again = {metric.name: metric.value for metric in model.evaluate()}
    for metric in model.record.metrics:
        assert again[metric.name] == pytest.approx(metric.value, rel=1e-5)
