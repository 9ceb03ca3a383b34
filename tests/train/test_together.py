"""Seeds trained together end with the numbers that each of them has alone."""

import math

import pytest
import torch
from factories import StopAfter, make_context, make_dataset, make_stage
from torch import nn
from train.tiny import Traits, make_model

from dgm_bench.control import Control, Interrupted
from dgm_bench.errors import DeclarationError, RunFailure
from dgm_bench.models.build import build
from dgm_bench.spec import ModelSpec, OptimizerSpec, ScheduleSpec, StoppingSpec, ValidationSpec
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.flat import FlatParameters
from dgm_bench.train.loop import Trainer
from dgm_bench.train.losses import Loss
from dgm_bench.train.optimizers import OPTIMIZERS, build_optimizer
from dgm_bench.train.stacked import StackedModels
from dgm_bench.train.together import Share, TrainersTogether, require_alike

MAF = ModelSpec(name="maf:MAF", args={"layers": 1, "hidden": [8]})
SEEDS = 3
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


def noisy(x, generator):
    return x + 0.1 * torch.rand(x.shape, dtype=x.dtype, generator=generator)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, generator=generator)
    x = torch.randn(150, 4, generator=generator) @ mix
    return make_dataset(x, 100, 25, augment=noisy, dequantise=noisy)


def stage(**changes):
    """Adam's epsilon is large: a gradient of rounding alone is not to be a whole step."""
    rules = {"optimizer": OptimizerSpec(lr=0.02, eps=1e-3), "stopping": StoppingSpec(max_steps=12)}
    return make_stage(MAF, **(rules | changes))


def trainer(settings, data, seed, folder=None, control=None, model=None):
    torch.manual_seed(seed)
    file = CheckpointFile(folder / str(seed)) if folder is not None else None
    made = Trainer(
        settings,
        model or build(settings.model, data.event_shape),
        data,
        make_context(control=control or Control()),
        seed=seed,
        checkpoint=StageCheckpoint(file),
    )
    made.restore()
    made.state.hold_generators()
    return made


def alone(settings, data, seeds=SEEDS):
    trained = [trainer(settings, data, seed) for seed in range(seeds)]
    return trained, [one.run() for one in trained]


def together(settings, data, seeds=SEEDS, **options):
    trained = [trainer(settings, data, seed, **options) for seed in range(seeds)]
    return trained, TrainersTogether(trained).run()


def curve(one):
    """All columns but the seconds."""
    rows = [(*row[:2], *row[3:6]) for row in one.tally.curve]
    return torch.tensor([[math.nan if value is None else value for value in row] for row in rows])


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert (one.tally.step, one.tally.best_step) == (other.tally.step, other.tally.best_step)
        torch.testing.assert_close(curve(one), curve(other), rtol=1e-9, atol=1e-9, equal_nan=True)
        for use in ("use_last", "use_best"):
            for each in (one, other):
                getattr(each.state, use)()
            values = [list(each.model.state_dict().values()) for each in (one, other)]
            torch.testing.assert_close(*values, rtol=1e-8, atol=1e-9)


EVERY_RULE = {
    "optimizer": OptimizerSpec(lr=0.02, weight_decay=0.1, eps=1e-3),
    "schedule": ScheduleSpec(warmup_steps=4, drops=(0,), cosine_steps=30),
    "clip_norm": 0.5,
    "average_decay": 0.7,
    "last_batch": "use",
    "validation": ValidationSpec(every=2, unit="steps"),
}


def test_seeds_together_are_equal_to_each_alone(data):
    ones, ends = alone(stage(**EVERY_RULE), data)
    others, same_ends = together(stage(**EVERY_RULE), data)
    assert ends == same_ends
    assert_same(ones, others)
    assert [one.tally.together for one in (*ones, *others)] == [1] * SEEDS + [SEEDS] * SEEDS
    assert all(one.tally.seconds_of_others > one.tally.train_seconds for one in others)


def test_each_seed_stops_by_its_own_patience(data):
    settings = stage(
        optimizer=OptimizerSpec(lr=0.3, eps=1e-3),
        schedule=ScheduleSpec(drops=(0,), factor=0.7),
        validation=ValidationSpec(every=1, unit="steps"),
        stopping=StoppingSpec(patience=1, max_steps=60),
    )
    ones, ends = alone(settings, data, 4)
    assert len({one.tally.step for one in ones}) > 2
    others, same_ends = together(settings, data, 4)
    assert ends == same_ends
    assert_same(ones, others)


def test_what_was_interrupted_goes_on_together_or_alone(data, tmp_path):
    """Asked after a step of one seed, when a validation of the next is due; joined by a fourth."""
    settings = stage(**EVERY_RULE)
    with pytest.raises(Interrupted):
        together(settings, data, folder=tmp_path, control=StopAfter(5))
    with pytest.raises(Interrupted):
        trainer(settings, data, 3, tmp_path, StopAfter(5)).run()
    first = trainer(settings, data, 0, tmp_path)
    assert (first.tally.step, first.tally.together) == (2, SEEDS)
    first.run()
    rest = [trainer(settings, data, seed, tmp_path) for seed in (1, 2, 3)]
    assert [one.tally.step for one in rest] == [2, 2, 5]
    TrainersTogether(rest).run()
    assert_same(alone(settings, data, 4)[0], [first, *rest])


def test_a_seed_that_fails_fails_alone(data):
    settings = stage()
    trained = [trainer(settings, data, seed) for seed in range(SEEDS)]
    original = trained[1].after_step

    def broken():
        if trained[1].tally.step == 7:
            next(trained[1].model.parameters()).data.fill_(math.nan)
        original()

    trained[1].after_step = broken
    ends = TrainersTogether(trained).run()
    assert [ends[0], ends[2]] == ["max_steps", "max_steps"]
    assert isinstance(ends[1], RunFailure)
    assert "step 10" in ends[1].reason  # at its next validation
    ones, _ = alone(settings, data)
    assert_same([ones[0], ones[2]], [trained[0], trained[2]])


def test_the_budget_of_a_seed_is_its_share_of_the_time(data, monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr("dgm_bench.train.together.time.perf_counter", lambda: float(next(now)))
    share = Share()
    with share:
        assert share.elapsed() == 1.0
    share.charge(5.0)
    assert (share.elapsed(), share.lap(), share.lap()) == (7.0, 7.0, 0.0)
    settings = stage(stopping=StoppingSpec(max_steps=10**9))
    trained = [trainer(settings, data, seed) for seed in range(SEEDS)]
    for one, limit in zip(trained, (200, 300, 400), strict=True):
        one.limit_seconds = limit
    assert TrainersTogether(trained).run() == ["budget"] * SEEDS
    assert 1 < trained[0].tally.step < trained[1].tally.step < trained[2].tally.step
    charged = sum(one.tally.seconds for one in trained)
    assert 800 < charged < float(next(now)) < 1.6 * charged


# --------------------------------------------------------------------------- what may be a batch


def never_together(model, objective, data, **rules):
    """Say why trainers of a model take turns; they end as they do alone all the same."""
    ends = []
    for way in (
        lambda trained: [one.run() for one in trained],
        lambda t: TrainersTogether(t).run(),
    ):
        torch.manual_seed(0)
        models = [model(), model()]
        made = [trainer(stage(**rules), data, seed, model=models[seed]) for seed in range(2)]
        for one in made:
            one.objective = objective
        ends.append((made, way(made)))
    (ones, _), (others, _) = ends
    assert_same(ones, others)
    assert [one.tally.together for one in others] == [1, 1]
    fresh = [trainer(stage(**rules), data, seed, model=model()) for seed in range(2)]
    stacked = StackedModels([one.model.train() for one in fresh], objective)
    x = data.splits["train"][:8]
    for one in fresh:
        one.objective = objective
    with pytest.raises(DeclarationError) as refused:
        require_alike(stacked, fresh, [x, x])
    return refused.value.reason


def mean(model, x, step, generator):
    return Loss(-model.density_and_features(x)[0].mean())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_what_cannot_be_a_batch_takes_turns(data):
    """Noise, statistics, and gradients that a hook changes; each with the run's state untouched."""

    def hooked():
        model = build(MAF, data.event_shape)
        next(model.parameters()).register_hook(lambda gradient: 2 * gradient)
        return model

    def noise(model, x, step, generator):
        return Loss(-model.log_prob(x + 0 * torch.rand(4, generator=generator)).mean())

    def plain(model, x, step, generator):
        return Loss(-model.log_prob(x).mean())

    def tiny():
        model = make_model(Traits())
        model.centre.normal_()
        return model

    three = make_dataset(data.splits["train"][:, :3], 80, 10)
    assert never_together(tiny, mean, three) == "its statistics change in training"
    drawing = never_together(lambda: build(MAF, data.event_shape), noise, data)
    assert "random operation" in drawing
    assert never_together(hooked, plain, data) == "its gradients are others together"


# --------------------------------------------------------------------------- parameters in a row


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_steps_a_vector_as_it_does_its_parts(name):
    """From the first step on, and from what it remembered before; and it gives all of that back."""
    spec = OptimizerSpec(name=name, lr=0.05, betas=(0.8, 0.95), weight_decay=0.2)
    nets = []
    for flat_from, flat_to in ((None, None), (0, 4), (2, 4)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        optimizer, flat = build_optimizer(spec, net), None
        for step in range(6):
            if step == flat_from:
                row = torch.zeros(2, sum(p.numel() for p in net.parameters()))[1]
                flat = FlatParameters(net, optimizer, spec, row)
            if step == flat_to:
                flat.give_back()
                flat = None
            net(torch.full((2, 3), 0.1 * step + 1)).square().sum().backward()
            if flat is not None:
                flat.take_gradients()
            stepped = flat.optimizer if flat is not None else optimizer
            stepped.step()
            stepped.zero_grad(set_to_none=True)
        nets.append(net)
    sizes = {p.untyped_storage().nbytes() == p.nbytes for p in nets[1].parameters()}
    assert sizes == {True}
    for other in nets[1:]:
        torch.testing.assert_close(list(nets[0].parameters()), list(other.parameters()))
