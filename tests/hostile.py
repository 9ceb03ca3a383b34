"""Text that means something to a terminal, a spreadsheet, a browser, Markdown, LaTeX or a plot."""

from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

#: Pieces of attacks, and what surrounds them in names and reasons that are none.
PIECES = (
    "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202eexe.txt", "\u2066", "\r", "\n", "\n\n", "\t",
    "\x00", "\x85", "\u2028", "\udcff", "\ud800", "=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(A1)",
    "\uff1d1+1", "\t=1+1", "<script>alert(1)</script>", "<img src=x onerror=y>", "<!--", "</td>",
    "' onclick='x", '" onload="x', "&lt;", "&#124;", "javascript:alert(1)", "[a](http://x.y)",
    "![a](http://x.y)", "<http://x.y>", "**", "__", "*a*", "`", "```", "~~", "|", "\\", "\\|",
    "# a", "1. a", "- a", "> a", "---", "===", "    code", "$", "$x_$", "$$", "\\$", "\\input{a}",
    "\\end{tabular}", "{", "}", "%", "&", "_", "^", "~", "^^M", "\\\\[1em]", "[1em]", "*",
    "\\\\", "{{ 7*7 }}", "{% raw %}", "{0}",
    "\U0001f600", "a", "MAF (5)", "-1.5", "é", "中", "\u0301", " ", "",
)  # fmt: skip

texts = st.one_of(
    st.sampled_from(PIECES),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
    st.text(max_size=8),
)


def poisoned(model: Any, draw: Any, keep: frozenset[str]) -> Any:
    """Return a declaration or record in which every text is a hostile one.

    Args:
        model: The declaration, or a part of it.
        draw: Gives a text.
        keep: Names of fields whose texts are names or one of a few words, and stay.
    """
    if isinstance(model, str):
        return draw()
    if isinstance(model, tuple | list):
        return type(model)(poisoned(part, draw, keep) for part in model)
    if isinstance(model, dict):
        return {key: poisoned(part, draw, keep) for key, part in model.items()}
    if not isinstance(model, BaseModel):
        return model
    chosen = {name: getattr(model, name) for name in type(model).model_fields if name not in keep}
    return model.model_copy(update={k: poisoned(v, draw, keep) for k, v in chosen.items()})
