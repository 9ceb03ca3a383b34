"""TensorBoard and Weights & Biases: the same numbers, each once, live and from the records."""

import time

import pytest
from stored_runs import CELL, store_run

from dgm_bench import tracking
from dgm_bench.planner import PlannedRun
from dgm_bench.tracking.begun import Begun, Told

STARTED = 1_767_225_600_000


def begun(record):
    run = PlannedRun(CELL, record.cells, record.seed, record.recipe)
    return Begun.of(run, record.run_id, STARTED, record.code)


def told(*numbers):
    made = tuple((step, 1.0, None, loss, val, 1e-4, None) for step, loss, val in numbers)
    return [Told(time=STARTED, stage="", rows=made)]


def scalars(results, record, name):
    """Return what TensorBoard shows, as it reads a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = results / "tensorboard" / CELL.id / record.run_id
    shown = EventAccumulator(str(folder)).Reload()
    return [(point.step, round(point.value, 5)) for point in shown.Scalars(name)]


def test_tensorboard_shows_a_run_while_it_goes_on_and_then_its_record(tmp_path):
    pytest.importorskip("tensorboard")
    from dgm_bench.tracking.tensorboard import TensorBoard

    record, board = store_run(tmp_path), TensorBoard(tmp_path)
    board.live(begun(record), told((50, 2.5, None)), None)
    board.live(begun(record), told((100, 2.0, 3.5)), None)
    assert scalars(tmp_path, record, "train_loss") == [(50, 2.5), (100, 2.0)]
    board.leave()
    again = TensorBoard(tmp_path)  # from a checkpoint, whose rows are told again
    again.live(begun(record), told((100, 2.0, 3.5), (110, 1.5, None)), None)
    assert scalars(tmp_path, record, "train_loss") == [(100, 2.0), (110, 1.5)]
    assert again.once(record.path(tmp_path)) is True
    assert scalars(tmp_path, record, "validation") == [(100, 3.0), (200, 3.0), (300, 3.0)]
    assert scalars(tmp_path, record, "nll") == [(1000, -0.24)]
    assert TensorBoard(tmp_path).once(record.path(tmp_path)) is False


def test_sync_brings_records_to_tensorboard_once(tmp_path):
    pytest.importorskip("tensorboard")
    records = [store_run(tmp_path, seed=seed) for seed in range(2)]
    assert tracking.sync(tmp_path, tracker="tensorboard").logged == [r.run_id for r in records]
    report = tracking.sync(tmp_path, tracker="tensorboard")
    assert (report.logged, report.already) == ([], [r.run_id for r in records])


class Run:
    """What W&B is asked to do."""

    def __init__(self, options):
        self.options, self.rows, self.summary, self.config = options, [], {}, {}
        self.log, self.ended = self.rows.append, None
        self.config = type(
            "Config", (dict,), {"update": lambda self, new, **_: dict.update(self, new)}
        )()

    def define_metric(self, name, **options):
        pass

    def finish(self, exit_code):
        self.ended = exit_code


def test_weights_and_biases_gets_each_step_once_and_the_end(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from dgm_bench.tracking.wandb import WeightsAndBiases

    made = []
    monkeypatch.setattr(wandb, "init", lambda **options: made.append(Run(options)) or made[-1])
    record, bias = store_run(tmp_path), WeightsAndBiases(tmp_path)
    bias.live(begun(record), told((50, 2.5, None), (100, None, 3.0)), None)
    bias.live(begun(record), told((100, None, 3.0), (150, 2.0, None)), None)
    assert bias.once(record.path(tmp_path)) is True
    (run,) = made
    assert run.options["project"] == "ffjord-density"
    assert run.options["group"] == "maf power"
    assert run.options["id"] == record.run_id
    assert run.options["config"]["train.optimizer.lr"] == "0.0001"
    steps = [(row["step"], row["validation"]) for row in run.rows if "validation" in row]
    assert steps == [(100, 3.0), (200, 3.0), (300, 3.0)]
    losses = [row["step"] for row in run.rows if "train_loss" in row]
    assert losses == [50, 150, 200, 300]
    assert run.summary["nll"] == -0.24
    assert run.config["dgm_bench.status"] == "complete"
    assert run.ended == 0
    assert WeightsAndBiases(tmp_path).once(record.path(tmp_path)) is False
    bias.live(begun(store_run(tmp_path, seed=1)), told((50, 2.5, None)), None)
    bias.leave()
    assert made[1].ended == 130


def test_weights_and_biases_takes_a_record_offline(tmp_path, monkeypatch):
    """The real package; it keeps what it would send."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    record = store_run(tmp_path, rows=50)
    assert tracking.sync(tmp_path, tracker="wandb").logged == [record.run_id]
    (kept,) = (tmp_path / "wandb").glob(f"offline-run-*-{record.run_id}/*.wandb")
    ends = time.monotonic() + 60  # W&B's own process writes it, at its leisure on a busy machine
    while kept.read_bytes().count(b"train_loss") < 49 and time.monotonic() < ends:
        time.sleep(0.1)
    assert kept.read_bytes().count(b"train_loss") >= 49
    assert tracking.sync(tmp_path, tracker="wandb").already == [record.run_id]
