"""The gate of the suite's own speed: ``python -m dgm_bench.perf``, or ``tox -e perf --``."""

from __future__ import annotations

import click

from dgm_bench.cli import streams
from dgm_bench.cli.options import Verbs
from dgm_bench.perf import tiers


@click.group(
    "python -m dgm_bench.perf",
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--write", is_flag=True, help="Write the expected counters anew, and do no more.")
@click.pass_context
def gate(context: click.Context, write: bool) -> None:
    """Say whether the code takes more than before; exits with 1 where it does."""
    if context.invoked_subcommand is not None:
        return
    if write:
        streams.show(tiers.write_counters())
        return
    lines, failed = tiers.counters()
    streams.show("\n".join(lines))
    context.exit(int(failed))


def main() -> None:
    """Run the command line and exit."""
    streams.prepare()
    gate.main(prog_name=gate.name)


if __name__ == "__main__":
    main()
