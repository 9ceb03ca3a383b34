"""ELBO surgery: the identity, its limits, the metrics and the plot."""

import math
from pathlib import Path

import pytest
import torch
from factories import make_cell, make_column, make_metric, make_record, make_table
from torch import nn

from dgm_bench.catalog import load_catalog
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError, RunFailure
from dgm_bench.metrics.bounds import surgery as surgery_module
from dgm_bench.metrics.bounds.surgery import surgery, surgery_metrics
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.models.latent.gated_vae import DenseVAE
from dgm_bench.report.surgery import PARTS, surgery_plots
from dgm_bench.spec import EvaluationSpec
from dgm_bench.verdict import judge

SHAPE = (1, 4, 4)
PRIORS = {
    "standard": {},
    "mixture": {"components": 4},
    "vamp": {"components": 4, "init_mean": 0.5, "init_std": 0.3},
    "real-nvp": {"layers": 2, "hidden": [8]},
    "maf": {"layers": 2, "hidden": [8]},
    "aggregated": {},
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=200):
    """Two kinds of images with noise, so that there is something to learn."""
    g = generator(1)
    kind = torch.rand(n, 1, 1, 1, generator=g) > 0.5
    noise = torch.rand(n, *SHAPE, generator=g) < 0.1
    stripes = (torch.arange(16).view(SHAPE) % 2 == 0).expand(n, *SHAPE)
    return ((stripes == kind) ^ noise).double()


def trained(prior, steps=60, latent=3):
    torch.manual_seed(0)
    model = DenseVAE(SHAPE, latent, hidden=16, prior=prior, prior_args=PRIORS[prior]).double()
    optimizer, noise, x = torch.optim.Adam(model.parameters(), 1e-2), generator(2), images()
    for _ in range(steps):
        optimizer.zero_grad()
        (-model.elbo(x, noise).mean()).backward()
        optimizer.step()
    model.calibrate(x)
    return model.eval()


def within(estimate, expected, errors=3.5):
    return abs(estimate.mean - expected) < errors * estimate.se + 1e-9


@pytest.mark.parametrize("prior", PRIORS)
def test_the_parts_add_up(prior):
    found = surgery(trained(prior), images(), generator())
    assert found.residual.se < 0.2
    assert within(found.residual, 0)
    both = found.mutual_information.mean + found.marginal_kl.mean
    error = math.hypot(found.divergence.se, found.mutual_information.se, found.marginal_kl.se)
    assert abs(both - found.divergence.mean) < 3.5 * error
    assert 0 < found.mutual_information.mean < math.log(found.n)


def test_standard_errors_are_those_of_repeated_measurements():
    model, x = trained("standard"), images()
    repeated = [surgery(model, x, generator(seed), draws=300) for seed in range(60)]
    for name in ("negative_elbo", "reconstruction", "divergence", "mutual_information",
                 "marginal_kl", "residual"):  # fmt: skip
        estimates = [getattr(found, name) for found in repeated]
        spread = torch.tensor([e.mean for e in estimates]).std().item()
        claimed = sum(e.se for e in estimates) / len(estimates)
        assert spread == pytest.approx(claimed, rel=0.4), name


def test_every_term_has_draws_of_its_own(monkeypatch):
    """The error of their sum takes them for independent."""
    drawn, draw = [], surgery_module._draw
    monkeypatch.setattr(
        surgery_module, "_draw", lambda *args: drawn.append(draw(*args)) or drawn[-1]
    )
    model, x = trained("standard", steps=0), images(20)
    surgery(model, x, generator(), draws=30)
    (one, _), (other, _) = drawn
    assert not set(map(tuple, one.tolist())) & set(map(tuple, other.tolist()))


def test_divergence_is_the_closed_form_for_gaussians():
    model, x = trained("standard"), images()
    mean, variance = model.posterior_moments(x)
    exact = 0.5 * (mean.square() + variance - variance.log() - 1).sum(1).mean().item()
    assert within(surgery(model, x, generator()).divergence, exact)


def test_marginal_divergence_by_quadrature():
    """Mutual information and marginal divergence in one dimension, integrated over a grid."""
    model, x = trained("standard", latent=1), images(40)
    with torch.no_grad():
        mean, variance = model.posterior_moments(x)
    z = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    each = torch.distributions.Normal(mean, variance.sqrt()).log_prob(z)
    mixture = each.logsumexp(0) - math.log(len(x))
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    step = z[1] - z[0]
    marginal = (mixture.exp() * (mixture - prior)).sum() * step
    information = (each.exp() * (each - mixture)).sum() * step / len(x)
    found = surgery(model, x, generator())
    assert within(found.marginal_kl, marginal.item())
    assert within(found.mutual_information, information.item())


def test_aggregated_prior_has_no_marginal_divergence_where_it_was_taken():
    model, x = trained("aggregated"), images()
    found = surgery(model, x, generator())
    assert abs(found.marginal_kl.mean) < 1e-9
    standard = trained("standard")
    assert found.marginal_kl.mean < surgery(standard, x, generator()).marginal_kl.mean
    fresh = images(400)[200:]
    assert surgery(model, fresh, generator()).marginal_kl.mean > 0


@pytest.mark.parametrize(("shift", "expected"), [(1e3, math.log(200)), (0.0, 0.0)])
def test_limits_of_the_mutual_information(shift, expected):
    """Posteriors that never meet tell every example; equal ones tell none."""
    model, x = trained("standard", steps=0), images()
    index = torch.arange(200.0, dtype=torch.float64)[:, None]

    class Known(nn.Module):
        def forward(self, x):
            return index[x.flatten(1)[:, 0].long()] * shift

    model.encoder = Known()
    with torch.no_grad():
        model.posterior.mean = nn.Linear(1, 3).double()
        model.posterior.mean.weight.fill_(1)
        model.posterior.raw_variance = nn.Linear(1, 3).double()
        model.posterior.raw_variance.weight.zero_()
    x[:, 0, 0, 0] = torch.arange(200)
    found = surgery(model, x, generator()).mutual_information
    assert found.mean == pytest.approx(expected, abs=1e-6)


# ----------------------------------------------------------------------------- metrics


def dataset():
    x = images(300)
    return Dataset("small", "1", {"train": x[:200], "val": x[200:], "test": x[200:]})


def evaluation(model):
    return Evaluation(model, dataset(), EvaluationSpec(metrics=("surgery",)), 0, Path())


def test_metrics():
    model = trained("mixture")
    metrics = surgery_metrics(evaluation(model))
    found = {metric.name: metric for metric in metrics}
    assert found["log-examples"].value == pytest.approx(math.log(200))
    assert {m.n for m in metrics if m.split == "train"} == {200}
    assert {m.n for m in metrics if m.split == "test"} == {100}
    assert found["surgery-residual"].value == pytest.approx(
        sum(found[name].value for name in PARTS) - found["negative-elbo-train"].value
    )
    assert found["mutual-information-test"].value < math.log(100)
    assert "independent draws" in found["marginal-kl"].protocol
    assert surgery_metrics(evaluation(model)) == metrics


def test_what_is_not_finite_fails():
    model = trained("standard", steps=0)
    with torch.no_grad():
        model.decoder[-1].bias.fill_(math.nan)
    with pytest.raises(RunFailure, match="not finite"):
        surgery_metrics(evaluation(model))


def test_posteriors_with_flows_are_refused():
    model = DenseVAE(SHAPE, 2, hidden=8, posterior="planar", posterior_args={"flows": 2}).double()
    with pytest.raises(DeclarationError, match="needs a Gaussian posterior"):
        surgery_metrics(evaluation(model))


# ----------------------------------------------------------------------------- the plot


def small_table():
    columns = [make_column(f"{data}-{metric}", data=data, metric=metric, title=metric)
               for data in ("one", "two") for metric in PARTS]  # fmt: skip
    return make_table([make_cell(row, column) for row in ("a", "b") for column in columns])


def records(table, scale):
    metrics = [make_metric(scale * value, name=name)
               for name, value in zip(PARTS, (20.0, 5.0, 2.0), strict=True)]  # fmt: skip
    return {
        cell.id: [make_record(cell, metrics=tuple(metrics))]
        for cell in table.cells
        if cell.column.data == "one"
    }


def test_plot_stacks_the_parts():
    table = small_table()
    figures = surgery_plots(table, records(table, 2.0))
    assert set(figures) == {"one"}
    axes, divergences = figures["one"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B"]
    ends = {round(bar.get_x() + bar.get_width(), 6) for bar in axes.patches}
    assert ends == {40.0, 50.0, 54.0}
    assert {bar.get_width() for bar in divergences.patches} == {10.0, 4.0}
    assert "54.00" in {text.get_text() for text in axes.texts}


def test_no_plot_without_runs():
    assert surgery_plots(small_table(), {}) == {}
    table = small_table()
    one = (make_metric(20.0, name="reconstruction-train"),)
    others = {cell.id: [make_record(cell, metrics=one)] for cell in table.cells}
    assert surgery_plots(table, others) == {}


# ----------------------------------------------------------------------------- the declarations


def test_declared_columns_are_judged_on_the_split_that_they_are_measured_on():
    """Records as :func:`surgery_metrics` makes them give every one of its columns a number."""
    metrics = surgery_metrics(evaluation(trained("mixture")))
    cells = load_catalog().select("priors/elbo-surgery/mixture/digits-binary-*")
    found = {metric.name: metric for metric in metrics}
    ours = [cell for cell in cells if cell.column.metric in found]
    assert len(ours) == 4
    for cell in ours:
        verdict = judge(cell, [make_record(cell, metrics=tuple(metrics))])
        assert (verdict.state, verdict.mean) == ("measured", found[cell.column.metric].value)
