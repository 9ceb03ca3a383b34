"""The nodes of a Ray cluster: connecting to them, and what they have room for."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dgm_bench import provenance
from dgm_bench.catalog import default_folder
from dgm_bench.engines.files import Storage
from dgm_bench.engines.ray_options import CLIENT, RayOptions
from dgm_bench.errors import UsageError
from dgm_bench.escaping import one_line
from dgm_bench.paths import PACKAGE

#: Seconds that nodes have to tell the memory of their GPUs.
_ASK_GPU = 20.0
#: The part of a GPU's memory that tasks may have: the rest is its driver's.
_USABLE = 0.9


#: Of connecting, a second each: Ray's own twenty are for a cluster that is just being started.
_ATTEMPTS = "4"
_TOKEN = "put the cluster's token into ~/.ray/auth_token"


class TokenError(UsageError):
    """A cluster that takes in who shows its token, and that was not shown one, or another's."""


class Nodes:
    """The nodes that are there now.

    Args:
        ray: The module of Ray, connected.
        options: Whether more nodes come.
        threads: Of each task, a CPU each.
        device: ``cpu`` or ``cuda``.

    Raises:
        UsageError: No task can ever run on them.
    """

    def __init__(self, ray: Any, options: RayOptions, threads: int, device: str) -> None:  # noqa: ANN401
        self.ray, self.options, self.threads, self.device = ray, options, threads, device
        self.own = str(ray.get_runtime_context().get_node_id())
        self.look()
        self.room = self._room()
        self._gpu_bytes = options.gpu_memory
        if device == "cuda" and self._gpu_bytes is None:
            self._gpu_bytes = self._smallest_gpu()

    def look(self) -> bool:
        """Look which nodes are there; say whether this machine's is among them."""
        self.resources: dict[str, dict[str, float]] = {
            node["NodeID"]: node["Resources"] for node in self.ray.nodes() if node["Alive"]
        }
        return self.own in self.resources

    def _room(self) -> int:
        """Return how many tasks fit at once, by their CPUs."""
        cpus = [int(node.get("CPU", 0)) for node in self.resources.values()]
        gpus = sum(node.get("GPU", 0) for node in self.resources.values())
        if self.device == "cuda" and not gpus and not self.options.grows:
            raise UsageError("--device cuda", "the Ray cluster has no GPU", "use --device cpu")
        room = sum(n // self.threads for n in cpus)
        if not room and not self.options.grows:
            reason = f"no node of the Ray cluster has so many CPUs (most: {max(cpus, default=0)})"
            raise UsageError(f"--threads {self.threads}", reason, "use fewer")
        return max(room, 1)

    def _smallest_gpu(self) -> int | None:
        """Return the bytes of the smallest GPU; None where no node tells."""
        ask = self.ray.remote(num_cpus=0, num_gpus=0.001, max_retries=0)(_gpu_memory)
        asked = [
            ask.options(scheduling_strategy=self.on(name)).remote()
            for name, node in self.resources.items()
            if node.get("GPU")
        ]
        if not asked:
            return None
        done, _ = self.ray.wait(asked, num_returns=len(asked), timeout=_ASK_GPU)
        return min((size for task in done if (size := self.ray.get(task))), default=None)

    def on(self, node: str) -> Any:  # noqa: ANN401  a strategy of Ray
        """Return what puts a task on a node."""
        strategies = self.ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def asked_for(self, cell_id: str, memory: int | None, unfit: Collection[str]) -> dict[str, Any]:
        """Return what a task asks of its node, as Ray's options.

        Args:
            cell_id: Named where it fits nowhere.
            memory: Bytes that it is expected to need: on a GPU where it is on one.
            unfit: Nodes where it is not to run, if there are others.

        Raises:
            UsageError: No node can ever hold it.
        """
        needs: dict[str, float] = {"CPU": self.threads}
        if self.device == "cuda":
            needs["GPU"] = gpu_share(memory, self._gpu_bytes)
        elif memory is not None:
            needs["memory"] = memory
        fit = {name for name, node in self.resources.items() if _holds(node, needs)}
        if not fit and not self.options.grows:
            raise self._fits_nowhere(cell_id, needs)
        asked: dict[str, Any] = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0)}
        if "memory" in needs:
            asked["memory"] = needs["memory"]
        if unfit and fit.difference(unfit):
            asked["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(unfit))})"}
        return asked

    def _fits_nowhere(self, cell_id: str, needs: Mapping[str, float]) -> UsageError:
        """Return the error for a task that would wait for ever."""
        remedy = "add such a node, or --engine-option grows=true where nodes come when asked for"
        for name, n in needs.items():
            most = max((node.get(name, 0) for node in self.resources.values()), default=0)
            if most < n:
                unit, what = (2**30, "GiB of memory") if name == "memory" else (1, f"{name}s")
                reason = f"needs {n / unit:.3g} {what}, and no node of the Ray cluster has more "
                return UsageError(cell_id, f"{reason}than {most / unit:.3g}", remedy)
        wanted = ", ".join(f"{n:.3g} {name}" for name, n in needs.items())
        return UsageError(cell_id, f"needs {wanted} on one node of the Ray cluster", remedy)


def gpu_share(memory: int | None, gpu: int | None) -> float:
    """Return the part of a GPU that a task asks for: as much as it needs of the memory.

    Args:
        memory: Bytes that it is expected to need; a whole GPU where nobody knows.
        gpu: Bytes of the smallest GPU.
    """
    if memory is None or gpu is None:
        return 1.0
    return min(max(math.ceil(100 * memory / (_USABLE * gpu)) / 100, 0.01), 1.0)


def _holds(node: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= n for name, n in needs.items())


def _gpu_memory() -> int | None:
    """Return the bytes of this node's smallest GPU, also of those that Ray hides from a task."""
    with suppress(ImportError):  # a node need not have it
        import pynvml

        with suppress(pynvml.NVMLError, ValueError):
            pynvml.nvmlInit()
            gpus = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            return min(int(pynvml.nvmlDeviceGetMemoryInfo(gpu).total) for gpu in gpus)
    return None


def connected(options: RayOptions) -> Any:  # noqa: ANN401  the module
    """Return the module of Ray, connected to the cluster.

    Raises:
        TokenError: It asks for a token.
        UsageError: It cannot be.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", _ATTEMPTS)
    import ray
    import ray.util.scheduling_strategies

    if options.storage is not None:
        Storage(options.storage).require_writable()
    address = options.address or "local"
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        settings |= {"num_cpus": provenance.cores(), "include_dashboard": False}
    if options.ship:
        settings["runtime_env"] = {"py_modules": [str(_shipped())]}
    try:
        ray.init(address, **settings)
    except Exception as error:  # whatever Ray raises
        if "InvalidAuthToken" in "".join(traceback.format_exception(error)):
            raise TokenError(f"--address {address}", "asks for a token", _TOKEN) from error
        reason = f"cannot be used ({one_line(str(error))})"
        raise UsageError(f"--address {address}", reason, "see that this cluster runs") from error
    return ray


def head_address(ray: Any, options: RayOptions) -> str:  # noqa: ANN401  the module
    """Return ``host:port`` of what has to answer as long as the cluster lives."""
    if options.address is not None and options.address.startswith(CLIENT):
        return options.address.removeprefix(CLIENT)
    return str(ray.get_runtime_context().gcs_address)


def _shipped() -> Path:
    """Return a copy of the package, with what it declares, to be sent to the nodes."""
    copy = Path(tempfile.mkdtemp(prefix="dgm-bench-shipped-")) / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "_results"))
    if not (copy / "_reproductions").exists():
        shutil.copytree(default_folder(), copy / "_reproductions")
    return copy
