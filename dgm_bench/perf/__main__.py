"""The gate of the suite's own speed: ``python -m dgm_bench.perf``, or ``tox -e perf --``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from dgm_bench.cli import streams
from dgm_bench.cli.options import Verbs, examples, results_option
from dgm_bench.perf import tiers
from dgm_bench.perf.cases import CASES, case_named
from dgm_bench.perf.printed import as_markdown, as_text

DEVICES = ("cpu", "cuda")


@click.group(
    "perf",
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "tox -e perf",
        "tox -e perf -- --tier 0",
        "tox -e perf -- --write",
        "tox -e perf -- --base v0.1.0 --case maf --case loop",
    ),
)
@click.option("--write", is_flag=True, help="Write the expected counters anew, and do no more.")
@click.option("--tier", type=click.Choice(["0", "1"]), help="One alone; both by default.")
@click.option("--base", metavar="REV", help="Compare with it; by default with the merge base.")
@click.option("--case", "cases", metavar="NAME", multiple=True, help="Time it alone; repeatable.")
@click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True)
@click.option(
    "--markdown",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also add what was found to it.",
)
@click.pass_context
def gate(
    context: click.Context,
    write: bool,
    tier: str | None,
    base: str | None,
    cases: Sequence[str],
    device: str,
    markdown: Path | None,
) -> None:
    """Say whether the code takes more than before: counters, then times. Exits with 1 if so."""
    if context.invoked_subcommand is not None:
        return
    if write:
        streams.show(tiers.write_counters())
        return
    for name in cases:
        case_named(name)
    failed = False
    for finding in _findings(tier, base, cases, device):
        streams.show(as_text(finding))
        failed |= finding.failed
        if markdown is not None:
            with markdown.open("a", encoding="utf-8") as file:
                file.write(as_markdown(finding))
    context.exit(int(failed))


def _findings(
    tier: str | None, base: str | None, cases: Sequence[str], device: str
) -> Iterator[tiers.Finding]:
    """Yield what each tier finds that is asked for, as soon as it is known."""
    if tier != "1":
        yield tiers.counters()
    if tier != "0":
        yield tiers.base_against_head(base, device, cases, streams.tell)


@gate.command(short_help="Times of this commit, for the history and for compare.")
@click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True)
@results_option()
def store(device: str, results: Path) -> None:
    """Measure each case beside a plain network, and store it; the code has to be committed."""
    from dgm_bench.perf import history

    streams.say(f"wrote {history.store(results, device, streams.tell)}")
    for line in history.told(results):
        streams.say(line)


@gate.command(short_help="Draw the stored times over commits.")
@click.option(
    "-o",
    "--output",
    default="performance.png",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
)
@results_option(read=True)
def plot(output: Path, results: Path) -> None:
    """Draw the stored times over commits, and tell of unusual changes."""
    from dgm_bench.perf.history import told
    from dgm_bench.perf.plot import write_plot

    write_plot(output, results)
    streams.say(f"wrote {output}")
    for line in told(results):
        streams.say(line)


@gate.command(short_help="Instructions of a step, by valgrind; minutes a case.")
@click.argument("cases", nargs=-1, metavar="[CASE]...")
def callgrind(cases: Sequence[str]) -> None:
    """Count the instructions of a step of cases; of all where none is named."""
    from dgm_bench.perf.callgrind import instructions

    for case in cases or CASES:
        streams.say(f"{case}: {instructions(case):,.0f} instructions")


def main() -> None:
    """Run the command line and exit."""
    streams.prepare()
    gate.main(prog_name="python -m dgm_bench.perf")


if __name__ == "__main__":
    main()
