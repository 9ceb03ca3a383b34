"""Cells, recipes, records and a machine, as much of each as the planner reads."""

from dataclasses import dataclass

from factories import make_cell, make_column

from dgm_bench.planner import Machine, PlanningContext, Speed
from dgm_bench.records import Budget, Outcome, RunRecord
from dgm_bench.spec import (
    Cost,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    Row,
    Stage,
    StoppingSpec,
)

MACHINE = Machine("cpu", "thismach", Speed(1e9, 1e-5, start_seconds=0.0), memory_bytes=4 * 10**9)


@dataclass
class State:
    status: str = "here"
    remedy: str = ""

    @property
    def loadable(self):
        return self.status in ("here", "embedded")


def a_recipe(seconds=10.0, data="digits", lr=1e-3, memory=10**8, costed=True, launches=0):
    """A recipe whose declared work takes so many seconds on ``MACHINE``, beside its launches."""
    stage = Stage(
        data=DataSpec(name=data),
        model=ModelSpec(name="maf:MAF"),
        optimizer=OptimizerSpec(lr=lr),
        batch_size=100,
        stopping=StoppingSpec(patience=30),
    )
    cost = Cost(
        steps=100,
        flops_per_step=seconds * 1e7,
        launches_per_step=launches,
        memory_bytes=memory,
        weights=10**6,
    )
    return Recipe(name="maf", stages=(stage,), cost=cost if costed else None)


def a_cell(row="maf", column="digits", recipe=None, priority=0, same_as=None):
    where = Row(id=row, title=row), make_column(column, title=column)
    return make_cell(*where, recipe=recipe, priority=priority, same_as=same_as)


def around(states=None, records=(), machine=MACHINE, runnable=None):
    states = states or {}
    return PlanningContext(
        machine=machine,
        data_state=lambda name: states.get(name, State()),
        runnable=runnable or (lambda cell: (cell.recipe is not None, "")),
        records=records,
    )


@dataclass
class Spent:
    train_seconds: float
    validation_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    train_seconds_of_others: float = 0.0

    seconds = Budget.seconds


@dataclass
class Record:
    """As much of a RunRecord as the planner reads."""

    recipe_hash: str
    budget: Spent
    status: str = "complete"
    machine_class: str = "thismach"
    modified: tuple = ()
    recipe: Recipe | None = None
    device: str = "cpu"
    threads: int = 1

    complete = Outcome.complete
    is_measurement = RunRecord.is_measurement

    @property
    def environment(self):
        return self

    @property
    def outcome(self):
        return self
