"""The process that logs: what it costs when MLflow is away, and that nothing is lost or doubled."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from factories import StopAfter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stored_runs import assert_each_once, store_run
from tracking_servers import BAD, PASSWORD, QUOTED, RealServer, bad_server

from dgm_bench import tracking
from dgm_bench.control import Control
from dgm_bench.tracking import process
from dgm_bench.tracking.address import tracking_address
from dgm_bench.tracking.client import Log

VARIABLE = "MLFLOW_TRACKING_URI"
#: For a process to start in on a busy machine, beside what is measured.
STARTING = 30


# --------------------------------------------------------------------------- a real server


def test_a_server_that_goes_and_comes_back_has_each_metric_once(tmp_path, database, monkeypatch):
    records = [store_run(tmp_path / "results", seed=seed) for seed in range(8)]
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    server = RealServer(tmp_path / "mlflow.db")
    monkeypatch.setenv(VARIABLE, server.uri)
    cuts = [25, 50]

    def cut():
        while cuts:
            if server.requests > cuts[0]:
                cuts.pop(0)
                server.stop()
                time.sleep(0.5)
                server.start()
            time.sleep(0.01)

    threading.Thread(target=cut, daemon=True).start()
    report = tracking.sync(tmp_path / "results")
    server.stop()
    # An answer may be lost of a run that is whole by then.
    assert sorted(report.logged + report.already) == [r.run_id for r in records]
    assert report.left == []
    assert (report.failed, report.stopped, cuts) == ({}, "", [])
    assert_each_once(tmp_path / "mlflow.db", records)
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert PASSWORD.encode() not in kept
    assert QUOTED.encode() not in kept


# --------------------------------------------------------------------------- bad servers


def test_a_server_that_drips_costs_seconds_at_the_end_of_one_run(tmp_path, monkeypatch):
    record = store_run(tmp_path)
    monkeypatch.setattr(process, "SERVER_SECONDS", 1.0)
    with (
        bad_server(BAD["drip"]) as uri,
        contextlib.closing(tracking.RunLogger(tmp_path, Control())) as logger,
    ):
        monkeypatch.setenv(VARIABLE, uri)
        started = time.monotonic()
        message = logger.log(record)
        assert time.monotonic() - started < STARTING
        assert "no record got through in 1 seconds; see whether it is well; run" in message
        assert PASSWORD not in message
        assert QUOTED not in message

        started = time.monotonic()
        assert "`dgm-bench sync` later" in logger.log(record)
        assert time.monotonic() - started < 0.1


def test_sync_leaves_soon_after_a_request_to_stop(tmp_path, monkeypatch):
    records = [store_run(tmp_path, seed=seed) for seed in range(3)]
    asked = threading.Event()

    def hang(connection):
        asked.set()
        BAD["hang"](connection)

    def stop():
        asked.wait(STARTING)
        stopped_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    stopped_at, control = [], Control()
    with bad_server(hang) as uri, control.catching_signals():
        monkeypatch.setenv(VARIABLE, uri)
        threading.Thread(target=stop, daemon=True).start()
        report = tracking.sync(tmp_path, control=control)
    assert time.monotonic() - stopped_at[0] < 3
    assert (report.stopped, report.interrupted) == ("SIGTERM", True)
    assert report.left == [record.run_id for record in records]


def test_a_run_that_ends_is_told_when_there_is_no_time_to_log_it(tmp_path):
    record = store_run(tmp_path)
    with contextlib.closing(tracking.RunLogger(tmp_path, StopAfter(1))) as logger:
        message = logger.log(record)
    assert record.run_id in message
    assert "(test); run `dgm-bench sync` later" in message


def test_mlflow_starts_beside_the_run_and_is_not_waited_for(tmp_path, monkeypatch):
    record, made = store_run(tmp_path), []
    popen = process.subprocess.Popen
    counted = lambda *words, **options: made.append(popen(*words, **options)) or made[-1]  # noqa: E731
    monkeypatch.setattr(process.subprocess, "Popen", counted)
    with contextlib.closing(tracking.RunLogger(tmp_path, Control())) as logger:
        started = time.monotonic()
        logger.begin()
        assert time.monotonic() - started < 0.5
        assert len(made) == 1
        assert logger.log(record) is None
        assert len(made) == 1
    assert made[0].poll() is not None, "it ends with the command"


def test_an_mlflow_that_cannot_start_is_told_when_a_run_is_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(7)")
    record = store_run(tmp_path)
    with contextlib.closing(tracking.RunLogger(tmp_path, Control())) as logger:
        logger.begin()
        assert "exit code 7" in logger.log(record)


def test_one_record_that_cannot_be_logged_does_not_stop_the_others(tmp_path, database, capfd):
    results = tmp_path / "a%20b%41 ?#'\"é;&"
    bad, good = store_run(results, seed=0), store_run(results, seed=1)
    bad.path(results).with_suffix(".csv").unlink()
    (results / "mlflow.db").write_bytes(database.read_bytes())
    report = tracking.sync(results)
    assert report.logged == [good.run_id]
    assert f"{bad.run_id}.csv" in report.failed[bad.run_id]
    assert_each_once(results / "mlflow.db", [good])
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {results.name}
    assert {path.name for path in results.iterdir()} == {"runs", "mlflow.db", "mlartifacts"}


def test_a_process_that_ends_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(7)")
    store_run(tmp_path)
    report = tracking.sync(tmp_path)
    assert "its process ended (exit code 7)" in report.stopped
    assert len(report.left) == 1


#: Says of one record after the other that it could not be logged.
FAILING = """import json, time
print('{"ready": true}', flush=True)
for path in json.loads([input(), input()][1])["paths"]:
    print(json.dumps({"path": path, "error": "no"}), flush=True)
    time.sleep(0.3)
"""


def test_records_that_fail_do_not_extend_the_deadline(tmp_path, monkeypatch):
    for seed in range(8):
        store_run(tmp_path, seed=seed)
    monkeypatch.setattr(process, "_PROGRAM", FAILING)
    monkeypatch.setattr(process, "FILE_SECONDS", 1.0)
    report = tracking.sync(tmp_path)
    assert 2 <= len(report.failed) <= 5
    assert len(report.failed) + len(report.left) == 8
    assert "no record got through in 1 seconds" in report.stopped


def test_the_process_goes_when_the_one_that_started_it_does(tmp_path):
    words = [sys.executable, "-c", process._PROGRAM, json.dumps(process.module_paths())]
    start = {"results": str(tmp_path), "shown": "nothing", "moved": False}
    environment = {**os.environ, VARIABLE: "http://127.0.0.1:9"}
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, env=environment) as child:
        try:
            _, told = child.communicate(json.dumps(start).encode() + b"\n", timeout=STARTING)
        finally:
            child.kill()
    assert (child.returncode, told) == (0, b"")


# --------------------------------------------------------------------------- folders

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("folders")


@settings(max_examples=40, deadline=None)
@given(name=NAMES.filter(lambda text: text not in {".", ".."} and len(text.encode()) < 200))
@example(name="a%20b%41")
@example(name="?x#y")
@example(name="sqlite:///x?y=z")
@example(name='it\'s "quoted" `here` $HOME \\ ~')
def test_the_database_lies_in_the_results_folder_whatever_its_name(folders, name):
    from sqlalchemy import create_engine

    results = folders / str(len(list(folders.iterdir()))) / name
    results.mkdir(parents=True)
    address = tracking_address(results)
    with contextlib.chdir(address.folder):
        with create_engine(address.uri).connect() as connection:
            _, _, file = connection.exec_driver_sql("pragma database_list").fetchone()
        lock = Log(results, address)._lock_file()
    assert (file, str(lock)) == (f"{results}/mlflow.db", f"{results}/mlflow.db.lock")
