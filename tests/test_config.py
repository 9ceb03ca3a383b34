"""dgm-bench.toml: which file counts, what is refused, and what --engine-option changes."""

import pytest

from dgm_bench import config
from dgm_bench.config import Bytes, Seconds, section
from dgm_bench.errors import DgmBenchError
from dgm_bench.spec import Spec


class Engine(Spec):
    partition: str | None = None
    time: Seconds = 60.0
    memory: Bytes = 0
    jobs: int = 1
    setup: tuple[str, ...] = ()


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """The working directory, and the user's folder of configurations."""
    here, user = tmp_path / "here", tmp_path / "user"
    for folder in (here, user / "dgm-bench"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user))
    return here, user / "dgm-bench"


def test_the_nearer_file_counts_and_none_gives_the_defaults(homes):
    assert section("slurm", Engine) == Engine()
    for folder, name in zip(reversed(homes), ("far", "near"), strict=True):
        (folder / config.NAME).write_text(f'[slurm]\npartition = "{name}"\n')
        assert section("slurm", Engine).partition == name
    assert section("ray", Engine) == Engine()


def test_times_and_sizes_are_written_as_slurm_and_the_command_line_have_them(homes):
    (homes[0] / config.NAME).write_text(
        '[slurm]\ntime = "1h30m"\nmemory = "1.5G"\nsetup = ["module load cuda"]\n'
    )
    read = section("slurm", Engine)
    assert (read.time, read.memory, read.setup) == (5400.0, 1536 * 2**20, ("module load cuda",))
    (homes[0] / config.NAME).write_text("[slurm]\ntime = 90\nmemory = 500\n")
    assert (section("slurm", Engine).time, section("slurm", Engine).memory) == (90.0, 500 * 2**20)


def test_an_option_counts_more_than_the_file(homes):
    (homes[0] / config.NAME).write_text('[slurm]\npartition = "a"\njobs = 2\n')
    changes = {"partition": "b", "setup": '["x", "y"]', "memory": "2G"}
    read = section("slurm", Engine, changes)
    assert (read.partition, read.jobs, read.setup, read.memory) == ("b", 2, ("x", "y"), 2**31)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[slurm]\npartitoin = 'x'\n", ":2: [slurm]: unknown key 'partitoin'; did you mean"),
        ("[slurn]\n", ":1: dgm-bench.toml: unknown section 'slurn'; did you mean 'slurm'?"),
        ("slurm = 3\n", ":1: slurm is no section; write [slurm]"),
        ("[slurm]\ntime = 'soon'\n", ":2: [slurm]: time: not a time above zero: write 90s"),
        ("[slurm]\nmemory = 'much'\n", ":2: [slurm]: memory: not a size: write 8G or 500M"),
        ("[slurm\n", ":1: broken TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_line(homes, text, told):
    (homes[0] / config.NAME).write_text(text)
    with pytest.raises(DgmBenchError) as caught:
        section("slurm", Engine)
    assert f"{config.NAME}{told}" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"job": "3"}, "--engine-option job=3: no such option; did you mean 'jobs'?"),
        ({"jobs": "many"}, "--engine-option jobs=many: Input should be a valid integer"),
        ({"time": "soon"}, "--engine-option time=soon: not a time above zero: write 90s"),
    ],
)
def test_what_is_wrong_with_an_option_is_told(changes, told):
    with pytest.raises(DgmBenchError, match="^" + told.replace("?", r"\?")):
        section("slurm", Engine, changes)
