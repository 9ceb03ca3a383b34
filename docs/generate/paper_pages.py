"""A page for each paper, and the gallery, from ``paper.toml``, README and records."""

from __future__ import annotations

import re
from collections import Counter

import evidence

from dgm_bench.spec import Cell, Paper, Table
from dgm_bench.wording import STATES


def paper_page(paper: Paper) -> str:
    """Return a paper's page: citation, tables with verdicts, figures, declared differences."""
    parts = [f"# {paper.title}", _cited(paper), "## Tables", _counts(paper)]
    for table in paper.tables:
        parts += [_heading(table), evidence.table_markdown(table), *_pictures(table.name)]
    parts += ["## What is known to differ, and what came out", _readme(paper)]
    return "\n\n".join(parts) + "\n"


def gallery_page(papers: tuple[Paper, ...]) -> str:
    """Return all tables, with how many cells are in which state, and all figures."""
    parts = ["# Tables and figures", GALLERY]
    for paper in sorted(papers, key=lambda paper: -len(_published(paper))):
        parts += [f"## {paper.id}", f"[{paper.title}](papers/{paper.id}.md)", _overview(paper)]
        parts += [_picture(file, "figures") for file in evidence.figures_of(paper.id)]
    return "\n\n".join(parts) + "\n"


GALLERY = (
    "Made from the stored records when this site is built: what `dgm-bench table` prints and "
    "`dgm-bench report --figures DIR` writes. Pictures of samples are stored with the records."
)


def _overview(paper: Paper) -> str:
    """Return how many cells of each table are in which state."""
    states = [state for state in STATES if any(_states(table)[state] for table in paper.tables)]
    lines = [f"| table | | {' | '.join(states)} |", "| --- |" * 1 + " --- |" * (len(states) + 1)]
    for table in paper.tables:
        link = f"[`{table.name}`](papers/{paper.id}.md#{table.name.replace('/', '-')})"
        counts = " | ".join(str(_states(table)[state] or "") for state in states)
        lines.append(f"| {link} | {table.title} | {counts} |")
    return "\n".join(lines)


def _states(table: Table) -> Counter[str]:
    return Counter(evidence.verdicts()[cell.id].state for cell in table.cells if not cell.repeats)


def _cited(paper: Paper) -> str:
    bibtex = "\n".join(f"    {line}" for line in paper.bibtex.strip().splitlines())
    cited = f"{paper.authors} ({paper.year}). [{paper.url}]({paper.url})"
    return f'{cited}\n\n??? quote "BibTeX"\n\n    ```bibtex\n{bibtex}\n    ```'


def _counts(paper: Paper) -> str:
    published = _published(paper)
    states = Counter(evidence.verdicts()[cell.id].state for cell in published)
    counted = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    said = f"Of {len(published)} published numbers: {counted}. " if published else ""
    return said + "[How verdicts work](../verdicts.md)."


def _published(paper: Paper) -> list[Cell]:
    return [cell for table in paper.tables for cell in table.cells if cell.published]


def _heading(table: Table) -> str:
    return (
        f"### {table.title} {{ #{table.name.replace('/', '-')} }}\n\n`{table.name}`: {table.where}"
    )


def _pictures(name: str) -> list[str]:
    return [_picture(file, "../figures") for file in evidence.figures_of(name)]


def _picture(file: str, folder: str) -> str:
    words = file.removesuffix(".png").replace("-", " ")
    return f"![{words}]({folder}/{file}){{ loading=lazy }}"


def _readme(paper: Paper) -> str:
    """Return the paper's README below its title, with links that hold on the site."""
    text = (evidence.ROOT / "reproductions" / paper.id / "README.md").read_text(encoding="utf-8")
    text = text.split("\n", 1)[1].strip()
    text = re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)
    return linked(text.replace("](../../results/figures/", "](../figures/"))


def linked(text: str) -> str:
    """Return a text with links to papers' READMEs as links to their pages, others as words."""
    text = re.sub(r"\]\(\.\./(\w+)/README\.md", r"](\1.md", text)
    text = re.sub(r"\]\(\.\./reproductions/(\w+)/README\.md", r"](papers/\1.md", text)
    return re.sub(r"(?<!!)\[([^]]+)\]\(\.\./\.\./[^)]*\)", r"\1", text)


def readme_part(name: str) -> str:
    """Return a part of the project's README, which it marks, with links that hold on the site."""
    text = (evidence.ROOT / "README.md").read_text(encoding="utf-8")
    part = text.split(f"<!-- {name}: begin -->\n")[1].split(f"<!-- {name}: end -->")[0]
    part = part.replace("](docs/", "](")
    return re.sub(r"\[([^]]+)\]\((?!\w+\.md|http)[^)]*\)", r"\1", part)
