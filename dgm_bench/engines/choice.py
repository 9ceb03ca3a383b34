"""Which engine a command uses."""

from __future__ import annotations

from dgm_bench import provenance
from dgm_bench.context import RunContext
from dgm_bench.engines import Engine
from dgm_bench.engines.local import LocalEngine
from dgm_bench.errors import UsageError


def make_engine(name: str, jobs: int, context: RunContext) -> Engine | None:
    """Return an engine; None where runs are done in this process, one after the other.

    Args:
        name: ``local``, ``slurm`` or ``ray``.
        jobs: Runs at once.
        context: What the runs share.

    Raises:
        UsageError: It is not installed.
    """
    if name != "local":
        raise UsageError(f"--engine {name}", "is not there yet", "use --engine local")
    if jobs == 1:
        return None
    return LocalEngine(jobs, context.threads or max(provenance.cores() // jobs, 1))
