"""Mutants of cosmic-ray's operators, a sample of those of the files that decide numbers.

cosmic-ray makes them; which tests run is ``nearest.toml``'s, and :mod:`planting` runs them. A
mutant that changes types or docstrings alone is left out.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from planting import ROOT, copied_tree, nearest_tests, require_sound

#: Where mutants are made: training, metrics, verdicts, and the preparation of data.
FOLDERS = ("train/", "metrics/", "verdict/", "data/")


#: Line and column of both ends.
Place = tuple[tuple[int, int], tuple[int, int]]


class Mutant(NamedTuple):
    """A file with one change."""

    file: str
    operator: str
    source: str
    line: int
    before: str
    after: str


def targets(word: str = "") -> list[str]:
    """Return the files that have mutants, below ``dgm_bench``: those with nearest tests."""
    return [f for f in nearest_tests() if f.startswith(FOLDERS) and word in f]


def mutants(files: Sequence[str], seed: int) -> Iterator[Mutant]:
    """Yield mutants of files in random order: of each place one, by a random operator."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider

    rng, provider = random.Random(seed), OperatorProvider()
    places = [(file, *place) for file in files for place in _places(file).items()]
    rng.shuffle(places)
    for file, line, choices in ((file, place[0][0], found) for file, place, found in places):
        name, occurrence = rng.choice(choices)
        source = (ROOT / "dgm_bench" / file).read_text()
        mutated = mutate_code(source, provider[name](), occurrence)
        if mutated is not None and _computed(mutated) not in (None, _computed(source)):
            yield Mutant(file, name, mutated, line, *_changed(source, mutated))


def _places(file: str) -> dict[Place, list[tuple[str, int]]]:
    """Return by place which operators change it, each with its occurrence in the file."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.operators.provider import OperatorProvider

    nodes = list(ast_nodes(get_ast((ROOT / "dgm_bench" / file).read_text())))
    provider, places = OperatorProvider(), defaultdict(list)
    for name in provider:
        if not provider[name].arguments():
            found = (place for n in nodes for place in provider[name]().mutation_positions(n))
            for occurrence, place in enumerate(found):
                places[place].append((name, occurrence))
    return dict(sorted(places.items()))


def _computed(source: str) -> str | None:
    """Return what of a source is computed, without annotations; None where it is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return ast.dump(tree)


def _changed(before: str, after: str) -> tuple[str, str]:
    """Return the lines that differ, before and after."""
    lines = [
        line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"
    ]
    old, new = ([line[2:].strip() for line in lines if line[0] == sign] for sign in "-+")
    return " ".join(old), " ".join(new)


def main(words: Sequence[str]) -> None:
    """Try mutants until there are enough or the time is over; print score and survivors."""
    options = _options(words)
    nearest, ends = nearest_tests(), time.monotonic() + 60 * options.minutes
    survivors, catching = 0, []
    with copied_tree() as copy:
        for mutant in islice(mutants(targets(options.file), options.seed), options.mutants):
            if time.monotonic() > ends:
                break
            outcome = copy.run_with(mutant.file, mutant.source, nearest[mutant.file])
            if outcome.failed:
                catching += [outcome.by]
            else:
                survivors += 1
                print(_told(mutant), flush=True)
        require_sound(copy, catching)
    tried = len(catching) + survivors
    print(f"{len(catching)} of {tried} caught: {len(catching) / max(tried, 1):.0%}")


def _told(mutant: Mutant) -> str:
    place = f"{mutant.file}:{mutant.line} ({mutant.operator})"
    return f"SURVIVED {place}\n  - {mutant.before}\n  + {mutant.after}"


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tox -e mutate --", description=__doc__)
    parser.add_argument("--mutants", type=int, default=300, help="how many at most")
    parser.add_argument("--minutes", type=float, default=30, help="how long at most")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--file", default="", help="a part of the names of files")
    return parser.parse_args(words)
