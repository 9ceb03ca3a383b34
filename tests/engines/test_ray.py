"""The engine for Ray on a real cluster, with what can go wrong; ``DGM_BENCH_ENGINES=1`` runs it.

The command's results, and its data, lie where no node can see them, if the system allows that.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec

import pytest
from engines.ray_nodes import ray_nodes
from engines.same_records import differences

from dgm_bench.processes import is_gone

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("DGM_BENCH_ENGINES") != "1", reason="set DGM_BENCH_ENGINES=1: takes minutes"
    ),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]

# Both are still at work some seconds after their first checkpoint.
CELLS = ("maf-5", "maf-10")
RUN = ("--set", "stopping.max_steps=1500", "--budget", "none", "--no-tracking", "--threads", "1")
PREFIX = "dgm-bench-run-"
CHECKPOINT = f"{PREFIX}*/results/work/*/train/checkpoint.pt"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The results of one process."""
    folder = tmp_path_factory.mktemp("one")
    done = subprocess.run([*command_of(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def nodes():
    with ray_nodes() as started:
        yield started


@pytest.fixture
def head(tmp_path, nodes):
    """A command on the cluster, and its results folder."""
    commands = []

    def start(*options, address=nodes.address, hidden=True):
        commands.append(Head(tmp_path / "results", address, options, hidden and can_hide()))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


def command_of(results, *options):
    cells = [f"ffjord/density/{row}/digits" for row in CELLS]
    return [
        sys.executable, "-m", "dgm_bench", "run", *cells, *RUN, "--results", str(results), *options,
    ]  # fmt: skip


def can_hide():
    """Say whether folders can be hidden from other processes here."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


class Head:
    """A command that runs; its results are copied to where they can be seen once it is over."""

    def __init__(self, results, address, options, hidden):
        results.mkdir(exist_ok=True)
        self.results, self.log = results, results.with_name("log")
        command = command_of(results, "--engine", "ray", "--address", address, *options)
        if hidden:
            own, seen = results.with_name("own"), results.with_name("seen")
            own.mkdir(exist_ok=True)
            # What was there before the mount is below ``seen``; ``own`` is this command's alone.
            command = [
                "unshare", "-m", "sh", "-c",
                f"mkdir -p {seen} && mount -t tmpfs none {own} && cp -a {results}/. {own} && "
                f"mount --bind {own} {results} && "
                'trap "" INT TERM; "$@" & echo $! > ' + f"{seen}/pid; wait $!; "
                f"code=$?; umount {results}; cp -a {own}/. {results}; exit $code",
                "sh", *command,
            ]  # fmt: skip
        self.hidden, self.seen = hidden, results.with_name("seen")
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "DGM_BENCH_CHECKPOINT_SECONDS": "1"},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, seconds=600):
        return self.process.wait(seconds)

    def said(self):
        return self.log.read_text()

    def signal(self, number):
        pid = int((self.seen / "pid").read_text()) if self.hidden else self.process.pid
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def until(found, seconds=400):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if (value := found()) is not None:
            return value
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def busy(nodes):
    """A node that has a checkpoint of a run in the middle; killed workers leave theirs."""
    for name in nodes.nodes:
        for path in (nodes.folder / name).glob(CHECKPOINT):
            folder = path.relative_to(nodes.folder / name).parts[0]
            if not is_gone(folder.removeprefix(PREFIX).rpartition(".")[0]):
                return name
    return None


def worker(nodes, name):
    """The process of a node's worker that has a folder now."""
    marks = [path.name.removeprefix(PREFIX) for path in (nodes.folder / name).glob(f"{PREFIX}*")]
    return next(int(m.partition("-")[0]) for m in marks if not is_gone(m.rpartition(".")[0]))


def assert_as_one(one, results):
    assert differences(one, results) == []


def test_a_node_that_is_lost_in_the_middle_costs_nothing_but_time(one, nodes, head):
    command = head()
    name = until(lambda: busy(nodes))
    nodes.kill(name)
    nodes.add(name + "again")
    assert command.wait() == 0, command.said()
    assert "its node was lost" in command.said()
    assert_as_one(one, command.results)


def test_a_worker_that_is_killed_is_one_failed_try(one, nodes, head):
    command = head("--jobs", "2")
    name = until(lambda: busy(nodes))
    os.kill(worker(nodes, name), signal.SIGKILL)
    assert command.wait() == 0, command.said()
    assert "its process was killed" in command.said()
    assert_as_one(one, command.results)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_gone_goes_on_when_it_is_given_again(one, nodes, head, number):
    command = head()
    until(lambda: busy(nodes))
    time.sleep(1.5)
    command.signal(number)
    started = time.monotonic()
    code = command.wait()
    if number != signal.SIGKILL:
        assert code == 130, command.said()
        assert time.monotonic() - started < 20
    again = head()
    assert again.wait() == 0, again.said()
    assert_as_one(one, again.results)


def test_a_node_without_room_is_shunned(one, nodes, head, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", small]).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        # The two runs have one other place, so that one of them is surely sent to the small node.
        for name in list(nodes.nodes)[1:]:
            nodes.kill(name)
        nodes.add("small", cpus=8, env={"TMPDIR": str(small)})
        command = head()
        assert command.wait() == 0, command.said()
        assert "No space left" in command.said()
        assert_as_one(one, command.results)
    finally:
        nodes.kill("small")
        subprocess.run(["umount", "-l", small])
        for number in range(2):
            nodes.add(f"after-the-small-one-{number}")


def test_checkpoints_may_lie_at_an_address(one, nodes, head, tmp_path):
    storage = tmp_path / "kept"
    command = head("--engine-option", f"storage=file://{storage}")
    until(lambda: next(storage.glob("work/*/train/checkpoint.pt"), None))
    nodes.kill(name := busy(nodes) or next(iter(nodes.nodes)))
    nodes.add(name + "-new")
    assert command.wait() == 0, command.said()
    assert_as_one(one, command.results)
    assert not list(storage.glob("work/*/train/*.pt"))


def test_a_cluster_whose_head_is_lost_is_told_and_another_goes_on(one, head):
    with ray_nodes(2) as first:
        command = head(address=first.address)
        until(lambda: busy(first))
        time.sleep(1.5)
        first.kill_head()
        started = time.monotonic()
        assert command.wait() == 1, command.said()
        assert time.monotonic() - started < 60
        (line,) = [line for line in command.said().splitlines() if line.startswith("error: ")]
        assert line.startswith("error: Ray: ")
    with ray_nodes(2) as second:
        again = head(address=second.address)
        assert again.wait() == 0, again.said()
    assert_as_one(one, again.results)
