"""Output that is closed, full or has few characters, and folders that are gone: one line each."""

import io
import json
import os

import pytest
from cli.commands import CLOSED, FULL, command
from factories import make_record

from dgm_bench import screen
from dgm_bench.catalog import load_catalog
from dgm_bench.cli import faults, streams
from dgm_bench.records import write_record

EMPTY = ("--results", "empty")
CELLS = ("list", "avb/*/*/digits*", *EMPTY)
TABLE = ("table", "avb/elbo", *EMPTY)
PLAN = ("plan", "avb/*", *EMPTY)


@pytest.fixture
def run(tmp_path):
    """Run a command in an empty folder; return what came of it."""

    (tmp_path / "empty").mkdir()
    (tmp_path / "x").mkdir()

    def call(*words, cwd=tmp_path, out=None, err=None, **environment):
        known = {
            "HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path),
            "PATH": os.environ["PATH"],
        }
        given = {k: v for k, v in (known | environment).items() if v is not None}
        return command(*words, cwd=cwd, out=out, err=err, environment=given)

    return call


def only(done, code=2):
    assert done.code == code, done.err
    (line,) = done.told
    return line


@pytest.mark.parametrize(
    "words",
    [
        (*CELLS, "--json"),
        ("--help",),
        TABLE,
        ("show", "avb/elbo/vae/pinwheel-negative-elbo", *EMPTY),
        ("cite", "avb"),
        ("export", "avb/*", *EMPTY),
        ("config", "show"),
        ("completion", "zsh"),
        ("data", "verify", "digits"),
    ],
)
def test_output_that_is_full_or_closed_is_told_in_one_line(run, words):
    assert "No space left on device" in only(run(*words, out=FULL))
    assert "standard output: is closed" in only(run(*words, out=CLOSED))


def test_messages_that_nobody_can_read_change_no_exit_code(run):
    assert run("list", "nothing", *EMPTY, err=FULL).code == 2
    assert run("list", "nothing", *EMPTY, err=CLOSED).code == 2
    assert run(*TABLE, err=CLOSED).code == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "words",
    [
        ("table", "discrete/gumbel", *EMPTY),
        ("table", "ffjord/density", *EMPTY),
        ("list", "ffjord/density/*", *EMPTY),
        ("compare", "two", "one", "--all"),
        PLAN,
    ],
)
def test_marks_that_an_encoding_lacks_are_written_in_ascii(run, tmp_path, encoding, words):
    for folder, value in (("one", 15.0), ("two", 15.1)):
        cells = load_catalog().select("ffjord/density/*/miniboone")
        for cell in cells if "compare" in words else ():
            write_record(make_record(cell, value=value), tmp_path / folder)
    done = run(*words, PYTHONIOENCODING=encoding, COLUMNS="80")
    assert (done.code in (0, 1), done.err) == (True, "")
    lines = done.out.encode("utf-8", "surrogateescape").decode(encoding).splitlines()
    assert max(map(len, lines)) <= 80, "a mark may take two columns of ASCII"
    assert any("---" in line or "───" in line for line in lines)
    assert "?" not in "".join(lines).replace("? inconclusive", "").replace(" ? ", "")


@pytest.mark.parametrize("console", [True, False])
def test_a_console_of_windows_is_written_to_by_characters(console, monkeypatch):
    given = io.TextIOWrapper(io.BytesIO(), "ascii")
    given.isatty = lambda: console
    monkeypatch.setattr(streams.os, "name", "nt")
    stream = streams._stream(given, io.FileIO(os.open(os.devnull, os.O_WRONLY), "w"))
    monkeypatch.undo()
    assert (stream is given) == console
    assert stream.errors == screen.IN_ASCII


def test_json_is_the_same_in_every_encoding(run):
    plain, ascii_only = (run(*CELLS, "--json", PYTHONIOENCODING=e) for e in ("utf-8", "ascii"))
    assert json.loads(plain.out) == json.loads(ascii_only.out)


@pytest.mark.parametrize("columns", ["", "x", "0", "-5", "1", "9" * 5000, "²"])
def test_columns_may_be_nonsense(run, columns):
    done = run(*TABLE, COLUMNS=columns)
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 120


def test_a_current_folder_that_is_gone_is_told(run):
    for words in (CELLS, ("doctor",)):
        assert only(run(*words, cwd=None)).startswith("error: the current folder: is gone; ")


def test_a_home_that_is_nobodys_is_told(run):
    line = only(run("plan", DGM_BENCH_DATA="~no-such-user/data"))
    assert line.startswith("error: DGM_BENCH_DATA=~no-such-user/data: there is no such home folder")


@pytest.mark.parametrize(
    "words",
    [("list", "--results"), ("report", "-o"), ("data", "list", "--data-root"), ("compare", "x")],
)  # fmt: skip
def test_a_name_that_is_too_long_is_told(run, words):
    assert "File name too long" in only(run(*words, "x" * 300))


def test_a_file_name_that_is_not_utf8_is_shown_by_its_bytes(run, tmp_path):
    name = os.fsdecode(b"caf\xe9\x1b[2J")
    line = only(run("compare", name, name))
    assert r"caf\udce9[2J: no such file or folder" in line
    (tmp_path / name / "runs").mkdir(parents=True)
    done = run("compare", name, name)
    assert (done.code, done.err) == (3, "")


@pytest.mark.parametrize("option", ["--results", "--stored"])
@pytest.mark.parametrize(
    "words", [CELLS, ("plan",), ("table", "ffjord/vi"), ("report", "-o", "page.html")]
)
def test_results_that_are_named_and_not_there_are_a_mistake(run, tmp_path, words, option):
    line = only(run(*words, option, "nowhere"))
    assert line.startswith("error: nowhere: no such results folder; name one that is there, or")
    assert line.endswith(f"leave out {option}")
    assert not (tmp_path / "nowhere").exists()


def test_results_that_are_not_there_yet_are_none_where_they_are_not_named(run, tmp_path):
    """A fresh start: the folder is made by the first run."""
    for words in (CELLS, ("plan",), ("status",)):
        done = run(*words)
        assert (done.code, done.told) == (0, [])
    (tmp_path / "there").mkdir()
    assert run(*CELLS, "--results", "there").code == 0


# --------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("x"), "dgm-bench: unexpected KeyError: 'x'; the details"),
        (MemoryError(), "memory: there is not enough; use"),
        (RecursionError("too deep"), "unexpected RecursionError: too deep;"),
        (EOFError("ran out"), "unexpected EOFError: ran out;"),
        (OSError("no number"), "unexpected OSError: no number;"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "unexpected UnicodeDecodeError:"),
        (ImportError("no module", name="sklearn.svm"), "scikit-learn: cannot be imported"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_nothing_explains_is_one_line_with_its_details_in_a_file(
    run, tmp_path, monkeypatch, error, says
):
    def fail(*_):
        raise error

    monkeypatch.setattr("dgm_bench.cli.queries.verdicts_of", fail)
    line = only(run(*CELLS), code=3)
    assert line.startswith("error: ")
    assert says in line
    (file,) = (tmp_path / "home").rglob("*.txt")
    assert str(file) in line
    assert "in fail" in file.read_text()
    if not isinstance(error, KeyError):
        return
    for words in ((*CELLS, "-v"), ("-v", *CELLS)):
        shown = run(*words)
        assert shown.code == 3
        assert "in fail" in shown.err


def test_details_are_kept_elsewhere_where_there_is_no_home_and_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(
        faults, "_folders", lambda: iter([tmp_path / "file" / "x", tmp_path / "here"])
    )
    (tmp_path / "file").touch()
    (tmp_path / "here").mkdir()
    for number in range(faults.KEPT + 5):
        (tmp_path / "here" / f"2000{number:04}.txt").touch()
    assert str(tmp_path / "here") in str(faults.unexpected(ValueError("x")))
    left = sorted(file.name for file in (tmp_path / "here").iterdir())
    assert len(left) == faults.KEPT
    assert left[0] == "20000006.txt"
    monkeypatch.setattr(faults, "_folders", lambda: iter([tmp_path / "file" / "x"]))
    assert "run it again with -v" in str(faults.unexpected(ValueError("x")))
