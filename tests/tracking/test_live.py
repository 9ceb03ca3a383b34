"""What runs tell on its way to a tracker: nobody waits, nothing comes twice, and little is kept."""

import contextlib
import json
import threading
import time
from functools import partial

import pytest
from factories import make_data
from stored_runs import CELL, rows, store_run
from tracking_servers import BAD, bad_server

from dgm_bench import tracking
from dgm_bench.control import Control
from dgm_bench.events import CurveRows
from dgm_bench.planner import PlannedRun
from dgm_bench.tracking import live, process
from dgm_bench.tracking.address import read_address
from dgm_bench.tracking.begun import Begun, Told
from dgm_bench.tracking.beside import MOST_WAITING, LoggingBeside
from dgm_bench.tracking.client import Log
from dgm_bench.tracking.live import Live

STARTED = 1_767_225_600_000


def curve_rows(record, *numbers, time=STARTED, **more):
    made = tuple((step, 1.0, None, loss, val) for step, loss, val in numbers)
    return CurveRows(record.run_id, record.recipe_hash, record.seed, time, rows=made, **more)


def planned(record):
    return PlannedRun(CELL, record.cells, record.seed, record.recipe)


# --------------------------------------------------------------------------- in the process


class Shows:
    """A tracker that fails when it is told to."""

    def __init__(self):
        self.fails, self.shown, self.machine = False, [], []

    def live(self, begun, told, data):
        if self.fails:
            raise OSError
        steps = [row["step"] for rows in told for row in rows.named()]
        self.shown.append((begun.run_id, steps, data is not None))

    def measured(self, numbers):
        self.machine.append(numbers)


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of :mod:`dgm_bench.tracking.live`."""
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def message(record, *numbers, seconds=0.0, first=False):
    made = [(step, 1.0, None, loss, val) for step, loss, val in numbers]
    told = {"time": STARTED + int(1000 * seconds), "stage": "", "rows": made}
    said = {"run_id": record.run_id, "told": [told]}
    if first:
        begun = Begun.of(planned(record), record.run_id, STARTED, record.code)
        said |= {"begun": begun.model_dump(mode="json"), "data": make_data().model_dump()}
    return json.loads(json.dumps(said))


def test_what_is_heard_is_shown_in_batches(tmp_path, clock):
    record, shows = store_run(tmp_path), Shows()
    runs = Live(shows, machine=False)
    assert runs.seconds_left() is None
    runs.hear(message(record, (9, None, 3.0)))  # before it is known who it is
    runs.hear(message(record, first=True))
    runs.hear(message(record, (10, None, 3.0)))
    runs.hear(message(record, (20, 1.0, 2.0)))
    assert runs.seconds_left() == 0.0
    runs.show()
    assert shows.shown == [(record.run_id, [10, 20], True)]
    assert runs.seconds_left() is None
    runs.hear(message(record, (30, 1.0, 2.0)))
    assert runs.seconds_left() == live.BATCH_SECONDS
    runs.show()
    assert shows.shown[1:] == [(record.run_id, [30], False)]
    runs.forget(record.run_id)
    runs.hear(message(record, (40, 1.0, 2.0)))
    assert runs.seconds_left() is None


def test_a_tracker_that_fails_is_asked_ever_more_seldom_and_gets_all_of_it_later(tmp_path, clock):
    record, shows = store_run(tmp_path), Shows()
    runs, shows.fails = Live(shows, machine=False), True
    runs.hear(message(record, first=True))
    pauses = []
    for step in range(8):
        runs.hear(message(record, (step, 1.0, 2.0)))
        runs.show()
        pauses.append(runs.seconds_left())
        clock[0] += pauses[-1]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    shows.fails = False
    runs.show()
    assert shows.shown == [(record.run_id, list(range(8)), True)]
    runs.hear(message(record, (9, 1.0, 2.0)))
    assert runs.seconds_left() == live.BATCH_SECONDS


def test_while_a_tracker_takes_nothing_the_newest_numbers_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "MOST_KEPT", 3)
    record, shows = store_run(tmp_path), Shows()
    runs = Live(shows, machine=False)
    runs.hear(message(record, first=True))
    for step in range(9):
        runs.hear(message(record, (step, 1.0, 2.0)))
    runs.show()
    assert shows.shown[0][1] == [6, 7, 8]


def test_between_validations_a_day_is_not_a_hundred_thousand_points(tmp_path):
    record, shows = store_run(tmp_path), Shows()
    runs = Live(shows, machine=False)
    runs.hear(message(record, first=True))
    for second in range(20_000):
        runs.hear(message(record, (second, 1.0, None), seconds=second))
        if second % 600 == 0:
            runs.hear(message(record, (second, 1.0, 2.0), seconds=second))
        if second % 1000 == 999:
            runs.show()
    steps = [step for _, steps, _ in shows.shown for step in steps]
    assert steps[:200] == [0, 0, *range(1, 199)], "each second at first"
    assert 800 < len(steps) < 1500
    assert set(range(0, 20_000, 600)) <= set(steps), "of the curve itself nothing is left out"


def test_the_machine_is_measured_now_and_then_while_runs_are_under_way(tmp_path, clock):
    record, shows = store_run(tmp_path), Shows()
    runs = Live(shows, machine=True)
    runs.hear(message(record, first=True))
    for _ in range(2):
        runs.show()
        clock[0] += live.MACHINE_SECONDS / 2
    assert len(shows.machine) == 1
    clock[0] += live.MACHINE_SECONDS / 2
    assert runs.seconds_left() == 0.0
    runs.show()
    assert len(shows.machine) == 2
    assert 0 <= shows.machine[1]["cpu_utilization_percentage"] <= 100
    assert shows.machine[0]["system_memory_usage_megabytes"] > 10
    runs.forget(record.run_id)
    assert runs.seconds_left() is None


# --------------------------------------------------------------------------- in the command


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


class Logger:
    """Keeps what it gets; holds up who asks until it is let go on."""

    def __init__(self):
        self.going, self.got = threading.Event(), []

    def tell(self, told):
        self.going.wait(20)
        self.got += [(rows.run_id, row[0]) for rows in told for row in rows.rows]

    def log(self, record):
        self.going.wait(20)
        self.got.append(record.run_id)


def test_who_trains_never_waits_and_what_waits_is_bounded(tmp_path):
    record = store_run(tmp_path)
    logger = Logger()
    logging = LoggingBeside(logger)
    logging.live(curve_rows(record, (0, 1.0, 2.0)))
    until(lambda: not logging._told)  # it is held up with this
    started = time.monotonic()
    for step in range(1, 2 * MOST_WAITING):
        logging.live(curve_rows(record, (step, 1.0, 2.0)))
    assert time.monotonic() - started < 2.0, "20 times as long as it takes"
    logger.going.set()
    assert list(logging.close()) == []
    assert len(logger.got) == MOST_WAITING + 1


def test_a_run_that_has_ended_tells_nothing_more(tmp_path):
    one, other = store_run(tmp_path, seed=0), store_run(tmp_path, seed=1)
    logger = Logger()
    logging = LoggingBeside(logger)
    logging.live(curve_rows(other, (0, 1.0, 2.0)))
    until(lambda: not logging._told)
    logging.live(curve_rows(one, (1, 1.0, 2.0)))
    logging.live(curve_rows(other, (2, 1.0, 2.0)))
    logging.log(one)
    logging.live(curve_rows(one, (3, 1.0, 2.0)))
    logger.going.set()
    list(logging.close())
    assert logger.got == [(other.run_id, 0), one.run_id, (other.run_id, 2)]


def test_a_process_that_reads_nothing_is_given_up_and_the_run_is_logged_by_sync(
    tmp_path, monkeypatch
):
    record = store_run(tmp_path)
    monkeypatch.setattr(process, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(process, "TELL_SECONDS", 0.2)
    with contextlib.closing(tracking.RunLogger(tmp_path, Control())) as logger:
        logger.begin([planned(record)])
        started = time.monotonic()
        for _ in range(3):  # each is more than a pipe holds
            logger.tell([curve_rows(record, *[(i, 1.0, 2.0) for i in range(5000)])])
        assert time.monotonic() - started < 3
        assert "`dgm-bench sync` later" in logger.log(record)


def test_a_server_that_hangs_costs_a_run_under_way_nothing(tmp_path, database, monkeypatch):
    """What it did not get while the run went on it gets at the end, or by ``sync``, as here."""
    record = store_run(tmp_path)
    monkeypatch.setattr(process, "SERVER_SECONDS", 1.0)
    with bad_server(BAD["hang"]) as uri, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        logger = tracking.RunLogger(tmp_path, Control())
        with contextlib.closing(logger):
            logger.begin([planned(record)])
            logging = LoggingBeside(logger)
            for step in range(100, 400, 100):
                started = time.monotonic()
                logging.live(curve_rows(record, (step, 1.0, 2.0)))
                assert time.monotonic() - started < 0.1
            logging.log(record)
            assert "no record got through in 1 seconds" in next(logging.close())
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    log = Log(tmp_path, read_address(f"sqlite:///{tmp_path}/mlflow.db"))
    assert log.once(record.path(tmp_path), many=True) is True
    found = rows(tmp_path / "mlflow.db", "select step from metrics where key = 'validation'")
    assert sorted(found) == [(100,), (200,), (300,)]


STATES = "select key, value from tags union all select 'status', status from runs"


def test_a_run_is_shown_by_a_real_process_and_stops_with_its_command(tmp_path, database):
    record = store_run(tmp_path)
    file = tmp_path / "mlflow.db"
    file.write_bytes(database.read_bytes())
    logger = tracking.RunLogger(tmp_path, Control(), machine=True)
    with contextlib.closing(logger):
        logger.begin([planned(record)])
        logger.tell([curve_rows(record, data=make_data())])
        logger.tell([curve_rows(record, (100, None, 3.0))])
        count = partial(rows, file, "select count(*) from metrics where key = 'validation'")
        until(lambda: count() == [(1,)])
    assert rows(file, "select count(*) from runs") == [(2,)]
    assert ("status", "KILLED") in rows(file, STATES)
    assert ("status", "RUNNING") not in rows(file, STATES)


#: Writes down what it is told.
NOTES = """import sys; from pathlib import Path
for line in sys.stdin.buffer:
    with open("notes", "ab") as file: file.write(line)
"""


def test_another_process_is_told_again_who_runs(tmp_path, monkeypatch):
    record, notes = store_run(tmp_path), tmp_path / "notes"
    notes.touch()
    monkeypatch.setattr(process, "_PROGRAM", NOTES)
    with contextlib.closing(tracking.RunLogger(tmp_path, Control())) as logger:
        logger.begin([planned(record)])
        for count, rest in enumerate([False, False, True, False]):
            if rest:  # it was given up, by whom ever
                logger._process.close()
            logger.tell([curve_rows(record, (count, 1.0, 2.0))])
            expected = count + 2 + (count > 1)
            until(lambda: len(notes.read_bytes().splitlines()) == expected)  # noqa: B023
        monkeypatch.setattr(process, "LEAVE_SECONDS", 0.0)
    said = [json.loads(line) for line in notes.read_bytes().splitlines()]
    kinds = ["begun" if "begun" in line else next(iter(line)) for line in said]
    assert kinds[:6] == ["results", "begun", "run_id", "results", "begun", "run_id"]
    assert said[1]["begun"]["recipe"] == record.recipe.model_dump(mode="json")


def test_rows_are_told_by_the_names_of_their_columns():
    told = Told(time=0, stage="", rows=((5, 1.0, None, 2.0),))
    assert told.named() == [{"step": 5, "epoch": 1.0, "seconds": None, "train_loss": 2.0}]
