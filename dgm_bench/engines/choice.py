"""Which engine a command uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dgm_bench import provenance
from dgm_bench.context import RunContext
from dgm_bench.engines import Engine
from dgm_bench.engines.local import LocalEngine
from dgm_bench.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """What a command says of where its runs are executed.

    Attributes:
        name: ``local``, ``slurm`` or ``ray``.
        jobs: Runs at once; None for one here, and on a cluster for what it has room for.
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
        if self.name != "local":
            return "cpu" if wanted == "auto" else wanted
        from dgm_bench.execution import resolve_device

        return resolve_device(wanted).type


def make_engine(choice: Choice, context: RunContext) -> Engine | None:
    """Return an engine; None where runs are done in this process, one after the other.

    Args:
        choice: Which, and its options.
        context: What the runs share.

    Raises:
        UsageError: It is not installed.
    """
    if choice.name != "local":
        raise UsageError(f"--engine {choice.name}", "is not there yet", "use --engine local")
    for option, text in choice.changes().items():
        raise UsageError(f"{option} {text}", "means nothing here", "add --engine slurm or ray")
    jobs = choice.jobs or 1
    if jobs == 1:
        return None
    return LocalEngine(jobs, context.threads or max(provenance.cores() // jobs, 1))
