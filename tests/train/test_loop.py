"""The loop: stopping, schedules, failures, and continuing where it stopped."""

import math
import os
import signal

import pytest
import torch
from factories import StopAfter, make_context, make_dataset, make_stage
from torch import nn

from dgm_bench.control import Control, Interrupted
from dgm_bench.errors import DeclarationError, ResultsError, RunFailure
from dgm_bench.models.build import build
from dgm_bench.spec import (
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ScheduleSpec,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train import precision
from dgm_bench.train.averaging import ParameterAverage
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.loop import Trainer
from dgm_bench.train.objectives import build_objective
from dgm_bench.train.optimizers import OPTIMIZERS, build_optimizer
from dgm_bench.train.schedule import Schedule
from dgm_bench.train.summary import scale_of

MAF = ModelSpec(name="maf:MAF", args={"layers": 2, "hidden": [8]})
FFJORD = ModelSpec(
    name="ffjord:FFJORD",
    args={"flows": 1, "hidden": [8], "solver": "dopri5", "rtol": 1e-3, "atol": 1e-3},
)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, generator=generator)
    x = torch.randn(300, 4, generator=generator) @ mix
    return make_dataset(x, 200, 50)


def stage(model=MAF, **changes):
    return make_stage(model, **changes)


def trainer(stage, data, *, folder=None, control=None, model=None, identity="", **options):
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    model = model or build(stage.model, data.event_shape).to(dtype)
    file = CheckpointFile(folder) if folder is not None else None
    return Trainer(
        stage,
        model,
        data.to("cpu", dtype),
        make_context(control=control or Control()),
        seed=0,
        checkpoint=StageCheckpoint(file, identity),
        **options,
    )


def interrupted(stage, data, folder, steps):
    with pytest.raises(Interrupted):
        trainer(stage, data, folder=folder, control=StopAfter(steps)).run()


def numbers(trained):
    """Everything a run's result depends on, as exact values."""
    losses = [(row[0], *row[3:-1]) for row in trained.tally.curve]
    weights = [p.detach().clone() for p in trained.model.parameters()]
    return losses, trained.tally.best, trained.tally.best_step, weights


def assert_same(one, other):
    assert one[:3] == other[:3]
    assert all(torch.equal(a, b) for a, b in zip(one[3], other[3], strict=True))


@pytest.mark.parametrize("model", [MAF, FFJORD], ids=["maf", "ffjord"])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_a_continued_run_ends_with_exactly_the_numbers_of_an_uninterrupted_one(
    model, data, tmp_path
):
    """Bit by bit, of models that recipes have; ``test_protocol.py`` has every rule and step."""
    settings = stage(model, average_decay=0.9, clip_norm=5.0)
    whole = trainer(settings, data)
    whole.run()
    interrupted(settings, data, tmp_path, 7)
    continued = trainer(settings, data, folder=tmp_path)
    assert continued.restore() == 7
    continued.run()
    assert_same(numbers(whole), numbers(continued))
    assert [s["reason"] for s in continued.tally.segments] == ["test", "max_steps"]


@pytest.mark.parametrize(
    ("rule", "steps", "examples"),
    [("drop", 12, 384), ("use", 14, 400), ("wrap", 14, 448), ("cycle", 14, 448)],
)
@pytest.mark.usefixtures("unchecked")  # numbers alone
def test_a_stage_says_what_becomes_of_the_rest_of_an_epoch(rule, steps, examples, data, tmp_path):
    """Two epochs of 200 examples in batches of 32, at once and stopped in the second."""
    settings = stage(last_batch=rule, stopping=StoppingSpec(max_epochs=2))
    whole = trainer(settings, data)
    assert whole.run() == "max_epochs"
    assert (whole.tally.step, whole.tally.examples) == (steps, examples)
    interrupted(settings, data, tmp_path, 8)
    rest = trainer(settings, data, folder=tmp_path)
    assert rest.restore() == 8
    rest.run()
    assert_same(numbers(rest), numbers(whole))


def test_a_finished_stage_is_not_trained_again(data, tmp_path):
    first = trainer(stage(), data, folder=tmp_path)
    first.run()
    again = trainer(stage(), data, folder=tmp_path)
    assert again.restore() == 20
    again.run()
    assert again.tally.step == 20
    assert_same(numbers(first), numbers(again))


def test_a_process_that_did_not_say_why_it_ended_was_killed(data, tmp_path):
    class Killed(StopAfter):
        def stop_reason(self):
            if super().stop_reason():
                raise KeyboardInterrupt

    first = trainer(stage(), data, folder=tmp_path, control=Killed(5))
    first.checkpoint.every = 0.0
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = trainer(stage(), data, folder=tmp_path)
    assert second.restore() == 4
    second.run()
    assert [one["reason"] for one in second.tally.segments] == ["killed", "max_steps"]


def test_a_checkpoint_of_other_data_is_refused(data, tmp_path):
    interrupted(stage(), data, tmp_path, 3)
    other = trainer(stage(), data, folder=tmp_path, identity="other")
    with pytest.raises(ResultsError, match="delete"):
        other.restore()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(data, tmp_path, caplog):
    interrupted(stage(), data, tmp_path, 3)
    second = trainer(stage(), data, folder=tmp_path, control=StopAfter(4))
    second.restore()
    with pytest.raises(Interrupted):
        second.run()
    flip_a_bit(tmp_path / "checkpoint.pt")
    third = trainer(stage(), data, folder=tmp_path)
    assert third.restore() == 3
    assert "checkpoint.pt: is damaged" in caplog.text
    assert "the checkpoint before it is used" in caplog.text
    third.run()
    whole = trainer(stage(), data)
    whole.run()
    assert_same(numbers(third), numbers(whole))


def test_without_a_whole_checkpoint_the_stage_starts_again(data, tmp_path, caplog):
    interrupted(stage(), data, tmp_path, 3)
    flip_a_bit(tmp_path / "checkpoint.pt")
    assert trainer(stage(), data, folder=tmp_path).restore() is None
    assert "its stage starts again" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt.damaged"]
    (tmp_path / "checkpoint.previous.pt.damaged").touch()
    CheckpointFile(tmp_path).save({})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_version_is_not_gone_on_from(data, tmp_path, caplog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("dgm_bench.train.checkpoint.VERSION", 0)
        interrupted(stage(), data, tmp_path, 3)
    assert trainer(stage(), data, folder=tmp_path).restore() is None
    assert "is of another version of this package; its stage starts again" in caplog.text


def flip_a_bit(path):
    """Damage the middle of a file, where weights are: torch alone would load them."""
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    CheckpointFile(tmp_path).save({"x": Evil()})
    assert CheckpointFile(tmp_path).load() is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("features", [("avx2", "avx512_bf16"), ("avx2", "avx512f")])
def test_mixed_precision_asks_the_hardware(features, data, monkeypatch):
    monkeypatch.setattr(precision, "processor_features", lambda: features)
    settings = stage(precision="bfloat16", stopping=StoppingSpec(max_steps=2))
    said = []
    run = trainer(settings, data)
    monkeypatch.setattr(run.reporter, "message", said.append)
    run.run()
    computed = "bfloat16" if "avx512_bf16" in features else "float32"
    assert scale_of(settings, [run], 200).precision == computed
    told = "this hardware has no bfloat16: training computes in float32"
    assert said == ([] if computed == "bfloat16" else [told])


def test_mixed_precision_keeps_weights_and_computes_in_bfloat16(data, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    torch.set_default_dtype(torch.float32)
    seen = []
    run = trainer(stage(precision="bfloat16", stopping=StoppingSpec(max_steps=6)), data)
    linear = next(m for m in run.model.modules() if isinstance(m, nn.Linear))
    linear.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    run.run()
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert math.isfinite(run.tally.best)


def test_patience_stops_and_the_best_is_restored(data):
    settings = stage(
        stopping=StoppingSpec(patience=2), optimizer=OptimizerSpec(name="adam-maf", lr=0.05)
    )
    run = trainer(settings, data)
    assert run.run() == "patience"
    losses = [row[4] for row in run.tally.curve]
    assert run.tally.best == min(losses)
    assert losses.index(min(losses)) == len(losses) - 4  # more than two bad ones came after it
    run.state.use_best()
    assert run.validation.measure() == pytest.approx(run.tally.best, abs=1e-12)


def test_max_epochs(data):
    run = trainer(stage(stopping=StoppingSpec(max_epochs=2)), data)
    assert run.run() == "max_epochs"
    assert run.tally.step == 2 * (200 // 32)


def test_validation_by_epochs(data):
    rule = ValidationSpec(every=2, unit="epochs")
    run = trainer(stage(validation=rule, stopping=StoppingSpec(max_epochs=4)), data)
    run.run()
    assert [row[1] for row in run.tally.curve] == [2.0, 4.0]


def test_a_loss_that_is_nan_ends_the_run_with_a_hint(data):
    wild = OptimizerSpec(name="adam", lr=1e30)
    with pytest.raises(RunFailure) as failure:
        trainer(stage(optimizer=wild, stopping=StoppingSpec(max_steps=50)), data).run()
    assert failure.value.status == "diverged"
    assert "--set optimizer.lr" in failure.value.hint


def test_schedule_drops_once_each_and_stays():
    schedule = Schedule(ScheduleSpec(drops=(10, 20), factor=0.1), 1e-3)
    rates = []
    for bad in [*range(12), 0, 0, *range(1, 23)]:
        schedule.after_validation(bad)
        rates.append(schedule.lr(0))
    assert rates[10] == 1e-3
    assert rates[11] == pytest.approx(1e-4)
    assert rates[12] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-5)


def test_warm_up_is_linear():
    schedule = Schedule(ScheduleSpec(warmup_steps=4), 1.0)
    assert [schedule.lr(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_average_is_the_moving_average_and_swaps_back():
    model = nn.Linear(1, 1, bias=False)
    average = ParameterAverage(model, 0.9)
    expected = model.weight.item()
    for weight in (1.0, -2.0):
        with torch.no_grad():
            model.weight.fill_(weight)
        average.update()
        expected = 0.9 * expected + 0.1 * weight
    with average.swapped_in():
        assert model.weight.item() == pytest.approx(expected, rel=1e-12)
    assert model.weight.item() == -2.0


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: build_optimizer(OptimizerSpec(name="adm", lr=1), nn.Linear(1, 1)), "adam"),
        (lambda: build_objective(ObjectiveSpec(name="nl")), "nll"),
        (lambda: build_objective(ObjectiveSpec(args={"tracee": 1})), "tracee"),
    ],
)
def test_unknown_names_are_told_with_the_nearest_known(make, hint):
    with pytest.raises(DeclarationError, match=hint):
        make()


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_a_signal_asks_to_stop_and_a_second_one_insists(number, reason):
    control = Control()
    before = signal.getsignal(number)
    with control.catching_signals():
        os.kill(os.getpid(), number)
        assert control.stop_reason() == reason
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_time_limit():
    assert Control(time_limit=60).stop_reason() is None
    assert Control(time_limit=0).stop_reason() == "time limit"


def test_validation_without_a_val_split_is_on_test(data):
    """FFJORD's image runs chose checkpoints on the test set, having no other."""
    no_val = make_dataset(data.splits["train"], 150)
    run = trainer(stage(stopping=StoppingSpec(max_steps=5)), no_val)
    run.run()
    run.state.use_best()
    run.model.eval()
    with torch.no_grad():
        test_loss = -run.model.log_prob(run.data.splits["test"]).mean().item()
    assert math.isclose(test_loss, run.tally.best, rel_tol=1e-6)


def test_milestones_drop_the_rate_at_their_steps():
    schedule = Schedule(ScheduleSpec(milestones=(3, 5), factor=0.5), 1.0)
    assert [schedule.lr(step) for step in range(7)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_cosine_falls_from_the_full_rate_to_zero():
    schedule = Schedule(ScheduleSpec(cosine_steps=100), 2.0)
    assert schedule.lr(0) == 2.0
    assert schedule.lr(50) == pytest.approx(1.0)
    assert schedule.lr(100) == schedule.lr(150) == pytest.approx(0.0)


def test_a_decay_multiplies_the_rate_at_every_step():
    """The first, too, as in openai/pixel-cnn (train.py)."""
    schedule = Schedule(ScheduleSpec(decay=0.5), 8.0)
    assert [schedule.lr(step) for step in range(3)] == [4, 2, 1]


class Initialised(nn.Linear):
    """A model of the mean alone, which starts at the mean of what it is shown."""

    def __init__(self):
        super().__init__(1, 4)
        self.initial_examples, self.seen = 30, None

    def initialise(self, x):
        self.seen = x.clone()
        self.bias.copy_(x.mean(0))

    def log_prob(self, x):
        return -(x - self.bias - 0 * self.weight.sum()).square().sum(1)

    def decayed_parameters(self):
        return [self.weight]


def test_a_model_that_starts_from_data_sees_it_once_and_so_does_its_average(data):
    trained = trainer(
        stage(average_decay=0.5, stopping=StoppingSpec(max_steps=0)), data, model=Initialised()
    )
    trained.run()
    assert torch.equal(trained.model.seen, data.splits["train"][:30])
    average = dict(zip(("weight", "bias"), trained.state.average.averages, strict=True))
    assert torch.equal(average["bias"], trained.model.bias)


def test_weight_decay_is_for_the_parameters_that_a_model_names():
    model = Initialised()
    for name in OPTIMIZERS:
        optimizer = build_optimizer(OptimizerSpec(name=name, lr=0.1, weight_decay=0.3), model)
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups
                  for p in group["params"]}  # fmt: skip
        assert decays == {id(model.weight): 0.3, id(model.bias): 0}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_moves_every_parameter(name):
    model = nn.Linear(3, 2)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = build_optimizer(OptimizerSpec(name=name, lr=0.1), model)
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
