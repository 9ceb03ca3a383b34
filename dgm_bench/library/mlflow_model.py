"""What MLflow loads a run's model with: ``mlflow.pyfunc.load_model("models:/m-...")``.

Its data set has to be here, as for :func:`dgm_bench.load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dgm_bench import data as datasets
from dgm_bench.errors import UsageError
from dgm_bench.library.folders import data_folder
from dgm_bench.library.rebuilt import rebuilt
from dgm_bench.library.trained import TrainedModel
from dgm_bench.records import read_record
from dgm_bench.tracking.model import RECORD, WEIGHTS
from dgm_bench.train.precision import dtype_of


class LogDensity:
    """Gives the log density of examples by a trained model, in nats, or a bound of it.

    Args:
        model: The model.
    """

    def __init__(self, model: TrainedModel) -> None:
        self.model = model

    def predict(self, x: Any, params: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        """Return an array of ``log_prob`` or ``elbo`` of examples ``(n, ...)``.

        Args:
            x: An array, or a table with a column for each number.
            params: Nothing that is known.

        Raises:
            UsageError: The model has neither.
        """
        rows = torch.as_tensor(np.asarray(x)).reshape(-1, *self.model.data.event_shape)
        for method in ("log_prob", "elbo"):
            if method in self.model.can:
                return getattr(self.model, method)(rows).numpy()
        raise UsageError(self.model.cell, "has no density", "model.sample(n) draws from it")


def _load_pyfunc(path: str) -> LogDensity:
    """Return the model of a folder that MLflow keeps; MLflow calls it by this name."""
    folder, root = Path(path), data_folder(None)
    record = read_record(folder / RECORD)
    recipe, seed, first = record.recipe, record.seed, record.recipe.stages[0]
    data = datasets.load(first.data.name, root, args=first.data.args, seed=seed, offline=True)
    data = data.to(torch.device("cpu"), dtype_of(first))
    module = rebuilt(recipe, seed, data, (folder / WEIGHTS).read_bytes(), folder)
    return LogDensity(TrainedModel(record.cells[0], recipe, seed, record, module, data, root))
