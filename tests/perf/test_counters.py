"""Tier 0 of the gate: the counters on file hold, and see what they are for."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from dgm_bench.perf import startup, tiers
from dgm_bench.perf.cases import CASES
from dgm_bench.perf.counters import step_counters
from dgm_bench.perf.expected import (
    Expected,
    differences,
    not_compared,
    read_expected,
    write_expected,
)
from dgm_bench.perf.operators import OperatorCount
from dgm_bench.perf.printed import as_text
from dgm_bench.perf.steps import make_work, usual_settings
from dgm_bench.train.losses import Loss

pytestmark = pytest.mark.usefixtures("unchecked")


def test_the_counters_are_those_on_file():
    """``tox -e perf -- --write`` writes them anew, where a change of them is meant."""
    finding = tiers.counters()
    assert not finding.failed, as_text(finding)


# --------------------------------------------------------------------------- what is counted


def test_operators_operations_and_bytes_of_a_step_by_hand():
    """The loss is sum(relu(x W)), x of 5 x 3 and W of 3 x 4 in float64: 8 bytes a number."""
    x, weight = torch.randn(5, 3), torch.randn(3, 4, requires_grad=True)
    with OperatorCount() as count:
        (x @ weight).relu().sum().backward()
    called = {"mm": 2, "relu": 1, "sum": 1, "threshold_backward": 1}
    assert {f"aten.{name}.default": n for name, n in called.items()}.items() <= count.calls.items()
    assert count.flops == 2 * (2 * 5 * 3 * 4)
    # At once: the output of relu and its gradient, of 5 x 4; the loss, and its gradient.
    assert count.peak_bytes == 2 * (5 * 4 * 8) + 2 * 8
    assert count.live_bytes == weight.grad.untyped_storage().nbytes()


def test_bytes_of_views_and_of_what_was_there_before_are_not_counted():
    x = torch.zeros(1000)
    with OperatorCount() as count:
        x.view(10, 100).t().add_(1)
        for _ in range(3):
            x + 1
    assert count.peak_bytes == 8000
    assert count.live_bytes == 0
    assert len(x) == 1000


# --------------------------------------------------------------------------- what is seen


def counters_of(case, change=None):
    """Counters of a case's step, with a loss that a defect changes."""
    with usual_settings():
        work = make_work(CASES[case])
        if change is not None:
            plain = work.objective
            work.objective = lambda model, x, step, noise: Loss(
                change(model, x, plain(model, x, step, noise).total)
            )
        return step_counters(work)


@pytest.fixture(scope="module")
def plain_counters():
    return {case: counters_of(case) for case in ("made", "ffjord-fixed")}


def test_one_operator_more_in_a_step_is_seen(plain_counters):
    found = counters_of("made", lambda model, x, loss: (torch.exp(x), loss)[1])
    assert found["operators"] == plain_counters["made"]["operators"] + 1
    assert found["flops"] == plain_counters["made"]["flops"]


def test_evaluations_more_of_the_dynamics_are_seen(plain_counters):
    @torch.no_grad()
    def once_more(model, x, loss):
        model.log_prob_estimate(x[:1], torch.Generator())
        return loss

    found = counters_of("ffjord-fixed", once_more)
    assert found["evaluations"] == plain_counters["ffjord-fixed"]["evaluations"] * 3 // 2


def test_a_tensor_that_is_kept_is_seen(plain_counters):
    kept = []

    def keep(model, x, loss):
        kept.append(x.repeat(100, 1))
        return loss

    found = counters_of("made", keep)
    assert found["peak_bytes"] >= plain_counters["made"]["peak_bytes"] + kept[0].nbytes


def test_a_heavy_import_is_seen(tmp_path, monkeypatch):
    here = startup.PACKAGE
    (tmp_path / "dgm_bench").mkdir()
    shutil.copy(here / "__init__.py", tmp_path / "dgm_bench")
    monkeypatch.setattr(startup, "PACKAGE", tmp_path / "dgm_bench")
    before = startup._counted((), tmp_path, tmp_path)
    with (tmp_path / "dgm_bench/__init__.py").open("a") as file:
        file.write("\nimport email.message, click\n")
    after = startup._counted((), tmp_path, tmp_path)
    assert after["modules"] > before["modules"] + 10
    assert (before["packages"], after["packages"]) == (0, 1)
    assert before["own_modules"] == after["own_modules"] == 1


def test_records_that_are_opened_twice_are_counted_twice(tmp_path):
    record = tmp_path / "x.json"
    record.write_text(json.dumps({}))
    reads = "import pathlib, sys; [pathlib.Path(sys.argv[1]).read_text() for _ in range(2)]"
    (tmp_path / "dgm_bench").mkdir()
    (tmp_path / "dgm_bench/__init__.py").write_text("")
    (tmp_path / "dgm_bench/cli.py").write_text(f"def main():\n    {reads}\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    assert startup._told((str(record),), tmp_path, environment)[1:] == (2, 0)


# --------------------------------------------------------------------------- the file

HERE = {"torch": "2.9", "torchdiffeq": "0.2", "python": "3.11", "click": "8.2", "rich": "14.0"}
HERE["pydantic"] = "2.10"
VALUES = {"maf": {"operators": 100, "parameters": 7}}


def expected(**changes):
    return replace(Expected(HERE, VALUES), **changes)


@pytest.mark.parametrize("operators", [99, 101])
def test_more_and_less_than_expected_both_fail_with_one_line(operators):
    (found,) = differences(expected(), {"maf": {"operators": operators, "parameters": 7}}, HERE)
    share = "-1.00%" if operators == 99 else "+1.00%"
    assert str(found) == f"maf: operators: expected 100, measured {operators} ({share})"


def test_a_margin_allows_so_much_and_no_more():
    loose = expected(margins={("maf", "operators"): 0.02})
    for operators, wrong in ((98, 0), (102, 0), (97, 1), (103, 1)):
        measured = {"maf": {"operators": operators, "parameters": 7}}
        assert len(differences(loose, measured, HERE)) == wrong


def test_cases_and_counters_that_one_side_lacks_are_differences():
    found = differences(expected(), {"maf": {"parameters": 7}, "nsf": {"parameters": 1}}, HERE)
    assert [str(f) for f in found] == [
        "maf: operators: expected 100, measured nothing",
        "nsf: parameters: expected nothing, measured 1",
    ]


def test_counters_of_another_torch_are_told_and_not_compared():
    here = HERE | {"torch": "2.20"}
    measured = {"maf": {"operators": 5, "parameters": 8}}
    (found,) = differences(expected(), measured, here)
    assert found.counter == "parameters"
    assert list(not_compared(expected(), here)) == [
        f"{counter}: not compared: measured with torch 2.9, here 2.20"
        for counter in ("operators", "flops", "peak_bytes")
    ]


def test_the_file_gives_back_what_was_written(tmp_path):
    written = expected(margins={("maf", "operators"): 0.02})
    write_expected(tmp_path / "expected.toml", written)
    assert read_expected(tmp_path / "expected.toml") == written
