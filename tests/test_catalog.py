"""The catalogue: selecting cells, and what it says about wrong declarations."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from decimal import Decimal
from pathlib import Path

import pytest
from cpu_time import YARDSTICK

from dgm_bench.catalog import default_folder, load_catalog, runnable
from dgm_bench.errors import DeclarationError, UsageError

PAPER = """\
id = "toy"
title = "A toy"
authors = "Nobody"
year = 2020
url = "https://example.org"
bibtex = "@misc{toy}"

[[sources]]
id = "here"
citation = "Nobody, 2020"
where = "Table 1"
pm_kind = "sd_runs"
pm_n = 3
selection = "validation"

[[errata]]
id = "slip"
table = "first"
rows = ["deep"]
text = "a slip"
source = "its author"

[[tables]]
id = "first"
title = "First"
where = "Table 1"
metric = "nll"
direction = "lower"
columns = [
  { id = "power", title = "POWER", data = "power", unit = "nats" },
  { id = "digits", title = "digits", data = "digits", unit = "bits/dim", published = false },
]
rows = [
  { id = "deep", title = "Deep", recipe = "deep", args = { layers = 3 } },
  { id = "mixed", title = "Mixed" },
]
cells = [
  { row = "deep", column = "power", value = -1.50, pm = 0.10, source = "here" },
  { row = "mixed", column = "power", value = 2.0, source = "here", same_as = "deep" },
]

[[tables.grids]]
rows = ["deep"]
columns = ["digits"]
priority = 4

[[tables]]
id = "second"
title = "Second"
where = "Table 2"
metric = "nll"
direction = "lower"
columns = [{ id = "power", title = "POWER", data = "power", unit = "nats" }]
rows = [{ id = "deep", title = "Deep" }]

[[tables.cells]]
row = "deep"
column = "power"
value = 3
source = "here"
"""

RECIPES = """\
from dgm_bench.spec import *


def deep(data: str, layers: int) -> Recipe:
    stage = Stage(
        data=DataSpec(name=data),
        model=ModelSpec(name="maf:MAF", args={"layers": layers}),
        optimizer=OptimizerSpec(lr=1e-4),
        batch_size=100,
        stopping=StoppingSpec(patience=30),
    )
    return Recipe(name=data, stages=(stage,))
"""


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the toy paper, with texts replaced, and its folder."""

    def writer(*replacements: tuple[str, str], recipes: str = RECIPES) -> Path:
        text = PAPER
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / "toy").mkdir(exist_ok=True)
        (tmp_path / "toy" / "paper.toml").write_text(text)
        (tmp_path / "toy" / "recipes.py").write_text(recipes)
        return tmp_path

    return writer


@pytest.fixture
def catalog(write):
    return load_catalog(write())


def line_of(text: str) -> int:
    return PAPER[: PAPER.index(text)].count("\n") + 1


# --------------------------------------------------------------------------- reading


def test_a_paper_becomes_tables_and_cells(catalog):
    assert [cell.id for cell in catalog.cells] == [
        "toy/first/deep/power",
        "toy/first/mixed/power",
        "toy/first/deep/digits",
        "toy/second/deep/power",
    ]
    assert [table.name for table in catalog.tables] == ["toy/first", "toy/second"]


def test_a_number_keeps_its_printed_digits_and_takes_its_meaning_from_the_source(catalog):
    published = catalog.cells[0].published
    assert str(published.value) == "-1.50"
    assert (published.pm, published.pm_kind, published.pm_n) == (Decimal("0.10"), "sd_runs", 3)
    assert published.selection == "validation"
    assert catalog.cells[1].published.pm_kind == "none"
    assert catalog.cells[2].published is None


def test_same_as_shares_recipe_and_priority(catalog):
    deep, mixed, digits, second = catalog.cells
    assert mixed.recipe == deep.recipe
    assert deep.recipe.stages[0].model.args == {"layers": 3}
    assert digits.priority == 4
    assert second.recipe is None


def test_errata_touch_published_cells_only(catalog):
    deep, mixed, digits, second = catalog.cells
    assert [erratum.id for erratum in deep.errata] == ["slip"]
    assert mixed.errata == digits.errata == second.errata == ()
    assert catalog.papers[0].errata[0].cells == ("toy/first/deep/power",)


PRODUCT = """\
columns = ["digits"]
priority = 4

[[tables.products]]
data = [
  { id = "moons", title = "two moons", data = "moons", unit = "nats", published = false },
  { id = "rings", title = "four rings", data = "rings", unit = "nats" },
]
metrics = [
  { id = "nll", title = "NLL" },
  { id = "time", title = "time", metric = "seconds", unit = "s", split = "train" },
]
changes = [{ id = "rings-nll", note = "hard", published = true }]
grids = [
  { rows = ["mixed"], metrics = ["time"] },
  { rows = ["*e*"], metrics = ["n*"], priority = { rings = 7 } },
]
"""
MIXED_CELL = '{ row = "mixed", column = "power", value = 2.0, source = "here", same_as = "deep" },'
TAIL = 'columns = ["digits"]\npriority = 4\n'


def test_a_product_is_each_data_set_with_each_metric(write):
    table = load_catalog(write((TAIL, PRODUCT))).tables[0]
    columns = {column.id: column for column in table.columns[2:]}
    assert list(columns) == ["moons-nll", "moons-time", "rings-nll", "rings-time"]
    assert columns["moons-time"].title == "two moons: time"
    of = [(c.data, c.metric, c.unit, c.split, c.published, c.note) for c in columns.values()]
    assert of == [
        ("moons", "nll", "nats", None, False, ""),
        ("moons", "seconds", "s", "train", False, ""),
        ("rings", "nll", "nats", None, True, "hard"),
        ("rings", "seconds", "s", "train", True, ""),
    ]
    cells = [(cell.row.id, cell.column.id, cell.priority) for cell in table.cells[3:]]
    assert cells == [
        ("mixed", "moons-time", 0),
        ("deep", "moons-nll", 0),
        ("mixed", "moons-nll", 0),
        ("mixed", "rings-time", 0),
        ("deep", "rings-nll", 7),
        ("mixed", "rings-nll", 7),
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('id = "moons", ', "", "product: an entry of data has no id; add id = ..."),
        ('title = "NLL"', 'name = "NLL"', "product: an entry of metrics has no title"),
        ('id = "rings", t', 'id = "moons", t', "product: duplicate data 'moons'"),
        ('split = "train"', 'spilt = "train"', "unknown key 'spilt'; did you mean 'split'?"),
        ("grids = [", "grid = [", "product: unknown key 'grid'; did you mean 'grids'?"),
        ('"rings-nll"', '"ring-nll"', "unknown column 'ring-nll'; did you mean 'rings-nll'?"),
        ('["time"]', '["tmie"]', "unknown metric 'tmie'; did you mean 'time'?"),
        ('["mixed"]', '["mxied"]', "product: unknown row 'mxied'; did you mean 'mixed'?"),
        ('["*e*"]', '["*x"]', "product: unknown row '*x'"),
        ("{ rings = 7 }", "{ ring = 7 }", "unknown data 'ring'; did you mean 'rings'?"),
        ('id = "moons", ', 'id = "moons", x = 1, ', "column moons-nll: unknown key 'x'"),
        ('id = "nll", ', 'id = "nll", unit = 3, ', "column moons-nll: unit: Input should be"),
    ],
)
def test_a_wrong_product_is_told_with_its_line(write, old, new, said):
    assert old in PRODUCT
    folder = write((TAIL, PRODUCT.replace(old, new, 1)))
    with pytest.raises(DeclarationError) as caught:
        load_catalog(folder)
    message = str(caught.value)
    first, last = line_of(TAIL) + 3, line_of(TAIL) + PRODUCT.count("\n")
    line = int(message.removeprefix(f"{folder / 'toy' / 'paper.toml'}:").split(":")[0])
    assert first <= line <= last
    assert said in message


def test_a_product_may_not_repeat_a_column(write):
    clash = PRODUCT.replace('id = "moons"', 'id = "moons-nll"')
    column = '{ id = "moons-nll-nll", title = "x", data = "moons", unit = "nats" }'
    with pytest.raises(DeclarationError, match="duplicate column moons-nll-nll"):
        load_catalog(write((TAIL, clash), ('{ id = "digits"', f'{column},\n  {{ id = "digits"')))


def test_rows_of_a_grid_may_borrow_from_different_rows(write):
    grid = '\n[[tables.grids]]\nrows = ["mixed"]\ncolumns = ["*"]\nsame_as = { mixed = "deep" }\n'
    table = load_catalog(write((TAIL, TAIL + grid), (MIXED_CELL, ""))).tables[0]
    assert {cell.column.id: cell.same_as for cell in table.cells if cell.row.id == "mixed"} == {
        "power": "deep",
        "digits": "deep",
    }
    wrong = grid.replace("{ mixed =", "{ mxied =")
    with pytest.raises(DeclarationError, match="same_as: unknown row 'mxied'; did you mean"):
        load_catalog(write((TAIL, TAIL + wrong), (MIXED_CELL, "")))


def test_a_table_without_columns_is_an_error(write):
    columns = 'columns = [{ id = "power", title = "POWER", data = "power", unit = "nats" }]'
    with pytest.raises(DeclarationError, match="table second has no columns; add columns = "):
        load_catalog(write((columns, "")))


def test_a_recipe_may_leave_columns_out(write):
    recipes = RECIPES.replace(
        "    stage =", "    if data == 'digits':\n        return None\n    stage ="
    )
    digits = load_catalog(write(recipes=recipes)).cells[2]
    assert digits.recipe is None
    assert runnable(digits) == (False, "no recipe yet")


def test_the_projects_own_declarations_load():
    assert default_folder().name == "reproductions"
    assert "ffjord" in [paper.id for paper in load_catalog().papers]


# --------------------------------------------------------------------------- selecting


def test_every_paper_has_its_tox_environment():
    root, tox = default_folder(), ConfigParser()
    tox.read(root.parent / "tox.ini")
    (section,) = [name for name in tox.sections() if name.startswith("testenv:reproduce-{")]
    names = section.removeprefix("testenv:reproduce-{").removesuffix("}").split(",")
    assert sorted(names) == sorted(path.parent.name for path in root.glob("*/paper.toml"))
    settings = tox[section]["set_env"].split("\n")[1:]
    assert settings == [f"{name}: PAPER = {name}" for name in names]


def test_select_by_shell_patterns_in_declared_order_each_once(catalog):
    found = catalog.select("toy/second/*", "toy/*/deep/*")
    assert [cell.id for cell in found] == [catalog.cells[i].id for i in (0, 2, 3)]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("toy/first/deep/powr", "did you mean 'toy/first/deep/power'?"),
        ("toy/frist/*/digits", "did you mean 'toy/first/*/digits'?"),
        ("toy/first", "did you mean 'toy/first/*'?"),
        ("TOY/*", "did you mean 'toy/*'?"),
        ("toy/First/*", "did you mean 'toy/first/*'?"),
        ("power", "did you mean '*/power'?"),
        ("deep/powr", "did you mean '*/deep/power'?"),
        ("zebra", "see dgm-bench list"),
    ],
)
def test_a_pattern_without_match_is_an_error_with_a_suggestion(catalog, pattern, hint):
    with pytest.raises(UsageError) as caught:
        catalog.select("toy/*", pattern)
    assert str(caught.value) == f"{pattern}: matches no cell; {hint}"


def test_an_unknown_table_is_an_error_with_a_suggestion(catalog):
    assert catalog.table("toy/second").title == "Second"
    with pytest.raises(UsageError, match=r"toy/secnd: no such table; did you mean 'toy/second'\?"):
        catalog.table("toy/secnd")


def test_an_unknown_paper_is_an_error(catalog):
    with pytest.raises(UsageError, match="tyo: no such paper; did you mean 'toy'"):
        catalog.paper("tyo")


# --------------------------------------------------------------------------- wrong declarations

DEEP = '{ row = "deep", column = "power", value = -1.50, pm = 0.10, source = "here" }'
MIXED = '{ row = "mixed", column = "power", value = 2.0, source = "here", same_as = "deep" }'
WRONG = [
    # what is replaced, by what, where it is reported, what is said
    ("year = 2020", "year = = 2020", "year", "broken TOML: Invalid value"),
    ("year = 2020", "yaer = 2020", "year", "unknown key 'yaer'; did you mean 'year'?"),
    (
        'pm_kind = "sd_runs"',
        'pm_kind = "guess"',
        'pm_kind = "sd_runs"',
        "source here: pm_kind: Input should be 'sd_runs'",
    ),
    ('where = "Table 1"\npm', "pm", "[[sources]]", "source here has no where"),
    (
        ', source = "here" },\n  { row = "mixed"',
        ' },\n  { row = "mixed"',
        DEEP,
        "cell deep power has no source; add source = ...",
    ),
    (
        'value = 3\nsource = "here"',
        "value = 3",
        "[[tables.cells]]",
        "cell deep power has no source",
    ),
    (
        'pm = 0.10, source = "here"',
        'pm = 0.10, source = "hree"',
        DEEP,
        "cell deep power: unknown source 'hree'; did you mean 'here'?",
    ),
    (
        '{ row = "mixed", c',
        '{ row = "mxied", c',
        MIXED,
        "unknown row 'mxied'; did you mean 'mixed'?",
    ),
    (
        '"mixed", column = "power"',
        '"mixed", column = "pwoer"',
        MIXED,
        "unknown column 'pwoer'; did you mean 'power'?",
    ),
    (
        '{ row = "mixed", c',
        '{ row = "deep", c',
        MIXED,
        f"duplicate cell deep power; line {line_of(DEEP)} has it already",
    ),
    (
        'same_as = "deep"',
        'same_as = "mixed"',
        MIXED,
        "cell mixed power: same_as: row 'mixed' has no recipe for power",
    ),
    ('same_as = "deep"', 'same_as = "depe"', MIXED, "same_as: unknown row 'depe'"),
    ("value = 2.0", 'value = "2.0"', MIXED, "cell mixed power: value: '2.0' is not a number"),
    (
        'value = 2.0, source = "here"',
        'value = 2.0, pm = 0.1, pm_kind = "none", source = "here"',
        MIXED,
        "cell mixed power has a pm, and source 'here' says there is none",
    ),
    ("value = 2.0", "value = nan", MIXED, "cell mixed power: value: "),
    ("value = 2.0", "value = 1e999", MIXED, "cell mixed power: value: NaN is not a finite"),
    ("value = 2.0", f"value = {'9' * 400}", MIXED, "is not a finite number; mend that line"),
    ("value = 2.0", "value = 2.0, pmm = 1", MIXED, "cell mixed power: unknown key 'pmm'"),
    ('columns = ["digits"]', 'columns = ["digit"]', "[[tables.grids]]", "unknown column 'digit'"),
    (
        'rows = ["deep"]\ntext',
        'rows = ["dep"]\ntext',
        "[[errata]]",
        "erratum slip: unknown row 'dep'",
    ),
    (
        "[[tables.grids]]",
        '[[tables.claims]]\nid = "more"\ntitle = "more"\nwhere = "figure 1"\nrow = "deep"\n'
        'relation = "higher"\nthan = "mixed"\ncolumns = ["digits"]\n\n[[tables.grids]]',
        "[[tables.grids]]",
        "claim more deep: 'mixed' has no cell in 'digits'; add it to a grid",
    ),
    ('table = "first"', 'table = "fist"', "[[errata]]", "erratum slip: unknown table 'fist'"),
    (
        'rows = ["deep"]\ntext',
        'columns = ["digits"]\ntext',
        "[[errata]]",
        "erratum slip touches no published number",
    ),
    ('recipe = "deep"', 'recipe = "depe"', '{ id = "deep"', "row deep: unknown recipe 'depe'"),
    ("layers = 3", "layer = 3", '{ id = "deep"', "row deep: deep('power'): TypeError"),
    ('{ id = "mixed"', '{ id = "deep"', '{ id = "mixed"', "duplicate row deep; line"),
    ('id = "toy"', 'id = "tyo"', 'id = "toy"', "the paper's id is 'tyo'; its folder is 'toy'"),
]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5000, "nested too deeply"),
        ("{ a = " * 5000, "nested"),
        ("9" * 5000, "digits"),
        ("{ a" + ".a" * 10**5, "dots"),
    ],
)
def test_what_a_parser_gives_up_on_is_an_error_of_the_file(write, text, said):
    folder = write(("year = 2020", f"year = {text}"))
    with pytest.raises(DeclarationError, match=rf"paper.toml:\d+: .*{said}.*; "):
        load_catalog(folder)


@pytest.mark.parametrize(("old", "new", "where", "said"), WRONG, ids=[wrong[3] for wrong in WRONG])
def test_a_wrong_declaration_names_file_and_line(write, old, new, where, said):
    folder = write((old, new))
    with pytest.raises(DeclarationError) as caught:
        load_catalog(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'toy' / 'paper.toml'}:{line_of(where)}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("recipes", "line", "said"),
    [("def deep(:\n", 1, "SyntaxError"), ("\nx = 1\ny = x / 0\n", 3, "ZeroDivisionError")],
)
def test_broken_recipes_name_file_and_line(write, recipes, line, said):
    folder = write(recipes=recipes)
    with pytest.raises(DeclarationError) as caught:
        load_catalog(folder)
    assert str(caught.value).startswith(f"{folder / 'toy' / 'recipes.py'}:{line}: {said}")


def test_a_function_that_returns_no_recipe_is_an_error(write):
    folder = write(recipes="def deep(data, layers):\n    return layers\n")
    line = line_of('{ id = "deep"')
    with pytest.raises(DeclarationError, match=f":{line}: row deep: .* returned 3, not a recipe"):
        load_catalog(folder)


def test_a_folder_without_papers_is_an_error(tmp_path):
    with pytest.raises(DeclarationError, match="holds no"):
        load_catalog(tmp_path)


def test_every_published_number_leads_to_where_it_stands():
    for paper in load_catalog().papers:
        links = {source.id: source.url for source in paper.sources}
        cells = [cell for table in paper.tables for cell in table.cells if cell.published]
        named = {cell.published.source for cell in cells}
        unlinked = {source for source in named if not links[source].startswith("https://")}
        assert unlinked == set(), paper.id
        assert paper.url.startswith("https://")


def test_reading_and_judging_everything_is_light():
    code = YARDSTICK + (
        "import sys\n"
        "from dgm_bench.catalog import load_catalog, runnable\n"
        "assert all(isinstance(runnable(cell)[0], bool) for cell in load_catalog().cells)\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'matplotlib', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "spent = pieces_of_work()\n"
        "assert spent < 110, spent\n"  # it is 72 for 2,000 cells, and 14 once they are kept
    )
    subprocess.run([sys.executable, "-c", code], check=True)
