"""Stop requests: who hears them, and when."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from dgm_bench.control import PATIENCE, Control, Interrupted, ask, ask_within, beside
from dgm_bench.kept import ask_in_modules


def test_between_pieces_of_work_a_request_is_heard_at_once_and_within_one_a_little_later(
    monkeypatch,
):
    now = [100.0]
    monkeypatch.setattr("dgm_bench.control.time.monotonic", lambda: now[0])
    control = Control(time_limit=5.0)
    with control.active():
        ask()
        now[0] += 5.0
        with pytest.raises(Interrupted, match="time limit"):
            ask()
        now[0] += 0.9 * PATIENCE
        ask_within()
        now[0] += 0.2 * PATIENCE
        with pytest.raises(Interrupted, match="time limit"):
            ask_within()
    ask()


def test_a_deadline_holds_within_its_block_and_the_earlier_one_says_why():
    control = Control(time_limit=60.0)
    over = control.until(time.monotonic() - 1)
    with control.active(), over, pytest.raises(Interrupted, match="budget"):
        ask()
    assert control.stop_reason() is None
    with control.active(), control.until(None):
        ask()


def test_a_second_signal_stops_at_once():
    control = Control()
    with control.catching_signals(), control.active():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            ask()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_modules_ask_from_a_request_on_and_until_the_end():
    control, layer, x = Control(), nn.Linear(2, 2), torch.zeros(1, 2)
    with control.catching_signals(), control.active(ask_in_modules):
        layer(x)
        signal.raise_signal(signal.SIGTERM)
        layer(x)  # it has a second
        control._signal = ("SIGTERM", time.monotonic() - 2)
        with pytest.raises(Interrupted):
            layer(x)
    layer(x)


def test_modules_ask_once_a_deadline_has_passed(monkeypatch):
    monkeypatch.setattr("dgm_bench.control.PATIENCE", 0.0)
    control, layer, x = Control(time_limit=0.05), nn.Linear(2, 2), torch.zeros(1, 2)
    with control.active(ask_in_modules):
        layer(x)
        time.sleep(0.2)
        with pytest.raises(Interrupted, match="time limit"):
            layer(x)


def test_no_handler_of_exceptions_takes_a_stop_for_an_error():
    assert not issubclass(Interrupted, Exception)


def test_a_call_that_cannot_ask_is_waited_for_or_left(monkeypatch):
    with Control().active():
        assert beside(lambda: 1) == 1
        with pytest.raises(ZeroDivisionError):
            beside(lambda: 1 // 0)
    monkeypatch.setattr("dgm_bench.control.PATIENCE", 0.0)
    never = threading.Event()
    with Control(time_limit=0.1).active(), pytest.raises(Interrupted, match="time limit"):
        beside(never.wait)
    never.set()


def test_gradients_by_the_adjoint_equation_are_left_from_within():
    """Autograd hands the stop on from its backward pass."""
    from dgm_bench.models.continuous.ffjord import FFJORD

    model, control = FFJORD((2,), flows=1, hidden=(8,)), Control()
    loss = -model.log_prob(torch.zeros(4, 2)).mean()
    control._signal = ("SIGTERM", time.monotonic() - 2)
    with control.active(), pytest.raises(Interrupted, match="SIGTERM"):
        loss.backward()


def test_a_call_that_was_left_is_not_waited_for_and_breaks_nothing_at_the_end(tmp_path):
    """A thread in the middle of C++ can abort a process that ends in the ordinary way."""
    code = (
        "import time\n"
        "from dgm_bench import control\n"
        "from dgm_bench.control import Control, Interrupted, beside, end_at_once_if_left\n"
        "control.PATIENCE = 0.0\n"
        "try:\n"
        "    with Control(time_limit=0.1).active():\n"
        "        beside(lambda: time.sleep(60))\n"
        "except Interrupted:\n"
        "    print('left')\n"
        "    import atexit; atexit.register(print, 'the ordinary end')\n"
        "    end_at_once_if_left(130)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "left\n"), done.stderr
