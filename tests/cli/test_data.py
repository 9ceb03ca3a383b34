"""data fetch and data verify: what was done, how large it is, and what comes next."""

import pytest
from click.testing import CliRunner

from dgm_bench import data
from dgm_bench.cli import cli
from dgm_bench.cli.data_commands import NO_FILES


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words):
        return CliRunner().invoke(cli, ["data", *words, "--data-root", str(tmp_path)])

    return run


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Downloads that leave files of as many bytes as are published, and count themselves."""
    done = []

    def fetch(name, root, *, progress):
        if not data.state(name, root).loadable:
            done.append(name)
            for file in data.card(name).files:
                path = root / data.card(name).homes[0] / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as stream:
                    stream.truncate(file.size)
        home = root / (data.card(name).homes or ("",))[0]
        return [path for file in data.card(name).files for path in file.find(home)]

    monkeypatch.setattr(data, "fetch", fetch)
    return done


def test_a_fetch_says_what_it_did_how_large_it_is_and_what_comes_next(call, downloads, tmp_path):
    first = call("fetch", "mnist", "digits")
    assert first.exit_code == 0
    assert first.stderr == "mnist: fetching 12 MB\n"
    assert first.stdout.splitlines() == [
        f"mnist: fetched, 2 files of 12 MB in {tmp_path / data.card('mnist').homes[0]}",
        "next: dgm-bench plan 'ffjord/density/*/mnist'",
        f"digits: {NO_FILES}",
    ]
    again = call("fetch", "mnist")
    assert again.stdout.startswith("mnist: here already, 2 files of 12 MB in ")
    assert (again.stderr, len(again.stdout.splitlines()), downloads) == ("", 1, ["mnist"])


def test_a_quiet_fetch_has_its_answer_alone_and_a_dry_run_fetches_nothing(call, downloads):
    dry = call("fetch", "mnist", "power", "digits", "--dry-run")
    assert dry.stdout.splitlines() == [
        "mnist: would fetch 12 MB",
        "power: would fetch 0.9 GB",
        f"digits: {NO_FILES}",
    ]
    assert downloads == []
    assert call("fetch", "mnist", "-q").stderr == ""
    assert call("fetch", "mnist", "--dry-run").stdout == "mnist: here already\n"


@pytest.mark.parametrize("verb", ["fetch", "verify"])
@pytest.mark.parametrize(("wrong", "meant"), [("MNIST", "mnist"), ("mnist_static", "mnist-static"),
                                              ("freyface", "freyfaces")])  # fmt: skip
def test_a_name_that_is_wrong_is_told_before_anything_is_done(call, downloads, verb, wrong, meant):
    done = call(verb, "mnist", wrong)
    assert (done.exit_code, done.stdout, downloads) == (2, "", [])
    assert done.stderr == f"error: {wrong}: no such data set; did you mean '{meant}'?\n"


def test_verify_looks_at_all_and_ends_with_the_first_that_is_wrong(call, downloads, tmp_path):
    call("fetch", "freyfaces")  # of the right size, and nothing but zeros
    done = call("verify", "digits", "mnist", "freyfaces")
    assert done.exit_code == 2
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[-3:] == [
        f"digits: {NO_FILES}",
        "mnist: 2 of 2 files missing or not the published",
        "freyfaces: 1 of 1 files missing or not the published",
    ]
    assert sum(line.startswith("mnist/") and "missing" in line for line in lines) == 2
    (line,) = done.stderr.splitlines()
    assert "not found, and 2 others above; dgm-bench data fetch mnist" in line
    alone = call("verify", "freyfaces").stderr
    assert "; delete it, then dgm-bench data fetch freyfaces" in alone


def test_what_is_as_published_is_said(call, monkeypatch, tmp_path):
    for outcome, words in (
        ("ok", "mnist: as published, 1 file"),
        ("no checksum", "mnist: 1 file here, and no checksum is published to compare with"),
    ):
        check = data.FileCheck(tmp_path / "mnist" / "x.gz", outcome)
        monkeypatch.setattr(data, "verify", lambda *_, check=check: [check])
        done = call("verify", "mnist")
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, words)
