"""What each layer of checks catches of some defects: the nearest tests, contracts, prefixes, runs.

A defect that one layer misses another has to catch. A prefix sees what changes the first steps of a
training, a verdict what changes its end; neither what no number shows.
"""

from __future__ import annotations

import csv
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from planted import defects
from planting import Change, Copy, applied, copied_tree

LIST = Path(__file__).with_suffix(".toml")
FOUND = Path(__file__).with_suffix(".csv")
LAYERS = ("unit", "contract", "prefix", "verdict")
CAUGHT, MISSED = "caught", "-"
#: Of the contract that all models are held to, what is of those that the cells train.
_CONTRACT = ("tests/models/test_contract.py", "tests/test_conformance.py", "-k")
_MODELS = "(maf or made or planar or gumbel) and not ddsf and not tan"
_PREFIX = "tests/test_prefix.py::test_trainings_begin_as_those_that_are_stored"
_VERDICT = "tests/mutation/whole_runs.py::test_whole_runs_end_as_those_that_are_stored"


def chosen(words: Sequence[str] = ()) -> Iterator[tuple[str, str, Change]]:
    """Yield the defects of the list with the cell of each; of words, those that have one."""
    known = defects()
    for cell, names in tomllib.loads(LIST.read_text())["cells"].items():
        for name in names:
            if not words or any(word in name for word in words):
                yield name, cell, known[name]


def checks_of(layer: str, cell: str, change: Change) -> tuple[str, ...]:
    """Return the tests of a layer, as pytest takes them.

    Args:
        layer: One of :data:`LAYERS`.
        cell: That shows the defect best; whole trainings of others would take minutes.
        change: The defect.
    """
    return {
        "unit": change.tests,
        "contract": (*_CONTRACT, _MODELS),
        "prefix": (_PREFIX,),
        "verdict": (f"{_VERDICT}[{cell}]",),
    }[layer]


def try_layers(words: Sequence[str]) -> bool:
    """Plant defects one after the other, note what each layer says, and print how many it caught.

    Words that are layers choose those, others defects. Returns whether the checks pass without any
    defect; a layer that does not says nothing.
    """
    layers = [layer for layer in LAYERS if layer in words] or LAYERS
    with copied_tree() as copy:
        for cell in dict.fromkeys(cell for _, cell, _ in chosen()):
            change = next(c for _, of, c in chosen() if of == cell)
            for layer in layers:
                outcome = copy.run(checks_of(layer, cell, change))
                if outcome.failed:
                    print(f"without any defect fails: {outcome.by}")
                    return False
        for name, cell, change in chosen([word for word in words if word not in LAYERS]):
            for layer in layers:
                said = _tried(copy, name, layer, checks_of(layer, cell, change), change)
                note(name, layer, said)
    found = read().values()
    for layer in LAYERS:
        said_of = [row[layer] for row in found if row[layer]]
        print(f"{layer}: {said_of.count(CAUGHT)} of {len(said_of)}")
    return True


def _tried(copy: Copy, name: str, layer: str, tests: Sequence[str], change: Change) -> str:
    started = time.perf_counter()
    source = applied(change, copy.source(change.file))
    outcome = copy.run_with(change.file, source, tests)
    said = f"caught by {outcome.by}" if outcome.failed else f"missed: {change.why}"
    print(f"{name}, {layer} ({time.perf_counter() - started:.0f} s): {said}", flush=True)
    return CAUGHT if outcome.failed else MISSED


def read() -> dict[str, dict[str, str]]:
    """Return what is noted, by defect and layer, of defects that are still in the list."""
    if not FOUND.exists():
        return {}
    listed = {name for name, _, _ in chosen()}
    with FOUND.open(newline="") as file:
        rows = {row.pop("defect"): row for row in csv.DictReader(file)}
    return {
        name: {layer: row[layer] for layer in LAYERS}
        for name, row in rows.items()
        if name in listed
    }


def note(name: str, layer: str, said: str) -> None:
    """Note what a layer said of a defect beside all that others have noted meanwhile."""
    found = read()
    found.setdefault(name, dict.fromkeys(LAYERS, ""))[layer] = said
    write(found)


def write(found: dict[str, dict[str, str]]) -> None:
    """Note what was found, in the order of the list."""
    with FOUND.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("defect", "what is wrong", *LAYERS))
        for name, _, change in chosen():
            if name in found:
                writer.writerow((name, change.why, *(found[name][layer] for layer in LAYERS)))
