"""What work folders tell of runs that stopped in the middle, without torch."""

import pytest
import torch
from factories import make_context

from dgm_bench.engines.interrupted import interrupted_runs
from dgm_bench.records import CUT_SHORT
from dgm_bench.train.checkpoint import CheckpointFile
from dgm_bench.train.tally import Tally
from dgm_bench.workdir import WorkFolder

CELL, SETTINGS = "ffjord/density/maf-5/digits", ("model.args.hidden=[16]", "batch_size=8")


def state_at(step):
    """What a stage saves, with all kinds of things that checkpoints hold."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(3, 2)}
    return {
        "model": net.state_dict(),
        "optimizer": {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}]},
        "tally": vars(Tally(step=step)),
        "noise": torch.Generator().get_state(),
        "sampler": (1, 2),
    }


@pytest.fixture(params=["", "scratch"])
def folder(request, tmp_path, monkeypatch):
    """A run that was begun and is at step 70, having been at 35; its checkpoints may lie apart."""
    monkeypatch.setenv("DGM_BENCH_WORK", request.param and str(tmp_path / request.param))
    work = WorkFolder(make_context(tmp_path).results, "0123456789abcdef", 2)
    work.path.mkdir(parents=True)
    work.begin("code", CELL, SETTINGS)
    for step in (35, 70):
        CheckpointFile(work.stage("train")).save(state_at(step))
    return work


def test_a_run_that_stopped_is_told_with_its_step_and_what_goes_on_with_it(folder):
    (run,) = interrupted_runs(folder.results)
    assert (run.folder, run.cell, run.seed) == ("0123456789ab-s2", CELL, 2)
    assert (run.stage, run.step, run.out_of_budget) == ("train", 70, False)
    assert run.since.endswith("Z")
    assert run.command == (
        f"dgm-bench run {CELL} --seeds 3 --set 'model.args.hidden=[16]' --set batch_size=8"
        f" --results {folder.results}"
    )


def test_one_that_ran_out_of_budget_waits_too_and_one_that_ended_does_not(folder):
    state = folder.state()
    state.status = CUT_SHORT
    folder.save(state)
    assert interrupted_runs(folder.results)[0].out_of_budget
    state.status = "complete"
    folder.save(state)
    assert interrupted_runs(folder.results) == []
    folder.clear()
    state.status = None
    folder.save(state)
    assert interrupted_runs(folder.results) == []


def test_one_that_a_process_does_is_not_interrupted(folder):
    with folder.locked():
        assert interrupted_runs(folder.results) == []
    (folder.path / "lock").write_text("process 4194305 on here\n4194305-1-elsewhere\n")
    assert interrupted_runs(folder.results) == []


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_a_checkpoint_that_is_cut_off_says_no_step(folder, size):
    newest = CheckpointFile(folder.stage("train")).newest
    newest.write_bytes(newest.read_bytes()[:size])
    assert [run.step for run in interrupted_runs(folder.results)] == [None]
    assert newest.exists()


def test_what_is_no_state_of_a_run_is_left_as_it_is(folder):
    file = folder.path / "run.json"
    for content in (b"", b"{}", file.read_bytes()[:50]):
        file.write_bytes(content)
        assert interrupted_runs(folder.results) == []
        assert file.read_bytes() == content
