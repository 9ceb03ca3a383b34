"""Who, where and with what: git state, source hash, machine class, memory."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil  # noqa: F401  that of Linux is made with what a test takes away
import pytest
import torch
from factories import make_record

from dgm_bench import paths, provenance
from dgm_bench.planner import Machine, most_workers
from dgm_bench.records import Code, Environment, read_record, write_record


def git(root, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", root, *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "project"
    (root / "results").mkdir(parents=True)
    (root / "module.py").write_text("x = 1\n")
    (root / "results" / "stored.json").write_text("{}\n")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_a_clean_checkout_has_a_commit_and_is_not_dirty(checkout):
    commit, dirty = provenance.git_state(checkout)
    assert len(commit) == 40
    assert dirty is False


@pytest.mark.parametrize("name", ["module.py", "new_model.py"])
def test_changed_and_new_sources_make_it_dirty(checkout, name):
    (checkout / name).write_text("x = 2\n")
    assert provenance.git_state(checkout)[1] is True


def test_new_and_changed_results_do_not_make_it_dirty(checkout):
    (checkout / "results" / "stored.json").write_text('{"new": 1}\n')
    (checkout / "results" / "another.json").write_text("{}\n")
    assert provenance.git_state(checkout)[1] is False


def test_outside_a_checkout_nothing_is_claimed(monkeypatch):
    assert provenance.git_state(None) == (None, None)
    monkeypatch.setattr(provenance, "checkout_root", lambda: None)
    code = provenance.code()
    assert code.git_commit is None
    assert code.git_dirty is None


def test_a_checkout_without_a_commit_names_none(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "new.py").touch()
    assert provenance.git_state(tmp_path) == (None, True)


def test_a_folder_that_git_does_not_know_names_nothing(tmp_path):
    assert provenance.git_state(tmp_path) == (None, None)


def test_the_repository_of_the_current_folder_and_of_git_dir_do_not_count(checkout, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    script = "from dgm_bench import provenance as p; print(p.code().git_commit)"
    wanted = subprocess.run(
        [sys.executable, "-c", script],
        cwd=paths.PACKAGE.parent, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    env = {**os.environ, "GIT_DIR": str(checkout / ".git"), "PYTHONPATH": str(paths.PACKAGE.parent)}
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=other, env=env, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert found == wanted
    assert found.strip() != provenance.git_state(checkout)[0]


def test_a_package_inside_somebody_elses_repository_is_not_in_a_checkout(tmp_path, monkeypatch):
    site = tmp_path / ".venv" / "site-packages"
    (site / "dgm_bench").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "reproductions").mkdir()
    monkeypatch.setattr(paths, "PACKAGE", site / "dgm_bench")
    monkeypatch.chdir(tmp_path)
    assert paths.checkout_root() is None
    (tmp_path / "results").mkdir()
    monkeypatch.delenv("DGM_BENCH_STORED")
    assert paths.stored_results() is None
    (site / "dgm_bench/_results").mkdir()
    assert paths.stored_results() == site / "dgm_bench/_results"


@pytest.fixture
def package(tmp_path):
    for part in provenance.NUMERIC_SOURCES:
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.py").write_text(f"# {part}\n")
    for module in provenance.NUMERIC_MODULES:
        (tmp_path / f"{module}.py").write_text(f"# {module}\n")
    (tmp_path / "cli.py").write_text("# cli\n")
    return tmp_path


def test_the_source_hash_covers_what_decides_numbers_and_nothing_else(package):
    before = provenance.source_hash(package)
    (package / "cli.py").write_text("# changed\n")
    assert provenance.source_hash(package) == before
    modules = [f"{module}.py" for module in provenance.NUMERIC_MODULES]
    for changed in ("models/a.py", "train/a.py", "data/a.py", "metrics/a.py", *modules):
        (package / changed).write_text("# changed\n")
        after = provenance.source_hash(package)
        assert after != before, changed
        before = after


#: They compute with torch, and no number of a run: they choose runs, report, or compare.
NOT_NUMERIC = {"doctor", "prefix", "provenance", "runner", "session"}


def test_all_modules_that_compute_are_in_the_source_hash():
    """A run that is continued by other code would mix two versions of it."""
    computing = {
        path.stem
        for path in paths.PACKAGE.glob("*.py")
        if re.search(r"^\s*(import torch|from torch)", path.read_text(), re.MULTILINE)
    }
    assert computing - NOT_NUMERIC <= {*provenance.NUMERIC_MODULES}
    assert all((paths.PACKAGE / f"{module}.py").exists() for module in provenance.NUMERIC_MODULES)


def test_the_source_hash_notices_a_file_that_moves(package):
    before = provenance.source_hash(package)
    (package / "models" / "a.py").rename(package / "models" / "b.py")
    assert provenance.source_hash(package) != before


def test_code_is_a_block_of_the_record(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dgm-bench", "run", "ffjord/*"])
    code = provenance.code()
    assert isinstance(code, Code)
    assert code.command == "dgm-bench run 'ffjord/*'"
    assert len(code.source_hash) == 64


def test_the_command_reads_the_same_with_python_m():
    assert provenance.command_line(["/x/dgm_bench/__main__.py", "list"]) == "dgm-bench list"


def test_a_command_with_a_word_that_is_not_utf8_can_be_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dgm-bench", "run", "--results", os.fsdecode(b"caf\xe9")])
    path = write_record(make_record(code=provenance.code()), tmp_path)
    assert read_record(path).code.command.encode().startswith(b"dgm-bench run --results")


def test_machine_class_changes_with_what_decides_speed(monkeypatch):
    before = provenance.machine_class("cpu")
    assert provenance.machine_class("cpu", "NVIDIA H200") == before
    assert provenance.machine_class("cuda", "NVIDIA H200") != before
    assert provenance.machine_class("cuda", "A") != provenance.machine_class("cuda", "B")
    monkeypatch.setattr(provenance, "cores", lambda: 1024)
    assert provenance.machine_class("cpu") != before


def test_machine_class_ignores_torchs_patch_version(monkeypatch):
    classes = []
    for version in ("2.9.0", "2.9.1+cpu", "2.10.0"):
        monkeypatch.setattr(provenance, "version_of", lambda _, version=version: version)
        classes.append(provenance.machine_class("cpu"))
    assert classes[0] == classes[1] != classes[2]


def test_no_gpu_is_expected_where_it_is_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert provenance.likely_device() == "cpu"
    assert provenance.gpu_name() is None


def test_the_plan_takes_the_device_that_torch_takes_whatever_nvidia_smi_says(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA A GPU\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert provenance.likely_device() == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_version_of_cuda_is_read_as_torch_says_it():
    built = torch.version.cuda
    assert provenance.torch_cuda() == (None if built is None else int(built.split(".")[0]))


DRIVER = """
#include <string.h>
#include <stdlib.h>
#include <unistd.h>
static int is(const char *what) { return !strcmp(getenv("DRIVER"), what); }
int cuInit(unsigned flags) { if (is("hangs")) sleep(60); return is("broken") ? 999 : 0; }
int cuDriverGetVersion(int *version) { *version = is("old") ? 11080 : 99000; return 0; }
int cuDeviceGetCount(int *count) { *count = is("empty") ? 0 : 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strcpy(name, is("nonsense") ? "\\xff\\xfe" : device ? "second" : "first"); return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (16ul + device) << 30; return 0; }
"""
ASKED = """
import os
from dgm_bench import provenance
provenance.DRIVER_SECONDS, provenance.torch_cuda = 2.0, lambda: 12
for os.environ["DRIVER"] in ("whole", "old", "empty", "broken", "nonsense", "hangs"):
    provenance.ask_driver.cache_clear()
    gpu, memory = provenance.gpu_name(), provenance.gpu_memory_bytes()
    print(provenance.likely_device(), gpu, memory, provenance.has_gpu())
"""


@pytest.fixture
def driver(tmp_path):
    """The folder of a library that answers as NVIDIA's driver does, in some ways."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "driver.c").write_text(DRIVER)
    build = [compiler, "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"]
    subprocess.run(build, check=True)
    return tmp_path


def test_the_driver_says_which_gpus_there_are(driver):
    env = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    asked = subprocess.run([sys.executable, "-c", ASKED], env=env, capture_output=True, text=True)
    none, first = "cpu None 0 False", f"first {16 * 2**30} True"
    assert asked.stdout.splitlines() == [f"cuda {first}", f"cpu {first}", *[none] * 4]


def test_environment_on_a_cpu_is_exact_and_agrees_with_the_planner():
    environment = provenance.environment("cpu", threads=3)
    assert isinstance(environment, Environment)
    assert environment.determinism == "exact"
    assert environment.threads == 3
    assert environment.gpu is None
    assert environment.machine_class == provenance.machine_class("cpu")
    assert environment.packages["torch"]
    assert environment.memory_bytes > 1e8


def test_an_apple_gpu_is_a_device_of_its_own():
    environment = provenance.environment("mps", threads=1)
    assert (environment.device, environment.determinism) == ("mps", "statistical")
    assert environment.machine_class == Machine.here("mps").kind != provenance.machine_class("cpu")
    assert most_workers(Machine.here("mps"), None) == 1


def test_memory_and_processor_are_known_on_systems_without_linuxs_files(tmp_path, monkeypatch):
    known = provenance.memory_bytes()
    script = "#!/bin/sh\n[ $2 = machdep.cpu.brand_string ] && echo Apple M9\n"
    (tmp_path / "sysctl").write_text(script)
    (tmp_path / "sysctl").chmod(0o755)
    monkeypatch.setattr(provenance, "Path", lambda *_: Path("/no/such/file"))
    monkeypatch.delattr(os, "sysconf")
    assert known <= provenance.memory_bytes() < 1e14
    provenance.cpu_name.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.cpu_name() == (platform.processor() or platform.machine())
    provenance.cpu_name.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.cpu_name() == "Apple M9"
    provenance.cpu_name.cache_clear()


HOLD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from dgm_bench import provenance
if sys.argv[1] == "Windows":
    import psutil

    provenance.Path = lambda *_: Path("/no/such/file")
    sys.modules["resource"], own = None, psutil.Process()
    info = lambda: SimpleNamespace(peak_wset=own.memory_info().rss)
    psutil.Process = lambda: SimpleNamespace(memory_info=info)
provenance.reset_peak_memory("cpu")
before = provenance.peak_memory_bytes("cpu")
held = bytearray(b"x") * 150_000_000
peak = provenance.peak_memory_bytes("cpu")
del held
provenance.reset_peak_memory("cpu")
print(before, peak, provenance.peak_memory_bytes("cpu"))
"""


@pytest.mark.parametrize("system", ["this", "Windows"])
def test_peak_memory_grows_with_what_is_held_and_can_be_reset(system):
    """In a process of its own: one that has freed much already takes no more to hold a little."""
    command = [sys.executable, "-c", HOLD, system]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak, after = map(int, done.stdout.split())
    assert 120e6 < peak - before < 400e6
    if system == "this" and can_be_reset():
        assert after < peak - 100e6


def can_be_reset():
    status = Path("/proc/self/status")
    writable = os.access("/proc/self/clear_refs", os.W_OK)
    return writable and status.exists() and "VmHWM" in status.read_text()
