"""Hurts real commands in many ways, and says what became of their runs.

    python tests/engines/faults.py --engine local --kills 40 --seed 0 [--only KIND+KIND]

After each fault the same command is given until it ends well. Then every planned run has exactly
one record, equal to the bit to that of an undisturbed process but for times and hosts; MLflow has
each run and each metric once; no process, lock or temporary file is left; nothing is under way.
Prints a table of faults, how often each happened, and what came of it; exits with 1 where anything
was lost, there twice, or other than it should be.
"""

import argparse
import contextlib
import fcntl
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

if __package__ in (None, ""):  # as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "engines"

from tracking_servers import bad_server, hang

from .fault_world import World

#: Seconds between two looks for somebody to hurt.
LOOK = 0.01
PHASES = ("starting", "loading data", "training", "evaluating", "writing the record")
#: Seconds to wait for a worker in the wanted phase; then any is hurt.
_AIM = 30.0
#: More than a note on a board, less than a checkpoint.
SMALL_FILE = 6000
#: Linux: ioctls on a folder in which nothing may be changed.
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


class Faults:
    """Ways to hurt a command; each returns what it did, by name, while the command ran.

    Args:
        world: Of the commands.
        chance: Decides when and whom.

    Attributes:
        KILLS: How often workers are killed in a row.
    """

    #: Kinds of faults that hit the same plan one after the other: so many runs are left for all.
    MIXED = (
        ("worker_killed", "head_killed", "cancelled"),
        ("disk_full", "head_ended", "twice_at_once"),
        ("worker_killed", "cancelled", "head_killed"),
        ("read_only", "mlflow_dies", "head_ended"),
        ("worker_killed", "head_killed", "mlflow_refuses"),
        ("worker_stopped", "disk_full", "mlflow_hangs"),
    )
    KILLS = 16

    def __init__(self, world, chance):
        self.world, self.chance = world, chance
        self.hits = Counter()

    # ---------------------------------------------------------------- workers

    def worker_killed(self, results, kills=None):
        """Kill workers at any moment, in all phases."""
        process = self.world.run(results)
        for number in range(kills or self.KILLS):
            time.sleep(self.chance.uniform(0.0, 1.0))
            victim = self.victim(process, results, PHASES[number % len(PHASES)])
            if victim is None:
                break
            self.kill(*victim)
        process.wait()

    def worker_stopped(self, results):
        """Let a worker stand still for a while."""
        process = self.world.run(results)
        if (victim := self.victim(process, results, "training")) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim[0], signal.SIGSTOP)
                time.sleep(self.chance.uniform(2.0, 5.0))
                os.kill(victim[0], signal.SIGCONT)
                self.hits["worker SIGSTOP, SIGCONT"] += 1
        process.wait()

    def disk_full(self, results):
        """Let a worker write no file of some size any more, for a while or for good."""
        process = self.world.run(results)
        if (victim := self.victim(process, results, "training")) is not None:
            with contextlib.suppress(ProcessLookupError):
                _, most = resource.prlimit(victim[0], resource.RLIMIT_FSIZE)
                resource.prlimit(victim[0], resource.RLIMIT_FSIZE, (SMALL_FILE, most))
                self.hits["disk of a worker full"] += 1
                if self.chance.random() < 0.5:
                    time.sleep(1.0)
                    resource.prlimit(victim[0], resource.RLIMIT_FSIZE, (most, most))
        process.wait()

    def victim(self, process, results, wanted):
        """Return a worker in a phase, or in any where none comes to that; None at the end."""
        ends = time.monotonic() + _AIM
        while process.poll() is None:
            found = self.world.workers(process.pid) | self.world.at_work(results)
            fitting = [pid for pid, phase in found.items() if phase == wanted]
            if fitting or (found and time.monotonic() > ends):
                pid = self.chance.choice(fitting or list(found))
                return pid, found[pid]
            time.sleep(LOOK)
        return None

    def kill(self, process, phase):
        """Kill a worker, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            self.hits[f"worker SIGKILL, {phase}"] += 1

    # ---------------------------------------------------------------- the command

    def head_killed(self, results):
        """Kill the command; its workers are to notice."""
        self._end_head(results, signal.SIGKILL)

    def head_ended(self, results):
        """End the command by a signal; it is to let its workers save."""
        number = self.chance.choice((signal.SIGTERM, signal.SIGINT))
        code = self._end_head(results, number)
        if code not in (0, 130):
            self.hits[f"PROBLEM: exit code {code} after {number.name}"] += 1

    def _end_head(self, results, number):
        process = self.world.run(results, tracked=True)
        if self.victim(process, results, self.chance.choice(("starting", "training"))) is not None:
            time.sleep(self.chance.uniform(0.0, 3.0))
        if process.poll() is None:
            process.send_signal(number)
            self.hits[f"command {number.name}"] += 1
        return process.wait()

    def cancelled(self, results):
        """Cancel all runs or some, in good order or at once."""
        process = self.world.run(results)
        words = self.chance.choice((["--all"], ["*/ffjord/*"], ["--all", "--now"]))
        if self.victim(process, results, "training") is not None:
            code = self.world.call("cancel", *words, results=results)
            self.hits[f"cancel {' '.join(words)}"] += code == 0
            if code not in (0, 2):  # 2: all was over before
                self.hits[f"PROBLEM: cancel {' '.join(words)} exits with {code}"] += 1
        process.wait()

    def twice_at_once(self, results):
        """Give the same command twice at a time."""
        both = [self.world.run(results), self.world.run(results)]
        codes = {process.wait() for process in both}
        self.hits["two commands at once"] += 1
        if not codes <= {0, 2}:
            self.hits[f"PROBLEM: exit codes {codes}"] += 1

    # ---------------------------------------------------------------- what it writes to

    def mlflow_refuses(self, results):
        """Name a server that is not there."""
        self._track_to(results, "http://127.0.0.1:9", "MLflow refuses")

    def mlflow_hangs(self, results):
        """Name a server that takes everything and answers nothing."""
        with bad_server(hang) as address:
            self._track_to(results, address, "MLflow hangs")

    def mlflow_dies(self, results):
        """Kill the process that logs to MLflow."""
        process = self.world.run(results, tracked=True)
        self.victim(process, results, "training")
        for other in self.world.processes():
            if "tracking.child" in Path(f"/proc/{other}/cmdline").read_text(errors="replace"):
                os.kill(other, signal.SIGKILL)
                self.hits["MLflow's process SIGKILL"] += 1
        process.wait()

    def _track_to(self, results, address, name):
        code = self.world.run(results, tracked=True, MLFLOW_TRACKING_URI=address).wait()
        self.hits[name] += 1
        if code:
            self.hits[f"PROBLEM: exit code {code} as {name}"] += 1

    def read_only(self, results):
        """Let nothing be changed in the results folder for a while."""
        process = self.world.run(results)
        if self.victim(process, results, "training") is not None:
            folders = [path for path in (results, *results.rglob("*")) if path.is_dir()]
            with contextlib.suppress(FileNotFoundError):
                changed = [folder for folder in folders if unchangeable(folder, True)]
                time.sleep(self.chance.uniform(1.0, 4.0))
                self.hits["results read-only for a while"] += bool(changed)
            for folder in folders:
                unchangeable(folder, False)
        process.wait()


def unchangeable(folder, wanted):
    """Let nothing be made or removed in a folder, or let it again; say whether that was done."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0)))
        flags = flags | _IMMUTABLE if wanted else flags & ~_IMMUTABLE
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags))
    finally:
        os.close(descriptor)
    return True


LOCAL = ["--engine", "local", "--jobs", "2"]


@contextlib.contextmanager
def world_of(engine, folder, steps):
    """Give commands an engine; yield the world, and the kinds of faults that hurt it."""
    if engine == "slurm":
        from .slurm_faults import SlurmFaults, slurm_world

        with slurm_world(folder, steps) as world:
            yield world, SlurmFaults
    elif engine == "ray":
        from .ray_faults import RayFaults, ray_world

        with ray_world(folder, steps) as world:
            yield world, RayFaults
    else:
        yield World(folder, LOCAL, steps), Faults


def hurt(world, rounds, chance, kinds_of=Faults, **options):
    """Plant faults, those of a round one after the other; yield what each round hit and broke."""
    for number, kinds in enumerate(rounds):
        name = "+".join(kinds)
        results = world.folder / f"{number:03}-{name}" / "results"
        faults, began = kinds_of(world, chance), time.monotonic()
        try:
            for kind in kinds:
                getattr(faults, kind)(results, **options)
            commands = world.finish(results)
            found = world.problems(results)
        except AssertionError as error:
            commands, found = 0, [str(error)]
        finally:
            world.kill_all()
        found += [name for name in faults.hits if name.startswith("PROBLEM")]
        yield name, faults.hits, commands, found, time.monotonic() - began


def kills_of(hits):
    return sum(count for name, count in hits.items() if "SIGKILL" in name)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--engine", choices=("local", "slurm", "ray"), default="local")
    arguments.add_argument("--kills", type=int, default=40)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument(
        "--only", help="kinds of faults for each round, as head_killed+cancelled"
    )
    arguments.add_argument("--steps", type=int, default=120)
    arguments.add_argument("--keep", type=Path, help="a folder for the results, kept")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with the end of what was started
    total, bad, count = Counter(), 0, 0
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        world, kinds_of = stack.enter_context(world_of(options.engine, folder, options.steps))
        world.make_reference()
        mixed = [options.only.split("+")] if options.only else kinds_of.MIXED
        for kind, hits, commands, found, took in hurt(
            world, cycle(mixed), random.Random(options.seed), kinds_of
        ):
            total += hits
            count += 1
            bad += bool(found)
            outcome = "; ".join(found[:5]) or "nothing lost, nothing twice, equal to the bit"
            done = ", ".join(f"{name} {count}" for name, count in hits.items())
            print(f"{kind} ({done}), {commands} commands more, {took:.0f} s: {outcome}", flush=True)
            if kills_of(total) >= options.kills and count >= len(mixed):
                break
    print(f"\n{'fault':<40} count")
    for name, hit in sorted(total.items()):
        print(f"{name:<40} {hit}")
    print(f"{kills_of(total)} kills; {bad} of {count} rounds with a problem")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
