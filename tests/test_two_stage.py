"""Stages that follow each other: codes as data, budgets, and going on after an interruption."""

import pytest
import torch
from sklearn.datasets import load_digits

from dgm_bench import store
from dgm_bench.catalog import load_catalog
from dgm_bench.context import RunContext
from dgm_bench.control import Control, Interrupted
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError, UsageError
from dgm_bench.events import Reporter
from dgm_bench.execution import Execution
from dgm_bench.models.codes.packing import pack, packed_size, unpack
from dgm_bench.overrides import apply_overrides
from dgm_bench.planner import PlannedRun
from dgm_bench.quality import stages_quality
from dgm_bench.records import read_record
from dgm_bench.spec import (
    Cost,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    Recipe,
    Stage,
    StoppingSpec,
    ValidationSpec,
)
from dgm_bench.train import latents
from dgm_bench.workdir import WorkFolder

CELL = load_catalog().cells[0]
GRIDS = [[2, 2], [4, 4]]
STEPS = 12


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("dgm_bench.execution.make_pictures", lambda *args: {})


def digits():
    levels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy((levels * 15).astype("uint8")).reshape(-1, 1, 8, 8)[:300]
    parts = dict(zip(("train", "val", "test"), images.split([200, 50, 50]), strict=True))
    classes = torch.from_numpy(labels[:300]).split([200, 50, 50])
    return Dataset(
        "some digits",
        "1",
        parts,
        augment=to_pixels,
        dequantise=to_pixels,
        labels=dict(zip(parts, classes, strict=True)),
        classes=tuple("0123456789"),
    )


def to_pixels(x, generator):
    return x.float() / 255


def prior(level, **changes):
    args = {"grids": GRIDS, "level": level, "codes": 16, "classes": 10}
    size = {"hidden": 8, "residual": 8, "layers": 1, "kernel": 3, "conditioning_layers": 1}
    return changed_stage(
        "pixelcnn:PixelCNN",
        "nll",
        f"level-{level}",
        DataSpec(name="digits", codes_of="vqvae"),
        {**args, **size, **changes},
    )


def autoencoder(name="vqvae", steps=STEPS):
    args = {"strides": [2, 2], "hidden": 8, "residual_units": 4, "residual_layers": 1, "codes": 16}
    model = {**args, "dim": 4}
    return changed_stage("vqvae:VQVAE2", "vq", name, DataSpec(name="digits"), model, steps)


def changed_stage(model, objective, name, data, args, steps=STEPS):
    return Stage(
        name=name,
        data=data,
        model=ModelSpec(name=model, args=args),
        objective=ObjectiveSpec(name=objective),
        optimizer=OptimizerSpec(lr=1e-3),
        batch_size=20,
        validation=ValidationSpec(every=5, unit="steps"),
        stopping=StoppingSpec(max_steps=steps),
    )


def recipe(*stages, **settings):
    stages = stages or (autoencoder(), prior(0), prior(1))
    evaluation = EvaluationSpec(metrics=("codes",), batch_size=25)
    return Recipe(name="two stages", stages=stages, evaluation=evaluation, **settings)


class StopsAfter(Control):
    """Stops when it has been asked so many times: once after each step."""

    def __init__(self, asked):
        super().__init__()
        self.left = asked

    def stop_reason(self):
        self.left -= 1
        return "enough" if self.left < 0 else None


class Messages(Reporter):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


def execution(folder, wanted, *, control=None, limit=None, reporter=None):
    context = RunContext(
        folder.results / "data",
        folder.results,
        device="cpu",
        control=control or Control(),
        reporter=reporter or Reporter(),
    )
    run = PlannedRun(CELL, (CELL.id,), 0, wanted)
    return Execution(run, digits(), folder, context, limit)


def run(results, wanted=None, **how):
    wanted = wanted or recipe()
    folder = WorkFolder(results, wanted.content_hash, 0)
    with folder.locked():
        return execution(folder, wanted, **how).run()


def numbers(record):
    return [(metric.name, metric.value, metric.se) for metric in record.metrics]


# ------------------------------------------------------------------------------ packing


def test_packed_codes_come_back():
    codes = [torch.randint(16, (3, 2, 2)), torch.randint(16, (3, 4, 4))]
    labels = torch.tensor([7, 0, 9])
    rows = pack(codes, labels)
    assert rows.shape == (3, packed_size(GRIDS))
    back, classes = unpack(rows.to(torch.int16), GRIDS)
    assert all(torch.equal(a, b) for a, b in zip(back, codes, strict=True))
    assert torch.equal(classes, labels)


# ------------------------------------------------------------------------------ the run


def test_a_run_of_three_stages_leaves_one_record(tmp_path):
    record = run(tmp_path)
    assert record.outcome.status == "complete"
    assert record.outcome.reason.count("reached 12 steps") == 3
    assert record.budget.steps == 3 * STEPS
    assert set(record.data.codes) == {"vqvae"}
    assert set(record.data.codes["vqvae"]) == {"train", "val", "test"}
    assert {"prior-nll-top", "prior-nll-bottom", "reconstruction-mse"} <= {
        metric.name for metric in record.metrics
    }
    assert read_record(record.path(tmp_path)) == record
    curve = store.Store(tmp_path).curve(record)
    assert {row["stage"] for row in curve} == {0, 1, 2}
    names = [(quality.stage, quality.validated) for quality in record.quality]
    assert names == [("vqvae", "vq"), ("level-0", "nll"), ("level-1", "nll")]
    assert stages_quality(record.model_copy(update={"quality": ()}), curve) == record.quality
    assert all(row["train_seconds"] < row["seconds"] for row in curve)


@pytest.mark.parametrize("steps", [1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3, 3 * STEPS - 1])
def test_stopped_anywhere_the_same_command_goes_on_without_repeating_a_stage(tmp_path, steps):
    """Inside each stage, and where the first has just ended and the second not begun."""
    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", control=StopsAfter(steps - 1))
    # 3 runs of 12 steps are asked 36 times in all; what was done is not done again.
    second = StopsAfter(10_000)
    found = run(tmp_path / "cut", control=second)
    assert 10_000 - second.left == 3 * STEPS - steps
    assert numbers(found) == numbers(whole)
    assert found.artifacts["weights.safetensors"] == whole.artifacts["weights.safetensors"]
    assert found.data.codes == whole.data.codes


def test_codes_are_made_once(tmp_path, monkeypatch):
    made, encoded = [], latents.encoded
    monkeypatch.setattr(latents, "encoded", lambda *args: made.append(1) or encoded(*args))
    with pytest.raises(Interrupted):
        run(tmp_path, control=StopsAfter(STEPS + 3))
    batches = len(made)
    assert run(tmp_path).outcome.status == "complete"
    assert len(made) == batches > 0


def test_damaged_codes_are_made_again(tmp_path, caplog):
    with pytest.raises(Interrupted):
        run(tmp_path, control=StopsAfter(STEPS + 3))
    (kept,) = tmp_path.rglob("codes.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert numbers(run(tmp_path)) == numbers(run(tmp_path / "whole"))
    assert "codes.safetensors: is damaged" in caplog.text


def test_each_stage_gets_its_share_of_a_budget(tmp_path):
    shares = Cost(steps=1, flops_per_step=1.0, launches_per_step=1.0, stage_shares=(0.5, 0.3, 0.2))
    long = [stage.model_copy(update={"stopping": StoppingSpec(max_steps=10**6)})
            for stage in recipe().stages]  # fmt: skip
    wanted = recipe(*long, cost=shares)
    record = run(tmp_path, wanted, limit=3.0)
    assert record.outcome.status == "budget"
    assert record.outcome.reason.count("out of budget") == 3
    folder = WorkFolder(tmp_path, wanted.content_hash, 0)
    rationed = execution(folder, wanted, limit=100.0)
    spent = ((0, 0.0, 50.0), (1, 20.0, 48.0), (2, 20.0, 80.0), (2, 200.0, 0.0))
    for stage, seconds, left in spent:
        assert rationed._limit_of(stage, seconds) == pytest.approx(left)
    # With more budget the first stage goes on; what was made of its old codes starts again.
    heard = Messages()
    again = run(tmp_path, wanted, limit=1.0, reporter=heard)
    assert again.supersedes == record.run_id
    assert again.data.codes != record.data.codes
    assert sum("starts again" in text for text in heard.texts) == 2


def test_a_stage_that_had_ended_adds_no_segment(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, control=StopsAfter(STEPS + 2))
    record = run(tmp_path)
    assert [segment.reason for segment in record.budget.segments] == [
        "max_steps",
        "enough",
        "max_steps",
        "max_steps",
    ]


# ------------------------------------------------------------------------------ overrides


def test_a_change_is_for_every_stage_or_for_the_one_that_is_named():
    of_all = apply_overrides(recipe(), {"optimizer.lr": "0.5"})
    assert [stage.optimizer.lr for stage in of_all.stages] == [0.5, 0.5, 0.5]
    of_one = apply_overrides(recipe(), {"level-0.optimizer.lr": "0.5"})
    assert [stage.optimizer.lr for stage in of_one.stages] == [1e-3, 0.5, 1e-3]
    with pytest.raises(UsageError, match="no 'level-7'"):
        apply_overrides(recipe(), {"level-7.optimizer.lr": "0.5"})


# ------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("shares", [(0.6, 0.4), (0.6, 0.4, 0.0)])
def test_shares_are_one_above_zero_for_each_stage(tmp_path, shares):
    cost = Cost(steps=1, flops_per_step=1.0, launches_per_step=1.0, stage_shares=shares)
    with pytest.raises(DeclarationError, match="for 3 stages"):
        run(tmp_path, recipe(cost=cost))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([autoencoder(), prior(0)], "priors of levels"),
        ([autoencoder(), prior(1), prior(0)], "priors of levels"),
        ([autoencoder("coder"), prior(0), prior(1)], "not the first stage"),
        ([prior(0), autoencoder()], "not the first stage"),
        ([autoencoder(), prior(0, grids=[[2, 2], [3, 3]]), prior(1)], "row"),
        ([autoencoder(), prior(0, grids=[[1, 4], [2, 8]]), prior(1)], "has grids"),
        ([autoencoder(), prior(0, codes=99), prior(1)], "has codebooks of"),
        ([autoencoder(), prior(0, classes=None), prior(1)], "numbers of classes 10, not None"),
        ([autoencoder(), prior(0, classes=7), prior(1, classes=7)], "7 classes"),
        ([autoencoder(), autoencoder("other"), prior(1)], "is no prior"),
    ],
)
def test_stages_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, stages, words):
    with pytest.raises(DeclarationError, match=words):
        run(tmp_path, recipe(*stages))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.args.hidden": "0"}, "greater than 0"),
        ({"optimizer.betas": "[1, 2]"}, "less than 1"),
        ({"average_decay": "2"}, "less than 1"),
        ({"clip_norm": "-1"}, "greater than 0"),
        ({"evaluation.split": "val"}, "compared with those of test"),
        ({"level-0.name": "a/b"}, "pattern"),
        ({"level-0.name": "level-1"}, "share a name"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(tmp_path, changes, words):
    with pytest.raises((DeclarationError, UsageError), match=words):
        run(tmp_path, apply_overrides(recipe(), changes))
    assert not list(tmp_path.rglob("*.json"))
