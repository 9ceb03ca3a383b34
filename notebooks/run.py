"""Runs notebooks from top to bottom, as they are stored: without outputs, and keeping none.

``python notebooks/run.py [NAME...]`` prints the seconds of each, and fails where a cell does, or
where one takes more than two minutes of a core: they compute in one thread, so that this is what
they take on a machine that does nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
#: Seconds of a core that a notebook may take.
LIMIT = 120.0


def run(path: Path, results: Path | None = None) -> tuple[float, float]:
    """Run a notebook; return its seconds of a core and in all, the start of its kernel included.

    Args:
        path: The notebook.
        results: Where to put it with its outputs; None for nowhere.

    Raises:
        CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    start, before = time.monotonic(), _of_children()
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(HERE.parent))
    if results is not None:
        nbformat.write(notebook, results / path.name)
    return _of_children() - before, time.monotonic() - start


def _of_children() -> float:
    """Return the seconds of a core that ended processes took; 0 where they are not counted."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main(names: Sequence[str]) -> int:
    """Run the named notebooks, or all; return 1 where one was too slow."""
    slow = False
    for path in sorted(HERE.glob("*.ipynb")):
        if not names or path.stem in names:
            seconds, passed = run(path)
            slow |= seconds > LIMIT
            said = f"{seconds:.0f} s of a core, of at most {LIMIT:.0f}; {passed:.0f} s in all"
            print(f"{path.stem}: {said}", flush=True)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
