"""show: one cell on one screen, and names that mean several or none."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import make_budget, make_code, make_data, make_record

from dgm_bench.catalog import load_catalog
from dgm_bench.cli import cli
from dgm_bench.records import write_record

POWER, DIGITS = "ffjord/density/maf-5/power", "ffjord/density/maf-5/digits"


@pytest.fixture
def show(tmp_path, monkeypatch):
    monkeypatch.setenv("DGM_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "100")
    folders = [str(tmp_path / name) for name in ("own", "stored")]
    for folder in folders:
        Path(folder).mkdir()

    def call(name, *words):
        results = ["--results", folders[0], "--stored", folders[1]]
        return CliRunner().invoke(cli, ["show", name, *results, *words])

    return call


@pytest.fixture
def runs(tmp_path):
    """Three runs of a published cell, one of them in the user's own folder."""
    (cell,) = load_catalog().select(POWER)
    for seed, value in enumerate([-0.20, -0.22, -0.24]):
        folder = tmp_path / ("own" if seed == 2 else "stored")
        code = make_code(git_commit=f"{seed}" * 40)
        budget = make_budget(train_seconds=3600.0 * (seed + 1))
        write_record(make_record(cell, seed=seed, value=value, code=code, budget=budget), folder)
    return cell


def screen(done):
    """Its text without the ends of lines and what fills them."""
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def test_everything_about_a_cell_is_on_the_screen(show, runs):
    text = screen(show(POWER))
    published = runs.published
    for part in (
        f"published {published.value} ±{published.pm}",
        "two standard errors over the test points of one model",
        "MAF paper, Table 1; Papamakarios, Pavlakou and Murray, NIPS 2017",
        "https://arxiv.org/abs/1705.07057",
        f"selection {published.selection}",
        "negative log-likelihood of an example",
        "lower is better",
        "measured -0.22 ±0.02 over 3 seeds",
        "verdict ▲ better",
        "1,659,917 train",
        "learning rate 0.0001",
        "validations (every epoch) without improvement",
        "on one H200",
        "dgm-bench data fetch power",
        f"then dgm-bench run {POWER} --seeds 3 --budget ",
        f"dgm-bench cite {POWER}",
    ):
        assert part in text, part
    for seed, (whose, value) in enumerate([("stored", "-0.20"), ("stored", "-0.22"),
                                           ("yours", "-0.24")]):  # fmt: skip
        hours = f"{seed + 1}.0 h" if seed else "60 min"
        line = f"seed {seed} {value} ±0.01, complete, {whose}, 2026-01-01, {hours} of training"
        assert line in text
        assert f"commit {str(seed) * 8}" in text


def test_the_interval_is_drawn_beside_the_margin(show, runs):
    lines = [line.split()[-1] for line in show(POWER).stdout.splitlines() if line.strip()]
    margin, measured = (line for line in lines if line.startswith("·"))
    assert margin.index("┿") > measured.index("●"), "the better of two likelihoods is lower"
    assert measured.index("├") < measured.index("●") < measured.index("┤")


def test_json_has_what_the_screen_has(show, runs):
    found = json.loads(show(POWER, "--json").stdout)
    assert (found["id"], found["state"], found["published"]) == (POWER, "better", -0.14)
    assert found["low"] < found["difference"] < found["high"]
    assert found["url"] == "https://arxiv.org/abs/1705.07057"
    assert [r["origin"] for r in found["records"]] == ["stored", "stored", "yours"]
    assert [r["value"] for r in found["records"]] == [-0.20, -0.22, -0.24]
    assert all(r["counts"] for r in found["records"])
    assert found["recipe"]["stages"][0]["optimizer"]["lr"] == 1e-4
    assert found["reason_not"] == "data not here: dgm-bench data fetch power"
    assert found["command"] == "dgm-bench data fetch power"
    assert re.fullmatch(
        rf"dgm-bench run {POWER} --seeds 3 --budget \d+h --results \S+", found["then"]
    )


def test_what_would_decide_is_told_with_its_command(show, tmp_path):
    text = screen(show(DIGITS))
    assert "published nothing" in text
    assert f"command dgm-bench run {DIGITS}" in text
    assert "to decide" not in text
    text = screen(show("ffjord/approaches/vae/trains-on-data"))
    assert "to decide one finished run, about" in text
    (cell,) = load_catalog().select("ffjord/approaches/vae/trains-on-data")
    write_record(make_record(cell, value=1.0), tmp_path / "own")
    assert "✓ reproduced" in screen(show(cell.id))


def test_one_seed_asks_for_two_more_by_the_command(show, tmp_path, monkeypatch):
    from dgm_bench import data

    here = data.DataState("here", "")
    monkeypatch.setattr(data, "state", lambda *_: here)
    (cell,) = load_catalog().select("ffjord/density/made/miniboone")
    write_record(make_record(cell, value=15.0), tmp_path / "own")
    found = json.loads(show(cell.id, "--json").stdout)
    assert found["state"] == "inconclusive"
    assert found["to_decide"].startswith("2 more seeds, about")
    assert "--seeds 3 --missing" in found["command"]


def test_seeds_that_do_not_count_are_missing(show, tmp_path, monkeypatch):
    """Of data that is not the published one: what is advised would do nothing else."""
    from dgm_bench import data
    from dgm_bench.cli.queries import complete_runs
    from dgm_bench.store import Store

    monkeypatch.setattr(data, "state", lambda *_: data.DataState("here", ""))
    (cell,) = load_catalog().select("ffjord/density/made/power")
    for seed in range(3):
        seen = make_data("power", verified=seed == 2)
        write_record(make_record(cell, value=3.0, seed=seed, data=seen), tmp_path / "own")
    found = json.loads(show(cell.id, "--json").stdout)
    assert "--seeds 3 --missing" in found["command"]
    store = Store(tmp_path / "own")
    assert complete_runs([cell], store) == {(cell.recipe.content_hash, 2)}
    (other,) = load_catalog().select("ffjord/density/made/digits")
    changed = cell.model_copy(update={"modified": ("optimizer.lr=1",)})
    assert len(complete_runs([changed, other], store)) == 3


def test_the_end_of_a_name_is_enough(show):
    assert POWER in show("maf-5/power").stdout
    for name, listed in (("maf-5/p*", 2), ("ffjord/density/made/*", 22), ("power", 0)):
        done = show(name)
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1
        assert ("name one of them, such as" in done.stderr) == bool(listed or name == "power")
        if listed:
            assert f"matches {listed} cells" in done.stderr
            assert sum(" not run" in line for line in done.stdout.splitlines()) == listed


def test_a_name_that_is_wrong_is_told_what_it_may_mean(show):
    done = show("ffjord/density/MAF_5/power")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"did you mean '{POWER}'?" in done.stderr


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_nothing_is_wider_than_the_screen(show, runs, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in (
        POWER,
        "ffjord/vi/sylvester-householder/caltech",
        "vi/iaf/caltech",
    ):
        assert max(map(len, show(name).stdout.splitlines())) <= columns
    if columns > 40:  # the drawing is whole: both values, and the end of the margin
        drawing = show(POWER).stdout
        assert all(drawing.count(mark) == 1 for mark in "┿●├┤")
        assert "]" in drawing
