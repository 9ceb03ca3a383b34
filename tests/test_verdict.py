"""Verdicts: every state, the margin, and what the reasons say."""

import shutil

import pytest
from factories import (
    make_cell,
    make_code,
    make_column,
    make_data,
    make_metric,
    make_published,
    make_recipe,
    make_record,
    make_table,
)

from dgm_bench.catalog import default_folder, load_catalog
from dgm_bench.compare import compare
from dgm_bench.errors import DeclarationError
from dgm_bench.records import Outcome, write_record
from dgm_bench.spec import YES_NO, ImageEvaluationSpec, Row
from dgm_bench.stats import VariancePrior, t_quantile
from dgm_bench.store import Store
from dgm_bench.verdict import Pool, judge, judge_table, neighbour_gap, not_run, pool_variances

SCALE = ("power", "nll", "nats")


def pool(sigma=0.1, df=8.0):
    return Pool({SCALE: VariancePrior(sigma**2, df)})


def runs(cell, *values, **overrides):
    return [make_record(cell, value=v, seed=s, **overrides) for s, v in enumerate(values)]


def repeated(**overrides):
    rows = ("made", "maf", "realnvp")
    return [run for row in rows for run in runs(make_cell(row), 1.0, 1.1, 1.2, **overrides)]


@pytest.fixture
def cell():
    return make_cell(published=make_published("10.00", "0.20"))


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ((10.05, 9.95, 10.0), "reproduced"),
        ((11.0, 11.1, 10.9), "worse"),
        ((9.0, 9.1, 8.9), "better"),
        ((10.2, 10.25, 10.15), "inconclusive"),
    ],
)
def test_state_follows_from_interval_and_margin(cell, values, state):
    verdict = judge(cell, runs(cell, *values), pool())
    assert verdict.state == state
    assert verdict.delta == pytest.approx(0.2)
    low, high = verdict.interval
    assert low < verdict.difference < high
    assert verdict.difference == pytest.approx(10.0 - sum(values) / 3)


def test_numbers_keep_seed_spread_and_test_error_apart(cell):
    verdict = judge(cell, runs(cell, 9.9, 10.1), pool())
    assert verdict.mean == pytest.approx(10.0)
    assert verdict.sd == pytest.approx(0.1 * 2**0.5)
    assert verdict.se == pytest.approx(0.1)
    assert verdict.se_test == pytest.approx(0.005)
    assert verdict.seeds == 2


def test_higher_is_better_turns_the_sign_around():
    column = make_column(direction="higher")
    cell = make_cell(column=column, published=make_published("10.00"))
    assert judge(cell, runs(cell, 11.0, 11.1, 10.9), pool()).state == "better"
    assert judge(cell, runs(cell, 9.0, 9.1, 8.9), pool()).state == "worse"


def test_a_better_number_is_an_alarm(cell):
    assert "leaked" in judge(cell, runs(cell, 9.0, 9.1, 8.9), pool()).reason


def test_inconclusive_says_how_many_more_seeds(cell):
    verdict = judge(cell, runs(cell, 10.1), pool())
    assert verdict.state == "inconclusive"
    assert verdict.more_seeds >= 1
    assert f"{verdict.more_seeds} more seed" in verdict.reason


def test_one_seed_without_known_spread_decides_nothing(cell):
    verdict = judge(cell, runs(cell, 10.0), Pool())
    assert verdict.state == "inconclusive"
    assert verdict.more_seeds == 2
    assert "no spread known" in verdict.reason
    assert verdict.interval is None


def test_one_seed_with_a_pool_can_be_far_off(cell):
    verdict = judge(cell, runs(cell, 12.0), pool())
    assert verdict.state == "worse"
    assert "other models' runs on the same data" in verdict.reason


def fitted(column="power", published="10.00", unit="nats"):
    """A cell of a Gaussian, which takes no step."""
    recipe = make_recipe("gaussian", data=column, model="gaussian:Gaussian", max_steps=0)
    column = make_column(column, unit=unit)
    return make_cell("gaussian", column, published=make_published(published), recipe=recipe)


@pytest.mark.parametrize(
    ("value", "state"), [(10.009, "reproduced"), (10.011, "worse"), (9.989, "better")]
)
@pytest.mark.parametrize("known", [Pool(), pool(1.0)], ids=["nothing", "others"])
def test_one_run_decides_where_nothing_is_trained(value, state, known):
    """The margin is the floor, however much trained models on the same data differ."""
    cell = fitted()
    verdict = judge(cell, runs(cell, value), known)
    assert (verdict.state, verdict.delta, verdict.more_seeds) == (state, 0.01, None)
    assert verdict.interval == pytest.approx((10 - value, 10 - value))
    assert "nothing is trained" in verdict.reason
    assert "other models" not in verdict.reason


def test_noise_of_several_seeds_counts_where_nothing_is_trained():
    cell = fitted("mnist", "2.010", "bits/dim")
    sure = judge(cell, runs(cell, 2.0111, 2.0112, 2.0113), pool())
    unsure = judge(cell, runs(cell, 2.010, 2.012, 2.014), pool())
    assert (sure.state, unsure.state) == ("reproduced", "inconclusive")
    low, high = unsure.interval
    # 2.92 is the 95 % quantile of Student's t with 2 degrees of freedom.
    assert high - low == pytest.approx(2 * 2.92 * 0.002 / 3**0.5, rel=1e-3)


def test_what_is_not_trained_says_nothing_of_what_is():
    recipes = [make_recipe(args={"i": i}, max_steps=0) for i in range(3)]
    still = [run for r in recipes for run in runs(make_cell(recipe=r), 1.0, 1.0, 1.001)]
    another = make_record(recipe=make_recipe("another", args={"layers": 77}))
    prior = pool_variances([*repeated(), *still]).prior(another, "nll", "nats")
    assert prior.variance**0.5 == pytest.approx(0.1, rel=0.01)


def test_a_classifier_that_judges_is_trained():
    recipe = make_recipe(max_steps=0)
    judged = recipe.evaluation.model_copy(update={"judge": ImageEvaluationSpec(samples=10)})
    assert recipe.fitted
    assert not recipe.model_copy(update={"evaluation": judged}).fitted
    assert not make_recipe().fitted


def test_own_spread_never_widens_the_margin_that_judges_it(cell):
    calm, noisy = (judge(cell, runs(cell, 10 + x, 10.0, 10 - x), Pool()) for x in (0.001, 1.0))
    assert (calm.delta, noisy.delta) == (0.01, 0.01)
    assert (calm.state, noisy.state) == ("reproduced", "inconclusive")


def test_nor_does_it_where_others_are_stored(cell):
    """The pool has the judged recipe too: of its five the other four alone say what is usual."""
    noisy = runs(cell, *(10.03 + 0.05 * z for z in (-1, -0.6, -0.2, 0.2, 0.6, 1)))
    others = [
        run
        for row in ("made", "realnvp", "glow", "tan")
        for run in runs(make_cell(row), 1.0, 1.01, 1.02, recipe=make_recipe(row, args={"of": row}))
    ]
    alone, all_five = (pool_variances(kept) for kept in (others, [*others, *noisy]))
    verdicts = [judge(cell, noisy, known) for known in (alone, all_five)]
    assert verdicts[0].delta == verdicts[1].delta == pytest.approx(0.02, abs=0.005)
    assert verdicts[0].interval == verdicts[1].interval


def test_published_seed_spread_sets_the_margin_where_no_pool_does():
    cell = make_cell(published=make_published("10.00", "0.20", "sd_runs", pm_n=3))
    values = runs(cell, 10.0, 10.01, 9.99)
    assert judge(cell, values, Pool()).delta == pytest.approx(0.4)
    assert judge(cell, values, pool(0.1)).delta == pytest.approx(0.2)


def test_margin_is_at_least_half_the_last_digit():
    cell = make_cell(published=make_published("10", None))
    assert judge(cell, runs(cell, 10.3, 10.31, 10.29), pool(0.01)).delta == 0.5


def test_margin_is_at_least_the_floor_of_the_metric():
    cell = make_cell(published=make_published("10.0000", None))
    assert judge(cell, runs(cell, 10.0, 10.0), pool(1e-6)).delta == 0.01


def test_margin_keeps_the_ranking(cell):
    verdict = judge(cell, runs(cell, 10.0, 10.0, 10.01), pool(), neighbour_gap=0.1)
    assert verdict.delta == pytest.approx(0.05)
    assert "ranking not resolvable" in verdict.reason


def test_published_seed_spread_widens_the_interval_only_with_its_number_of_runs():
    widths = {}
    for n in (3, None):
        cell = make_cell(published=make_published("10.00", "0.20", "sd_runs", pm_n=n))
        verdict = judge(cell, runs(cell, 10.0, 10.1, 9.9), pool())
        widths[n] = verdict.interval[1] - verdict.interval[0]
    assert widths[3] > 1.5 * widths[None]
    assert "unknown number of runs" in verdict.reason


def test_published_seed_spread_is_welchs():
    """Both means are over three runs, with spreads of 0.1 and 0.2."""
    cell = make_cell(published=make_published("10.00", "0.20", "sd_runs", pm_n=3))
    low, high = judge(cell, runs(cell, 10.0, 10.1, 9.9), Pool()).interval
    ours, theirs = 0.1**2 / 3, 0.2**2 / 3
    freedom = (ours + theirs) ** 2 / (ours**2 / 2 + theirs**2 / 2)
    half = t_quantile(0.95, freedom) * (ours + theirs) ** 0.5
    assert (low, high) == (pytest.approx(-half), pytest.approx(half))


def test_reasons_say_which_way_the_difference_is():
    cell = make_cell(published=make_published("10.00", "0.20"))
    for values in ((9.0,), (9.0, 9.1, 8.9)):
        worse = tuple(20 - value for value in values)
        assert "1 nats better" in judge(cell, runs(cell, *values), Pool()).reason
        assert "1 nats worse" in judge(cell, runs(cell, *worse), Pool()).reason


def test_error_over_test_points_is_not_added(cell):
    wide = make_cell(published=make_published("10.00", "9.00"))
    values = (10.0, 10.1, 9.9)
    narrow_verdict, wide_verdict = (judge(c, runs(c, *values), pool()) for c in (cell, wide))
    assert wide_verdict.interval == narrow_verdict.interval
    assert "no seed spread" in wide_verdict.reason


def test_a_choice_made_on_test_is_named_where_it_matters():
    rule = "best of 5 and 10 layers on test"
    cell = make_cell(published=make_published("10.00", selection=rule))
    assert rule in judge(cell, runs(cell, 12.0, 12.1), pool()).reason
    assert rule not in judge(cell, runs(cell, 10.0, 10.0, 10.0), pool()).reason


def test_runs_of_before_a_metric_was_measured_are_no_failure():
    cell = make_cell(published=None)
    older = make_record(cell, metrics=(make_metric(1.0, name="other"),))
    verdict = judge(cell, [older])
    assert (verdict.state, verdict.mean) == ("not-run", None)
    assert verdict.reason == f"not run since {cell.metric} is measured"
    without = make_record(cell, metrics=(make_metric(None, name=cell.metric),))
    assert judge(cell, [without]).state == "failed"
    newer = make_record(cell, value=2.0, seed=1)
    assert judge(cell, [older, newer]).mean == 2.0


def test_cells_without_records_are_not_run():
    assert judge(make_cell(), []).reason == "not run yet"
    assert judge(make_cell(recipe=None), []).reason == "no recipe yet"
    assert judge(make_cell(recipe=None, no_recipe="grid not published"), []).reason.startswith(
        "grid"
    )
    assert not_run(make_cell(), "data missing").reason == "data missing"


def test_cells_of_ours_are_measured():
    cell = make_cell()
    verdict = judge(cell, runs(cell, 1.0, 1.2))
    assert verdict.state == "measured"
    assert verdict.mean == pytest.approx(1.1)
    assert verdict.reason == "2 seeds, no published number"


def test_the_gap_to_the_entropy_is_shown():
    cell = make_cell()
    gap = make_metric(0.25, name="gap")
    record = make_record(cell, metrics=(make_metric(3.0), gap))
    verdict = judge(cell, [record])
    assert verdict.gap == 0.25
    assert "0.25 nats from the entropy" in verdict.reason


def test_all_runs_broken_is_failed_with_the_reason(cell):
    outcome = Outcome(status="diverged", reason="loss is NaN at step 3", hint="lower the rate")
    verdict = judge(cell, [make_record(cell, value=None, outcome=outcome)], pool())
    assert verdict.state == "failed"
    assert verdict.reason == "diverged: loss is NaN at step 3; lower the rate"


def test_a_broken_seed_among_others_is_told(cell):
    records = [*runs(cell, 10.0, 10.1), make_record(cell, seed=2, value=None, status="diverged")]
    verdict = judge(cell, records, pool())
    assert verdict.seeds == 2
    assert "1 of 3 seeds diverged" in verdict.reason


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"data": make_data(verified=False)}, "power is not verified"),
        ({"modified": ("stages.0.batch_size",)}, "recipe modified (stages.0.batch_size)"),
        ({"recipe": make_recipe("other", args={"layers": 99})}, "another recipe"),
        (
            {"recipe": make_recipe(args={"row": "maf"}, revision=3)},
            "an older recipe (revision 3 of its models; now 1)",
        ),
        ({"metrics": (make_metric(10.0, unit="bits/dim"),)}, "measured in bits/dim"),
        ({"metrics": (make_metric(10.0, split="val"),)}, "measured on val, not test"),
    ],
)
def test_what_is_not_the_same_thing_is_not_comparable(cell, overrides, reason):
    verdict = judge(cell, runs(cell, 10.0, **overrides), pool())
    assert verdict.state == "not-comparable"
    assert reason in verdict.reason
    assert verdict.mean is None


def test_a_table_shows_runs_of_older_code_as_such(tmp_path):
    cell = make_cell(recipe=make_recipe(revision=2))
    older = make_record(cell, recipe=make_recipe())
    write_record(older, tmp_path)
    verdict = judge_table(make_table([cell]), Store(tmp_path))[cell.id]
    assert verdict.state == "not-comparable"
    assert verdict.reason == "an older recipe (revision 1 of its models; now 2)"
    newer = make_record(cell, run_id="newer")
    write_record(newer, tmp_path)
    assert judge_table(make_table([cell]), Store(tmp_path))[cell.id].state == "measured"


def test_columns_of_ours_count_on_unverified_data_and_say_so():
    cell = make_cell()
    verdict = judge(cell, runs(cell, 1.0, data=make_data(verified=False)))
    assert verdict.state == "measured"
    assert "not verified" in verdict.reason


@pytest.mark.parametrize(
    "overrides",
    [
        {"data": make_data(fingerprints={"test": "other"})},
        {"data": make_data(fingerprints={"train": "other", "test": "c" * 64})},
        {"data": make_data(fingerprints={"train": "a" * 64})},
        {"metrics": (make_metric(99.0, protocol="estimate"),)},
    ],
)
def test_runs_on_other_data_or_by_another_protocol_are_left_out(cell, overrides):
    old = make_record(cell, seed=0, value=99.0, **overrides)
    new = [make_record(cell, seed=s, value=10.0) for s in (1, 2, 3)]
    verdict = judge(cell, [old, *new], pool())
    assert (verdict.state, verdict.seeds) == ("reproduced", 3)
    assert "1 of 4 runs, on other data or by another protocol" in verdict.reason


@pytest.mark.parametrize(
    ("value", "state"), [(0.2385, "reproduced"), (0.2449, "reproduced"), (0.26, "worse")]
)
def test_what_is_counted_needs_one_run(value, state):
    """A number of parameters is within the rounding of the printed one, or it is another."""
    column = make_column(metric="parameters", unit="million")
    cell = make_cell(column=column, published=make_published("0.24", None))
    verdict = judge(cell, [make_record(cell, value=value)], pool())
    assert verdict.state == state
    assert "no seed changes it" in verdict.reason


@pytest.mark.parametrize(
    ("words", "others"),
    [
        ("exact; se: of 5 of 5 cells", "exact; se: of 4 of 5 cells"),
        ("se: binomial; exact", "exact"),
        ("median of 5, from 0.1 to 0.2; exact", "median of 5, from 0.3 to 4e-05; exact"),
    ],
)
def test_what_came_out_parts_no_runs(cell, words, others):
    """Protocols also tell what the error is of, and how far repetitions were apart."""
    metrics = [(make_metric(10.0, protocol=protocol),) for protocol in (words, others)]
    runs = [make_record(cell, seed=seed, metrics=given) for seed, given in enumerate(metrics)]
    verdict = judge(cell, runs, pool())
    assert verdict.seeds == 2
    assert "left out" not in verdict.reason
    assert "protocol differs" not in compare(runs[:1], runs[1:]).rows[0].reason


def test_a_fingerprint_that_only_one_record_has_does_not_part_them(cell):
    old = make_record(cell, seed=0, value=10.0, data=make_data(fingerprints={"test": "c" * 64}))
    verdict = judge(cell, [old, make_record(cell, seed=1, value=10.0)], pool())
    assert verdict.seeds == 2


def test_seeds_that_draw_their_own_splits_are_put_together(cell):
    """As Frey Faces and Omniglot: each seed has its own test set, of the same files."""

    def record(seed, **data):
        prints = {"train": f"a{seed}", "test": f"c{seed}"}
        drawn = make_data(**{"seeded": True, "fingerprints": prints, **data})
        return make_record(cell, value=10.0 + seed / 100, seed=seed, data=drawn)

    assert judge(cell, [record(seed) for seed in range(3)], pool()).seeds == 3
    for other in ({"version": "2"}, {"files": {"faces": "0" * 64}}, {"seeded": False}):
        mixed = [record(0, **other), record(1), record(2)]
        assert judge(cell, mixed, pool()).seeds == 2


def test_runs_of_several_versions_of_the_code_are_told(cell):
    for judged in (cell, make_cell()):
        records = runs(judged, 10.0, 10.0, 10.0)
        records[0] = make_record(judged, value=10.0, code=make_code(source_hash="old"))
        remark = "runs of 2 versions of the code"
        assert remark in judge(judged, records, pool()).remarks
        assert remark not in judge(judged, records[1:], pool()).remarks


def test_neighbour_is_the_nearest_different_published_number_of_the_column():
    numbers = {"a": "10.00", "b": "10.30", "c": "10.00", "d": "12.00"}
    cells = [make_cell(row, published=make_published(v)) for row, v in numbers.items()]
    further = Row(id="e", title="E", published=False)
    cells.append(make_cell(further, published=make_published("10.01")))
    cells.append(make_cell("b", "gas", published=make_published("10.02")))
    table = make_table(cells)
    assert neighbour_gap(table, cells[0]) == pytest.approx(0.30)
    assert neighbour_gap(table, cells[4]) == pytest.approx(0.01)
    assert neighbour_gap(table, cells[5]) is None
    assert neighbour_gap(table, make_cell()) is None


def test_a_table_is_judged_from_a_store(tmp_path):
    ran = make_cell("maf", published=make_published("10.00"))
    waiting = make_cell("made", published=make_published("12.00"))
    for record in runs(ran, 10.0, 10.01, 9.99):
        write_record(record, tmp_path)
    verdicts = judge_table(make_table([ran, waiting]), Store(tmp_path))
    assert verdicts[ran.id].seeds == 3
    assert verdicts[waiting.id].state == "not-run"


@pytest.mark.parametrize(
    ("said", "values", "state"),
    [
        ("1", (1.0,), "reproduced"),
        ("0", (0.0, 0.0), "reproduced"),
        ("0", (1.0,), "better"),
        ("1", (1.0, 0.0), "worse"),
    ],
)
def test_a_property_is_judged_without_a_margin(said, values, state):
    column = make_column("one-pass", metric="one-pass", unit=YES_NO, direction="higher")
    cell = make_cell(column=column, published=make_published(said, None, "none"))
    verdict = judge(cell, runs(cell, *values), pool())
    assert verdict.state == state
    assert verdict.interval is None
    assert ("as published" in verdict.reason) == (state == "reproduced")


def test_a_column_may_be_of_another_split_than_the_evaluation():
    def judged(column_split, metric_split, published=None):
        cell = make_cell(column=make_column(split=column_split), published=published)
        metric = make_metric(9.0, split=metric_split)
        return judge(cell, [make_record(cell, metrics=(metric,))], Pool())

    found = judged("train", "train")
    assert (found.state, found.mean) == ("measured", 9.0)
    for column, metric, wanted in ((None, "train", "test"), ("train", "test", "train")):
        found = judged(column, metric)
        assert (found.state, found.mean) == ("not-comparable", None)
        assert found.reason == f"measured on {metric}, not {wanted}"
    assert judged("train", "train", make_published("9.0")).mean == 9.0


def test_what_has_no_direction_is_measured():
    cell = make_cell(column=make_column(direction="none"))
    verdict = judge(cell, runs(cell, 1.0, 1.1), Pool())
    assert (verdict.state, verdict.difference) == ("measured", None)


def test_a_published_number_needs_a_direction_to_be_judged_by(tmp_path):
    shutil.copytree(default_folder() / "priors", tmp_path / "priors")
    file = tmp_path / "priors" / "paper.toml"
    column = 'metric = "importance-nll", note'
    text = file.read_text()
    assert text.count(column) == 1
    file.write_text(text.replace(column, column.replace("note", 'direction = "none", note')))
    with pytest.raises(DeclarationError, match="its column no direction to judge it by"):
        load_catalog(tmp_path)
