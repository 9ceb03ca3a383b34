"""Faults that only a Ray cluster has, on a real one of three nodes on this machine."""

import contextlib
import os
import signal
import time

from .fault_world import World, command_of
from .faults import Faults
from .ray_nodes import QUIET, ray_nodes


class RayFaults(Faults):
    """Ways to hurt tasks of Ray; the nodes are those of the world."""

    MIXED = (
        ("worker_killed", "node_killed", "head_killed"),
        ("node_killed", "cancelled", "worker_killed"),
    )
    KILLS = 6

    def node_killed(self, results, kills=2):
        """Kill all processes of a node that does something, and add another."""
        process, nodes = self.world.run(results), self.world.nodes
        for number in range(kills):
            time.sleep(self.chance.uniform(0.0, 4.0))
            victim = self.victim(process, results, "at work")
            if victim is None:
                break
            name = next(name for name in nodes.nodes if victim[0] in set(nodes.workers(name)))
            nodes.kill(name)
            nodes.add(f"{name}-{number}")
            self.hits["node of Ray SIGKILL"] += 1
        process.wait()

    def victim(self, process, results, wanted):
        """Return a process that does a task of Ray; None once the command is over."""
        while process.poll() is None:
            nodes = self.world.nodes
            found = [pid for name in list(nodes.nodes) for pid in nodes.workers(name)]
            busy = [pid for pid in found if is_busy(command_of(pid))]
            if busy:
                return self.chance.choice(busy), "at work on a node of Ray"
            time.sleep(0.1)
        return None


def is_busy(command):
    """Say whether a process of Ray does a task, as its title tells; nodes die with their agents."""
    return command.startswith("ray::") and "IDLE" not in command and "Agent" not in command


@contextlib.contextmanager
def ray_world(folder, steps):
    """Give commands a Ray of three nodes."""
    with ray_nodes() as nodes:
        words = ["--engine", "ray", "--address", nodes.address, "--jobs", "2"]
        world = World(folder, words, steps, QUIET)
        world.nodes = nodes
        try:
            yield world
        finally:
            for name in list(nodes.nodes):
                for process in nodes.workers(name):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
