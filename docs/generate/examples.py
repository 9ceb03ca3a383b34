"""Examples that pages show: their code is run when the site is built, and its output put below."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tempfile
from typing import Any

from click.testing import CliRunner

from dgm_bench.cli import cli

#: Characters of a line that a page has room for.
WIDTH = "86"
_FENCE = re.compile(r"^```(python|console) run(?: lines=(\d+))?\n(.*?)^```$", re.M | re.S)


def run_examples(markdown: str) -> str:
    """Return a page with the output of its examples.

    A fence ``python run`` shows code and what it prints; those of a page share their names. One of
    ``console run`` has a ``$ dgm-bench ...`` command; ``lines=N`` keeps the first N of its output.
    """
    names: dict[str, Any] = {}

    def replaced(found: re.Match[str]) -> str:
        kind, most, code = found[1], found[2], found[3]
        output = _python(code, names) if kind == "python" else _command(code)
        lines = output.rstrip("\n").splitlines()
        if most and len(lines) > int(most):
            lines = [*lines[: int(most)], "..."]
        shown = "\n".join(line.rstrip() for line in lines)
        return f"```{kind}\n{code}```\n" + (f"\n```text\n{shown}\n```" if shown else "")

    return _FENCE.sub(replaced, markdown)


def _python(code: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<example>", "exec"), names)
    return printed.getvalue()


def _command(line: str) -> str:
    """Return what a command prints where there are neither data nor results of the user's."""
    words = shlex.split(line.removeprefix("$ dgm-bench "))
    with tempfile.TemporaryDirectory() as empty:
        around = {"COLUMNS": WIDTH, "DGM_BENCH_DATA": empty, "DGM_BENCH_RESULTS": empty}
        done = CliRunner().invoke(cli, words, env=around, catch_exceptions=False)
    if done.exit_code not in (0, 1):
        raise RuntimeError(f"{line.strip()}: exit code {done.exit_code}: {done.output}")
    return done.output
