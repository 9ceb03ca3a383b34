"""How much seeds usually differ: what the pool of stored runs learns, and from which."""

import pytest
from factories import make_cell, make_recipe, make_record

from dgm_bench.verdict import pool_variances

SCALE = ("power", "nll", "nats")


def runs(cell, *values, **overrides):
    return [make_record(cell, value=v, seed=s, **overrides) for s, v in enumerate(values)]


def another(**fields):
    """A run of a recipe that the pool has no run of."""
    return make_record(recipe=make_recipe("another", args={"layers": 77}, **fields))


def repeated(**overrides):
    rows = ("made", "maf", "realnvp")
    return [run for row in rows for run in runs(make_cell(row), 1.0, 1.1, 1.2, **overrides)]


def test_pool_learns_from_repeated_complete_unmodified_runs():
    found = pool_variances(repeated())
    prior = found.prior(another(), "nll", "nats")
    assert prior.variance**0.5 == pytest.approx(0.1, rel=0.01)
    assert prior.pooled_df == 6
    assert found.prior(another(), "nll", "bits/dim") is None
    assert found.prior(another(), "gap", "nats") is None


def test_pool_is_by_data_set_whatever_the_model():
    noisy = [run for row in "abc" for run in runs(make_cell(row, "gas"), 1.0, 2.0, 3.0)]
    found = pool_variances([*repeated(), *noisy])
    for model in ("maf:MAF", "made:MADE"):
        for data, sigma in (("power", 0.1), ("gas", 1.0)):
            prior = found.prior(another(data=data, model=model), "nll", "nats")
            assert prior.variance**0.5 == pytest.approx(sigma, rel=0.01)
    assert found.prior(another(data="hepmass"), "nll", "nats") is None


def test_cells_of_different_data_sets_give_no_prior_together():
    columns = ("gas", "power", "hepmass")
    records = [run for c in columns for run in runs(make_cell(column=c), 1.0, 1.1, 1.2)]
    found = pool_variances(records)
    assert {data: len(known) for (data, _, _), known in found.variances.items()} == dict.fromkeys(
        columns, 1
    )
    assert [found.prior(another(data=c), "nll", "nats") for c in columns] == [None] * 3


@pytest.mark.parametrize("overrides", [{"status": "budget"}, {"modified": ("lr",)}])
def test_pool_leaves_out_runs_that_are_not_the_recipe(overrides):
    other = repeated(recipe=make_recipe("other", args={"layers": 9}), **overrides)
    found = pool_variances([*repeated(), *other])
    assert found.variances[SCALE] == pool_variances(repeated()).variances[SCALE]


def test_pool_counts_a_seed_once():
    """Otherwise a run that was repeated with its seed would narrow the usual spread."""
    cell = make_cell()
    records = runs(cell, 1.0, 1.1, 1.2)
    again = make_record(cell, value=1.2, seed=2, created="2026-02-01T00:00:00Z", run_id="again")
    assert pool_variances([*records, again]).variances == pool_variances(records).variances
