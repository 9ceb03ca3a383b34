"""Runs on a Ray cluster: a task of Ray each, on nodes that need no common disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from dgm_bench.context import RunContext
from dgm_bench.engines import Ended, ray_driver
from dgm_bench.engines.board import Board
from dgm_bench.engines.ray_nodes import TokenError
from dgm_bench.engines.ray_options import CLIENT, RayOptions, answers
from dgm_bench.engines.tasks import Job
from dgm_bench.errors import EngineError, UsageError
from dgm_bench.extras import install

Result = TypeVar("Result")

#: Seconds that a cluster has to answer, to take this command in, and to let go of it.
_ANSWER, _CONNECT, _CLOSE = 5.0, 90.0, 10.0


class RayEngine:
    """Does jobs as tasks of a Ray cluster.

    Args:
        options: Which cluster, and how it is used.
        jobs: How many at once; None for as many as the cluster has room for.
        context: Device, and threads of each worker: one where it says nothing.

    Raises:
        UsageError: Ray is not installed, or the cluster does not answer.
    """

    name = "ray"

    def __init__(self, options: RayOptions, jobs: int | None, context: RunContext) -> None:
        if find_spec("ray") is None:
            raise UsageError("--engine ray needs ray", install("ray"))
        options = options.model_copy(update={"address": _address(options)})
        self._log = context.results.absolute() / "work" / "ray.log"
        try:
            room = self._connect(options, context)
        except TokenError:  # which Ray shows where it is told to before it is loaded
            if "RAY_AUTH_MODE" in os.environ:
                raise
            room = self._connect(options, context, RAY_AUTH_MODE="token")
        self.slots: int | None = jobs or room

    def _connect(self, options: RayOptions, context: RunContext, **environment: str) -> int:
        """Start the driver's process; return how many tasks the cluster has room for."""
        self._process = ProcessPoolExecutor(
            1, get_context("spawn"), ray_driver.begin, (os.getpid(), self._log, environment)
        )
        settings = options, context.threads or 1, context.device
        try:
            return self._ask(ray_driver.connect, *settings, seconds=_CONNECT)
        except BaseException:
            self._end()
            raise

    def submit(self, job: Job, board: Board) -> None:
        """Queue a job."""
        self._ask(ray_driver.ask, "submit", job, board)

    def poll(self, seconds: float) -> list[Ended]:
        """Wait for jobs to end.

        Raises:
            EngineError: The cluster is lost.
            ResultsError: The results folder cannot be written.
        """
        ended: list[Ended] = self._ask(ray_driver.ask, "poll", seconds)
        return ended

    def cancel(self, task_ids: Collection[str]) -> None:
        """Ask jobs to save and leave; after half a minute they are ended."""
        self._ask(ray_driver.ask, "cancel", tuple(task_ids))

    def close(self) -> None:
        """Let go of the cluster, which ends what still runs."""
        try:
            self._ask(ray_driver.ask, "close", seconds=_CLOSE)
        except EngineError:  # it is gone already
            pass
        finally:
            self._end()

    def _ask(
        self, function: Callable[..., Result], *arguments: object, seconds: float | None = None
    ) -> Result:
        """Call a function in the driver's process.

        Raises:
            EngineError: That process has ended, or does not answer in time.
        """
        try:
            return self._process.submit(function, *arguments).result(seconds)
        except (BrokenProcessPool, TimeoutError) as error:
            how = "lost this command" if isinstance(error, BrokenProcessPool) else "does not answer"
            remedy = f"see {self._log}; the same command goes on"
            raise EngineError("Ray", how, remedy) from error

    def _end(self) -> None:
        for process in (self._process._processes or {}).values():
            process.kill()
        self._process.shutdown(wait=True, cancel_futures=True)


def _address(options: RayOptions) -> str | None:
    """Return the address of the cluster, once something like Ray answers there.

    Raises:
        UsageError: Nothing does.
    """
    address = options.address or os.environ.get("RAY_ADDRESS") or None
    asked = _started_here() if address == "auto" else address
    if address in (None, "local") or asked is None:
        return address
    trouble = answers(asked.removeprefix(CLIENT), _ANSWER)
    if trouble:
        remedy = "start it with ray start --head, or give the address that this says"
        raise UsageError(f"--address {address}", f"no Ray answers there ({trouble})", remedy)
    return address


def _started_here() -> str | None:
    """Return the address of the cluster that was last started on this machine, if it is noted."""
    noted = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    try:
        return noted.read_text().strip() or None
    except OSError:
        return None
