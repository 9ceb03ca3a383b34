"""The page on scale: its table is what the planner says, and what it shows exists."""

import re

import plan_at_scale
import pytest
from click.testing import CliRunner

from dgm_bench.cli import cli
from dgm_bench.engines.slurm_nodes import SlurmOptions
from dgm_bench.planner.faults import Faults
from dgm_bench.planner.fleet import DEVICES

PAGE = plan_at_scale.PAGE.read_text(encoding="utf-8")


def rows_of_the_page():
    lines = PAGE.partition(plan_at_scale.BEGIN)[2].partition(plan_at_scale.END)[0].splitlines()
    rows = [[entry.strip() for entry in line.strip("|").split("|")] for line in lines if line]
    assert tuple(rows[0]) == plan_at_scale.HEAD
    return {(row[0], int(row[1])): row for row in rows[2:]}


def apart(text):
    """The words of an entry, and its numbers."""
    pattern = r"\d[\d,]*(?:\.\d+)?"
    numbers = [float(found.replace(",", "")) for found in re.findall(pattern, text)]
    return re.sub(pattern, "#", text), numbers


def test_the_table_is_what_the_planner_says():
    """``python benchmarks/plan_at_scale.py`` writes it; draws differ between versions of numpy."""
    stored, count = rows_of_the_page(), 64
    assert len(stored) == len(plan_at_scale.PARTS) * len(plan_at_scale.COUNTS)
    for title, pattern, seeds in plan_at_scale.PARTS:
        now = plan_at_scale.row(title, plan_at_scale.looked(pattern, seeds, count))
        for said, entry in zip(stored[title, count], now, strict=True):
            words, numbers = apart(entry)
            assert apart(said)[0] == words
            assert apart(said)[1] == pytest.approx(numbers, rel=0.01, abs=0.1)


def test_a_new_table_takes_the_place_of_the_old_one_alone():
    page = plan_at_scale.replaced(PAGE, "| another |\n")
    assert "| another |" in page
    assert plan_at_scale.HEAD[2] not in page
    old = PAGE.partition(plan_at_scale.BEGIN)[2].partition(plan_at_scale.END)[0]
    assert plan_at_scale.replaced(page, old.strip("\n") + "\n") == PAGE


def commands():
    """The commands that the page shows, as words."""
    for block in re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE):
        joined = re.sub(r"\\\n\s*", " ", block)
        yield from (
            line.split("#")[0].split() for line in joined.splitlines() if "dgm-bench " in line
        )


def test_every_option_that_the_page_shows_is_there():
    shown = [words[words.index("dgm-bench") + 1 :] for words in commands()]
    assert {words[0] for words in shown} >= {"run", "plan", "status", "cancel", "merge", "table"}
    for verb, *words in shown:
        there = {name for option in cli.commands[verb].params for name in option.opts}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= there, f"{verb}: {options - there}"


def test_keys_of_slurms_section_are_all_told():
    section = re.search(r"^    \[slurm\]\n((?:    .*\n)+)", PAGE, re.MULTILINE)[1]
    told = set(re.findall(r"^    (\w+) = ", section, re.MULTILINE))
    assert told == set(SlurmOptions.model_fields)


def test_devices_and_assumptions_are_those_of_the_planner():
    for device in DEVICES.values():
        if device.is_gpu:
            half = f"{device.bfloat16 / 1e12:g}" if device.bfloat16 else "-"
            figures = f"{device.float32 / 1e12:g} | {half} | {device.memory_bytes / 1e9:g}"
            assert f"| `{device.name}` | {device.title} | {figures} |" in PAGE
    usual = Faults()
    assert f"every {usual.mtbf_seconds / 3600:,.0f} hours" in PAGE
    assert CliRunner().invoke(cli, ["plan", "--on", "9xh200", "--help"]).exit_code == 0
