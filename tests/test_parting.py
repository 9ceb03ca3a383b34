"""Two runs part where they were made to: at the data, the start, the batch, the loss, the step."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from factories import make_cell, make_context, make_data, make_dataset, make_record, make_stage

from dgm_bench.cli import cli
from dgm_bench.compare.parting import given, made, parting
from dgm_bench.models.build import build
from dgm_bench.records import WEIGHTS, write_record
from dgm_bench.report.parting import conclusion
from dgm_bench.spec import ModelSpec, OptimizerSpec, ValidationSpec
from dgm_bench.store import parse_curve
from dgm_bench.train.first_step import beginning_of
from dgm_bench.train.loop import Trainer
from dgm_bench.train.sampler import ShuffledBatches
from dgm_bench.train.summary import curve_csv

MAF = ModelSpec(name="maf:MAF", args={"layers": 1, "hidden": [8]})
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


def numbers():
    return torch.randn(150, 4, generator=torch.Generator().manual_seed(0))


def run(folder=None, *, nudge=None, seed=0, loss=None, backward=None, order=None, **settings):
    """Train 20 steps; return the record and the curve, which are written if there is a folder."""
    torch.manual_seed(seed)
    x = numbers()
    if nudge is not None:
        x[nudge] += 1e-6
    stage, examples = make_stage(MAF, **settings), make_dataset(x, 100, 25)
    trainer = Trainer(stage, build(MAF, (4,)), examples, make_context(), seed=seed)
    if order is not None:
        trainer.state.sampler = order(trainer.state.sampler)
    if loss is not None:
        objective = trainer.objective
        trainer.objective = lambda *given: loss(objective(*given))
    if backward is not None:
        for parameter in trainer.model.parameters():
            parameter.register_hook(backward)
    trainer.run()
    cell = make_cell()
    recipe = cell.recipe.model_copy(update={"stages": (stage,)})
    record = make_record(
        cell,
        recipe=recipe,
        seed=seed,
        value=trainer.tally.best,
        data=make_data(fingerprints=examples.fingerprints()),
        beginnings=(beginning_of(stage, trainer.state),),
    )
    curve = curve_csv([trainer])
    if folder is not None:
        write_record(record, folder)
        record.path(folder).with_suffix(".csv").write_bytes(curve)
    return record, parse_curve(curve.decode())


def where(one, other):
    found = parting(made(one[0], other[0], one[1], other[1]))
    return found and found.name


class Backwards(ShuffledBatches):
    """The same batches, each from its end."""

    def __init__(self, other):
        self.__dict__.update(other.__dict__)

    def next(self):
        return super().next().flip(0)


PARTINGS = {
    "data, train": {"nudge": 7},
    "data, test": {"nudge": 130},
    "weights as built": {"seed": 1},
    "first batch": {"order": Backwards},
    "first loss": {"loss": lambda loss: replace(loss, total=loss.total * (1 + 1e-6))},
    "first gradient": {"backward": lambda g: g * (1 + 1e-6)},
    "weights after the first step": {"optimizer": OptimizerSpec(name="adam-maf", lr=1.001e-2)},
    "validation at step 15": {"validation": ValidationSpec(every=5, unit="steps"), "late": 12},
}


@pytest.fixture
def whole():
    return run()


@pytest.mark.parametrize("name", list(PARTINGS))
def test_runs_part_where_something_was_changed(name, whole):
    changes = dict(PARTINGS[name])
    if late := changes.pop("late", None):
        calls = iter(range(1000))
        changes["backward"] = lambda g: g * (2 if next(calls) // 6 >= late else 1)
    assert where(whole, run(**changes)) == name


def test_the_same_run_twice_parts_nowhere(whole):
    again = run()
    points = made(whole[0], again[0], whole[1], again[1])
    assert parting(points) is None
    assert "the same to the bit" in conclusion(points)
    assert {p.name for p in given(whole[0], again[0]) if p.same is False} == set()


def test_what_a_record_does_not_say_is_unknown_and_no_difference(whole):
    """Records of before have no beginnings; where they part later, that is said."""
    old, other = (run(seed=seed) for seed in (0, 1))
    before = old[0].model_copy(update={"beginnings": ()}), old[1]
    points = made(before[0], other[0], before[1], other[1])
    assert parting(points).name == "validation at step 5"
    assert "perhaps before: weights as built, first batch" in conclusion(points)


def test_weights_and_metrics_come_last(whole):
    record, curve = whole
    weights = record.model_copy(update={"artifacts": {WEIGHTS: "0" * 64}})
    others = record.model_copy(update={"artifacts": {WEIGHTS: "1" * 64}})
    assert where((weights, curve), (others, curve)) == "trained weights"
    metric = record.metrics[0].model_copy(update={"value": 7.0})
    assert where(whole, (record.model_copy(update={"metrics": (metric,)}), curve)) == metric.name
    times = [record.metrics[0].model_copy(update={"unit": "s", "value": v}) for v in (1.0, 2.0)]
    one, other = (record.model_copy(update={"metrics": (time,)}) for time in times)
    assert where((one, curve), (other, curve)) is None


def test_gradients_of_one_length_are_told_apart_by_their_direction(whole):
    assert where(whole, run(backward=lambda g: -g)) == "first gradient"


def test_numbers_say_how_far_apart_they_are(whole):
    other = run(loss=lambda loss: replace(loss, total=loss.total * 1.01))
    points = {point.name: point for point in made(whole[0], other[0], whole[1], other[1])}
    assert points["first loss"].apart == pytest.approx(0.01, rel=0.02)
    assert points["first gradient"].apart == pytest.approx(0.01, rel=0.02)
    assert points["first batch"].apart is None


def call(*words):
    done = CliRunner().invoke(cli, ["diff", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_the_verb_takes_identifiers_and_files(tmp_path):
    folders = [tmp_path / name for name in ("mine", "theirs")]
    one, same = run(folders[0])[0], run(folders[1])[0]
    other = run(folders[0], seed=1)[0]
    results = ("--results", folders[0], "--stored", "none")
    done = call(one.run_id, other.run_id, *results)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "They part at: weights as built."
    done = call(one.path(folders[0]), same.path(folders[1]), *results)
    assert done.exit_code == 0, done.output
    assert "the same to the bit" in done.stdout.splitlines()[-1]
    done = call(one.run_id, other.path(folders[0]), *results, "--json")
    found = json.loads(done.stdout)
    assert found["parting"] == "weights as built"
    assert found["runs"] == [one.run_id, other.run_id]
    done = call(one.run_id, "20200101t000000-000000", *results)
    assert done.exit_code == 2
    assert "no such run" in done.stderr
