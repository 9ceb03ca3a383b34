"""On a real Slurm: the same records as one process, whatever happens to jobs and commands."""

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from engines.same_records import differences
from engines.slurm_cluster import SlurmCluster, why_none

from dgm_bench.engines.board import boards
from dgm_bench.engines.slurm_nodes import seconds_of
from dgm_bench.store import Store

WHY_NOT = (
    "set DGM_BENCH_ENGINES=1 for these minutes"
    if os.environ.get("DGM_BENCH_ENGINES") != "1"
    else why_none()
    if find_spec("submitit")
    else "needs submitit: pip install 'dgm-bench[slurm]'"
)
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

#: Small runs, two of them with two seeds that are trained together.
PLAN = ("ffjord/density/gaussian/[mr]*s", "ffjord/density/made/[mr]*s", "--seeds", "2")
#: A run that is long enough to be in the middle when something happens to it.
ONE = ("ffjord/density/made/digits", "--set", "stopping.patience=10000")
LONG = (*ONE, "--set", "stopping.max_steps=3000")
#: Slurm looks at limits of time twice a minute.
LONGER = (*ONE, "--set", "stopping.max_steps=15000")


class Command:
    """``dgm-bench run`` in a cluster; what it prints goes to a file.

    Args:
        cluster: The cluster.
        results: The results folder.
        words: Of the command.
    """

    def __init__(self, cluster, results, *words):
        self.results, self._output = results, results.with_suffix(".out")
        command = [sys.executable, "-m", "dgm_bench", "run", *words, "--budget", "none"]
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--no-tracking", "--threads", "1", "--results", str(results)],
                env=cluster.environment | {"OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=output,
            )

    def ended(self, code=0):
        """What it told, once it has ended."""
        returned = self.process.wait(timeout=1200)
        told = self._output.read_text()
        assert returned == code, told
        return told

    def jobs(self):
        """The ids of its jobs, and the tasks in each, once they are submitted."""
        return wait_for(lambda: _jobs(self.results))

    def in_the_middle(self):
        """The state of a task, once it has done some steps."""
        return wait_for(lambda: next((s for s in tasks(self.results) if s.step > 300), None))


class Commands:
    """Runs ``dgm-bench`` in a cluster."""

    def __init__(self, cluster):
        self.cluster = cluster

    def here(self, results, *words):
        return Command(self.cluster, results, *words, "--jobs", "1").ended()

    def start(self, results, *words):
        return Command(self.cluster, results, "--engine", "slurm", *words)

    def jobs(self):
        """The state of each job that was ever submitted, by its id."""
        shown = self.cluster.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T")
        return dict(line.split("|") for line in shown.splitlines())

    def restarts(self, jobs):
        """How often Slurm began jobs again."""
        shown = [self.cluster.run("scontrol", "show", "job", job) for job, _ in jobs]
        return sum(int(text.partition("Restarts=")[2].split()[0]) for text in shown)


def wait_for(what, seconds=300.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.1)
    return found


def tasks(results):
    return [state for board in boards(results) for state in board.states()]


def _jobs(results):
    arrays = [a for path in results.glob("work/submissions/*/slurm.json") for a in _arrays(path)]
    if not all(array["ids"] for array in arrays):
        return []
    return [
        (job, [task for task, _ in pack])
        for array in arrays
        for job, pack in zip(array["ids"], array["packs"], strict=True)
    ]


def _arrays(path):
    return json.loads(path.read_text())["arrays"]


def segments(results):
    """In how many parts the only run was done."""
    (record,) = Store(results).records()
    return len(record.budget.segments)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with SlurmCluster(tmp_path_factory.mktemp("s"), array=2001) as cluster:
        yield Commands(cluster)


@pytest.fixture(scope="module")
def alone(slurm, tmp_path_factory):
    """Results of one process, by what it runs; each is made once."""
    made = {}

    def results(words):
        if words not in made:
            made[words] = tmp_path_factory.mktemp("alone")
            slurm.here(made[words] / "r", *words)
        return made[words] / "r"

    return results


def test_a_plan_gives_the_records_of_one_process_and_small_runs_share_jobs(slurm, alone, tmp_path):
    command = slurm.start(tmp_path / "r", *PLAN)
    jobs = command.jobs()
    assert 2 <= len(jobs) < sum(len(names) for _, names in jobs)
    command.ended()
    assert differences(alone(PLAN), tmp_path / "r") == []
    assert "done before" in slurm.start(tmp_path / "r", *PLAN).ended()
    assert differences(alone(PLAN), tmp_path / "r") == []


def test_a_preempted_job_comes_back_and_goes_on_from_its_checkpoint(slurm, alone, tmp_path):
    command = slurm.start(tmp_path / "r", "--partition", "low", *LONG)
    command.in_the_middle()
    jobs = command.jobs()
    slurm.cluster.run(
        *("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"),
        *("--wrap", "srun sleep 2"),
    )
    wait_for(lambda: [state.state for state in tasks(tmp_path / "r")] == ["waiting"])
    assert "its process died" not in command.ended()
    assert (slurm.restarts(jobs), segments(tmp_path / "r")) == (1, 2)
    assert differences(alone(LONG), tmp_path / "r") == []


def test_a_job_at_its_time_limit_comes_back_and_goes_on(slurm, alone, tmp_path):
    """The limit is set once the run is in the middle, and taken back for its second part."""
    command = slurm.start(tmp_path / "r", "--engine-option", "signal_delay=110s", *LONGER)
    command.in_the_middle()
    ((job, _),) = command.jobs()
    minutes = int(seconds_of(slurm.cluster.run("squeue", "-h", "-j", job, "-o", "%M").strip()) / 60)
    slurm.cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes + 2}")
    wait_for(lambda: [state.state for state in tasks(tmp_path / "r")] == ["waiting"])
    slurm.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    assert "its process died" not in command.ended()
    assert (slurm.restarts([(job, [])]), segments(tmp_path / "r")) == (1, 2)
    assert differences(alone(LONGER), tmp_path / "r") == []


def test_a_job_that_is_killed_is_tried_again_and_goes_on(slurm, alone, tmp_path):
    command = slurm.start(tmp_path / "r", *LONG)
    os.kill(command.in_the_middle().process, signal.SIGKILL)
    assert "its process died (Slurm job" in command.ended()
    assert differences(alone(LONG), tmp_path / "r") == []


def test_a_command_that_is_killed_leaves_jobs_to_the_next_one(slurm, alone, tmp_path):
    command = slurm.start(tmp_path / "r", *LONG)
    command.in_the_middle()
    command.process.kill()
    command.process.wait()
    before = slurm.jobs()
    told = slurm.start(tmp_path / "r", *LONG).ended()
    assert "1 jobs of an earlier command go on" in told
    assert slurm.jobs().keys() == before.keys()
    assert segments(tmp_path / "r") == 1
    assert differences(alone(LONG), tmp_path / "r") == []


def test_jobs_that_somebody_cancels_are_left_and_not_tried_again(slurm, alone, tmp_path):
    """One of them runs; the other, for which there is no room, waits."""
    one_a_job = ("--jobs", "1", "--engine-option", "pack=1s")
    command = slurm.start(tmp_path / "r", *one_a_job, *LONG, "ffjord/density/made/moons")
    command.in_the_middle()
    jobs = command.jobs()
    slurm.cluster.run("scancel", f"--user={getpass.getuser()}")
    assert "2 unfinished in" in command.ended()
    assert {slurm.jobs().get(job, "CANCELLED") for job, _ in jobs} == {"CANCELLED"}
    slurm.here(tmp_path / "r", *LONG)
    assert segments(tmp_path / "r") == 2
    assert differences(alone(LONG), tmp_path / "r") == []


def test_a_thousand_jobs_are_submitted_followed_and_taken_back(slurm, tmp_path):
    words = ("ffjord/density/gaussian/moons", "--seeds", "1000", "--engine-option", "pack=1s")
    command = slurm.start(tmp_path / "r", *words)
    jobs = command.jobs()
    assert len(jobs) == 1000
    wait_for(lambda: Store(tmp_path / "r").records())
    command.process.send_signal(signal.SIGINT)
    command.ended(code=130)
    mine, states = {job for job, _ in jobs}, slurm.jobs()
    assert {states[job] for job in mine & states.keys()} <= {"CANCELLED", "COMPLETED"}
    done = Store(tmp_path / "r").records()
    assert 1 <= len({record.seed for record in done}) == len(done) < 100


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--partition", "nromal"), "--partition nromal: no such partition; did you mean 'normal'"),
        (("--device", "cuda"), "gaussian/moons: needs 1 GPUs, 1 CPUs, 2.1 GB memory, and no node"),
        (("--engine-option", "memory=900G"), "no node of normal has more than 1 CPUs, 4.2 GB"),
        (("--partition", "short", "--engine-option", "time=2h"), "is longer than short allows"),
        (("--engine-option", "qos=x", "--engine-option", "constraint=a100"), "Invalid feature"),
    ],
)
def test_what_slurm_cannot_do_is_told_in_one_line(slurm, tmp_path, words, told):
    before = slurm.jobs()
    said = slurm.start(tmp_path / "r", "ffjord/density/gaussian/moons", *words).ended(code=2)
    assert told in said.splitlines()[-1]
    assert slurm.jobs() == before
