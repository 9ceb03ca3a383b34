"""The core without what extras install: verbs that read work, and others say what is missing."""

import sys

import pytest
from installed import PROJECT, ROOT, installed, run_without

from dgm_bench import data
from dgm_bench.errors import DataUnavailable, UsageError
from dgm_bench.extras import EXTRAS, needing, package_of

MODULES = {name for modules in EXTRAS.values() for name in modules}
#: Of what nothing but matplotlib needs here.
DRAWS = {"PIL"}
#: What systems other than Unix lack: modules, and names of modules that all have.
UNIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty"}
NOT_A_UNIX = """
import os, signal, sys, types
fake = sys.modules["psutil"] = types.ModuleType("psutil")  # that of another system
fake.virtual_memory = lambda: types.SimpleNamespace(total=7_000_000_000)
fake.Process, fake.Error = lambda _: types.SimpleNamespace(create_time=lambda: 1.5), OSError
for name in ("sysconf", "sched_getaffinity", "sync", "major", "getuid", "setsid", "killpg"):
    delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGCHLD", "alarm", "pthread_kill"):
    delattr(signal, name)
def refuse(event, args):
    if event == "open" and str(args[0]).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "no such file")
sys.addaudithook(refuse)
"""
READING = [
    ["list"],
    ["plan", "ffjord/density/*/digits"],
    ["table", "--paper", "avb"],
    ["show", "avb/elbo/avb/digits-binary-negative-elbo"],
    ["compare", "nothing", "nothing"],
    ["cite", "avb"],
    ["export", "avb/*"],
    ["config", "show"],
    ["report", "-o", "page.html"],
    ["show", "avb/elbo/avb/8gaussians-negative-elbo"],
    ["cite", "avb"],
    ["export", "avb/*", "-o", "runs.csv"],
    ["config", "show"],
    ["status"],
    ["data", "list"],
    ["data", "verify", "digits"],
    ["doctor"],
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """An installed package with the records of one table."""
    return installed(tmp_path_factory.mktemp("site"), records="avb/elbo")


def test_what_only_reads_works_without_any_extra_and_on_no_unix(site, tmp_path):
    (tmp_path / "nothing").mkdir()
    hidden = (MODULES - DRAWS) | UNIX
    done = run_without(hidden, *READING, site=site, folder=tmp_path, ahead=NOT_A_UNIX)
    ends = [line.partition(": ")[0] for line in done.stderr.splitlines() if "exit" in line]
    assert ends == ["exit 3" if words[0] == "compare" else "exit 0" for words in READING], done
    assert "3 seeds" in done.stdout  # of the records that came with it
    assert "pip install 'dgm-bench[train]'" in done.stdout  # doctor's
    assert "7.0 GB" in done.stdout
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert {file.name for file in tmp_path.iterdir()} == {
        "cache",
        "nothing",
        "page.html",
        "runs.csv",
    }


def test_a_verb_says_which_extra_it_needs(site, tmp_path):
    cell, picture = "avb/elbo/vae/digits-binary-negative-elbo", tmp_path / "x.png"
    verbs = [["run", cell], ["sample", cell, "-o", str(picture)], ["evaluate", cell]]
    told = run_without(["torch"], *verbs, site=site, folder=tmp_path).stderr.splitlines()
    assert told[1::2] == [f"exit 2: {' '.join(words)}" for words in verbs]
    assert {line.partition(" needs ")[2] for line in told[::2]} == {
        "torch: pip install 'dgm-bench[train]'"
    }
    assert told[0].startswith("error: dgm-bench run needs ")


def test_modules_of_extras_are_those_that_the_project_declares():
    declared = PROJECT["project"]["optional-dependencies"]
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
    monkeypatch.setitem(sys.modules, "sklearn", None)  # other tests have imported it
    with pytest.raises(DataUnavailable, match="digits needs scikit-learn: pip install"):
        data.load("digits", tmp_path)


def test_the_image_is_made_of_what_the_wheel_needs():
    """Of the Dockerfile what can be checked without Docker."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (extras,) = (line.partition("=")[2] for line in lines if line.startswith("ARG EXTRAS="))
    assert set(extras.split(",")) <= set(EXTRAS)
    assert any(line.startswith("USER ") for line in lines)
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    files = PROJECT["project"]["license-files"] + [PROJECT["project"]["readme"], "pyproject.toml"]
    made_of = {*wheel["packages"], *wheel["force-include"], *files, "results/environment.lock"}
    assert sent == made_of
    assert all((ROOT / name).exists() for name in sent)
