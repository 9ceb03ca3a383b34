"""What needs no Slurm: packs, what is asked for, what its answers mean, and its signals."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import make_context
from hypothesis import given, settings
from hypothesis import strategies as st

from dgm_bench.catalog import load_catalog
from dgm_bench.cli.queries import make_plan
from dgm_bench.config import section
from dgm_bench.engines import choice, slurm, slurm_job, slurm_nodes, worker
from dgm_bench.engines.board import Board, TaskState
from dgm_bench.engines.packing import packed
from dgm_bench.engines.slurm import SlurmEngine, last_words
from dgm_bench.engines.slurm_job import Pack
from dgm_bench.engines.slurm_nodes import (
    Partition,
    Shape,
    SlurmOptions,
    gpus_of,
    seconds_of,
    shape_of,
)
from dgm_bench.engines.tasks import Job, Task, Terms
from dgm_bench.errors import UsageError
from dgm_bench.store import Store

GIB = 2**30
SMALL = Shape(cpus=1, memory=2 * GIB, gpus=0)
NODE = Shape(cpus=32, memory=128 * GIB, gpus=4)
GPU = Partition("gpu", 7200.0, (NODE, NODE), frozenset({"n1", "n2"}))


def job(name="a", seconds=10.0, attempt=1, memory=0):
    task = Task(
        id=name,
        cells=("ffjord/density/made/digits",),
        seeds=(0,),
        settings=(),
        recipe_hash="0" * 64,
        seconds=seconds,
        memory_bytes=memory,
    )
    terms = Terms(
        data_root=Path("/d"), results=Path("/r"), device="cpu", threads=None, offline=False
    )
    return Job(task=task, terms=terms, attempt=attempt)


# ------------------------------------------------------------------------------- packing

SECONDS = st.none() | st.floats(0.0, 1000.0)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(SECONDS, st.integers(1, 2), st.booleans()), max_size=30),
    limit=st.floats(1.0, 600.0),
    slots=st.integers(1, 8),
)
def test_packs_hold_each_job_once_are_short_enough_and_leave_no_slot_idle(lengths, limit, slots):
    jobs = [
        (SMALL if small else NODE, job(str(place), seconds, attempt))
        for place, (seconds, attempt, small) in enumerate(lengths)
    ]
    packs = packed(jobs, limit, slots)
    for shape in (SMALL, NODE):
        asked = [one for wanted, one in jobs if wanted == shape]
        assert [one for wanted, pack in packs if wanted == shape for one in pack] == asked
    share = sum(one.task.seconds or 0.0 for _, one in jobs) / (2 * slots)
    for _, pack in packs:
        known = [one.task.seconds for one in pack]
        alone = any(one.task.seconds is None or one.attempt > 1 for one in pack)
        assert len(pack) == 1 or (not alone and sum(known) <= min(limit, share) * (1 + 1e-9))


def test_packs_are_no_fewer_than_what_keeps_all_slots_busy():
    assert len(packed([(SMALL, job(str(n))) for n in range(40)], 600, 2)) == 4


def test_jobs_of_unknown_length_are_alone_where_none_is_known():
    assert [len(pack) for _, pack in packed([(SMALL, job(seconds=None))] * 3, 600, 2)] == [1, 1, 1]


# --------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1:00", 60), ("2-12:00:00", 216000), ("30:00", 1800), ("infinite", None), ("n/a", None)],
)
def test_limits_of_time_are_read_as_slurm_writes_them(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "gpus"),
    [("(null)", 0), ("gpu:4", 4), ("gpu:a100:2(S:0-1),gpu:v100:1,nvme:3", 3), ("shard:8", 0)],
)
def test_gpus_are_read_as_slurm_writes_them(text, gpus):
    assert gpus_of(text) == gpus


def asked(options=None, memory=0, **terms):
    one = job(memory=memory)
    return shape_of(one.task, one.terms.model_copy(update=terms), SlurmOptions(**(options or {})))


def test_a_job_asks_for_what_its_run_declares_and_more():
    """Small runs ask for the same, so that a plan of them is one array."""
    assert [asked(memory=n) for n in (10**8, 6 * 10**8)] == [SMALL, SMALL]
    large = asked(memory=10 * GIB, device="cuda")
    assert (large.cpus, large.gpus) == (4, 1)
    assert 16 * GIB <= large.memory <= 20 * GIB
    assert asked(threads=2).cpus == 2
    told = {"cpus": 8, "memory": "1G", "gpus": 0}
    assert asked(told, device="cuda", threads=2) == Shape(8, GIB, 0)


def test_a_run_on_several_devices_asks_for_all_of_them():
    spread = asked(device="cuda", devices=3)
    assert (spread.cpus, spread.gpus) == (12, 3)
    assert asked(devices=3, threads=2) == Shape(6, SMALL.memory, 0)


def test_a_partition_has_room_by_its_scarcest_resource():
    assert GPU.room(Shape(4, GIB, 1)) == 8
    assert GPU.room(Shape(1, 60 * GIB, 0)) == 4
    GPU.require(NODE, "a")
    with pytest.raises(UsageError, match=r"a: needs 5 GPUs, 1 CPUs, .* and no node of gpu has"):
        GPU.require(Shape(1, GIB, 5), "a")


def test_a_job_asks_for_time_within_the_partitions_limit_and_ahead_of_its_signal():
    assert GPU.time(None, SlurmOptions()) == 1800
    assert GPU.time(1000, SlurmOptions()) == 3120
    assert GPU.time(1e6, SlurmOptions()) == 7200
    assert GPU.time(1e6, SlurmOptions(time="20m")) == 1200
    with pytest.raises(UsageError, match=r"is longer than gpu allows, 2.0 h; use --engine-option"):
        GPU.time(1.0, SlurmOptions(time="3h"))
    with pytest.raises(UsageError, match="is told to save 2 min ahead, so it has no time"):
        GPU.time(1.0, SlurmOptions(time="90s"))


def test_every_option_can_stand_in_the_users_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dgm-bench.toml").write_text(
        '[slurm]\npartition = "gpu"\ntime = "4h"\nmemory = "8G"\nsetup = ["module load cuda"]\n'
        'sbatch = { exclude = "n7", exclusive = true }\n'
    )
    read = section("slurm", SlurmOptions, {"qos": "long"})
    assert (read.time, read.memory, read.qos) == (14400.0, 8 * GIB, "long")
    assert read.sbatch == {"exclude": "n7", "exclusive": True}


def test_a_folder_that_only_this_machine_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_nodes, "_file_system", lambda folder: "tmpfs")
    with pytest.raises(UsageError, match=r"the nodes of gpu cannot see it \(tmpfs\); name a"):
        slurm_nodes.require_shared(tmp_path, GPU)
    here = Partition("gpu", None, (NODE,), frozenset({slurm_nodes.platform.node()}))
    slurm_nodes.require_shared(tmp_path, here)


def test_a_plan_asks_for_the_memory_of_nodes_and_not_of_the_machine_to_log_in(monkeypatch):
    small = Partition("gpu", None, (Shape(1, 10**8, 0), Shape(1, 4 * 10**8, 0)), frozenset())
    large = Partition("gpu", None, (Shape(1, 10**15, 0),), frozenset())
    cells = load_catalog().select("ffjord/density/made/moons")
    monkeypatch.setattr("dgm_bench.provenance.memory_bytes", lambda: 10**6)
    for partition, reason in ((small, "needs 0.5 GB memory, here are 0.4 GB"), (large, "")):
        monkeypatch.setattr(choice, "find_partition", lambda name, found=partition: found)
        memory = choice.Choice("slurm").memory_bytes()
        planned = make_plan(
            cells, make_context(), Store(Path("none")), memory_bytes=memory, seeds=2
        )
        assert {run.reason for run in planned.runs} == {reason}
    assert choice.Choice().memory_bytes() is None


def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(tmp_path, monkeypatch):
    mounts = [("/", "ext4"), (str(tmp_path), "nfs4"), (f"{tmp_path}/my runs", "tmpfs"), ("/x", "x")]
    found = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounts]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: found)
    for folder, kind in (("my runs/a", "tmpfs"), ("my", "nfs4"), ("..", "ext4")):
        assert slurm_nodes._file_system(tmp_path / folder) == kind
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [])
    assert slurm_nodes._file_system(tmp_path) == ""


def test_a_machine_without_slurm_or_submitit_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="--engine slurm: there is no sinfo on this machine; run"):
        slurm_nodes.find_partition(None)
    monkeypatch.setitem(slurm.sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"slurm needs submitit: pip install 'dgm-bench\[slurm\]'"):
        SlurmEngine(SlurmOptions())


# ------------------------------------------------------------------------ what it answers


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """An engine that follows job 7_0 with task ``a``; returns what it says to answers of squeue."""
    monkeypatch.setattr(slurm, "_require_submitit", lambda: None)
    monkeypatch.setattr(slurm, "find_partition", lambda name: GPU)
    engine, board = SlurmEngine(SlurmOptions()), Board(tmp_path)
    engine._board = board
    engine._take(slurm._Array(name="n", packs=[[("a", 1)]], ids=["7_0"]), "PENDING")

    def ended(*states, note=None):
        if note:
            board.note(TaskState(task="a", state=note))
        answers = [{"7_0": state} if state else {} for state in states]
        return [end for answer in answers for end in engine._over(answer)], board.state("a")

    return ended


def test_a_job_on_its_way_back_to_the_queue_is_not_over(followed):
    states = ("RUNNING", "PREEMPTED", "COMPLETING", "NODE_FAIL", "PENDING", "TIMEOUT", "RUNNING")
    assert followed(*states)[0] == []


@pytest.mark.parametrize("states", [("COMPLETED",), ("FAILED", "FAILED"), ("RUNNING", "", "")])
def test_a_job_that_is_over_is_told_with_its_last_words(followed, states, tmp_path):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "7_0_0_log.err").write_text("Traceback\nOSError: disk full\n")
    (end,), state = followed(*states)
    assert (end.task_id, end.reason) == ("a", "Slurm job 7_0: OSError: disk full")
    assert state is None


@pytest.mark.parametrize("states", [("", ""), ("RUNNING", "CANCELLED", "CANCELLED")])
def test_a_job_that_somebody_cancelled_was_stopped_and_did_not_die(followed, states):
    (_,), state = followed(*states)
    assert (state.state, state.stop_reason) == ("stopped", "job 7_0 was cancelled")


def test_what_was_done_before_a_job_was_cancelled_stays_done(followed):
    assert followed("CANCELLED", "CANCELLED", note="done")[1].state == "done"


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """An engine whose Slurm takes nothing, and a board."""
    monkeypatch.setattr(slurm, "_require_submitit", lambda: None)
    monkeypatch.setattr(slurm, "find_partition", lambda name: GPU)
    monkeypatch.setattr(slurm, "require_shared", lambda *_: None)
    monkeypatch.setattr(slurm, "_most_in_array", lambda: 1000)
    monkeypatch.setattr(slurm, "ask", lambda *_: "")

    def refuse(*_):
        raise UsageError("sbatch", "Invalid account")

    monkeypatch.setattr(SlurmEngine, "_ask_for", refuse)
    return SlurmEngine(SlurmOptions()), Board(tmp_path)


def test_what_slurm_does_not_take_is_left_at_once(refused):
    engine, board = refused
    engine.submit(job("a"), board)
    with pytest.raises(UsageError, match="sbatch: Invalid account"):
        engine.poll(0.0)
    engine.submit(job("b"), board)
    engine.cancel(["b"])
    assert sorted(end.task_id for end in engine.poll(0.0)) == ["a", "b"]
    assert engine.poll(0.0) == []


def test_a_job_without_a_log_is_told_with_its_folder(tmp_path):
    assert "its node may not see that folder" in last_words(tmp_path, "7")
    (tmp_path / "7_0_log.err").touch()
    assert last_words(tmp_path, "7") == "it ended without a word"


# ---------------------------------------------------------------------------- its signals


@pytest.fixture
def in_job(tmp_path, monkeypatch):
    """Does two tasks in a job whose first one is told by a signal; returns what came of it."""
    board, came = Board(tmp_path), []
    kept = signal.signal(signal.SIGUSR2, lambda *_: came.append("back to the queue"))

    def run(number, running=True, cancel=False, unheard=False):
        def do(job, board, gone):
            came.append(job.task.id)
            if number is not None:
                signal.raise_signal(number)
            if cancel:
                board.request_cancel()
            state = TaskState(
                task=job.task.id, state="stopped" if gone() or cancel or unheard else "done"
            )
            board.note(state)
            return state

        monkeypatch.setattr(worker, "do", do)
        monkeypatch.setattr(slurm_job, "_is_running", lambda: running)
        Pack()(str(tmp_path), [job(name).model_dump_json() for name in "ab"])
        states = [board.state(name) for name in "ab"]
        return came, [state and state.state for state in states]

    yield run
    signal.signal(signal.SIGUSR2, kept)


def test_without_a_signal_all_tasks_are_done(in_job):
    assert in_job(None) == (["a", "b"], ["done", "done"])


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_ends_the_task_in_good_order_and_then_the_job_goes_back(in_job, number):
    assert in_job(number) == (["a", "back to the queue"], ["waiting", None])


def test_a_signal_that_the_run_itself_hears_ends_the_job_too(in_job):
    assert in_job(None, unheard=True) == (["a", "back to the queue"], ["waiting", None])


def test_a_job_that_slurm_does_not_want_any_more_does_not_go_back(in_job):
    assert in_job(signal.SIGTERM, running=False) == (["a"], ["stopped", None])


def test_a_job_that_is_cancelled_by_the_board_does_not_go_back(in_job):
    assert in_job(None, cancel=True) == (["a"], ["stopped", None])


def test_a_job_that_came_back_leaves_what_it_has_done(in_job, tmp_path):
    Board(tmp_path).note(TaskState(task="a", state="done"))
    assert in_job(None) == (["b"], ["done", "done"])
