"""What a task is by the declarations that this process has."""

from __future__ import annotations

from dgm_bench.catalog import load_catalog
from dgm_bench.engines.tasks import Task
from dgm_bench.overrides import change_cells
from dgm_bench.spec import Cell


def declared_cells(task: Task) -> list[Cell]:
    """Return the cells of a task in its order, their recipes changed as its settings say.

    Raises:
        UsageError: There is no such cell here, or a setting does not fit.
    """
    changes = dict(setting.partition("=")[::2] for setting in task.settings)
    cells = change_cells(load_catalog().select(*task.cells), changes)
    return sorted(cells, key=lambda cell: task.cells.index(cell.id))
