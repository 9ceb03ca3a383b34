"""A small real plan in a folder: started, watched, hurt, and looked over when it is done."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from dgm_bench.engines.board import boards
from dgm_bench.overview import overview
from dgm_bench.store import Store

from . import same_records

#: Seconds each, with validations: one whose seeds are trained together, the last with a solver.
CELLS = (
    "ffjord/density/nice/pinwheel",
    "ffjord/density/planar/8gaussians",
    "ffjord/density/ffjord/8gaussians",
)
#: What is in the command of a worker: of the pool, of Slurm.
WORKERS = ("engines.pool_worker", "submitit.core._submit")
SETTINGS = ("stopping.patience=null", "batch_size=16", "validation.every=10")
SEEDS = 2
RUNS = SEEDS * len(CELLS)
ROOT = Path(__file__).resolve().parents[2]
#: Seconds that a command may take, hurt as it may be.
PATIENCE = 600.0
#: How often the same command is given until all is done.
MOST_COMMANDS = 12
DATABASE = "mlflow.db"


class World:
    """Commands on results folders below a folder, all in one process group each.

    Args:
        folder: Of everything.
        engine: Options of ``run`` that name the engine.
        steps: Of each run.
        environment: Of the commands, besides this process's.
    """

    def __init__(self, folder, engine, steps=120, environment=None):
        self.folder, self.engine, self.steps = folder.resolve(), list(engine), steps
        self.mark = f"DGM_BENCH_FAULTS={os.getpid()}-{time.monotonic_ns()}"
        name, _, value = self.mark.partition("=")
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DGM_BENCH_CHECKPOINT_SECONDS": "0",
            **(environment or {}),
            name: value,
        }
        self.environment.pop("MLFLOW_TRACKING_URI", None)
        self.reference = self.folder / "reference"

    def run(self, results, *, engine=None, tracked=False, **environment):
        """Start the command that does the plan, and return its process."""
        settings = (*SETTINGS, f"stopping.max_steps={self.steps}")
        words = [word for setting in settings for word in ("--set", setting)]
        words += ["--budget", "none", "--threads", "1", "--offline", "--seeds", str(SEEDS)]
        words += [] if tracked else ["--no-tracking"]
        words += self.engine if engine is None else engine
        return self.start("run", *CELLS, *words, results=results, **environment)

    def start(self, *words, results, **environment):
        """Start a command; what it says goes to a file beside the results."""
        results.parent.mkdir(parents=True, exist_ok=True)
        with results.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dgm_bench", *words, "--results", str(results)],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def call(self, *words, results):
        """Run a command to its end, and return its exit code."""
        return self.start(*words, results=results).wait(PATIENCE)

    def make_reference(self):
        """Do the plan undisturbed in one process."""
        if not self.reference.exists():
            code = self.run(self.reference, engine=["--jobs", "1"]).wait(PATIENCE)
            if code:
                raise SystemExit(f"the undisturbed plan ends with {code}: see {self.reference}.log")

    def finish(self, results, **options):
        """Give the same command until it ends well; return how often, or a problem."""
        for count in range(1, MOST_COMMANDS + 1):
            code = self.run(results, **options).wait(PATIENCE)
            if code == 0:
                return count
        raise AssertionError(f"the command ends with {code} for the {count}th time")

    # ---------------------------------------------------------------- looking it over

    def problems(self, results):
        """Return what is not as if nothing had happened, a line for each."""
        found = list(same_records.differences(self.reference, results))
        stored = len(Store(results).records())
        found += [f"{stored} records of {RUNS} runs"] if stored != RUNS else []
        shown = overview(results)
        found += [f"open: {view.board.id}" for view in shown.submissions]
        found += [f"interrupted: {run.folder}" for run in shown.interrupted]
        left = [*results.rglob("lock*"), *results.rglob(".*.tmp"), *results.rglob("*.damaged")]
        found += [f"left: {path.relative_to(results)}" for path in left]
        found += [f"process {process} is left" for process in self.processes_in_time()]
        if self.call("sync", results=results):
            found.append("sync does not get everything to MLflow")
        return found + mlflow_problems(results)

    def processes(self):
        """Return the processes that are alive and were started here, or by what was."""
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in file.read_bytes().split(b"\0"):
                    found.append(int(file.parent.name))
        return [process for process in found if not is_zombie(process)]

    def processes_in_time(self, seconds=15.0):
        """Return the processes that are alive although nothing should be, after a while."""
        ends = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < ends:
            time.sleep(0.1)
        return left

    def kill_all(self):
        """End what is left."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    # ---------------------------------------------------------------- where it can be hurt

    def workers(self, head):
        """Return the processes that do runs, or are about to, and what each is at."""
        found = {}
        for process in self.processes():
            words = command_of(process)
            if process != head and any(name in words for name in WORKERS):
                found[process] = "starting"
        return found

    def at_work(self, results):
        """Return the processes that do runs, and what each is at."""
        alive = set(self.processes())
        running = [
            (board, state)
            for board in boards(results)
            for state in board.states()
            if state.state == "running" and state.process in alive
        ]
        return {
            state.process: phase(results, task)
            for board, state in running
            for task in getattr(board.submission(), "tasks", ())
            if task.id == state.task
        }


def phase(results, task):
    """Return what a task is at, as its work folders tell."""
    for seed in task.seeds:
        folder = results / "work" / f"{task.recipe_hash[:12]}-s{seed}"
        if not any(folder.glob("lock*")):
            continue
        run_id = run_id_of(folder)
        if run_id is None:
            return "loading data"
        if (folder / "evaluation").exists():
            return "evaluating"
        if (results / "artifacts" / run_id).exists():
            return "writing the record"
        if any(folder.glob("*/checkpoint.pt")):
            return "training"
    return "beginning"


def run_id_of(folder):
    with contextlib.suppress(OSError, ValueError):
        content = (folder / "run.json").read_bytes().rpartition(b"\nsha256:")[0]
        return json.loads(content)["run_id"]
    return None


def command_of(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    return ""


def is_zombie(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


METRICS = """select tags.value, metrics.key, step, count(*) from metrics
    join runs on runs.run_uuid = metrics.run_uuid
    join tags on tags.run_uuid = runs.run_uuid and tags.key = 'dgm_bench.run_id'
    where lifecycle_stage = 'active' group by 1, 2, 3"""


def mlflow_problems(results):
    """Return which records MLflow does not have once, each with each of its metrics once."""
    with contextlib.closing(sqlite3.connect(results / DATABASE)) as connection:
        runs = connection.execute(
            "select tags.value, count(*) from tags join runs on runs.run_uuid = tags.run_uuid "
            "where tags.key = 'dgm_bench.run_id' and lifecycle_stage = 'active' group by 1"
        ).fetchall()
        metrics = connection.execute(METRICS).fetchall()
    records = Store(results).records()
    found = [f"MLflow has run {run} {n} times" for run, n in runs if n > 1]
    missing = {record.run_id for record in records} ^ {run for run, _ in runs}
    found += [f"MLflow and the records differ in run {run}" for run in missing]
    found += [f"MLflow has {key} of {run} {n} times" for run, key, _, n in metrics if n > 1]
    names = Counter(run for run, *_ in metrics)
    found += [f"MLflow has no metric of {r.run_id}" for r in records if not names[r.run_id]]
    rates = Counter(run for run, key, *_ in metrics if key == "lr")
    for record in records:
        if (rows := len(Store(results).curve(record))) != rates[record.run_id]:
            found.append(f"MLflow has {rates[record.run_id]} of {rows} steps of {record.run_id}")
    return found
