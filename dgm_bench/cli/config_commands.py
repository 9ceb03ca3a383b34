"""The verb ``config``: a user's defaults, where each is from, and setting them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dgm_bench import paths
from dgm_bench.cli import streams
from dgm_bench.cli.options import Verbs, default_data_root, examples, json_option, print_json
from dgm_bench.errors import DgmBenchError, UsageError, choose_from, reading, shortened

if TYPE_CHECKING:
    from dgm_bench.spec import Spec

BUILT_IN = "built in"
#: What holds where a default has no value.
_WITHOUT = {
    "work": "work/ of the results",
    "threads": "as many as torch takes",
    "tracking_uri": "a SQLite file beside the results",
}
here_option = click.option(
    "--here", is_flag=True, help="The file of the working directory, not that of your folder."
)


@click.group(cls=Verbs, short_help="Your defaults, and where each is from.")
def config() -> None:
    """Show and set defaults: data root, results, engine, budget and others.

    They stand in dgm-bench.toml of the working directory, or of your folder of configurations. An
    option counts most, then the environment, these two files, and what is built in.
    """


@config.command(
    "show",
    short_help="Each default, and where it is from.",
    epilog=examples("dgm-bench config show", "dgm-bench config show --json"),
)
@json_option
def config_show(as_json: bool) -> None:
    """Print each default, and where it is from."""
    from dgm_bench import console

    rows = _defaults() | _of_engines()
    if as_json:
        print_json({key: {"value": value, "from": where} for key, (value, where) in rows.items()})
        return
    table = console.new_table("key", "value", "from")
    for key, (value, where) in rows.items():
        table.add_row(key, _WITHOUT[key] if value is None else _in_words(value), where)
    screen = console.make_console()
    screen.print(table)
    screen.print()
    for path, state in _places():
        screen.print(f"{path}: {state}", soft_wrap=True)


def _in_words(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _defaults() -> dict[str, tuple[object, str]]:
    """Return all defaults by their keys, each with where it is from."""
    from dgm_bench.defaults import Defaults, settings

    found, built_in = settings(), _built_in()
    rows: dict[str, tuple[object, str]] = {key: (built_in[key], BUILT_IN) for key in built_in}
    rows |= {key: (setting.value, setting.origin) for key, setting in found.items()}
    return {key: rows[key] for key in Defaults.model_fields}


def _built_in() -> Mapping[str, object]:
    """Return what holds where nobody says anything."""
    from dgm_bench.defaults import VARIABLES

    return {
        **dict.fromkeys(VARIABLES),
        "data_root": str(default_data_root()),
        "results": str(paths.own_results()),
        "stored": str(paths.stored_results() or "none"),
        "engine": "local",
        "jobs": "auto",
        "device": "auto",
        "threads": None,
        "budget": "auto",
        "seeds": 1,
        "offline": False,
        "tracking": True,
        "tracker": "mlflow",
    }


def _of_engines() -> dict[str, tuple[object, str]]:
    """Return what the files say of engines, by section and key."""
    from dgm_bench.config import in_files

    found: dict[str, tuple[object, str]] = {}
    for name, kind in _kinds().items():
        if name != "defaults":
            said = in_files(name, kind).items()
            found |= {f"{name}.{key}": (value, str(path)) for key, (value, path) in said}
    return found


def _kinds() -> dict[str, type[Spec]]:
    """Return what each section may hold."""
    from dgm_bench.defaults import Defaults
    from dgm_bench.engines.ray_options import RayOptions
    from dgm_bench.engines.slurm_nodes import SlurmOptions

    return {"defaults": Defaults, "slurm": SlurmOptions, "ray": RayOptions}


def _places() -> list[tuple[Path, str]]:
    return [(path, "read" if path.is_file() else "not there") for path in paths.config_places()]


@config.command("path", short_help="Where the files are.", epilog=examples("dgm-bench config path"))
def config_path() -> None:
    """Print where files of defaults are looked for, the one first that counts more."""
    for path, state in _places():
        streams.say(f"{path}: {state}")


@config.command(
    "init",
    short_help="Write a file to fill in.",
    epilog=examples("dgm-bench config init", "dgm-bench config init --here"),
)
@here_option
def config_init(here: bool) -> None:
    """Write a file in which every default is explained, and none is set."""
    from dgm_bench.config_text import new_text

    path = _file(here)
    if path.exists():
        raise UsageError(path, "is there already", "change it by dgm-bench config set KEY VALUE")
    _write(path, new_text())
    streams.say(f"wrote {path}: take the # from what you want to set")


@config.command(
    "set",
    short_help="Set a default.",
    epilog=examples(
        "dgm-bench config set data_root ~/data",
        "dgm-bench config set budget 2h --here",
        "dgm-bench config set slurm.partition gpu",
    ),
)
@click.argument("key")
@click.argument("value")
@here_option
def config_set(key: str, value: str, here: bool) -> None:
    """Set a default in your file of defaults; what else stands there is kept.

    KEY is one that config show lists, or of the section of an engine: slurm.partition.
    """
    from dgm_bench.config_text import with_value

    section, name = _known(key)
    typed = _checked(section, name, value if here else _from_anywhere(name, value))
    path, text = _file(here), ""
    if path.exists():
        with reading(path, UsageError):
            text = path.read_text(encoding="utf-8")
    changed = with_value(text, section, name, typed)
    if _said(changed).get(section, {}).get(name) != typed:
        reason = f"has {key} in a form that is not changed here"
        raise UsageError(path, reason, "change it by hand")
    _write(path, changed)
    streams.say(f"{key} = {_in_words(typed)} in {path}")


def _known(key: str) -> tuple[str, str]:
    """Return the section of a key, and its name there.

    Raises:
        UsageError: There is none of that name.
    """
    fields = {
        f"{name}.{field}".removeprefix("defaults."): (name, field)
        for name, kind in _kinds().items()
        for field in kind.model_fields
    }
    plain = key.removeprefix("defaults.")
    if plain not in fields:
        raise UsageError(shortened(key), "no such default", choose_from(plain, fields))
    return fields[plain]


def _checked(section: str, name: str, text: str) -> Any:  # noqa: ANN401  as TOML has it
    """Return the value that a text means, as a file holds it: as TOML, or as it is.

    Raises:
        UsageError: It does not fit.
    """
    from pydantic import ValidationError

    from dgm_bench.config import as_toml

    kind, reason = _kinds()[section], ""
    for value in (as_toml(text), text):
        try:
            kind.model_validate({name: value})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        else:
            return value
    words = kind.model_fields[name].description or "see dgm-bench run --help"
    raise UsageError(f"{name} {shortened(text)}", reason, f"what it takes: {words}")


def _from_anywhere(key: str, text: str) -> str:
    """Return a folder as it is called from everywhere: a file's own place would count else."""
    from dgm_bench.defaults import FOLDERS

    whole = key not in FOLDERS or text == "none" or text.startswith("~") or paths.is_address(text)
    return text if whole else str(Path(text).absolute())


def _said(text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _file(here: bool) -> Path:
    return paths.config_places()[not here]


def _write(path: Path, text: str) -> None:
    from dgm_bench.sealed import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise DgmBenchError(path, reason, "make its folder writable, or add --here") from error
