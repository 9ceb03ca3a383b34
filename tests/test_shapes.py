"""Shapes in annotations hold at run time in this suite, and what they catch."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jaxtyping import TypeCheckError, config, install_import_hook
from shape_checks import CHECKED, CHECKER

from dgm_bench.data.dataset import Dataset
from dgm_bench.metrics.bounds import variational
from dgm_bench.metrics.bounds.likelihood import negative_in_unit
from dgm_bench.models.flows.flow import StandardNormal
from dgm_bench.models.flows.made import MADE
from dgm_bench.models.flows.planar import PlanarFlow
from dgm_bench.models.flows.realnvp import AffineCoupling, RealNVP
from dgm_bench.models.latent.gated_vae import DenseVAE
from dgm_bench.train import objectives

FAULTY = """
from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def log_prob(
    x: Float[Tensor, "batch dim"], mean: Float[Tensor, " dim"]
) -> Float[Tensor, " batch"]:
    return -0.5 * (x - mean).square().sum(1)


def log_weight(
    log_joint: Float[Tensor, "batch samples"], log_posterior: Float[Tensor, "batch samples"]
) -> Float[Tensor, "batch samples"]:
    return log_joint - log_posterior


def transform(
    x: Float[Tensor, "batch 3"], matrix: Float[Tensor, "3 3"]
) -> Float[Tensor, "batch 3"]:
    return matrix @ x.mT
"""


def test_annotations_hold_while_the_suite_runs():
    with pytest.raises(TypeCheckError, match="f64\\[5\\]"):
        StandardNormal(3).log_prob(torch.zeros(5))
    with pytest.raises(TypeCheckError, match="f64\\[5,4\\]"):
        StandardNormal(3).log_prob(torch.zeros(5, 4))


# ------------------------------------------------------------ with the checks and without


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """A module with faults in it, imported without the checks and with them."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    plain = importlib.import_module("faulty")
    monkeypatch.delitem(importlib.sys.modules, "faulty")
    with install_import_hook("faulty", CHECKER):
        checked = importlib.import_module("faulty")
    monkeypatch.delitem(importlib.sys.modules, "faulty")
    return plain, checked


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("log_prob", [(4, 1), (3,)]),  # an axis of one, spread over the dimensions
        ("log_weight", [(4, 3), (4, 1)]),  # one log density for all samples
        ("transform", [(4, 3), (3, 3)]),  # the result is the wrong way round
    ],
)
def test_a_fault_that_gives_a_number_is_caught(faulty, name, shapes):
    plain, checked = faulty
    arguments = [torch.rand(shape) for shape in shapes]
    assert getattr(plain, name)(*arguments).isfinite().all()
    with pytest.raises(TypeCheckError):
        getattr(checked, name)(*arguments)


# ------------------------------------------------------------------- faults in the package


def made_with_an_axis_too_many(monkeypatch):
    model = MADE((3,), hidden=[8])
    (layer,) = (layer for layer in model.modules() if hasattr(layer, "network"))
    right = layer.network.forward
    monkeypatch.setattr(layer.network, "forward", lambda x: right(x)[..., None])
    return lambda: model.log_prob(torch.rand(3, 3))


def coupling_that_keeps_an_axis(monkeypatch):
    right = AffineCoupling.forward_and_log_det

    def wrong(self, x):
        u, log_det = right(self, x)
        return u, log_det[:, None]

    monkeypatch.setattr(AffineCoupling, "forward_and_log_det", wrong)
    model = RealNVP((4,), layers=2, hidden=[8])
    return lambda: model.log_prob(torch.rand(5, 4))


def posterior_with_one_density_for_all_samples(monkeypatch):
    model = DenseVAE((6,), latent=2, hidden=5).eval()
    right = model.posterior.forward

    def wrong(features, samples, generator):
        z, log_density = right(features, samples, generator)
        return z, log_density[:, :1]

    monkeypatch.setattr(model.posterior, "forward", wrong)
    x = torch.rand(4, 6).round()
    return lambda: model.draw(x, 7, torch.Generator().manual_seed(0)).log_weight


def importance_weights_that_keep_an_axis(monkeypatch):
    """Each example's bound then has the weights of all examples in it."""
    right = variational._log_sums

    def wrong(*args):
        first, second = right(*args)
        return first[:, None], second

    monkeypatch.setattr(variational, "_log_sums", wrong)
    model, x = DenseVAE((6,), latent=2, hidden=5).eval(), torch.rand(4, 6).round()
    generator = torch.Generator().manual_seed(0)
    return lambda: variational.importance_bound(model, x, 7, generator).error


def likelihood_summed_too_early(monkeypatch):
    """Every example then has the log-likelihood of all."""
    model, x = MADE((2,), hidden=[8]), torch.rand(5, 2)
    data = Dataset("toy", "1", {"test": x}, to_unit=lambda nats, x: x.sum(1) - nats)
    return lambda: negative_in_unit(data, model.log_prob(x).sum(), x)


def target_that_keeps_an_axis(monkeypatch):
    """The mean over all pairs of samples has the right value, and another gradient and spread."""
    toy = SimpleNamespace(log_density=lambda x: -x.square().sum(1, keepdim=True))
    monkeypatch.setattr(objectives, "load", lambda *args, **settings: toy)
    objective = objectives.reverse_kl("toy", data_root=Path())
    model = PlanarFlow((2,), layers=2)
    return lambda: objective(model, torch.zeros(5, 2), 0, torch.Generator()).total


@pytest.mark.parametrize(
    "fault",
    [
        importance_weights_that_keep_an_axis,
        likelihood_summed_too_early,
        target_that_keeps_an_axis,
        made_with_an_axis_too_many,
        coupling_that_keeps_an_axis,
        posterior_with_one_density_for_all_samples,
    ],
)
def test_a_planted_fault_is_caught(monkeypatch, fault):
    density = fault(monkeypatch)
    with pytest.raises(TypeCheckError):
        density()
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    assert density().isfinite().all()


# --------------------------------------------------------------------------- nothing left out


def functions_of(package):
    """All functions and methods of a package, each with the names that its module knows."""
    found = importlib.import_module(package)
    for info in pkgutil.walk_packages(found.__path__, f"{package}."):
        module = importlib.import_module(info.name)
        classes = [c for _, c in inspect.getmembers(module, inspect.isclass)]
        for holder in (module, *(c for c in classes if c.__module__ == module.__name__)):
            for _, function in inspect.getmembers(holder, inspect.isfunction):
                if function.__module__ == module.__name__:
                    yield vars(module), function


@pytest.mark.parametrize("package", CHECKED)
def test_every_shape_is_one_that_can_be_checked(package):
    """An annotation that cannot be read would count as no annotation."""
    read = 0
    for names, function in functions_of(package):
        for text in function.__annotations__.values():
            if "Tensor" in str(text) or "ndarray" in str(text):
                assert eval(text, dict(names)) is not None, function
                read += 1
    assert read > 5
