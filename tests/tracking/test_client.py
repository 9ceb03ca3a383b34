"""MLflow's side: each run once, with all there is. Real MLflow on SQLite files."""

import hashlib
import shlex
import signal
import subprocess
import sys

import pytest
from factories import make_metric, make_recipe
from stored_runs import CELL, store_run

from dgm_bench.records import Outcome
from dgm_bench.tracking import client as mlflow_side
from dgm_bench.tracking.address import TrackingError, read_address
from dgm_bench.tracking.client import ExperimentError, Log
from dgm_bench.tracking.groups import GROUP_TAG
from dgm_bench.tracking.runs import LAYOUT, LOGGED_TAG, PARENT_TAG, RUN_ID_TAG


def log_of(results):
    return Log(results, read_address(f"sqlite:///{results}/mlflow.db"))


def once(results, record, **how):
    return log_of(results).once(record.path(results), **how)


def all_runs(results):
    """Return the runs that MLflow shows, those of cells among them."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{results}/mlflow.db")
    experiment = client.get_experiment_by_name("ffjord/density")
    return client, list(client.search_runs([experiment.experiment_id]))


def runs_of(results):
    """Return the runs of records that MLflow shows."""
    client, runs = all_runs(results)
    return client, [run for run in runs if GROUP_TAG not in run.data.tags]


@pytest.fixture
def fresh(tmp_path, database):
    """A results folder with an empty MLflow database."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mlflow.db").write_bytes(database.read_bytes())
    return tmp_path / "results"


def test_a_run_is_logged_with_all_there_is(fresh):
    metrics = (make_metric(-0.24, se=0.005), make_metric(0.1, name="gap", se=None))
    files = {"density.png": b"png", "weights.safetensors": b"weights", "samples.png": b"png"}
    known = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = store_run(fresh, rows=1500, metrics=metrics, artifacts=known)
    pictures = fresh / "artifacts" / record.run_id
    pictures.mkdir(parents=True)
    for name, content in files.items():
        (pictures / name).write_bytes(content)
    (pictures / "samples.png").write_bytes(b"damaged")

    assert once(fresh, record) is True
    client, (run,) = runs_of(fresh)

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
        "pictures/learning-curve.svg",
    }
    assert list((fresh / "mlartifacts").rglob("density.png"))


def test_a_failed_run_is_logged_as_failed(fresh):
    outcome = Outcome(status="diverged", reason="the loss is NaN", hint="lower the rate")
    once(fresh, store_run(fresh, metrics=(), outcome=outcome))
    _, (run,) = runs_of(fresh)
    assert run.info.status == "FAILED"
    assert "lower the rate" in run.data.tags["mlflow.note.content"]


def test_values_that_mlflow_would_refuse_are_cut(fresh):
    outcome = Outcome(status="diverged", reason="x" * 20_000)
    recipe = make_recipe(args={"long": "y" * 20_000} | {f"option{i}": i for i in range(150)})
    once(fresh, store_run(fresh, recipe=recipe, outcome=outcome))
    _, (run,) = runs_of(fresh)
    assert run.data.params["train.model.args.option149"] == "149"


def test_names_that_mlflow_would_refuse_are_cut(fresh):
    metrics = (make_metric(0.5, name="classifier-precision-kept-50%"),)
    once(fresh, store_run(fresh, metrics=metrics))
    _, (run,) = runs_of(fresh)
    assert run.data.metrics["classifier-precision-kept-50"] == 0.5


# --------------------------------------------------------------------------- once each


@pytest.mark.parametrize(
    "call", ["create_run", "log_batch", "log_artifact", "log_text", "set_terminated", "set_tag"]
)
def test_a_run_left_half_logged_is_redone(fresh, monkeypatch, call):
    from mlflow import MlflowClient

    record = store_run(fresh)
    real = getattr(MlflowClient, call)

    def dies(*args, **kwargs):
        if call != "set_tag":  # the mark itself: once it is set the run is whole
            real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, dies)
        with pytest.raises(KeyboardInterrupt):
            once(fresh, record)

    assert once(fresh, record) is True
    client, (run,) = runs_of(fresh)
    assert run.data.tags[LOGGED_TAG] == LAYOUT
    assert run.data.metrics["nll"] == -0.24
    assert len(client.get_metric_history(run.info.run_id, "validation")) == 3


def tagged(client, like, **tags):
    """Make another run with the tags of one."""
    marks = {name: like.data.tags[name] for name in tags["of"]}
    return client.create_run(like.info.experiment_id, tags=marks)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("of", [[RUN_ID_TAG], [RUN_ID_TAG, LOGGED_TAG, PARENT_TAG]])
def test_of_several_runs_for_one_record_one_whole_one_is_kept(fresh, many, of):
    record = store_run(fresh)
    once(fresh, record)
    client, (run,) = runs_of(fresh)
    tagged(client, run, of=of)
    client.create_run(run.info.experiment_id, run_name="somebody else's")
    assert once(fresh, record, many=many) is False
    _, found = runs_of(fresh)
    assert [RUN_ID_TAG in other.data.tags for other in found].count(True) == 1
    assert len(found) == 2
    assert all(LOGGED_TAG in r.data.tags for r in found if RUN_ID_TAG in r.data.tags)


@pytest.mark.parametrize("other_is_first", [False, True])
def test_of_two_that_log_a_run_at_once_one_is_kept(fresh, monkeypatch, other_is_first):
    """Two machines, which share a server and no lock: neither saw the other's when it began."""
    from mlflow import MlflowClient

    record, real = store_run(fresh), MlflowClient.set_terminated
    experiment = log_of(fresh)._experiment(
        MlflowClient(f"sqlite:///{fresh}/mlflow.db"), "ffjord/density"
    )

    def meanwhile(client, run_id, **how):
        monkeypatch.setattr(MlflowClient, "set_terminated", real)
        parent = client.get_run(run_id).data.tags[PARENT_TAG]
        tags = {RUN_ID_TAG: record.run_id, PARENT_TAG: parent}
        other = client.create_run(experiment, tags=tags).info.run_id
        if other_is_first:  # it is whole, and the one that is under way is removed
            client.set_tag(other, LOGGED_TAG, LAYOUT)
            assert mlflow_side.has_in_full(client, experiment, parent, record.run_id)
        real(client, run_id, **how)

    monkeypatch.setattr(MlflowClient, "set_terminated", meanwhile)
    assert once(fresh, record) is not other_is_first
    _, (run,) = runs_of(fresh)
    assert run.data.tags[LOGGED_TAG] == LAYOUT
    assert once(fresh, record) is False


def test_many_runs_are_asked_for_together(fresh, monkeypatch):
    records = [store_run(fresh, seed=seed) for seed in range(3)]
    for record in records:
        once(fresh, record)
    monkeypatch.setattr(mlflow_side, "RUNS_PER_PAGE", 2)
    monkeypatch.setattr(mlflow_side, "has_in_full", None)
    pages = []
    log = log_of(fresh)
    log.alive = lambda: pages.append(1)
    assert not any(log.once(record.path(fresh), many=True) for record in records)
    assert len(pages) == 2


def test_an_experiment_that_another_process_makes_first_is_used(fresh, monkeypatch):
    from mlflow import MlflowClient

    record = store_run(fresh)
    real = MlflowClient.create_experiment

    def late(self, *args, **kwargs):
        real(self, *args, **kwargs)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_experiment", late)
    assert once(fresh, record) is True


# --------------------------------------------------------------------------- what goes wrong


def test_a_deleted_experiment_is_told_with_a_command_that_restores_it(fresh, monkeypatch):
    from click.testing import CliRunner
    from mlflow.experiments import commands

    record = store_run(fresh)
    once(fresh, record)
    client, (run,) = runs_of(fresh)
    client.delete_experiment(run.info.experiment_id)

    with pytest.raises(ExperimentError, match="ffjord/density: is deleted") as caught:
        once(fresh, record)
    _, command, _ = caught.value.remedy.split("`", 2)
    assignment, mlflow, experiments, *words = shlex.split(command)
    assert (mlflow, experiments) == ("mlflow", "experiments")
    done = CliRunner(env=dict([assignment.split("=", 1)])).invoke(commands, words)
    assert done.exit_code == 0, done.output

    assert once(fresh, record) is False
    assert len(runs_of(fresh)[1]) == 1


def test_a_lock_that_a_stopped_process_holds_costs_seconds_and_names_it(fresh, monkeypatch):
    record = store_run(fresh)
    lock = log_of(fresh)._lock_file()
    program = (
        "import sys, time; from pathlib import Path; from dgm_bench.locks import holding\n"
        "with holding(Path(sys.argv[1]), 'test', 'x'): print(flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", program, str(lock)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        other.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(mlflow_side, "FILE_LOCK_SECONDS", 0.2)
        with pytest.raises(TrackingError, match=f"process {other.pid} on ") as caught:
            once(fresh, record)
        other.kill()
    assert "dgm-bench sync" in str(caught.value)
    assert once(fresh, record) is True


def test_a_database_has_one_lock_for_all_results_and_a_server_one_for_each(tmp_path):
    def lock(results, uri):
        return Log(tmp_path / results, read_address(uri))._lock_file()

    for uri in (f"sqlite:///{tmp_path}/all.db", f"sqlite:///{tmp_path}/x/../all.db?timeout=3",
                str(tmp_path / "all.db"), (tmp_path / "all.db").as_uri()):  # fmt: skip
        assert lock("one", uri) == lock("two", uri) == tmp_path / "all.db.lock"
    for uri in ("http://host:5000", "postgresql://host/name", "sqlite://"):
        assert lock("one", uri) != lock("two", uri)


def test_a_database_is_opened_only_by_the_holder_of_its_lock(tmp_path, monkeypatch):
    import mlflow

    log, seen = log_of(tmp_path), []

    def opened(uri):
        seen.append(log._lock_file().exists())
        raise OSError("disk on fire")

    monkeypatch.setattr(mlflow, "MlflowClient", opened)
    with pytest.raises(TrackingError, match="disk on fire"):
        once_of(log, store_run(tmp_path))
    assert seen
    assert all(seen)


def test_a_new_database_is_there_whole_or_not_at_all(tmp_path, database, monkeypatch):
    import mlflow

    new = tmp_path / "mlflow.db.new"

    def stopped(uri):
        new.write_bytes(b"half of one")
        raise KeyboardInterrupt

    def made(uri):
        if uri.endswith("new"):
            assert not new.exists()
            new.write_bytes(database.read_bytes())

    monkeypatch.setattr(mlflow, "MlflowClient", stopped)
    with pytest.raises(KeyboardInterrupt):
        log_of(tmp_path)._connected()
    assert not (tmp_path / "mlflow.db").exists()
    monkeypatch.setattr(mlflow, "MlflowClient", made)
    log_of(tmp_path)._connected()
    assert (tmp_path / "mlflow.db").read_bytes() == database.read_bytes()
    assert not new.exists()


def once_of(log, record):
    return log.once(record.path(log.results))


def test_a_broken_database_is_told_in_one_line(fresh):
    record = store_run(fresh)
    (fresh / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TrackingError, match="file is not a database") as caught:
        once(fresh, record)
    assert str(fresh / "mlflow.db") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_mlflow_there_is_one_line(fresh, monkeypatch):
    record = store_run(fresh)
    for module in ("mlflow", "sqlalchemy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TrackingError, match=r"not installed; pip install 'dgm-bench\[tracking\]'"):
        once(fresh, record)
