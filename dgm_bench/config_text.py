"""The text of a ``dgm-bench.toml``: a new one, and one with a value changed, comments kept."""

from __future__ import annotations

import json
import re

from dgm_bench.defaults import Defaults

HEAD = """\
# Defaults of dgm-bench. An option counts more, then the environment, then this file in the working
# directory, then the one in your folder of configurations: dgm-bench config show
"""
#: What a new file shows of each key, commented out.
EXAMPLES = {
    "data_root": "~/data",
    "results": "~/dgm-results",
    "stored": "none",
    "work": "/scratch/dgm-bench",
    "engine": "local",
    "jobs": 4,
    "device": "cuda",
    "threads": 1,
    "budget": "2h",
    "seeds": 3,
    "offline": True,
    "tracking": False,
    "tracker": "tensorboard",
    "tracking_uri": "http://localhost:5000",
}


def new_text() -> str:
    """Return a file in which every default is explained, and none is set."""
    lines = [HEAD, "[defaults]"]
    for key, field in Defaults.model_fields.items():
        lines.append(f"# {key} = {literal(EXAMPLES[key])}  # {field.description}")
    return "\n".join([*lines, "", "# [slurm] and [ray] hold the options of these engines.", ""])


def literal(value: object) -> str:
    """Return a value as TOML writes it: a text, a number, yes or no, or several texts."""
    return json.dumps(value, ensure_ascii=False)


def with_value(text: str, section: str, key: str, value: object) -> str:
    """Return a file with one value set: on the line of its key, also of one commented out.

    Args:
        text: Of the file; empty for a new one.
        section: Its section, made at the end where there is none.
        key: Of the value.
        value: As :func:`literal` takes it.
    """
    line, lines = f"{key} = {literal(value)}", text.splitlines()
    header = re.compile(rf"\s*\[\s*{re.escape(section)}\s*\]\s*(#.*)?")
    begin = next((n for n, known in enumerate(lines, 1) if header.fullmatch(known)), None)
    if begin is None:
        return "\n".join([*lines, *([""] if lines else []), f"[{section}]", line, ""])
    end = next((n for n in range(begin, len(lines)) if lines[n].lstrip()[:1] == "["), len(lines))
    for pattern in (rf"\s*{re.escape(key)}\s*=", rf"\s*#\s*{re.escape(key)}\s*="):
        for number in range(begin, end):
            if re.match(pattern, lines[number]):
                return "\n".join([*lines[:number], line, *lines[number + 1 :], ""])
    while end > begin and not lines[end - 1].strip():
        end -= 1
    return "\n".join([*lines[:end], line, *lines[end:], ""])
