"""Records and published numbers as tables: every number once, where it belongs."""

import subprocess
import sys

import pytest
from factories import make_cell, make_metric, make_record

import dgm_bench
from dgm_bench.catalog import load_catalog
from dgm_bench.errors import UsageError
from dgm_bench.library import rows
from dgm_bench.records import write_record

CELLS = {cell.id: cell for cell in load_catalog().cells}
MADE, VAE = CELLS["ffjord/density/made/digits"], CELLS["iwae/likelihood/vae-1-1/digits-binary-nll"]


def store(folder, cell=MADE, **overrides):
    record = make_record(cell, cells=(cell.id,), **overrides)
    write_record(record, folder)
    return record


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "own").mkdir()
    return {"results": tmp_path / "own", "stored": tmp_path / "stored"}


def test_a_row_a_metric_with_the_cell_that_shows_it(folders):
    two = (make_metric(1.5, unit="bits/dim"), make_metric(40.0, name="nll_nats", se=None))
    store(folders["results"], metrics=two)
    shown, beside = dgm_bench.results("ffjord/density/*/digits", **folders).to_dict("records")
    assert shown["cell"] == beside["cell"] == MADE.id
    assert (shown["shown"], beside["shown"]) == (True, False)
    assert (shown["metric"], shown["value"], shown["unit"]) == ("nll", 1.5, "bits/dim")
    assert (beside["metric"], beside["value"], beside["unit"]) == ("nll_nats", 40.0, "nats")
    assert shown["standard_error"] == 0.005
    assert beside["standard_error"] != beside["standard_error"]


def test_a_run_of_several_cells_is_listed_once_each_metric_by_its_own_cell(folders):
    importance = CELLS["iwae/likelihood/vae-1-1/digits-binary-nll"]
    others = [c for c in CELLS.values() if c.recipe == importance.recipe and c.recipe]
    metrics = tuple(make_metric(1.0, name=cell.metric) for cell in others)
    record = make_record(importance, cells=tuple(c.id for c in others), metrics=metrics)
    write_record(record, folders["results"])
    frame = dgm_bench.results(**folders)
    assert len(frame) == len(metrics)
    for cell_id, metric in zip(frame["cell"], frame["metric"], strict=True):
        assert CELLS[cell_id].metric == metric
        assert cell_id in record.cells


def test_it_says_whose_a_record_is_and_which_counts(folders):
    old = store(folders["stored"], value=2.0)
    new = store(folders["results"], value=3.0, created="2026-02-01T00:00:00Z")
    cut = store(folders["results"], value=9.0, seed=1, status="budget")
    changed = store(folders["results"], value=7.0, seed=2, modified=("optimizer.lr=1",))
    frame = dgm_bench.results(**folders).set_index("run")
    assert frame["origin"].to_dict() == {
        old.run_id: "stored", new.run_id: "yours", cut.run_id: "yours", changed.run_id: "yours"
    }  # fmt: skip
    counting = {run for run, counts in frame["counts"].items() if counts}
    assert counting == {new.run_id}
    assert frame.loc[cut.run_id, "status"] == "budget"
    assert str(frame["created"].dtype).startswith("datetime64")


@pytest.mark.parametrize("pattern", ["*", "ffjord/density/made/digits"])
def test_without_records_the_columns_are_there(folders, pattern):
    frame = dgm_bench.results(pattern, **folders)
    assert (len(frame), tuple(frame)) == (0, rows.RESULT_COLUMNS)


def test_columns_are_named_in_the_order_of_the_rows(folders):
    store(folders["results"])
    catalog, records = load_catalog(), rows.Store(folders["results"])
    assert tuple(next(rows.result_rows(catalog, records))) == rows.RESULT_COLUMNS
    assert tuple(next(rows.published_rows(catalog))) == rows.PUBLISHED_COLUMNS


def test_published_numbers_are_those_of_the_cells():
    frame = dgm_bench.published().set_index("cell")
    declared = {name: cell for name, cell in CELLS.items() if cell.published}
    assert list(frame.index) == list(declared)
    assert all(frame["value"] == [float(cell.published.value) for cell in declared.values()])
    assert all(frame["unit"] == [cell.column.unit for cell in declared.values()])
    assert frame["citation"].str.len().min() > 0


def test_a_pattern_that_matches_nothing_is_told(folders):
    for ask in (dgm_bench.published, lambda pattern: dgm_bench.results(pattern, **folders)):
        with pytest.raises(UsageError, match="matches no cell"):
            ask("ffjord/density/mde/*")


def test_a_record_of_cells_that_are_no_more_is_left_out(folders):
    gone = make_cell("gone", "digits")
    store(folders["results"], gone)
    assert not len(dgm_bench.results("ffjord/*", **folders))


def test_the_front_imports_neither_torch_nor_pandas_nor_the_command_line():
    code = (
        "import sys, dgm_bench as d; assert {*d.__all__} <= {*dir(d)}; d.published;"
        "heavy = {'torch', 'pandas', 'click', 'mlflow'} & {*sys.modules}; assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = dgm_bench.lod
