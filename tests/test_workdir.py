"""The folder of a run under way: what is continued, and what starts over."""

import json
import os
from contextlib import suppress

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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"state")
    return path


def test_an_interrupted_run_goes_on_as_itself(folder):
    first, kept = folder.begin("code"), checkpoint(folder)
    assert folder.begin("code") == folder.state() == first
    assert kept.exists()


def beside(folder):
    return sorted(path.name for path in folder.path.parent.iterdir() if path != folder.path)


@pytest.mark.parametrize("on_scratch", [False, True])
@pytest.mark.parametrize("status", [None, "budget"])
def test_no_run_is_continued_by_other_code_but_by_its_own_when_that_is_back(
    folder, status, on_scratch, request, caplog
):
    if on_scratch:
        request.getfixturevalue("scratch")
    first, kept = folder.begin("code"), checkpoint(folder)
    first.status = status
    folder.save(first)
    again = folder.begin("other code")
    assert again.run_id != first.run_id
    assert (again.source_hash, again.supersedes) == ("other code", status and first.run_id)
    assert not (folder.stage("train") / kept.name).exists()
    (said,) = (record.getMessage() for record in caplog.records)
    assert f"checkpoints are kept in {folder.path.name}.code: " in said
    (folder.stage("train")).mkdir(parents=True)
    folder.stage("train").joinpath(kept.name).write_bytes(b"other state")

    back = folder.begin("code")
    assert (back == first) if status is None else (back.supersedes == first.run_id)
    assert (folder.stage("train") / kept.name).read_bytes() == b"state"
    assert beside(folder) == [f"{folder.path.name}.other code"]
    assert WorkFolder(folder.results, "0" * 64, 3).begin("other code") == again
    assert beside(folder) == [f"{folder.path.name}.code"]


@pytest.mark.parametrize("kills", [1, 2, 3])
@pytest.mark.parametrize("codes", [("other", "code"), ("code",)])
def test_kills_while_checkpoints_are_exchanged_mix_no_code(folder, monkeypatch, kills, codes):
    first = folder.begin("code")
    for stage in ("first", "second"):
        (folder.path / stage).mkdir()
        (folder.path / stage / "checkpoint.pt").write_bytes(b"of code")
    if codes == ("code",):
        folder.begin("other")
    replace, left = os.replace, [kills]

    def killed(*places):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        replace(*places)

    monkeypatch.setattr(os, "replace", killed)
    with suppress(KeyboardInterrupt):
        folder.begin(codes[0])
    monkeypatch.setattr(os, "replace", replace)
    for code in codes:
        state = folder.begin(code)
        there = {path.read_bytes() for path in folder.path.glob("*/checkpoint.pt")}
        assert there == ({b"of code"} if code == "code" else set())
    assert state == first
    assert len(list(folder.path.glob("*/checkpoint.pt"))) == 2


@pytest.mark.parametrize("on_scratch", [False, True])
def test_a_complete_run_leaves_no_checkpoints_of_other_code(folder, on_scratch, request, tmp_path):
    if on_scratch:
        request.getfixturevalue("scratch")
    folder.begin("code"), checkpoint(folder)
    folder.begin("other code"), checkpoint(folder)
    folder.clear(of_all_codes=True)
    assert not beside(folder)
    assert not list(tmp_path.rglob("*.pt"))
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


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
