"""What has to change in a run, and what must not, when its seed, its data or their split change.

One recipe of each kind of model and objective; ``DGM_BENCH_EVERY_RECIPE=1`` takes all of them.
"""

import os
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import pytest
import torch
from stand_ins import (
    dimensions,
    distinct,
    in_float64,
    one_of_each_kind,
    small_data,
    whole,
    with_loose_solver,
)

from dgm_bench.context import RunContext
from dgm_bench.data import card
from dgm_bench.data.class_rows import as_inputs
from dgm_bench.data.labelled_images import pixels
from dgm_bench.execution import Execution
from dgm_bench.metrics.evaluate import evaluate, prepare
from dgm_bench.models.adversarial import image_game
from dgm_bench.models.capabilities import HasLogProbEstimate
from dgm_bench.planner import PlannedRun
from dgm_bench.spec import ScheduleSpec, StoppingSpec
from dgm_bench.train import objectives
from dgm_bench.train.checkpoint import StageCheckpoint
from dgm_bench.train.validation import Validation
from dgm_bench.workdir import RunState, WorkFolder

SIZES = {"train": 16, "val": 8, "test": 8}
STEPS, BATCH = 3, 8
#: Covered by other classes, and takes seconds.
SLOW = "ffjord_images:MultiScaleFFJORD"
#: Larger pictures are not for a test.
LARGEST = 4000


def chosen():
    if os.environ.get("DGM_BENCH_EVERY_RECIPE"):
        return [cell for cell in distinct().values() if dimensions(cell) < LARGEST]
    return [c for c in one_of_each_kind() if c.recipe.stages[0].model.name != SLOW]


CELLS = chosen()
#: Metrics that cost little, and whether their value depends on noise whatever the data are.
CHEAP = {"nll": False, "elbo": True, "importance": True}
#: Objectives that draw no noise of their own.
WITHOUT_NOISE = {"nll", "reconstruction", "vq", "vq-likelihood", "classification"}
#: Models whose posterior is a point, so that their bound depends on no draw.
POINTS = ("vqvae_levels:LevelVQVAE",)

pytestmark = pytest.mark.usefixtures("unchecked", "loaded_once")
over_recipes = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)


@pytest.fixture
def loaded_once(monkeypatch):
    """Data that an objective needs are in memory; games set statistics by a single batch."""
    monkeypatch.setattr(objectives, "load", lambda name, root, offline: whole(name))
    monkeypatch.setattr(image_game, "STANDING_BATCHES", 1)


def brief(stage):
    """A few steps with a validation after each; a rate that soon makes the model worse."""
    rule = {"batch_size": BATCH, "unit": "steps", "every": 1, "trace": "estimate"}
    update = {
        "batch_size": BATCH,
        "schedule": ScheduleSpec(milestones=(1,), factor=5),
        "validation": stage.validation.model_copy(update=rule),
        "stopping": StoppingSpec(max_steps=0 if stage.stopping.max_steps == 0 else STEPS),
    }
    return with_loose_solver(stage).model_copy(update=update)


def small(cell):
    """A cell's recipe with brief stages and metrics that cost little."""
    spec = cell.recipe.evaluation
    metrics = tuple(name for name in spec.metrics if name in CHEAP)
    update = {"metrics": metrics, "judge": None, "model_overrides": {}, "trace": "estimate"}
    if spec.importance_samples is not None:
        update |= {"importance_samples": 2, "importance_examples": 3}
    stages = tuple(map(brief, cell.recipe.stages))
    evaluation = spec.model_copy(update=update)
    return cell.recipe.model_copy(update={"stages": stages, "evaluation": evaluation})


def cell_of(cell_id):
    return next(cell for cell in CELLS if cell.id == cell_id)


def noisy(stage, data):
    """Whether a training loss depends on noise: of the data, the objective, a trace or dropout."""
    return (
        data.augment not in (None, pixels, as_inputs)
        or stage.objective.name not in WITHOUT_NOISE
        or "noise" in stage.model.args  # Hutchinson's
        or bool(stage.model.args.get("dropout"))
    )


@cache
def data_of(cell_id):
    recipe = cell_of(cell_id).recipe
    fitted = recipe.stages[0].stopping.max_steps == 0
    sizes = dict.fromkeys(SIZES, card(recipe.stages[0].data.name).dim + 60) if fitted else SIZES
    return small_data(recipe.stages[0].data, sizes)


class Trial:
    """A run of a small recipe, with what was measured at each validation and its noise."""

    def __init__(self, cell, folder, *, data=None, seed=0):
        self.cell, self.recipe, self.seen = cell, small(cell), []
        self.data = data or data_of(cell.id)
        self.folder = WorkFolder(folder, "trial", seed)
        run = PlannedRun(cell, (cell.id,), seed, self.recipe)
        context = RunContext(folder, folder, device="cpu")
        with patch("dgm_bench.provenance.code"):
            self.execution = Execution(run, self.data, self.folder, context)
        self.execution._checkpoint = lambda *of: StageCheckpoint(None)

    def trainer(self, index=0):
        return self.execution._trainer(self.recipe.stages[index], index, None)

    def run(self):
        measure = Validation.measure

        def kept(validation):
            noise = validation.state.noise.get_state()
            value = measure(validation)
            self.seen.append((validation.stage.name, value, validation.state.tally.step, noise))
            return value

        with patch.object(Validation, "measure", kept):
            self.execution._state = RunState(run_id="trial", created="")
            _, self.model = self.execution._train()
        return self

    def curves(self, *columns):
        """Columns of the curves of all stages."""
        picked = columns or (0, 1, 3, 4, 5, 6)
        return [[row[k] for k in picked] for t in self.execution.trainers for row in t.tally.curve]

    def metrics(self, seed=0):
        data, spec = self.execution.trainers[0].data, self.recipe.evaluation
        found = evaluate(self.model, data, spec, seed, self.folder.results)
        return {metric.name: metric.value for metric in found}


def same(one, other):
    """Whether two models have the same numbers to the bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def spoilt(x):
    """Examples that nothing can use unnoticed."""
    return torch.full_like(x, float("nan")) if x.is_floating_point() else 255 - x


def validated_on(data):
    return "val" if "val" in data.splits else "test"


# ------------------------------------------------------------------------------ runs


@over_recipes
def test_a_run_keeps_to_its_splits_its_seed_and_its_best(cell, tmp_path):
    plain = Trial(cell, tmp_path / "plain").run()
    the_test_split_decides_nothing_before_the_evaluation(plain, tmp_path)
    validation_sees_other_examples_than_training(plain, tmp_path)
    the_best_weights_give_their_value_again(plain, tmp_path)
    noise_of_the_evaluation_depends_on_the_seed_alone(plain)


def the_test_split_decides_nothing_before_the_evaluation(plain, folder):
    """The same seed gives the same numbers to the bit, whatever the split that is held back."""
    splits = {**plain.data.splits, "test": spoilt(plain.data.splits["test"])}
    other = Trial(plain.cell, folder / "spoilt", data=replace(plain.data, splits=splits)).run()
    if validated_on(plain.data) == "val":
        assert other.curves() == plain.curves()
        assert same(other.model, plain.model)
    else:  # declared: such a set is validated on test
        assert other.curves(0, 3, 5) == plain.curves(0, 3, 5)
        assert other.curves(4) != plain.curves(4)


def validation_sees_other_examples_than_training(plain, folder):
    """Training examples in the place of those held out change each validation, and no step."""
    held = validated_on(plain.data)
    train, n = plain.data.splits["train"], len(plain.data.splits[held])
    splits = {**plain.data.splits, held: train[:n]}
    other = Trial(plain.cell, folder / "seen", data=replace(plain.data, splits=splits)).run()
    if plain.recipe.stages[0].model.name == "identity:Identity":
        return  # reconstructs all images as they are
    assert other.curves(0, 3, 5)[:STEPS] == plain.curves(0, 3, 5)[:STEPS]
    first_stage = list(zip(other.curves(4), plain.curves(4), strict=True))[:STEPS]
    if plain.recipe.stages[0].objective.name != "reverse-kl":  # which only counts examples
        assert all(one != two for one, two in first_stage)


def the_best_weights_give_their_value_again(plain, folder):
    """What is evaluated is the best of the curve, or the last where the recipe says so."""
    again = Trial(plain.cell, folder / "again", data=plain.data)
    again.execution.codes = plain.execution.codes
    for index, done in enumerate(plain.execution.trainers):
        seen = [entry[1:] for entry in plain.seen if entry[0] == done.stage.name]
        value, step, noise = min(seen, key=lambda entry: entry[:2])
        assert (done.tally.best, done.tally.best_step) == (value, step)
        if plain.recipe.evaluation.checkpoint == "last":
            value, step, noise = seen[-1]
        trainer = again.trainer(index)
        trainer.model.load_state_dict(done.model.state_dict())
        trainer.state.average, trainer.tally.step = None, step
        trainer.state.noise.set_state(noise)
        assert trainer.validation.measure() == value


def noise_of_the_evaluation_depends_on_the_seed_alone(plain):
    spec = plain.recipe.evaluation
    prepare(plain.model, plain.data, spec)
    one, again, other = (plain.metrics(seed) for seed in (0, 0, 1))
    assert one == again
    fresh = plain.data.dequantise not in (None, pixels)
    noise = {**CHEAP, "nll": fresh or isinstance(plain.model, HasLogProbEstimate)}
    noise["elbo"] = plain.recipe.stages[0].model.name not in POINTS
    assert (one != other) == any(noise[name] for name in spec.metrics)


# ------------------------------------------------------------------------------ seeds


@over_recipes
def test_another_seed_changes_weights_order_and_noise_each_alone(cell, tmp_path):
    stage = cell.recipe.stages[0]
    trainers = [Trial(cell, tmp_path, seed=seed).trainer() for seed in (0, 0, 1)]
    start = {name: value.clone() for name, value in trainers[0].model.state_dict().items()}
    first, again, other = (trainer.model for trainer in trainers)
    assert same(first, again)
    drawn = stage.model.name not in ("gaussian:Gaussian", "identity:Identity")
    assert same(first, other) != drawn

    orders = [epoch for trainer in trainers for epoch in two_epochs(trainer.state.sampler)]
    assert orders[:2] == orders[2:4]
    assert len(set(orders)) == (2 if stage.last_batch == "cycle" else 4)

    one, again, two = (losses_of_one_batch(trainer, start) for trainer in trainers)
    assert one == again
    assert len({*one, *two}) == (4 if noisy(stage, trainers[0].data) else 1)


def two_epochs(sampler):
    """The order of the examples in the first epoch and in the second."""
    batches = [tuple(sampler.next().tolist()) for _ in range(2 * sampler.steps_per_epoch)]
    return [tuple(batches[: sampler.steps_per_epoch]), tuple(batches[sampler.steps_per_epoch :])]


def losses_of_one_batch(trainer, weights):
    """Losses of two steps on the same batch with the same weights: noise alone is different."""
    losses, noise = [], trainer.state.noise
    torch.manual_seed(trainer.seed)  # as before the model was built: of dropout
    for _ in range(2):
        trainer.model.load_state_dict(weights)
        trainer.model.train()
        x = trainer._inputs(slice(BATCH), noise)
        losses.append(trainer.objective(trainer.model, x, 0, noise).total.item())
    return losses


# ------------------------------------------------------------------------------ copies


@over_recipes
def test_a_step_on_all_data_is_that_on_two_copies_of_them(cell, tmp_path):
    """A loss is a mean: as many more examples of the same kind change nothing."""
    stage, data = cell.recipe.stages[0], in_float64(data_of(cell.id))
    if noisy(stage, data) or stage.objective.name == "vq" or stage.stopping.max_steps == 0:
        pytest.skip("only for losses without noise and without counts of a codebook")
    moved = [after_one_step(cell, tmp_path, data, copies) for copies in (1, 2)]
    for once, twice in zip(*moved, strict=True):
        assert torch.allclose(once, twice, rtol=1e-6, atol=1e-9)


def after_one_step(cell, folder, data, copies):
    x = data.splits["train"]
    copied = replace(data, splits={**data.splits, "train": torch.cat([x] * copies)})
    trial = Trial(cell, folder, data=copied)
    update = {"precision": "float64", "batch_size": copies * len(x)}
    trial.recipe = trial.recipe.model_copy(
        update={"stages": tuple(s.model_copy(update=update) for s in trial.recipe.stages)}
    )
    trainer = trial.trainer()
    trainer.model.train()
    trainer._step()
    return [parameter.detach() for parameter in trainer.model.parameters()]
