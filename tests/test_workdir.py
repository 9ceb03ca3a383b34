"""The folder of a run under way: what is continued, and what starts over."""

import pytest

from dgm_bench.workdir import WorkFolder


@pytest.fixture
def folder(tmp_path):
    folder = WorkFolder(tmp_path, "0" * 64, 3)
    folder.path.mkdir(parents=True)
    return folder


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
