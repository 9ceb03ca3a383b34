"""A run as a whole: from the seed to the weights that its record's numbers are of."""

import numpy as np
import pytest
import torch
from factories import StopAfter, make_context
from safetensors.numpy import load_file
from train.reference import Reference
from train.tiny import Traits, features, log_density, make_data, make_model

from dgm_bench import execution
from dgm_bench.catalog import load_catalog
from dgm_bench.control import Control, Interrupted, ask
from dgm_bench.errors import UsageError
from dgm_bench.execution import Execution, resolve_device
from dgm_bench.planner import PlannedRun
from dgm_bench.records import read_record
from dgm_bench.spec import (
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.staged_training import checkpoint_seconds
from dgm_bench.store import Store
from dgm_bench.workdir import WorkFolder

CELL = load_catalog().cells[0]
STEPS = 14
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


def recipe(checkpoint, average):
    stage = Stage(
        data=DataSpec(name="tiny"),
        model=ModelSpec(name="tiny"),
        optimizer=OptimizerSpec(lr=0.3),
        batch_size=5,
        validation=ValidationSpec(every=2, unit="steps"),
        stopping=StoppingSpec(max_steps=STEPS),
        average_decay=average,
        precision="float64",
    )
    rule = EvaluationSpec(checkpoint=checkpoint, batch_size=3)
    return Recipe(name="tiny", stages=(stage,), evaluation=rule)


def run(results, wanted, traits, seed, monkeypatch, stops=(), control=None):
    """Run a recipe of the tiny model, stopped and continued; return metrics and weights."""
    tiny_models(monkeypatch, traits)
    planned = PlannedRun(CELL, (CELL.id,), seed, wanted)
    folder = WorkFolder(results, wanted.content_hash, seed)
    with folder.locked():
        for step in stops:
            context = make_context(results, control=StopAfter(step))
            with pytest.raises(Interrupted):
                Execution(planned, make_data("dequantised"), folder, context).run()
        context = make_context(results, control=control or Control())
        record = Execution(planned, make_data("dequantised"), folder, context).run()
    (weights,) = results.rglob("weights.safetensors")
    return record, load_file(weights)


def tiny_models(monkeypatch, traits):
    for name in ("staged_training.build", "execution.sketch"):
        monkeypatch.setattr(f"dgm_bench.{name}", lambda *_: make_model(traits))
    monkeypatch.setattr("dgm_bench.execution.make_pictures", lambda *_: {})


def reference(wanted, traits, seed):
    """Return the weights and the negative log-likelihood of the test split that a run ends with."""
    torch.manual_seed(seed)
    start = make_model(traits).values()
    data = make_data("dequantised")
    end = Reference(wanted.stages[0], traits, data, seed, start).run()[-1]
    assert any((end["best-weights"][n] != end["last"][n]).any() for n in start)
    weights = end["best-weights" if wanted.evaluation.checkpoint == "best" else "last"]
    p = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
    if traits.calibrates:
        p["centre"] = features(p, data.splits["train"]).mean(0)
    noise, values = torch.Generator().manual_seed(seed), []
    for part in data.splits["test"].split(3):
        x = data.dequantise(part, noise)
        values.append(-log_density(p, p["centre"], x, features(p, x)))
    return {name: value.numpy() for name, value in p.items()}, torch.cat(values).mean().item()


@pytest.mark.parametrize(
    ("checkpoint", "average", "calibrates"),
    [("best", 0.7, True), ("last", 0.7, False), ("best", None, False), ("last", None, True)],
)
def test_a_run_evaluates_the_weights_that_its_recipe_names(
    checkpoint, average, calibrates, tmp_path, monkeypatch
):
    wanted, traits = recipe(checkpoint, average), Traits(calibrates=calibrates)
    weights, value = reference(wanted, traits, 3)
    record, kept = run(tmp_path, wanted, traits, 3, monkeypatch, stops=(5, 4))
    assert record.metrics[0].name == "nll"
    assert record.metrics[0].split == "test"
    assert record.metrics[0].value == pytest.approx(value, rel=1e-9)
    assert kept.keys() == weights.keys()
    for name, wanted_value in weights.items():
        np.testing.assert_allclose(kept[name], wanted_value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("times", range(2, 60, 9))
def test_a_validation_that_is_stopped_leaves_the_training_s_noise_as_it_was(
    times, tmp_path, monkeypatch
):
    """The noise of dequantisation is the training's own: where nothing is kept it comes again."""
    monkeypatch.setattr("dgm_bench.kept.Journal.save", lambda self: None)
    traits = Traits(calibrates=True)
    wanted, found = recipe("last", 0.7), []
    rule = wanted.stages[0].validation.model_copy(update={"batch_size": 3})
    stage = wanted.stages[0].model_copy(update={"validation": rule})
    wanted = wanted.model_copy(update={"stages": (stage,)})
    monkeypatch.setenv("DGM_BENCH_CHECKPOINT_SECONDS", "0")
    for name, control in (("whole", Control()), ("stopped", StopAfter(times))):
        try:
            with control.active():
                found.append(run(tmp_path / name, wanted, traits, 3, monkeypatch, control=control))
        except Interrupted:
            found.append(run(tmp_path / name, wanted, traits, 3, monkeypatch))
    (whole, weights), (record, kept) = found
    assert record.metrics == whole.metrics
    assert all((kept[name] == value).all() for name, value in weights.items())


@pytest.mark.parametrize("refused", [False, True])
def test_on_an_apple_gpu_the_model_is_compared_before_it_is_trained(refused, tmp_path, monkeypatch):
    """One that this machine plays: what is compared, and that nothing is trained without it."""
    compared = []

    def compare(model, x, device):
        compared.append((model.values(), x))
        if refused:
            raise UsageError(f"--device {device.type}", "is off")

    for name in ("staged_training", "execution"):
        monkeypatch.setattr(f"dgm_bench.{name}.is_apple", lambda device: True)
    monkeypatch.setattr("dgm_bench.staged_training.require_same", compare)
    wanted = recipe("last", None)
    if refused:
        with pytest.raises(UsageError, match="is off"):
            run(tmp_path, wanted, Traits(), 3, monkeypatch)
        assert not list(tmp_path.rglob("*.safetensors"))
    else:
        found, _ = run(tmp_path, wanted, Traits(), 3, monkeypatch)
        assert found.metrics == run(tmp_path / "x", wanted, Traits(), 3, monkeypatch)[0].metrics
    weights, x = compared[0]
    torch.manual_seed(3)
    assert (weights["weight"] == make_model(Traits()).values()["weight"]).all()
    raw = make_data("dequantised").splits["train"]
    assert x.shape == raw.shape
    assert (x != raw).all()  # dequantised, as the model sees them


def test_an_apple_gpu_that_is_not_here_is_told(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(UsageError, match="--device mps: torch finds no Apple GPU; use --device"):
        resolve_device("mps")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert resolve_device("mps") == torch.device("mps")
    assert resolve_device("auto").type != "mps"


def test_another_seed_is_another_start(tmp_path, monkeypatch):
    """Without a step the weights are the first ones."""
    wanted, found = recipe("last", None), []
    still = wanted.stages[0].model_copy(update={"stopping": StoppingSpec(max_steps=0)})
    wanted = wanted.model_copy(update={"stages": (still,)})
    for seed in (3, 4):
        found.append(run(tmp_path / str(seed), wanted, Traits(), seed, monkeypatch)[1])
        torch.manual_seed(seed)
        np.testing.assert_array_equal(found[-1]["weight"], make_model(Traits()).values()["weight"])
    assert (found[0]["weight"] != found[1]["weight"]).all()


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e999", "soon", ""])
def test_checkpoints_come_after_a_time(text, monkeypatch):
    monkeypatch.setenv("DGM_BENCH_CHECKPOINT_SECONDS", text)
    with pytest.raises(UsageError, match=r"is no time from 0 on; give seconds, such as 30"):
        checkpoint_seconds()
    monkeypatch.setenv("DGM_BENCH_CHECKPOINT_SECONDS", "0.5")
    assert checkpoint_seconds() == 0.5


def test_checkpoints_are_gone_before_the_end_is_noted(tmp_path, monkeypatch):
    """No command looks for them after that, so that a kill in between would leave them for good."""
    save, there = WorkFolder.save, []

    def saving(folder, state):
        save(folder, state)
        if state.status is not None:
            there.extend(path.name for path in folder.path.iterdir())

    monkeypatch.setattr(WorkFolder, "save", saving)
    run(tmp_path, recipe("last", None), Traits(), 3, monkeypatch)
    assert sorted(there) == ["lock", "run.json"]


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Run a recipe within so many seconds; return its record and the checkpoints that it left."""
    tiny_models(monkeypatch, Traits())
    wanted = recipe("last", None)

    def call(limit=None, waited=0.0):
        folder = WorkFolder(tmp_path, wanted.content_hash, 3)
        planned, context = PlannedRun(CELL, (CELL.id,), 3, wanted), make_context(tmp_path)
        with folder.locked(), context.control.active():
            execution = Execution(planned, make_data("dequantised"), folder, context, limit)
            execution._started -= waited
            return execution.run(), [path.name for path in folder.path.rglob("*.pt")]

    return call


def fail(*_):
    raise torch.OutOfMemoryError("no memory for the evaluation")


def test_a_training_whose_evaluation_failed_is_evaluated_again(execute, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("dgm_bench.execution.evaluate", fail)
        failed, kept = execute()
        assert failed.outcome.status == "out-of-memory"
        assert failed.outcome.reason.startswith("evaluation: ")
        assert (failed.metrics, failed.budget.steps) == ((), STEPS)
        assert "checkpoint.pt" in kept
    monkeypatch.setattr("dgm_bench.train.loop.Trainer.step_on", None)  # none is taken
    again, kept = execute()
    assert (again.outcome.status, again.supersedes) == ("complete", failed.run_id)
    assert (again.budget.steps, kept) == (STEPS, [])
    cell = CELL.model_copy(update={"recipe": again.recipe})
    assert [record.run_id for record in Store(tmp_path).for_cell(cell)] == [again.run_id]


def test_a_run_cut_short_stays_so_where_its_evaluation_fails(execute, monkeypatch):
    monkeypatch.setattr("dgm_bench.execution.evaluate", fail)
    record, kept = execute(limit=1e-6)
    assert record.outcome.status == "budget"
    assert "evaluation: " in record.outcome.reason
    assert not record.metrics
    assert "checkpoint.pt" in kept


def test_a_run_that_waited_for_others_has_its_own_time_to_evaluate(execute, monkeypatch):
    monkeypatch.setattr("dgm_bench.execution.GRACE_SECONDS", 0.0)
    evaluated = execution.evaluate

    def asking(*given):
        ask()
        return evaluated(*given)

    monkeypatch.setattr("dgm_bench.execution.evaluate", asking)
    record, _ = execute(limit=3600.0, waited=7200.0)
    assert record.outcome.status == "complete"


def test_a_damaged_record_of_a_killed_run_is_written_again(tmp_path, monkeypatch, caplog):
    """The kill came between the record and the note of the end; the record is damaged besides."""
    wanted, save = recipe("last", None), WorkFolder.save

    def killed(folder, state):
        if state.status is not None:
            raise KeyboardInterrupt
        save(folder, state)

    monkeypatch.setattr(WorkFolder, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, wanted, Traits(), 3, monkeypatch)
    monkeypatch.setattr(WorkFolder, "save", save)
    (path,) = (tmp_path / "runs").rglob("*.json")
    path.write_bytes(path.read_bytes().replace(b'"seed": 3', b'"seed": 4'))
    record, _ = run(tmp_path, wanted, Traits(), 3, monkeypatch)
    assert "is damaged (another digest)" in caplog.text
    assert (record.run_id, read_record(path)) == (path.stem, record)
    assert not list(tmp_path.rglob("*.damaged"))
