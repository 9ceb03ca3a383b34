"""Trackers, MLflow first: runs shown while they train, and logged from their records and curves.

Records and curves remain the source. Nothing here can lose a run, or keep one waiting for long:
trackers run in a process of their own (:mod:`dgm_bench.tracking.child`). What MLflow did not get
while the run went on, it gets when the run has ended; what it did not get then (it is not
installed, its server is down, the process died half-way), :func:`sync` logs later, once each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dgm_bench import provenance
from dgm_bench.control import Control
from dgm_bench.events import CurveRows
from dgm_bench.planner import PlannedRun
from dgm_bench.records import RunRecord
from dgm_bench.store import record_files
from dgm_bench.tracking.address import LATER, TrackingError, tracking_address
from dgm_bench.tracking.begun import Begun
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


def sync(results: Path, *, control: Control | None = None, tracker: str = "mlflow") -> SyncReport:
    """Log every stored record that a tracker does not have in full, once each.

    It ends when no record gets through for some seconds, whatever the server does.

    Args:
        results: The results folder.
        control: Says whether to stop; what is logged by then stays.
        tracker: ``mlflow``, ``tensorboard`` or ``wandb``.
    """
    report = SyncReport()
    runs = results / "runs"
    files = record_files(runs) if runs.is_dir() else []
    left = {str(path.absolute()): path.stem for path in files}
    try:
        _sync(results, left, report, control or Control(), tracker)
    except TrackingError as error:
        report.stopped = str(error)
    except StoppedLogging as stop:
        report.stopped, report.interrupted = stop.reason, True
    report.left = list(left.values())
    return report


def _sync(
    results: Path, left: dict[str, str], report: SyncReport, control: Control, tracker: str
) -> None:
    """Log what is left, and take it from there."""
    paths = list(left)
    address = tracking_address(results)
    process = LoggingProcess(results, address, control.stop_reason, tracker)
    with closing(process):
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
        tracker: ``mlflow``, ``tensorboard`` or ``wandb``.
        machine: Whether this machine computes the runs, and is to be measured.
    """

    def __init__(
        self, results: Path, control: Control, tracker: str = "mlflow", *, machine: bool = False
    ) -> None:
        self._results, self._control = results, control
        self._tracker, self._machine = tracker, machine
        self._process: LoggingProcess | None = None
        self._failed_at: float | None = None
        self._planned: dict[tuple[str, int], PlannedRun] = {}
        self._under_way: dict[str, int] = {}

    def close(self) -> None:
        """End the process that logs, if there is one; runs under way are to go on later."""
        if self._process is None:
            return
        if self._process.starts in self._under_way.values():
            self._process.leave()
        self._process.close()

    def begin(self, runs: Iterable[PlannedRun] = ()) -> None:
        """Let the tracker start beside the first run, which takes it seconds.

        What is wrong with it is told when a run is logged.

        Args:
            runs: Those that are going to tell what they do (:meth:`tell`).
        """
        self._planned = {(run.chosen_recipe.content_hash, run.seed): run for run in runs}
        with suppress(Exception):
            self._asked().begin()

    def tell(self, told: Sequence[CurveRows]) -> None:
        """Hand on numbers of runs under way; what does not get through is logged at their end."""
        if self._rests():
            return
        for run_id in dict.fromkeys(rows.run_id for rows in told):
            with suppress(Exception):
                self._tell([rows for rows in told if rows.run_id == run_id])

    def _tell(self, told: Sequence[CurveRows]) -> None:
        """Hand on what one run tells; a process that does not know it is told who it is."""
        process, first = self._asked(), told[0]
        run = self._planned[first.recipe_hash, first.seed]
        rows = [{"time": r.time, "stage": r.stage, "rows": r.rows} for r in told]
        message: dict[str, object] = {"run_id": first.run_id, "told": rows}
        if (data := next((r.data for r in told if r.data is not None), None)) is not None:
            message["data"] = data.model_dump(mode="json")
        process.begin()
        if self._under_way.get(first.run_id) != process.starts:
            begun = Begun.of(run, first.run_id, first.time, provenance.code())
            message["begun"] = begun.model_dump(mode="json")
        if process.tell(message):
            self._under_way[first.run_id] = process.starts
        else:
            self._failed_at = time.monotonic()

    def log(self, record: RunRecord) -> str | None:
        """Log a run that has just ended.

        Returns:
            None when MLflow has the run, else one line that says why not and what to do.
        """
        self._under_way.pop(record.run_id, None)
        if self._rests():
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

    def _rests(self) -> bool:
        """Say whether it failed a moment ago, and is not asked again."""
        return self._failed_at is not None and time.monotonic() - self._failed_at < REST_SECONDS

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
            stop, tracker = self._control.stop_reason, self._tracker
            self._process = LoggingProcess(self._results, address, stop, tracker, self._machine)
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
