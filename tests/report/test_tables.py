"""Published against measured: what a table says, in every format, at every width."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from factories import make_cell, make_column, make_published, make_recipe, make_table

from dgm_bench.report.numbers import count_line, measured_number
from dgm_bench.report.tables import render_table
from dgm_bench.spec import YES_NO, Erratum, Row
from dgm_bench.verdict import Unfinished, Verdict
from dgm_bench.wording import with_error

ERRATUM = Erratum(id="mixed", cells=(), text="mixes 5 & 10 layers", source="MAF paper")
IMAGES = {"metric": "bits_per_dim", "unit": "bits/dim"}


@pytest.fixture
def table():
    maf, made = Row(id="maf", title="MAF"), Row(id="made", title="MADE")
    tan, deep = Row(id="tan", title="TAN"), Row(id="maf-10", title="MAF (10)", published=False)
    patches = make_column("patches", published=False, beside="power")
    oracle = make_column("oracle-6", published=False)
    power, mnist = make_column("power"), make_column("mnist", **IMAGES)
    seeds = {"pm_kind": "sd_runs", "pm_n": 3, "source": "tan-paper"}
    cells = [
        make_cell(maf, power, published=make_published("-0.24"), errata=(ERRATUM,)),
        make_cell(maf, mnist, published=make_published("1.89", None, "none")),
        make_cell(made, power, published=make_published("3.08", "0.03")),
        make_cell(made, mnist, published=make_published("2.04", None, "none")),
        make_cell(tan, power, published=make_published("-0.48", **seeds), recipe=None),
        make_cell(deep, power, published=make_published("-0.24")),
        make_cell(maf, patches),
        make_cell(maf, oracle),
    ]
    return make_table(cells)


@pytest.fixture
def verdicts():
    def verdict(name, state, reason="", **numbers):
        return name, Verdict(f"ffjord/density/{name}", state, reason, **numbers)

    found = [
        verdict(
            "maf/power", "inconclusive", "too close", mean=-0.2361, sd=0.004, seeds=3, more_seeds=2
        ),
        verdict("maf/mnist", "not-run", "data missing"),
        verdict("made/power", "reproduced", "within", mean=3.081, se_test=0.015, seeds=1),
        verdict("maf/patches", "measured", mean=-153.3, sd=0.2, seeds=3),
        verdict("maf/oracle-6", "measured", mean=8.2, sd=0.01, seeds=3, gap=0.034),
    ]
    return {verdict.cell: verdict for _, verdict in found}


def lines_of(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_published_stands_above_measured_and_verdict(table, verdicts):
    lines = lines_of(render_table(table, verdicts))
    row = next(i for i, line in enumerate(lines) if line.startswith("MAF -0.24 ±0.01ᵃ"))
    assert lines[row] == "MAF -0.24 ±0.01ᵃ 1.89"
    assert lines[row + 1] == "-0.236 ±0.004 - ²"
    assert lines[row + 2] == "? 3+2 seeds ¹"


def test_one_seed_shows_two_standard_errors_over_test_points(table, verdicts):
    text = render_table(table, verdicts)
    assert "3.08 ±0.03     - ⁴\n" in text
    assert "✓ 1 seed" in text
    assert "for a single seed, two standard errors" in " ".join(text.split())


def test_a_row_that_was_not_run_has_its_reason_beside_its_name(table, verdicts):
    lines = lines_of(render_table(table, verdicts))
    assert any(line.startswith("TAN ⁵ -0.48 ±0.01") for line in lines)
    assert "⁵ no recipe yet" in lines


def test_notes_hold_reasons_errata_and_the_meaning_of_plus_minus(table, verdicts):
    text = " ".join(render_table(table, verdicts).split())
    assert "¹ MAF, POWER: too close" in text
    assert "² data missing" in text
    assert "ᵃ POWER: mixes 5 & 10 layers (MAF paper)" in text
    assert "MAF (10) (maf-paper): two standard errors over the test points of one model" in text
    assert "Published ± of TAN (tan-paper): standard deviation over 3 runs" in text
    assert "↓ lower is better" in text


def test_the_same_reason_is_noted_once(table):
    assert render_table(table, {}).count("not run yet\n") == 1


def test_published_numbers_are_counted_by_state(table, verdicts):
    expected = (
        "Of 5 numbers of the paper's table: 1 reproduced, 1 inconclusive; not measured: 3 not run. "
        "Of 1 published elsewhere: 1 not run."
    )
    assert count_line(table, verdicts) == expected
    assert expected in " ".join(render_table(table, verdicts).split())


def test_what_is_unfinished_is_counted_apart_from_verdicts(table, verdicts):
    mnist = "ffjord/density/maf/mnist"
    short = Verdict(mnist, "unfinished", "cut short", unfinished=Unfinished(1.0, 2.0, 0.1))
    assert count_line(table, verdicts | {mnist: short}) == (
        "Of 5 numbers of the paper's table: 1 reproduced, 1 inconclusive; not measured: "
        "1 unfinished, 2 not run. Of 1 published elsewhere: 1 not run."
    )


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((), "? 3+2 seeds ¹"),
        ((0, 1, 2), "? 3+2 seeds, yours ¹"),
        ((1,), "? 3+2 seeds (seed 1 yours) ¹"),
        ((0, 1), "? 3+2 seeds (seeds 0-1 yours) ¹"),
        ((0, 2), "? 3+2 seeds (seeds 0, 2 yours) ¹"),
    ],
)
def test_whose_seeds_a_number_is_of_stands_below_it_and_is_explained_once(
    table, verdicts, own, said
):
    power = "ffjord/density/maf/power"
    given = verdicts | {power: replace(verdicts[power], own_seeds=own)}
    text = render_table(table, given, own="dgm-results")
    assert said in lines_of(text)
    explained = "yours: of your runs, in dgm-results; all others came with the suite."
    assert " ".join(text.split()).count(explained) == bool(own)
    cells = json.loads(render_table(table, given, "json"))["cells"]
    assert [cell["own_seeds"] for cell in cells if cell["id"] == power] == [list(own)]
    rows = csv.DictReader(io.StringIO(render_table(table, given, "csv")))
    assert next(rows)["own_seeds"] == "; ".join(map(str, own))


@pytest.mark.parametrize("format", ["text", "markdown", "latex"])
def test_ones_own_unfinished_run_is_told_beside_the_stored_number(table, verdicts, format):
    power, ahead = "ffjord/density/maf/power", Unfinished(9.99, 2.0, 0.25, early_stopping=True)
    text = render_table(
        table, verdicts | {power: replace(verdicts[power], own_unfinished=ahead)}, format
    )
    assert "yours" in text
    assert "25" in text
    assert "9.99" not in text
    assert "-0.236" in text


def test_machines_find_ones_own_unfinished_run_apart(table, verdicts):
    power, ahead = "ffjord/density/maf/power", Unfinished(9.99, 2.0, 0.25)
    given = verdicts | {power: replace(verdicts[power], own_unfinished=ahead)}
    first, second = json.loads(render_table(table, given, "json"))["cells"][:2]
    assert (first["mean"], first["unfinished_so_far"]) == (-0.2361, None)
    assert (first["own_unfinished_so_far"], first["own_unfinished_fraction"]) == (9.99, 0.25)
    assert second["own_unfinished_so_far"] is None


def test_rows_and_columns_of_ours_stand_apart(table, verdicts):
    text = render_table(table, verdicts)
    paper, rest = text.split("Further rows")
    further, ours = rest.split("Columns of ours")
    assert "PATCHES" not in paper
    assert "MAF (10)" not in paper
    assert "MAF (10)" in further
    assert "MNIST" not in further
    assert "PATCHES ↓" in ours
    assert "gap 0.034" in ours
    assert "cf. -0.24" in ours
    assert "MADE" not in ours.split("Of 5")[0]


@pytest.mark.parametrize("width", [30, 40, 60, 100, 140])
def test_text_fits_its_width_and_loses_nothing(table, verdicts, width):
    text = render_table(table, verdicts, width=width)
    assert max(map(len, text.splitlines())) <= width
    for number in ("-0.24", "3.08", "-0.48", "1.89", "2.04", "-0.236", "-153.3", "8.20"):
        assert number in text


def test_a_narrow_page_breaks_between_units(table, verdicts):
    text = render_table(table, verdicts, width=30).split("Further rows")[0]
    heads = [line for line in text.splitlines() if "↓" in line]
    assert [line.split() for line in heads] == [["POWER", "↓"], ["MNIST", "↓"]]
    assert "TAN" not in text.split("MNIST")[1]


def test_decimal_points_stand_below_each_other(table, verdicts):
    text = render_table(table, verdicts).split("Further")[0]
    numbers = [line for line in text.splitlines() if "±" in line]
    assert len({line.index(".") for line in numbers}) == 1


def unfinished(so_far=3.5, epochs=0.4, fraction=0.0013, **more):
    found = Unfinished(so_far, epochs, fraction, **more)
    return Verdict("ffjord/density/made/power", "unfinished", "cut short", unfinished=found)


def test_a_share_of_what_is_only_expected_is_marked(table, verdicts):
    """Where early stopping ends a run, nobody knows how long it would go on."""
    short = unfinished(fraction=0.13, early_stopping=True)
    text = " ".join(render_table(table, verdicts | {short.cell: short}).split())
    assert "… ~13 % done" in text
    assert "~ where early stopping was not reached" in text


def test_an_unfinished_number_is_grey(table, verdicts):
    short = unfinished()
    text = render_table(table, verdicts | {short.cell: short}, colour=True)
    (line,) = [line for line in text.splitlines() if "(3.50 so far)" in line]
    assert re.search(r"\x1b\[2m *\(3.50 so far\)", line)


@pytest.mark.parametrize("format", ["text", "markdown", "latex"])
def test_an_unfinished_run_is_shown_as_such(table, verdicts, format):
    short = unfinished()
    text = render_table(table, verdicts | {short.cell: short}, format)
    assert "(3.50 so far)" in text
    assert "… 0.13" in text.replace(r"\ldots{}", "…")
    assert "1 unfinished" in text
    assert "**(3.50" not in text
    assert "textbf{(3.50" not in text


def test_of_an_unfinished_run_without_number_or_end_the_epochs_are_shown(table, verdicts):
    short = unfinished(so_far=None, fraction=None)
    text = render_table(table, verdicts | {short.cell: short})
    assert "… 0.4 epochs" in text
    assert "so far)" not in text


def test_machines_find_no_mean_of_an_unfinished_run(table, verdicts):
    short = unfinished()
    cells = json.loads(render_table(table, verdicts | {short.cell: short}, "json"))["cells"]
    found = next(cell for cell in cells if cell["state"] == "unfinished")
    assert (found["mean"], found["seeds"], found["unfinished_so_far"]) == (None, 0, 3.5)
    assert found["unfinished_fraction"] == 0.0013
    assert all(cell["unfinished_so_far"] is None for cell in cells if cell != found)


def test_colours_only_where_they_are_asked_for(table, verdicts):
    assert "\x1b[" not in render_table(table, verdicts)
    assert "\x1b[" in render_table(table, verdicts, colour=True)


def test_markdown_is_one_table_a_part_with_the_best_published_bold(table, verdicts):
    text = render_table(table, verdicts, "markdown")
    assert text.count("| --- |") >= 3
    assert "**-0.48 ±0.01**" in text
    assert "| MADE | 3.08 ±0.03<br>3.08 ±0.03<br>✓ 1 seed ³ | 2.04<br>- ⁴ |" in text
    assert text.startswith("### Density estimation (FFJORD Table 2) (ffjord/density)")


def test_latex_is_booktabs_and_escaped(table, verdicts):
    text = render_table(table, verdicts, "latex")
    assert (
        text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\end{tabular}") == 3
    )
    assert r"\textbf{-0.48 $\pm$0.01}" in text
    assert r"mixes 5 \& 10 layers" in text
    assert r"\textsuperscript{1}" in text
    assert not set(text) & set("±↓✓ᵃ¹•")


def test_superscripts_of_several_digits_are_one_in_latex(table):
    rows = [Row(id=f"r{i}", title=f"R{i}") for i in range(11)]
    cells = [make_cell(row, published=make_published()) for row in rows]
    verdicts = {cell.id: Verdict(cell.id, "not-run", f"reason {i}") for i, cell in enumerate(cells)}
    assert r"\textsuperscript{11}" in render_table(make_table(cells), verdicts, "latex")


def test_csv_has_one_line_a_cell(table, verdicts):
    rows = list(csv.DictReader(io.StringIO(render_table(table, verdicts, "csv"))))
    assert [row["id"] for row in rows] == [cell.id for cell in table.cells]
    first = rows[0]
    assert (first["published"], first["pm"], first["published_pm_kind"]) == (
        "-0.24",
        "0.01",
        "two_se_test",
    )
    assert (first["state"], first["mean"], first["seeds"]) == ("inconclusive", "-0.2361", "3")
    assert first["errata"] == "mixed"


def test_json_has_one_line_a_cell_and_nulls(table, verdicts):
    text = render_table(table, verdicts, "json")
    body = json.loads(text)
    assert len(text.splitlines()) == len(table.cells) + 2
    first, second = body["cells"][:2]
    assert first["mean"] == -0.2361
    assert first["more_seeds"] == 2
    assert second["mean"] is None
    assert second["pm"] is None
    assert body["table"] == "ffjord/density"


def test_a_failure_is_marked_with_its_reason(table):
    cell = table.cells[0]
    text = render_table(table, {cell.id: Verdict(cell.id, "failed", "diverged: NaN at step 3")})
    assert "✗ failed ¹" in text
    assert "¹ MAF, POWER: diverged: NaN at step 3" in text


def test_numbers_show_as_many_decimals_as_their_error_needs():
    assert with_error(1.23456, None) == "1.23"
    assert with_error(1.23456, 0.3) == "1.23 ±0.30"
    assert with_error(1.23456, 0.004) == "1.235 ±0.004"
    assert with_error(1.23456, 0.0) == "1.23 ±0.00"
    assert with_error(1.23456, 1e-9) == "1.2346 ±0.0000"
    assert measured_number(Verdict("x", "not-run", ""), None) == ""


def test_columns_of_ours_without_a_run_are_listed_with_the_command(table, verdicts):
    verdicts = {name: v for name, v in verdicts.items() if v.state != "measured"}
    name = "ffjord/density/maf/oracle-6"
    missing = Verdict(name, "not-run", "data not here: fetch it")
    text = render_table(table, verdicts | {name: missing})
    assert "PATCHES: not run yet: dgm-bench run 'ffjord/density/*/" in text
    assert "ORACLE-6: data not here: fetch it" in text
    assert "which the paper does not have" not in text


def test_errata_stand_at_the_column_the_row_or_the_number_that_they_touch():
    wide, long, own = (Erratum(id=i, cells=(), text=i, source="") for i in ("wide", "long", "own"))
    touched = {
        ("maf", "power"): (wide, long, own),
        ("maf", "gas"): (long,),
        ("made", "power"): (wide,),
        ("made", "gas"): (),
    }
    cells = [make_cell(*at, published=make_published(), errata=e) for at, e in touched.items()]
    text = render_table(make_table(cells), {})
    lines = lines_of(text)
    assert "POWERᵃ ↓ GAS ↓" in lines
    assert "MAFᵇ ¹ -0.24 ±0.01ᶜ -0.24 ±0.01" in lines
    assert "MADE ¹ -0.24 ±0.01 -0.24 ±0.01" in lines
    assert lines[-3:] == ["ᵃ POWER: wide", "ᵇ long", "ᶜ POWER: own"]


def test_many_errata_keep_their_labels_apart():
    errata = [Erratum(id=str(i), cells=(), text=f"erratum {i}", source="") for i in range(27)]
    cells = [
        make_cell(f"r{i}", published=make_published(), errata=(e,)) for i, e in enumerate(errata)
    ]
    text = render_table(make_table(cells), {})
    assert "ᵃ erratum 0" in text
    assert "ᵃᵃ erratum 25" in text


def test_a_table_without_any_cell_renders():
    for format in ("text", "markdown", "latex", "csv", "json"):
        assert render_table(make_table([]), {}, format)


def test_a_table_without_published_numbers_renders():
    table = make_table(
        [make_cell(column=make_column("digits", published=False), recipe=make_recipe())]
    )
    text = render_table(table, {})
    assert "No published numbers; of ours: 1 not run." in text
    assert "DIGITS: not run yet" in text


def unpublished(ran):
    """A table of ours: two columns of one run, and a third of another; a run of the first two."""
    recipe = make_recipe()
    shared = [
        make_cell(column=make_column(name, published=False, note=note, **way), recipe=recipe)
        for name, note, way in (
            ("bound", "", {}),
            ("information", "of the training set", {"direction": "none"}),
        )
    ]
    other = make_cell(column=make_column("other", published=False, note="of another run"))
    found = {c.id: Verdict(c.id, "measured", "", mean=2.0, se_test=0.1, seeds=1) for c in shared}
    return make_table([*shared, other]), found if ran else {}


@pytest.mark.parametrize("ran", [True, False])
def test_a_table_without_published_numbers_does_not_speak_of_any(ran):
    text = " ".join(render_table(*unpublished(ran)).split())
    assert "published number" not in text.replace("No published numbers; of ours", "")
    assert "the paper" not in text
    assert "test points" not in text
    assert "↓ lower is better" in text


def test_a_column_without_direction_has_no_arrow():
    table, verdicts = unpublished(True)
    lines = lines_of(render_table(table, verdicts))
    assert "BOUND ↓ INFORMATION" in lines
    only = make_table([cell for cell in table.cells if cell.column.direction == "none"])
    assert "is better" not in render_table(only, verdicts)
    assert json.loads(render_table(only, verdicts, "json"))["cells"][0]["direction"] == "none"


@pytest.mark.parametrize("format", ["text", "markdown", "latex"])
def test_notes_of_the_columns_shown_are_printed_once(format):
    table, verdicts = unpublished(True)
    text = render_table(table, verdicts, format)
    assert text.count("INFORMATION: of the training set") == 1
    assert "of another run" not in text
    cells = [
        make_cell(column=make_column(name, note="in one hour"), published=make_published())
        for name in ("power", "gas")
    ]
    text = render_table(make_table(cells), {}, format)
    assert text.count("POWER; GAS: in one hour") == text.count("in one hour") == 1


def test_columns_of_one_run_share_the_command_that_runs_them():
    table, _ = unpublished(False)
    text = render_table(table, {})
    assert "BOUND; INFORMATION: not run yet: dgm-bench run 'ffjord/density/*/bound'" in text
    assert "OTHER: not run yet: dgm-bench run 'ffjord/density/*/other'" in text
    text = render_table(make_table(list(table.cells[:2])), {})
    assert "BOUND; INFORMATION: not run yet: dgm-bench run 'ffjord/density/*'" in text


def test_a_column_that_a_row_lacks_is_run_with_the_columns_of_all_rows():
    table, _ = unpublished(False)
    bound, _, _ = table.columns
    more = make_cell("vae", bound, recipe=make_recipe(args={"layers": 1}))
    text = render_table(make_table([*table.cells, more]), {})
    assert "BOUND; INFORMATION: not run yet: dgm-bench run 'ffjord/density/*/bound'" in text


def test_a_column_that_was_not_run_is_run_by_itself_where_another_has_a_number():
    """Within a budget the rows that were run would go first, and have nothing in that column."""
    table, _ = unpublished(False)
    bound, _, _ = table.columns
    more = make_cell("vae", bound, recipe=make_recipe(args={"layers": 1}))
    done = {more.id: Verdict(more.id, "measured", "", mean=1.0, seeds=1)}
    text = render_table(make_table([*table.cells, more]), done)
    assert "INFORMATION: not run yet: dgm-bench run 'ffjord/density/*/information'" in text


def test_latex_has_minus_signs_and_greek_letters():
    cell = make_cell(column=make_column(title="−ELBO, τ"), published=make_published())
    text = render_table(make_table([cell]), {}, "latex")
    assert r"$-$ELBO, $\tau$" in text
    assert not set(text) & set("−τ")


def test_a_property_is_printed_as_yes_or_no():
    column = make_column("one-pass", title="one pass", unit=YES_NO, direction="higher")
    cells = [make_cell(row, column, published=make_published(said, None, "none"))
             for row, said in (("maf", "0"), ("ffjord", "1"))]  # fmt: skip
    found = {cells[0].id: Verdict(cells[0].id, "worse", "checked", mean=1.0, seeds=1)}
    text = lines_of(render_table(make_table(cells), found, width=100))
    assert "one pass" in " ".join(text)
    assert "yes = 1" not in " ".join(text)
    assert "MAF no" in text
    assert any(line.startswith("yes") for line in text)
    assert not any("is better" in line for line in text)


def test_rows_without_a_run_in_our_columns_are_left_out_there(table, verdicts):
    table = make_table([*table.cells, make_cell("nice", make_column("oracle-6", published=False))])
    assert "NICE" not in render_table(table, verdicts)


def test_runs_that_are_equal_have_no_spread():
    assert with_error(3.3e-3, 5.3e-19) == "3.3e-03 ±0"
    assert with_error(0.9, 1e-17) == "0.90 ±0.00"
