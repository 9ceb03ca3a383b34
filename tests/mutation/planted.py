"""The planted defects: realistic ones, made by hand, in files of ``defects``."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from planting import Change, applied, copied_tree, nearest_tests, require_sound

FOLDER = Path(__file__).parent / "defects"


def defects(words: Sequence[str] = ()) -> dict[str, Change]:
    """Return the defects by identifier, ``<file>/<name>``; of words, those that have one of them.

    A defect that names no tests has those nearest to its file.
    """
    nearest, found = nearest_tests(), {}
    for path in sorted(FOLDER.glob("*.toml")):
        for name, fields in tomllib.loads(path.read_text())["defects"].items():
            tests = fields.pop("tests", None) or nearest[fields["file"]]
            found[f"{path.stem}/{name}"] = Change(tests=tuple(tests), **fields)
    return {
        name: change
        for name, change in found.items()
        if not words or any(word in name for word in words)
    }


def plant(words: Sequence[str]) -> bool:
    """Plant defects one after the other; return whether the tests caught all."""
    chosen, survivors, catching = defects(words), [], []
    with copied_tree() as copy:
        for name, change in chosen.items():
            started = time.perf_counter()
            source = applied(change, copy.source(change.file))
            outcome = copy.run_with(change.file, source, change.tests)
            said = f"caught by {outcome.by}" if outcome.failed else f"SURVIVED: {change.why}"
            print(f"{name} ({time.perf_counter() - started:.0f} s): {said}", flush=True)
            survivors += [] if outcome.failed else [name]
            catching += [outcome.by]
        require_sound(copy, catching)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught; survived: {survivors}")
    return not survivors
