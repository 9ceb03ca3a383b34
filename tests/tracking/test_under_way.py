"""MLflow's side: runs that are shown while they go on, and cells that sum up their seeds."""

import hashlib
from types import SimpleNamespace

import pytest
import torch
from factories import make_data, make_metric, make_published, make_table
from safetensors.torch import save as to_safetensors
from stored_runs import CELL, METRICS, rows, store_run

from dgm_bench.catalog import load_catalog
from dgm_bench.models.build import build
from dgm_bench.planner import PlannedRun
from dgm_bench.records import WEIGHTS, Outcome
from dgm_bench.tracking import groups as cells_side
from dgm_bench.tracking import model as model_side
from dgm_bench.tracking.address import read_address
from dgm_bench.tracking.begun import Begun, Told
from dgm_bench.tracking.client import Log
from dgm_bench.tracking.groups import GROUP_TAG
from dgm_bench.tracking.runs import LAYOUT, LOGGED_TAG, PARENT_TAG, RUN_ID_TAG

STARTED = 1_767_225_600_000
PUBLISHED = CELL.model_copy(update={"published": make_published("-0.30")})


@pytest.fixture
def results(tmp_path, database, monkeypatch):
    """A results folder with an empty MLflow database, and a paper that has a number."""
    catalog = SimpleNamespace(tables=[make_table([PUBLISHED])])
    monkeypatch.setattr(cells_side, "load_catalog", lambda: catalog)
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    return tmp_path


def log_of(results):
    return Log(results, read_address(f"sqlite:///{results}/mlflow.db"))


def begun(record):
    run = PlannedRun(CELL, record.cells, record.seed, record.recipe)
    return Begun.of(run, record.run_id, STARTED, record.code)


def told(*numbers, seconds=0.0):
    """What a run tells: a step, a loss, and a validation where there was one."""
    made = tuple((step, 1.0, None, loss, val, 1e-4, None) for step, loss, val in numbers)
    return [Told(time=STARTED + int(1000 * seconds), stage="", rows=made)]


def shown(results):
    """Return MLflow's client, the runs of cells and those of records."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{results}/mlflow.db")
    experiment = client.get_experiment_by_name("ffjord/density")
    found = client.search_runs([experiment.experiment_id], order_by=["start_time"])
    above = [run for run in found if GROUP_TAG in run.data.tags]
    return client, above, [run for run in found if run not in above]


def steps(client, run, key):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def everything(results):
    """Return all that the database has, but when a file was uploaded."""
    tables = "runs", "metrics", "params", "tags", "experiment_tags", "datasets", "inputs"
    return {table: sorted(map(repr, rows(results / "mlflow.db", f"select * from {table}")))
            for table in tables}  # fmt: skip


def end(log, record):
    new = log.once(record.path(log.results))
    log.settle()
    return new


# --------------------------------------------------------------------------- while they go on


def test_a_curve_is_there_before_its_run_ends_and_goes_on_in_the_same_run(results):
    record = store_run(results)  # steps 100, 200, 300
    log = log_of(results)
    log.live(begun(record), [], make_data())
    log.live(begun(record), told((50, 2.5, None), (100, None, 3.0)), None)
    client, (cell,), (run,) = shown(results)
    assert (cell.info.status, run.info.status) == ("RUNNING", "RUNNING")
    assert run.data.tags[PARENT_TAG] == cell.info.run_id
    assert run.data.params["train.optimizer.lr"] == "0.0001"
    assert steps(client, run, "validation") == [(100, 3.0)]
    assert steps(client, run, "train_loss") == [(50, 2.5)]
    (train, *_) = (item.dataset for item in run.inputs.dataset_inputs)
    assert (train.name, train.digest) == ("power", make_data().fingerprints["train"][:36])

    assert end(log, record) is True
    client, (cell,), (same,) = shown(results)
    assert same.info.run_id == run.info.run_id
    assert (cell.info.status, same.info.status) == ("FINISHED", "FINISHED")
    assert [step for step, _ in steps(client, same, "validation")] == [100, 200, 300]
    assert [step for step, _ in steps(client, same, "train_loss")] == [50, 200, 300]
    assert {n for *_, n in rows(results / "mlflow.db", METRICS)} == {1}
    assert end(log_of(results), record) is False


def test_a_run_that_was_interrupted_goes_on_where_it_was(results):
    record = store_run(results)
    first = log_of(results)
    first.live(begun(record), told((100, None, 3.0), (200, 1.0, 3.0), (250, 0.9, None)), None)
    first.leave()
    _, (cell,), (run,) = shown(results)
    assert (cell.info.status, run.info.status) == ("KILLED", "KILLED")

    again = log_of(results)  # from the checkpoint at step 200, whose rows are told again
    again.live(begun(record), told((100, None, 3.0), (200, 1.0, 3.0), seconds=60), None)
    again.live(begun(record), told((220, 0.95, None), (280, 0.8, None), seconds=70), None)
    client, _, (same,) = shown(results)
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "RUNNING")
    assert [step for step, _ in steps(client, same, "train_loss")] == [200, 250, 280]
    end(again, record)
    client, _, (same,) = shown(results)
    assert [step for step, _ in steps(client, same, "validation")] == [100, 200, 300]
    assert {n for *_, n in rows(results / "mlflow.db", METRICS)} == {1}


@pytest.mark.parametrize("fails", ["log_batch", "create_run", "log_inputs"])
def test_what_mlflow_did_not_take_is_shown_the_next_time(results, monkeypatch, fails):
    from mlflow import MlflowClient

    record, log = store_run(results), log_of(results)
    log.live(begun(record), told((100, None, 3.0)), None) if fails == "log_batch" else None
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, fails, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            log.live(begun(record), told((200, 1.0, 2.0)), make_data())
    log.live(begun(record), told((200, 1.0, 2.0)), make_data())
    client, _, (run,) = shown(results)
    assert steps(client, run, "validation")[-1] == (200, 2.0)
    assert {n for *_, n in rows(results / "mlflow.db", METRICS)} == {1}


def test_the_machine_is_shown_with_runs_under_way(results):
    record, log = store_run(results), log_of(results)
    log.live(begun(record), [], None)
    log.measured({"cpu_utilization_percentage": 70.0})
    client, _, (run,) = shown(results)
    ((step, percent),) = steps(client, run, "system/cpu_utilization_percentage")
    assert percent == 70.0
    assert step > 0


# --------------------------------------------------------------------------- cells


def test_a_cell_sums_up_its_seeds_and_is_brought_up_to_date(results):
    log = log_of(results)
    end(log, store_run(results, seed=0, metrics=(make_metric(-0.24),)))
    _, (cell,), (run,) = shown(results)
    assert run.data.tags[PARENT_TAG] == cell.info.run_id
    numbers, tags = cell.data.metrics, cell.data.tags
    assert (numbers["nll"], numbers["published"], numbers["seeds"]) == (-0.24, -0.30, 1)
    assert numbers["difference"] == pytest.approx(-0.06), "lower is better, and it is higher"
    assert tags["dgm_bench.verdict"] == "inconclusive"
    assert "nll_se" in numbers

    end(log, store_run(results, seed=1, metrics=(make_metric(-0.26),)))
    end(log, store_run(results, seed=2, metrics=(make_metric(-0.25),)))
    _, (same,), children = shown(results)
    assert same.info.run_id == cell.info.run_id
    assert {run.data.tags[PARENT_TAG] for run in children} == {cell.info.run_id}
    assert same.data.metrics["nll"] == pytest.approx(-0.25)
    assert same.data.metrics["seeds"] == 3
    assert same.data.tags["dgm_bench.verdict"] == "worse"
    assert "worse" in same.data.tags["mlflow.note.content"]
    assert same.data.tags["mlflow.user"]
    assert same.data.tags["mlflow.source.git.commit"] == run.data.tags["dgm_bench.git_commit"]


@pytest.mark.parametrize("many", [False, True])
def test_logging_again_changes_nothing(results, many):
    records = [store_run(results, seed=seed) for seed in range(2)]
    for record in records:
        end(log_of(results), record)
    before, log = everything(results), log_of(results)
    assert not any(log.once(record.path(results), many=many) for record in records)
    log.settle(many=many)
    assert everything(results) == before


def test_a_cell_whose_run_somebody_deleted_gets_another(results):
    record = store_run(results)
    end(log_of(results), record)
    client, (cell,), _ = shown(results)
    client.delete_run(cell.info.run_id)
    log = log_of(results)
    assert log.once(record.path(results), many=True) is True
    log.settle(many=True)
    _, (other,), (run,) = shown(results)
    assert run.data.tags[PARENT_TAG] == other.info.run_id
    assert other.data.metrics["published"] == -0.30


def test_runs_of_an_earlier_layout_are_kept_and_put_below_their_cell(results):
    """It had no cells, no data sets, fewer tags, and the same numbers."""
    record = store_run(results, outcome=Outcome(status="complete", reason="early stopping"))
    end(log_of(results), record)
    client, (cell,), (run,) = shown(results)
    validation = steps(client, run, "validation")
    client.delete_run(cell.info.run_id)
    client.delete_run(run.info.run_id)
    tags = {RUN_ID_TAG: record.run_id, LOGGED_TAG: "yes", "mlflow.user": "ann"}
    old = client.create_run(run.info.experiment_id, tags=tags).info.run_id
    for step, value in validation:
        client.log_metric(old, "validation", value, step=step)
    client.log_metric(old, "nll", -0.24, step=1000)
    client.log_param(old, "seed", "0")

    log = log_of(results)
    assert log.once(record.path(results), many=True) is True
    log.settle(many=True)
    client, (cell,), (kept,) = shown(results)
    assert kept.info.run_id == old
    assert kept.data.tags[PARENT_TAG] == cell.info.run_id
    assert (kept.data.tags[LOGGED_TAG], kept.data.tags["mlflow.user"]) == (LAYOUT, "ann")
    assert steps(client, kept, "validation") == validation
    assert steps(client, kept, "nll") == [(1000, -0.24)]
    assert len(steps(client, kept, "lr")) == 3
    assert kept.inputs.dataset_inputs


def store_model(results, **overrides):
    """Store a run of a small model with its weights, and return its record and the model."""
    (cell,) = load_catalog().select("ffjord/density/made/8gaussians")
    args = {**cell.recipe.stages[0].model.args, "hidden": [8]}
    model = cell.recipe.stages[0].model.model_copy(update={"args": args})
    stage = cell.recipe.stages[0].model_copy(update={"model": model})
    recipe = cell.recipe.model_copy(update={"stages": (stage,)})
    torch.manual_seed(0)
    module = build(model, (2,))
    content = to_safetensors(module.state_dict())
    known = {WEIGHTS: hashlib.sha256(content).hexdigest()}
    where = {"row": "made", "column": "8gaussians", "cells": (cell.id,), "artifacts": known}
    record = store_run(results, recipe=recipe, data=make_data("8gaussians"), **where | overrides)
    file = record.weights_file(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return record, module


def models_of(results):
    client, _, (run,) = shown(results)
    found = client.search_logged_models([run.info.experiment_id])
    return run, found


def test_a_small_model_is_logged_with_its_signature_and_gives_densities(results):
    import mlflow

    record, module = store_model(results, row="made-0.1")  # MLflow's names have no dots
    end(log_of(results), record)
    run, (model,) = models_of(results)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    before = mlflow.get_tracking_uri()  # another test in this process may have set one
    mlflow.set_tracking_uri(f"sqlite:///{results}/mlflow.db")
    try:
        loaded = mlflow.pyfunc.load_model(model.model_uri)
    finally:
        mlflow.set_tracking_uri(before)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 2)
    x = torch.randn(5, 2)
    found = loaded.predict(x.float().numpy())
    assert found == pytest.approx(module.log_prob(x).detach().numpy(), rel=1e-5)
    assert loaded.metadata.signature.outputs.inputs[0].shape == (-1,)


@pytest.mark.parametrize("lost", ["finalize_logged_model", "log_outputs"])
def test_a_model_that_was_logged_by_half_is_logged_anew(results, monkeypatch, lost):
    from mlflow import MlflowClient

    record, _ = store_model(results)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, lost, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            end(log_of(results), record)
    end(log_of(results), record)
    run, (model,) = models_of(results)
    assert model.status == "READY"
    assert model.model_id in [output.model_id for output in run.outputs.model_outputs]


def test_a_large_model_is_not_logged(results, monkeypatch):
    record, _ = store_model(results)
    monkeypatch.setattr(model_side, "LARGEST", 10)
    end(log_of(results), record)
    assert models_of(results)[1] == []


def test_experiments_are_of_model_training_unless_somebody_chose_otherwise(results):
    log, record = log_of(results), store_run(results)
    end(log, record)
    client, _, (run,) = shown(results)
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_experiment_tag(experiment.experiment_id, "mlflow.experimentKind", "regression")
    end(log_of(results), store_run(results, seed=1))
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "regression"
