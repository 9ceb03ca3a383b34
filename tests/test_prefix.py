"""Whether the first part of trainings goes as stored runs went: the band, and three cheap cells."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cheap_cells import CHEAP
from click.testing import CliRunner
from factories import make_cell, make_context, make_record
from scipy.stats import ttest_ind

from dgm_bench import prefix as prefix_runs
from dgm_bench.catalog import load_catalog
from dgm_bench.cli import cli
from dgm_bench.compare import prefix as bands
from dgm_bench.compare.prefix import FALSE_ALARMS, Prefix, deviations, stored_prefix
from dgm_bench.control import Interrupted
from dgm_bench.errors import ResultsError
from dgm_bench.prefix import PrefixRun, run_prefix
from dgm_bench.records import write_record
from dgm_bench.report.prefix import render_prefix
from dgm_bench.session import DataSource
from dgm_bench.store import Store

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHARE = 0.02


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)


def cell_of(name):
    return load_catalog().select(name)[0]


def run(name, seeds, share=SHARE):
    """Return the new runs of a cell beside those that came with the suite."""
    cell, context = cell_of(name), make_context()
    stored = stored_prefix(cell, Store(Path("no folder"), RESULTS), share)
    return run_prefix(cell, stored, seeds, context, DataSource(context))


@pytest.mark.parametrize("name", CHEAP)
def test_trainings_begin_as_those_that_are_stored(name):
    """What CI asks of each change of the code."""
    found = run(name, range(3))
    assert len(found.prefix.curves) >= 10
    assert not found.broken
    assert not found.left, render_prefix(found)


# --------------------------------------------------------------------------- the band


def curve(*losses, every=10):
    """A curve of these training losses, with validations that are twice as large."""
    return [
        {"step": every * (row + 1), "train_loss": loss, "validation": 2 * loss}
        for row, loss in enumerate(losses)
    ]


def band(*curves, rows=1):
    return Prefix(dict(enumerate(curves)), rows, 100)


@pytest.mark.parametrize(("stored", "new"), [(3, 1), (3, 3), (10, 1), (10, 3)])
def test_a_value_leaves_the_band_where_students_test_says_so(stored, new):
    """Against scipy's test of two samples, its level divided among the values."""
    noise = np.random.default_rng(stored + new)
    sides = set()
    for shift in np.linspace(0, 60 if new + stored < 5 else 15, 40):
        before, now = noise.normal(5, 1, stored), noise.normal(5 + shift, 1, new)
        found = deviations(band(*map(curve, before)), [curve(loss) for loss in now])
        p = ttest_ind(now, before).pvalue
        assert [d.inside for d in found] == [p >= FALSE_ALARMS / 2] * 2
        assert [d.relative <= 1 for d in found] == [d.inside for d in found]
        sides.add(found[0].inside)
    assert sides == {True, False}


def test_runs_of_one_code_leave_it_as_seldom_as_is_said(monkeypatch):
    monkeypatch.setattr(bands, "FALSE_ALARMS", 0.1)
    noise, alarms, times = np.random.default_rng(0), 0, 1000
    for _ in range(times):
        curves = [curve(*losses) for losses in noise.normal(size=(6, 3))]
        found = deviations(band(*curves[:3], rows=3), curves[3:])
        assert len(found) == 6
        alarms += not all(d.inside for d in found)
    # The two columns go together here, so that half of the six values say the same.
    assert 0.03 < alarms / times < 0.1


def test_rows_are_compared_by_their_steps():
    """Stored curves lack rows of which the validation was infinite; the same run has them."""
    whole = [curve(5.0 + seed / 10, 4.0 + seed / 10, 3.0) for seed in range(3)]
    infinite = [[{**rows[0], "validation": math.inf}, *rows[1:]] for rows in whole]
    found = deviations(band(*(rows[1:] for rows in whole), rows=2), infinite)
    assert [(d.step, d.relative) for d in found] == [(20, 0)] * 2 + [(30, 0)] * 2
    run = PrefixRun(make_cell(), band(*(rows[1:] for rows in whole), rows=2))
    run.curves.update(enumerate(infinite))
    assert run.apart == 0


def test_equal_seeds_leave_no_room():
    same = [curve(5.0)] * 3
    assert all(d.inside and d.relative == 0 for d in deviations(band(*same), [curve(5.0)]))
    (loss, _) = deviations(band(*same), [curve(5.1)])
    assert not loss.inside
    assert loss.relative == math.inf


def test_a_run_that_broke_before_left_it():
    found = PrefixRun(make_cell(), band(curve(5, 4), curve(6, 4), curve(5, 5), rows=2))
    found.curves[0], found.broken[0] = curve(5.5), "diverged: training loss nan"
    assert [(d.step, d.relative) for d in found.left] == [(20, math.inf)] * 2
    text = render_prefix(found)
    assert "LEFT THE BAND" in text
    assert "seed 0 broke: diverged: training loss nan" in text
    assert "after step 20: training loss not reached, validation not reached" in text


def test_values_that_old_curves_lack_are_not_compared():
    old = [[{"step": 10, "validation": loss}] for loss in (1.0, 2.0, 3.0)]
    (found,) = deviations(band(*old), [curve(1.0)])
    assert (found.column, found.inside) == ("validation", True)


def test_own_seeds_say_how_far_the_bits_are():
    found = PrefixRun(make_cell(), band(curve(5.0), curve(6.0), curve(7.0)))
    found.curves[9] = curve(5.0)
    assert found.apart is None
    assert "seeds" not in render_prefix(found).partition("stored")[2]
    found.curves[0] = curve(5.0)
    assert found.apart == 0
    assert "the same bits as stored" in render_prefix(found)
    found.curves[1] = curve(6.006)
    assert found.apart == pytest.approx(0.001, rel=0.01)
    assert "0.001 from the same seeds" in render_prefix(found)


# --------------------------------------------------------------------------- what is stored


def stored(folder, *curves):
    """A store with a run of each curve."""
    for seed, rows in enumerate(curves):
        run_id = f"20260101t{seed:06d}-abcdef"
        record = make_record(CELL, seed=seed, run_id=run_id, curve=f"{run_id}.csv")
        path = write_record(record, folder).with_suffix(".csv")
        lines = [f"{r['step']},{r['step']},1,{r['train_loss']},{r['validation']}" for r in rows]
        path.write_text("\n".join(["step,epoch,seconds,train_loss,validation", *lines]) + "\n")
    return Store(folder)


CELL = make_cell("maf", "power")
LONG = [curve(*[5.0] * n) for n in (100, 80, 120)]


@pytest.mark.parametrize(("share", "steps"), [(0.0001, 10), (0.02, 20), (0.055, 50), (1.0, 800)])
def test_the_share_is_of_the_median_run_and_has_a_validation(tmp_path, share, steps):
    found = stored_prefix(CELL, stored(tmp_path, *LONG), share)
    assert (found.steps, found.of_steps, sorted(found.curves)) == (steps, 1000, [0, 1, 2])


def test_rows_at_other_steps_are_not_compared(tmp_path):
    mixed = stored(tmp_path / "mixed", *LONG[:2], curve(5, 5) + curve(*[5] * 90, every=11)[2:])
    assert stored_prefix(CELL, mixed, 0.5).rows == 2
    with pytest.raises(ResultsError, match="validated at other steps"):
        stored_prefix(CELL, stored(tmp_path / "no", *LONG[:2], curve(5, every=11)), 0.5)


def test_too_few_seeds_make_no_band(tmp_path):
    with pytest.raises(ResultsError, match=r"has 2 of the 3 complete runs.*--seeds 3"):
        stored_prefix(CELL, stored(tmp_path, *LONG[:2]), 0.5)


# --------------------------------------------------------------------------- training


PERCEPTRON = "neural-ode/mnist/perceptron/digits-test-error"


def test_a_prefix_is_the_beginning_of_a_training():
    """As many rows as are compared, which do not depend on how far it goes."""
    short, long = (run(PERCEPTRON, [5], share).curves[5] for share in (0.02, 0.05))
    assert (len(short), len(long)) == (1, 4)
    numbers = ("step", "epoch", "train_loss", "validation", "lr")
    assert [short[0][name] for name in numbers] == [long[0][name] for name in numbers]


def test_a_training_that_breaks_is_told(monkeypatch):
    break_at_step(monkeypatch, 25, float("nan"))
    found = run(PERCEPTRON, [0], 0.05)
    assert len(found.curves[0]) < found.prefix.rows
    assert "diverged" in found.broken[0]
    assert found.left


def break_at_step(monkeypatch, step, factor):
    build = prefix_runs.StagedTraining._trainer

    def trainer(self, *given):
        made = build(self, *given)
        loss = made._loss
        made._loss = lambda x: loss(x) * (factor if made.tally.step == step else 1.0)
        return made

    monkeypatch.setattr(prefix_runs.StagedTraining, "_trainer", trainer)


def test_who_stops_it_is_heard(monkeypatch):
    monkeypatch.setattr(prefix_runs.Control, "stop_reason", lambda self: "Ctrl-C")
    with pytest.raises(Interrupted, match="Ctrl-C"):
        run(PERCEPTRON, [0])


# --------------------------------------------------------------------------- the command


def command(*words, folder):
    environment = {"DGM_BENCH_STORED": str(RESULTS), "DGM_BENCH_RESULTS": str(folder / "own")}
    return CliRunner().invoke(cli, ["run", *words], env=environment)


def test_the_command_keeps_nothing(tmp_path):
    done = command(PERCEPTRON, "ffjord/density/made/mnist", "--prefix", "2%", folder=tmp_path)
    assert done.exit_code == 0, done.output
    assert f"{PERCEPTRON}: inside; 10 of 800 steps (1.2 %), seeds 0, 1, 2 beside" in done.stdout
    assert "after step 10: training loss" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 recipes: 1 inside")
    assert "not compared: ffjord/density/made/mnist: has 1 of the 3" in done.stderr
    assert f"{PERCEPTRON}: 3 seeds, 10 steps each" in done.stderr
    assert not list(tmp_path.iterdir())


def test_many_without_a_band_are_counted(tmp_path):
    done = command(PERCEPTRON, "ffjord/density/made/*", "-q", "--prefix", "2%", folder=tmp_path)
    assert done.exit_code == 0, done.output
    told = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["not compared"] * 4
    assert told[-1].endswith("others, of which too little is stored")


def test_a_recipe_that_left_is_an_exit_code(tmp_path, monkeypatch):
    row = prefix_runs._row
    monkeypatch.setattr(prefix_runs, "_row", lambda v: {**row(v), "validation": 9.0})
    done = command(PERCEPTRON, "--prefix", "2%", "--seeds", "1", folder=tmp_path)
    assert done.exit_code == 1
    assert "LEFT THE BAND; 10 of 800 steps (1.2 %), seed 0 beside" in done.stdout
    assert "validation 9 (outside" in done.stdout
    assert "1 recipe: 0 inside, 1 left the band" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prefix", "2"], "2 is no part of a training; write --prefix 2%"),
        (["--prefix", "0%"], "0% is no part of a training"),
        (["--prefix", "nan%"], "nan% is no part of a training"),
        (["--prefix", "101%"], "101% is no part of a training"),
        (["--prefix", "2%", "--set", "optimizer.lr=1"], "--prefix: goes without --set"),
        (["--prefix", "2%", "--budget", "2h"], "--prefix: goes without --budget"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path, words, said):
    done = command(PERCEPTRON, *words, folder=tmp_path)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("ffjord/density/gaussian/digits", "--prefix: nothing is trained"),
        ("ffjord/density/made/power", "has 0 of the 3 complete runs"),
    ],
)
def test_without_a_band_the_command_says_why(tmp_path, pattern, said):
    done = command(pattern, "--prefix", "2%", folder=tmp_path)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
