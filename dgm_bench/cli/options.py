"""What verbs share: their options, and errors printed in one line with an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dgm_bench import paths
from dgm_bench.errors import DgmBenchError, UsageError, choose_from

Function = TypeVar("Function", bound=Callable[..., Any])


INTERRUPTED, BROKEN_PIPE = 130, 141


class Verbs(click.Group):
    """A group of verbs that prints every mistake in one line and exits with its code."""

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

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401  click's own signature
        """Run and exit: 2 with one line for a mistake, 130 for an interruption."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except DgmBenchError as error:
            code = _fail(str(error), error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = _fail(_in_one_line(error), 2)
        except (click.Abort, KeyboardInterrupt):
            code = _fail("interrupted", INTERRUPTED, "")
        except SystemExit:  # how click and rich answer a closed pipe
            code = BROKEN_PIPE
        sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str, code: int, prefix: str = "error: ") -> int:
    click.echo(f"{prefix}{text}", err=True)
    return code


def _in_one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text}; see {context.command_path} --help" if context else text


# --------------------------------------------------------------------------- shared options


def results_option(function: Function) -> Function:
    """Add ``--results``."""
    return click.option(
        "--results",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        default=paths.default_results,
        show_default="results/ of the checkout, else of the current folder",
        help="Folder of the stored records.",
    )(function)


def data_root_option(function: Function) -> Function:
    """Add ``--data-root``."""
    return click.option(
        "--data-root",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        default=_default_data_root,
        show_default="$DGM_BENCH_DATA, else the platform's cache folder",
        help="Folder of the data sets.",
    )(function)


def _default_data_root() -> Path:
    from dgm_bench import data

    return data.default_root()


def planning_options(function: Function) -> Function:
    """Add ``--seeds``, ``--budget`` and ``--device``."""
    for option in (
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            show_default=True,
            help="Where to compute.",
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
            "--seeds",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Runs of each recipe, with seeds 0, 1, ...",
        ),
    ):
        function = option(function)
    return function


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def examples(*lines: str) -> str:
    """Return the examples at the end of a help page, line by line as they are."""
    # \b on a line of its own keeps click from filling the paragraph.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def print_json(value: object) -> None:
    """Print JSON on stdout; nothing else goes there."""
    click.echo(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False))
