"""Runs notebooks from top to bottom, as they are stored: without outputs, and keeping none.

``python notebooks/run.py [NAME...]`` prints the seconds of each and fails where a cell does, or
where one takes longer than its two minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
#: Seconds that a notebook may take on a CPU.
LIMIT = 120.0


def run(path: Path, results: Path | None = None) -> float:
    """Run a notebook and return its seconds, the start of its kernel included.

    Args:
        path: The notebook.
        results: Where to put it with its outputs; None for nowhere.

    Raises:
        CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(HERE.parent))
    if results is not None:
        nbformat.write(notebook, results / path.name)
    return time.monotonic() - start


def main(names: Sequence[str]) -> int:
    """Run the named notebooks, or all; return 1 where one was too slow."""
    slow = False
    for path in sorted(HERE.glob("*.ipynb")):
        if not names or path.stem in names:
            seconds = run(path)
            slow |= seconds > LIMIT
            print(f"{path.stem}: {seconds:.0f} s of at most {LIMIT:.0f}", flush=True)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
