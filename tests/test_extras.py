"""The core without what extras install: verbs that read work, and others say what is missing."""

import json
import os
import subprocess
import sys
import tomllib

import pytest

from dgm_bench import data, paths
from dgm_bench.errors import DataUnavailable, UsageError
from dgm_bench.extras import EXTRAS, needing, package_of

ROOT = paths.PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Runs commands one after the other where some modules are not installed.
SCRIPT = """
import json, sys
hidden, commands = json.loads(sys.argv.pop(1))
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in hidden else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
from dgm_bench.cli import cli
for words in commands:
    try:
        cli.main(words, prog_name="dgm-bench")
    except SystemExit as end:
        print(f"exit {end.code or 0}: {' '.join(words)}", file=sys.stderr, flush=True)
"""


def without(hidden, *commands, folder):
    """Return what commands print and tell where modules are not installed."""
    given = json.dumps([list(hidden), commands])
    own = {"DGM_BENCH_RESULTS": "results", "XDG_CACHE_HOME": str(folder / "cache")}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **own}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, given],
        cwd=folder, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip


def test_what_only_reads_works_without_any_extra(tmp_path):
    commands = [
        ["list", "ffjord/density/*/power"],
        ["plan", "ffjord/density/*/digits"],
        ["table", "ffjord/density"],
        ["compare", "results", "results"],
        ["report", "-o", "page.html"],
        ["status"],
        ["data", "list"],
        ["data", "verify", "digits"],
        ["doctor"],
    ]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "runs").symlink_to(ROOT / "results" / "runs" / "avb")
    hidden = {name for modules in EXTRAS.values() for name in modules} - {"PIL"}
    done = without(hidden, *commands, folder=tmp_path)
    ends = [line.partition(": ")[0] for line in done.stderr.splitlines() if "exit" in line]
    assert ends == ["exit 0"] * len(commands), done.stderr
    assert "pip install 'dgm-bench[train]'" in done.stdout  # doctor's
    assert "<svg" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("module", ["torch", "safetensors"])
def test_a_verb_says_which_extra_it_needs(module, tmp_path):
    words = ["run", "ffjord/density/made/digits"]
    told = without([module], words, folder=tmp_path).stderr.splitlines()
    line = f"error: dgm-bench run needs {module}: pip install 'dgm-bench[train]'"
    assert told == [line, f"exit 2: {' '.join(words)}"]


def test_modules_of_extras_are_those_that_the_project_declares():
    declared = PROJECT["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        packages = [bound.partition(">=")[0] for bound in declared[extra]]
        assert [package_of(module) for module in modules] == packages
    assert declared["all"] == [f"dgm-bench[{','.join(EXTRAS)}]"]
    assert declared["dev"][0] == "dgm-bench[all]"


def test_only_packages_that_are_missing_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    line = r"^this needs h5py: pip install 'dgm-bench\[tables\]'$"
    with pytest.raises(UsageError, match=line), needing("this"):
        import h5py  # noqa: F401
    monkeypatch.setitem(sys.modules, "torch", sys)  # there, and lacks a part
    for broken in (ModuleNotFoundError("x", name="torch._C"), ImportError("x", name="torch")):
        with pytest.raises(type(broken)), needing("this"):
            raise broken


def test_data_that_nothing_here_reads_are_unavailable(tmp_path, monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(module, name="sklearn")

    monkeypatch.setattr(data, "import_module", missing)
    with pytest.raises(DataUnavailable, match="digits needs scikit-learn: pip install"):
        data.load("digits", tmp_path)
