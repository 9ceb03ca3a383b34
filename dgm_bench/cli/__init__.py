"""The command line: ``dgm-bench`` and its verbs.

Options and output only; the work is done by the modules it calls. Every verb imports what it
needs when it is called, so that those that only read declarations and records start fast.
"""

from __future__ import annotations

import gc

import click

from dgm_bench import __version__, paths
from dgm_bench.cli import (
    cite_command,
    compare_command,
    completion,
    config_commands,
    data_commands,
    diff_command,
    export_command,
    merge_command,
    model_commands,
    read_commands,
    run_commands,
    show_command,
    status_commands,
    streams,
)
from dgm_bench.cli.options import Verbs, examples, quiet_option, verbose_option
from dgm_bench.control import end_at_once_if_left


@click.group(
    "dgm-bench",
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "dgm-bench plan 'ffjord/*'",
        "dgm-bench run 'ffjord/density/*/digits'",
        "dgm-bench run ffjord/density/maf-5/bsds300-patches --budget 2h --seeds 3",
        "dgm-bench table ffjord/density",
    ),
)
@click.version_option(__version__, prog_name="dgm-bench")
@click.pass_context
def cli(context: click.Context) -> None:
    """Reproduce published tables of deep generative models, with a verdict for each number.

    A cell is paper/table/row/column, such as ffjord/density/maf-5/power. A PATTERN is a cell or a
    shell pattern in quotes, such as 'ffjord/density/*/power'.
    """
    if context.invoked_subcommand != "config" and paths.config_files():
        from dgm_bench import defaults

        options = defaults.use()
        context.default_map = dict.fromkeys(cli.commands, options)


for verb in (
    read_commands.list_cells,
    read_commands.plan,
    data_commands.data,
    run_commands.run,
    status_commands.status,
    status_commands.cancel,
    read_commands.table,
    show_command.show,
    compare_command.compare,
    diff_command.diff,
    read_commands.report,
    model_commands.sample,
    model_commands.evaluate,
    cite_command.cite,
    export_command.export,
    run_commands.sync,
    merge_command.merge,
    config_commands.config,
    completion.completion,
    read_commands.doctor,
):
    cli.add_command(verb)
cli.params += [verbose_option(), quiet_option()]


def main() -> None:
    """Run the command line and exit."""
    streams.prepare()
    try:
        cli.main(prog_name=cli.name)
    except SystemExit as end:
        end_at_once_if_left(end.code if isinstance(end.code, int) else 0)
        gc.freeze()  # Python's end would look through all that is left for garbage, twice
        raise
