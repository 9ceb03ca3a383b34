"""Several processes for one run: what they are asked for, how they are started, how they end."""

import os
from dataclasses import replace
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
from dgm_bench.spec import StoppingSpec
from dgm_bench.team import Place, Team, follow, gathered, place, require_devices
from dgm_bench.train.split import Split
from dgm_bench.train.world import ALONE
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


# ------------------------------------------------------------------------------- both stages


def images():
    """Digits as floating-point numbers, so that all is computed in double precision."""
    data = digits()
    parts = {name: part.double()[:60] / 255 for name, part in data.splits.items()}
    labels = {name: part[:60] for name, part in data.labels.items()}
    return replace(data, splits=parts, labels=labels, augment=None, dequantise=None)


def wanted():
    few = {"precision": "float64", "stopping": StoppingSpec(max_steps=3)}
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
