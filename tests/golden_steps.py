"""The first steps of every recipe, as numbers on file: a change of any is seen, and is a decision.

    python tests/golden_steps.py [--write] [PATTERN ...]

compares what the code gives now with ``tests/golden_steps.csv``, for the recipes of the cells that
the shell patterns name, or of all (minutes of CPU time); ``--write`` brings the file up to date.

An entry is one stage of one recipe: a sum over its first batch and over its initial weights, the
losses of its first steps, how far the weights then are from where they were, and the validation
loss. All of it is the trainer's own, with seed 0, in float64 from weights drawn in float32. Sums
are weighted by cosines, so that no two numbers can change places unseen.

Values are compared with a relative tolerance of 1e-6. Between processors with and without AVX2,
float32 normal draws differ in the last bit (about 1e-7 of a value), uniform draws and permutations
do not. Builds of torch without Intel's MKL draw other Bernoulli and exponential noise: entries of
models with dropout, Hutchinson's signs or Gumbel noise hold for x86 alone.

To be cheap, batches are of at most eight examples, adaptive solvers have tolerances of 1e-2,
continuous flows, large images and large models take fewer steps, the largest none, and sets that
need files are random stand-ins (:mod:`stand_ins`); the entry says so.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from stand_ins import dimensions, distinct, drawn_codes, in_float64, small_data, with_loose_solver
from torch import Tensor, nn

from dgm_bench.context import RunContext
from dgm_bench.data import card
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.execution import Execution
from dgm_bench.models.build import build
from dgm_bench.planner import PlannedRun
from dgm_bench.spec import Cell, Recipe, Stage, StoppingSpec
from dgm_bench.train import loop
from dgm_bench.train.checkpoint import StageCheckpoint
from dgm_bench.train.losses import Loss, Objective
from dgm_bench.workdir import WorkFolder

FILE = Path(__file__).with_suffix(".csv")
TOLERANCE = 1e-6
SIZES = {"train": 64, "val": 4, "test": 4}
BATCH, STEPS, SOLVED_STEPS = 8, 10, 3
#: Where examples have this many numbers or more: so many in a batch, so many steps.
LARGE, LARGE_BATCH, LARGE_STEPS = 500, 2, 3
#: Models of more parameters take two steps (continuous flows, and games, which draw many samples
#: for their statistics: none); of more, none; of still more, are not even built.
LARGEST_CHEAP, LARGEST_TRAINED, LARGEST_BUILT = 3_000_000, 10_000_000, 100_000_000
LARGEST_PICTURE = 100_000
#: Continuous flows in as many dimensions are validated by an estimate: exact traces take a
#: derivative for each.
WIDE = 20
DECISION = (
    "raise the revision in dgm_bench/models/revisions.py and run it again with --write, "
    "or restore the numbers"
)


@dataclass(frozen=True)
class Entry:
    """One stage of a recipe.

    Attributes:
        cell: The first that declares the recipe, for people and patterns.
        stage: Its name.
        recipe: First digits of the recipe's hash.
        reduced: What differs from the recipe, in words.
        batch: Sum over the first batch.
        weights: Sum over the initial weights and buffers.
        losses: Of the first steps, separated by spaces.
        moved: Sum over the changes of the weights.
        validation: The loss on held-out examples after the last step.
    """

    cell: str
    stage: str
    recipe: str
    reduced: str
    weights: str
    batch: str = ""
    losses: str = ""
    moved: str = ""
    validation: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What it is an entry of."""
        return self.recipe, self.stage

    def differences(self, other: Entry) -> list[str]:
        """Return the names of what differs by more than the tolerance."""
        ours, theirs = asdict(self), asdict(other)
        names = ("reduced", "batch", "weights", "losses", "moved", "validation")
        return [name for name in names if not _close(ours[name], theirs[name])]


def _close(ours: str, theirs: str) -> bool:
    try:
        pairs = list(zip(map(float, ours.split()), map(float, theirs.split()), strict=True))
    except ValueError:
        return ours == theirs
    return all(math.isclose(one, other, rel_tol=TOLERANCE) for one, other in pairs)


# ------------------------------------------------------------------------------- measuring


def measured(cell: Cell) -> Iterator[Entry]:
    """Yield the entry of each stage of a cell's recipe."""
    first = cell.recipe.stages[0]
    for index, stage in enumerate(cell.recipe.stages):
        words: list[str] = []
        data = _data(first, stage, words)
        size = _parameters(stage, data.event_shape)
        game = stage.objective.name == "adversarial"
        dear = game or with_loose_solver(stage) != stage
        if size <= (LARGEST_CHEAP if dear else LARGEST_TRAINED):
            found = _trained(cell, index, data, size, words)
        elif size <= LARGEST_BUILT:
            words = [f"the weights alone, of {size:,} parameters"]
            torch.manual_seed(index)
            model = build(stage.model, data.event_shape)
            found = {"weights": weighted_sum(model.state_dict().values())}
        else:
            words, found = ["the number of parameters alone"], {"weights": float(size)}
        yield _entry(cell, stage, words, **found)


def _entry(
    cell: Cell, stage: Stage, words: Sequence[str], losses: Sequence[float] = (), **numbers: float
) -> Entry:
    printed = {name: f"{value:.8g}" for name, value in numbers.items()}
    return Entry(
        cell=cell.id,
        stage=stage.name,
        recipe=cell.recipe.content_hash[:12],
        reduced=", ".join(words),
        losses=" ".join(f"{loss:.8g}" for loss in losses),
        **printed,
    )


def _parameters(stage: Stage, event_shape: tuple[int, ...]) -> int:
    """Return how many parameters a model has, without taking memory for them if that can be."""
    with torch.device("meta"), suppress(DeclarationError):
        return sum(p.numel() for p in build(stage.model, event_shape).parameters())
    return sum(p.numel() for p in build(stage.model, event_shape).parameters())


def _trained(cell: Cell, index: int, data: Dataset, size: int, words: list[str]) -> dict[str, Any]:
    """Return the numbers of a stage that is trained for a few steps, as a run trains it."""
    stages = [reduced(stage, size) for stage in cell.recipe.stages]
    words += _said(cell.recipe.stages[index], stages[index])
    recipe = cell.recipe.model_copy(update={"stages": tuple(stages)})
    execution, seen = _execution(cell, recipe, in_float64(data)), Recorder()
    with patch.object(loop, "build_objective", seen.building(loop.build_objective)):
        trainer = execution._trainer(stages[index], index, None)
    trainer.checkpoint = StageCheckpoint(None)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    moves = [value - start[name] for name, value in trainer.model.state_dict().items()]
    return {
        "batch": weighted_sum(seen.batch),
        "weights": weighted_sum(start.values()),
        "losses": seen.losses,
        "moved": weighted_sum(moves),
        "validation": trainer.tally.last_validation,
    }


def _execution(cell: Cell, recipe: Recipe, data: Dataset) -> Execution:
    """Return a run with seed 0 that writes nothing, whose codes are there already."""
    folder = Path("no folder")
    with patch("dgm_bench.provenance.code"):
        execution = Execution(
            PlannedRun(cell, (cell.id,), 0, recipe),
            data,
            WorkFolder(folder, "golden", 0),
            RunContext(folder, folder, device="cpu"),
        )
    execution.codes = {recipe.stages[0].name: data}
    return execution


class Recorder:
    """Keeps the first batch and the losses of training that an objective sees."""

    def __init__(self) -> None:
        self.batch: list[Tensor] = []
        self.losses: list[float] = []

    def building(self, build: Callable[..., Objective]) -> Callable[..., Objective]:
        """Return ``build_objective`` whose objectives are recorded."""
        return lambda *spec: self.recorded(build(*spec))

    def recorded(self, objective: Objective) -> Objective:
        """Return an objective that does as before and leaves its traces here."""

        def recorded(model: nn.Module, x: Tensor, step: int, noise: torch.Generator) -> Loss:
            self.batch = self.batch or [x.clone()]
            loss = objective(model, x, step, noise)
            if model.training:
                self.losses.append(loss.total.item())
            return loss

        return recorded


#: Lengths of the rows in which numbers are summed: cosines of all of them would take longer.
ROW = 4096


def weighted_sum(tensors: Iterable[Tensor]) -> float:
    """Return a sum that changes with any entry of any tensor.

    It is ``sum_t |sum_ij cos(i) cos(j + 1/2) x_tij|`` over tensors cut into rows. Neither the names
    of the tensors nor their order matter.
    """
    total = 0.0
    columns = (torch.arange(ROW, dtype=torch.float64) + 0.5).cos()
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        parts = torch.stack([part @ columns[: len(part)] for part in flat.split(ROW)])
        total += abs(float(parts @ torch.arange(len(parts), dtype=torch.float64).cos()))
    return total


# ------------------------------------------------------------------------------- reducing


def _data(first: Stage, stage: Stage, words: list[str]) -> Dataset:
    """Return the examples of a stage: cut, or stand-ins; the largest pictures are made smaller."""
    known = card(first.data.name)
    if stage.data.codes_of is not None:
        words.append("drawn codes")
        return drawn_codes(first, known.event_shape, SIZES)
    if not known.embedded:
        words.append("stand-in data")
    # Games draw pictures, and are made for their size.
    if known.dim > LARGEST_PICTURE and stage.objective.name != "adversarial":
        words.append("pictures of 64x64")
        return small_data(first.data, SIZES, (3, 64, 64))
    if stage.stopping.max_steps == 0:
        return small_data(first.data, {**SIZES, "train": known.dim + 60})
    return small_data(first.data, {**SIZES, "val": 2, "test": 2} if known.dim >= LARGE else SIZES)


def reduced(stage: Stage, size: int) -> Stage:
    """Return a stage of few cheap steps with one validation after them.

    Args:
        stage: As declared.
        size: Number of parameters.
    """
    loose, wide = with_loose_solver(stage), card(stage.data.name).dim
    solved, large = loose != stage, wide >= LARGE
    batch = min(stage.batch_size, LARGE_BATCH if large else BATCH)
    rule: dict[str, Any] = {"batch_size": batch, "unit": "steps", "every": STEPS + 1}
    if solved and wide >= WIDE:
        rule["trace"] = "estimate"
    update = {
        "batch_size": batch,
        "validation": stage.validation.model_copy(update=rule),
        "stopping": StoppingSpec(max_steps=_steps(stage, size, solved=solved, large=large)),
        "precision": "float64",
    }
    return loose.model_copy(update=update)


def _steps(stage: Stage, size: int, *, solved: bool, large: bool) -> int:
    if stage.stopping.max_steps == 0:
        return 0
    if solved and large:
        return 1
    few = 2 if size > LARGEST_CHEAP else STEPS
    return min(few, SOLVED_STEPS if solved else STEPS, LARGE_STEPS if large else STEPS)


def _said(declared: Stage, taken: Stage) -> Iterator[str]:
    """Yield what was changed, in words."""
    if taken.batch_size != declared.batch_size:
        yield f"{taken.batch_size} of {declared.batch_size} examples"
    if taken.model != declared.model:
        yield "tolerance 0.01"
    if taken.validation.trace != declared.validation.trace:
        yield "validated with an estimated trace"


# ------------------------------------------------------------------------------- the file


def declared(patterns: Sequence[str] = ()) -> dict[str, Cell]:
    """Return the first cell of each recipe, by first digits of the hash, that a pattern names."""
    chosen = patterns or ("*",)
    return {
        key[:12]: cell
        for key, cell in distinct().items()
        if any(fnmatchcase(cell.id, pattern) for pattern in chosen)
    }


def stored(path: Path = FILE) -> dict[tuple[str, str], Entry]:
    """Return the entries on file."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        entries = [Entry(**row) for row in csv.DictReader(file)]
    return {entry.key: entry for entry in entries}


def write(entries: Iterable[Entry], path: Path = FILE) -> None:
    """Write the entries, sorted by cell."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Entry))
        writer.writerows(
            asdict(entry).values() for entry in sorted(entries, key=lambda e: (e.cell, e.stage))
        )


# ------------------------------------------------------------------------------- the command


def compare(cell: Cell, known: Mapping[tuple[str, str], Entry]) -> Iterator[str]:
    """Yield what is wrong with the stored entries of a cell's recipe."""
    for now in measured(cell):
        before = known.get(now.key)
        if before is None:
            yield f"{cell.id}, {now.stage}: no entry; run it with --write"
            continue
        for name in before.differences(now):
            numbers = f"{name} {getattr(before, name)} -> {getattr(now, name)}"
            yield f"{cell.id}, {now.stage}: {numbers}, with the same hash; {DECISION}"


def stale(known: Iterable[tuple[str, str]], cells: Mapping[str, Cell]) -> set[tuple[str, str]]:
    """Return the keys of entries whose recipe or stage is no longer declared."""
    return set(known) - keys_of(cells)


def keys_of(cells: Mapping[str, Cell]) -> set[tuple[str, str]]:
    """Return the keys of the entries that recipes have to have."""
    return {(key, stage.name) for key, cell in cells.items() for stage in cell.recipe.stages}


def bring_up_to_date(chosen: Mapping[str, Cell], path: Path = FILE) -> None:
    """Add entries of recipes that have none and remove stale ones; those that are there stay."""
    known = stored(path)
    for key in stale(known, declared()):
        print(f"removed: {known[key].cell}, {key[1]}, of recipe {key[0]}")
        del known[key]
    for key, cell in sorted(chosen.items(), key=lambda item: dimensions(item[1])):
        if not keys_of({key: cell}) <= known.keys():
            print(f"measuring {cell.id}", flush=True)
            known |= {entry.key: entry for entry in measured(cell)}
            write(known.values(), path)
    write(known.values(), path)


def check(chosen: Mapping[str, Cell], path: Path = FILE) -> int:
    """Print what differs from the file, and return how much that is."""
    known, found = stored(path), 0
    for key in sorted(stale(known, declared())):
        found += 1
        print(f"{known[key].cell}, {key[1]}: stale, recipe {key[0]} is not declared; use --write")
    for cell in chosen.values():
        for line in compare(cell, known):
            found += 1
            print(line, flush=True)
    print(f"{len(chosen)} recipes, {found} differences")
    return found


def main() -> int:
    """Check or write the entries of the recipes that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="add missing entries, remove stale")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="of cells; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = declared(options.patterns)
    if options.write:
        bring_up_to_date(chosen)
        return 0
    return 1 if check(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
