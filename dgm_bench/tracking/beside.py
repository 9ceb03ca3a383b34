"""Logging beside other work: what takes seconds holds up nobody."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from dgm_bench.records import RunRecord
from dgm_bench.tracking import RunLogger


class LoggingBeside:
    """Logs runs one after the other in a thread of its own.

    Args:
        logger: Does it; asked by this thread alone from now on.
    """

    def __init__(self, logger: RunLogger) -> None:
        self._logger = logger
        self._thread = ThreadPoolExecutor(1)
        self._under_way: list[Future[str | None]] = []

    def log(self, record: RunRecord) -> None:
        """Log a run that has just ended, once those before it are logged."""
        self._under_way.append(self._thread.submit(self._logger.log, record))

    def troubles(self) -> Iterator[str]:
        """Yield in one line each why runs could not be logged, of those that were tried by now."""
        while self._under_way and self._under_way[0].done():
            if (trouble := self._under_way.pop(0).result()) is not None:
                yield trouble

    def close(self) -> Iterator[str]:
        """Wait until all is logged, or the logger has been told to stop; yield the troubles."""
        self._thread.shutdown()
        yield from self.troubles()
