"""The store: which records count, and errors that name the file."""

import math

import pytest
from factories import make_cell, make_metric, make_recipe, make_record

from dgm_bench.errors import ResultsError
from dgm_bench.records import read_record, write_record
from dgm_bench.store import Store, ensure_writable, load_records, one_per_seed, record_files


def stored(tmp_path, *records):
    for record in records:
        write_record(record, tmp_path)
    return Store(tmp_path)


def at(second, **overrides):
    return make_record(
        created=f"2026-01-01T00:00:{second:02d}Z", run_id=f"run-{second}", **overrides
    )


def test_a_folder_that_does_not_exist_holds_no_records(tmp_path):
    assert Store(tmp_path / "nowhere").records() == []


def test_records_come_newest_last_and_whole(tmp_path):
    older, newer = at(1, seed=1), at(2, seed=0)
    assert stored(tmp_path, newer, older).records() == [older, newer]


def test_a_record_is_written_once(tmp_path):
    path = write_record(at(1), tmp_path)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match="exists already"):
        write_record(at(1, value=7.0), tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_record_has_no_number_that_is_none(number, tmp_path):
    metric = make_metric(number, se=number)
    assert (metric.value, metric.se) == (None, None)
    path = write_record(at(1, metrics=(metric,)), tmp_path)
    assert read_record(path).metrics == (metric,)


def test_records_are_read_once(tmp_path):
    store = stored(tmp_path, at(1))
    store.records()
    for file in tmp_path.rglob("*.json"):
        file.unlink()
    assert len(store.records()) == 1


def test_temporary_files_are_not_records(tmp_path):
    store = stored(tmp_path, at(1))
    (tmp_path / "runs" / ".half.json").write_text("{")
    assert len(store.records()) == 1


def test_a_cell_gets_unmodified_records_of_its_own_recipe(tmp_path):
    cell = make_cell()
    other = make_recipe("other", args={"layers": 10})
    wanted = at(1, cell=cell)
    strangers = at(2, cell=cell, recipe=other), at(3, cell=cell, modified=("batch_size",), seed=1)
    assert stored(tmp_path, wanted, *strangers).for_cell(cell) == [wanted]


def test_records_of_older_code_are_those_of_the_same_recipe_before_its_models_changed(tmp_path):
    first, now = make_recipe(), make_recipe(revision=3)
    cell, between = make_cell(recipe=now), make_recipe(revision=2)
    older = at(1, recipe=first), at(2, recipe=between, seed=1)
    others = at(3, recipe=make_recipe(args={"layers": 9})), at(4, recipe=first, modified=("lr",))
    store = stored(tmp_path, *older, *others)
    assert store.of_older_code(cell) == list(older)
    assert store.for_cell(cell) == []
    assert store.of_older_code(make_cell(recipe=first)) == []
    newest = at(5, recipe=make_recipe(revision=4))
    assert newest not in stored(tmp_path, newest).of_older_code(cell)


def test_a_cell_without_recipe_has_no_records(tmp_path):
    assert stored(tmp_path, at(1)).for_cell(make_cell(recipe=None)) == []


def test_cells_that_share_a_recipe_share_records(tmp_path):
    mine = make_cell("maf-10")
    shared = make_cell("maf", recipe=mine.recipe, same_as="maf-10")
    record = at(1, cell=mine)
    assert stored(tmp_path, record).for_cell(shared) == [record]


def test_the_newest_record_of_each_seed_counts():
    first, second, third = at(1, seed=0), at(2, seed=0), at(3, seed=1)
    assert one_per_seed([second, first, third]) == [second, third]


@pytest.mark.parametrize(
    ("better", "lesser"), [("complete", "budget"), ("complete", "diverged"), ("diverged", "budget")]
)
def test_a_run_that_went_further_beats_a_newer_one(better, lesser):
    kept = at(1, status=better)
    assert one_per_seed([kept, at(2, status=lesser)]) == [kept]


def test_superseded_records_do_not_count(tmp_path):
    cell = make_cell()
    wrong = at(1, cell=cell)
    right = at(2, cell=cell, seed=5, supersedes=wrong.run_id)
    assert stored(tmp_path, wrong, right).for_cell(cell) == [right]


def test_a_record_superseded_by_another_recipe_does_not_count(tmp_path):
    cell = make_cell()
    corrected = at(2, recipe=make_recipe("other", args={"layers": 9}), supersedes="run-1")
    assert stored(tmp_path, at(1, cell=cell), corrected).for_cell(cell) == []


def test_find_takes_an_identifier_or_a_path(tmp_path):
    record = at(1)
    store = stored(tmp_path, record)
    assert store.find("run-1") == record
    assert store.find(record.path(tmp_path)) == record
    with pytest.raises(ResultsError, match="did you mean 'run-1'"):
        store.find("run-l")


def test_a_curve_is_rows_of_numbers(tmp_path):
    record = at(1, curve="run-1.csv")
    store = stored(tmp_path, record)
    record.path(tmp_path).with_suffix(".csv").write_text("step,validation\n1,0.5\n2,\n")
    first, second = store.curve(record)
    assert first == {"step": 1.0, "validation": 0.5}
    assert second["step"] == 2.0
    assert math.isnan(second["validation"])


def test_a_curve_that_is_missing_or_broken_is_named(tmp_path):
    record = at(1, curve="run-1.csv")
    store = stored(tmp_path, record)
    assert store.curve(at(2)) == []
    with pytest.raises(ResultsError, match=r"run-1\.csv"):
        store.curve(record)
    record.path(tmp_path).with_suffix(".csv").write_text("step\nmany\n")
    with pytest.raises(ResultsError, match="not a readable curve"):
        store.curve(record)


def test_a_path_may_be_a_file_a_folder_of_records_or_of_results(tmp_path):
    record = at(1)
    file = write_record(record, tmp_path)
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "run_record.v1.json").write_text("{}")
    assert record_files(file) == record_files(file.parent) == record_files(tmp_path) == [file]
    assert load_records(tmp_path) == [record]


def test_a_results_folder_without_runs_has_no_records(tmp_path):
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "run_record.v1.json").write_text("{}")
    assert record_files(tmp_path) == []


def test_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="no such file or folder"):
        record_files(tmp_path / "nowhere")


def test_a_writable_folder_is_created_and_left_empty(tmp_path):
    ensure_writable(tmp_path / "new" / "results")
    assert list((tmp_path / "new" / "results").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"cannot be written.*--results"):
        ensure_writable(tmp_path / "file" / "results")
