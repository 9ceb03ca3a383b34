"""Which engine a command uses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dgm_bench import provenance
from dgm_bench.config import section
from dgm_bench.context import RunContext
from dgm_bench.costs import PROCESS_BYTES
from dgm_bench.engines import Engine
from dgm_bench.engines.local import LocalEngine
from dgm_bench.engines.slurm import SlurmEngine
from dgm_bench.engines.slurm_nodes import SlurmOptions, find_partition
from dgm_bench.errors import UsageError
from dgm_bench.planner import Machine, gigabytes


@dataclass(frozen=True)
class Choice:
    """What a command says of where its runs are executed.

    Attributes:
        name: ``local``, ``slurm`` or ``ray``.
        jobs: Runs at once; None for what is worth it here, or what a cluster has room for.
        partition: Of Slurm.
        address: Of a Ray cluster.
        settings: Options of the engine by key, which count more than ``dgm-bench.toml``.
    """

    name: str = "local"
    jobs: int | None = None
    partition: str | None = None
    address: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def changes(self) -> dict[str, str]:
        """Return what the command says of the engine's section of ``dgm-bench.toml``."""
        named = {"partition": self.partition, "address": self.address}
        return {**{key: text for key, text in named.items() if text}, **self.settings}

    def device(self, wanted: str) -> str:
        """Return the device of the workers, which may be on other machines than this one.

        Args:
            wanted: ``cpu``, ``cuda`` or ``auto``.

        Raises:
            UsageError: This machine has none such, and is to have it.
        """
        if self.name == "slurm":
            gpus = self.slurm().gpus
            return wanted if wanted != "auto" else "cuda" if gpus else "cpu"
        if self.name != "local":
            return "cpu" if wanted == "auto" else wanted
        from dgm_bench.execution import resolve_device

        return resolve_device(wanted).type

    def memory_bytes(self) -> int | None:
        """Return what the largest node has that could do a run; None where that is not known.

        Raises:
            UsageError: Slurm does not answer, or has no such partition.
        """
        if self.name != "slurm":
            return None
        return max(node.memory for node in find_partition(self.slurm().partition).nodes)

    def require_meaning(self) -> None:
        """Refuse options of a cluster where there is none.

        Raises:
            UsageError: There is such an option.
        """
        for option, text in self.changes().items() if self.name == "local" else ():
            raise UsageError(f"{option} {text}", "means nothing here", "add --engine slurm or ray")

    def slurm(self) -> SlurmOptions:
        """Return what Slurm is asked for.

        Raises:
            DgmBenchError: The user's file, or an option, says what does not fit.
        """
        return section("slurm", SlurmOptions, self.changes())


def make_engine(choice: Choice, context: RunContext, machine: Machine) -> Engine | None:
    """Return an engine; None where runs are done in this process, one after the other.

    Args:
        choice: Which, and its options.
        context: What the runs share.
        machine: That the runs were planned for: how many go at once, and what they share.

    Raises:
        UsageError: It is not installed, or more is asked of it than there is.
    """
    if choice.name == "slurm":
        return SlurmEngine(choice.slurm(), choice.jobs)
    if choice.name == "ray":
        from dgm_bench.engines.ray_cluster import RayEngine
        from dgm_bench.engines.ray_options import RayOptions

        return RayEngine(section("ray", RayOptions, choice.changes()), choice.jobs, context)
    choice.require_meaning()
    if machine.workers > 1:
        return _pool(context, machine)
    cores = provenance.cores()
    if (context.threads or 0) > cores and machine.device == "cpu":
        crowd = f"{context.threads} threads take turns on {cores} cores"
        context.reporter.message(f"{crowd}: --threads {cores} is faster")
    return None


def _pool(context: RunContext, machine: Machine) -> LocalEngine:
    """Return the processes of this machine that a plan is for.

    Raises:
        UsageError: There is no memory for so many.
    """
    jobs, here, cores = machine.workers, provenance.memory_bytes(), provenance.cores()
    if jobs * PROCESS_BYTES > here:
        need = f"{jobs} processes need {gigabytes(jobs * PROCESS_BYTES)} memory"
        raise UsageError(f"--jobs {jobs}", f"{need}, here are {gigabytes(here)}", "give fewer")
    threads = context.threads or max(cores // jobs, 1)
    if context.threads and jobs * threads > cores:
        crowd = f"{jobs} runs at once with {threads} threads each take turns on {cores} cores"
        context.reporter.message(f"{crowd}: --jobs {max(cores // threads, 1)} is faster")
    gpus = visible_gpus() if machine.device == "cuda" else ()
    return LocalEngine(jobs, threads, machine.memory_bytes, gpus)


def visible_gpus() -> Sequence[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` is for each GPU that is not hidden."""
    count = len(provenance.driver_gpus()[1])
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = shown.split(",") if shown else [str(gpu) for gpu in range(count)]
    return names[:count]
