"""A page of all commands: what each says of itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.testing import CliRunner

from dgm_bench.cli import cli

WIDTH = 86


def page() -> str:
    """Return the page."""
    parts = ["# Commands", "What `dgm-bench COMMAND --help` says."]
    for words in _verbs(cli):
        done = CliRunner().invoke(cli, [*words, "--help"], terminal_width=WIDTH)
        usage = done.output.replace("Usage: cli ", "Usage: dgm-bench ").rstrip()
        parts += [f"## {' '.join(words)}", f"```text\n{usage}\n```"]
    return "\n\n".join(parts) + "\n"


def _verbs(group: click.Group) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, those of groups too."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        inner = _verbs(command) if isinstance(command, click.Group) else [()]
        yield from ((name, *words) for words in inner)
