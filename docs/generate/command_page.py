"""A page of all commands, and what the library offers: what each says of itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.testing import CliRunner

import dgm_bench
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


def library() -> str:
    """Return what ``import dgm_bench`` offers, to be described where it is defined."""
    homes = ((name, dgm_bench._HOMES[name]) for name in dgm_bench.__all__)
    return "\n\n".join(f"::: dgm_bench.library.{home}.{name}" for name, home in homes)
