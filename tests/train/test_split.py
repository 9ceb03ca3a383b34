"""Batches that are divided, among processes or in sequence: all numbers are those of the whole."""

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
import torch
from factories import StopAfter, make_context, make_dataset, make_stage
from models.test_contract import CASES
from train.forked import in_processes
from train.tiny import Traits, make_model

from dgm_bench.control import Control, Interrupted
from dgm_bench.errors import DeclarationError, LostProcessError
from dgm_bench.models.build import build
from dgm_bench.models.whole_batch import divided, normal_, rows_of
from dgm_bench.spec import ModelSpec, ObjectiveSpec, OptimizerSpec, StoppingSpec, ValidationSpec
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.loop import Trainer
from dgm_bench.train.objectives import OBJECTIVES, build_objective, require_fit
from dgm_bench.train.split import WHOLE, Split
from dgm_bench.train.state import TrainingState
from dgm_bench.train.world import ALONE

FIXED_STEPS = {"hidden": [4], "solver": "rk4", "step_size": 0.5, "adjoint": False}
AT_LENGTH = bool(os.environ.get("DGM_BENCH_ENGINES"))
at_length = pytest.mark.skipif(not AT_LENGTH, reason="DGM_BENCH_ENGINES=1 runs it; a minute")

#: Arguments of the objectives that need some.
ARGUMENTS = {
    "iwae": [{"samples": 3}],
    "elbo": [{}],
    "free-bits": [{"nats": 0.05}],
    "warmed-elbo": [{"warmup_epochs": 2, "steps_per_epoch": 3}],
    "discrete-elbo": [
        {"estimator": "gumbel"},
        {"estimator": "sf"},
        {"estimator": "concrete", "samples": 2},
        {"estimator": "vimco", "samples": 3},
    ],
    "prediction": [{"estimator": "sf"}, {"estimator": "st-gumbel"}],
    "adversarial": [{}, {"loss": "wasserstein", "gradient_penalty": 1.0, "r1": 1.0}],
}
SNAIL = {"layers": 3, "attention_layers": 2, "heads": 2, "head_width": 4, "output_layers": 1}
SNAIL |= {"hidden": 8, "residual": 6, "kernel": 3, "dropout": 0.2}
MORE = {
    "dropout": ("nsf:NSFCoupling", {"layers": 2, "hidden": 8, "blocks": 1, "dropout": 0.3}),
    "dropout-of-masks": (
        "nsf:NSFAutoregressive",
        {"layers": 1, "hidden": 8, "blocks": 1, "dropout": 0.3},
    ),
    "discrete-nvil": (
        "discrete:DiscreteVAE",
        {"variables": 3, "classes": 2, "decoder_hidden": [8], "baseline_hidden": [6]}
        | {"centred": True},
    ),
    "prediction-nvil": (
        "structured_prediction:StructuredPrediction",
        {"variables": 3, "classes": 4, "baseline_hidden": [6]},
    ),
    "restart-images": ("vqvae:VQVAE", {"strides": [2], "hidden": 8, "codes": 8, "restart": 0.5}),
    "gradient-images": (
        "vqvae:VQVAE",
        {"strides": [2], "hidden": 8, "codes": 8, "codebook": "gradient"},
    ),
    "solver-images": (
        "ffjord_images:MultiScaleFFJORD",
        {"flows": 1, "filters": [4], "alpha": None, "rtol": 1e-3, "atol": 1e-3, "adjoint": False},
    ),
    "own-steps": ("ffjord:FFJORD", {"hidden": [12], "rtol": 1e-3, "atol": 1e-3, "adjoint": False}),
    "pixelcnn-codes": (
        "pixelcnn:PixelCNN",
        {"layers": 2, "output_layers": 1, "hidden": 8, "residual": 6, "kernel": 3, "dropout": 0.2},
    ),
    "pixelcnnpp-codes": (
        "pixelcnnpp:PixelCNNPP",
        {"hidden": 6, "blocks": 1, "scales": 1, "dropout": 0.2},
    ),
    "pixelsnail-codes": ("pixelsnail:PixelSNAIL", SNAIL),
    "progan-images": ("progan:ProGAN", {"latent": 3, "filters": [4]}),
    "stylegan-images": ("stylegan:StyleGAN", {"latent": 3, "filters": [4]}),
}
#: Models that draw noise, take statistics or solve in ways of their own.
QUICK = ("maf", "realnvp-images", "ffjord-3", "own-steps", "vae", "gated-vae", "avb", "gan")
QUICK += ("discrete-vae", "discrete-nvil", "prediction-nvil", "hierarchical-vae", "dvae-images")
QUICK += ("resnet-vae-images",)
QUICK += ("restart-images", "dropout", "dropout-of-masks", "pixelcnn-codes", "pixelsnail-codes")
QUICK += ("progan-images", "stylegan-images")
PLACE = {"grids": [[2, 3], [4, 4]], "level": 0, "codes": [5, 5], "classes": 3}


def cases():
    """Every model of the contract test and more, with solvers that need not be exact."""
    for case, (name, args) in {**CASES, **MORE}.items():
        if case not in QUICK and not AT_LENGTH:
            continue
        rough = {key: 1e-3 for key in ("rtol", "atol") if key in args}
        if "codes" in case:
            yield case, name, {**args, **PLACE}, (6 + 16 + 1,)
        elif case != "gaussian":
            shape = (1, 4, 4) if "images" in case else (4,)
            yield case, name, {**args, **rough}, shape


def fitting(model, args):
    """All objectives that can train a model, with their arguments."""
    for name, declared in OBJECTIVES.items():
        if not isinstance(model, declared.needs) or declared.loads_data:
            continue
        if name == "flow-matching" and args.get("flows", 1) > 1:
            continue
        for own in ARGUMENTS.get(name, [{}]):
            spec = ObjectiveSpec(name=name, args=own)
            with suppress(DeclarationError):
                require_fit(spec, model)
                yield f"{name} {own or ''}", spec


def pairs():
    """Models with the objectives that can train them; by default a few of each."""
    seen = set()
    for case, name, args, shape in cases():
        model = build(ModelSpec(name=name, args=args), shape)
        if case == "own-steps":
            model.solve_with(first_step=0.5)
        found = list(fitting(model, args))
        chosen = found if AT_LENGTH else [pair for pair in found if pair[0] not in seen] or found
        for words, spec in chosen if AT_LENGTH else chosen[-2:]:
            yield f"{case} by {words}", model, spec, shape
            seen.add(words)


def examples(model, shape, n=5):
    if len(shape) == 1 and hasattr(model, "grids"):
        return torch.randint(3, (n, *shape)).to(torch.int16)
    return torch.rand(n, *shape).round() if hasattr(model, "variables") else torch.rand(n, *shape)


def state_of(model, x, spec):
    """A training state, and its loss, as a stage has them."""
    stage = make_stage(ModelSpec(name="maf:MAF"), objective=spec, precision="float64")
    objective = build_objective(spec)
    state = TrainingState(stage, model, x, seed=3)
    model.train()
    return state, lambda own: objective(model, own, 1, state.noise).total


def what_differs(world):
    """Pairs that cannot be trained where processes share a batch, and why."""
    found = {}
    torch.manual_seed(0)
    for name, model, spec, shape in pairs():
        x = examples(model, shape)
        state, loss = state_of(model, x, spec)
        try:
            Split(world).require_right(state, loss, x)
        except DeclarationError as error:
            found[name] = str(error)
    return found


def test_every_model_gives_a_batch_that_two_processes_share_what_one_gives_it(tmp_path):
    """Losses, gradients, statistics and noise, to rounding: or training would refuse it."""
    two = in_processes(2, tmp_path, what_differs)
    assert two[0] == two[1]
    assert two[0] == {}


# ----------------------------------------------------------------------------- whole trainings


#: Model, objective, shape of an example, and a learning rate: as what is zero but for rounding
#: does not grow, in a batch norm's shift that Adam's rate times a gradient of its own size moves.
TRAINED = {
    "maf": (("maf:MAF", {"layers": 2, "hidden": [8]}), "nll", (4,), 1e-4),
    "ffjord": (
        ("ffjord:FFJORD", {"hidden": [6], "rtol": 1e-3, "atol": 1e-3, "flows": 1}),
        "nll",
        (3,),
        1e-2,
    ),
    "vae": (("gated_vae:DenseVAE", {"latent": 3, "hidden": 8}), "elbo", (6,), 1e-2),
    "vqvae": (
        ("vqvae:VQVAE", {"strides": [2], "hidden": 8, "codes": 8, "restart": 0.5}),
        "vq",
        (3, 8, 8),
        1e-2,
    ),
    "pixelsnail": (("pixelsnail:PixelSNAIL", SNAIL | PLACE), "nll", (23,), 1e-2),
}


def trainer_of(name, split, folder=None, polls=None):
    """A training of the name; each one of a name is the same, on whatever processes."""
    (model, args), objective, shape, lr = TRAINED[name]
    torch.manual_seed(7)
    built = build(ModelSpec(name=model, args=args), shape)
    data = make_dataset(examples(built, shape, 46), 33, 7)
    stage = make_stage(
        ModelSpec(name=model, args=args),
        objective=ObjectiveSpec(name=objective),
        optimizer=OptimizerSpec(name="adam-maf", lr=lr),
        batch_size=7,
        last_batch="use",
        clip_norm=1.0,
        average_decay=0.5,
        precision="float64",
        validation=ValidationSpec(every=2, unit="steps", batch_size=4),
        stopping=StoppingSpec(max_steps=9),
    )
    writes = folder is not None and split.world.leads
    checkpoint = StageCheckpoint(CheckpointFile(folder) if writes else None, "same", 0.0)
    torch.manual_seed(3)
    context = make_context(control=Control() if polls is None else StopAfter(polls))
    return Trainer(stage, built, data, context, seed=1, checkpoint=checkpoint, split=split)


def curve(trainer):
    """Losses and validations: of the steps, not of the time."""
    return [[value or 0.0 for value in row[0:2] + row[3:7]] for row in trainer.tally.curve]


def weights(trainer):
    return {name: value.clone() for name, value in trainer.state.state_dict()["model"].items()}


def trained(world, name, folder, polls):
    """Train on from what ``folder`` has, until it was asked so often whether to stop."""
    trainer = trainer_of(name, Split(world), folder, polls)
    trainer.restore()
    with suppress(Interrupted):
        trainer.run()
    return curve(trainer), weights(trainer)


def assert_same(found, expected):
    curve_found, weights_found = found
    assert len(curve_found) == len(expected[0])
    for row, other in zip(curve_found, expected[0], strict=True):
        assert row == pytest.approx(other, rel=1e-6)
    for key, value in expected[1].items():
        torch.testing.assert_close(weights_found[key], value, rtol=1e-6, atol=1e-9)


def several(world, names, folder, polls):
    return {name: trained(world, name, folder / name, polls) for name in names}


def go_on(names, folder, *plan):
    """Train by so many processes so far, and on by others; return the last curves and weights."""
    for name in names:
        (folder / name).mkdir(parents=True)
    for size, polls in plan:
        if size == 1:
            found = several(ALONE, names, folder, polls)
        else:
            work = partial(several, names=names, folder=folder, polls=polls)
            found = in_processes(size, folder, work)[0]
    return found


def same_whatever_the_number(names, folder, *plan):
    alone = go_on(names, folder / "alone", (1, None))
    for name, found in go_on(names, folder / "shared", *plan).items():
        assert_same(found, alone[name])


def test_a_training_goes_on_with_any_number_of_processes_and_its_numbers_are_the_same(tmp_path):
    same_whatever_the_number(["maf", "vqvae"], tmp_path, (1, 2), (2, 6), (1, None))


@at_length
@pytest.mark.parametrize("plan", [[(2, None)], [(4, None)], [(1, 1), (2, 3), (4, 6), (1, None)]])
def test_every_kind_of_training_is_the_same_on_any_number(plan, tmp_path):
    same_whatever_the_number(list(TRAINED), tmp_path, *plan)


# ----------------------------------------------------------------------------- refused, lost, parts


def with_own_noise(world):
    """A model that draws noise of what is here, by a statistic of what is here."""
    trainer = tiny_trainer(Split(world))
    with pytest.raises(DeclarationError) as error:
        trainer.run()
    return str(error.value)


def tiny_trainer(split):
    torch.manual_seed(0)
    model = make_model(Traits(estimates=True))
    data = make_dataset(torch.rand(40, 3), 30)
    stage = make_stage(ModelSpec(name="maf:MAF"), precision="float64")
    return Trainer(stage, model, data, make_context(), seed=0, split=split)


def test_a_model_that_knows_of_its_slice_alone_is_refused(tmp_path):
    first, second = in_processes(2, tmp_path, with_own_noise)
    assert first == second
    assert first.startswith(
        "Tiny: has another gradient and set of statistics and state of its noise"
    )


def without_the_other(world):
    if not world.leads:
        os._exit(1)
    with pytest.raises(LostProcessError, match="goes on from the last checkpoint"):
        tiny_trainer(Split(replace(world, lost=lambda: ("process 1", "is gone")))).run()
    os._exit(0)


def test_a_process_that_has_gone_ends_the_others(tmp_path):
    assert in_processes(2, tmp_path, without_the_other) == [None, None]


def rows(world):
    """What a model and noise of seven examples are, of which each process computes some."""
    torch.manual_seed(4)
    model = build(ModelSpec(name="maf:MAF", args={"layers": 1}), (4,)).eval()
    x, noise = torch.rand(7, 4), torch.Generator().manual_seed(1)
    drawn = rows_of(_Draws(), "draw", x, noise)
    with torch.no_grad():
        return rows_of(model, "log_prob", x), drawn, rows_of(model, "log_prob", x[:1])


class _Draws:
    def draw(self, x, generator):
        transposed = x.new_empty(2, 3, len(x)).permute(2, 0, 1)
        return torch.cat(
            [normal_(transposed, generator), normal_(x.new_empty(len(x), 2, 3), generator)], 2
        )


def shared_rows(world):
    with divided(world):
        return rows(world)


def test_each_process_computes_some_rows_and_all_get_all(tmp_path):
    for found in in_processes(3, tmp_path, shared_rows):
        for one, other in zip(found, rows(ALONE), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_parts_in_sequence_have_the_gradients_of_the_whole_batch():
    (vae,) = [pair for pair in pairs() if pair[0].startswith("hierarchical-vae by iwae")][:1]
    _, model, spec, shape = vae
    x = examples(model, shape, 7)
    for parts in (2, 3, 7, 9):
        state, loss = state_of(model, x, spec)
        Split(parts=parts).require_right(state, loss, x)


def test_parts_in_sequence_count_evaluations_of_one_batch():
    model = build(ModelSpec(name="ffjord:FFJORD", args=FIXED_STEPS), (2,))
    x, counts = torch.rand(6, 2), []
    for split in (WHOLE, Split(parts=3)):
        state, loss = state_of(model, x, ObjectiveSpec(name="nll"))
        model.function_evaluations = 5
        split.backward(state, loss, x)
        counts.append(model.function_evaluations)
    assert counts[0] == counts[1] > 5


@pytest.mark.parametrize("name", ["maf", "ffjord", "vqvae"])
def test_statistics_of_a_batch_refuse_parts_in_sequence(name):
    with pytest.raises(DeclarationError, match=r"are of the whole batch.*leave out --accumulate"):
        trainer_of(name, Split(parts=2)).run()


class TooLarge:
    """An objective of the batches that fit; it draws before it fails, and hears what is said."""

    def __init__(self, objective, most):
        self.objective, self.most, self.heard = objective, most, []

    def __call__(self, model, x, step, generator):
        loss = self.objective(model, x, step, generator)
        if len(x) > self.most and model.training:
            raise torch.OutOfMemoryError("a batch is too large")
        return loss


def test_a_batch_that_does_not_fit_is_computed_in_parts_from_then_on():
    plain, small = trainer_of("vae", WHOLE), trainer_of("vae", WHOLE)
    plain.run()
    small.objective, small.divides_further = TooLarge(small.objective, 3), True
    messages = []
    small.reporter.message = messages.append
    small.run()
    assert small.split.parts == 4
    assert "computed in 4 parts" in messages[-1]
    assert_same((curve(small), weights(small)), (curve(plain), weights(plain)))


def test_one_example_that_does_not_fit_is_too_much():
    trainer = trainer_of("vae", WHOLE)
    trainer.objective, trainer.divides_further = TooLarge(trainer.objective, 0), True
    with pytest.raises(torch.OutOfMemoryError):
        trainer.run()


# ----------------------------------------------------------------------------- models in parts


@at_length  # each process imports FSDP
def test_a_model_in_parts_is_trained_alike_and_goes_on_whole_and_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("dgm_bench.train.sharded.SHARDED_FROM", 1)
    same_whatever_the_number(["pixelsnail"], tmp_path, (1, 1), (2, 3), (2, None))


def held(world):
    trainer = trainer_of("pixelsnail", Split(world))
    trainer.run()
    inside = sum(
        memory["exp_avg"].to_local().numel() for memory in trainer.state.optimizer.state.values()
    )
    trainer.state.use_best()
    trainer.state.release()
    return inside, [type(p) for p in trainer.model.parameters()], trainer.model.state_dict()


@at_length  # each process imports FSDP
def test_each_process_remembers_its_part_and_has_the_whole_model_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("dgm_bench.train.sharded.SHARDED_FROM", 1)
    (one, kinds, first), (other, _, second) = in_processes(2, tmp_path, held)
    total = sum(p.numel() for p in trainer_of("pixelsnail", WHOLE).model.parameters())
    assert one + other == total
    assert max(one, other) < 0.6 * total
    assert set(kinds) == {torch.nn.Parameter}
    assert all(torch.equal(first[name], second[name]) for name in first)
