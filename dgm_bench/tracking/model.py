"""The trained model of a run, as MLflow keeps and loads models."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dgm_bench import data as datasets
from dgm_bench.errors import DgmBenchError
from dgm_bench.records import RunRecord, write_record
from dgm_bench.tracking.begun import group_of, name_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

#: Bytes of the largest weights that are logged with their run.
LARGEST = 4 * 2**20
#: What loads it (:func:`dgm_bench.library.mlflow_model._load_pyfunc`).
LOADER = "dgm_bench.library.mlflow_model"
#: Names of the files of a model.
RECORD, WEIGHTS = "record.json", "weights.safetensors"
#: Metrics of models whose density can be computed or bounded.
_DENSITIES = frozenset({"nll", "negative-elbo", "importance-nll"})


def log_model(
    client: MlflowClient,
    run: Run,
    record: RunRecord,
    results: Path,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Log the model of a run once, where its weights are here, whole and small.

    Args:
        client: Of MLflow.
        run: Of MLflow, the record's.
        record: Of the run.
        results: The results folder.
        alive: Called before and after MLflow's models are imported, which takes seconds.
    """
    file = record.weights_file(results)
    if not file.is_file() or file.stat().st_size > LARGEST:
        return
    experiment, run_id = run.info.experiment_id, run.info.run_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    if any(model.status == "READY" for model in found):
        return
    for model in found:  # of a process that was stopped while it logged it
        client.delete_logged_model(model.model_id)
    alive()
    import mlflow.models  # noqa: F401

    alive()
    with TemporaryDirectory() as folder:
        _log(client, experiment, run_id, record, _written(Path(folder), record, file))


def _log(
    client: MlflowClient, experiment: str, run_id: str, record: RunRecord, folder: Path
) -> None:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    name = re.sub(r"[^\w-]+", "-", name_of(record))  # MLflow refuses dots and other marks
    tags = {"dgm_bench.cell": group_of(record), "dgm_bench.run_id": record.run_id}
    made = client.create_logged_model(experiment, name, source_run_id=run_id, tags=tags)
    described = Model(run_id=run_id, signature=_signature(record), model_id=made.model_id)
    described.add_flavor(
        "python_function", loader_module=LOADER, python_version=platform.python_version()
    )
    described.save(str(folder / "MLmodel"))
    client.log_model_artifacts(made.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, record.budget.steps)])
    client.finalize_logged_model(made.model_id, "READY")


def _written(folder: Path, record: RunRecord, weights: Path) -> Path:
    """Put the files of a model into a folder, and return it."""
    shutil.copyfile(weights, folder / WEIGHTS)
    with TemporaryDirectory() as elsewhere:
        shutil.copyfile(write_record(record, Path(elsewhere)), folder / RECORD)
    needed = f"dgm-bench[train]=={record.code.version}\n"
    (folder / "requirements.txt").write_text(needed)
    return folder


def _signature(record: RunRecord) -> ModelSignature | None:
    """Return what it takes and gives: examples, and the logarithm of each one's density."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    shape = _event_shape(record)
    if shape is None or not _DENSITIES & {metric.name for metric in record.metrics}:
        return None
    number = np.dtype("float32")
    taken = Schema([TensorSpec(number, (-1, *shape))])
    return ModelSignature(taken, Schema([TensorSpec(number, (-1,))]))


def _event_shape(record: RunRecord) -> Sequence[int] | None:
    try:
        return datasets.card(record.data.name).event_shape
    except DgmBenchError:  # of another version of the suite
        return None
