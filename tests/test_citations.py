"""What is cited for cells: every model, data set and source is declared, and all of it is used."""

import re
import tomllib

import pytest
from click.testing import CliRunner

from dgm_bench import __version__, data
from dgm_bench.bibtex import parse
from dgm_bench.catalog import default_folder, load_catalog
from dgm_bench.citations import SUITE, load_citations
from dgm_bench.cli import cli
from dgm_bench.errors import UsageError
from dgm_bench.paths import PACKAGE


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


@pytest.fixture(scope="module")
def citations(catalog):
    return load_citations(catalog)


@pytest.fixture(scope="module")
def declared():
    return tomllib.loads((default_folder() / "citations.toml").read_text())


def cited_keys(declared, catalog):
    listed = [key for keys in declared.values() for each in keys.values() for key in each]
    sources = [source for paper in catalog.papers for source in paper.sources]
    return {*listed, *(key for source in sources for key in source.cites)}


def test_every_key_is_of_a_work_and_every_work_is_cited(catalog, citations, declared):
    cited = cited_keys(declared, catalog)
    assert cited <= citations.entries.keys()
    own = {entry.key for p in catalog.papers for entry in parse(p.bibtex, p.id)}
    assert citations.entries.keys() - own == (cited - own) | {SUITE}


def test_every_model_data_set_and_source_is_declared_and_nothing_else(catalog, declared):
    recipes = [cell.recipe for cell in catalog.cells if cell.recipe]
    models = [stage.model for recipe in recipes for stage in recipe.stages]
    assert set(declared["models"]) == {model.name for model in models}
    for part, known in (("posteriors", "posterior"), ("priors", "prior")):
        used = {model.args[known] for model in models if known in model.args}
        assert set(declared[part]) == used
    assert set(declared["data"]) == set(data.names())
    assert all(source.cites for paper in catalog.papers for source in paper.sources)


def test_the_address_of_a_source_is_that_of_a_work_that_it_cites(catalog, citations):
    for source in (source for paper in catalog.papers for source in paper.sources):
        assert source.url in {citations.entries[key].url for key in source.cites}, source.id


def test_what_is_printed_is_read_back_with_all_that_stands_behind_a_cell(citations):
    done = CliRunner().invoke(cli, ["cite", "ffjord/vi/iaf/mnist", "iwae"])
    assert done.exit_code == 0
    found = {entry.key: entry for entry in parse(done.output, "output")}
    assert {
        SUITE,
        "grathwohl2019ffjord",
        "burda2016importance",
        "kingma2016improving",
        "vandenberg2018sylvester",
        "lecun1998gradient",
        "larochelle2011neural",
    } <= found.keys()
    assert len(done.output.split("\n\n")) == len(found)
    for key, entry in found.items():
        if key != SUITE:
            assert entry == citations.entries[key]


def test_the_suite_is_cited_as_its_citation_file_says(citations):
    cff = (PACKAGE.parent / "CITATION.cff").read_text()
    entry = citations.entries[SUITE]
    assert f'\ntitle: "{entry.fields["title"]}"\n' in cff
    assert re.findall(r'\n  - name: "(.*)"', cff) == [entry.fields["author"].strip("{}")]
    assert f"\nversion: {__version__}\n" in cff
    assert f"version {__version__}" in CliRunner().invoke(cli, ["cite"]).output


def test_papers_tables_and_patterns_are_names_of_cells(catalog):
    assert catalog.named("iwae") == [cell for cell in catalog.cells if cell.paper == "iwae"]
    assert catalog.named("ffjord/vi") == list(catalog.table("ffjord/vi").cells)
    both = catalog.named("iwae", "ffjord/vi/*/mnist", "iwae/*/*/*")
    assert {cell.paper for cell in both} == {"iwae", "ffjord"}
    assert len(both) == len({cell.id for cell in both})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FFJORD", "ffjord"),
        ("ffjord/densty", "ffjord/density"),
        ("ffjord/neural_ode", "ffjord/neural-ode"),
        ("ffjord/density/maf-5/POWER", "ffjord/density/maf-5/power"),
        ("ffjord/density/maf_5/power", "ffjord/density/maf-5/power"),
    ],
)
def test_a_name_that_is_nearly_right_is_told_what_it_may_mean(catalog, name, meant):
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        catalog.named(name)
