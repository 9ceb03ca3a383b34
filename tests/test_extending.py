"""A row, a column, a metric, a figure, a table and a paper are added by CONTRIBUTING's steps."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure
from models import test_contract as contract

import dgm_bench.models
from dgm_bench import catalog
from dgm_bench.cli import cli
from dgm_bench.metrics.registry import METRICS, metric
from dgm_bench.models.capabilities import HasSample
from dgm_bench.models.names import MODELS
from dgm_bench.records import Metric
from dgm_bench.report import figures
from dgm_bench.report.figures import FigureKind

HERE = Path(__file__).parent / "extension"


def sample_norm(evaluation):
    """Return the mean norm of a hundred samples."""
    x = evaluation.model.sample(100, evaluation.generator())
    norms = x.double().flatten(1).norm(dim=1)
    mean, se = norms.mean().item(), norms.std().item() / 10
    words = {"unit": "nats", "direction": "none", "split": "test", "protocol": evaluation.protocol}
    return [Metric(name="sample-norm", value=mean, se=se, n=100, **words)]


def norms_plot(table, runs):
    """Draw the norms of all runs of a table."""
    norms = [run.metric("sample-norm").value for cell in table.cells for run in runs[cell.id]]
    figure = Figure()
    figure.add_subplot().plot(norms)
    return figure if norms else None


@pytest.fixture
def extended(monkeypatch, tmp_path):
    """Every step: model and name, paper with recipe and table, metric, figure."""
    package = tmp_path / "models"
    package.mkdir()
    shutil.copy(HERE / "affine.py", package)
    monkeypatch.setattr(dgm_bench.models, "__path__", [*dgm_bench.models.__path__, str(package)])
    monkeypatch.setitem(MODELS, "affine:Affine", "affine:Affine")
    monkeypatch.setattr(catalog, "default_folder", lambda: HERE)
    metric("sample-norm", needs=HasSample, words="samples")(sample_norm)
    kind = FigureKind("norms", "runs", norms_plot, "Norms", "Norm of samples by run; no bars.")
    monkeypatch.setattr(figures, "FIGURES", (*figures.FIGURES, kind))
    yield
    METRICS.remove("sample-norm")


def call(*words):
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_added_model_is_held_to_the_contract(extended, monkeypatch, generator):
    monkeypatch.setitem(contract.CASES, "affine", ("affine:Affine", {}))
    for shape in ((2,), (1, 4, 4)):
        contract.test_shapes_and_capabilities("affine", shape, generator)
        contract.test_gradients_reach_every_parameter("affine", shape)
        contract.test_inverse_undoes_forward("affine", shape)
        contract.test_log_det_is_that_of_the_jacobian("affine", shape)
        contract.test_state_dict_holds_everything("affine", shape)
    contract.test_two_dimensional_density_integrates_to_one("affine")
    contract.test_sample_repeats_with_its_generator("affine")
    contract.test_single_precision_agrees_with_double("affine", generator)


def test_the_contract_refuses_an_added_model_that_is_wrong(extended, monkeypatch):
    from dgm_bench.models.affine import Scale

    right = Scale.forward_and_log_det

    def wrong(self, x):
        u, log_det = right(self, x)
        return u, -log_det - 1

    monkeypatch.setitem(contract.CASES, "affine", ("affine:Affine", {}))
    monkeypatch.setattr(Scale, "forward_and_log_det", wrong)
    with pytest.raises(AssertionError):
        contract.test_two_dimensional_density_integrates_to_one("affine")


def test_an_added_paper_runs_prints_and_is_drawn(extended, tmp_path):
    torch.set_default_dtype(torch.float32)
    results = ("--results", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    listed = json.loads(call("list", "toy/*", "--json", *results))["cells"]
    assert [cell["id"] for cell in listed] == [
        "toy/density/affine/oracle-6-nll",
        "toy/density/affine/oracle-6-norm",
    ]
    assert all(cell["runnable"] for cell in listed)

    call("run", "toy/*", "--no-tracking", *results)

    cells = json.loads(call("list", "toy/*", "--json", *results))["cells"]
    assert [cell["state"] for cell in cells] == ["measured", "measured"]
    assert cells[1]["measured"]["mean"] > 0
    assert "Independent Gaussians" in call("table", "--paper", "toy", *results)
    page, pictures = tmp_path / "page.html", tmp_path / "figures"
    call("report", "-o", str(page), "--figures", str(pictures), *results)
    assert "Norm of samples by run" in page.read_text()
    assert (pictures / "toy-density-norms.png").read_bytes().startswith(b"\x89PNG")
