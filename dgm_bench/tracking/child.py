"""The process that logs: it takes jobs from the one that started it, and goes when that goes.

A server can keep whoever asks it waiting for ever, byte by byte if need be. The one who waits is
this process, which can be ended at any moment; what it has begun then is done again the next time.

A job is a line of JSON, and so is each answer: ``path`` with ``new`` or ``error`` for a record,
``trouble`` for a server that may come back, ``alive`` for progress, ``stop`` for what ends the job
before it is done, ``done`` for its end.
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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dgm_bench.errors import DgmBenchError
from dgm_bench.tracking.address import (
    VARIABLE,
    Address,
    RequestLost,
    ServerAway,
    TrackingError,
    without_secrets,
)

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
    """

    def __init__(self, channel: IO[str], results: Path, address: Address) -> None:
        from dgm_bench.tracking.client import Log

        self._channel, self._address = channel, address
        self._log = Log(results, address, alive=lambda: self._say(alive=True))
        self._reached = False
        self._turn = time.monotonic()

    def prepare(self) -> None:
        """Ask MLflow something before there is a job."""
        self._log.trouble()

    def do(self, job: dict[str, Any]) -> None:
        """Do a job: log ``paths``, or only ask whether MLflow is well."""
        if "paths" not in job:
            trouble = self._log.trouble()
            return self._say(done=True) if trouble is None else self._say(stop=_parts(trouble))
        for path in job["paths"]:
            if not self._logged(path, job["many"]):
                return None
            self._let_others()
        return self._say(done=True)

    def _logged(self, path: str, many: bool) -> bool:
        """Log a record, for as long as it takes; return False where no record can be."""
        tries = 0
        while True:
            try:
                self._say(path=path, new=self._log.once(Path(path), many=many))
                self._reached = True
            except RequestLost as lost:
                tries += 1
                if many and tries < TRIES:
                    self._wait(lost)
                    continue
                self._failed(path, lost)
            except ServerAway as away:
                if not (many and self._reached):
                    return self._stop(away)
                self._wait(away)
                continue
            except TrackingError as error:
                return self._stop(error)
            except Exception as error:  # one bad run must not stop the others
                self._failed(path, error)
            return True

    def _wait(self, error: ServerAway) -> None:
        self._say(trouble=_parts(error))
        time.sleep(RETRY_SECONDS)

    def _failed(self, path: str, error: Exception) -> None:
        text = str(error) or type(error).__name__
        text = text if isinstance(error, DgmBenchError) else f"{type(error).__name__}: {text}"
        self._say(path=path, error=without_secrets(text, self._address))

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
    worker = Worker(channel, Path(start["results"]), address)
    with suppress(Exception):  # what is wrong with it is told when it is used
        import mlflow  # noqa: F401
    channel.write('{"ready": true}\n')
    channel.flush()
    if not address.is_server:  # its tables take seconds to be made, and there is a run to wait for
        with suppress(Exception):
            worker.prepare()
    while True:
        worker.do(json.loads(jobs.get()))


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
