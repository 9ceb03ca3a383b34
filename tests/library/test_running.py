"""Plans and runs from Python are those of the command line."""

import json

import pytest

import dgm_bench
from dgm_bench.cli import cli
from dgm_bench.cli.queries import plan_json
from dgm_bench.errors import UsageError

CELL = "ffjord/density/made/8gaussians"


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "own").mkdir()
    return {"results": tmp_path / "own", "stored": "none", "data_root": tmp_path}


def test_a_plan_is_that_of_the_command(folders, capsys):
    planned = dgm_bench.plan("ffjord/density/*/8gaussians", budget=60, device="cpu", **folders)
    where = ["--results", str(folders["results"]), "--data-root", str(folders["data_root"])]
    words = ["plan", "ffjord/density/*/8gaussians", "--budget", "60s", "--device", "cpu"]
    with pytest.raises(SystemExit):
        cli.main([*words, "--jobs", "1", "--json", *where])
    shown = json.loads(capsys.readouterr().out)
    assert plan_json(planned)["cells"] == shown["cells"]
    assert 0 < len(planned.chosen) < len(planned.runs)


def test_a_run_gives_its_record_and_a_model_with_its_numbers_to_the_bit(folders, capfd):
    changes = {"stopping.max_steps": 2, "stopping.patience": "1"}
    settled = {"settings": changes, "device": "cpu", "track": False, **folders}
    (record,) = dgm_bench.run(CELL, budget=None, **settled).finished
    assert capfd.readouterr() == ("", "")
    frame = dgm_bench.results(CELL, results=folders["results"], stored="none")
    assert {*frame["run"]} == {record.run_id}
    assert {*frame["modified"]} == {"stopping.max_steps=2 stopping.patience=1"}
    model = dgm_bench.load(CELL, run=record.run_id, **folders)
    assert model.record == record
    assert tuple(model.evaluate()) == record.metrics
    again = dgm_bench.run(CELL, budget=None, progress=True, **settled)
    assert again.finished == [record]
    assert "MADE" in capfd.readouterr().out


def test_only_what_is_missing_is_run(folders):
    settled = {"settings": {"stopping.max_steps": 2, "stopping.patience": "1"}, "device": "cpu"}
    dgm_bench.run(CELL, budget=None, track=False, **settled, **folders)
    (planned,) = dgm_bench.plan(CELL, seeds=2, missing=True, **settled, **folders).chosen
    assert planned.seed == 1
    summary = dgm_bench.run(CELL, missing=True, budget=None, track=False, **settled, **folders)
    assert not summary.finished


def test_what_cannot_run_is_told(folders):
    with pytest.raises(UsageError, match=r"nothing ran: data not here: .*power"):
        dgm_bench.run(
            "ffjord/density/made/power", device="cpu", track=False, offline=True, **folders
        )
    with pytest.raises(UsageError, match="takes at least one pattern"):
        dgm_bench.run(**folders)
    with pytest.raises(UsageError, match="matches no cell"):
        dgm_bench.plan("ffjord/density/mode/*", **folders)


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path):
    named = {"results": tmp_path / "nothing"}
    for ask in (dgm_bench.results, dgm_bench.plan, dgm_bench.load):
        with pytest.raises(UsageError, match="nothing: no such results folder"):
            ask(CELL, **named)
