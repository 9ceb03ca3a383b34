"""MLflow's side: one stored run at a time, each once; used in the process that logs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dgm_bench.errors import DgmBenchError, ResultsError
from dgm_bench.extras import install
from dgm_bench.locks import holding
from dgm_bench.records import FAILED, RunRecord, kept_pictures, read_record
from dgm_bench.report.curves import learning_curve, standalone
from dgm_bench.store import Store
from dgm_bench.tracking.address import LATER, Address, TrackingError, without_secrets
from dgm_bench.tracking.content import (
    Curve,
    curve_metrics,
    final_metrics,
    run_params,
    run_tags,
    span,
)
from dgm_bench.tracking.trouble import lost_request, not_mlflow, server_trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

T = TypeVar("T")

#: Marks a run of MLflow as logged by this project, and says which record it shows.
RUN_ID_TAG = "dgm_bench.run_id"
#: Set last: a run without it was interrupted while it was being logged.
LOGGED_TAG = "dgm_bench.logged"

# MLflow takes a thousand of all and a hundred parameters at a time. Of runs it could give more at
# a time, and would take longer for an answer.
METRICS_PER_BATCH, PARAMS_PER_BATCH, RUNS_PER_PAGE = 800, 100, 50
#: Seconds that another process may take to log its run; it may be making the tables of a database.
SERVER_LOCK_SECONDS, FILE_LOCK_SECONDS = 10.0, 30.0


class ExperimentError(DgmBenchError):
    """An experiment that takes no runs."""


class Log:
    """The runs of a results folder, in MLflow.

    Args:
        results: The results folder.
        address: Where MLflow is; this process stands in its folder, if it has one.
        alive: Called where something got done that can take long.
    """

    def __init__(
        self, results: Path, address: Address, alive: Callable[[], None] = lambda: None
    ) -> None:
        self.results, self.address, self.alive = results, address, alive
        self._store = Store(results)
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}
        self._complete: dict[str, set[str]] = {}

    def once(self, path: Path, *, many: bool = False) -> bool:
        """Log a stored run: parameters, metrics by step, tags, record, curve and pictures.

        A run that an earlier process left half-logged is removed and logged anew.

        Args:
            path: The file of the record.
            many: Whether more runs will follow, so that asking MLflow for all that it has is
                quicker than asking for each.

        Returns:
            Whether this call logged it; False when MLflow had it already.

        Raises:
            TrackingError: When MLflow is not installed or not to be had.
            DgmBenchError: When the record, its curve or its experiment cannot be used.
        """
        if many and self._has(path):
            return False
        record = read_record(path)
        try:
            return self._once(record, many)
        except DgmBenchError:
            raise
        except Exception as error:
            trouble = self.trouble()
            if trouble is None and self.address.is_server:
                trouble = lost_request(self.address, error)
            if trouble is None:
                raise
            raise trouble from error

    def _has(self, path: Path) -> bool:
        """Say whether MLflow has the run of a record in its place, by what it was asked before."""
        experiment = self._experiments.get("/".join(path.parts[-5:-3]), "")
        return path.stem in self._complete.get(experiment, ())

    def trouble(self) -> TrackingError | None:
        """Ask whether MLflow is well, and return what is wrong with it."""
        try:
            with self._locked():
                client = self._connected()
                if self.address.is_server:
                    return server_trouble(self.address)
                client.search_experiments(max_results=1)
        except TrackingError as error:
            return error
        except Exception as error:
            return TrackingError(self.address.shown, self._said(error), self._remedy())
        return None

    def _once(self, record: RunRecord, many: bool) -> bool:
        with self._locked():
            client = self._connected()
            name = f"{record.paper}/{record.table}"
            if not (many and name in self._experiments):
                self._experiments[name] = self._experiment(client, name)
            experiment = self._experiments[name]
            if many and record.run_id in self._listed(client, experiment):
                return False
            if has_in_full(client, experiment, record.run_id):
                return False
            return self._logged_once(client, experiment, record)

    def _logged_once(self, client: MlflowClient, experiment: str, record: RunRecord) -> bool:
        """Log a run; of two processes that do at once, of machines that share no lock, one wins.

        Each looks again when it is done, and both remove the same one; who finds its run removed by
        the other has nothing left to do.
        """
        try:
            log_run(client, experiment, record, self._store.curve(record), self.results)
        except Exception:
            with suppress(Exception):  # what is wrong is told of the first error
                if has_in_full(client, experiment, record.run_id):
                    return False
            raise
        return has_in_full(client, experiment, record.run_id)

    def _connected(self) -> MlflowClient:
        if self._client is None:
            try:
                from mlflow import MlflowClient
            except ImportError as error:
                remedy = f"{install('tracking')}, then {LATER}"
                raise TrackingError("MLflow", "is not installed", remedy) from error
            _make_database(self.address)
            self._client = MlflowClient(self.address.uri)
        return self._client

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time log to a database, and one of each results folder elsewhere.

        Two that made the tables of a new database at once would spoil it, and of two that log
        the same run neither would see the other's.
        """
        with ExitStack() as stack:
            try:
                patience = SERVER_LOCK_SECONDS if self.address.is_server else FILE_LOCK_SECONDS
                remedy = f"wait for it or end it; {LATER}"
                lock = holding(self._lock_file(), "another run is logged", remedy, patience)
                stack.enter_context(lock)
            except ResultsError as error:
                raise TrackingError(error.thing, error.reason, error.remedy) from error
            yield

    def _lock_file(self) -> Path:
        """Return the lock: beside a database's file or a folder, else among the results."""
        file = _local_file(self.address)
        if file is None:
            return self.results / "work" / "mlflow.lock"
        return file.with_name(f"{file.name}.lock")

    def _experiment(self, client: MlflowClient, name: str) -> str:
        """Return the id of the experiment, made where it does not exist."""
        found = client.get_experiment_by_name(name) or self._created(client, name)
        if not found.experiment_id:
            raise not_mlflow(self.address, "answers without saying anything")
        if found.lifecycle_stage != "active":
            remedy = self._restore(found.experiment_id)
            raise ExperimentError(f"MLflow experiment {name}", "is deleted", remedy)
        return str(found.experiment_id)

    def _created(self, client: MlflowClient, name: str) -> Experiment:
        database = self.address.is_database
        folder = (self.results.resolve() / "mlartifacts").as_uri() if database else None
        try:
            return client.get_experiment(client.create_experiment(name, artifact_location=folder))
        except Exception:
            # A process that logs other results may have been quicker.
            if (found := client.get_experiment_by_name(name)) is None:
                raise
            return found

    def _restore(self, experiment: str) -> str:
        """Return the command that brings an experiment back, without a password."""
        command = f"mlflow experiments restore --experiment-id {experiment}"
        if self.address.uri == self.address.shown or self.address.folder:
            command = f"MLFLOW_TRACKING_URI={shlex.quote(self.address.uri)} {command}"
        if self.address.folder:
            command = f"cd {shlex.quote(str(self.address.folder))} && {command}"
        return f"`{command}`, then `dgm-bench sync`"

    def _listed(self, client: MlflowClient, experiment: str) -> set[str]:
        """Return the runs that an experiment has in full, once each; asked for once."""
        if experiment not in self._complete:
            marks: dict[str, list[bool]] = {}
            for run in self._runs(client, experiment):
                if (run_id := run.data.tags.get(RUN_ID_TAG)) is not None:
                    marks.setdefault(run_id, []).append(LOGGED_TAG in run.data.tags)
            self._complete[experiment] = {run for run, full in marks.items() if full == [True]}
        return self._complete[experiment]

    def _runs(self, client: MlflowClient, experiment: str) -> Iterator[Run]:
        token = None
        while True:
            page = client.search_runs([experiment], max_results=RUNS_PER_PAGE, page_token=token)
            self.alive()
            yield from page
            token = page.token
            if not token:
                return

    def _remedy(self) -> str:
        if self.address.folder is not None:
            return "move that file away, then `dgm-bench sync` makes it anew from the records"
        return f"see what MLFLOW_TRACKING_URI names; {LATER}"

    def _said(self, error: Exception) -> str:
        """Return what an error says, without the statement that a database quotes."""
        return without_secrets(
            str(error).partition("[SQL:")[0] or type(error).__name__, self.address
        )


# --------------------------------------------------------------------------- one run


def has_in_full(client: MlflowClient, experiment: str, run_id: str) -> bool:
    """Say whether the run is logged to its end; remove what else there is of it.

    Args:
        client: Of MLflow.
        experiment: The experiment's id.
        run_id: Of the record.
    """
    found = client.search_runs([experiment], f"tags.`{RUN_ID_TAG}` = '{run_id}'")
    found = sorted(found, key=lambda run: (LOGGED_TAG not in run.data.tags, run.info.run_id))
    has = bool(found) and LOGGED_TAG in found[0].data.tags
    for run in found[has:]:  # a process that was stopped, or one of another machine, left it
        client.delete_run(run.info.run_id)
    return has


def log_run(
    client: MlflowClient, experiment: str, record: RunRecord, curve: Curve, results: Path
) -> None:
    """Log a run that is not there.

    Args:
        client: Of MLflow.
        experiment: The experiment's id.
        record: The run.
        curve: Its curve's rows.
        results: The results folder that it lies in.
    """
    started, ended = span(record)
    name = f"{record.row} {record.column} seed {record.seed}"
    tags = {RUN_ID_TAG: record.run_id}
    run = client.create_run(experiment, start_time=started, tags=tags, run_name=name)
    run_id = run.info.run_id
    _log_numbers(client, run_id, record, curve)
    _log_files(client, run_id, record, results)
    if curve:
        picture = standalone(learning_curve(curve, record))
        client.log_text(run_id, picture, "pictures/learning-curve.svg")
    status = "FAILED" if record.outcome.status in FAILED else "FINISHED"
    client.set_terminated(run_id, status=status, end_time=ended)
    client.set_tag(run_id, LOGGED_TAG, "yes")


def _log_numbers(client: MlflowClient, run_id: str, record: RunRecord, curve: Curve) -> None:
    from mlflow.entities import Param, RunTag

    tags = [RunTag(key, text) for key, text in run_tags(record).items()]
    params = [Param(key, text) for key, text in run_params(record).items()]
    numbers = [*final_metrics(record), *curve_metrics(record, curve)]
    batches = _chunks(params, PARAMS_PER_BATCH), _chunks(numbers, METRICS_PER_BATCH), [tags]
    for few, some, marks in zip_longest(*batches, fillvalue=()):
        client.log_batch(run_id, params=few, metrics=some, tags=marks)


def _log_files(client: MlflowClient, run_id: str, record: RunRecord, results: Path) -> None:
    path = record.path(results)
    for file in (path, path.with_suffix(".csv")):
        if file.exists():
            client.log_artifact(run_id, str(file), "record")
    for picture in kept_pictures(record, results):
        client.log_artifact(run_id, str(picture), "pictures")


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _make_database(address: Address) -> None:
    """Make a new SQLite database whole or not at all: MLflow has no use for half of its tables."""
    file = _local_file(address)
    if file is None or not address.is_database or (file.exists() and file.stat().st_size):
        return
    from mlflow import MlflowClient
    from sqlalchemy import make_url

    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    database = f"{make_url(address.uri).database}.new"
    url = make_url(address.uri).set(database=database).render_as_string(hide_password=False)
    MlflowClient(url)
    new.replace(file)


def _local_file(address: Address) -> Path | None:
    """Return the file or folder of this machine in which MLflow keeps its runs; None elsewhere."""
    scheme, separator, _ = address.uri.partition("://")
    if not separator or scheme == "file":
        return Path(
            url2pathname(urlsplit(address.uri).path) if separator else address.uri
        ).resolve()
    if scheme != "sqlite":
        return None
    from sqlalchemy import make_url

    name = make_url(address.uri).database
    return Path(name).resolve() if name and not name.startswith((":memory:", "file:")) else None
