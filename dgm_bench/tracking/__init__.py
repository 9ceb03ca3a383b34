"""MLflow: runs logged from the stored records and curves, which remain the source.

Nothing here can lose a run, or keep one waiting for long. What MLflow did not get when the run
ended (it is not installed, its server is down, the process died half-way), :func:`sync` logs
later, once each. MLflow itself runs in a process of its own (:mod:`dgm_bench.tracking.child`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dgm_bench.control import Control
from dgm_bench.records import RunRecord
from dgm_bench.store import record_files
from dgm_bench.tracking.address import LATER, TrackingError, tracking_address
from dgm_bench.tracking.process import LoggingProcess, StoppedLogging

__all__ = ["RunLogger", "SyncReport", "TrackingError", "check", "sync", "tracking_address"]

#: Seconds for which a server that failed at the end of a run is not asked again.
REST_SECONDS = 600.0
#: Records in one job, few enough that their names fit into a pipe that nobody empties.
_RECORDS_PER_JOB = 50


@dataclass
class SyncReport:
    """What :func:`sync` did, by run identifier.

    Attributes:
        logged: Runs logged by this call.
        already: Runs that MLflow had in full.
        failed: Runs that could not be logged, each with the reason.
        left: Runs that were not tried, or not to the end.
        stopped: Why runs are left, in one line; empty where none is.
        interrupted: Whether that was a signal or the time limit.
    """

    logged: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    stopped: str = ""
    interrupted: bool = False


def sync(results: Path, *, control: Control | None = None) -> SyncReport:
    """Log every stored record that MLflow does not have in full, once each.

    It ends when no record gets through for some seconds, whatever the server does.

    Args:
        results: The results folder.
        control: Says whether to stop; what is logged by then stays.
    """
    report = SyncReport()
    runs = results / "runs"
    files = record_files(runs) if runs.is_dir() else []
    left = {str(path.absolute()): path.stem for path in files}
    try:
        _sync(results, left, report, control or Control())
    except TrackingError as error:
        report.stopped = str(error)
    except StoppedLogging as stop:
        report.stopped, report.interrupted = stop.reason, True
    report.left = list(left.values())
    return report


def _sync(results: Path, left: dict[str, str], report: SyncReport, control: Control) -> None:
    """Log what is left, and take it from there."""
    paths = list(left)
    address = tracking_address(results)
    with closing(LoggingProcess(results, address, control.stop_reason)) as process:
        for start in range(0, len(paths), _RECORDS_PER_JOB):
            for answer in process.ask(paths=paths[start : start + _RECORDS_PER_JOB], many=True):
                if "path" in answer:
                    _note(answer, left.pop(answer["path"]), report)


def _note(answer: Mapping[str, object], run_id: str, report: SyncReport) -> None:
    if "error" in answer:
        report.failed[run_id] = str(answer["error"])
    else:
        (report.logged if answer["new"] else report.already).append(run_id)


class RunLogger:
    """Logs the runs of one command as they end; a failure is one line, and never long.

    Args:
        results: The results folder.
        control: Says whether to stop.
    """

    def __init__(self, results: Path, control: Control) -> None:
        self._results, self._control = results, control
        self._process: LoggingProcess | None = None
        self._failed_at: float | None = None

    def close(self) -> None:
        """End the process that logs, if there is one."""
        if self._process is not None:
            self._process.close()

    def begin(self) -> None:
        """Let MLflow start beside the first run, which takes it seconds.

        What is wrong with it is told when a run is logged.
        """
        with suppress(Exception):
            self._asked().begin()

    def log(self, record: RunRecord) -> str | None:
        """Log a run that has just ended.

        Returns:
            None when MLflow has the run, else one line that says why not and what to do.
        """
        if self._failed_at is not None and time.monotonic() - self._failed_at < REST_SECONDS:
            minutes = f"{REST_SECONDS / 60:g} minutes"
            return f"MLflow: not asked, since it failed less than {minutes} ago; {LATER}"
        try:
            return self._log(record)
        except StoppedLogging as stop:
            return f"MLflow does not have run {record.run_id} ({stop.reason}); {LATER}"
        except TrackingError as error:
            self._failed_at = time.monotonic()
            return str(error)
        except Exception as error:  # the record is stored: a view of it must not fail the run
            return f"MLflow: not asked ({type(error).__name__}: {error}); {LATER}"

    def _log(self, record: RunRecord) -> str | None:
        path = str(record.path(self._results).absolute())
        answers = self._asked().ask(paths=[path], many=False)
        errors = [answer["error"] for answer in answers if "error" in answer]
        if not errors:
            return None
        return f"MLflow did not take run {record.run_id} ({errors[0]}); {LATER}"

    def _asked(self) -> LoggingProcess:
        if self._process is None:
            address = tracking_address(self._results)
            self._process = LoggingProcess(self._results, address, self._control.stop_reason)
        return self._process


def check(results: Path) -> str:
    """Ask whether MLflow takes runs, where a server is named, and return where they go.

    Args:
        results: The results folder.

    Raises:
        TrackingError: When it does not.
    """
    address = tracking_address(results)
    if address.is_server:
        with closing(LoggingProcess(results, address, lambda: None)) as process:
            for _ in process.ask():
                pass
    return address.shown
