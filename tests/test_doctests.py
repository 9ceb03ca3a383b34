"""Examples in docstrings run; being registered is being documented."""

import doctest
import importlib
import inspect
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import dgm_bench
from dgm_bench.models.build import model_class
from dgm_bench.models.latent.posteriors import FLOWS, build_posterior
from dgm_bench.models.latent.priors import PRIORS, build_prior
from dgm_bench.models.names import MODELS


def source_of(name):
    return Path(find_spec(name).origin).read_text()


MODULES = [
    module.name
    for module in pkgutil.walk_packages(dgm_bench.__path__, "dgm_bench.")
    if ">>> " in source_of(module.name)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    torch.set_default_dtype(torch.float32)  # as a reader has it
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module, extraglobs={"torch": torch})
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in found:
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
    assert sum(len(test.examples) for test in found) == source_of(name).count(">>> ")


def flow_of(posterior):
    return posterior if posterior.flow is None else posterior.flow


DOCUMENTED = {
    **{name: model_class(name) for name in MODELS},
    **{f"posterior {name}": type(flow_of(build_posterior(name, 64, 64, {}))) for name in FLOWS},
    **{f"prior {name}": type(build_prior(name, 2, {}, (4,))) for name in PRIORS},
}


@pytest.mark.parametrize("thing", DOCUMENTED)
def test_what_is_registered_names_its_paper_and_has_an_example(thing):
    text = inspect.getdoc(DOCUMENTED[thing])
    assert "https://arxiv.org/abs/" in text
    assert ">>> " in text
