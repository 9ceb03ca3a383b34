"""The plots of rejection and truncation: which points they have, of which metrics."""

import pytest
from factories import make_cell, make_column, make_metric, make_record, make_table

from dgm_bench.report.thresholds import curves_of, threshold_plots
from dgm_bench.spec import Row

COLUMN = make_column("precision", data="digits", metric="net-precision", direction="higher")
SCORES = {"net-precision": 0.7, "net-recall": 0.9, "net-fid": 2.0, "net-isc": 7.0, "cas-top1": 90.0}


def scored(ending, shift=0.0, *without):
    return [
        make_metric(value + shift, name=name + ending)
        for name, value in SCORES.items()
        if name not in without
    ]


def ran(cell, *seeds):
    """Runs of a cell with these metrics, one for each seed."""
    return [make_record(cell, seed=seed, metrics=tuple(m)) for seed, m in enumerate(seeds)]


@pytest.fixture
def gan():
    return make_cell("gan", COLUMN)


def test_a_truncation_curve_goes_from_plain_noise_to_the_most_truncated(gan):
    one = scored("") + scored("-truncated-0.5", -0.2) + scored("-truncated-1", -0.1)
    two = scored("", 0.1) + scored("-truncated-0.5", -0.1) + scored("-truncated-1")
    (curve,) = curves_of(gan, ran(gan, one, two), "net")
    assert curve.way == "truncation"
    assert [point.threshold for point in curve.points] == [None, 1.0, 0.5]
    means = [point.values["net-recall"].mean for point in curve.points]
    assert means == pytest.approx([0.95, 0.85, 0.75])
    assert curve.points[0].values["net-recall"].error == pytest.approx(0.1 / 2**0.5)


def test_a_rejection_curve_takes_all_and_the_half_from_where_the_table_does(gan):
    from dgm_bench.spec import EvaluationSpec, ImageEvaluationSpec

    judge = ImageEvaluationSpec(samples=100, keep=0.5)
    recipe = gan.recipe.model_copy(update={"evaluation": EvaluationSpec(judge=judge)})
    cell = gan.model_copy(update={"recipe": recipe})
    unended = ("net-fid", "net-isc", "cas-top1")
    metrics = scored("") + [
        metric.model_copy(update={"name": f"rejected-{metric.name}"}) for metric in scored("", 1.0)
    ]
    for per_cent in (100, 50, 20):
        metrics += scored(f"-kept-{per_cent}%", 0.0, *unended)
    (curve,) = curves_of(cell, ran(cell, metrics), "net")
    assert [point.threshold for point in curve.points] == [1.0, 0.5, 0.2]
    fids = [point.values.get("net-fid") for point in curve.points]
    assert [fid and fid.mean for fid in fids] == [2.0, 3.0, None]
    assert [point.values["net-precision"].mean for point in curve.points] == [0.7] * 3


def test_rows_of_a_part_of_a_run_and_rows_without_thresholds_have_no_curve(gan):
    both = scored("") + scored("-truncated-0.5")
    part = make_cell(Row(id="part", title="part", reads="rejected-"), COLUMN)
    assert curves_of(part, ran(part, both), "net") == []
    assert curves_of(gan, ran(gan, scored("")), "net") == []
    assert curves_of(gan, ran(gan, both), "other") == []
    assert threshold_plots(make_table([gan]), {gan.id: ran(gan, scored(""))}) == {}


def test_each_row_is_a_line_in_each_panel_with_a_ring_around_all_samples(gan):
    vae = make_cell("vae", COLUMN)
    runs = {
        gan.id: ran(gan, scored("") + scored("-truncated-0.5", 0.1, "cas-top1")),
        vae.id: ran(vae, scored("-kept-100%") + scored("-kept-30%", 0.1)),
    }
    ((name, figure),) = threshold_plots(make_table([gan, vae]), runs).items()
    assert name == "digits-net"
    for axes, lines in zip(figure.axes, (2, 2, 2), strict=True):
        assert len(axes.containers) == lines
    left, middle, right = figure.axes
    assert [list(bar.lines[0].get_xdata()) for bar in left.containers] == [
        pytest.approx([0.9, 1.0]),
        pytest.approx([0.9, 1.0]),
    ]
    assert middle.get_yscale() == "log"
    assert list(right.containers[1].lines[0].get_xdata()) == [1.0, 0.3]
    plain = right.containers[0].lines[0].get_xdata()
    assert list(plain) == [pytest.approx(1.12)]  # beyond every threshold
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["GAN, truncation", "VAE, rejection"]
    rings = [line for line in left.lines if line.get_fillstyle() == "none"]
    assert [float(ring.get_xdata()[0]) for ring in rings] == [0.9, 0.9]
