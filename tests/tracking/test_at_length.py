"""``sync`` of many records to servers that fail: on request, as it takes minutes.

``DGM_BENCH_SYNCS=300 pytest -s tests/tracking/test_at_length.py`` prints what it measures.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from stored_runs import assert_each_once, rows, store_run
from tracking_servers import BAD, bad_server

RECORDS = int(os.environ.get("DGM_BENCH_SYNCS", "0"))
#: Seconds in which a sync to a server that takes nothing has to end.
LONGEST = 30
pytestmark = pytest.mark.skipif(not RECORDS, reason="set DGM_BENCH_SYNCS to a number of records")
IN_FULL = """select count(*) from tags join runs on runs.run_uuid = tags.run_uuid
    where key = 'dgm_bench.logged' and lifecycle_stage = 'active'"""
BY_STAGE = "select lifecycle_stage, count(*) from runs group by 1"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    results = tmp_path_factory.mktemp("stored")
    return results, [store_run(results, seed=seed, rows=50) for seed in range(RECORDS)]


def start_sync(results, uri=""):
    words = [sys.executable, "-m", "dgm_bench", "sync", "--results", str(results)]
    pipe, environment = subprocess.PIPE, {**os.environ, "MLFLOW_TRACKING_URI": uri}
    return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("name", [*BAD, "nobody"])
def test_a_bad_server_costs_less_than_half_a_minute(name, stored):
    with bad_server(BAD.get(name, BAD["hang"])) as uri:
        started = time.monotonic()
        sync = start_sync(stored[0], "http://127.0.0.1:9" if name == "nobody" else uri)
        out, err = sync.communicate()
    seconds = time.monotonic() - started
    print(f"\n{name}: {seconds:.1f} s, exit code {sync.returncode}, {out.strip()}\n  {err.strip()}")
    assert seconds < LONGEST
    assert sync.returncode == 1
    assert ": 0 logged, 0 there already, " in out
    *failed, last = err.splitlines()
    assert last.startswith("error: MLflow server http://127.0.0.1:")
    assert len(failed) == (name == "only-look-well")
    assert "ann" not in err


class ServerProcess:
    """``mlflow server``, with its workers killed at a stroke."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.database = folder / "mlflow.db"

    def start(self):
        started = time.monotonic()
        store = ["--backend-store-uri", f"sqlite:///{self.database}"]
        files = ["--artifacts-destination", str(self.folder / "files")]
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *files, *place],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return time.monotonic() - started
            time.sleep(0.1)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_a_server_that_is_killed_twice_has_each_metric_once(stored, tmp_path):
    results, records = stored
    server = ServerProcess(tmp_path)
    print(f"\nserver ready after {server.start():.1f} s")
    started, syncs, cuts = time.monotonic(), 1, [RECORDS // 3, 2 * RECORDS // 3]
    sync = start_sync(results, server.uri)
    while sync.poll() is None or sync.returncode != 0:
        if sync.poll() is not None:
            print(f"sync {syncs}: exit code {sync.returncode}: {sync.communicate()}")
            assert syncs < 4
            sync, syncs = start_sync(results, server.uri), syncs + 1
        if cuts and rows(server.database, IN_FULL)[0][0] >= cuts[0]:
            there = rows(server.database, IN_FULL)[0][0]
            cuts.pop(0)
            server.kill()
            print(f"killed with {there} logged, back after {server.start():.1f} s")
        time.sleep(0.05)
    print(f"{syncs} syncs, {time.monotonic() - started:.0f} s: {sync.communicate()[0].strip()}")
    again = start_sync(results, server.uri)
    out, err = again.communicate()
    server.kill()
    print(f"once more: {out.strip()}")
    assert (out, err) == (f"0 logged, {RECORDS} there already\n", "")
    assert not cuts
    assert_each_once(server.database, records, steps=50)
    print(rows(server.database, BY_STAGE))


def test_a_sync_that_is_killed_again_and_again_has_each_metric_once(stored, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(stored[0], results)
    chance, kills = random.Random(0), 0
    while True:
        sync = start_sync(results)
        try:
            _, err = sync.communicate(timeout=chance.uniform(1.0, 8.0) if kills < 20 else None)
            break
        except subprocess.TimeoutExpired:
            sync.kill()
            sync.communicate()
            kills += 1
    assert (sync.returncode, err) == (0, "")
    assert_each_once(results / "mlflow.db", stored[1], steps=50)
    print(
        f"\n{kills} kills",
        rows(results / "mlflow.db", IN_FULL),
        rows(results / "mlflow.db", BY_STAGE),
    )
    assert kills


def test_two_results_folders_make_one_new_database(tmp_path):
    uri = f"sqlite:///{tmp_path}/new.db"
    records = [store_run(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    syncs = [start_sync(tmp_path / name, uri) for name in "abc"]
    assert [sync.communicate()[1] for sync in syncs] == ["", "", ""]
    assert_each_once(tmp_path / "new.db", records)
