"""What is known of a run that begins, as its record will have it: what trackers show until then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from dgm_bench.planner import PlannedRun
from dgm_bench.records import Code, RunRecord
from dgm_bench.spec import Recipe
from dgm_bench.train.tally import CURVE_COLUMNS

#: Rows of a curve by the names of its columns.
Curve = Sequence[Mapping[str, float]]


class Begun(BaseModel):
    """A run under way.

    Attributes:
        run_id: Of its record to come; that record has the other fields by the same names.
        started: When its numbers were first told, in milliseconds since 1970.
    """

    model_config = ConfigDict(extra="forbid")

    run_id: str
    started: int
    paper: str
    table: str
    row: str
    column: str
    cells: tuple[str, ...]
    recipe: Recipe
    recipe_hash: str
    seed: int
    modified: tuple[str, ...]
    code: Code

    @classmethod
    def of(cls, run: PlannedRun, run_id: str, started: int, code: Code) -> Begun:
        """Return a run of a plan as it begins."""
        cell, recipe = run.cell, run.chosen_recipe
        return cls(
            run_id=run_id,
            started=started,
            paper=cell.paper,
            table=cell.table,
            row=cell.same_as or cell.row.id,
            column=cell.column.id,
            cells=tuple(run.cells),
            recipe=recipe,
            recipe_hash=recipe.content_hash,
            seed=run.seed,
            modified=run.modified,
            code=code,
        )


def experiment_of(run: Begun | RunRecord) -> str:
    """Return the name of a run's experiment: its table."""
    return f"{run.paper}/{run.table}"


def group_of(run: Begun | RunRecord) -> str:
    """Return what the seeds of a cell share: ``paper/table/row/column``."""
    return f"{run.paper}/{run.table}/{run.row}/{run.column}"


def name_of(run: Begun | RunRecord) -> str:
    """Return how to speak of a run among others of its experiment."""
    modified = ", modified" if run.modified else ""
    return f"{run.row} {run.column} seed {run.seed}{modified}"


class Told(BaseModel):
    """Rows of the curve of a run under way, in the order of the curve's columns."""

    model_config = ConfigDict(extra="forbid")

    time: int
    stage: str
    rows: tuple[tuple[float | None, ...], ...]

    def named(self) -> list[dict[str, float | None]]:
        """Return the rows by the names of their columns; a row may end early."""
        return [dict(zip(CURVE_COLUMNS, row, strict=False)) for row in self.rows]
