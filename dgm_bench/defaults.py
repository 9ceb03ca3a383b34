"""The section ``[defaults]`` of ``dgm-bench.toml``, and how every verb comes by it.

What an option says counts most, then the environment, the file of the working directory, that of
the user's folder, and what is built in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dgm_bench import paths
from dgm_bench.config import in_files
from dgm_bench.errors import UsageError
from dgm_bench.planner import parse_budget
from dgm_bench.spec import Spec


def _budget(value: object) -> object:
    """Return a budget as it is written, once it is known to mean something."""
    if isinstance(value, str):
        try:
            parse_budget(value)
        except UsageError as error:
            raise ValueError(f"{error.reason}: {error.remedy}") from error
    return value


Count = Annotated[int, Field(ge=1, le=1024)]


class Defaults(Spec):
    """What options are where the command line does not say; None for what is built in."""

    data_root: str | None = Field(None, description="Folder of the data sets.")
    results: str | None = Field(None, description="Folder of your results, or its address.")
    stored: str | None = Field(None, description="Folder of results to show beside yours, or none.")
    work: str | None = Field(None, description="Folder of checkpoints, on a fast disk.")
    engine: Literal["local", "slurm", "ray"] | None = Field(
        None, description="Where runs are executed: local, slurm or ray."
    )
    jobs: Literal["auto"] | Count | None = Field(
        None, description="Runs at once on this machine, or auto."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] | None = Field(
        None, description="Where to compute: auto, cpu, cuda or mps."
    )
    threads: Count | None = Field(None, description="CPU threads of a run.")
    budget: Annotated[str, BeforeValidator(_budget)] | None = Field(
        None, description="For all runs together: 90s, 10m, 2h, none, or auto."
    )
    seeds: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Runs of each recipe."
    )
    offline: bool | None = Field(None, description="Whether nothing is downloaded.")
    tracking: bool | None = Field(None, description="Whether runs are logged to a tracker.")
    tracker: Literal["mlflow", "tensorboard", "wandb", "none"] | None = Field(
        None, description="Which shows runs: mlflow, tensorboard, wandb or none."
    )
    tracking_uri: str | None = Field(None, description="Where MLflow keeps them.")


#: Keys that the environment may say too. Processes that a command starts read it there.
VARIABLES: Mapping[str, str] = {
    "data_root": "DGM_BENCH_DATA",
    "results": paths.RESULTS,
    "stored": paths.STORED,
    "work": paths.SCRATCH,
    "jobs": "DGM_BENCH_JOBS",
    "tracking_uri": "MLFLOW_TRACKING_URI",
}
FOLDERS = ("data_root", "results", "stored", "work")


@dataclass(frozen=True)
class Setting:
    """A default that is not the built-in one.

    Attributes:
        value: As TOML has it; a folder as its whole path.
        origin: Where it is from: ``$VARIABLE``, or the path of a file.
    """

    value: object
    origin: str


def settings() -> dict[str, Setting]:
    """Return what the environment and the user's files say, by key.

    Raises:
        DeclarationError: A file is broken or has a key that is not known; names the line.
    """
    found = {
        key: Setting(_whole(value, path) if key in FOLDERS else value, str(path))
        for key, (value, path) in in_files("defaults", Defaults).items()
    }
    for key, variable in VARIABLES.items():
        if text := os.environ.get(variable):
            found[key] = Setting(text, f"${variable}")
    return found


def _whole(value: object, file: Path) -> str:
    """Return the path of a folder that a file names, as seen from that file."""
    text = str(value)
    if text == "none" or paths.is_address(text):
        return text
    try:
        return str(file.parent / Path(text).expanduser())
    except RuntimeError as error:
        remedy = "write the whole path"
        raise UsageError(f"{file}: {text}", "there is no such home folder", remedy) from error


def use() -> dict[str, object]:
    """Set the variables that the user's files say, and return the other defaults by option.

    Raises:
        DeclarationError: As :func:`settings` does.
    """
    if not paths.config_files():
        return {}
    return dict(_used(settings()))


def _used(found: Mapping[str, Setting]) -> Iterator[tuple[str, object]]:
    for key, setting in found.items():
        if key in VARIABLES:
            os.environ[VARIABLES[key]] = str(setting.value)
        elif key == "tracking":
            yield "no_tracking", not setting.value
        else:
            yield key, setting.value
