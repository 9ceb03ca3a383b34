"""Seeds of one recipe in one command: trained together, each with the record that it has alone."""

import json
import math
from contextlib import suppress

import pytest
import torch
from factories import StopAfter, make_cell, make_context

from dgm_bench import together
from dgm_bench.control import Control
from dgm_bench.events import Reporter
from dgm_bench.planner import Machine, Plan, PlannedRun
from dgm_bench.runner import run_plan
from dgm_bench.spec import (
    Cost,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train.checkpoint import CheckpointFile
from dgm_bench.train.loop import Trainer

SEEDS = 3
MADE = ModelSpec(name="made:MADE", args={"hidden": [4]})
#: Has gradients alone that are others in their last bits than in the company of other seeds.
MAF = ModelSpec(name="maf:MAF", args={"layers": 2, "hidden": [16], "batch_norm": False})
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("dgm_bench.execution.make_pictures", lambda *_: {})


class Titles(Reporter):
    """Notes what is said of which run; a control that is given is stopped after the first."""

    def __init__(self, stopped=None):
        self.said, self.title, self.stopped = [], "", stopped

    def about(self, title, published):
        self.title = title

    def run_finished(self, record):
        self.said.append((self.title, record.seed))
        if self.stopped is not None:
            self.stopped._signal = "test", 0.0

    def run_kept(self, record):
        self.said.append(record.seed)

    def message(self, text):
        self.said.append(text)


def recipe(steps=12, patience=None, lr=0.02, every=4, model=MADE, data="digits"):
    stage = Stage(
        data=DataSpec(name=data),
        model=model,
        optimizer=OptimizerSpec(lr=lr, eps=1e-3),
        batch_size=32,
        validation=ValidationSpec(every=every, unit="steps"),
        stopping=StoppingSpec(max_steps=steps, patience=patience),
        precision="float64",
    )
    cost = Cost(steps=steps, flops_per_step=1e3, launches_per_step=10)
    return Recipe(name="small", stages=(stage,), cost=cost)


def run(
    folder,
    *,
    control=None,
    stop_after_first=False,
    budget=None,
    seconds=None,
    live=lambda _: None,
    **settings,
):
    wanted = recipe(**settings)
    cell = make_cell("made", "digits", recipe=wanted)
    runs = [
        PlannedRun(cell, (cell.id,), seed, wanted, seconds=seconds, runs=True)
        for seed in range(SEEDS)
    ]
    control = control or Control()
    told = Titles(control if stop_after_first else None)
    context = make_context(folder, track=False, reporter=told, control=control, live=live)
    return run_plan(Plan(tuple(runs), budget, Machine.here("cpu")), context), told


def numbers(record, folder):
    """What the seed and the recipe decide."""
    lines = record.path(folder / "results").with_suffix(".csv").read_text().split()[1:]
    rows = [[float(v) for v in line.split(",")[:6] if v] for line in lines]
    curve = [[v for i, v in enumerate(row) if i != 2] for row in rows]
    return [metric.value for metric in record.metrics], curve, record.budget.steps


def assert_same(alone, others, folder, seeds=range(SEEDS)):
    folders, ones = (alone[1], folder), [alone[0][seed] for seed in seeds]
    assert [one.seed for one in ones] == [other.seed for other in others]
    for one, other in zip(ones, others, strict=True):
        found = [numbers(r, f) for r, f in zip((one, other), folders, strict=True)]
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
        assert found[0][2] == found[1][2]
        for row, same in zip(found[0][1], found[1][1], strict=True):
            assert row == pytest.approx(same, rel=1e-9)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The records of seeds that were run one after the other, and their folder."""
    folder, before = tmp_path_factory.mktemp("alone"), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dgm_bench.execution.make_pictures", lambda *_: {})
        patch.setattr(together, "why_apart", lambda recipe: "a test")
        finished = run(folder)[0].finished
    torch.set_default_dtype(before)
    return finished, folder


def test_seeds_together_leave_the_records_of_seeds_alone_and_say_so(alone, tmp_path):
    summary, told = run(tmp_path)
    assert_same(alone, summary.finished, tmp_path)
    assert [r.budget.seeds_together for r in (*alone[0], *summary.finished)] == [1] * 3 + [3] * 3
    assert [r.budget.train_seconds_of_others > 0 for r in summary.finished] == [True] * SEEDS
    assert [r.budget.train_seconds_of_others for r in alone[0]] == [0.0] * SEEDS
    assert told.said == [(f"MADE on DIGITS, seed {seed}", seed) for seed in range(SEEDS)]
    again, told = run(tmp_path)
    assert again.finished == summary.finished
    assert told.said == list(range(SEEDS))


@pytest.mark.parametrize("stop", [{"control": StopAfter(8)}, {"stop_after_first": True}])
def test_a_command_that_is_stopped_goes_on_with_all_seeds(stop, alone, tmp_path):
    """In the training of all, or when the first is recorded and the second is to be evaluated."""
    summary, _ = run(tmp_path, **stop)
    assert summary.interrupted
    assert len(summary.finished) == ("stop_after_first" in stop)
    rest, _ = run(tmp_path)
    assert_same(alone, rest.finished, tmp_path)
    assert [record.budget.seeds_together for record in rest.finished] == [SEEDS] * SEEDS


def curves(told):
    """The rows of curves that runs told while they went on, by run, as their files have them."""
    found = {}
    for rows in told:
        found.setdefault(rows.run_id, []).extend(r for r in rows.rows if r[4] is not None)
    return found


def test_runs_tell_their_curves_while_they_go_on_and_again_from_a_checkpoint(tmp_path):
    told, control = [], Control()

    def live(rows):
        told.append(rows)
        if all(len(rows) > 1 for rows in curves(told).values()) and len(curves(told)) == SEEDS:
            control.request("seen enough")

    assert run(tmp_path, control=control, live=live)[0].interrupted
    before = {run_id: rows[:] for run_id, rows in curves(told).items()}
    told.clear()
    records = run(tmp_path, live=told.append)[0].finished
    assert {first.run_id for first in told[:SEEDS]} == before.keys() == curves(told).keys()
    assert all(first.data.fingerprints == records[0].data.fingerprints for first in told[:SEEDS])
    assert not any(rows.data for rows in told[SEEDS:])
    for record in records:
        (key,) = {(r.recipe_hash, r.seed) for r in told if r.run_id == record.run_id}
        assert key == (record.recipe_hash, record.seed)
        lines = record.path(tmp_path / "results").with_suffix(".csv").read_text().split()[1:]
        stored = [tuple(float(v) if v else None for v in line.split(",")) for line in lines]
        rows = curves(told)[record.run_id]
        assert rows == stored
        assert rows[: len(before[record.run_id])] == before[record.run_id]
        assert len(before[record.run_id]) > 1


class Killed(BaseException):
    """Stands in for the end of the process."""


def killed_after(saves, folder, **settings):
    """Run until so many checkpoints are written; say whether that many were."""
    written, save = 0, CheckpointFile.save

    def counted(file, state):
        nonlocal written
        save(file, state)
        written += 1
        if written == saves:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFile, "save", counted)
        with suppress(Killed):
            run(folder, **settings)
    return written == saves


def bits(summary, folder):
    weights = [
        (folder / "results/artifacts" / record.run_id / "weights.safetensors").read_bytes()
        for record in summary.finished
    ]
    return weights, [numbers(record, folder) for record in summary.finished]


def test_seeds_killed_between_their_checkpoints_end_with_the_same_bits(tmp_path, monkeypatch):
    """Whatever some have saved and others not, also where they end at different steps."""
    settings = {"steps": 12, "patience": 0, "lr": 0.4, "every": 2, "model": MAF, "data": "pinwheel"}
    monkeypatch.setenv("DGM_BENCH_CHECKPOINT_SECONDS", "0")
    undisturbed = bits(run(tmp_path / "one", **settings)[0], tmp_path / "one")
    assert len({steps for *_, steps in undisturbed[1]}) > 1
    for saves in (1, 4, 13, 20, 22):
        folder = tmp_path / str(saves)
        assert killed_after(saves, folder, **settings)
        assert bits(run(folder, **settings)[0], folder) == undisturbed


def test_a_seed_that_fails_leaves_its_record_and_the_others_theirs(alone, tmp_path, monkeypatch):
    original = Trainer.after_step

    def broken(trainer):
        if trainer.seed == 1 and trainer.tally.step == 6:
            next(trainer.model.parameters()).data.fill_(math.nan)
        original(trainer)

    monkeypatch.setattr(Trainer, "after_step", broken)
    summary, _ = run(tmp_path)
    (failed,) = summary.failed
    assert (failed.seed, failed.outcome.status, failed.budget.steps) == (1, "diverged", 8)
    assert_same(alone, summary.finished, tmp_path, seeds=(0, 2))


def test_seeds_share_the_budget_of_their_command(tmp_path):
    summary, _ = run(tmp_path, budget=0.3, seconds=0.1, steps=10**6)
    spent = [record.budget for record in summary.finished]
    assert [record.outcome.status for record in summary.finished] == ["budget"] * SEEDS
    assert sum(one.limit_seconds for one in spent) == pytest.approx(0.3, abs=0.05)
    for one in spent:
        assert one.train_seconds + one.validation_seconds >= one.limit_seconds
    stored = json.loads(summary.finished[0].path(tmp_path / "results").read_text())
    assert stored["budget"]["seeds_together"] == SEEDS


def test_without_memory_for_all_each_seed_says_so(tmp_path, monkeypatch):
    def full(self):
        raise MemoryError

    monkeypatch.setattr("dgm_bench.joint_execution.TrainersTogether.run", full)
    summary, _ = run(tmp_path)
    assert [r.outcome.status for r in summary.failed] == ["out-of-memory"] * SEEDS
    assert "batch_size" in summary.failed[0].outcome.hint
