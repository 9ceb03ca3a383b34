"""The site: every model has a page, what is generated is whole, and what pages say holds."""

import re
import tomllib
from pathlib import Path

import click
import costs_table
import evidence
import examples
import model_pages
import paper_pages
import pytest
import terminal
import yaml

from dgm_bench.cli import cli
from dgm_bench.data import card
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


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_costs_in_the_readme_are_those_of_the_planner_and_the_records():
    """``python docs/generate/costs_table.py`` writes them; draws differ by numpy's version."""
    table = README.split(costs_table.BEGIN)[1].split(costs_table.END)[0].strip().splitlines()
    stored = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in table}
    folders = [
        table
        for table in evidence.catalog().tables
        if any(cell.recipe and card(cell.column.data).layout for cell in table.cells)
    ]
    assert len(stored) == len(evidence.catalog().tables) + len(folders) + 2  # and two of the head
    for name in ("ffjord/vi", "priors/elbo-surgery", "avb/elbo"):
        now = costs_table.row(f"`{name}`", evidence.catalog().table(name).cells)
        for said, entry in zip(stored[now[0]], now, strict=True):
            pattern = r"[\d,.]+"
            assert re.sub(pattern, "#", said) == re.sub(pattern, "#", entry)
            numbers = [
                [float(found.replace(",", "")) for found in re.findall(pattern, text)]
                for text in (said, entry)
            ]
            assert numbers[0] == pytest.approx(numbers[1], rel=0.03, abs=1)


def test_the_library_is_as_the_readme_shows_it():
    tables, model = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    names = {}
    exec(tables, names)  # both frames have the columns that are chosen
    assert set(re.findall(r"\bd\.(\w+)", tables + model)) <= set(names["d"].__all__)
    shown = set(re.findall(r"`(sample|log_prob|elbo|reconstruct|encode)`", README))
    assert all(hasattr(names["d"].TrainedModel, method) for method in shown)


def test_the_readme_has_all_extras_but_those_of_developers():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = README.split("| extra | for |")[1].split("\n\n")[0]
    named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line[:60])}
    extras = set(project["optional-dependencies"])
    assert extras - named == {"all", "dev", "docs", "notebooks", "mutation", "peers"}


def test_the_readme_counts_papers_and_tables():
    catalog = evidence.catalog()
    assert f"{len(catalog.papers)} papers, {len(catalog.tables)} tables" in README


def test_files_that_texts_link_to_are_there():
    for path in WRITTEN:
        text = path.read_text(encoding="utf-8")
        linked = re.findall(r"\]\((?!http|#|\.\./\.\./)([^)#]+)", text)
        generated = {"tables.md", "commands.md"} | {f"papers/{p.id}.md" for p in CATALOG.papers}
        missing = [link for link in linked if not (path.parent / link.split(" ")[0]).exists()]
        assert not [link for link in missing if link.removeprefix("../") not in generated | PAGES]


CATALOG = evidence.catalog()
PAGES = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("path", sorted((DOCS / "assets").glob("*.svg")), ids=lambda p: p.stem)
def test_pictures_ask_for_nothing_elsewhere(path):
    svg = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "<text" in svg
    assert not re.findall(r"url\((?!#)|(?:href|src)=|@import|@font-face", svg)


def test_a_terminals_picture_has_its_command_and_as_many_lines_as_it_may():
    svg = terminal.drawn(
        terminal.Picture(("list", "a/*"), lines=2), "one\n\x1b[1mtwo\x1b[0m\nthree\n"
    )
    texts = [text.replace("&#160;", " ") for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    shown = "".join(texts)
    assert "$ dgm-bench list &#x27;a/*&#x27;" in shown
    assert "two" in shown
    assert "three" not in shown
    assert "@font-face" not in svg
