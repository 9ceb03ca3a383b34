"""Weights & Biases: a project a table, a group a cell; offline too (``WANDB_MODE=offline``).

W&B keeps what its server does not take, and sends it later (``wandb sync``). It knows a run by the
record's id: one that was interrupted, or is logged again, takes the place of the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from dgm_bench.records import Data, RunRecord, read_record
from dgm_bench.store import Store
from dgm_bench.tracking.address import LATER, TrackingError
from dgm_bench.tracking.begun import Begun, Told, name_of
from dgm_bench.tracking.content import (
    Point,
    begin_tags,
    curve_points,
    final_points,
    live_points,
    run_params,
    run_tags,
)


class WeightsAndBiases:
    """Logs to Weights & Biases.

    Args:
        results: The results folder; ``wandb`` in it has what was logged.
    """

    def __init__(self, results: Path) -> None:
        self._folder, self._store = results / "wandb", Store(results)
        self._open: dict[str, Any] = {}
        self._last: dict[str, dict[str, int]] = {}

    def trouble(self) -> TrackingError | None:
        """Return that it is not installed, or None."""
        try:
            import wandb  # noqa: F401
        except ImportError:
            return TrackingError("W&B", "is not installed", f"`pip install wandb`, then {LATER}")
        return None

    def live(self, begun: Begun, told: Sequence[Told], data: Data | None) -> None:
        """Log the newest numbers of a run under way."""
        self._opened(begun)
        self._log(begun.run_id, [point for rows in told for point in live_points(rows)])

    def measured(self, numbers: Mapping[str, float]) -> None:
        """Nothing: W&B measures the machine itself."""

    def leave(self) -> None:
        """Close what is open, as stopped."""
        for run_id in list(self._open):
            self._open.pop(run_id).finish(exit_code=130)

    def once(self, path: Path, *, many: bool = False) -> bool:
        """Log what is missing of a stored run; return False where it was logged in full."""
        if (trouble := self.trouble()) is not None:
            raise trouble
        whole = self._folder / "logged" / path.stem
        if whole.exists():
            return False
        record = read_record(path)
        try:
            self._end(record)
        except Exception as error:
            text = str(error).partition("\n")[0]
            raise TrackingError(
                "W&B", text, f"`wandb login`, or WANDB_MODE=offline; {LATER}"
            ) from error
        whole.parent.mkdir(exist_ok=True)
        whole.touch()
        return True

    def settle(self, *, many: bool = False) -> None:
        """Nothing is said of several runs together: W&B groups them itself."""

    def _end(self, record: RunRecord) -> None:
        run = self._opened(record)
        self._log(record.run_id, curve_points(record, self._store.curve(record)))
        run.summary.update({point.name: point.value for point in final_points(record)})
        run.config.update(run_tags(record), allow_val_change=True)
        self._open.pop(record.run_id)
        run.finish(exit_code=int(record.outcome.failed))

    def _opened(self, run: Begun | RunRecord) -> Any:  # noqa: ANN401
        if run.run_id not in self._open:
            self._open[run.run_id], self._last[run.run_id] = self._begun(run), {}
        return self._open[run.run_id]

    def _begun(self, run: Begun | RunRecord) -> Any:  # noqa: ANN401
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        begun = wandb.init(
            project=f"{run.paper}-{run.table}",
            group=f"{run.row} {run.column}",
            id=run.run_id,
            name=name_of(run),
            config={**run_params(run), **begin_tags(run)},
            dir=self._folder.parent,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
        for stage in [""] if len(run.recipe.stages) == 1 else [s.name for s in run.recipe.stages]:
            before = f"{stage}/" if stage else ""
            begun.define_metric(f"{before}step", hidden=True)
            begun.define_metric(f"{before}*", step_metric=f"{before}step")
        return begun

    def _log(self, run_id: str, points: Iterable[Point]) -> None:
        """Log what is new of these, a row for each step of each stage."""
        last = self._last[run_id]
        new = [point for point in points if point.step > last.get(point.name, -1)]
        for (before, step), some in groupby(new, key=lambda p: (p.name.rpartition("/")[0], p.step)):
            row = {point.name: point.value for point in some}
            self._open[run_id].log({**row, f"{before}/step".lstrip("/"): step})
            last |= dict.fromkeys(row, step)
