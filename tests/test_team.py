"""Several processes for one run: what they are asked for, how they are started, how they end."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from unittest.mock import patch

import pytest
import torch
from test_two_stage import CELL, autoencoder, digits, prior, recipe
from train.forked import in_processes

from dgm_bench import execution
from dgm_bench.context import RunContext
from dgm_bench.errors import UsageError
from dgm_bench.execution import Execution
from dgm_bench.metrics.images.samples import drawn
from dgm_bench.planner import PlannedRun
from dgm_bench.spec import StoppingSpec, ValidationSpec
from dgm_bench.store import Store
from dgm_bench.team import Place, Team, follow, gathered, place, require_devices, watch
from dgm_bench.train.split import Split
from dgm_bench.train.world import ALONE, World
from dgm_bench.workdir import WorkFolder

at_length = pytest.mark.skipif(
    not os.environ.get("DGM_BENCH_ENGINES"), reason="DGM_BENCH_ENGINES=1 runs it; half a minute"
)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, None),
        ({"MASTER_ADDR": "a"}, None),
        ({"MASTER_ADDR": "a", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        (
            {"MASTER_ADDR": "a", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"},
            Place(5, 8, 1),
        ),
        (
            {"MASTER_ADDR": "a", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},
            Place(3, 4, 0),
        ),
    ],
)
def test_launchers_say_where_a_process_is(environment, found, monkeypatch):
    for name in ("MASTER_ADDR", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place() == found


def test_more_devices_than_there_are_is_one_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    require_devices(2, torch.device("cuda"))
    require_devices(5, CPU)
    with pytest.raises(UsageError) as error:
        require_devices(3, torch.device("cuda"))
    assert str(error.value) == "--devices 3: torch finds 2 GPUs; use --devices 2"


def test_one_device_starts_nothing(tmp_path):
    with gathered(RunContext(tmp_path, tmp_path, accumulate=3), CPU) as team:
        assert (team.split, list(team.processes)) == (Split(ALONE, 3), [])


def test_a_process_that_waits_for_ever_for_one_that_has_gone_ends(tmp_path):
    """As on GPUs, where nothing is raised."""
    gone = subprocess.Popen(["false"])
    gone.wait()
    world, heard = World(0, 2, lambda: ("rank 1", "is gone")), []
    watch(Team(Split(world), [gone], patience=0.0), Event(), heard.append)
    assert str(heard[0]).startswith("rank 1: is gone; the same command")
    over = Event()
    over.set()
    watch(Team(Split(world), [gone], patience=0.0), over, heard.append)
    assert len(heard) == 1


# ------------------------------------------------------------------------------- both stages


def images():
    """Digits as floating-point numbers, so that all is computed in double precision."""
    data = digits()
    parts = {name: part.double()[:60] / 255 for name, part in data.splits.items()}
    labels = {name: part[:60] for name, part in data.labels.items()}
    return replace(data, splits=parts, labels=labels, augment=None, dequantise=None)


def wanted():
    batches = ValidationSpec(every=5, unit="steps", batch_size=20)  # of which codes are made too
    few = {"precision": "float64", "stopping": StoppingSpec(max_steps=3), "validation": batches}
    stages = (autoencoder(), prior(0, dropout=0.1), prior(1))
    return recipe(*(stage.model_copy(update=few) for stage in stages))


def run_of(folder, team, seen):
    context = RunContext(folder / "data", folder / "results", device="cpu")
    run = PlannedRun(CELL, (CELL.id,), 0, wanted())
    work = WorkFolder(context.results, wanted().content_hash, 0)
    evaluate = execution.evaluate

    def drawing(model, *others):
        noise = torch.Generator().manual_seed(3)
        seen["images"] = drawn(model, torch.arange(10), 4, noise)
        return evaluate(model, *others)

    unseen = patch.object(execution, "make_pictures")
    with work.locked(), unseen, patch.object(execution, "evaluate", drawing):
        record = Execution(run, images(), work, context, None, team).run()
    seen["metrics"] = {metric.name: metric.value for metric in record.metrics}
    seen["codes"], seen["world"] = record.data.codes, record.scale.world_size
    return seen


def shared_run(world, folder, results):
    """One run, of which the first process returns what it saw."""
    if world.leads:
        team = Team(Split(world))
        seen = run_of(results, team, {})
        team.split.world.share(None)
        return seen
    context = RunContext(folder / "none", folder / "none", device="cpu")
    with patch("dgm_bench.data.load", lambda *_, **__: images()):
        follow(world, context, CPU)
    return sorted(path.name for path in (folder / "none").glob("**/*"))


def test_both_stages_of_a_run_are_the_same_on_two_processes(tmp_path):
    """Codes that are made, images that are drawn, and all numbers; the second writes nothing."""
    alone = run_of(tmp_path / "alone", Team(), {})

    def work(world):
        return shared_run(world, tmp_path, tmp_path / "shared")

    shared, left = in_processes(2, tmp_path, work)
    assert left == []
    assert (shared["world"], alone["world"]) == (2, 1)
    assert shared["codes"] == alone["codes"]
    assert torch.equal(shared["images"], alone["images"])
    assert shared["metrics"] == pytest.approx(alone["metrics"], rel=1e-6)


# ------------------------------------------------------------------------------- commands

RUN = ["-m", "dgm_bench", "run", "ffjord/density/maf-5/digits", "--budget", "none"]
RUN += ["--no-tracking", "--set", "stopping.max_steps=300"]


def command(results, *more, launcher=()):
    """A run of a few seconds; torch is started once for each process."""
    environment = {**os.environ, "DGM_BENCH_CHECKPOINT_SECONDS": "0.1"}
    words = [sys.executable, *launcher, *RUN, "--results", str(results), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process):
    out, error = process.communicate(timeout=400)
    return process.returncode, out + error


def likelihood(results):
    (record,) = Store(results).records()
    return record.metrics[0].value, record.scale.world_size


def others_of(process):
    """The processes that a command has started, once there is a checkpoint."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


def wait_for_checkpoint(results, process):
    while not list(results.glob("work/*/*/checkpoint.pt")):
        assert process.poll() is None, ended(process)
        time.sleep(0.05)


def saved_at(results):
    """When the newest checkpoint was written; None while it is exchanged for a newer one."""
    with suppress(FileNotFoundError, ValueError):
        (newest,) = results.glob("work/*/*/checkpoint.pt")
        return newest.stat().st_mtime_ns
    return None


def wait_for_more(results, process):
    """Wait until the newest checkpoint is another, or the run is over."""
    before = saved_at(results)
    while process.poll() is None and saved_at(results) in (before, None):
        time.sleep(0.05)


@at_length
def test_a_run_that_loses_a_rank_is_told_and_goes_on_with_any_number(tmp_path):
    assert ended(command(tmp_path / "alone"))[0] == 0
    results = tmp_path / "shared"
    broken = command(results, "--devices", "3")
    wait_for_checkpoint(results, broken)
    others = others_of(broken)
    os.kill(others[1], signal.SIGKILL)
    code, text = ended(broken)
    line = text.strip().splitlines()[-1]
    assert (code, line) == (
        1,
        "error: rank 2 of 3 processes: ended by SIGKILL; the same command goes on from the last "
        "checkpoint",
    )
    assert all(is_over(other) for other in others)
    left = command(results, "--devices", "2")
    wait_for_more(results, left)
    left.send_signal(signal.SIGTERM)
    code, text = ended(left)
    assert code in (0, 130), text
    assert ended(command(results))[0] == 0
    expected, found = likelihood(tmp_path / "alone"), likelihood(results)
    assert found[0] == pytest.approx(expected[0], rel=1e-3)  # in single precision


def is_over(process):
    deadline = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not Path(f"/proc/{process}").exists()


@at_length
def test_the_others_end_with_a_first_process_that_is_killed(tmp_path):
    process = command(tmp_path, "--devices", "2")
    wait_for_checkpoint(tmp_path, process)
    others = others_of(process)
    process.kill()
    process.communicate()
    assert len(others) == 1
    assert all(is_over(other) for other in others)


@at_length
def test_torchrun_starts_them_too(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    code, text = ended(command(tmp_path / "both", launcher=launcher))
    assert code == 0, text
    assert len(re.findall("nll ", text)) == 1  # one of them speaks
    assert ended(command(tmp_path / "alone"))[0] == 0
    (alone, one), (both, two) = (likelihood(tmp_path / name) for name in ("alone", "both"))
    assert (one, two) == (1, 2)
    assert both == pytest.approx(alone, rel=1e-3)  # in single precision
