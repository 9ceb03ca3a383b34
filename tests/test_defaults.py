"""[defaults] of dgm-bench.toml: what counts more, which verbs read it, and setting it."""

import json
import os
import tomllib
from itertools import product
from pathlib import Path
from unittest import mock

import click
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from dgm_bench import config, config_text, defaults, overview
from dgm_bench.cli import cli
from dgm_bench.defaults import VARIABLES, Defaults

CELL = "avb/elbo/avb/digits-binary-negative-elbo"
VALUES = {key: value for key, value in config_text.EXAMPLES.items() if key != "stored"}


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """The working directory, and the user's folder of configurations; no variables."""
    here, user = tmp_path / "here", tmp_path / "user"
    for folder in (here, user / "dgm-bench"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    with mock.patch.dict(os.environ):
        os.environ["XDG_CONFIG_HOME"] = str(user)
        for variable in VARIABLES.values():
            os.environ.pop(variable, None)
        yield here / config.NAME, user / "dgm-bench" / config.NAME


def call(*words):
    return CliRunner().invoke(cli, words)


def shown():
    return json.loads(call("config", "show", "--json").stdout)


def write(file, **values):
    lines = [f"{key} = {config_text.literal(value)}" for key, value in values.items()]
    file.write_text("\n".join(["[defaults]", *lines]))


@pytest.mark.parametrize(("variable", "here", "user"), list(product([0, 1], repeat=3)))
def test_the_environment_counts_more_than_the_nearer_file_and_that_more_than_the_other(
    homes, variable, here, user
):
    near, far = homes
    if user:
        write(far, results="/far", seeds=3)
    if here:
        write(near, results="/near")
    if variable:
        os.environ["DGM_BENCH_RESULTS"] = "/variable"
    said = [("$DGM_BENCH_RESULTS", "/variable"), (str(near), "/near"), (str(far), "/far")]
    chosen = [pair for pair, is_there in zip(said, (variable, here, user), strict=True) if is_there]
    found = shown()
    built_in = ("built in", str(near.parent / "dgm-results"))
    assert (found["results"]["from"], found["results"]["value"]) == (chosen or [built_in])[0]
    assert found["seeds"]["value"] == (3 if user else 1)


def test_an_option_counts_more_than_all(homes, monkeypatch):
    looked = []
    monkeypatch.setattr(
        overview, "overview",
        lambda results, *_, **__: looked.append(str(results)) or overview.Overview([], [], 0, []),
    )  # fmt: skip
    write(homes[0], results="mine")
    Path("other").mkdir()
    for words in ((), ("--results", "other")):
        call("status", *words)
    assert looked == [str(homes[0].parent / "mine"), "other"]
    write(homes[0], seeds=2, budget="none")
    for words, seeds in (((), 2), (("--seeds", "1"), 1)):
        done = call("plan", CELL, *words, "--json")
        assert len(json.loads(done.stdout)["cells"]) == seeds
    assert call("plan", CELL, "--on", "8xh200").exit_code == 0


def test_every_default_is_an_option_of_run_or_a_variable_and_means_the_same():
    options = {option.name: option for option in cli.commands["run"].params}
    options["tracking"] = options["no_tracking"]
    for key in Defaults.model_fields.keys() - VARIABLES.keys():
        assert key in options, key
        if isinstance(options[key].type, click.Choice):
            allowed = Defaults.model_fields[key].annotation.__args__[0].__args__
            assert set(options[key].type.choices) == set(allowed)


def test_no_tracking_and_variables_reach_a_run(homes, monkeypatch):
    from dgm_bench import runner

    seen = []
    monkeypatch.setattr(runner, "run_plan", lambda plan, context, _: seen.append((plan, context)))
    write(homes[0], tracking=False, offline=True, threads=2, work="fast", tracking_uri="http://x:1")
    call("run", CELL)
    context = seen[0][1]
    assert (context.track, context.offline, context.threads) == (False, True, 2)
    assert os.environ["DGM_BENCH_WORK"] == str(homes[0].parent / "fast")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://x:1"


def test_the_library_reads_the_same_folders(homes):
    from dgm_bench.library import folders

    assert folders.own_folder(None) == homes[0].parent / "dgm-results"
    write(homes[0], results="mine", stored="none", data_root="data")
    here = homes[0].parent
    assert folders.own_folder(None) == here / "mine"
    assert folders.stored_folder(None) is None
    assert folders.data_folder(None) == here / "data"
    os.environ["DGM_BENCH_RESULTS"] = "/variable"
    assert str(folders.own_folder(None)) == "/variable"
    assert "DGM_BENCH_DATA" not in os.environ


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("budgte = '2h'", f"{config.NAME}:2: [defaults]: unknown key 'budgte'; did you mean"),
        ("budget = 'soon'", ":2: [defaults]: budget: not a time above zero: write 90s"),
        ("seeds = 0", ":2: [defaults]: seeds: Input should be greater than or equal to 1"),
        ("device = 'tpu'", ":2: [defaults]: device: Input should be 'auto', 'cpu', 'cuda'"),
    ],
)
def test_a_mistake_in_the_file_ends_every_verb_but_config_path(homes, text, told):
    homes[0].write_text(f"[defaults]\n{text}\n")
    for words in (("list",), ("config", "show"), ("cite",)):
        done = call(*words)
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
        assert told in done.stderr
    assert call("config", "path").exit_code == 0


# --------------------------------------------------------------------------- setting


def test_a_new_file_sets_nothing_explains_all_and_each_line_can_be_taken(homes):
    assert call("config", "init", "--here").exit_code == 0
    text = homes[0].read_text()
    assert tomllib.loads(text) == {"defaults": {}}
    assert {setting["from"] for setting in shown().values()} == {"built in"}
    _, _, keys = text.partition("[defaults]")
    homes[0].write_text("[defaults]" + keys.partition("# [slurm]")[0].replace("\n# ", "\n"))
    assert set(defaults.settings()) == set(Defaults.model_fields)
    again = call("config", "init", "--here")
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)


@given(st.data())
@example(None)
def test_a_value_that_is_set_is_read_and_the_rest_of_the_file_is_kept(data):
    text = config_text.new_text() + '\n[slurm]\npartition = "gpu" # ours\n'
    said = {"slurm": {"partition": "gpu"}, "defaults": {}}
    keys = data.draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6)) if data else ["seeds"]
    for number, key in enumerate(keys):
        value = VALUES[key] if number % 2 else f'a "{number}"\\'
        text = config_text.with_value(text, "defaults", key, value)
        said["defaults"][key] = value
        assert tomllib.loads(text) == said
    assert "# ours\n" in text
    assert text.startswith(config_text.HEAD)
    text = config_text.with_value(text, "ray", "ship", True)
    assert tomllib.loads(text) == {**said, "ray": {"ship": True}}


def test_what_is_set_counts_from_then_on(homes, monkeypatch):
    near, _ = homes
    for words in (("budget", "2h"), ("data_root", "data"), ("slurm.time", "90"), ("jobs", "auto")):
        assert call("config", "set", *words).exit_code == 0
    assert call("config", "set", "seeds", "3", "--here").exit_code == 0
    found = {key: entry["value"] for key, entry in shown().items() if entry["from"] != "built in"}
    assert found == {
        "budget": "2h",
        "data_root": str(near.parent / "data"),
        "jobs": "auto",
        "seeds": 3,
        "slurm.time": 90,
    }
    assert tomllib.loads(near.read_text()) == {"defaults": {"seeds": 3}}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("budgt", "2h"), "budgt: no such default; did you mean 'budget'?"),
        (("DATA-ROOT", "x"), "did you mean 'data_root'?"),
        (("slurm.partitoin", "x"), "did you mean 'slurm.partition'?"),
        (("budget", "soon"), "budget soon: not a time above zero: write 90s, 10m"),
        (("seeds", "many"), "seeds many: Input should be a valid integer"),
        (("offline", "perhaps"), "offline perhaps: Input should be a valid boolean"),
    ],
)
def test_what_cannot_be_set_is_told(homes, words, told):
    done = call("config", "set", *words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert not homes[1].exists()


def test_a_form_that_is_not_changed_here_is_left_as_it_is(homes):
    text = "defaults = { seeds = 2 }\n"
    homes[0].write_text(text)
    done = call("config", "set", "seeds", "3", "--here")
    assert (done.exit_code, "change it by hand" in done.stderr) == (2, True)
    assert homes[0].read_text() == text
