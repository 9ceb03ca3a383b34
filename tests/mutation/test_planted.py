"""The list of planted defects fits the code, so that it can be planted at any time."""

from pathlib import Path

import pytest
from layers import CAUGHT, LAYERS, MISSED, checks_of, chosen, read
from planted import defects
from planting import ROOT, applied, nearest_tests
from sampled import targets

DEFECTS = defects()
PACKAGE = ROOT / "dgm_bench"


def test_every_defect_has_its_place():
    """Its text occurs once, and what it becomes is Python too."""
    sources = {change.file: (PACKAGE / change.file).read_text() for change in DEFECTS.values()}
    for name, change in DEFECTS.items():
        compile(applied(change, sources[change.file]), name, "exec")
        assert change.why, name


def test_a_defect_without_a_place_is_told():
    (change, *_) = DEFECTS.values()
    for source in ("", 2 * change.text):
        with pytest.raises(SystemExit, match=r"times, not once.*bring tests/mutation"):
            applied(change, source)


def test_they_are_many_in_training_and_all_over_the_package():
    """At least twenty in training and 125 in all: what the tests are held against."""
    files = [change.file for change in DEFECTS.values()]
    assert sum(file.startswith("train/") for file in files) >= 20
    assert len(files) >= 125
    parts = {file.partition("/")[0] for file in files}
    assert parts >= {"train", "metrics", "models", "data", "verdict", "compare", "tracking"}


def test_what_the_layers_catch_is_noted():
    """Of at least forty defects; one that all four were tried on is caught by one at least."""
    listed, found = list(chosen()), read()
    assert len(listed) >= 40
    assert found.keys() <= {name for name, _, _ in listed}
    assert {said for row in found.values() for said in row.values()} <= {CAUGHT, MISSED, ""}
    unseen = [name for name, row in found.items() if {*row.values()} == {MISSED}]
    assert not unseen
    for _, cell, change in listed:
        for layer in LAYERS:
            paths = [test.partition("::")[0] for test in checks_of(layer, cell, change)]
            assert any((ROOT / path).exists() for path in paths)


def test_nearest_tests_are_there():
    nearest = nearest_tests()
    for file, tests in nearest.items():
        assert (PACKAGE / file).is_file(), file
        paths = [test.partition("::")[0] for test in tests if test.startswith("tests/")]
        assert paths, file
        assert all((ROOT / path).exists() for path in paths), file
    for change in DEFECTS.values():
        assert all((ROOT / t.partition("::")[0]).exists() for t in change.tests if "/" in t)


@pytest.mark.parametrize("folder", ["train", "metrics", "verdict"])
def test_what_decides_numbers_can_be_mutated(folder):
    """All files but those that hold no code."""
    code = [p for p in (PACKAGE / folder).rglob("*.py") if len(p.read_text().splitlines()) > 10]
    missing = {p.relative_to(PACKAGE).as_posix() for p in code} - set(targets())
    assert {Path(name).name for name in missing} <= {"__init__.py"}
