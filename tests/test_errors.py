"""Errors of the system are told as such: nothing is said of what is in the file."""

import errno
import gzip
import os

import pytest

from dgm_bench.errors import DataError, DgmBenchError, ResultsError, explained, reading, refused
from dgm_bench.escaping import shown


def test_every_number_of_the_system_has_a_reason_and_a_remedy_that_deletes_nothing():
    for number in errno.errorcode:
        error = refused(ResultsError, "runs/a.json", "read", OSError(number, os.strerror(number)))
        assert error.thing == "runs/a.json"
        assert os.strerror(number) in error.reason
        assert error.remedy
        assert "delete" not in error.remedy


def test_what_may_not_be_written_has_another_remedy_than_what_may_not_be_read():
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert "readable" in refused(DataError, "x", "read", denied).remedy
    assert "writable" in refused(DataError, "x", "written", denied).remedy


def test_reading_tells_what_the_system_refuses_and_leaves_formats_to_the_caller(tmp_path):
    with pytest.raises(ResultsError, match="Is a directory"), reading(tmp_path, ResultsError):
        tmp_path.read_bytes()
    (tmp_path / "a.gz").write_bytes(b"no gzip")
    with pytest.raises(gzip.BadGzipFile), reading(tmp_path / "a.gz", DataError):
        gzip.decompress((tmp_path / "a.gz").read_bytes())


def test_an_error_that_names_its_file_is_explained_and_another_is_not(tmp_path):
    with pytest.raises(OSError, match="File name too long") as caught:
        (tmp_path / ("x" * 300)).read_bytes()
    assert "x" * 300 in explained(caught.value).thing
    assert "shorter" in explained(caught.value).remedy
    assert explained(OSError("a format")) is None


def test_a_current_folder_that_is_gone_is_named(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OSError, match="No such file") as caught:
        os.getcwd()
    assert explained(caught.value).thing == "the current folder"


def test_an_error_is_one_line_without_control_characters():
    error = DgmBenchError("a\x1b[31m\nb\udcff", "is\x9b2J\r\u202ewrong")
    assert str(error) == r"a[31m b\udcff: is2J wrong"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("here/runs/a.json", "runs/a.json"),
        ("here", "{root}/here"),
        ("hereafter/a", "{root}/hereafter/a"),
        ("home/data", "~/data"),
        ("elsewhere", "{root}/elsewhere"),
    ],
)
def test_a_path_is_told_as_people_write_it(tmp_path, monkeypatch, path, says):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    said = says.format(root=tmp_path)
    assert shown(tmp_path / path) == said
    assert DgmBenchError(tmp_path / path, "is wrong").thing == said
    assert DgmBenchError(str(tmp_path / path), "is wrong").thing == str(tmp_path / path)


def test_a_path_is_told_where_the_current_folder_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert shown(tmp_path / "x") == str(tmp_path / "x")
    assert shown("x") == "x"
