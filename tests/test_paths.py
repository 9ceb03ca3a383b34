"""Where the user's results and those that came with the suite lie."""

import pytest

from dgm_bench import paths
from dgm_bench.errors import UsageError


@pytest.fixture(autouse=True)
def tree(tmp_path, monkeypatch):
    """A source tree with results, and no variable that says otherwise."""
    for name in ("dgm_bench", "reproductions", "results"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "tree/dgm_bench")
    for name in (paths.RESULTS, paths.STORED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tree"


def test_new_results_go_beside_the_user_and_not_among_the_stored(tmp_path, tree):
    assert paths.own_results() == tmp_path / "dgm-results"
    assert paths.stored_results() == tree / "results"


@pytest.mark.parametrize("address", ["s3://bucket/results", "memory://results"])
def test_own_results_may_be_at_an_address(monkeypatch, address):
    monkeypatch.setenv(paths.RESULTS, address)
    assert paths.own_results() == address


def test_variables_name_other_folders(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.RESULTS, str(tmp_path / "mine"))
    monkeypatch.setenv(paths.STORED, str(tmp_path / "theirs"))
    with pytest.raises(UsageError, match=r"DGM_BENCH_STORED=.*theirs: no such results"):
        paths.stored_results()
    (tmp_path / "theirs").mkdir()
    assert paths.own_results() == tmp_path / "mine"
    assert paths.stored_results() == tmp_path / "theirs"
    monkeypatch.setenv(paths.STORED, "none")
    assert paths.stored_results() is None


def test_a_home_of_nobody_is_told(monkeypatch):
    monkeypatch.setenv(paths.RESULTS, "~nobody-of-this-name/results")
    with pytest.raises(UsageError, match="no such home folder"):
        paths.own_results()
