"""The local pool, its processes a few lines of Python without torch."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from dgm_bench.engines import local
from dgm_bench.engines.board import Board
from dgm_bench.engines.local import LocalEngine, places
from dgm_bench.engines.tasks import Job, Task, Terms
from dgm_bench.errors import ResultsError
from dgm_bench.planner import Need, Room

#: Does what the first cell of a task says, and what the pool's own process does around it.
STUB = """
import json, os, signal, sys, time
for line in sys.stdin:
    given = json.loads(line)
    what, _, how = given["job"]["task"]["cells"][0].partition(" ")
    if what == "note":
        open(how, "a").write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\\n")
    elif what == "wait":
        open(how, "a").write(f"{os.getpid()}\\n")
        time.sleep(60)
    elif what == "signal":
        os.kill(os.getpid(), int(how))
    elif what == "exit":
        print("what went wrong", file=sys.stderr)
        sys.exit(int(how))
    os.write(1, b".")
"""


def make_job(what, *, name=None, memory=None, folder=Path("nowhere")):
    task = Task(
        id=name or what, cells=(what,), seeds=(0,), settings=(), recipe_hash="h",
        memory_bytes=memory,
    )  # fmt: skip
    terms = Terms(data_root=folder, results=folder, device="cpu", threads=None, offline=True)
    return Job(task=task, terms=terms)


@pytest.fixture
def pool(monkeypatch):
    """Make pools of the stub, which are closed at the end."""
    monkeypatch.setattr(local, "_PROGRAM", STUB)
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(
            contextlib.closing(LocalEngine(*args, **options))
        )


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "board")


def ended(engine, count, seconds=20.0):
    """Return how so many jobs ended."""
    found, until = {}, time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < until, found
        found |= {end.task_id: end.reason for end in engine.poll(0.05)}
    return found


def lines(path, count):
    until = time.monotonic() + 20
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < until
        time.sleep(0.01)
    return path.read_text().splitlines()


def is_gone(process):
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    return False


def test_a_process_does_one_job_after_the_other_with_its_threads(pool, board, tmp_path):
    engine, note = pool(1, 3), tmp_path / "note"
    for name in "abc":
        engine.submit(make_job(f"note {note}", name=name), board)
    assert ended(engine, 3) == dict.fromkeys("abc")
    assert len(set(lines(note, 3))) == 1
    assert lines(note, 3)[0].split()[1] == "3"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("signal 9", "killed (out of memory?)"),
        ("signal 11", "ended by SIGSEGV"),
        ("exit 3", "ended with exit code 3; see "),
        ("exit 0", "ended with exit code 0; see "),
    ],
)
def test_a_process_that_dies_takes_no_other_job_with_it(pool, board, tmp_path, what, reason):
    engine = pool(2, 1)
    engine.submit(make_job(what, name="dies"), board)
    for name in "abc":
        engine.submit(make_job(f"note {tmp_path / 'note'}", name=name), board)
    found = ended(engine, 4)
    said = found.pop("dies")
    assert said.startswith(reason)
    assert found == dict.fromkeys("abc")
    if "see" in reason:
        assert Path(said.rpartition("see ")[2]).read_text() == "what went wrong\n"


def test_a_process_that_died_idle_is_replaced(pool, board, tmp_path):
    engine, note = pool(1, 1), tmp_path / "note"
    engine.submit(make_job(f"note {note}", name="a"), board)
    ended(engine, 1)
    process = int(lines(note, 1)[0].split()[0])
    os.kill(process, signal.SIGKILL)
    engine.submit(make_job(f"note {note}", name="b"), board)
    first = ended(engine, 1)["b"]
    if first is not None:  # its end was seen only with this job: the head tries it again
        assert first.startswith("killed")
        engine.submit(make_job(f"note {note}", name="b"), board)
        assert ended(engine, 1) == {"b": None}
    assert lines(note, 2)[1].split()[0] != str(process)


def test_jobs_wait_for_memory_and_smaller_ones_go_by(pool, board, tmp_path):
    engine, going, note = pool(3, 1, memory_bytes=10), tmp_path / "going", tmp_path / "note"
    engine.submit(make_job(f"wait {going}", name="large", memory=6), board)
    engine.submit(make_job(f"note {note}", name="as large", memory=6), board)
    engine.submit(make_job(f"note {note}", name="small", memory=4), board)
    assert ended(engine, 1) == {"small": None}
    os.kill(int(lines(going, 1)[0]), signal.SIGKILL)
    assert ended(engine, 2) == {"large": "killed (out of memory?)", "as large": None}


def test_cancelled_jobs_end_by_sigterm_or_never_begin(pool, board, tmp_path):
    engine, note = pool(1, 1), tmp_path / "note"
    engine.submit(make_job(f"wait {note}", name="runs"), board)
    engine.submit(make_job(f"note {note}", name="waits"), board)
    lines(note, 1)
    engine.cancel(["runs", "waits", "unknown"])
    assert ended(engine, 2) == {"runs": "ended by SIGTERM", "waits": None}
    assert len(lines(note, 1)) == 1


def test_nothing_is_left_once_it_is_closed(pool, board, tmp_path):
    engine, note = pool(2, 1), tmp_path / "note"
    for name in "ab":
        engine.submit(make_job(f"wait {note}", name=name), board)
    processes = lines(note, 2)
    engine.close()
    assert all(map(is_gone, processes))
    assert list((board.folder / "logs").iterdir()) == []
    engine.close = lambda: None


def test_a_board_that_cannot_be_written_is_told(pool, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="file"):
        pool(1, 1).submit(make_job("note x"), Board(tmp_path / "file" / "board"))


@pytest.mark.parametrize(("jobs", "gpus"), [(1, 0), (3, 0), (2, 2), (5, 2), (1, 4), (7, 3)])
def test_processes_share_the_gpus_as_their_room_has_it(jobs, gpus):
    names = [f"GPU-{number}" for number in range(gpus)]
    found = places(jobs, 2, names)
    room = Room(jobs, max(min(gpus, jobs), 1), 100)
    taken = sorted(room.take(Need(1))[0] for _ in range(jobs))
    assert taken == sorted(place.device for place in found)
    for place in found:
        assert place.environment["OMP_NUM_THREADS"] == "2"
        shown = place.environment.get("CUDA_VISIBLE_DEVICES")
        assert shown == (names[place.device] if gpus else None)
