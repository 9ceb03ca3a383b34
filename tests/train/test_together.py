"""Seeds trained together end with the numbers that each of them has alone."""

import math

import pytest
import torch
from factories import StopAfter, make_context, make_dataset, make_stage

from dgm_bench.control import Control, Interrupted
from dgm_bench.errors import RunFailure
from dgm_bench.models.build import build
from dgm_bench.spec import ModelSpec, OptimizerSpec, ScheduleSpec, StoppingSpec, ValidationSpec
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.loop import Trainer
from dgm_bench.train.optimizers import OPTIMIZERS
from dgm_bench.train.together import TrainersTogether

MAF = ModelSpec(name="maf:MAF", args={"layers": 2, "hidden": [8]})
SEEDS = 3
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


def noisy(x, generator):
    return x + 0.1 * torch.rand(x.shape, dtype=x.dtype, generator=generator)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, generator=generator)
    x = torch.randn(300, 4, generator=generator) @ mix
    return make_dataset(x, 200, 50, augment=noisy, dequantise=noisy)


def trainer(stage, data, seed, folder=None, control=None, **options):
    torch.manual_seed(seed)
    model = build(stage.model, data.event_shape)
    file = CheckpointFile(folder / str(seed)) if folder is not None else None
    made = Trainer(
        stage,
        model,
        data,
        make_context(control=control or Control()),
        seed=seed,
        checkpoint=StageCheckpoint(file),
        **options,
    )
    made.restore()
    made.state.hold_generators()
    return made


def alone(stage, data, seeds=SEEDS):
    trained = [trainer(stage, data, seed) for seed in range(seeds)]
    return trained, [one.run() for one in trained]


def together(stage, data, seeds=SEEDS, **options):
    trained = [trainer(stage, data, seed, **options) for seed in range(seeds)]
    return trained, TrainersTogether(trained).run()


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert one.tally.step == other.tally.step
        assert one.tally.best_step == other.tally.best_step
        curves = [
            torch.tensor(
                [[math.nan if v is None else v for v in (*r[:2], *r[3:])] for r in t.curve]
            )
            for t in (one.tally, other.tally)
        ]
        torch.testing.assert_close(*curves, rtol=1e-10, atol=1e-10, equal_nan=True)
        for use in ("use_last", "use_best"):
            for each in (one, other):
                getattr(each.state, use)()
            values = [list(each.model.state_dict().values()) for each in (one, other)]
            torch.testing.assert_close(*values, rtol=1e-9, atol=1e-10)


OPTIONS = {
    "plain": {},
    "every rule": {
        "optimizer": OptimizerSpec(lr=0.02, weight_decay=0.1, eps=1e-3),
        "schedule": ScheduleSpec(warmup_steps=4, drops=(0,), cosine_steps=30),
        "clip_norm": 0.5,
        "average_decay": 0.7,
        "last_batch": "use",
        "stopping": StoppingSpec(max_steps=24),
    },
}
OPTIONS |= {name: {"optimizer": OptimizerSpec(name=name, lr=0.01, eps=1e-3)} for name in OPTIMIZERS}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_seeds_together_are_equal_to_each_alone(options, data):
    stage = make_stage(MAF, **options)
    ones, ends = alone(stage, data)
    others, same_ends = together(stage, data)
    assert ends == same_ends
    assert_same(ones, others)
    assert [one.tally.together for one in (*ones, *others)] == [1] * SEEDS + [SEEDS] * SEEDS


def test_each_seed_stops_by_its_own_patience(data):
    stage = make_stage(
        MAF,
        optimizer=OptimizerSpec(lr=0.1, eps=1e-3),
        validation=ValidationSpec(every=3, unit="steps"),
        stopping=StoppingSpec(patience=1, max_steps=60),
    )
    ones, ends = alone(stage, data, 4)
    assert len({one.tally.step for one in ones}) > 2
    others, same_ends = together(stage, data, 4)
    assert ends == same_ends
    assert_same(ones, others)
