"""Completion: what a shell is offered, and that it comes soon."""

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dgm_bench import data
from dgm_bench.catalog import load_catalog
from dgm_bench.cli import cli
from dgm_bench.cli.completion import SHELLS, next_parts
from dgm_bench.cli.options import COMPLETE

IDS = [cell.id for cell in load_catalog().cells]
POWER = "ffjord/density/maf-5/power"

#: What a shell does with the answers: it types what they have in common.
common = os.path.commonprefix


@settings(max_examples=40)
@given(st.sampled_from(IDS), st.data())
def test_typing_on_leads_to_every_cell_and_to_nothing_else(cell, draws):
    typed = cell[: draws.draw(st.integers(0, len(cell)))]
    offered = next_parts(IDS, typed)
    assert offered
    for name in offered:
        assert name.startswith(typed)
        assert any(known.startswith(name) for known in IDS)
        assert name in IDS or name.endswith("/")
    assert [name for name in offered if cell.startswith(name)]
    assert len(offered) > 1 or offered == [cell] or offered[0] in IDS
    for _ in range(20):
        if offered == [cell]:
            return
        (nearest,) = {name for name in offered if cell == name or
                      (name.endswith("/") and cell.startswith(name))}  # fmt: skip
        if nearest == cell:
            return
        offered = next_parts(IDS, nearest)
    raise AssertionError(f"{cell} is never offered")


@settings(max_examples=40)
@given(st.text("abm/*-?5", max_size=12))
def test_what_is_offered_fits_what_is_typed(typed):
    for name in next_parts(IDS, typed):
        assert any(fnmatchcase(known, f"{name}*") for known in IDS)
    assert next_parts(IDS, "ffjord/density/*/bsds300-p") == ["ffjord/density/*/bsds300-patches"]


def complete(*words, **environment):
    """What is offered for the last word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_WORDS", " ".join(["dgm-bench", *words]))
        patch.setenv("COMP_CWORD", str(len(words)))
        done = CliRunner(env={COMPLETE: "bash_complete"}).invoke(cli, prog_name="dgm-bench")
    assert done.exit_code == 0
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("sh",), ["show"]),
        (("show", "ffjord/density/maf-5/po"), [POWER]),
        (("list", "iwae/l"), ["iwae/likelihood/vae-1-1/"]),
        (("run", "--paper", "v"), ["vqvae2"]),
        (("table", "ffjord/v"), ["ffjord/vi"]),
        (("cite", "iwae"), ["iwae", "iwae/likelihood/vae-1-1/"]),
        (("cite", "ffjord/v"), ["ffjord/vi", "ffjord/vi/iaf/"]),
        (("data", "fetch", "power", "p"), ["pinwheel"]),
        (("run", "--engine", "s"), ["slurm"]),
        (("config", ""), ["show", "path", "init", "set"]),
    ],
)
def test_verbs_options_and_names_are_offered(words, some):
    found = complete(*words)
    assert set(some) <= set(found)
    assert all(name.startswith(words[-1]) for name in found)


def test_all_data_sets_and_weights_are_offered():
    assert complete("data", "verify", "") == [card.name for card in data.cards()]


def test_broken_declarations_offer_nothing_and_say_nothing(monkeypatch):
    from dgm_bench import catalog
    from dgm_bench.errors import DeclarationError

    def fail():
        raise DeclarationError("x", "is broken")

    monkeypatch.setattr(catalog, "load_catalog", fail)
    assert complete("show", "ffj") == [""]


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_are_printed_for_each_shell(shell, monkeypatch):
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    scripts = [CliRunner().invoke(cli, ["completion", *words], prog_name="dgm-bench").stdout
               for words in ([], [shell])]  # fmt: skip
    assert scripts[0] == scripts[1]
    assert f"{COMPLETE}={shell}_complete" in scripts[0]
    monkeypatch.setenv("SHELL", "/bin/dash")
    done = CliRunner().invoke(cli, ["completion"])
    assert (done.exit_code, "use bash, zsh or fish" in done.stderr) == (2, True)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_a_cell_without_what_is_slow_to_import(tmp_path):
    command = tmp_path / "dgm-bench"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -X importtime -m dgm_bench "$@"\n')
    command.chmod(0o755)
    script = """
    eval "$(dgm-bench completion bash 2>/dev/null)"
    COMP_WORDS=(dgm-bench show ffjord/density/maf-5/po) COMP_CWORD=2
    _dgm_bench_completion dgm-bench
    echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}",
                   "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == POWER
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "dgm_bench.catalog" in imported
    assert not {"torch", "mlflow", "pandas"} & imported
