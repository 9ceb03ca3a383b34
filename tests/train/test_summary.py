"""What the stages of a run leave in its record."""

import pytest
from factories import make_stage

from dgm_bench.spec import ModelSpec
from dgm_bench.train.summary import scale_of


@pytest.mark.parametrize(("examples", "batch"), [(30, 30), (100, 100), (3_000, 100)])
def test_no_batch_is_larger_than_the_training_set(examples, batch):
    stage = make_stage(ModelSpec(name="nice:NICE"), batch_size=100)
    assert scale_of(stage, [], examples).global_batch == batch
