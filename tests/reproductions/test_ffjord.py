"""The FFJORD tables against a second transcription, and what runs of them by default."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from math import log

import pytest

from dgm_bench.catalog import load_catalog, runnable
from dgm_bench.data import card
from dgm_bench.spec import YES_NO, Cell

# FFJORD Table 2 with the error bars of its Table 6, as printed: negative log-likelihood.
DENSITY = """
         power        gas          hepmass      miniboone    bsds300        mnist cifar10
real-nvp -0.17±0.01   -8.33±0.14   18.71±0.02   13.55±0.49   -153.28±1.78   1.06  3.49
glow     -0.17±0.01   -8.15±0.40   18.92±0.08   11.35±0.07   -155.07±0.03   1.05  3.35
ffjord   -0.46±0.01   -8.59±0.12   14.92±0.08   10.43±0.04   -157.40±0.19   0.99  3.40
made     3.08±0.03    -3.56±0.04   20.98±0.02   15.59±0.50   -148.85±0.28   2.04  5.67
maf      -0.24±0.01   -10.08±0.02  17.70±0.02   11.75±0.44   -155.69±0.28   1.89  4.31
tan      -0.48±0.01   -11.19±0.02  15.12±0.02   11.01±0.48   -157.03±0.07   -     -
maf-ddsf -0.62±0.01   -11.96±0.33  15.09±0.40   8.86±0.15    -157.73±0.04   -     -
"""

# FFJORD Table 3, as printed: negative ELBO.
VI = """
          mnist       omniglot     freyfaces  caltech
no-flow   86.55±0.06  104.28±0.39  4.53±0.02  110.80±0.46
planar    86.06±0.31  102.65±0.42  4.40±0.06  109.66±0.42
iaf       84.20±0.17  102.41±0.04  4.47±0.05  111.58±0.38
sylvester 83.32±0.06  99.00±0.04   4.45±0.04  104.62±0.29
ffjord    82.82±0.01  98.33±0.09   4.39±0.01  104.03±0.43
"""

# MAF paper, Table 1, and the papers of TAN and NAF, as printed: log-likelihood.
LOG_LIKELIHOODS = """
            power       gas         hepmass      miniboone    bsds300
gaussian    -7.74±0.02  -3.58±0.75  -27.93±0.02  -37.24±1.07  96.67±0.25
made        -3.08±0.03  3.56±0.04   -20.98±0.02  -15.59±0.50  148.85±0.28
made-mog    0.40±0.01   8.47±0.02   -15.15±0.02  -12.27±0.47  153.71±0.28
real-nvp-5  -0.02±0.01  4.78±1.80   -19.62±0.02  -13.55±0.49  152.97±0.28
real-nvp-10 0.17±0.01   8.33±0.14   -18.71±0.02  -13.84±0.52  153.28±1.78
maf-5       0.14±0.01   9.07±0.02   -17.70±0.02  -11.75±0.44  155.69±0.28
maf-10      0.24±0.01   10.08±0.02  -17.73±0.02  -12.24±0.45  154.93±0.28
maf-mog-5   0.30±0.01   9.59±0.02   -17.39±0.02  -11.68±0.44  156.36±0.28
tan-2018    0.60±0.01   12.06±0.02  -13.78±0.02  -11.01±0.48  159.80±0.07
maf-ddsf-5  0.62±0.01   11.91±0.13  -15.09±0.40  -8.86±0.15   157.73±0.04
maf-ddsf-10 0.60±0.02   11.96±0.33  -15.32±0.23  -9.01±0.01   157.43±0.30
"""

# MAF paper, Table 2, unconditional models, as printed: log-likelihood in logit space, in nats.
IMAGES = """
            mnist         cifar10
gaussian    -1366.9±1.4   2367±29
made        -1380.8±4.8   147±20
made-mog    -1038.5±1.8   -397±21
real-nvp-5  -1323.2±6.6   2576±27
real-nvp-10 -1370.7±10.1  2568±26
maf-5       -1300.5±1.7   2936±27
maf-10      -1313.1±2.0   3049±26
maf-mog-5   -1100.3±1.6   2911±26
"""

TABULAR = ("power", "gas", "hepmass", "miniboone", "bsds300")
CATALOG = load_catalog()
CELLS = {cell.id: cell for cell in CATALOG.cells}
WITH_RECIPE = [cell for cell in CATALOG.cells if cell.recipe]


def transcription(text: str) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Return ``{(row, column): (value, pm)}`` of a table written in plain text."""
    head, *lines = text.strip().splitlines()
    found = {}
    for line in lines:
        row, *numbers = line.split()
        for column, number in zip(head.split(), numbers, strict=True):
            if number != "-":
                value, _, pm = number.partition("±")
                found[row, column] = (value, pm or None)
    return found


def density(row: str, column: str) -> Cell:
    return CELLS[f"ffjord/density/{row}/{column}"]


def own_cells(table: str) -> dict[tuple[str, str], Cell]:
    """Return the cells of the paper's own rows and columns."""
    return {
        (cell.row.id, cell.column.id): cell
        for cell in CATALOG.table(table).cells
        if cell.published and cell.row.published and cell.column.published
    }


@pytest.mark.parametrize(
    ("table", "text", "count"), [("ffjord/density", DENSITY, 45), ("ffjord/vi", VI, 20)]
)
def test_the_papers_own_numbers_are_as_printed(table, text, count):
    cells, expected = own_cells(table), transcription(text)
    assert len(cells) == len(expected) == count
    for key, (value, pm) in expected.items():
        published = cells[key].published
        assert str(published.value) == value
        assert (None if published.pm is None else str(published.pm)) == pm


@pytest.mark.parametrize(("key", "printed"), list(transcription(LOG_LIKELIHOODS).items()))
def test_other_papers_numbers_have_the_sign_of_the_table(key, printed):
    published = density(*key).published
    assert published.value == -Decimal(printed[0])
    assert published.value.as_tuple().exponent == -2
    assert published.pm == Decimal(printed[1])


@pytest.mark.parametrize(("key", "printed"), list(transcription(IMAGES).items()))
def test_bits_per_dim_follow_from_the_nats_that_are_printed(key, printed):
    nats, error = map(float, printed)
    dim, constant = {"mnist": (784, -0.502), "cifar10": (3072, 5.7405)}[key[1]]
    published = density(*key).published
    assert float(published.value) == pytest.approx(-nats / (dim * log(2)) + constant, abs=0.0051)
    if published.pm is not None:
        assert float(published.pm) == pytest.approx(error / (dim * log(2)), abs=0.0005)
    assert printed[0] in published.note


def test_the_single_flow_stands_beside_the_table():
    cell = density("ffjord-single", "mnist")
    assert str(cell.published.value) == "1.05"
    assert not cell.row.published


@pytest.mark.parametrize("paper", CATALOG.papers, ids=lambda paper: paper.id)
def test_every_number_has_a_source_with_a_meaning(paper):
    sources = {source.id: source for source in paper.sources}
    used = set()
    for cell in (cell for table in paper.tables for cell in table.cells):
        if cell.published:
            source = sources[cell.published.source]
            used.add(source.id)
            assert cell.published.selection
            assert source.citation
            assert source.where
            assert cell.published.pm_kind == (
                "none" if cell.published.pm is None else source.pm_kind
            )
            assert cell.published.pm is None or cell.published.pm_kind in ("sd_runs", "two_se_test")
    assert used == set(sources)


def test_what_a_pm_means():
    for row in ("real-nvp", "made", "maf", "tan", "maf-5", "tan-2018"):
        assert density(row, "gas").published.pm_kind == "two_se_test"
    for row in ("glow", "ffjord", "maf-ddsf"):
        assert density(row, "gas").published.pm_kind == "sd_runs"
    assert density("ffjord", "gas").published.pm_n == 3
    assert density("maf-ddsf", "gas").published.pm_n is None


MODELS_BEHIND = [
    ("real-nvp", "real-nvp-10", ("power", "gas", "hepmass", "bsds300")),
    ("real-nvp", "real-nvp-5", ("miniboone",)),
    ("maf", "maf-10", ("power", "gas", "cifar10")),
    ("maf", "maf-5", ("hepmass", "miniboone", "bsds300", "mnist")),
    ("maf-ddsf", "maf-ddsf-5", ("power", "hepmass", "miniboone", "bsds300")),
    ("maf-ddsf", "maf-ddsf-10", ("gas",)),
]


@pytest.mark.parametrize(("row", "behind", "columns"), MODELS_BEHIND)
def test_a_mixed_row_says_which_model_each_number_is_from(row, behind, columns):
    for column in columns:
        mixed, single = density(row, column), density(behind, column)
        assert mixed.published.value == single.published.value
        assert mixed.published.model == single.published.model
        assert "on test" in mixed.published.selection
        assert "on test" not in single.published.selection
        assert mixed.same_as == behind
        assert mixed.recipe.content_hash == single.recipe.content_hash


def test_images_of_rows_that_are_other_models_there_have_recipes_of_their_own():
    for row in ("real-nvp", "glow", "ffjord"):
        for column in ("mnist", "cifar10"):
            cell = density(row, column)
            assert cell.same_as == f"{row}-multiscale"
            assert "images:" in cell.recipe.stages[0].model.name


def test_every_published_number_of_the_paper_can_be_run():
    cells = own_cells("ffjord/density").values()
    assert len(cells) == 45
    assert all(runnable(cell) == (True, "") for cell in cells)


# FFJORD Table 1, as printed; its lines of several models are split here.
APPROACHES = """
vae            1101
gan            1101
autoregressive 1010
planar         0110
maf            1010
tan            1010
nice           1110
real-nvp       1110
glow           1110
planar-cnf     1110
ffjord         1111
"""


def test_the_ticks_of_the_table_of_approaches_are_as_printed():
    table = CATALOG.table("ffjord/approaches")
    columns = [column.id for column in table.columns]
    assert all(column.unit == YES_NO for column in table.columns)
    expected = dict(line.split() for line in APPROACHES.strip().splitlines())
    found = {cell.id.split("/", 2)[2]: str(cell.published.value) for cell in table.cells}
    assert found == {f"{row}/{column}": tick for row, ticks in expected.items()
                     for column, tick in zip(columns, ticks, strict=True)}  # fmt: skip


def test_a_row_of_the_table_of_approaches_is_one_run():
    for row in CATALOG.table("ffjord/approaches").rows:
        cells = [
            cell for cell in CATALOG.cells if cell.id.startswith(f"ffjord/approaches/{row.id}/")
        ]
        assert len(cells) == 4
        assert len({cell.recipe.content_hash for cell in cells}) == 1


CONVOLUTIONAL = ("real-nvp-multiscale", "glow-multiscale", "ffjord-multiscale", "ffjord-single")
CONVOLUTIONAL += ("ffjord-two-hidden",)


def kind(column: str) -> str:
    if column in ("mnist", "cifar10", "digits"):
        return "image"
    return "plane" if card(column).dim == 2 else "table"


def test_every_row_runs_on_every_kind_of_column():
    table = CATALOG.table("ffjord/density")
    for row in table.rows:
        cells = [cell for cell in table.cells if cell.row.id == row.id and runnable(cell)[0]]
        kinds = {kind(cell.column.data) for cell in cells}
        assert kinds == ({"image"} if row.id in CONVOLUTIONAL else {"image", "plane", "table"})


# NSF paper, second-hand: log-likelihood.
SPLINES = """
                   power     gas        hepmass     miniboone  bsds300
nsf-coupling       0.64±0.01 13.09±0.02 -14.75±0.03 -9.67±0.47 157.54±0.28
nsf-autoregressive 0.66±0.01 13.09±0.02 -14.01±0.03 -9.22±0.48 157.31±0.28
"""


@pytest.mark.parametrize(("key", "printed"), list(transcription(SPLINES).items()))
def test_numbers_of_later_models_have_the_sign_of_the_table(key, printed):
    published = density(*key).published
    assert (published.value, published.pm) == (-Decimal(printed[0]), Decimal(printed[1]))
    assert not density(*key).row.published
    assert "second-hand" in {s.id: s.note for s in CATALOG.paper("ffjord").sources}["nsf"]


@pytest.mark.parametrize(("column", "value"), [("mnist", "0.97"), ("cifar10", "3.38")])
def test_rnode_is_at_second_hand(column, value):
    published = density("rnode", column).published
    assert (str(published.value), published.pm) == (value, None)
    assert not density("rnode", column).row.published
    assert "second-hand" in {s.id: s.note for s in CATALOG.paper("ffjord").sources}["rnode"]


def test_where_paper_and_code_disagree_both_recipes_exist():
    for column in TABULAR:
        layers = [density(row, column).recipe.stages[0].model.args["layer"]
                  for row in ("ffjord", "ffjord-concat")]  # fmt: skip
        assert layers == ["concatsquash", "concat"]
        decays = [density(row, column).recipe.stages[0].optimizer.weight_decay
                  for row in ("ffjord", "ffjord-decay")]  # fmt: skip
        assert decays == [0.0, 1e-6]
    filters = [density(row, "cifar10").recipe.stages[0].model.args["filters"]
               for row in ("ffjord-multiscale", "ffjord-two-hidden")]  # fmt: skip
    assert filters == [[64] * 3, [64] * 2]


@pytest.mark.parametrize(
    ("erratum", "touched", "untouched"),
    [
        ("tan-superseded", "density/tan/power", "density/tan-2018/power"),
        ("mixed-depths-real-nvp", "density/real-nvp/miniboone", "density/real-nvp-5/miniboone"),
        ("mixed-depths-maf", "density/maf/cifar10", "density/maf/digits"),
        ("mixed-depths-maf-ddsf", "density/maf-ddsf/gas", "density/maf-ddsf-10/gas"),
        ("table-6-caption", "density/made/power", "density/ffjord/power"),
        ("mixtures-left-out", "density/made/mnist", "density/real-nvp/mnist"),
        ("weight-decay-no-op", "density/glow/gas", "density/ffjord/mnist"),
        ("end-time-not-trained", "density/ffjord/gas", "density/glow/gas"),
        ("selected-on-test", "density/ffjord-single/mnist", "density/ffjord/power"),
        ("feature-filter", "density/maf-5/hepmass", "density/maf-5/power"),
        ("adam-or-adamax", "vi/ffjord/caltech", "vi/iaf/caltech"),
    ],
)
def test_errata_are_attached_to_the_cells_they_touch(erratum, touched, untouched):
    assert erratum in [e.id for e in CELLS[f"ffjord/{touched}"].errata]
    assert erratum not in [e.id for e in CELLS[f"ffjord/{untouched}"].errata]


def test_the_superseded_tan_numbers_come_with_the_published_ones():
    (erratum,) = (e for e in CATALOG.paper("ffjord").errata if e.id == "tan-superseded")
    for column in TABULAR:
        assert str(density("tan-2018", column).published.value) in erratum.text


def test_bsds300_patches_stand_beside_the_papers_column():
    columns = {column.id: column for column in CATALOG.table("ffjord/density").columns}
    assert columns["bsds300-patches"].beside == "bsds300"
    assert not columns["bsds300-patches"].published
    assert [c for c in columns if columns[c].published] == [*TABULAR, "mnist", "cifar10"]


def test_every_column_of_ours_has_a_run_in_every_row_of_ours():
    columns = [c.id for c in CATALOG.table("ffjord/density").columns if not c.published]
    assert len(columns) == 15
    for column in columns:
        for row in ("gaussian", "made", "real-nvp-5", "maf-5", "ffjord"):
            assert density(row, column).recipe
        assert density("real-nvp", column).same_as == "real-nvp-5"
        assert density("maf", column).recipe == density("maf-5", column).recipe


# --------------------------------------------------------------------------- the default plan


def test_small_runs_come_first_and_fit_ten_minutes():
    from dgm_bench.planner import Speed, expected_seconds

    recipes = {c.recipe.content_hash: c for c in WITH_RECIPE if c.same_as is None}
    first = [c for c in recipes.values() if c.priority == 30 and c.paper == "ffjord"]
    density = {(cell.row.id, cell.column.id) for cell in first if cell.table == "density"}
    rows, columns = ("made", "real-nvp-5", "maf-5", "ffjord"), ("digits", "8gaussians", "oracle-8")
    assert density == set(product(rows, columns))
    posteriors = {(cell.row.id, cell.column.id) for cell in first if cell.table == "vi"}
    rows = ("no-flow", "planar", "iaf", "sylvester-orthogonal", "ffjord")
    assert posteriors == set(product(rows, ["digits-binary"]))
    assert len(first) == len(density) + len(posteriors)
    assert sum(expected_seconds(cell.recipe.cost, Speed.cpu(1)) for cell in first) < 600


def test_the_gaussian_and_then_the_rest_of_ours_come_before_real_data():
    def priorities(row: str, real: bool) -> set[int]:
        files = [
            c for c in WITH_RECIPE if c.row.id == row and bool(card(c.column.data).files) == real
        ]
        return {cell.priority for cell in files}

    assert priorities("gaussian", real=False) == {20}
    assert priorities("maf-5", real=False) == {30, 10}
    for row in ("gaussian", "made", "maf-5", "maf-10", "ffjord"):
        assert priorities(row, real=True) == {0}


# ------------------------------------------------------------------------------ Table 3


def vi(row, column):
    return CELLS[f"ffjord/vi/{row}/{column}"]


def test_every_published_cell_of_the_vi_table_has_a_recipe():
    cells = own_cells("ffjord/vi").values()
    assert len(cells) == 20
    assert all(cell.recipe is not None for cell in cells)


def test_the_sylvester_row_is_the_best_of_its_kinds():
    kinds = {"mnist": "orthogonal", "omniglot": "householder", "freyfaces": "triangular",
             "caltech": "householder"}  # fmt: skip
    for column, kind in kinds.items():
        assert vi("sylvester", column).same_as == f"sylvester-{kind}"


@pytest.mark.parametrize(
    ("row", "optimizer", "lr", "patience"),
    [
        ("no-flow", "adamax", 5e-4, 100),
        ("ffjord", "adamax", 5e-4, 35),
        ("ffjord-adam", "adam", 1e-3, 100),
    ],
)
def test_text_and_code_have_recipes_of_their_own(row, optimizer, lr, patience):
    (stage,) = vi(row, "caltech").recipe.stages
    assert (stage.optimizer.name, stage.optimizer.lr) == (optimizer, lr)
    assert (stage.stopping.patience, stage.stopping.patience_from) == (patience, 100)
    assert (stage.batch_size, stage.stopping.max_epochs) == (100, 2_000)
    assert stage.objective.args == {"warmup_epochs": 100, "steps_per_epoch": 41}


@pytest.mark.parametrize(
    ("column", "activation", "hidden", "flows", "rank"),
    [
        ("mnist", "softplus", [1024, 1024], 2, 64),
        ("omniglot", "softplus", [512, 512], 5, 20),
        ("freyfaces", "softplus", [512, 512], 2, 20),
        ("caltech", "tanh", [2048], 1, 20),
    ],
)
def test_posterior_dynamics_are_those_of_ffjord_table_5(column, activation, hidden, flows, rank):
    args = vi("ffjord", column).recipe.stages[0].model.args["posterior_args"]
    assert (args["activation"], args["hidden"]) == (activation, hidden)
    assert (args["flows"], args["rank"], args["kind"]) == (flows, rank, "rank")
    assert (args["rtol"], args["atol"]) == (1e-5, 1e-5)
