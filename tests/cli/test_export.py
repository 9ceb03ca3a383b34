"""export: what the library gives as tables, in files that others read."""

import csv
import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from factories import make_record
from pandas.testing import assert_frame_equal

import dgm_bench
from dgm_bench.catalog import load_catalog
from dgm_bench.cli import cli
from dgm_bench.records import write_record

POWER = "ffjord/density/maf-5/power"


@pytest.fixture
def export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (cell,) = load_catalog().select(POWER)
    for seed, folder in ((0, "stored"), (1, "own")):
        write_record(make_record(cell, seed=seed, value=None if seed else -0.2), tmp_path / folder)

    def call(*words):
        return CliRunner().invoke(cli, ["export", *words, "--results", "own", "--stored", "stored"])

    return call


def expected(kind):
    if kind == "published":
        return dgm_bench.published("ffjord/density/*/power")
    return dgm_bench.results("ffjord/density/*/power", results="own", stored="stored")


READERS = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}


@pytest.mark.parametrize("kind", ["results", "published"])
@pytest.mark.parametrize("ending", READERS)
def test_every_format_is_read_back_as_what_the_library_gives(export, kind, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    flags = ["--published"] if kind == "published" else []
    done = export("ffjord/density/*/power", "-o", f"out.{ending}", *flags)
    wanted = expected(kind)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"wrote out.{ending}: {len(wanted)} rows, {len(wanted.columns)} columns\n"
    found = READERS[ending](f"out.{ending}")
    assert list(found) == list(wanted)
    if ending == "parquet":
        assert_frame_equal(found, wanted, check_dtype=False)
        return
    for name in ("cell", "value", "unit", "metric"):
        assert_frame_equal(found[[name]], wanted[[name]], check_dtype=False)


def test_without_a_file_csv_is_printed_and_text_is_no_formula(export, monkeypatch):
    printed = export(POWER)
    export(POWER, "-o", "out.csv")
    assert printed.stdout == Path("out.csv").read_text()
    assert export("--published", POWER, "-o", "out.csv").exit_code == 0
    (row,) = csv.DictReader(io.StringIO(Path("out.csv").read_text()))
    assert (row["value"], row["printed"]) == ("-0.14", "-0.14")
    rows = list(csv.DictReader(io.StringIO(printed.stdout)))
    assert [row["origin"] for row in rows] == ["stored", "yours"]
    assert [row["value"] for row in rows] == ["-0.2", ""]
    export(POWER, "-o", "out.json")
    assert [row["value"] for row in json.loads(Path("out.json").read_text())] == [-0.2, None]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-o", "out.cvs"), "out.cvs: ends in .cvs, which is no known format; did you mean '.csv'"),
        (("-o", "out"), "ends in nothing, which is no known format; use .csv, .json or .parquet"),
        (("-o", "own/x.csv/out.csv"), "own/x.csv"),
        (("ffjord/density/MAF-5/power",), f"did you mean '{POWER}'?"),
    ],
)
def test_mistakes_are_told_before_any_work(export, tmp_path, monkeypatch, words, told):
    (tmp_path / "own" / "x.csv").touch()
    done = export(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr


def test_a_package_that_is_missing_is_told_with_its_extra(export, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = export("-o", "out.parquet")
    assert done.exit_code == 2
    assert "pip install 'dgm-bench[parquet]'" in done.stderr
    assert not (tmp_path / "out.parquet").exists()
