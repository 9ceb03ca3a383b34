"""What ± means is said in one place; one number is printed with one error everywhere."""

import ast
import io
import re
from collections import defaultdict
from pathlib import Path
from typing import get_args

import pytest
from factories import make_metric, make_published, make_record
from rich.console import Console

import dgm_bench
from dgm_bench import console
from dgm_bench.catalog import load_catalog
from dgm_bench.measured import error_bar, measured
from dgm_bench.report.grid import LETTERS, superscript
from dgm_bench.report.tables import render_table
from dgm_bench.spec import YES_NO, PmKind
from dgm_bench.store import Store
from dgm_bench.verdict import judge_table
from dgm_bench.wording import (
    MEASURED_LEGEND,
    ROW_STATES,
    STATES,
    RowState,
    State,
    error_remark,
    published_error,
    selection_remark,
)

PACKAGE = Path(dgm_bench.__file__).parent
RESULTS = PACKAGE.parent / "results"
RAISED = re.compile("[" + superscript(LETTERS + "0123456789") + "]")
#: Part of a protocol: it is stored in records, and has to stay as it is there.
STORED = {"metrics/bounds/surgery.py"}
#: Says what it becomes where it cannot be shown.
TRANSLATING = {"escaping.py"}


def strings_of(source):
    """The texts in code: docstrings are none."""
    tree = ast.parse(source)
    told = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }  # a text that stands alone
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told:
            yield node.value


def test_nothing_else_writes_plus_minus():
    assert list(strings_of('"""± said."""\nx = f"{1} ±{2}"\n')) == [" ±"]
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "wording.py"]
    writing = {
        path.relative_to(PACKAGE).as_posix()
        for path in files
        if any("±" in text for text in strings_of(path.read_text()))
    }
    assert writing == STORED | TRANSLATING
    templates = [path for path in (PACKAGE / "report/templates").iterdir() if path.is_file()]
    assert templates
    assert not any("±" in path.read_text() for path in templates)


def test_every_state_and_every_meaning_has_its_words():
    assert tuple(STATES) == get_args(State)
    assert tuple(ROW_STATES) == get_args(RowState)
    assert all(words.brief and words.meaning for words in STATES.values())
    for words in (STATES, ROW_STATES):
        assert len({w.mark for w in words.values()}) == len(words)
    style = (PACKAGE / "report/templates/report.css").read_text()
    assert all(f"--{words.tone}:" in style for words in STATES.values())
    assert all(published_error(make_published(pm_kind=kind)) for kind in get_args(PmKind))


@pytest.mark.parametrize(
    ("kind", "n", "remark"),
    [
        ("sd_runs", 3, ""),
        ("sd_runs", None, "unknown number of runs"),
        ("two_se_test", None, "no seed spread"),
        ("unknown", None, "is unknown"),
        ("none", None, ""),
    ],
)
def test_a_published_error_that_is_no_known_spread_is_remarked_on(kind, n, remark):
    found = error_remark(make_published(pm_kind=kind, pm_n=n))
    assert (remark in found) if remark else found == ""


def test_a_choice_on_test_is_told():
    chosen = make_published(selection="10 epochs; best of three on test")
    assert selection_remark(chosen).endswith("chosen on test (best of three on test)")
    assert selection_remark(make_published(selection="best on validation")) == ""


def test_the_error_is_the_spread_over_seeds_or_of_one_seed_two_standard_errors():
    runs = [make_record(seed=s, metrics=(make_metric(s, se=0.5),)) for s in (0, 1, 2)]
    several, single = measured(runs, "nll"), measured(runs[:1], "nll")
    assert (several.mean, several.error, several.seeds) == (1.0, 1.0, 3)
    assert (single.mean, single.sd, single.error, single.seeds) == (0.0, None, 1.0, 1)
    assert measured(runs, "other") is None
    assert error_bar(None, None) is None
    assert error_bar(0.0, 0.3) == 0.0


@pytest.fixture(scope="module")
def stored():
    store = Store(RESULTS)
    return [(table, judge_table(table, store)) for table in load_catalog().tables]


def listed(table, verdicts):
    """The measured number of each cell, as ``list`` prints it."""
    screen = Console(file=io.StringIO(), width=400, markup=False, highlight=False)
    screen.print(console.cells_view([(cell, verdicts[cell.id]) for cell in table.cells]))
    text = screen.file.getvalue()
    assert MEASURED_LEGEND in text
    head, *lines = text.splitlines()[1:]
    left, right = head.index("published") + len("published"), head.index("seeds")
    names = (f"{cell.row.id}/{cell.column.id}" for cell in table.cells)
    numbers = {line.split()[0]: line[left:right].strip() for line in lines if line.strip()}
    return {name: numbers[name] for name in names}


def tabled(table, verdicts):
    """All that ``table`` prints in each row, by the row's title."""
    found = defaultdict(list)
    text = re.sub(r"\\([^\w\s])", r"\1", render_table(table, verdicts, "markdown"))
    for line in text.splitlines():
        if line.startswith("| "):
            title, *entries = line.strip("| ").split(" | ")
            found[RAISED.sub("", title).strip()] += [e.split("<br>") for e in entries]
    return found


def test_list_and_table_print_the_same_number_with_the_same_error(stored):
    with_errors = 0
    for table, verdicts in stored:
        numbers, rows = listed(table, verdicts), tabled(table, verdicts)
        for cell in table.cells:
            number = numbers[f"{cell.row.id}/{cell.column.id}"]
            if cell.repeats or cell.column.unit == YES_NO or verdicts[cell.id].mean is None:
                continue
            assert any(number in entry for entry in rows[cell.row.title]), cell.id
            with_errors += "±" in number
    assert with_errors > 200
