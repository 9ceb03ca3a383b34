"""Adds to the site what is made from declarations, records, notebooks and code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import command_page
import evidence
import examples
import mathml
import model_pages
import notebook_pages
import paper_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = evidence.ROOT / "docs"
TABLES, COMMANDS = "tables.md", "commands.md"
#: Where a page has a part of the README.
_README = re.compile(r"^<!-- README: (\w+) -->$", re.M)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the menu."""
    config.nav = [
        {"Start": ["index.md", "start.md", "questions.md"]},
        {"Results": [TABLES, "verdicts.md"]},
        {"Papers": [{paper.id: f"papers/{paper.id}.md"} for paper in evidence.catalog().papers]},
        {"Models": _written("models")},
        {"Guides": ["run.md", "data.md", "add.md", "scale.md", COMMANDS, "code.md"]},
        {"Notebooks": [f"notebooks/{name}.md" for name in notebook_pages.names()]},
        {"API": _written("api")},
    ]
    return config


def _written(folder: str) -> list[str]:
    """Return the hand-written pages of a folder, its index first."""
    pages = (path.relative_to(DOCS).as_posix() for path in (DOCS / folder).glob("*.md"))
    return sorted(pages, key=lambda page: (not page.endswith("index.md"), page))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and files."""
    for uri, content in _generated():
        files.append(File.generated(config, uri, content=content))
    return files


def _generated() -> Iterator[tuple[str, str | bytes]]:
    catalog = evidence.catalog()
    yield COMMANDS, command_page.page()
    yield TABLES, paper_pages.gallery_page(catalog.papers)
    for paper in catalog.papers:
        yield f"papers/{paper.id}.md", paper_pages.paper_page(paper)
    for name, content in evidence.figures().items():
        yield f"figures/{name}", content
    for name in notebook_pages.names():
        yield f"notebooks/{name}.md", notebook_pages.page(name)
        yield f"notebooks/{name}.ipynb", notebook_pages.content(name)


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Run a page's examples; append to a model's page its numbers and code."""
    markdown = _README.sub(lambda found: paper_pages.readme_part(found[1]), markdown)
    markdown = markdown.replace("<!-- library -->", command_page.library())
    markdown = examples.run_examples(paper_pages.linked(markdown))
    return f"{markdown}\n{model_pages.appended(page.meta)}" if "models" in page.meta else markdown


def on_page_content(html: str, **_: object) -> str:
    """Turn formulas into MathML."""
    return mathml.drawn(html)
