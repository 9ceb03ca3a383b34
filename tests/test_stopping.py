"""A run that is stopped anywhere, again and again, ends as one that nobody stopped."""

import ast
import math
import os
import random
import time

import pytest
from factories import make_context
from stand_ins import few_examples, hasty, one_step

from dgm_bench.catalog import load_catalog
from dgm_bench.control import Control, Interrupted
from dgm_bench.errors import DeclarationError
from dgm_bench.events import Reporter
from dgm_bench.execution import Execution
from dgm_bench.kept import Journal, ask_in_modules
from dgm_bench.metrics.bounds import avb
from dgm_bench.paths import PACKAGE
from dgm_bench.pictures import pictures
from dgm_bench.planner import Machine, Plan, PlannedRun
from dgm_bench.runner import run_plan
from dgm_bench.spec import StoppingSpec
from dgm_bench.workdir import WorkFolder

#: What covers the phases: a solver; importance sampling; quadrature; draws of a gradient; and two
#: stages with codes, a classifier, samples, their features and neighbours, and pictures.
CELLS = (
    "ffjord/density/ffjord/8gaussians",
    "iwae/likelihood/iwae-2-50/digits-binary-nll",
    "priors/elbo-surgery/aggregated/digits-binary-negative-elbo",
    "avb/elbo/avb/pinwheel-negative-elbo",
    "discrete/relaxation/gumbel/squared-bias-0.1",
    "vqvae2/diversity/vqvae-2/digits-precision",
)
#: About how often a run is stopped; more on request.
STOPS = int(os.environ.get("DGM_BENCH_STOPS", "3"))
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


class StopsAt(Control):
    """Wants to stop from the time on that it is asked so many times, within work or between."""

    def __init__(self, times=math.inf):
        super().__init__()
        self.left, self.asked = times, 0

    def _request(self):
        self.asked += 1
        return ("test", -math.inf) if self.asked > self.left else None


@pytest.fixture
def parts(monkeypatch):
    """Counts the parts that are worked through to the end."""
    done, noted = [], Journal._noted

    def counted(self, name, *rest):
        result = noted(self, name, *rest)
        done.append(name)
        return result

    monkeypatch.setattr(Journal, "_noted", counted)
    return done


@pytest.fixture
def small(monkeypatch):
    """Makes what does not depend on the recipe small too."""
    monkeypatch.setenv("DGM_BENCH_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("dgm_bench.metrics.images.classifier.settings_for", hasty)
    monkeypatch.setattr("dgm_bench.metrics.images.accuracy_score.settings_for", hasty)
    for name, value in {"EXAMPLES": 4, "DRAWS": 50, "AT_ONCE": 2, "NODES": 20}.items():
        monkeypatch.setattr(avb, name, value)
    monkeypatch.setattr(pictures, "GRID", 8)
    monkeypatch.setattr(pictures, "POINTS", 20)
    monkeypatch.setattr(pictures, "_save", lambda figure, path: path.touch())


def in_steps(recipe, steps=3):
    """The recipe made small, with some steps and a validation before the last."""
    small = one_step(recipe)
    rule = {"every": 2, "unit": "steps", "batch_size": 3}
    stages = tuple(
        stage.model_copy(
            update={
                "stopping": StoppingSpec(max_steps=steps),
                "validation": stage.validation.model_copy(update=rule),
            }
        )
        for stage in small.stages
    )
    evaluation = small.evaluation.model_copy(update={"batch_size": 3})
    return small.model_copy(update={"stages": stages, "evaluation": evaluation})


def run(cell, folder, control):
    recipe = in_steps(cell.recipe)
    work = WorkFolder(folder, recipe.content_hash, 0)
    data = few_examples(recipe.stages[0].data, fit=False)
    context = make_context(folder, control=control)
    with work.locked(), control.active():
        if isinstance(control, StopsAt):
            control._on_request = ask_in_modules
            control._listen()
        return Execution(PlannedRun(cell, (cell.id,), 0, recipe), data, work, context).run()


def comparable(record):
    """All of a record that time, name and place of a run do not decide."""
    spent = record.budget.model_dump()
    kept = ("steps", "epochs", "examples", "function_evaluations", "best_step")
    weights = record.artifacts["weights.safetensors"]
    pictures = sorted(record.artifacts)
    return record.metrics, record.data, {name: spent[name] for name in kept}, weights, pictures


@pytest.mark.parametrize("cell_id", CELLS)
def test_it_ends_with_the_same_record_and_does_nothing_twice(cell_id, tmp_path, parts, small):
    cell = next(cell for cell in load_catalog().cells if cell.id == cell_id)
    control = StopsAt()
    whole, once = run(cell, tmp_path / "whole", control), list(parts)
    parts.clear()
    draw, stops, record = random.Random(cell_id), 0, None
    while record is None:
        try:
            times = draw.randrange(2 * control.asked // STOPS + 2)
            record = run(cell, tmp_path / "stopped", StopsAt(times))
        except Interrupted:
            stops += 1
    assert stops > STOPS // 5
    assert comparable(record) == comparable(whole)
    assert sorted(parts) == sorted(once)


# ------------------------------------------------------------------------------- time and budget


def planned(cell_id, steps=3, **changes):
    """A cell's recipe made small, with changes of its evaluation."""
    cell = next(cell for cell in load_catalog().cells if cell.id == cell_id)
    recipe = in_steps(cell.recipe, steps)
    rule = recipe.evaluation.model_copy(update=changes)
    recipe = recipe.model_copy(update={"evaluation": rule})
    return PlannedRun(cell, (cell.id,), 0, recipe, seconds=1.0, runs=True)


@pytest.fixture
def plan_of(tmp_path, monkeypatch):
    """Runs a plan of one run, and returns what became of it and what was said."""

    def ran(run, control, budget=None):
        heard = []
        reporter = Reporter()
        reporter.message = heard.append
        context = make_context(tmp_path, control=control, track=False, reporter=reporter)
        found = run_plan(Plan((run,), budget, Machine.here("cpu")), context)
        return found, heard

    data = few_examples(planned(CELLS[1]).recipe.stages[0].data, fit=False)
    monkeypatch.setattr("dgm_bench.data.load", lambda *given, **options: data)
    return ran


def slow_metrics(monkeypatch, seconds=0.2):
    """Make each part of an evaluation take so long."""
    noted = Journal._noted

    def slowly(self, *given):
        time.sleep(seconds if "evaluation" in str(self.folder) else 0)
        return noted(self, *given)

    monkeypatch.setattr(Journal, "_noted", slowly)


def test_an_evaluation_that_does_not_fit_its_budget_goes_on_at_the_next_command(
    plan_of, monkeypatch, small
):
    """Its training is not gone on with, though it ended with the budget and has more now."""
    run = planned(CELLS[1], steps=100_000)
    monkeypatch.setattr("dgm_bench.execution.GRACE_SECONDS", 0.3)
    monkeypatch.setattr("dgm_bench.turns.LEAST_SHARE", 0.0)
    slow_metrics(monkeypatch)
    first, commands = plan_of(run, Control(), budget=0.05)[0], 1
    assert first.unfinished == [run.cell.id]
    assert not any((first.finished, first.failed, first.interrupted))
    assert first.cut_short == 1
    while not (found := plan_of(run, Control(), budget=20.0)[0]).finished:
        commands += 1
        assert commands < 30
    (record,) = found.finished
    assert record.outcome.status == "budget"
    assert record.budget.train_seconds + record.budget.validation_seconds < 10
    assert record.budget.evaluation_seconds > 0.2 * 4


def test_a_time_limit_is_no_interruption_and_tells_what_is_left(plan_of, small):
    found, _ = plan_of(planned(CELLS[1]), Control(time_limit=0.0))
    assert found.unfinished == [CELLS[1]]
    assert not found.interrupted
    assert found.cut_short == 1


def test_what_can_be_refused_is_refused_before_a_folder_is_decoded(plan_of, monkeypatch):
    monkeypatch.setattr("dgm_bench.data.load", lambda *given, **options: pytest.fail("decodes"))
    run = planned("vqvae2/diversity/vqvae-2/cas-top1", metrics=("elbo",), judge=None)
    with pytest.raises(DeclarationError, match="draws from a posterior"):
        plan_of(run, Control())


# ------------------------------------------------------------------------------- every loop

#: Loops over parts that take no time.
QUICK = {"values.split(batch_size)", "active.split(list(layers))"}


def loops(tree):
    """What each loop of a file goes over, and the loop."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For):
            yield node.iter, node
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp):
            yield from ((part.iter, node) for part in node.generators)


def over_parts(iterated):
    """Whether something is gone over part by part, but not by ``each``."""
    if isinstance(iterated, ast.Call):
        name = ast.unparse(iterated.func).rpartition(".")[2]
        if name in ("zip", "enumerate"):
            return any(map(over_parts, iterated.args))
        quick = ast.unparse(iterated) in QUICK or "'" in ast.unparse(iterated)
        return name == "split" and not quick
    return False


@pytest.mark.parametrize("folder", ["metrics", "pictures", "train"])
def test_every_loop_over_parts_of_the_work_asks(folder):
    silent = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in (PACKAGE / folder).rglob("*.py")
        for iterated, node in loops(ast.parse(path.read_text()))
        if over_parts(iterated) and "ask" not in ast.unparse(node)
    ]
    assert not silent, f"go over the parts with kept.each: {silent}"
