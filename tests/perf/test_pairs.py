"""Tier 1 of the gate: its rule, its processes (which load no torch here), and how it ends."""

import io
import json
import math
import random
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from scipy.stats import t as student

from dgm_bench.errors import UnexpectedError, UsageError
from dgm_bench.perf import paired, pairs, tiers
from dgm_bench.perf.judgement import MOST_PAIRS, PAIRS, judge
from dgm_bench.perf.paired import CaseResult, compare_sides, sides, table
from dgm_bench.perf.pairs import PairResult, Side, measure_pair
from dgm_bench.perf.printed import as_markdown, as_text
from dgm_bench.perf.worker import serve

# --------------------------------------------------------------------------- the rule


def test_bounds_are_those_of_students_t():
    ratios = [0.02, 0.05, -0.01, 0.03, 0.04]
    half = student.ppf(0.99, 4) * np.std(ratios, ddof=1) / math.sqrt(5)
    found = judge(ratios)
    assert found.change == pytest.approx(math.expm1(np.mean(ratios)))
    assert found.lower == pytest.approx(math.expm1(np.mean(ratios) - half))
    assert found.upper == pytest.approx(math.expm1(np.mean(ratios) + half))


@pytest.mark.parametrize(
    ("percent", "spread", "state"),
    [
        (10, 0.5, "slower"),
        (10, 8.0, "perhaps slower"),  # as estimated, but not for sure
        (5.5, 0.3, "perhaps slower"),  # for sure, but too little
        (4, 4.0, "same"),
        (0, 0.5, "same"),
        (-10, 0.5, "faster"),
        (-10, 8.0, "same"),
    ],
)
def test_it_takes_a_bound_and_an_estimate_to_fail(percent, spread, state):
    shape = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    ratios = math.log1p(percent / 100) + spread / 100 * shape
    assert judge(ratios.tolist()).state == state


def run(ratios):
    for count in range(PAIRS, MOST_PAIRS + 1):
        if judge(ratios[:count]).state != "perhaps slower":
            break
    return judge(ratios[:count]).state


@pytest.mark.parametrize(("slowdown", "spread", "least", "most"), [
    (0.00, 0.015, 0.0, 0.0), (0.00, 0.03, 0.0, 0.005),
    (0.03, 0.015, 0.0, 0.01),
    (0.10, 0.015, 0.99, 1.0), (0.10, 0.03, 0.95, 1.0),
])  # fmt: skip
def test_the_rule_finds_a_tenth_and_raises_no_false_alarm(slowdown, spread, least, most):
    """With normal pairs, of a spread as was measured and of twice that."""
    draw = np.random.default_rng(0).normal(math.log1p(slowdown), spread, (1000, MOST_PAIRS))
    share = np.mean([run(ratios) == "slower" for ratios in draw.tolist()])
    assert least <= share <= most


# --------------------------------------------------------------------------- processes

WORKER = """
import json, sys
print("{{}}", flush=True)
for line in sys.stdin:
    command, word = line.split()
    if command == "case":
        known = word != "unknown"
        print(json.dumps({{"seconds": 0.1}} if known else {{"lacks": "no such model"}}), flush=True)
        slow = {pace} if word == "maf" else 1.0
    else:
        print(json.dumps({{"seconds": slow * int(word)}}), flush=True)
"""


def side(name, pace=1.0, tree="."):
    code = WORKER.format(pace=pace)
    return Side(name, tree, [sys.executable, "-S", "-c", code])


def test_a_pair_finds_the_ratio_of_head_to_base():
    found = measure_pair(side("base"), side("head", 1.1), ["maf", "nsf"], random.Random(0))
    assert found["maf"].log_ratio == pytest.approx(math.log(1.1))
    assert found["maf"].seconds == pytest.approx((1.0, 1.1))
    assert found["nsf"].log_ratio == 0


def test_both_processes_work_on_one_core(monkeypatch):
    cores = []
    monkeypatch.setattr(pairs.os, "sched_setaffinity", lambda pid, to: cores.append((pid, to)))
    with pairs.pair_of_workers(side("base"), side("head"), random.Random(0)):
        (first, one), (second, other) = cores
    assert one == other
    assert len(one) == 1
    assert first != second


def test_a_case_that_the_base_lacks_is_told_and_is_no_failure(monkeypatch):
    results = compare_sides(side("base"), side("head"), ["unknown", "maf"])
    rows = table(results)
    assert rows[1] == (
        "unknown", "-", "-", "-", "-", "-", "-", "not compared: base cannot do it: no such model"
    )  # fmt: skip
    assert rows[2][-2:] == (str(PAIRS), "same")
    assert len(results[0].pairs) == 1  # and is not asked for again


def test_a_process_that_dies_is_told_with_its_last_words():
    dead = Side("base", ".", [sys.executable, "-S", "-c", "raise SystemExit('no torch here')"])
    with pytest.raises(UnexpectedError, match="the worker of base: ended: no torch here"):
        measure_pair(dead, side("head"), ["maf"], random.Random(0))


def test_what_is_perhaps_slower_is_given_more_pairs(monkeypatch):
    asked = []

    def some(base, head, cases, chance):
        asked.append(tuple(cases))
        return {case: PairResult(0.0 if case == "maf" else 0.055, (1.0, 1.0)) for case in cases}

    monkeypatch.setattr(paired, "measure_pair", some)
    compare_sides(side("base"), side("head"), ["maf", "nsf"])
    assert asked == PAIRS * [("maf", "nsf")] + (MOST_PAIRS - PAIRS) * [("nsf",)]


def test_a_worker_is_made_of_this_state_and_works_on_the_tree_of_the_other(tmp_path, monkeypatch):
    """The base may have another gate, or none: both sides do the work that this one declares."""
    tree, here = tmp_path / "tree/dgm_bench", tmp_path / "here"
    (tree / "perf").mkdir(parents=True)
    here.mkdir()
    (tree / "__init__.py").write_text("")
    (tree / "perf/__init__.py").write_text("raise SystemExit('the base has its own')")
    (tree / "models.py").write_text("NAME = 'of the tree'")
    told = "def main():\n    import dgm_bench.models, sys; print(dgm_bench.models.NAME, sys.argv)"
    (here / "worker.py").write_text(told)
    monkeypatch.setattr(pairs, "_HERE", here)
    done = subprocess.run(
        pairs.worker_command("cuda"), env={"PYTHONPATH": str(tree.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "of the tree ['worker', 'cuda']\n", done.stderr


def test_a_worker_answers_commands_and_says_what_it_cannot_make(monkeypatch, capsys):
    class Work:
        def seconds(self, calls):
            return 0.5 * calls

    def make(name, device):
        if name == "unknown":
            raise LookupError(f"no {name} on {device}")
        return Work()

    monkeypatch.setattr(sys, "stdin", io.StringIO("case maf\ncall 4\ncase unknown\n"))
    serve("cpu", make)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    lacking = {"lacks": "LookupError: no unknown on cpu"}
    assert answers == [{}, {"seconds": 0.5}, {"seconds": 2.0}, lacking]


# --------------------------------------------------------------------------- base and head


def git(folder, *words):
    own = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", folder, *own, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with three states of a package, the last one not committed."""
    package = tmp_path / "repository/dgm_bench"
    package.mkdir(parents=True)
    root = package.parent
    git(root, "init", "-b", "main")
    for state in ("first", "second"):
        (package / "__init__.py").write_text(state)
        git(root, "add", ".")
        git(root, "commit", "-m", state)
    monkeypatch.setattr(paired, "checkout_root", lambda: root)
    return root


def base_of(revision):
    with sides(revision, "cpu") as (base, _):
        return (base.tree / "dgm_bench/__init__.py").read_text()


def test_the_base_is_the_revision_named_or_where_the_work_left_the_main_branch(checkout):
    assert base_of("main~1") == "first"
    assert base_of(None) == "first"  # nothing has changed since the main branch's last commit
    (checkout / "dgm_bench/__init__.py").write_text("third")
    assert base_of(None) == "second"
    git(checkout, "checkout", "-b", "work")
    git(checkout, "commit", "-a", "-m", "third")
    assert base_of(None) == "second"


def test_a_revision_that_is_not_there_is_told(checkout):
    with pytest.raises(UsageError, match="name a revision that is here"), sides("nothing", "cpu"):
        pass


# --------------------------------------------------------------------------- what is printed


def test_the_tier_fails_with_a_slower_case_alone(monkeypatch, tmp_path):
    ratios = {"maf": 0.1, "nsf": -0.1}
    results = [
        CaseResult(case, [PairResult(ratio, (1.0, math.exp(ratio)))] * PAIRS)
        for case, ratio in ratios.items()
    ]
    monkeypatch.setattr(tiers, "sides", lambda *_: sides_of(tmp_path))
    monkeypatch.setattr(tiers, "compare_sides", lambda *_: results)
    finding = tiers.base_against_head(None)
    assert finding.failed
    assert "maf   1000.00 ms  1105.17 ms  +10.5 %" in as_text(finding)
    assert "| nsf | 1000.00 ms | 904.84 ms | -9.5 % | -9.5 % | -9.5 % | 5 | faster |" in (
        as_markdown(finding)
    )
    monkeypatch.setattr(tiers, "compare_sides", lambda *_: results[1:])
    assert not tiers.base_against_head(None).failed


def sides_of(folder):
    return nullcontext((Side("base", folder, []), Side("head", folder, [])))
