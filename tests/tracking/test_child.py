"""What the process that logs does about a server that fails for a while, or for ever."""

import io
import json

import pytest

from dgm_bench.tracking import child
from dgm_bench.tracking.address import RequestLost, ServerAway, TrackingError, read_address

LOST = RequestLost("server", "did not answer")
AWAY = ServerAway("server", "not reachable")
REFUSED = TrackingError("server", "wants a login")
BROKEN = ValueError("no such column")


def answers(monkeypatch, tmp_path, outcomes, many=True):
    """Return what is said of two records, ``a`` and ``b``, given what each attempt meets."""
    monkeypatch.setattr(child, "RETRY_SECONDS", 0)
    channel, left = io.StringIO(), list(outcomes)
    worker = child.Worker(channel, tmp_path, read_address("http://host"))

    def once(path, many):
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(worker._log, "once", once)
    worker.do({"paths": ["a", "b"], "many": many})
    assert left == []
    return [json.loads(line) for line in channel.getvalue().splitlines()]


TROUBLE = {"trouble": ["server", "not reachable", ""]}
LOST_ONCE = {"trouble": ["server", "did not answer", ""]}
DONE = {"done": True}


def new(path):
    return {"path": path, "new": True}


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([True, False], [new("a"), {"path": "b", "new": False}, DONE]),
        # away: at once where nothing has got through, else for as long as it is waited for
        ([AWAY], [{"stop": TROUBLE["trouble"]}]),
        ([True, *[AWAY] * 9, True], [new("a"), *[TROUBLE] * 9, new("b"), DONE]),
        # a request that is lost is repeated, and stops no other record
        ([LOST, LOST, True, True], [LOST_ONCE, LOST_ONCE, new("a"), new("b"), DONE]),
        ([LOST, LOST, LOST, True],
         [LOST_ONCE, LOST_ONCE, {"path": "a", "error": "server: did not answer"}, new("b"), DONE]),
        ([True, REFUSED], [new("a"), {"stop": ["server", "wants a login", ""]}]),
        ([BROKEN, True], [{"path": "a", "error": "ValueError: no such column"}, new("b"), DONE]),
    ],
)  # fmt: skip
def test_what_becomes_of_many_records(outcomes, said, monkeypatch, tmp_path):
    assert answers(monkeypatch, tmp_path, outcomes) == said


def test_at_the_end_of_a_run_nothing_is_repeated(monkeypatch, tmp_path):
    assert answers(monkeypatch, tmp_path, [True, AWAY], many=False)[-1] == {
        "stop": TROUBLE["trouble"]
    }
    said = answers(monkeypatch, tmp_path, [LOST, True], many=False)
    assert said[0] == {"path": "a", "error": "server: did not answer"}
