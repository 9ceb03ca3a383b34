"""Locks: one holder at a time, with the system's locks and without."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from dgm_bench import locks
from dgm_bench.errors import HeldError, ResultsError
from dgm_bench.locks import holding

NONE = {"no flock": errno.ENOLCK, "no call": errno.ENOSYS, "not there": errno.EOPNOTSUPP}
#: Lets a process do without the system's locks, where its first argument says so.
WITHOUT = """
import errno, fcntl, os, sys, time
from pathlib import Path
from filelock import FileLock, SoftFileLease, Timeout  # once, for all children
from dgm_bench import locks
if sys.argv[1] == "without":
    def flock(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock = flock
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


def process(mode, path, words, **ways):
    command = [sys.executable, "-c", WITHOUT + textwrap.dedent(words), mode, path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **ways)


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


def test_nobody_else_has_it_when_its_file_is_removed(tmp_path, monkeypatch):
    """Else a third process would lock a new file beside the second one's, which has no name."""
    remove, refused = Path.unlink, []

    def unlink(path, missing_ok=False):
        with pytest.raises(HeldError), holding(tmp_path / "lock", "it runs", "wait"):
            pass
        refused.append(path.name)
        remove(path, missing_ok)

    with holding(tmp_path / "lock", "it runs", "wait"):
        monkeypatch.setattr(Path, "unlink", unlink)
    assert refused == ["lock"]
    assert not list(tmp_path.iterdir())


def test_a_second_holder_is_told_of_the_first(mode, tmp_path):
    path = tmp_path / "lock"
    with another_holds(mode, path) as other:
        started = time.monotonic()
        with pytest.raises(ResultsError) as told, holding(path, "it runs", "wait for it"):
            pass
        assert time.monotonic() - started < 2  # of a process of this machine nobody waits for signs
        line = str(told.value)
        assert f"it runs in process {other.pid} on " in line
        assert "; wait for it" in line


def test_the_lock_of_a_killed_process_is_free(mode, tmp_path):
    with another_holds(mode, tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir())
    with holding(tmp_path / "lock", "it runs", "wait"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.fixture
def short(monkeypatch):
    """Holders are taken for gone after a second, and beat five times in it."""
    without(monkeypatch)
    monkeypatch.setattr(locks, "LEASE", 1.0)
    monkeypatch.setattr(locks, "BEAT", 0.2)


#: A holder on another machine, as far as anybody can see.
ELSEWHERE = """
    import platform, socket
    platform.node = socket.gethostname = lambda: "elsewhere"
    locks.LEASE, locks.BEAT = 1.0, 0.2
    with locks.holding(Path(sys.argv[2]), "it runs", "wait"):
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_holder_elsewhere_is_respected_while_it_beats(short, tmp_path):
    """Whatever its clock shows: that the time of its file changes is what counts."""
    path = tmp_path / "lock"
    with process("without", path, ELSEWHERE) as other:
        assert other.stdout.readline() == "held\n"
        for seconds in (1, 4e9):
            os.utime(f"{path}.held", (seconds, seconds))
            with (
                pytest.raises(ResultsError, match="on elsewhere since"),
                holding(path, "it", "wait"),
            ):
                pass
        with pytest.raises(ResultsError), holding(path, "it runs", "wait", patience=1.5):
            pass
        other.kill()


def test_a_holder_elsewhere_that_beats_no_more_is_taken_over(short, tmp_path, caplog):
    path = tmp_path / "lock"
    with process("without", path, ELSEWHERE) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
    started = time.monotonic()
    with holding(path, "it runs", "wait"):
        assert time.monotonic() - started > 0.9
        assert f"its holder is gone: process {other.pid} on elsewhere" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_holder_that_stood_still_writes_nothing_more(short, tmp_path):
    """It is stopped, taken over from, and goes on: the lock of the other one stays as it is."""
    path, words = tmp_path / "lock", ELSEWHERE.replace("time.sleep(60)", "sys.stdin.readline()")
    words += """
        from dgm_bench.sealed import write_atomically, write_once, written_together
        for write in (write_atomically, write_once):
            try:
                write(Path(sys.argv[2] + ".written"), b"late")
            except locks.LostLockError as error:
                print(error, flush=True)
        try:
            with written_together() as write:
                write(Path(sys.argv[2] + ".written"), b"late")
        except locks.LostLockError as error:
            print(error, flush=True)
    """
    with process("without", path, words, stdin=subprocess.PIPE) as other:
        assert other.stdout.readline() == "held\n"
        other.send_signal(signal.SIGSTOP)
        with holding(path, "it runs", "wait"):
            other.send_signal(signal.SIGCONT)
            said, _ = other.communicate("go on\n")
            assert said.count(f"was taken over by process {os.getpid()} on ") == 3
            assert {file.name for file in tmp_path.iterdir()} == {"lock", "lock.held"}
            locks.require_held()


MOUNTED = {
    "nfs4 rw,vers=4.2,local_lock=none": False,
    "nfs rw,vers=3,local_lock=none": False,
    "nfs rw,vers=3,nolock,local_lock=all": True,
    "nfs rw,vers=3,local_lock=flock": True,
    "nfs rw,vers=3,local_lock=posix": False,
    "cifs rw,nobrl": True,
    "lustre rw,flock": False,
    "lustre rw,localflock": True,
    "ext4 rw,nolock": False,
}


@pytest.mark.parametrize(("mounted", "local"), MOUNTED.items())
def test_locks_that_one_machine_alone_sees_are_none(mounted, local, tmp_path, monkeypatch):
    kind, _, options = mounted.partition(" ")
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    (tmp_path / "mounts").write_text(
        "20 1 0:5 / /else rw shared:1 - nfs host:/other rw,nolock\n"
        f"21 1 {number} / /mnt rw,relatime shared:1 - {kind} host:/x {options}\n"
    )
    monkeypatch.setattr(locks, "_MOUNTS", tmp_path / "mounts")
    locks._require_locks.cache_clear()
    with holding(tmp_path / "lock", "it runs", "wait"):
        assert (tmp_path / "lock.held").exists() == local
    locks._require_locks.cache_clear()


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
    for turn in range(10):
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
