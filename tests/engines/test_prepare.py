"""Data is fetched and decoded once, before any job of a cluster needs it."""

import time
from types import SimpleNamespace

import pytest
from factories import make_context

from dgm_bench import data
from dgm_bench.catalog import load_catalog
from dgm_bench.control import Control
from dgm_bench.engines.prepare import prepare
from dgm_bench.errors import DataUnavailable
from dgm_bench.events import Reporter
from dgm_bench.planner import Machine, Plan, PlannedRun


class Told(Reporter):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares a plan; returns what was fetched and loaded, and what was told."""
    asked, reporter = [], Told()
    monkeypatch.setattr(data, "fetch", lambda name, *_, **__: asked.append(("fetch", name)))
    monkeypatch.setattr(data, "load", lambda name, *_, **__: asked.append(("load", name)))

    def prepare_for(*cells, **changes):
        found = [load_catalog().select(name)[0] for name in cells]
        runs = [PlannedRun(c, (c.id,), seed, c.recipe, runs=True) for c in found for seed in (0, 1)]
        context = make_context(tmp_path, reporter=reporter, **changes)
        prepare(Plan(tuple(runs), None, Machine.here("cpu")), context)
        return asked, reporter.texts

    return prepare_for


MNIST, OTHER = "ffjord/density/made/mnist", "ffjord/density/gaussian/mnist"


def test_missing_data_is_fetched_once_for_all_runs(prepared, tmp_path):
    asked, told = prepared(MNIST, OTHER, "ffjord/density/made/moons")
    assert asked == [("fetch", "mnist")]
    assert told == [f"fetching mnist to {tmp_path}/data, for all jobs"]


def test_nothing_is_fetched_offline(prepared):
    assert prepared(MNIST, offline=True)[0] == []


def test_once_it_is_time_to_stop_the_rest_is_left(prepared, monkeypatch):
    control = Control(0.0)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: time.sleep(5))
    with control.active():
        assert prepared(MNIST)[0] == []


def test_images_that_are_here_are_decoded_once(prepared, monkeypatch):
    monkeypatch.setattr(data, "state", lambda *_: SimpleNamespace(status="here"))
    assert prepared("vqvae2/diversity/real/cas-top1")[0] == [("load", "imagenet-256")]


def test_what_cannot_be_got_is_told_and_ends_nothing(prepared, monkeypatch):
    def nothing(name, *_, **__):
        raise DataUnavailable(name, "no network", "get it by hand")

    monkeypatch.setattr(data, "fetch", nothing)
    assert prepared(MNIST)[1][-1] == "mnist: no network"
