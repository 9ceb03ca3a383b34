"""Trainings are, step by step, what the reference of the protocol says."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from train.combinations import further_combinations, used_combinations
from train.events import stopped_after_every_step, trained
from train.reference import Reference
from train.tiny import make_data, make_model, probe

from dgm_bench.spec import StoppingSpec
from dgm_bench.train import precision
from dgm_bench.train.objectives import OBJECTIVES, ObjectiveDeclaration

pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone

USED = used_combinations()
COMBINATIONS = USED | further_combinations()
#: Each combination is trained on two of the four kinds of data, in turn.
PAIRS = (("as-stored", "no-validation-split"), ("augmented", "dequantised"))
KINDS_OF = {name: PAIRS[place % 2] for place, name in enumerate(COMBINATIONS)}
SEED = 3


@pytest.fixture(autouse=True)
def with_probe(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)  # if only emulated
    declared = ObjectiveDeclaration(lambda: probe, nn.Module, "nothing")
    monkeypatch.setitem(OBJECTIVES, "probe", declared)


def start_of(traits):
    torch.manual_seed(11)
    return make_model(traits).values()


def differences(found, wanted, tolerance, where="") -> Iterator[str]:
    """Say where two rows, or what is in them, are not the same."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        for name in wanted:
            yield from differences(found[name], wanted[name], tolerance, f"{where} {name}")
    elif isinstance(wanted, (list, tuple)) and len(wanted) == len(found):
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, tolerance, f"{where} {place}")
    elif isinstance(wanted, (float, np.ndarray, np.generic)) and found is not None:
        if not is_close(found, wanted, tolerance):
            yield f"{where}: {found}, not {wanted}"
    elif found != wanted:
        yield f"{where}: {found}, not {wanted}"


def is_close(found, wanted, tolerance):
    """As ``np.allclose``, of equal shapes and in a fifth of its time."""
    error = np.abs(np.subtract(found, wanted)) / (1 + np.abs(wanted))
    return np.shape(found) == np.shape(wanted) and bool((error <= tolerance).all())


def assert_equal(rows, wanted, stage):
    tolerance = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 1e-3}[stage.precision]
    for step, (one, other) in enumerate(zip(rows, wanted, strict=False)):
        assert list(differences(one, other, tolerance)) == [], f"in step {step}"
    assert len(rows) == len(wanted)


def not_shown(stage, rows) -> set[str]:
    """Return which of the stage's options made no difference in these rows."""
    steps = [row for row in rows if "stop" not in row]
    norms, limit = [row["gradient norm"] for row in steps], stage.clip_norm or 0.0
    clips = [norm > limit for norm in norms]
    best = [row["best"] and row["best"][1] for row in steps]
    forgiven = [
        row["validation"] is not None and row["bad"] == 0 and place != row["best"][1]
        for place, row in enumerate(steps, 1)
    ]
    shown = {
        "drops": rows[-1]["drops"] > 0 and len({min(row["rates"].values()) for row in steps}) > 1,
        "clipping": any(clips) and not all(clips),
        "patience from an epoch on": any(forgiven),
        "a best validation": len(set(best)) > 1,
    }
    asked = {
        "drops": stage.schedule.drops,
        "clipping": stage.clip_norm,
        "patience from an epoch on": stage.stopping.patience_from,
        "a best validation": steps and stage.optimizer.lr,
    }
    return {name for name, there in shown.items() if asked[name] and not there}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_training_is_the_reference_s_step_by_step(name):
    (stage, traits), unseen = COMBINATIONS[name], []
    start = start_of(traits)
    for kind in KINDS_OF[name]:
        data = make_data(kind)
        wanted = Reference(stage, traits, data, SEED, start).run()
        rows, ended = trained(stage, traits, data, SEED, start)
        assert ended
        assert_equal(rows, wanted, stage)
        unseen.append(not_shown(stage, wanted))
    assert not set.intersection(*unseen), "no data shows that it matters"


def options_of(name) -> frozenset[str]:
    """Return what of a combination a checkpoint may forget."""
    (stage, traits), state = COMBINATIONS[name], set()
    rule = stage.schedule
    state |= {f"{field}: {value}" for field, value in vars(traits).items()}
    state |= {f"last batch: {stage.last_batch}", f"objective: {stage.objective.name}"}
    state |= {f"optimizer: {stage.optimizer.name}", f"validation: {stage.validation.unit}"}
    given = {
        "average": stage.average_decay,
        "patience": stage.stopping.patience,
        "patience from": stage.stopping.patience_from,
        "drops": rule.drops,
        "warm-up": rule.warmup_steps,
        "milestones": rule.milestones,
        "cosine": rule.cosine_steps,
        "decay": rule.decay < 1,
    }
    return frozenset(state | {option for option, value in given.items() if value})


def a_cover() -> list[str]:
    """Return a few combinations that together have every option."""
    chosen: list[str] = []
    left = frozenset.union(*map(options_of, COMBINATIONS))
    while left:
        chosen.append(max(COMBINATIONS, key=lambda name: len(options_of(name) & left)))
        left -= options_of(chosen[-1])
    return chosen


@pytest.mark.parametrize("name", a_cover())
def test_a_training_stopped_after_every_step_is_the_reference_s_too(name, tmp_path):
    stage, traits = COMBINATIONS[name]
    start, data = start_of(traits), make_data("no-validation-split")
    wanted = Reference(stage, traits, data, SEED, start).run()
    rows = stopped_after_every_step(stage, traits, data, SEED, start, tmp_path)
    assert_equal(rows, wanted, stage)


def test_a_training_stopped_once_is_the_reference_s_to_its_end(tmp_path):
    """What a continuation gets wrong only later, a stop after each step would undo."""
    stage, traits = COMBINATIONS["all that a rate can do"]
    start, data = start_of(traits), make_data("dequantised")
    wanted = Reference(stage, traits, data, SEED, start).run()
    for step in (1, 5, 10):
        folder = tmp_path / str(step)
        folder.mkdir()
        rows, _ = trained(stage, traits, data, SEED, start, folder, step)
        rows += trained(stage, traits, data, SEED, start, folder)[0]
        assert_equal(rows, wanted, stage)


@pytest.mark.parametrize("out_at", [3, 6])
def test_a_training_out_of_time_is_validated_and_goes_on_as_if_it_had_not_been(out_at, tmp_path):
    """It ends as one of so many steps; the validation off its rhythm leaves no trace."""
    stage, traits = COMBINATIONS["all that a rate can do"]
    start, data = start_of(traits), make_data("dequantised")
    short = stage.model_copy(update={"stopping": StoppingSpec(max_steps=out_at)})
    rows, _ = trained(stage, traits, data, SEED, start, tmp_path, out_at=out_at)
    wanted = Reference(short, traits, data, SEED, start).run()
    wanted[-1]["stop"] = "budget"
    assert_equal(rows, wanted, stage)
    more, _ = trained(stage, traits, data, SEED, start, tmp_path)
    wanted = Reference(stage, traits, data, SEED, start).run()
    assert_equal(rows[:-1] + more, wanted, stage)
