"""Notebooks as pages: their texts and code, without outputs."""

from __future__ import annotations

import json

import evidence

FOLDER = evidence.ROOT / "notebooks"


def names() -> list[str]:
    """Return the notebooks, in the order of their numbers."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def content(name: str) -> bytes:
    """Return a notebook's file."""
    return (FOLDER / f"{name}.ipynb").read_bytes()


def page(name: str) -> str:
    """Return a notebook as Markdown, with a link to its file below its title."""
    cells = json.loads(content(name))["cells"]
    texts = [_text(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    title, _, rest = texts[0].partition("\n")
    link = f"[{name}.ipynb]({name}.ipynb){{ download }}, without outputs"
    return "\n\n".join([title, link, rest.strip(), *texts[1:]]) + "\n"


def _text(kind: str, source: str) -> str:
    return f"```python\n{source}\n```" if kind == "code" else source
