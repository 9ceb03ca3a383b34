"""Docstrings as Markdown has them: Sphinx roles as plain code, examples under their heading."""

from __future__ import annotations

import re

import griffe

_EXAMPLE = re.compile(r"^( *)Example:$", re.M)
_ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")


class Docstrings(griffe.Extension):
    """Turns a role with its target into the target's name as code, and names examples."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Change the docstring of an object that was found in the code."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", text)
