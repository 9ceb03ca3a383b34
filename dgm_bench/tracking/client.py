"""MLflow's side: runs as they go on and end, each once; used in the process that logs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dgm_bench.errors import DgmBenchError, ResultsError
from dgm_bench.extras import install
from dgm_bench.locks import holding
from dgm_bench.records import Data, RunRecord, read_record
from dgm_bench.store import Store
from dgm_bench.tracking.address import LATER, Address, TrackingError, without_secrets
from dgm_bench.tracking.begun import Begun, Told, experiment_of, group_of
from dgm_bench.tracking.content import as_metrics, data_inputs, live_points
from dgm_bench.tracking.groups import GROUP_TAG, Groups, summaries
from dgm_bench.tracking.runs import (
    PARENT_TAG,
    RUN_ID_TAG,
    begin_run,
    is_whole,
    log_metrics,
    log_run,
    the_run,
)
from dgm_bench.tracking.trouble import lost_request, not_mlflow, server_trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

#: How many runs are asked for at a time: MLflow could give more, and would take longer.
RUNS_PER_PAGE = 50
#: Seconds that another process may take to log its run; it may be making the tables of a database.
SERVER_LOCK_SECONDS, FILE_LOCK_SECONDS = 10.0, 30.0
#: Lets MLflow show an experiment as one of model training, with its charts.
_KIND = {"mlflow.experimentKind": "custom_model_development"}


class ExperimentError(DgmBenchError):
    """An experiment that takes no runs."""


@dataclass
class _UnderWay:
    """A run that is shown while it goes on.

    Attributes:
        begun: What is known of it.
        id: MLflow's.
        started: When it began, in milliseconds since 1970; it may have been interrupted since.
        last: The last step of each metric that MLflow has.
    """

    begun: Begun
    id: str
    started: int
    last: dict[str, int] = field(default_factory=dict)

    def new(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Return what comes after all that was logged before, each step once."""
        last, found = dict(self.last), []
        for metric in metrics:
            if metric.step > last.get(metric.key, -1):
                last[metric.key] = metric.step
                found.append(metric)
        return found

    def log(self, client: MlflowClient, metrics: Sequence[Metric]) -> None:
        """Log what is new of these."""
        new = self.new(metrics)
        log_metrics(client, self.id, new)
        self.last |= {metric.key: metric.step for metric in new}


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
        self._under_way: dict[str, _UnderWay] = {}
        self._unsettled: set[str] = set()

    def once(self, path: Path, *, many: bool = False) -> bool:
        """Log a stored run: parameters, metrics by step, tags, data, record, curve and pictures.

        Of a run that MLflow has in part, because it was shown while it went on, an earlier process
        left it, or its layout is an earlier one, only what is missing is logged.

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
        paper, table, column, row = path.parts[-5:-1]
        self._unsettled.add(f"{paper}/{table}/{row}/{column}")
        if many and self._has(path):
            return False
        record = read_record(path)
        with self._told_apart(), self._locked():
            new = self._once(record, many)
        self._under_way.pop(record.run_id, None)
        return new

    def settle(self, *, many: bool = False) -> None:
        """Bring the runs of those cells up to date whose records were logged, or looked for.

        Args:
            many: As for :meth:`once`: whether the records are those that there were before.

        Raises:
            TrackingError: As :meth:`once`.
        """
        store = self._store if many else Store(self.results)
        groups, busy = set(self._unsettled), {group_of(run.begun) for run in self._busy}
        if groups:
            with self._told_apart(), self._locked():
                self._connected()
                self._groups.settle(list(summaries(store, groups)), busy)
        self._unsettled -= groups

    # ---------------------------------------------------------------- runs under way

    def live(self, begun: Begun, told: Sequence[Told], data: Data | None) -> None:
        """Show a run while it goes on: its parameters and tags at first, and its newest numbers.

        Args:
            begun: The run.
            told: What is to be logged now; of that, what comes after all that there is.
            data: What it is trained on, when that is told.

        Raises:
            Exception: MLflow does not take it; nothing is lost by that.
        """
        client = self._connected()
        with ExitStack() as stack:
            if begun.run_id not in self._under_way or not self.address.is_server:
                stack.enter_context(self._locked())
            run = self._shown(begun)
            try:
                run.log(client, as_metrics([point for rows in told for point in live_points(rows)]))
                if data is not None:
                    client.log_inputs(run.id, data_inputs(data))
            except Exception:  # somebody may have deleted it: it is looked for again
                del self._under_way[begun.run_id]
                raise

    def measured(self, numbers: Mapping[str, float]) -> None:
        """Log what was measured of this machine with each run that is under way."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for run in self._busy:
            step = max(now - run.started, 0) // 1000
            metrics = [Metric(f"system/{key}", value, now, step) for key, value in numbers.items()]
            run.log(self._connected(), metrics)

    def leave(self) -> None:
        """Say of the runs under way, and of their cells, that they have stopped for now."""
        for run in self._busy:
            parent = self._groups.id_of(self._experiments[experiment_of(run.begun)], run.begun)
            for run_id in (run.id, parent):
                self._connected().update_run(run_id, status="KILLED")

    @property
    def _busy(self) -> Collection[_UnderWay]:
        return self._under_way.values()

    def _shown(self, begun: Begun) -> _UnderWay:
        """Return MLflow's run of one under way; where it is new here, with what MLflow has of it.

        It may have been shown by a process that was interrupted; it goes on from a checkpoint then.
        """
        if (known := self._under_way.get(begun.run_id)) is not None:
            return known
        client, experiment = self._connected(), self._experiment_of(begun, many=False)
        parent = self._groups.begin(experiment, begun)
        run = begin_run(client, experiment, parent, begun)
        shown = _UnderWay(begun, run.info.run_id, run.info.start_time)
        for key in run.data.metrics:
            history = client.get_metric_history(shown.id, key)
            shown.last[key] = max(metric.step for metric in history)
        self._under_way[begun.run_id] = shown
        return shown

    # ---------------------------------------------------------------- stored runs

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

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Tell an MLflow that is not well from one that refuses something."""
        try:
            yield
        except DgmBenchError:
            raise
        except Exception as error:
            trouble = self.trouble()
            if trouble is None and self.address.is_server:
                trouble = lost_request(self.address, error)
            if trouble is None:
                raise
            raise trouble from error

    def _once(self, record: RunRecord, many: bool) -> bool:
        client, experiment = self._connected(), self._experiment_of(record, many)
        if many and record.run_id in self._listed(client, experiment):
            return False
        parent = self._groups.id_of(experiment, record)
        if has_in_full(client, experiment, parent, record.run_id):
            return False
        return self._logged_once(client, experiment, parent, record)

    def _logged_once(
        self, client: MlflowClient, experiment: str, parent: str, record: RunRecord
    ) -> bool:
        """Log a run; of two processes that do at once, of machines that share no lock, one wins.

        Each looks again when it is done, and both remove the same one; who finds its run removed by
        the other has nothing left to do.
        """
        try:
            curve = self._store.curve(record)
            log_run(client, experiment, parent, record, curve, self.results, self.alive)
        except Exception:
            with suppress(Exception):  # what is wrong is told of the first error
                if has_in_full(client, experiment, parent, record.run_id):
                    return False
            raise
        return has_in_full(client, experiment, parent, record.run_id)

    # ---------------------------------------------------------------- MLflow itself

    def _connected(self) -> MlflowClient:
        if self._client is None:
            _require_mlflow()
            from mlflow import MlflowClient

            _make_database(self.address)
            self._client = MlflowClient(self.address.uri)
        return self._client

    @cached_property
    def _groups(self) -> Groups:
        return Groups(self._connected())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time log to a database, and one of each results folder elsewhere.

        Two that made the tables of a new database at once would spoil it, and of two that log
        the same run neither would see the other's.
        """
        _require_mlflow()  # and with it what reads addresses of databases
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

    def _experiment_of(self, run: Begun | RunRecord, many: bool) -> str:
        """Return the id of a run's experiment; of many it is asked for once."""
        name = experiment_of(run)
        if not (many and name in self._experiments):
            self._experiments[name] = self._experiment(self._connected(), name)
        return self._experiments[name]

    def _experiment(self, client: MlflowClient, name: str) -> str:
        """Return the id of the experiment, made where it does not exist."""
        found = client.get_experiment_by_name(name) or self._created(client, name)
        if not found.experiment_id:
            raise not_mlflow(self.address, "answers without saying anything")
        if found.lifecycle_stage != "active":
            remedy = self._restore(found.experiment_id)
            raise ExperimentError(f"MLflow experiment {name}", "is deleted", remedy)
        for key, value in _KIND.items():
            if key not in found.tags:  # somebody may have chosen another
                client.set_experiment_tag(found.experiment_id, key, value)
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
            parents: dict[str, str] = {}
            marks: dict[str, list[str]] = {}
            for run in self._runs(client, experiment):
                tags = run.data.tags
                if (group := tags.get(GROUP_TAG)) is not None:
                    parents[run.info.run_id] = group
                elif (run_id := tags.get(RUN_ID_TAG)) is not None:
                    place = tags.get(PARENT_TAG, "") if is_whole(run) else ""
                    marks.setdefault(run_id, []).append(place)
            self._groups.know(parents)
            self._complete[experiment] = {
                run_id
                for run_id, (first, *others) in marks.items()
                if first in parents and not others
            }
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


def has_in_full(client: MlflowClient, experiment: str, parent: str, run_id: str) -> bool:
    """Say whether a run is logged to its end, below the run of its cell.

    Args:
        client: Of MLflow.
        experiment: The experiment's id.
        parent: The id of the run of its cell.
        run_id: Of the record.
    """
    run = the_run(client, experiment, run_id)
    return run is not None and is_whole(run) and run.data.tags.get(PARENT_TAG) == parent


def _require_mlflow() -> None:
    """Tell how to install MLflow where it is not.

    Raises:
        TrackingError: It is not.
    """
    if find_spec("mlflow") is None:
        remedy = f"{install('tracking')}, then {LATER}"
        raise TrackingError("MLflow", "is not installed", remedy)


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
