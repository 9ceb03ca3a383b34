"""Seconds, megabytes fetched and megabytes on disk of installations.

``python benchmarks/installation.py core train all`` installs the core alone, with an extra, and
with all, each in an environment of its own.
"""

import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BYTES = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


def measured(extra: str) -> tuple[float, float, float]:
    """Return seconds, bytes fetched and bytes on disk; pip's own and its cache do not count."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        before = _size(folder)
        what = str(ROOT) if extra == "core" else f"{ROOT}[{extra}]"
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--no-cache-dir", what]
        started = time.monotonic()
        done = subprocess.run(pip, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - started
        return seconds, _fetched(done.stdout), _size(folder) - before


def _fetched(said: str) -> float:
    """Return the bytes that pip fetched, or took from a folder of packages."""
    found = re.findall(r"Downloading \S+ \(([\d.]+) ([kMG]B)\)", said)
    here = re.findall(r"Processing (/\S+\.whl)", said)
    away = sum(float(n) * BYTES[unit] for n, unit in found)
    return away + sum(Path(file).stat().st_size for file in here)


def _size(folder: str) -> int:
    return sum(file.lstat().st_size for file in Path(folder).rglob("*") if file.is_file())


for extra in sys.argv[1:]:
    seconds, fetched, kept = measured(extra)
    print(f"{extra}: {seconds:.0f} s, {fetched / 1e6:.0f} MB fetched, {kept / 1e6:.0f} MB on disk")
