"""Figures that are kept: never of other numbers, never needed."""

import pytest

from dgm_bench.report import kept_figures
from dgm_bench.report.kept_figures import drawn_once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept_figures._tidy.cache_clear()
    return tmp_path / "dgm-bench" / "figures"


def draw(text, drawn):
    """A drawer of a text, which counts."""
    return lambda: drawn.append(text) or text


def test_a_figure_is_drawn_once():
    drawn = []
    assert [drawn_once(draw("±", drawn), "a", "b") for _ in range(3)] == ["±"] * 3
    assert drawn == ["±"]


@pytest.mark.parametrize("other", [("a",), ("a", "c"), ("ab", ""), ("b", "a"), ("a", "b", "")])
def test_a_figure_of_anything_else_is_another(other):
    drawn_once(draw("old", []), "a", "b")
    assert drawn_once(draw("new", []), *other) == "new"


def test_other_code_draws_again(monkeypatch):
    drawn_once(draw("old", []), "a")
    monkeypatch.setattr(kept_figures, "_drawn_by", lambda: "other code")
    assert drawn_once(draw("new", []), "a") == "new"


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b""])
def test_a_damaged_figure_is_drawn_again(cache, damage):
    drawn_once(draw("figure", []), "a")
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert drawn_once(draw("again", []), "a") == "again"


def test_without_a_cache_figures_are_drawn(cache):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file in the way of a folder")
    assert [drawn_once(draw("figure", []), "a") for _ in range(2)] == ["figure"] * 2


def test_figures_do_not_pile_up(cache, monkeypatch):
    monkeypatch.setattr(kept_figures, "KEPT", 3)
    for number in range(9):
        drawn_once(draw("figure", []), str(number))
        kept_figures._tidy.cache_clear()
    assert len(list(cache.iterdir())) == 3
