"""Real commands hurt for a short while; ``python tests/engines/faults.py`` does so at length."""

import os
import random

import pytest
from engines.fault_world import World
from engines.faults import LOCAL, hurt

pytestmark = pytest.mark.skipif(
    "DGM_BENCH_ENGINES" not in os.environ, reason="takes minutes: tox -e engines"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("faults"), LOCAL, steps=30)
    made.make_reference()
    return made


@pytest.mark.parametrize(
    ("kind", "least", "options"),
    [("worker_killed", 2, {"kills": 2}), ("head_killed", 1, {}), ("cancelled", 1, {})],
)
def test_what_is_hurt_ends_as_if_nothing_had_happened(world, kind, least, options):
    ((_, hits, _, problems, _),) = hurt(world, [[kind]], random.Random(0), **options)
    assert problems == []
    assert hits.total() >= least
