import pytest
from engines.fake_engine import Heard
from factories import make_context

from dgm_bench.control import Control
from dgm_bench.engines import head


@pytest.fixture
def quick(monkeypatch):
    """Let a command look at its tasks whenever it can."""
    monkeypatch.setattr(head, "LOOK", 0.0)
    monkeypatch.setattr(head, "LOOK_OF_THOUSAND", 0.0)
    monkeypatch.setattr(head, "BEAT", -1.0)


@pytest.fixture
def context(tmp_path):
    """A command whose reporter keeps what it hears, and that logs."""
    return make_context(tmp_path, reporter=Heard(), track=True, control=Control())
