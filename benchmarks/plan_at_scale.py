"""The table of ``docs/scale.md``: what everything takes on many GPUs, as ``plan --on`` says it.

``python benchmarks/plan_at_scale.py`` writes it anew into the page, in about ten seconds, and
prints it. Nothing of it is measured: see what the page says that it rests on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dgm_bench.catalog import load_catalog, runnable
from dgm_bench.cli.elsewhere import hours
from dgm_bench.planner.faults import Faults
from dgm_bench.planner.fleet import GPU_PRICE, parse_fleet
from dgm_bench.planner.outlook import Outlook, Work, outlook, plan_on, schedule_end

PAGE = Path(__file__).resolve().parents[1] / "docs/scale.md"
#: Between these lines of the page.
BEGIN, END = "<!-- plan_at_scale: begin -->\n", "<!-- plan_at_scale: end -->\n"
#: Title, cells, and seeds of each recipe.
PARTS = (
    ("FFJORD's tables, three seeds", "ffjord/*", 3),
    ("VQ-VAE-2 on ImageNet, one seed", "vqvae2/diversity/vqvae-2/imagenet-256*", 1),
)
COUNTS = (1, 8, 64, 512)
KIND = "h200"
HEAD = ("", "GPUs", "end, h", "9 of 10 draws", "GPU hours", "cost", "efficiency",
        "without interruptions", "bounded by")  # fmt: skip


def looked(pattern: str, seeds: int, count: int) -> Outlook:
    """Return what cells take on so many GPUs, with the faults that ``plan --on`` assumes."""
    fleet = parse_fleet(f"{count}x{KIND}")
    planned = plan_on(load_catalog().select(pattern), fleet, runnable, seeds)
    return outlook(planned, fleet, Faults(), price=GPU_PRICE)


def row(title: str, found: Outlook) -> tuple[str, ...]:
    """Return a row of the table."""
    low, high = found.interval
    alone = schedule_end(found.work, found.fleet.room()) / 3600
    return (
        title,
        str(found.fleet.count),
        _number(found.hours),
        f"{_number(low)} to {_number(high)}",
        _number(found.device_hours),
        _number(found.cost),
        f"{found.efficiency:.0%}",
        _number(alone),
        _bound(found),
    )


def _number(value: float) -> str:
    return hours(value).removesuffix(" h")


def _bound(found: Outlook) -> str:
    return f"{found.bound}: {_named(found.longest)}" if found.longest else found.bound


def _named(work: Work) -> str:
    """Return the cell of a run without its paper, and on how many GPUs it goes."""
    cell = work.unit.runs[0].cell
    return f"{cell.row.id}/{cell.column.id} on {work.devices}"


def lines() -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"| {' | '.join(HEAD)} |"
    yield "| --- |" + " --- |" * (len(HEAD) - 1)
    for title, pattern, seeds in PARTS:
        for count in COUNTS:
            yield f"| {' | '.join(row(title, looked(pattern, seeds, count)))} |"


def table() -> str:
    """Return the table as it stands in the page."""
    return "\n".join([*lines(), ""])


def replaced(page: str, text: str) -> str:
    """Return the page with another table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> None:
    """Write the table into the page, and print it."""
    text = table()
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
