"""MLflow: each run once, nothing lost, no long waits. Real MLflow on SQLite files."""

import csv
import fcntl
import logging
import os
import socket
import sys
import time

import pytest
from factories import make_cell, make_metric, make_recipe, make_record

from dgm_bench import tracking
from dgm_bench.records import Outcome, write_record

CELL = make_cell("maf", "power")
#: MLflow's own client would retry for minutes; a busy machine may take seconds.
PROMPT_SECONDS = 30
COLUMNS = ("step", "epoch", "seconds", "train_loss", "validation", "lr", "function_evaluations")


def store_run(results, *, seed=0, rows=3, **overrides):
    """Write a record with its curve, as a run does, and return it."""
    run_id = f"20260101t00000{seed}-abcdef"
    curve = f"{run_id}.csv" if rows else None
    record = make_record(CELL, seed=seed, run_id=run_id, curve=curve, **overrides)
    path = write_record(record, results)
    if rows:
        with path.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for i in range(rows):
                writer.writerow(
                    [100 * (i + 1), i + 1, 0.5 * i, "" if i == 0 else 2 / i, 3, 1e-4, ""]
                )
    return record


def runs_of(results):
    """Return the runs that MLflow shows."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking.tracking_uri(results))
    experiment = client.get_experiment_by_name("ffjord/density")
    return client, list(client.search_runs([experiment.experiment_id]))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "results"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty MLflow database: making its tables takes a second."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def fresh(results, database):
    """A results folder with an empty MLflow database."""
    results.mkdir()
    (results / "mlflow.db").write_bytes(database)
    return results


def test_a_run_is_logged_with_all_there_is(results, capfd):
    metrics = (make_metric(-0.24, se=0.005), make_metric(0.1, name="gap", se=None))
    record = store_run(results, rows=1500, metrics=metrics)
    pictures = results / "artifacts" / record.run_id
    pictures.mkdir(parents=True)
    (pictures / "density.png").write_bytes(b"png")
    (pictures / "weights.safetensors").write_bytes(b"weights")

    assert tracking.log_run(record, results) is True
    said = capfd.readouterr()
    client, (run,) = runs_of(results)

    assert said.out + said.err == ""
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 60_000
    assert run.data.params["seed"] == "0"
    assert run.data.params["train.optimizer.lr"] == "0.0001"
    assert run.data.params["train.model.args.row"] == "maf"
    assert run.data.metrics["nll"] == -0.24
    assert run.data.metrics["nll_se"] == 0.005
    assert "gap_se" not in run.data.metrics
    tags = run.data.tags
    assert tags["dgm_bench.run_id"] == record.run_id
    assert tags["dgm_bench.cells"] == CELL.id
    assert tags["dgm_bench.git_dirty"] == "false"
    assert tags["dgm_bench.data_verified"] == "true"
    history = client.get_metric_history(run.info.run_id, "validation")
    assert len(history) == 1500
    assert history[2].timestamp == run.info.start_time + 1000
    assert [point.step for point in history[:3]] == [100, 200, 300]
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 1499
    artifacts = {
        file.path
        for folder in ("record", "pictures")
        for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert artifacts == {
        f"record/{record.run_id}.json",
        f"record/{record.run_id}.csv",
        "pictures/density.png",
        "pictures/learning-curve.png",
    }
    assert list((results / "mlartifacts").rglob("density.png"))


def test_a_failed_run_is_logged_as_failed(fresh):
    outcome = Outcome(status="diverged", reason="the loss is NaN", hint="lower the rate")
    tracking.log_run(store_run(fresh, metrics=(), outcome=outcome), fresh)
    _, (run,) = runs_of(fresh)
    assert run.info.status == "FAILED"
    assert "lower the rate" in run.data.tags["mlflow.note.content"]


def test_values_that_mlflow_would_refuse_are_cut(fresh):
    outcome = Outcome(status="diverged", reason="x" * 20_000)
    recipe = make_recipe(args={"long": "y" * 20_000} | {f"option{i}": i for i in range(150)})
    tracking.log_run(store_run(fresh, recipe=recipe, outcome=outcome), fresh)
    _, (run,) = runs_of(fresh)
    assert run.data.params["train.model.args.option149"] == "149"


def test_names_that_mlflow_would_refuse_are_cut(fresh):
    metrics = (make_metric(0.5, name="classifier-precision-kept-50%"),)
    tracking.log_run(store_run(fresh, metrics=metrics), fresh)
    _, (run,) = runs_of(fresh)
    assert run.data.metrics["classifier-precision-kept-50"] == 0.5


# --------------------------------------------------------------------------- once each


def test_sync_logs_each_run_once(fresh):
    records = [store_run(fresh, seed=seed) for seed in range(3)]
    tracking.log_run(records[0], fresh)

    first, second = tracking.sync(fresh), tracking.sync(fresh)

    assert first.logged == (records[1].run_id, records[2].run_id)
    assert first.already == (records[0].run_id,)
    assert second.logged == ()
    assert len(second.already) == 3
    assert not first.failed
    assert not second.failed
    assert len(runs_of(fresh)[1]) == 3


@pytest.mark.parametrize(
    "call", ["create_run", "log_batch", "log_artifact", "log_figure", "set_terminated", "set_tag"]
)
def test_a_run_left_half_logged_is_redone(fresh, monkeypatch, call):
    from mlflow import MlflowClient

    store_run(fresh)
    real = getattr(MlflowClient, call)

    def dies(*args, **kwargs):
        if call != "set_tag":  # the mark itself: once it is set the run is whole
            real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, dies)
        with pytest.raises(KeyboardInterrupt):
            tracking.sync(fresh)

    assert len(tracking.sync(fresh).logged) == 1
    _, (run,) = runs_of(fresh)
    assert run.data.tags[tracking.LOGGED_TAG] == "yes"
    assert run.data.metrics["nll"] == -0.24


def test_one_run_that_cannot_be_logged_does_not_stop_the_others(fresh):
    bad, good = store_run(fresh, seed=0), store_run(fresh, seed=1)
    bad.path(fresh).with_suffix(".csv").unlink()
    report = tracking.sync(fresh)
    assert report.logged == (good.run_id,)
    assert "curve" in report.failed[bad.run_id]


def test_two_processes_do_not_log_at_the_same_time(fresh):
    path = fresh / "work" / "mlflow.lock"
    with tracking._one_at_a_time(fresh), path.open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --------------------------------------------------------------------------- MLflow is away


@pytest.fixture
def silent_server():
    """The address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://user:secret@127.0.0.1:{server.getsockname()[1]}"


def test_a_dead_server_costs_one_line(fresh, monkeypatch):
    record = store_run(fresh)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    message = tracking.try_log_run(record, fresh)
    assert time.monotonic() - started < PROMPT_SECONDS
    assert message == (
        "MLflow server http://127.0.0.1:9: not reachable; run `dgm-bench sync` later"
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.sync(fresh).logged == (record.run_id,)


def test_a_server_that_hangs_costs_seconds_and_no_password(fresh, monkeypatch, silent_server):
    record = store_run(fresh)
    monkeypatch.setattr(tracking, "REACHABLE_SECONDS", 0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    started = time.monotonic()
    message = tracking.try_log_run(record, fresh)
    assert time.monotonic() - started < PROMPT_SECONDS
    assert "not reachable" in message
    assert "secret" not in message


def test_sync_asks_a_dead_server_once(fresh, monkeypatch):
    records = [store_run(fresh, seed=seed) for seed in range(3)]
    asked = []
    monkeypatch.setattr(tracking, "_connect", lambda uri: asked.append(uri) or _refuse())
    report = tracking.sync(fresh)
    assert set(report.failed) == {record.run_id for record in records}
    assert len(asked) == 1


def _refuse():
    raise tracking.TrackingError("MLflow server", "not reachable")


def test_without_mlflow_there_is_one_line(fresh, monkeypatch):
    record = store_run(fresh)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    message = tracking.try_log_run(record, fresh)
    assert message.startswith("MLflow: is not installed; `pip install mlflow`")
    assert "\n" not in message


def test_a_broken_database_does_not_fail_the_run(fresh):
    record = store_run(fresh)
    (fresh / "mlflow.db").write_bytes(b"not a database" * 100)
    message = tracking.try_log_run(record, fresh)
    assert record.run_id in message
    assert "dgm-bench sync" in message
    assert "\n" not in message


def test_environment_and_logging_are_as_before(fresh):
    before, level = dict(os.environ), logging.root.manager.disable
    tracking.log_run(store_run(fresh), fresh)
    assert dict(os.environ) == before
    assert logging.root.manager.disable == level
