"""Trained on data whose entropy is known, a model that can be exact comes close to it."""

from pathlib import Path

import pytest
import torch
from factories import make_context

from dgm_bench.data.dataset import Dataset
from dgm_bench.data.oracles import autoregressive_oracle, gaussian_oracle
from dgm_bench.metrics.evaluate import evaluate, prepare
from dgm_bench.models.build import build
from dgm_bench.spec import (
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    ScheduleSpec,
    Stage,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train.loop import Trainer


def dataset(oracle, sizes):
    splits = {name: oracle.sample(n, seed=k) for k, (name, n) in enumerate(sizes.items())}
    return Dataset("oracle", "1", splits, log_density=oracle.log_density, entropy=oracle.entropy)


def trained(model, data, **settings):
    stage = Stage(data=DataSpec(name="oracle"), model=model, **settings)
    torch.manual_seed(0)
    network = build(stage.model, data.event_shape).double()
    trainer = Trainer(stage, network, data, make_context(), seed=0)
    trainer.run()
    trainer.state.use_best()
    prepare(network, data, EvaluationSpec())
    return {metric.name: metric for metric in evaluate(network, data, EvaluationSpec(), 0, Path())}


def test_a_full_covariance_gaussian_reaches_the_entropy_of_a_gaussian_oracle():
    data = dataset(gaussian_oracle(8), {"train": 100_000, "val": 10, "test": 1_000_000})
    found = trained(
        ModelSpec(name="gaussian:Gaussian"),
        data,
        optimizer=OptimizerSpec(lr=0.0),
        batch_size=100,
        stopping=StoppingSpec(max_steps=0),
    )
    assert abs(found["nll"].value - data.entropy.value) < 0.01
    assert abs(found["gap"].value) < 0.001
    assert found["nll"].se < 0.0025


@pytest.mark.usefixtures("unchecked")
def test_maf_comes_within_a_twentieth_of_a_nat_of_an_autoregressive_oracle():
    data = dataset(autoregressive_oracle(4), {"train": 50_000, "val": 5_000, "test": 100_000})
    found = trained(
        ModelSpec(name="maf:MAF", args={"layers": 2, "hidden": [64, 64]}),
        data,
        optimizer=OptimizerSpec(lr=5e-3),
        schedule=ScheduleSpec(drops=(1, 2)),
        batch_size=500,
        validation=ValidationSpec(every=100, unit="steps"),
        stopping=StoppingSpec(patience=4, max_steps=4_000),
    )
    assert 0 < found["gap"].value < 0.05
    assert abs(found["nll"].value - data.entropy.value) < 0.05
