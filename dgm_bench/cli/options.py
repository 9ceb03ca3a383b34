"""What verbs share: their options, and errors printed in one line with an exit code."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dgm_bench import paths
from dgm_bench.cli import streams
from dgm_bench.cli.faults import unexpected
from dgm_bench.errors import (
    DgmBenchError,
    OutputError,
    UsageError,
    choose_from,
    explained,
    shortened,
)
from dgm_bench.escaping import one_line, shown
from dgm_bench.screen import has_all_marks

Function = TypeVar("Function", bound=Callable[..., Any])
T = TypeVar("T")


INTERRUPTED, BROKEN_PIPE = 130, 141
#: Is set where a shell asks how a word goes on.
COMPLETE = "_DGM_BENCH_COMPLETE"
#: Allocations between two searches for garbage, and how many of them come before a wider one.
_SELDOM = 500_000, 20, 100
#: More runs of a recipe than anyone can want: a plan lists each.
MOST_SEEDS = 1000
#: More processes than any machine runs, and more jobs than a cluster starts for one person.
MOST_JOBS = 1024
ENGINES = ("local", "slurm", "ray")


class Verbs(click.Group):
    """A group of verbs that prints every mistake in one line and exits with its code.

    Attributes:
        verbose: Whether what ended the command is shown with its place in the code.
        quiet: Whether progress and warnings are left out.
    """

    verbose, quiet = False, False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which people use them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a verb; suggest one where there is none of that name."""
        name = args[0]
        if not name.startswith("-") and name not in self.commands:
            remedy = choose_from(name, self.commands)
            raise UsageError(name, f"no such verb of {ctx.command_path}", remedy)
        return super().resolve_command(ctx, args)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a verb, which takes ``-v`` and ``-q`` too."""
        takes = {param.name for param in cmd.params}
        cmd.params += [verbose_option(), *([] if "quiet" in takes else [quiet_option()])]
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb; click would take the end of a file for an interruption."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise unexpected(error) from error
        except ModuleNotFoundError:
            from dgm_bench.extras import needing

            with needing(f"{ctx.command_path} {ctx.invoked_subcommand}"):
                raise

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401  click's own signature
        """Run and exit: 2 with one line for a mistake, 3 for a fault, 130 for an interruption."""
        extra["standalone_mode"] = False
        if COMPLETE in os.environ:
            super().main(*args, **{**extra, "complete_var": COMPLETE})
        self.verbose = self.quiet = False
        try:
            os.getcwd()  # libraries die without a word where the current folder is gone
            code = super().main(*args, **extra)
            streams.finish()
        except BaseException as error:
            code = self._told(error)
        logging.getLogger("dgm_bench").setLevel(logging.NOTSET)  # for whoever called it from Python
        sys.exit(code if isinstance(code, int) else 0)

    def _told(self, error: BaseException) -> int:
        """Tell what ended the command, in one line, and return its exit code."""
        if isinstance(error, (BrokenPipeError, SystemExit)):  # a SystemExit is click's
            streams.discard()
            return BROKEN_PIPE
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            return error.exit_code
        if self.verbose:
            traceback.print_exception(error)
        if isinstance(error, (click.Abort, KeyboardInterrupt)):
            streams.tell("interrupted")
            return INTERRUPTED
        if isinstance(error, click.ClickException):
            streams.tell(f"error: {_in_one_line(error)}")
            return 2
        known = _explained(error)
        if isinstance(known, OutputError):
            streams.discard()
        streams.tell(f"error: {known}")
        return known.exit_code


def _explained(error: BaseException) -> DgmBenchError:
    if isinstance(error, DgmBenchError):
        return error
    return (explained(error) if isinstance(error, OSError) else None) or unexpected(error)


def root_of(context: click.Context) -> Verbs:
    """Return the command line that a verb is of."""
    root = context.find_root().command
    return root if isinstance(root, Verbs) else Verbs()


def verbose_option() -> click.Option:
    """Return ``-v``, which every verb takes."""

    def listen(context: click.Context, _: click.Parameter, value: bool) -> None:
        root_of(context).verbose |= value

    return _flag("--verbose", "Show where in the code an error is from.", listen)


def quiet_option() -> click.Option:
    """Return ``-q``, which every verb takes."""

    def listen(context: click.Context, _: click.Parameter, value: bool) -> None:
        root_of(context).quiet |= value
        if value:
            logging.getLogger("dgm_bench").setLevel(logging.ERROR)

    words = "Say nothing but the answer and errors: no progress, no warnings."
    return _flag("--quiet", words, listen)


def _flag(
    name: str, words: str, listen: Callable[[click.Context, click.Parameter, bool], None]
) -> click.Option:
    """Return an option that no verb is given: it is heard before the verb begins."""
    return click.Option(
        [name[1:3], name],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=listen,
        help=words,
    )


def _in_one_line(error: click.ClickException) -> str:
    text = one_line(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text}; see {context.command_path} --help" if context else text


# --------------------------------------------------------------------------- shared options


class ResultsFolder(click.Path):
    """A results folder, or an address of one: what is there is fetched into the user's cache.

    Args:
        read: The verb reads it only; else what it leaves is put there when it ends.
        weights: Weights of models are wanted too.
    """

    def __init__(self, *, read: bool, weights: bool = False, file_okay: bool = False) -> None:
        super().__init__(file_okay=file_okay, path_type=Path)
        self._read, self._weights = read, weights

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401  click's own signature
        """Return the folder."""
        text = os.fspath(value)
        if not paths.is_address(text):
            return super().convert(_without_scheme(text), param, ctx)
        from dgm_bench.remote import Remote

        remote = Remote(text)
        if ctx is not None and not self._read:
            ctx.call_on_close(remote.put)
        return remote.fetch(weights=self._weights)


def _without_scheme(text: str) -> str:
    if not text.startswith("file://"):
        return text
    from urllib.parse import urlsplit
    from urllib.request import url2pathname  # it is slow to import

    return url2pathname(urlsplit(text).path)


def results_option(*, read: bool = False) -> Callable[[Function], Function]:
    """Add ``--results``.

    Args:
        read: The verb reads it only: one that is named has to be there.
    """
    return click.option(
        "--results",
        metavar="DIR",
        type=ResultsFolder(read=read),
        default=paths.own_results,
        show_default="$DGM_BENCH_RESULTS, else dgm-results in the current folder",
        callback=_require_there if read else None,
        help="Folder of your results, or an address such as s3://bucket/results.",
    )


class StoredFolder(ResultsFolder):
    """A results folder that is only read, or ``none``."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401  click's own signature
        """Return the folder; None for ``none``."""
        return None if os.fspath(value) == "none" else super().convert(value, param, ctx)


def stored_option(function: Function) -> Function:
    """Add ``--stored``."""
    return click.option(
        "--stored",
        metavar="DIR",
        type=StoredFolder(read=True),
        default=paths.stored_results,
        callback=_require_there,
        show_default="$DGM_BENCH_STORED, else those that came with the suite",
        help="Folder of results to show beside yours, or none.",
    )(function)


def _require_there(
    context: click.Context, option: click.Parameter, folder: Path | None
) -> Path | None:
    """Return a folder; one that was typed has to be there, as nothing but its results is shown."""
    source = context.get_parameter_source(option.name or "")
    if folder and source is click.core.ParameterSource.COMMANDLINE and not folder.exists():
        remedy = f"name one that is there, or leave out {option.opts[0]}"
        raise UsageError(shown(folder), "no such results folder", remedy)
    return folder


def work_option(function: Function) -> Function:
    """Add ``--work``, which is for all processes of the command: it sets the variable."""

    def listen(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
        if folder is not None:
            os.environ[paths.SCRATCH] = str(folder.absolute())

    return click.option(
        "--work",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        show_default="$DGM_BENCH_WORK, else work/ of the results",
        expose_value=False,
        callback=listen,
        help="Folder of checkpoints, on a fast disk of this machine.",
    )(function)


def data_root_option(function: Function) -> Function:
    """Add ``--data-root``."""
    return click.option(
        "--data-root",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_data_root,
        show_default="$DGM_BENCH_DATA, else the platform's cache folder",
        help="Folder of the data sets.",
    )(function)


def default_data_root() -> Path:
    """Return where data sets are looked for where nobody says."""
    from dgm_bench import data

    return data.default_root()


def planning_options(function: Function) -> Function:
    """Add ``--seeds``, ``--missing``, ``--budget`` and ``--device``."""
    for option in (
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda", "mps"]),
            default="auto",
            show_default=True,
            help="Where to compute; on mps, an Apple GPU, a model is compared with the CPU first.",
        ),
        click.option(
            "--budget",
            default="auto",
            show_default=True,
            metavar="TIME",
            help="For all runs together: 90s, 10m, 2h, none, or auto "
            "(10m without a GPU, none with one).",
        ),
        click.option(
            "--missing",
            is_flag=True,
            help="Only seeds of which no complete run is here, yours or stored.",
        ),
        click.option(
            "--seeds",
            type=click.IntRange(min=1, max=MOST_SEEDS),
            default=1,
            show_default=True,
            metavar="N",
            help="Runs of each recipe, with seeds 0, 1, ...",
        ),
    ):
        function = option(function)
    return function


def _number_of_jobs(
    context: click.Context, option: click.Parameter, text: str | None
) -> int | None:
    """Return the number that ``--jobs`` says; None for ``auto``."""
    if text in (None, "auto"):
        return None
    if text.isdecimal() and 1 <= int(text[:9]) <= MOST_JOBS:
        return int(text)
    message = f"{shortened(text)} is not auto, or a number from 1 to {MOST_JOBS}"
    raise click.BadParameter(message, context, option)


def jobs_option(function: Function) -> Function:
    """Add ``--jobs``, which is None for ``auto``."""
    return click.option(
        "--jobs",
        default="auto",
        metavar="N",
        envvar="DGM_BENCH_JOBS",
        callback=_number_of_jobs,
        show_default="auto: a process a core, or what fits on the GPUs, where several runs gain "
        "by it; on a cluster, what it has room for",
        help="Runs at once.",
    )(function)


def fleet_options(function: Function) -> Function:
    """Add ``--on`` and what it takes."""
    for option in (
        click.option(
            "--price",
            type=click.FloatRange(min=0),
            metavar="NUMBER",
            show_default="2, of a core 0.05: round figures",
            help="With --on: of a GPU for an hour.",
        ),
        _time_option("--restart", "5m", "from an interruption until a run goes on"),
        _time_option("--preempt-every", "24h", "mean time until a machine is taken away, or none"),
        _time_option("--mtbf", "50677h", "mean time between failures of a GPU, or none"),
        click.option(
            "--on",
            metavar="MACHINE",
            help="What it would take elsewhere, by data sheets: 8xh200, 4xa100, 2xcpu, ...",
        ),
    ):
        function = option(function)
    return function


def _time_option(name: str, default: str, what: str) -> Callable[[Function], Function]:
    return click.option(
        name, metavar="TIME", default=default, show_default=True, help=f"With --on: {what}."
    )


def engine_options(function: Function) -> Function:
    """Add ``--engine`` and what it takes."""
    for option in (
        click.option(
            "--engine-option",
            "engine_settings",
            multiple=True,
            metavar="KEY=VALUE",
            callback=_settings,
            help="Of Slurm or Ray, such as account=physics or time=4h; counts more than "
            "dgm-bench.toml.",
        ),
        click.option("--address", metavar="ADDRESS", help="Of a Ray cluster."),
        click.option("--partition", metavar="NAME", help="Of Slurm."),
        jobs_option,
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default="local",
            show_default=True,
            help="Where runs are executed: processes of this machine, Slurm, or Ray.",
        ),
    ):
        function = option(function)
    return function


def _settings(
    context: click.Context, option: click.Parameter, texts: Sequence[str]
) -> dict[str, str]:
    return dict(setting(option.opts[0], text) for text in texts)


def setting(option: str, text: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``.

    Raises:
        UsageError: It is none.
    """
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        example = "optimizer.lr=1e-4" if option == "--set" else "account=physics"
        raise UsageError(f"{option} {text}", "no key=value", f"write {option} {example}")
    return key.strip(), value.strip()


def typed(name: str, value: T) -> T | None:
    """Return an option's value where it was typed, and is not of the environment or a default."""
    source = click.get_current_context().get_parameter_source(name)
    return value if source is click.core.ParameterSource.COMMANDLINE else None


strict_option = click.option(
    "--strict", is_flag=True, help="A file in place of a record that is none is an error: for CI."
)
tracker_option = click.option(
    "--tracker",
    type=click.Choice(["mlflow", "tensorboard", "wandb", "none"]),
    default="mlflow",
    show_default=True,
    help="Where runs are shown while they train, and kept.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Look for garbage seldom in a verb that only reads: nearly all that it makes is kept."""
    before = gc.get_threshold()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def examples(*lines: str) -> str:
    """Return the examples at the end of a help page, line by line as they are."""
    # \b on a line of its own keeps click from filling the paragraph.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def print_json(value: object) -> None:
    """Print JSON on stdout; nothing else goes there."""
    ascii_only = not has_all_marks()
    streams.show(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=ascii_only))
