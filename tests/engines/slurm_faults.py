"""Faults that only jobs of Slurm have, on a real one of two nodes."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

from .fault_world import World, command_of
from .faults import Faults
from .slurm_cluster import SlurmCluster

#: Seconds that a job of somebody else keeps the nodes.
_TAKEN = 3


class SlurmFaults(Faults):
    """Ways to hurt jobs of Slurm; the cluster is that of the world."""

    MIXED = (
        ("worker_killed", "job_killed", "head_killed"),
        ("preempted", "told_of_its_limit", "cancelled"),
        ("slurmd_killed", "worker_killed", "head_killed"),
    )
    KILLS = 5

    def job_killed(self, results, kills=KILLS):
        """Let Slurm kill what a job does: ``scancel --signal=KILL``."""
        self._told(results, kills, "KILL", "SIGKILL by scancel")

    def told_of_its_limit(self, results, kills=3):
        """Tell jobs of their time limit, as Slurm does ahead of it."""
        self._told(results, kills, "USR2", "SIGUSR2 of the time limit")

    def _told(self, results, times, name, label):
        process = self.world.run(results)
        for _ in range(times):
            time.sleep(self.chance.uniform(1.0, 5.0))
            if self.victim(process, results, "training") is None:
                break
            jobs = self.world.cluster.run("squeue", "-h", "-t", "R", "-o", "%i").split()
            if jobs:
                job = self.chance.choice(jobs)
                self.world.cluster.run("scancel", f"--signal={name}", "--full", job, check=False)
                self.hits[f"job of Slurm {label}"] += 1
        process.wait()

    def preempted(self, results):
        """Let jobs of a higher partition take the nodes for a while."""
        process = self.world.run(results)
        if self.victim(process, results, "training") is not None:
            wrap = f"--wrap=sleep {_TAKEN}"
            took = ("sbatch", "-p", "high", "-N", "2", "--ntasks-per-node=1", "-o", "/dev/null")
            running = self.world.cluster.run("squeue", "-h", "-t", "R", "-o", "%i").split()
            self.world.cluster.run(*took, wrap)
            self.hits["job of Slurm preempted"] += len(running)
        process.wait()

    def slurmd_killed(self, results):
        """Kill the daemon of a node, and start it again."""
        process, cluster = self.world.run(results), self.world.cluster
        if self.victim(process, results, "training") is not None:
            for daemon in cluster.processes():
                if "slurmd\0-D\0-N\0node2" in command_of(daemon):
                    os.kill(daemon, signal.SIGKILL)
                    self.hits["slurmd SIGKILL"] += 1
            time.sleep(3.0)
            cluster._daemon("slurmd", "-D", "-N", "node2")
        process.wait()


@contextlib.contextmanager
def slurm_world(folder, steps):
    """Give commands a Slurm of two nodes whose jobs others may take the place of."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as home,
        SlurmCluster(Path(home), grace=10) as cluster,
    ):
        words = ["--engine", "slurm", "--partition", "low", "--jobs", "2"]
        world = World(folder, words, steps, {"SLURM_CONF": str(cluster.conf)})
        world.cluster = cluster
        yield world
