"""The folder of a run under way: what is continued, and what starts over."""

import json
import os

import pytest

from dgm_bench.errors import ResultsError
from dgm_bench.sealed import write_sealed
from dgm_bench.workdir import WorkFolder, require_scratch


@pytest.fixture
def folder(tmp_path):
    folder = WorkFolder(tmp_path, "0" * 64, 3)
    folder.path.mkdir(parents=True)
    return folder


def test_a_run_that_was_refused_leaves_no_folder_and_another_its_state(tmp_path):
    folder = WorkFolder(tmp_path, "0" * 64, 3)
    with pytest.raises(RuntimeError), folder.locked():
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with folder.locked():
        folder.begin("code")
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    folder = WorkFolder(tmp_path, "0" * 64, 3)
    folder.path.mkdir(parents=True)
    (folder.path / ".run.json.99999999-1-00000000.x.tmp").write_text("half")
    os.utime(folder.path / ".run.json.99999999-1-00000000.x.tmp", (0, 0))
    with folder.locked():
        folder.begin("code")
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


def test_a_damaged_state_starts_the_run_again(folder, caplog):
    """Whole files with a path in the place of a name are no states either."""
    first, path = folder.begin("code"), folder.path / "run.json"
    path.write_bytes(path.read_bytes().replace(first.run_id[:8].encode(), b"20200101"))
    assert folder.begin("code").run_id != first.run_id
    for fields in (
        {"run_id": "../x"},
        {"record": "../../x.json"},
        {"record": "runs/a/../b/c/d.json"},
    ):
        text = json.dumps({**json.loads(first.model_dump_json()), **fields})
        write_sealed(path, text.encode())
        assert folder.state() is None
    assert len(caplog.records) == 4
    assert all("the run starts again" in record.getMessage() for record in caplog.records)


def checkpoint(folder):
    path = folder.stage("train") / "checkpoint.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"state")
    return path


def test_an_interrupted_run_goes_on_as_itself(folder):
    first, kept = folder.begin("code"), checkpoint(folder)
    assert folder.begin("code") == folder.state() == first
    assert kept.exists()


@pytest.mark.parametrize("status", [None, "budget"])
def test_no_run_is_continued_by_other_code(folder, status):
    first, kept = folder.begin("code"), checkpoint(folder)
    first.status = status
    folder.save(first)
    again = folder.begin("other code")
    assert again.run_id != first.run_id
    assert again.source_hash == "other code"
    assert not kept.exists()


def test_a_run_out_of_budget_goes_on_as_another_that_supersedes_it(folder):
    first, kept = folder.begin("code"), checkpoint(folder)
    first.status = "budget"
    folder.save(first)
    again = folder.begin("code")
    assert (again.supersedes, again.status) == (first.run_id, None)
    assert again.run_id != first.run_id
    assert kept.exists()


@pytest.mark.parametrize("status", ["complete", "diverged"])
def test_a_run_that_ended_starts_over(folder, status):
    first, kept = folder.begin("code"), checkpoint(folder)
    first.status = status
    folder.save(first)
    again = folder.begin("code")
    assert again.supersedes is None
    assert again.run_id != first.run_id
    assert not kept.exists()


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("DGM_BENCH_WORK", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_checkpoints_lie_on_scratch_and_lock_and_state_with_the_results(folder, scratch):
    folder.begin("code")
    kept = folder.stage("train")
    kept.mkdir(parents=True)
    assert kept.is_relative_to(scratch)
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]
    again = WorkFolder(folder.results, "0" * 64, 3)
    again.begin("code")
    assert again.stage("train") == kept
    again.clear()
    assert not list(scratch.iterdir())


def test_scratch_is_shared_by_results_folders_and_versions_of_the_code(tmp_path, scratch):
    """What another machine has gone on with since, with other code, is not found here."""
    places = set()
    for results in (tmp_path, tmp_path / "other"):
        folder = WorkFolder(results, "0" * 64, 3)
        folder.path.mkdir(parents=True)
        for code in ("code", "other"):
            folder.begin(code)
            places.add(folder.stage("train"))
    assert len(places) == 4


def test_a_run_that_began_without_scratch_goes_on_where_it_is(folder, scratch, monkeypatch):
    monkeypatch.delenv("DGM_BENCH_WORK")
    folder.begin("code")
    kept = checkpoint(folder).parent
    monkeypatch.setenv("DGM_BENCH_WORK", str(scratch))
    assert folder.stage("train") == kept
    assert folder.stage("other").is_relative_to(scratch)


def test_scratch_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DGM_BENCH_WORK", str(tmp_path / "file"))
    with pytest.raises(ResultsError, match="a file is in the place of a folder"):
        require_scratch()
