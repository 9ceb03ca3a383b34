"""TensorBoard: the curve of each run as event files, below ``tensorboard`` in the results folder.

A run's folder is ``<paper>/<table>/<row>/<column>/<run id>``. While the run goes on its numbers
are added; when it has ended the folder is written anew from its record.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dgm_bench.records import Data, read_record
from dgm_bench.store import Store
from dgm_bench.tracking.address import LATER, TrackingError
from dgm_bench.tracking.begun import Begun, Told, group_of
from dgm_bench.tracking.content import Point, curve_points, final_points, live_points, run_params

#: Says that a folder has its run in full.
_WHOLE = "whole"


class TensorBoard:
    """Writes event files.

    Args:
        results: The results folder.
    """

    def __init__(self, results: Path) -> None:
        self._folder, self._store = results / "tensorboard", Store(results)
        self._open: dict[str, Any] = {}
        self._last: dict[str, int] = {}

    def trouble(self) -> TrackingError | None:
        """Return that it is not installed, or None."""
        try:
            import tensorboard.summary.writer.event_file_writer  # noqa: F401
        except ImportError:
            remedy = f"`pip install tensorboard`, then {LATER}"
            return TrackingError("TensorBoard", "is not installed", remedy)
        return None

    def live(self, begun: Begun, told: Sequence[Told], data: Data | None) -> None:
        """Add the newest numbers of a run under way."""
        folder = self._folder / group_of(begun) / begun.run_id
        if begun.run_id not in self._open:
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was interrupted
            self._open[begun.run_id] = _writer(folder)
            self._write(begun.run_id, _text("recipe", _table(run_params(begun))))
        points = [point for rows in told for point in live_points(rows)]
        self._write(begun.run_id, *map(_scalar, points))

    def measured(self, numbers: Mapping[str, float]) -> None:
        """Nothing: TensorBoard has no place for it beside the curves."""

    def leave(self) -> None:
        """Close what is open."""
        for run_id in list(self._open):
            self._open.pop(run_id).close()

    def once(self, path: Path, *, many: bool = False) -> bool:
        """Write a stored run anew; return False where it is there in full."""
        if (trouble := self.trouble()) is not None:
            raise trouble
        record = read_record(path)
        folder = self._folder / group_of(record) / record.run_id
        if (writer := self._open.pop(record.run_id, None)) is not None:
            writer.close()
        if (folder / _WHOLE).exists():
            return False
        shutil.rmtree(folder, ignore_errors=True)
        points = [*curve_points(record, self._store.curve(record)), *final_points(record)]
        self._open[record.run_id] = _writer(folder)
        self._write(record.run_id, _text("recipe", _table(run_params(record))))
        self._write(record.run_id, *map(_scalar, points))
        self._open.pop(record.run_id).close()
        (folder / _WHOLE).touch()
        return True

    def settle(self, *, many: bool = False) -> None:
        """Nothing is said of several runs together."""

    def _write(self, run_id: str, *events: Any) -> None:  # noqa: ANN401
        writer = self._open[run_id]
        for event in events:
            writer.add_event(event)
        writer.flush()


def _writer(folder: Path) -> Any:  # noqa: ANN401
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    return EventFileWriter(str(folder))


def _scalar(point: Point) -> Any:  # noqa: ANN401
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    value = Summary.Value(tag=point.name, simple_value=point.value)
    return Event(wall_time=point.time / 1000, step=point.step, summary=Summary(value=[value]))


def _text(name: str, text: str) -> Any:  # noqa: ANN401
    import time

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.text.summary_v2 import text_pb

    return Event(wall_time=time.time(), step=0, summary=text_pb(name, text))


def _table(params: Mapping[str, str]) -> str:
    lines: Iterator[str] = (f"| {key} | {text.replace('|', ' ')} |" for key, text in params.items())
    return "\n".join(["| option | value |", "| --- | --- |", *lines])
