"""A copy of the package as an installation lays it out, and commands of it without some modules."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from dgm_bench import paths

ROOT = paths.PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Runs commands one after the other where some modules are not installed.
SCRIPT = """
import json, sys
hidden, ahead, commands = json.loads(sys.argv.pop(1))
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in hidden else super().find_spec(name, path, target)
sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
for name in hidden:
    if name in sys.builtin_module_names or name in sys.modules:
        sys.modules[name] = None
exec(ahead)
from dgm_bench.cli import main
for words in commands:
    sys.argv = ["dgm-bench", *words]
    try:
        main()
    except SystemExit as end:
        print(f"exit {end.code or 0}: {' '.join(words)}", file=sys.stderr, flush=True)
"""


def installed(site: Path, records: str) -> Path:
    """Lay out what the wheel holds, of its records only those below ``results/runs/<records>``."""
    shutil.copytree(ROOT / "dgm_bench", site / "dgm_bench")
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["force-include"].items():
        part = f"{source}/{records}" if source == "results/runs" else source
        shutil.copytree(ROOT / part, site / target / part.removeprefix(source).lstrip("/"))
    return site


def run_without(hidden, *commands, site, folder, ahead=""):
    """Return what commands print and tell where modules are not installed.

    Args:
        hidden: Names of modules.
        commands: Each a list of words.
        site: Where the package lies.
        folder: Where they run.
        ahead: Code that runs before the package is imported.
    """
    given = json.dumps([list(hidden), ahead, commands])
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DGM_BENCH_")}
    env = {**kept, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, given],
        cwd=folder, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
