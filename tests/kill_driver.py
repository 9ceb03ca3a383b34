"""Runs a command in child processes and kills them at random moments; used by the tests.

    python kill_driver.py KILLS LONGEST_WAIT ARGUMENTS-OF-dgm-bench ...

Everything is imported before the children are forked, so that a kill falls into the run itself.
Prints the number of kills that hit a living child, then the exit code of the last one.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from dgm_bench import runner, tracking  # noqa: F401  imported once for all children
from dgm_bench.cli import cli


def child(arguments):
    pid = os.fork()
    if pid == 0:
        cli.main(arguments, prog_name="dgm-bench")
    return pid


def wait_for_checkpoint(results):
    """Wait until the run has saved once more, or is over."""
    started, patience = time.time(), 30.0
    while time.time() - started < patience:
        files = results.glob("work/*/*/checkpoint.pt")
        if any(file.stat().st_mtime > started for file in files):
            return
        time.sleep(0.01)


def killed(pid, wait):
    """Kill a child after a while; tell whether it was still at work."""
    time.sleep(wait)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def main():
    torch.set_num_threads(1)
    kills, longest, *arguments = sys.argv[1:]
    chance = random.Random(0)
    results = Path(arguments[arguments.index("--results") + 1])
    hits = 0
    for kill in range(int(kills)):
        pid = child(arguments)
        if kill % 2:  # every other one gets somewhere first
            wait_for_checkpoint(results)
        hits += killed(pid, chance.uniform(0.02, float(longest)))
    _, status = os.waitpid(child(arguments), 0)
    print(hits, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
