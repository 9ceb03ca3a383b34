"""What the page takes: its size, making it, opening it, and what it asks for.

``python benchmarks/page.py`` makes the page of the stored records, first with nothing in the cache,
and opens it in Chromium, each time in a new tab. ``--axe axe.min.js`` (of the npm package axe-core)
also looks for faults that keep people out, light and dark, wide and narrow; ``--shots DIR`` writes
what is seen.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from browser import Tab, browser, program

#: Details of this cell are looked at as well: it has a published number, curves and errata.
CELL = "#ffjord/density/made/mnist"
#: Width, whether it is dark, and what is open.
VIEWS = ((1400, False, ""), (1400, True, ""), (400, False, ""), (1400, False, CELL),
         (1400, True, CELL), (400, False, CELL))  # fmt: skip
TIMES = 5


def made(page: Path, cache: Path) -> str:
    """Return the seconds that the command takes, and those of the processor."""
    command = [sys.executable, "-m", "dgm_bench", "report", "-o", str(page)]
    start, before = time.perf_counter(), os.times()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    return f"{seconds:.2f} s, {spent:.2f} s of the processor"


def opened(tab: Tab, page: Path) -> tuple[float, float, float]:
    """Return the seconds until the document is there, until it is painted, and of work for both."""
    tab.open(page)
    entry = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    return tab.run(entry) / 1e3, tab.run(paint) / 1e3, tab.metrics()["TaskDuration"]


def violations(tab: Tab, page: Path, axe: Path) -> Iterator[str]:
    """Yield what axe finds, in every view."""
    for width, dark, fragment in VIEWS:
        tab.size(width, dark=dark)
        tab.open(page, fragment)
        if not fragment:
            tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        tab.run(f"{axe.read_text()};0")
        found = tab.run("axe.run().then(r => JSON.stringify(r.violations.map(v => v.id)))")
        yield from (
            f"{width} {'dark' if dark else 'light'} {fragment} {v}" for v in json.loads(found)
        )


def shoot(tab: Tab, page: Path, folder: Path) -> None:
    """Write what is seen: the overview, a matrix, a cell, dark, narrow, and printed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, dark, fragment in (
        ("overview", 1400, False, ""), ("matrix", 1400, False, "#ffjord/density"),
        ("cell", 1400, False, CELL), ("dark", 1400, True, "#ffjord/density"),
        ("narrow", 400, False, "#ffjord/density"), ("narrow-cell", 400, False, CELL),
    ):  # fmt: skip
        tab.size(width, dark=dark)
        tab.open(page, fragment)
        tab.screenshot(folder / f"page-{name}.png")
    tab.open(page)
    tab.print(folder / "page-printed.pdf")


def main() -> None:
    """Print one line for each quantity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axe", type=Path, help="axe.min.js")
    parser.add_argument(
        "--shots", type=Path, metavar="DIR", help="write pictures of the page there"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page, cache = Path(folder) / "page.html", Path(folder) / "cache"
        print(f"made       {made(page, cache)}, with nothing cached")
        print(f"made again {made(page, cache)}")
        print(f"size       {page.stat().st_size / 1e6:.2f} MB")
        if program() is None:
            print("opened     no Chromium here")
            return
        with browser() as tab:
            tab.size(1400)
            times = [opened(tab, page) for _ in range(TIMES)]
            there, painted, busy = (median(column) for column in zip(*times, strict=True))
            print(f"opened     {there:.2f} s until the document is there, {painted:.2f} s painted, "
                  f"{busy:.2f} s of the main thread")  # fmt: skip
            print(f"requests   {len(tab.requests()) - 1} besides the page itself")
            print(f"faults     {tab.faults() or 'none'}")
            if asked.axe:
                print(f"axe        {list(violations(tab, page, asked.axe)) or 'no violations'}")
            if asked.shots:
                shoot(tab, page, asked.shots)


if __name__ == "__main__":
    main()
