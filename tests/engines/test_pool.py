"""The pool as people use it: a command with real processes, beside one that does all itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines.same_records import differences

from dgm_bench.engines.board import boards

ROOT = Path(__file__).parents[2]
FEW = ("stopping.patience=null", "stopping.max_steps=3", "validation.every=2", "batch_size=16")
CELLS = ("ffjord/density/made/8gaussians", "ffjord/density/real-nvp-5/8gaussians")


def command(results, *words, few=FEW):
    settings = [word for setting in few for word in ("--set", setting)]
    common = ["--budget", "none", "--threads", "1", "--offline", "--no-tracking"]
    return [
        sys.executable, "-m", "dgm_bench", "run", *words, *common, *settings,
        "--results", str(results),
    ]  # fmt: skip


@pytest.fixture
def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_its_records_are_those_of_one_process_and_nothing_is_left(tmp_path, environment):
    for jobs in ("1", "2"):
        done = subprocess.run(
            command(tmp_path / jobs, *CELLS, "--jobs", jobs),
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert re.search(r"^MADE +8gaussians .* nats", done.stdout, re.MULTILINE)
        assert done.stdout.splitlines()[-1].startswith("2 done in ")
    assert differences(tmp_path / "1", tmp_path / "2") == []
    assert not boards(tmp_path / "2")


@pytest.mark.skipif("DGM_BENCH_ENGINES" not in os.environ, reason="set DGM_BENCH_ENGINES=1")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("when", ["starting", "training"])
def test_it_ends_within_seconds_and_leaves_no_process(tmp_path, environment, number, when):
    results = tmp_path / "results"
    long = ("stopping.patience=null", "stopping.max_steps=1000000", "validation.every=50")
    process = subprocess.Popen(
        command(results, *CELLS, "--jobs", "2", few=long),
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        workers = workers_at(results, process.pid, when)
        process.send_signal(number)
        started = time.monotonic()
        assert process.wait(60) == (-number if number == signal.SIGKILL else 130)
        while any(is_there(worker) for worker in workers):
            assert time.monotonic() < started + 60
            time.sleep(0.02)
        took = time.monotonic() - started
    finally:
        subprocess.run(["pkill", "-9", "-s", str(process.pid)], check=False)
    print(f"{signal.Signals(number).name} while {when}: all gone after {took:.1f} s")
    assert took < 15  # on a busy machine
    if when == "training":
        assert list(results.glob("work/*/train/*"))


def workers_at(results, head, when):
    """Return the workers of a command once there are two, or once they train."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        time.sleep(0.05)
        children = Path(f"/proc/{head}/task/{head}/children").read_text().split()
        found = [
            child
            for child in children
            if b"pool_worker" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        steps = [state.step for board in boards(results) for state in board.states()]
        if len(found) == 2 and (when == "starting" or sum(step > 0 for step in steps) == 2):
            return found
    raise AssertionError(f"it never came to be {when}")


def is_there(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
