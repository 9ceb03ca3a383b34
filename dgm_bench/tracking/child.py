"""The process that logs: it takes jobs from the one that started it, and goes when that goes.

A server can keep whoever asks it waiting for ever, byte by byte if need be. The one who waits is
this process, which can be ended at any moment; what it has begun then is done again the next time.

A job is a line of JSON, and so is each answer: ``path`` with ``new`` or ``error`` for a record,
``trouble`` for a server that may come back, ``alive`` for progress, ``stop`` for what ends the job
before it is done, ``done`` for its end. What runs under way tell (``told``) has no answer: it is
shown when there is nothing else to do.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from dgm_bench.errors import DgmBenchError
from dgm_bench.tracking.address import (
    LATER,
    VARIABLE,
    Address,
    RequestLost,
    ServerAway,
    TrackingError,
    without_secrets,
)
from dgm_bench.tracking.live import Live
from dgm_bench.tracking.tracker import make_tracker

#: Seconds between two attempts to log a run to a server that was there and is away.
RETRY_SECONDS = 0.5
#: How often a run is tried whose requests alone are lost.
TRIES = 3
#: So many seconds after which others may log too, for so many seconds.
TURN_SECONDS, PAUSE_SECONDS = 2.0, 0.12
#: Where MLflow's own default experiment, which stays empty, keeps files.
_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"


class Worker:
    """Does jobs and answers.

    Args:
        channel: Where answers go.
        results: The results folder.
        address: Where MLflow is.
        tracker: Which.
        machine: Whether to measure this machine.
    """

    def __init__(
        self,
        channel: IO[str],
        results: Path,
        address: Address,
        tracker: str = "mlflow",
        machine: bool = False,
    ) -> None:
        self._channel, self._address = channel, address
        self._log = make_tracker(tracker, results, address, lambda: self._say(alive=True))
        self._live = Live(self._log, machine)
        self._reached = False
        self._turn = time.monotonic()

    def prepare(self) -> None:
        """Ask MLflow something before there is a job."""
        self._log.trouble()

    def next(self, jobs: queue.SimpleQueue[str]) -> None:
        """Wait for a job and do it; in the meantime show the runs under way."""
        try:
            job = json.loads(jobs.get(timeout=self._live.seconds_left()))
        except queue.Empty:
            return self._live.show()
        return self._live.hear(job) if "told" in job else self.do(job)

    def do(self, job: dict[str, Any]) -> None:
        """Do a job: log ``paths``, say that runs have stopped, or ask whether MLflow is well."""
        if "leave" in job:
            with suppress(Exception):
                self._live.show()
                self._log.leave()
            return self._say(done=True)
        if "paths" not in job:
            trouble = self._log.trouble()
            return self._say(done=True) if trouble is None else self._say(stop=_parts(trouble))
        for path in job["paths"]:
            self._live.forget(Path(path).stem)
            if not self._done(path, job["many"], partial(self._once, path, job["many"])):
                return None
            self._let_others()
        if not self._done(None, job["many"], partial(self._log.settle, many=job["many"])):
            return None
        return self._say(done=True)

    def _once(self, path: str, many: bool) -> None:
        self._say(path=path, new=self._log.once(Path(path), many=many))
        self._reached = True

    def _done(self, path: str | None, many: bool, work: Callable[[], None]) -> bool:
        """Log something, for as long as it takes; return False where nothing can be.

        Args:
            path: Of the record; None for what is said of several.
            many: Whether it is tried again.
            work: Logs it.
        """
        tries = 0
        while True:
            try:
                work()
            except RequestLost as lost:
                tries += 1
                if many and tries < TRIES:
                    self._wait(lost)
                    continue
                return self._failed(path, lost)
            except ServerAway as away:
                if not (many and self._reached):
                    return self._stop(away)
                self._wait(away)
                continue
            except TrackingError as error:
                return self._stop(error)
            except Exception as error:  # one bad run must not stop the others
                return self._failed(path, error)
            return True

    def _wait(self, error: ServerAway) -> None:
        self._say(trouble=_parts(error))
        time.sleep(RETRY_SECONDS)

    def _failed(self, path: str | None, error: Exception) -> bool:
        text = str(error) or type(error).__name__
        text = text if isinstance(error, DgmBenchError) else f"{type(error).__name__}: {text}"
        text = without_secrets(text, self._address)
        if path is None:
            return self._stop(TrackingError("MLflow", text, LATER))
        self._say(path=path, error=text)
        return True

    def _stop(self, error: TrackingError) -> bool:
        self._say(stop=_parts(error))
        return False

    def _let_others(self) -> None:
        """Leave MLflow to other processes now and then: they ask for its lock only so often."""
        if time.monotonic() - self._turn > TURN_SECONDS:
            time.sleep(PAUSE_SECONDS)
            self._turn = time.monotonic()

    def _say(self, **answer: object) -> None:
        self._channel.write(json.dumps(answer) + "\n")
        self._channel.flush()


def _parts(error: TrackingError) -> tuple[str, str, str]:
    return error.thing, error.reason, error.remedy


def main() -> None:
    """Take jobs from standard input until it is closed; answer on standard output."""
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the one that started this
        signal.signal(number, signal.SIG_IGN)
    channel = _own_channel()
    logging.disable(logging.ERROR)
    start = json.loads(jobs.get())
    address = Address(os.environ[VARIABLE], start["shown"], Path.cwd() if start["moved"] else None)
    if address.folder is not None:
        # MLflow would put the folder's name into SQL as it is, quotes and all.
        os.environ[_ARTIFACT_ROOT] = (address.folder / "mlartifacts").as_uri()
    tracker = start["tracker"]
    worker = Worker(channel, Path(start["results"]), address, tracker, start["machine"])
    if tracker == "mlflow":
        with suppress(Exception):  # what is wrong with it is told when it is used
            import mlflow  # noqa: F401
    channel.write('{"ready": true}\n')
    channel.flush()
    if (
        tracker == "mlflow" and not address.is_server
    ):  # its tables take seconds to be made, and there is a run to wait for
        with suppress(Exception):
            worker.prepare()
    while True:
        worker.next(jobs)


def _listen(jobs: queue.SimpleQueue[str]) -> None:
    """Hand on jobs; end at once, whatever is under way, when there will be no more."""
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


def _own_channel() -> IO[str]:
    """Return what standard output was; it and standard error are left to what MLflow prints."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    return channel
