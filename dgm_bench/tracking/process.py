"""Starts the process that logs, asks it, and gives it up at a deadline or when asked to stop."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dgm_bench.processes import module_paths
from dgm_bench.tracking.address import LATER, Address, TrackingError

#: Seconds within which a record has to get through; MLflow's own tables take some to be made.
SERVER_SECONDS, FILE_SECONDS = 20.0, 60.0
#: Seconds that MLflow may take to be imported, from a slow network folder.
START_SECONDS = 60.0
#: Seconds that it may take to read what has no answer, and to say that runs have stopped.
TELL_SECONDS, LEAVE_SECONDS = 5.0, 1.0
#: Seconds between two questions whether to stop.
POLL_SECONDS = 0.1

# One try of ten seconds in place of MLflow's eight of two minutes: a repeated request could do
# twice what it asks for. No chatter, no telemetry; a folder is used where one is named.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dgm_bench.tracking.child import main; main()"
)

Answer = dict[str, Any]
StopReason = Callable[[], str | None]


class StoppedLogging(Exception):  # noqa: N818  not an error: what is left is logged later
    """Logging was asked to stop; ``reason`` says by what."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class LoggingProcess:
    """A process of its own that talks to MLflow; started when it is first asked, or before.

    Args:
        results: The results folder.
        address: Where MLflow is.
        stop_reason: Says why to stop now, or None to go on.
        tracker: Which (:func:`dgm_bench.tracking.tracker.make_tracker`).
        machine: Whether this machine computes the runs under way, and is to be measured.

    Attributes:
        starts: How often a process was started: each knows only what it was told itself.
    """

    def __init__(
        self,
        results: Path,
        address: Address,
        stop_reason: StopReason,
        tracker: str = "mlflow",
        machine: bool = False,
    ) -> None:
        self._results, self._address, self._stop_reason = results, address, stop_reason
        self._tracker, self._machine, self.starts = tracker, machine, 0
        self._seconds = SERVER_SECONDS if address.is_server else FILE_SECONDS
        self._process: subprocess.Popen[bytes] | None = None
        self._unread, self._ready = b"", False

    def begin(self) -> None:
        """Start the process, and do not wait until it is ready.

        Raises:
            TrackingError: When it cannot be started.
        """
        if self._process is None:
            self._process, self._ready = self._new(), False
            self.starts += 1
            start = {
                "results": str(self._results.absolute()),
                "shown": self._address.shown,
                "moved": self._address.folder is not None,
                "tracker": self._tracker,
                "machine": self._machine,
            }
            self._send(self._process, start, TELL_SECONDS)

    def tell(self, message: dict[str, object]) -> bool:
        """Send what has no answer; return False, the process ended, where it does not take it."""
        self.begin()
        assert self._process is not None
        taken = self._send(self._process, message, TELL_SECONDS)
        if not taken:
            self.close()
        return taken

    def leave(self) -> None:
        """Give the process a moment to say that the runs under way have stopped; then end it."""
        if self._process is not None and self._send(self._process, {"leave": True}, 0.0):
            deadline = time.monotonic() + LEAVE_SECONDS
            self._stop_reason = lambda: None
            with suppress(TrackingError):
                while (line := self._line(self._process, deadline)) is not None:
                    if "done" in json.loads(line):
                        break
        self.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        if (process := self._process) is not None:
            self._process, self._unread = None, b""
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def ask(self, **job: object) -> Iterator[Answer]:
        """Give the process a job, and yield its answers to the end of it.

        Args:
            job: See :mod:`dgm_bench.tracking.child`.

        Raises:
            TrackingError: When MLflow is not to be had, or no record got through in time.
            StoppedLogging: When asked to stop.
        """
        try:
            yield from self._answers(job)
        except BaseException:
            self.close()
            raise

    def _answers(self, job: dict[str, object]) -> Iterator[Answer]:
        process = self._started()
        self._send(process, job, self._seconds)
        deadline, trouble = time.monotonic() + self._seconds, self._silent()
        while (line := self._line(process, deadline)) is not None:
            answer: Answer = json.loads(line)
            if "done" in answer:
                return
            if "stop" in answer:
                raise TrackingError(*answer["stop"])
            if "trouble" in answer:
                trouble = TrackingError(*answer["trouble"])
                continue
            if "error" not in answer:
                deadline, trouble = time.monotonic() + self._seconds, self._silent()
            yield answer
        raise trouble

    def _silent(self) -> TrackingError:
        name = f"MLflow {'server ' if self._address.is_server else ''}{self._address.shown}"
        reason = f"no record got through in {self._seconds:g} seconds"
        return TrackingError(name, reason, f"see whether it is well; {LATER}")

    def _started(self) -> subprocess.Popen[bytes]:
        self.begin()
        assert self._process is not None
        if not self._ready:
            if self._line(self._process, time.monotonic() + START_SECONDS) is None:
                reason = f"was not ready within {START_SECONDS:g} seconds"
                raise TrackingError("MLflow", reason, f"see whether `import mlflow` works; {LATER}")
            self._ready = True
        return self._process

    def _new(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(module_paths())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._address.folder,
                bufsize=0,
                env={**os.environ, **_ENVIRONMENT, **self._address.environment()},
                start_new_session=True,  # Ctrl-C in a terminal is for the command alone
            )
        except OSError as error:
            reason = f"its process cannot be started ({error.strerror or error})"
            raise TrackingError("MLflow", reason, LATER) from error
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _send(
        self, process: subprocess.Popen[bytes], job: dict[str, object], seconds: float
    ) -> bool:
        """Send a job; return whether the process took it within so many seconds."""
        assert process.stdin is not None
        left, deadline = json.dumps(job).encode() + b"\n", time.monotonic() + seconds
        with selectors.DefaultSelector() as selector, suppress(BrokenPipeError):
            # that it is gone is seen when its answer is waited for
            selector.register(process.stdin, selectors.EVENT_WRITE)
            while left and selector.select(max(deadline - time.monotonic(), 0.0)):
                left = left[os.write(process.stdin.fileno(), left) :]
            return not left
        return True

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
        """Return the next answer, or None where there is none until the deadline."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if (reason := self._stop_reason()) is not None:
                    raise StoppedLogging(reason)
                if time.monotonic() >= deadline:
                    return None
                if selector.select(POLL_SECONDS):
                    self._unread += self._read(process)
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        some = os.read(process.stdout.fileno(), 65536)
        if not some:
            reason = f"its process ended (exit code {process.wait()})"
            raise TrackingError("MLflow", reason, f"see whether `import mlflow` works; {LATER}")
        return some
