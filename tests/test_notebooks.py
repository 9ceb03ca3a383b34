"""Notebooks: what they import exists, and they hold no outputs. ``tox -e notebooks`` runs them."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest

from dgm_bench.catalog import load_catalog

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path, kind):
    """The sources of a notebook's cells of a kind."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def test_there_are_three():
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_exists(path):
    tree = ast.parse("\n".join(cells(path, "code")))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    own = [node for node in imports if node.module.startswith("dgm_bench")]
    assert len(own) > 3
    for node in own:
        module = importlib.import_module(node.module)
        assert not [name.name for name in node.names if not hasattr(module, name.name)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_and_tables_that_a_notebook_names_are_declared(path):
    text = "\n".join(cells(path, "code") + cells(path, "markdown"))
    catalog = load_catalog()
    tables = re.findall(r"dgm-bench table ([\w/-]+)", text)
    patterns = re.findall(r"\b(?:ffjord|priors|vqvae2)/[\w-]+/[\w{}-]+/[\w-]+", text)
    assert tables or patterns
    assert all(catalog.table(name) for name in tables)
    assert all(catalog.select(re.sub(r"\{\w+\}", "*", pattern)) for pattern in patterns)
