"""What a user says of Slurm, what its partitions have, and whether the one fits the other."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dgm_bench.config import Bytes, Seconds
from dgm_bench.engines.tasks import Task, Terms
from dgm_bench.errors import UsageError, choose_from
from dgm_bench.planner import duration, gigabytes
from dgm_bench.spec import Spec

Count = Annotated[int, Field(ge=1)]
#: The least time that a job asks for, and how often its expected time, as it may be slower there.
_LEAST_TIME, _SLACK = 1800.0, 3.0
#: Of what a run declares it takes, and besides: more than any of the stored records took.
_MEMORY_FACTOR, _MEMORY_MORE = 1.5, 2**30
#: File systems that no other machine sees.
_OWN = {"tmpfs", "ramfs", "overlay"}


class SlurmOptions(Spec):
    """The section ``[slurm]`` of ``dgm-bench.toml``.

    Attributes:
        partition: Of the jobs; Slurm's default where none is named.
        account: Whom they are charged to.
        qos: Their quality of service.
        constraint: Features that their nodes have to have.
        time: What a job may take until it is sent back to the queue with a checkpoint; by default
            three times what its runs are expected to take, half an hour at least.
        signal_delay: How long before that it is told. Slurm may tell it up to a minute earlier; a
            run notices within a second and a half, and writes its checkpoint.
        cpus: Of a job; by default for each device ``--threads``, else 1, or 4 beside a GPU.
        memory: Of a job; by default half more than its run declares, and 1 GB.
        gpus: Of a job; by default ``--devices`` where the device is ``cuda``.
        pack: Small runs are put together in one job until it takes so long.
        setup: Lines of shell ahead of the job's command, as ``module load cuda``.
        python: The interpreter on the nodes; by default the path of this one.
        sbatch: Further options of ``sbatch`` by name.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: Seconds | None = None
    signal_delay: Seconds = 120.0
    cpus: Count | None = None
    memory: Bytes | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    pack: Seconds = 600.0
    setup: tuple[str, ...] = ()
    python: str | None = None
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """What a job asks for; jobs of one array ask for the same. Memory is in bytes."""

    cpus: int
    memory: int
    gpus: int

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPUs, " if self.gpus else ""
        return f"{gpus}{self.cpus} CPUs, {gigabytes(self.memory)} memory"

    def times_in(self, node: Shape) -> int:
        """Return how many such jobs a node has room for at once."""
        room = [node.cpus // self.cpus, node.memory // self.memory]
        return min(room + ([node.gpus // self.gpus] if self.gpus else []))


def shape_of(task: Task, terms: Terms, options: SlurmOptions) -> Shape:
    """Return what a job of a task asks for, on all devices that compute a run together."""
    gpus = terms.devices if terms.device == "cuda" else 0
    gpus = gpus if options.gpus is None else options.gpus
    cpus = options.cpus or terms.devices * (terms.threads or (4 if gpus else 1))
    needed = _MEMORY_FACTOR * (task.memory_bytes or 0) + _MEMORY_MORE
    return Shape(cpus, options.memory or _rounded(needed), gpus)


def _rounded(size: float) -> int:
    """Return 2 GiB or more, rounded up to one of four sizes from each power of two.

    So few jobs of a plan differ in it, and those of small runs do not.
    """
    size = max(size, 2**31)
    unit = 2 ** (math.floor(math.log2(size)) - 2)
    return int(math.ceil(size / unit) * unit)


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster.

    Attributes:
        name: Its name; empty for the default.
        limit: Seconds that a job of it may take; None where there is no limit.
        nodes: What each of its nodes has.
        hosts: The names of their machines.
    """

    name: str
    limit: float | None
    nodes: tuple[Shape, ...]
    hosts: frozenset[str]

    def require(self, shape: Shape, cell: str) -> None:
        """Refuse what no node has.

        Raises:
            UsageError: It says what the largest ones have.
        """
        if any(shape.times_in(node) for node in self.nodes):
            return
        largest = max(self.nodes, key=lambda node: (node.gpus, node.memory, node.cpus))
        reason = f"needs {shape}, and no node of {self.name} has more than {largest}"
        raise UsageError(cell, reason, "name another --partition, or set --engine-option memory=8G")

    def room(self, shape: Shape) -> int:
        """Return how many such jobs all its nodes have room for at once."""
        return sum(shape.times_in(node) for node in self.nodes)

    def time(self, seconds: float | None, options: SlurmOptions) -> float:
        """Return what a job that is expected to take so long asks for, in seconds.

        Raises:
            UsageError: It is to take longer than the partition allows, or less than it has to.
        """
        limit = math.inf if self.limit is None else self.limit
        wanted = max(_LEAST_TIME, _SLACK * (seconds or 0.0) + options.signal_delay)
        time = min(wanted, limit) if options.time is None else options.time
        asked = f"a job of {duration(time)}"
        if time > limit:
            remedy = f"use --engine-option time={limit // 60:.0f}m"
            reason = f"is longer than {self.name} allows, {duration(limit)}"
            raise UsageError(asked, reason, remedy)
        if time <= options.signal_delay:
            reason = f"is told to save {duration(options.signal_delay)} ahead, so it has no time"
            raise UsageError(asked, reason, "use --engine-option signal_delay=20s")
        return time


def ask(*command: str) -> str:
    """Return what one of Slurm's programs prints.

    Raises:
        UsageError: It is not here, or the cluster does not answer.
    """
    if shutil.which(command[0]) is None:
        remedy = "run this on a login node of the cluster"
        raise UsageError("--engine slurm", f"there is no {command[0]} on this machine", remedy)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        remedy = "see that sinfo answers on this machine"
        raise UsageError(
            command[0], said[-1].removeprefix(f"{command[0]}: ").removeprefix("error: "), remedy
        )
    return done.stdout


def find_partition(name: str | None) -> Partition:
    """Return a partition; the default one where none is named.

    Raises:
        UsageError: There is none of that name, and which there are; or no default.
    """
    shown = [line.split("|") for line in ask("sinfo", "-h", "-a", "-o", "%P|%l").splitlines()]
    limits = {shown_name.rstrip("*"): limit for shown_name, limit in shown}
    default = next((shown_name[:-1] for shown_name, _ in shown if shown_name[-1:] == "*"), None)
    chosen = name or default
    if chosen is None:
        remedy = f"name one with --partition: {', '.join(limits)}"
        raise UsageError("--engine slurm", "it has no default partition", remedy)
    if chosen not in limits:
        raise UsageError(f"--partition {chosen}", "no such partition", choose_from(chosen, limits))
    lines = ask("sinfo", "-h", "-N", "-p", chosen, "-o", "%n|%c|%m|%G").splitlines()
    if not lines:
        raise UsageError(f"partition {chosen}", "it has no nodes", "name another with --partition")
    hosts, *columns = zip(*(line.split("|") for line in lines), strict=True)
    return Partition(
        chosen, seconds_of(limits[chosen]), tuple(map(_node, *columns)), frozenset(hosts)
    )


def _node(cpus: str, memory: str, gres: str) -> Shape:
    return Shape(int(cpus), int(memory) * 2**20, gpus_of(gres))


def seconds_of(text: str) -> float | None:
    """Return the seconds of ``2-12:00:00`` or ``30:00``; None for no limit, as ``infinite``."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in [*parts, days or "0"]):
        return None
    return float(int(days or 0) * 86400 + sum(int(n) * 60**i for i, n in enumerate(parts[::-1])))


def gpus_of(gres: str) -> int:
    """Return the GPUs of ``gpu:a100:4(S:0-1),nvme:1``."""
    plain = re.sub(r"\([^)]*\)", "", gres)
    found = re.findall(r"(?:^|,)gpu(?::[^,:]*)*?:(\d+)(?=,|$)", plain)
    return sum(map(int, found))


def require_shared(folder: Path, partition: Partition) -> None:
    """Refuse a folder that is surely on this machine alone, where jobs run on others.

    Raises:
        UsageError: It is in memory or in a container's own layer.
    """
    kind = _file_system(folder)
    if partition.hosts - {platform.node(), platform.node().partition(".")[0]} and kind in _OWN:
        remedy = "name a folder on a file system that they share: --results DIR"
        raise UsageError(folder, f"the nodes of {partition.name} cannot see it ({kind})", remedy)


def _file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on; empty where nothing tells."""
    import psutil

    place, mounts = os.path.realpath(folder), psutil.disk_partitions(all=True)
    above = [m for m in mounts if os.path.commonpath([place, m.mountpoint]) == m.mountpoint]
    return str(max(above, key=lambda mount: len(mount.mountpoint)).fstype) if above else ""
