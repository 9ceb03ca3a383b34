"""The verb ``cite``: BibTeX for what a person uses."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dgm_bench.cli import completion, streams
from dgm_bench.cli.options import collecting_seldom, examples


@click.command(
    short_help="BibTeX of papers, models and data.",
    epilog=examples(
        "dgm-bench cite ffjord/density/maf-5/power",
        "dgm-bench cite ffjord/vi >> references.bib",
        "dgm-bench cite iwae 'priors/*/vamp*/*'",
    ),
)
@click.argument("name", metavar="[CELL|TABLE|PAPER]...", nargs=-1, shell_complete=completion.names)
@collecting_seldom()
def cite(name: Sequence[str]) -> None:
    """Print BibTeX of what stands behind cells: papers, models, data sets, and this suite.

    Above each entry a comment says what it is of. Without a name it is this suite alone.
    """
    from dgm_bench.catalog import load_catalog
    from dgm_bench.citations import load_citations

    catalog = load_catalog()
    citations = load_citations(catalog)
    streams.say(citations.bibtex(citations.of_cells(catalog.named(*name))))
