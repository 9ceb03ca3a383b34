"""Logging beside other work: what takes seconds holds up nobody."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Thread

from dgm_bench.context import RunContext
from dgm_bench.events import CurveRows
from dgm_bench.records import RunRecord
from dgm_bench.tracking import RunLogger

#: Seconds in which what runs tell is gathered before it is handed on.
GATHERING = 1.0
#: How much of it may wait: what is beyond is logged when its run has ended.
MOST_WAITING = 5000


@contextmanager
def logging_beside(logger: RunLogger, context: RunContext) -> Iterator[LoggingBeside | None]:
    """Log runs beside what the block does, and wait at its end; tell what could not be logged.

    Args:
        logger: Logs them.
        context: Its reporter is told, and it says whether to log at all.
    """
    logging = LoggingBeside(logger) if context.track else None
    try:
        yield logging
    finally:
        for trouble in logging.close() if logging else ():
            context.reporter.message(trouble)


class LoggingBeside:
    """Logs runs one after the other in a thread of its own, and what they tell until they end.

    Args:
        logger: Does it; asked by this thread alone from now on.
    """

    def __init__(self, logger: RunLogger) -> None:
        self._logger = logger
        self._changed = Condition()
        self._records: deque[RunRecord] = deque()
        self._told: deque[CurveRows] = deque()
        self._ended: set[str] = set()
        self._troubles: deque[str] = deque()
        self._closing = False
        self._next = 0.0
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def live(self, told: CurveRows) -> None:
        """Show numbers of a run under way, soon; return at once, whatever the tracker does."""
        with self._changed:
            if len(self._told) < MOST_WAITING and told.run_id not in self._ended:
                self._told.append(told)
                if len(self._told) == 1:
                    self._changed.notify()

    def log(self, record: RunRecord) -> None:
        """Log a run that has just ended, once those before it are logged."""
        with self._changed:
            self._ended.add(record.run_id)
            self._told = deque(told for told in self._told if told.run_id != record.run_id)
            self._records.append(record)
            self._changed.notify()

    def troubles(self) -> Iterator[str]:
        """Yield in one line each why runs could not be logged, of those that were tried by now."""
        while self._troubles:
            yield self._troubles.popleft()

    def close(self) -> Iterator[str]:
        """Wait until all is logged, or the logger has been told to stop; yield the troubles."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        yield from self.troubles()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._due():
                    self._changed.wait(self._pause())
                if not (self._records or self._told):
                    return
                record = self._records.popleft() if self._records else None
                told = [] if record is not None else list(self._told)
                self._told = self._told if record is not None else deque()
            if record is None:
                self._logger.tell(told)
                self._next = time.monotonic() + GATHERING
            elif (trouble := self._logger.log(record)) is not None:
                self._troubles.append(trouble)

    def _due(self) -> bool:
        return bool(self._closing or self._records or (self._told and self._pause() == 0.0))

    def _pause(self) -> float | None:
        return max(self._next - time.monotonic(), 0.0) if self._told else None
