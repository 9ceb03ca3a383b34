"""Provenance: the code and the machine behind a number.

Only :func:`environment` and :func:`peak_memory_bytes` touch torch, and only when called.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from dgm_bench import __version__
from dgm_bench.cache import sources_digest
from dgm_bench.escaping import plain
from dgm_bench.paths import PACKAGE, checkout_root
from dgm_bench.records import Code, Environment

#: The parts of the package whose source decides a run's numbers, and modules beside them.
NUMERIC_SOURCES = ("models", "train", "data", "metrics")
NUMERIC_MODULES = (
    "execution", "joint_execution", "kept", "keyed_tensors", "staged_training", "team", "together",
)  # fmt: skip
#: Features of processors that decide which kernels torch takes.
FEATURES = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16",
    "asimd", "sve", "bf16",
)  # fmt: skip
#: The packages whose versions can change a number.
PACKAGES = (
    "torch", "torchdiffeq", "numpy", "scipy", "pandas", "scikit-learn", "safetensors", "pillow",
    "h5py", "torch-fidelity", "torchvision",
)  # fmt: skip


# --------------------------------------------------------------------------- code


def code() -> Code:
    """Return which code runs: version, git state of the package's checkout, source hash, command.

    The git fields are those of the checkout the package lies in, whatever the current folder
    is; None for an installed package. Changes below ``results/`` do not make it dirty.
    """
    commit, dirty = git_state(checkout_root())
    return Code(
        version=__version__,
        git_commit=commit,
        git_dirty=dirty,
        source_hash=source_hash(PACKAGE),
        command=command_line(sys.argv),
    )


def git_state(root: Path | None) -> tuple[str | None, bool | None]:
    """Return the commit of a checkout and whether anything outside ``results/`` differs from it.

    A checkout without a commit, or one that git refuses to read, gives None for the commit.
    """
    if root is None:
        return None, None
    changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)results")
    return _git(root, "rev-parse", "--verify", "HEAD"), None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    """Run git on ``root`` alone: variables such as ``GIT_DIR`` may name another repository."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def source_hash(package: Path) -> str:
    """Return SHA-256 over the sources that decide a run's numbers, by name and content."""
    folders = (sorted((package / part).rglob("*.py")) for part in NUMERIC_SOURCES)
    paths = [path for folder in folders for path in folder]
    return sources_digest(package, [*paths, *(package / f"{m}.py" for m in NUMERIC_MODULES)])


def command_line(argv: list[str]) -> str:
    """Return the command as a person would type it, whichever way Python was started."""
    name = Path(argv[0]).name
    return plain(shlex.join(["dgm-bench" if name == "__main__.py" else name, *argv[1:]]))


# --------------------------------------------------------------------------- machine


@cache
def cpu_name() -> str:
    """Return the processor's model name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return _apple_name() or platform.processor() or platform.machine()


def _apple_name() -> str:
    """Return what macOS calls the processor, of which Python says ``arm`` alone; else nothing."""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    with suppress(OSError):  # there is none, or none that knows the name
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def processor_features() -> tuple[str, ...]:
    """Return those of :data:`FEATURES` that the processor has; none where no file tells."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        known = set(found[1].split()) if found else set()
        return tuple(name for name in FEATURES if name in known)
    return ()


def cores() -> int:
    """Return how many cores this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


#: How long a driver has to answer.
DRIVER_SECONDS = 10.0
#: Asks the driver as torch does, in a process that can be given up: a driver may hang.
_ASK_DRIVER = """
import ctypes
from ctypes import byref, c_int
cuda, version, count, device = ctypes.CDLL("libcuda.so.1"), c_int(), c_int(), c_int()
size = ctypes.c_size_t()
assert cuda.cuInit(0) == 0
assert cuda.cuDriverGetVersion(byref(version)) == 0
assert cuda.cuDeviceGetCount(byref(count)) == 0
print(version.value // 1000)
for index in range(count.value):
    name = ctypes.create_string_buffer(256)
    assert cuda.cuDeviceGet(byref(device), index) == 0
    assert cuda.cuDeviceGetName(name, 256, device) == 0
    assert cuda.cuDeviceTotalMem_v2(byref(size), device) == 0
    print(size.value, name.value.decode())
"""


def driver_gpus() -> tuple[int, tuple[str, ...]]:
    """Return the newest major version of CUDA that the driver runs, and its GPUs' names, in order.

    GPUs that ``CUDA_VISIBLE_DEVICES`` hides are left out; ``(0, ())`` where no driver answers.
    """
    version, gpus = ask_driver()
    return version, tuple(name for name, _ in gpus)


def gpu_memory_bytes() -> int:
    """Return the memory of the smallest GPU that is not hidden; 0 where no driver answers."""
    return min((size for _, size in ask_driver()[1]), default=0)


@cache
def ask_driver() -> tuple[int, tuple[tuple[str, int], ...]]:
    """Return the newest major version of CUDA that the driver runs, and its GPUs.

    Of each its name and bytes of memory.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
        done = subprocess.run(
            [sys.executable, "-c", _ASK_DRIVER],
            capture_output=True, text=True, timeout=DRIVER_SECONDS, check=True,
        )  # fmt: skip
        version, *lines = done.stdout.splitlines()
        parts = (line.partition(" ") for line in lines)
        return int(version), tuple((name, int(size)) for size, _, name in parts)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, ()


def torch_cuda() -> int | None:
    """Return the major version of CUDA that torch is built for, without importing it, or None."""
    found = importlib.util.find_spec("torch")
    for folder in (found and found.submodule_search_locations) or ():
        with suppress(OSError):
            text = Path(folder, "version.py").read_text(encoding="utf-8")
            if match := re.search(r"^cuda\b[^=]*= *['\"](\d+)\.", text, re.MULTILINE):
                return int(match[1])
    return None


def gpu_name() -> str | None:
    """Return the first GPU's model name without importing torch; None where there is none."""
    return next(iter(driver_gpus()[1]), None)


def has_gpu() -> bool:
    """Return whether there is a GPU, also one that torch cannot use."""
    return bool(driver_gpus()[1]) or Path("/dev/nvidia0").exists()


def likely_device() -> str:
    """Return ``cuda`` where torch can use a GPU, else ``cpu``; never imports torch.

    That takes a build of torch for CUDA, and a driver that runs its major version
    (https://docs.nvidia.com/deploy/cuda-compatibility, minor version compatibility).
    """
    build, (version, names) = torch_cuda(), driver_gpus()
    return "cuda" if build is not None and names and version >= build else "cpu"


def likely_threads() -> int:
    """Return how many threads torch takes where nobody says; never imports torch."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else cores()


def memory_bytes() -> int:
    """Return the memory this process may use: the machine's, or its container's limit."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # not a Linux; elsewhere psutil would take a while
        import psutil

        total = psutil.virtual_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int(Path("/sys/fs/cgroup", name).read_text()))
    return total


def version_of(package: str) -> str | None:
    """Return the installed version of a package, without importing it."""
    from importlib import metadata  # which takes a while, and most verbs ask for no version

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine_class(device: str, gpu: str | None = None) -> str:
    """Return a short hash of what decides speed: CPU, GPU in use, cores and torch's version.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``; a GPU that is not used does not count.
        gpu: The GPU's name, where it is known already.
    """
    used = (gpu or gpu_name() or "gpu") if device == "cuda" else device.replace("cpu", "")
    torch_version = ".".join((version_of("torch") or "none").split(".")[:2])
    parts = (cpu_name(), used, str(cores()), torch_version)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def environment(device: str, threads: int) -> Environment:
    """Return where a run happens; a run on a CPU can be repeated bit for bit, one on a GPU not.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: Threads that torch uses.
    """
    import torch

    kind = device.partition(":")[0]
    on_gpu = kind == "cuda"
    gpu = torch.cuda.get_device_name(device) if on_gpu else None
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: version for name in PACKAGES if (version := version_of(name))},
        cpu=cpu_name(),
        cores=cores(),
        threads=threads,
        memory_bytes=memory_bytes(),
        device=kind,
        gpu=gpu,
        cuda=torch.version.cuda if on_gpu else None,
        machine_class=machine_class(kind, gpu),
        determinism="exact" if kind == "cpu" else "statistical",
    )


# --------------------------------------------------------------------------- memory of a run


def reset_peak_memory(device: str) -> None:
    """Start measuring the peak memory of the next run; on systems other than Linux, of all."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: str) -> int:
    """Return the peak since :func:`reset_peak_memory`: GPU memory on ``cuda``, else resident."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
