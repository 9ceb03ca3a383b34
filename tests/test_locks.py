"""Locks: one holder at a time, with the system's locks and without."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from dgm_bench import locks
from dgm_bench.errors import ResultsError
from dgm_bench.locks import holding

NONE = {"no flock": errno.ENOLCK, "no call": errno.ENOSYS, "not there": errno.EOPNOTSUPP}
#: Lets a process do without the system's locks, where its first argument says so.
WITHOUT = """
import errno, os, sys, time
from pathlib import Path
from dgm_bench import locks
if sys.argv[1] == "without":
    def flock(file):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    locks._flock = flock
"""


@pytest.fixture(params=["with", "without"])
def mode(request, monkeypatch):
    if request.param == "without":
        without(monkeypatch)
    return request.param


def without(monkeypatch, number=errno.ENOLCK):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    locks._TOLD.clear()


def process(mode, path, words):
    script = WITHOUT + textwrap.dedent(words)
    return subprocess.Popen(
        [sys.executable, "-c", script, mode, path], stdout=subprocess.PIPE, text=True
    )


@contextmanager
def another_holds(mode, path):
    """Another process that holds the lock until it is killed."""
    words = """
    with locks.holding(Path(sys.argv[2]), "it runs", "wait"):
        print("held", flush=True)
        time.sleep(60)
    """
    with process(mode, path, words) as other:
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.kill()


def test_a_lock_leaves_nothing(mode, tmp_path):
    with holding(tmp_path / "folder" / "lock", "it runs", "wait"):
        assert list((tmp_path / "folder").iterdir())
    assert not list((tmp_path / "folder").iterdir())


def test_a_second_holder_is_told_of_the_first(mode, tmp_path):
    path = tmp_path / "lock"
    with another_holds(mode, path) as other:
        with pytest.raises(ResultsError) as told, holding(path, "it runs", "wait for it"):
            pass
        line = str(told.value)
        assert f"it runs in process {other.pid} on " in line
        assert "; wait for it" in line
        assert (f"remove {path}.held" in line) == (mode == "without")


def test_the_lock_of_a_killed_process_is_free(mode, tmp_path):
    with another_holds(mode, tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir())
    with holding(tmp_path / "lock", "it runs", "wait"):
        pass
    assert not list(tmp_path.iterdir())


def test_without_locks_the_file_of_another_machine_is_respected(tmp_path, monkeypatch):
    without(monkeypatch)
    (tmp_path / "lock.held").write_text("process 1 on elsewhere since today\n1-1-00000000\n")
    told = r"on elsewhere since today.*remove .*lock\.held"
    with pytest.raises(ResultsError, match=told), holding(tmp_path / "lock", "it runs", "wait"):
        pass


@pytest.mark.parametrize("number", NONE.values(), ids=NONE)
def test_that_there_are_no_locks_is_told_once(number, tmp_path, monkeypatch, caplog):
    without(monkeypatch, number)
    for name in "ab":
        with holding(tmp_path / name / "lock", "it runs", "wait"):
            pass
    (told,) = caplog.records
    assert "has no locks" in told.getMessage()


def test_waiting_is_told_and_can_be_ended(mode, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "_SILENCE", 0.1)
    path, asked = tmp_path / "lock", []

    def waiting():
        asked.append(None)
        if len(asked) == 5:
            raise KeyboardInterrupt

    with another_holds(mode, path) as other:
        with pytest.raises(KeyboardInterrupt), holding(path, "it runs", "wait", 60, waiting):
            pass
        with pytest.raises(ResultsError), holding(path, "it runs", "wait", 0.2):
            pass
        told = [line.getMessage() for line in caplog.records if "waiting" in line.msg]
        assert told
        assert f"process {other.pid} " in told[0]


def test_many_processes_never_hold_it_at_once(mode, tmp_path):
    """Each adds one to a number, twenty times; a lock held twice loses some."""
    path, number = tmp_path / "lock", tmp_path / "number"
    number.write_text("0")
    words = """
    number = Path(sys.argv[2]).with_name("number")
    locks._PAUSE = 0.001
    for _ in range(20):
        with locks.holding(Path(sys.argv[2]), "it runs", "wait", patience=60):
            before = int(number.read_text())
            time.sleep(0.0005)
            number.write_text(str(before + 1))
    """
    others = [process(mode, path, words) for _ in range(4)]
    assert [other.wait() for other in others] == [0] * 4
    assert number.read_text() == "80"
    assert [file.name for file in tmp_path.iterdir()] == ["number"]


def test_one_of_many_takes_over_from_a_dead_process(tmp_path):
    """All find the same dead file; a living one's must not be removed in its place."""
    words = """
    locks._PAUSE = 0.0002
    inside = Path(sys.argv[2]).with_name("inside")
    for turn in range(20):
        if os.fork() == 0:
            with locks.holding(Path(sys.argv[2]), "it runs", "wait", patience=60):
                inside.open("x").close()
                time.sleep(0.0005)
                inside.unlink()
                os._exit(0)  # as if killed: the lock is not given back
        assert os.wait()[1] == 0
    """
    others = [process("without", tmp_path / "lock", words) for _ in range(4)]
    assert [other.wait() for other in others] == [0] * 4
