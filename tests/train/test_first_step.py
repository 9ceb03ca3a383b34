"""What is noted of a first step: of the very arrays, once, however the step is computed."""

import math

import pytest
import torch
from factories import StopAfter, make_context, make_dataset, make_stage

from dgm_bench.control import Control, Interrupted
from dgm_bench.data.dataset import fingerprint
from dgm_bench.keyed_tensors import tensors_hash, weights_hash
from dgm_bench.models.build import build
from dgm_bench.spec import ModelSpec, OptimizerSpec, StoppingSpec
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.first_step import beginning_of
from dgm_bench.train.loop import Trainer
from dgm_bench.train.together import TrainersTogether

MAF = ModelSpec(name="maf:MAF", args={"layers": 1, "hidden": [8]})
TAN = ModelSpec(name="tan:TAN", args={"groups": 1, "units": 4, "components": 2})
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


def noisy(x, generator):
    return x + 0.1 * torch.rand(x.shape, dtype=x.dtype, generator=generator)


def examples():
    x = torch.randn(150, 4, generator=torch.Generator().manual_seed(0))
    return make_dataset(x, 100, 25, augment=noisy)


def trainer(model=MAF, seed=0, folder=None, control=None, **settings):
    torch.manual_seed(seed)
    data = examples()
    stage = make_stage(model, **({"stopping": StoppingSpec(max_steps=6)} | settings))
    made = Trainer(
        stage,
        build(model, data.event_shape),
        data,
        make_context(control=control or Control()),
        seed=seed,
        checkpoint=StageCheckpoint(CheckpointFile(folder) if folder is not None else None),
    )
    made.restore()
    return made


def noted(trained):
    return beginning_of(trained.stage, trained.state)


def test_hashes_are_those_of_weights_batch_and_gradient():
    """By a step taken by hand, of a gradient that is clipped afterwards."""
    rules = {"optimizer": OptimizerSpec(name="sgd-momentum", lr=0.5), "clip_norm": 1e-3}
    ran, by_hand = trainer(**rules), trainer(**rules)
    ran.run()
    first = noted(ran)
    assert first.weights == weights_hash(by_hand.model)
    assert first.weights_on_data is None
    x = by_hand.next_batch()
    assert first.batch == fingerprint(x)
    loss = by_hand.loss(x)
    named = dict(by_hand.model.named_parameters())
    gradients = dict(zip(named, torch.autograd.grad(loss, named.values()), strict=True))
    assert first.loss == loss.item()
    assert first.gradient == tensors_hash(gradients)
    norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))
    assert first.gradient_norm == pytest.approx(norm, rel=1e-12)
    assert norm > 1e-3  # it is that of before clipping
    by_hand.model.zero_grad()
    by_hand.step_on(x)
    assert first.weights_stepped == weights_hash(by_hand.model) != first.weights


def test_a_start_that_depends_on_data_has_weights_before_and_after():
    ran = trainer(TAN)
    ran.begin()
    first = noted(ran)
    assert first.weights_on_data == weights_hash(ran.model) != first.weights
    assert first.batch is None


@pytest.mark.parametrize("polls", [1, 3])
def test_runs_that_were_interrupted_know_their_first_step(polls, tmp_path):
    whole = trainer()
    whole.run()
    with pytest.raises(Interrupted):
        trainer(folder=tmp_path, control=StopAfter(polls)).run()
    again = trainer(folder=tmp_path)
    assert again.tally.step == polls
    again.run()
    assert noted(again) == noted(whole)


def test_seeds_together_note_what_each_has_alone():
    alone, together = ([trainer(seed=seed) for seed in range(3)] for _ in range(2))
    for one in alone:
        one.run()
    for one in together:
        one.state.hold_generators()
    TrainersTogether(together).run()
    assert {t.tally.together for t in together} == {3}
    for one, other in zip(map(noted, together), map(noted, alone), strict=True):
        assert (one.weights, one.batch) == (other.weights, other.batch)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-5)
        assert None not in (one.gradient, one.weights_stepped)


def test_a_loss_that_is_no_number_is_null():
    ran = trainer()
    ran.begin()
    with torch.no_grad():
        next(ran.model.parameters()).fill_(math.nan)
    ran.step_on(ran.next_batch())
    first = noted(ran)
    assert (first.loss, first.gradient_norm) == (None, None)
    assert first.gradient is not None
