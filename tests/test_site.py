"""The site: every model has a page, what is generated is whole, and what pages say holds."""

import re
from pathlib import Path

import click
import evidence
import examples
import model_pages
import paper_pages
import pytest
import yaml

from dgm_bench.cli import cli
from dgm_bench.models.latent.posteriors import FLOWS
from dgm_bench.models.latent.priors import PRIORS
from dgm_bench.models.names import MODELS
from dgm_bench.spec import YES_NO

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def heads():
    """What the headers of the models' pages say."""
    for path in (DOCS / "models").glob("*.md"):
        if (text := path.read_text(encoding="utf-8")).startswith("---"):
            yield yaml.safe_load(text.split("---")[1])


def test_every_model_posterior_and_prior_has_a_page():
    named = [name for head in heads() for name in head["models"]]
    assert set(MODELS) == {name for name in named if name != "*"}
    arguments = [head.get("args", {}) for head in heads()]
    assert {name for args in arguments for name in args.get("posterior", ())} == set(FLOWS)
    assert {name for args in arguments for name in args.get("prior", ())} == set(PRIORS)


def test_every_objective_of_a_page_is_one_of_a_recipe():
    recipes = [cell.recipe for cell in evidence.catalog().cells if cell.recipe]
    known = {stage.objective.name for recipe in recipes for stage in recipe.stages}
    assert {name for head in heads() for name in head.get("objectives", ())} <= known


def test_a_models_page_has_the_numbers_of_its_recipes_alone():
    page = model_pages.appended({"models": ["made:MADE"]})
    cells = set(re.findall(r"`(ffjord/[^`]*)`", page))
    assert "ffjord/density/made/mnist" in cells
    assert not {cell for cell in cells if "/maf" in cell or "/real-nvp" in cell}
    assert "| 2.04 | 2.046 ±0.007 | bits/dim | ? inconclusive |" in page
    assert "::: dgm_bench.models.flows.made.MADE" in page


@pytest.mark.parametrize("paper", evidence.catalog().papers, ids=lambda paper: paper.id)
def test_a_papers_page_has_all_published_numbers_and_no_link_out_of_the_site(paper, monkeypatch):
    monkeypatch.setattr(evidence, "figures", dict)  # they are drawn where the site is built
    page = paper_pages.paper_page(paper)
    published = [cell for table in paper.tables for cell in table.cells if cell.published]
    values = (cell.published.value for cell in published if cell.column.unit != YES_NO)
    assert not [value for value in values if str(value) not in page]
    assert not re.findall(r"\]\((?!\.\./(?:figures/|verdicts)|\w+\.md|#|http)[^)]*\)", page)


def test_the_worked_example_comes_out_as_its_page_says():
    page = examples.run_examples((DOCS / "verdicts.md").read_text(encoding="utf-8"))
    outputs = re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)
    said = [output for output in outputs if "undecided" in output or "inside" in output]
    assert ["undecided" in output for output in said] == [True, False]
    assert "gaussian/mnist: reproduced" in outputs[-1]


def test_an_example_that_fails_is_an_error():
    with pytest.raises(ZeroDivisionError):
        examples.run_examples("```python run\n1 / 0\n```")
    with pytest.raises(RuntimeError, match="no-such"):
        examples.run_examples("```console run\n$ dgm-bench table no-such/table\n```")


def commands(text):
    """The commands in a page's blocks of code, as words."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```|((?:^    .*\n)+)", text, re.M | re.S)
    lines = re.sub(r"\\\n\s*", " ", "\n".join("".join(block) for block in blocks)).splitlines()
    return [line.split("#")[0].split()[1:] for line in lines if line.startswith("dgm-bench ")]


def verb(words):
    """The verb of a command, and the words after it."""
    found, rest = cli, list(words)
    while isinstance(found, click.Group):
        found, rest = found.commands[rest[0]], rest[1:]
    return found, rest


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_verb_and_option_that_a_text_shows_is_there(path):
    for words in commands(path.read_text(encoding="utf-8")):
        found, rest = verb(words)
        there = {name for option in found.params for name in option.opts}
        options = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert options <= there, f"{' '.join(words)}: {options - there}"
