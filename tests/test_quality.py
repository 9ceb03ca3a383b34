"""What the project asks of its own code: lint, types, layers, and a schema that is up to date."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dgm_bench.extras import EXTRAS
from dgm_bench.records import schema

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dgm_bench"
#: Where code is.
HOMES = ("dgm_bench", "reproductions", "tests", "benchmarks", "docs", "notebooks")

#: Who may import whom: a module imports only from its own line and the lines above it.
LAYERS = (
    ("escaping", "errors", "paths", "_typing", "json_text", "annotations", "extras"),
    ("processes", "sealed", "locks", "cache", "remote", "allocator"),
    ("signatures",),
    ("spec_base",),
    ("arguments", "spec"),
    ("records", "stats", "provenance", "workdir", "wording", "measured"),
    ("lean_records", "record_index", "record_files", "horizon", "forecast", "quality"),
    ("performance",),
    ("store", "merge", "verdict", "planner", "compare", "together"),
    ("control", "events"),
    ("context",),
    ("data",),
    ("costs", "protocols"),
    ("keyed_tensors", "kept"),
    ("models",),
    ("recipe_checks", "overrides"),
    ("tomlfile", "products", "declarations", "config", "bibtex"),
    ("defaults", "config_text"),
    ("catalog", "kept_catalog", "citations"),
    ("metrics",),
    ("train",),
    ("report", "tracking"),
    ("summary", "turns"),
    ("pictures",),
    ("staged_training", "team", "execution", "joint_execution"),
    ("session", "prefix"),
    ("engines",),
    ("runner",),
    ("run_rows",),
    ("console", "screen", "progress", "overview", "doctor", "cli", "library", "perf", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def run(*command):
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_ruff_finds_nothing():
    for words in (("check",), ("format", "--check")):
        done = run("ruff", *words, ".")
        assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_nothing():
    done = run("mypy")
    assert done.returncode == 0, done.stdout + done.stderr


def modules():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def part(path):
    """The name of a module's layer: its folder, or its own name at the top."""
    return path.parts[0] if len(path.parts) > 1 else path.stem


def imported_parts(path):
    """Names below dgm_bench that a module imports when it is loaded or run, typing aside."""
    tree = ast.parse((PACKAGE / path).read_text())
    skip = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skip or not isinstance(node, ast.ImportFrom):
            continue
        if node.module == "dgm_bench":
            yield from (alias.name for alias in node.names)
        elif node.module and node.module.startswith("dgm_bench."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize(
    "path", [p for p in modules() if p.name != "__init__.py" or len(p.parts) > 1], ids=str
)
def test_imports_point_one_way(path):
    own = RANK[part(path)]
    above = {name for name in imported_parts(path) if name in RANK and RANK[name] > own}
    assert not above, f"{path} imports from layers above it: {sorted(above)}"


def imported_files(path):
    """Modules below dgm_bench that a module names in an import, also for types alone."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dgm_bench."):
            base = PACKAGE.parent.joinpath(*node.module.split("."))
            for name in (base / alias.name for alias in node.names):
                found = next(
                    (p for p in (name, base) if p.with_suffix(".py").is_file()), base / "__init__"
                )
                yield found.with_suffix(".py").relative_to(PACKAGE)


def circles(arrows):
    """The modules that are left when those that import none of the rest are taken away."""
    left = dict(arrows)
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return left


def test_no_imports_run_in_a_circle_not_even_for_types():
    assert set(circles({"a": {"b"}, "b": {"a", "c"}, "c": set()})) == {"a", "b"}
    faces = [path for path in modules() if path.name != "__init__.py"]
    assert not circles({path: set(imported_files(path)) - {path} for path in faces})


#: Rooms of the models, and which other rooms each may import.
ROOMS = {
    "networks": (),
    "flows.layers": (),
    "flows": ("flows.layers", "networks"),
    "continuous": ("flows",),
    "latent.posteriors": ("continuous", "flows", "flows.layers"),
    "latent": ("latent.posteriors", "flows", "networks"),
    "codes": ("networks",),
    "codes.priors": ("codes", "networks"),
    "pixels": ("codes", "codes.priors", "networks"),
    "adversarial": ("networks",),
    "classifiers": ("continuous", "networks"),
}


def room(path):
    """The room of a model's file; empty for those that stand before the rooms."""
    return ".".join(path.parts[1:-1])


def test_rooms_of_the_models_import_only_what_they_are_built_from():
    inside = [path for path in modules() if path.parts[0] == "models" and room(path)]
    assert {room(path) for path in inside} == set(ROOMS)
    for path in inside:
        used = {room(p) for p in imported_files(path) if p.parts[0] == "models"}
        assert used - {"", room(path)} <= set(ROOMS[room(path)]), path


def test_only_the_command_line_and_the_library_ask_for_the_default_data_root():
    naming = {str(p) for p in modules() if "default_root" in (PACKAGE / p).read_text()}
    assert naming == {"cli/options.py", "data/__init__.py", "library/folders.py"}


def test_no_file_is_longer_than_five_hundred_lines():
    files = [path for folder in HOMES for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    assert not [path for path in files if len(path.read_text().splitlines()) > 500]


def test_the_stored_schema_is_that_of_the_code():
    """``python -m dgm_bench.records > results/schema/run_record.v2.json`` brings it up to date."""
    assert json.loads((ROOT / "results/schema/run_record.v2.json").read_text()) == schema()


#: Where all that can be wrong comes from a declaration, ``--set`` or a caller of the library.
DECLARED = {"models", "train", "metrics", "data", "pictures", "report"}
#: Built-in errors that teach nothing. ``NotImplementedError`` marks methods of abstract classes.
BARE = {"ValueError", "TypeError", "KeyError", "LookupError", "RuntimeError", "AssertionError"}


def raised(path):
    """Name, arguments and line of every exception that a module raises by a call."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield ast.unparse(node.exc.func), node.exc.args, node.lineno


@pytest.mark.parametrize("path", [p for p in modules() if part(p) in DECLARED], ids=str)
def test_what_can_be_declared_wrongly_is_told_with_a_remedy(path):
    bare = [(name, line) for name, _, line in raised(path) if name in BARE]
    assert not bare, f"{path}: raise a DeclarationError, which names thing, reason and remedy"


def constant(node):
    """The text of a string that stands in the code, with a mark for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(constant(value) or "…" for value in node.values)
    return node.value if isinstance(node, ast.Constant) else None


#: What Windows takes for a device, in a name of whatever ending.
DEVICES = r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)"


def test_every_system_can_check_the_repository_out():
    """Names that Windows takes, that macOS tells apart, and bytes that git leaves as they are."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split("\0")[:-1]
    if not names:
        pytest.skip("no checkout")
    assert len({name.lower() for name in names}) == len(names)
    parts = {part for name in names for part in name.split("/")}
    assert not [part for part in parts if re.search(r'[<>:"\\|?*]|[. ]$', part)]
    assert not [part for part in parts if re.match(DEVICES, part, re.IGNORECASE)]
    assert max(map(len, names)) < 200  # of 260 that a whole path may have
    assert "* -text" in (ROOT / ".gitattributes").read_text().splitlines()


def test_remedies_are_written_in_one_style():
    """In lower case, as what follows a semicolon, and without a full stop."""
    remedies = {
        f"{path}:{line}": remedy
        for path in modules()
        for name, args, line in raised(path)
        if name.endswith("Error") and len(args) == 3 and (remedy := constant(args[2]))
    }
    assert len(remedies) > 100
    for place, remedy in remedies.items():
        wrong = remedy[0].isupper() or remedy.endswith((".", "!"))
        assert not wrong, f"{place}: {remedy!r}"


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = (ROOT / "tests/constraints-oldest.txt").read_text().split()
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(bound for name in EXTRAS for bound in extras[name])]
    assert pinned == [bound.replace(">=", "==") for bound in asked]
