"""The command as a person meets it: real runs, kills, wrong input, full disks."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time

import pytest

from dgm_bench.catalog import load_catalog
from dgm_bench.errors import ResultsError
from dgm_bench.records import read_record
from dgm_bench.sealed import write_atomically

SHORT = ("--budget", "none", "--threads", "1", "--offline", "--no-tracking")
MAF = "ffjord/density/maf-5/8gaussians"
#: Many steps that take little.
STEPS = (
    "stopping.patience=null",
    "stopping.max_steps=1200",
    "validation.every=50",
    "model.args.layers=1",
    "model.args.hidden=[8]",
    "batch_size=50",
)


def dgm_bench(*words, timeout=300, **variables):
    command = [sys.executable, "-m", "dgm_bench", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def arguments(results):
    changes = [word for change in STEPS for word in ("--set", change)]
    return ["run", MAF, *SHORT, "--results", str(results), *changes]


def the_record(results):
    (path,) = (results / "runs").rglob("*.json")
    return read_record(path)


def one_line_error(done):
    assert done.returncode == 2, done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("error: ")
    assert "Traceback" not in done.stderr
    return last


def runs_nowhere(results):
    return not list(results.rglob("*.json")) and not list(results.rglob("*.pt"))


def test_a_time_limit_leaves_in_good_order_and_the_same_command_goes_on(tmp_path):
    words = arguments(tmp_path)
    first = dgm_bench(*words, "--time-limit", "0.2s")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1].startswith("1 unfinished in ")
    assert not list((tmp_path / "runs").rglob("*.json"))
    second = dgm_bench(*words)
    assert second.returncode == 0, second.stderr
    record = the_record(tmp_path)
    *limited, last = [segment.reason for segment in record.budget.segments]
    assert set(limited) <= {"time limit"}  # it may pass while the data set is loaded
    assert last == "max_steps"
    assert record.modified == STEPS
    (stage,) = record.recipe.stages
    assert (stage.stopping.patience, stage.stopping.max_steps) == (None, 1200)
    assert record.recipe_hash == record.recipe.content_hash
    third = dgm_bench(*words)
    assert third.returncode == 0
    assert third.stdout.splitlines()[-1].startswith("1 done before in ")
    assert the_record(tmp_path) == record


def test_sigterm_checkpoints_and_the_same_command_goes_on(tmp_path):
    words = arguments(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DGM_BENCH_CHECKPOINT_SECONDS": "0.05"}
    command = [sys.executable, "-m", "dgm_bench", *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list((tmp_path / "work").glob("*/*/checkpoint.pt")):
            time.sleep(0.01)
        process.terminate()
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "SIGTERM" in said
    assert dgm_bench(*words).returncode == 0
    reasons = [segment.reason for segment in the_record(tmp_path).budget.segments]
    assert reasons == ["SIGTERM", "max_steps"]


def test_a_run_out_of_budget_says_so_and_more_budget_supersedes_it(tmp_path):
    words = [*arguments(tmp_path), "--set", "model.args.layers=5"]
    said = dgm_bench(*words, "--budget", "1.5s")  # more than a fifth of its time
    assert (said.returncode, "1 unfinished in" in said.stdout) == (0, True)
    short = the_record(tmp_path)
    assert short.outcome.status == "budget"
    assert dgm_bench(*words, "--budget", "none").returncode == 0
    paths = sorted((tmp_path / "runs").rglob("*.json"))
    later = next(r for r in map(read_record, paths) if r.run_id != short.run_id)
    assert later.supersedes == short.run_id
    assert later.outcome.status == "complete"
    assert later.budget.steps == 1200


def test_a_loss_that_is_nan_ends_that_run_with_a_status_and_the_others_go_on(tmp_path):
    cells = ["ffjord/density/made/8gaussians", "ffjord/density/gaussian/8gaussians"]
    words = ["run", *cells, *SHORT, "--results", tmp_path, "--set", "optimizer.lr=1e30"]
    done = dgm_bench(*words)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    records = {r.row: r for r in map(read_record, (tmp_path / "runs").rglob("*.json"))}
    assert records["made"].outcome.status == "diverged"
    assert records["made"].outcome.hint
    assert records["gaussian"].outcome.status == "complete"


def test_two_processes_on_the_same_run(tmp_path):
    cell = next(cell for cell in load_catalog().cells if cell.id == MAF)
    folder = tmp_path / "work" / f"{cell.recipe.content_hash[:12]}-s0"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = dgm_bench("run", MAF, *SHORT, "--results", tmp_path)
    line = one_line_error(done)
    assert "4711" in line
    assert "stop it first" in line
    assert runs_nowhere(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "ffjord/density/mad/digits"], "did you mean 'ffjord/density/made/digits'"),
        (["run", MAF, "--budget", "-5m"], "--budget"),
        (["run", MAF, "--set", "optimizer.rate=1"], "a recipe has no 'rate'"),
        (["run", MAF, "--set", "batch_size=many"], "batch_size"),
        (["run", MAF, "--set", "batch_size=0"], "batch_size"),
        (["run", MAF, "--set", "model.args.hiden=[3]"], "did you mean 'hidden'"),
        (["run", MAF, "--set", "model.args.hidden=5"], "use a list"),
        (["run", MAF, "--set", "evaluation.split=tset"], "evaluation.split"),
        (["run", MAF, "--set", "model.args.layers=0"], "use a number above 0"),
        (["run"], "takes a PATTERN or a paper"),
        (["run", "ffjord/density/glow/power"], "nothing ran"),
        (["rum", MAF], "run"),
        (["table", "ffjord/densty"], "ffjord/density"),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(words, told, tmp_path):
    done = (
        dgm_bench(*words, "--results", tmp_path, "--data-root", tmp_path / "data")
        if words[0] == "run"
        else dgm_bench(*words)
    )
    assert told in one_line_error(done)
    assert runs_nowhere(tmp_path)


def test_results_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    line = one_line_error(dgm_bench("run", MAF, *SHORT, "--results", tmp_path / "file" / "results"))
    assert "cannot be written" in line or "not a directory" in line.lower()


def test_a_truncated_data_file(tmp_path):
    home = tmp_path / "mnist"
    home.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (home / f"{name}-ubyte.gz").write_bytes(b"\x1f\x8b\x08\x00short")
    words = ["run", "ffjord/density/gaussian/mnist", *SHORT, "--results", tmp_path / "results"]
    line = one_line_error(dgm_bench(*words, "--data-root", tmp_path))
    assert "mnist" in line
    assert runs_nowhere(tmp_path / "results")


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match="No space left"):
        write_atomically(tmp_path / "runs" / "record.json", b"{}")
    assert list((tmp_path / "runs").iterdir()) == []


def test_json_goes_to_stdout_alone():
    done = dgm_bench("list", "ffjord/density/made/*", "--json")
    assert json.loads(done.stdout)["cells"]
    assert done.stderr == ""
