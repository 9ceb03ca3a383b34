"""Importance-weighted autoencoders: a second transcription of the table, and the schedule."""

import pytest

from dgm_bench.catalog import load_catalog
from dgm_bench.train.schedule import Schedule

# Burda et al., Table 1, as printed: negative log-likelihood and active units.
TABLE = """
1 1   VAE 86.76 19   108.11 28    IWAE 86.76 19   108.11 28
1 5   VAE 86.47 20   107.62 28    IWAE 85.54 22   106.12 34
1 50  VAE 86.35 20   107.80 28    IWAE 84.78 25   104.67 41
2 1   VAE 85.33 16+5 107.58 28+4  IWAE 85.33 16+5 107.56 30+5
2 5   VAE 85.01 17+5 106.31 30+5  IWAE 83.89 21+5 104.79 38+6
2 50  VAE 84.78 17+5 106.30 30+5  IWAE 82.90 26+7 103.38 44+7
"""
CELLS = {cell.id.removeprefix("iwae/likelihood/"): cell for cell in load_catalog().select("iwae/*")}


def printed():
    for line in TABLE.strip().splitlines():
        layers, k, *rest = line.split()
        for start in (0, 5):
            row = f"{rest[start].lower()}-{layers}-{k}"
            for data, at in (("mnist", 1), ("omniglot", 3)):
                nll, units = rest[start + at : start + at + 2]
                yield f"{row}/{data}-nll", nll
                for layer, count in enumerate(units.split("+"), 1):
                    yield f"{row}/{data}-active-{layer}", count


def test_the_numbers_are_as_printed():
    found = {key: str(cell.published.value) for key, cell in CELLS.items() if cell.published}
    assert found == dict(printed())
    assert len(found) == 24 + 24 + 12


@pytest.mark.parametrize(("data", "images"), [("mnist", 60_000), ("omniglot", 24_345)])
def test_phases_of_three_to_the_i_epochs_with_falling_rates(data, images):
    stage = CELLS[f"iwae-1-50/{data}-nll"].recipe.stages[0]
    schedule, steps = Schedule(stage.schedule, stage.optimizer.lr), images // 20
    assert stage.stopping.max_epochs == 3_280 == sum(3**i for i in range(8))
    assert stage.stopping.patience is None
    assert stage.batch_size == 20
    assert (stage.optimizer.betas, stage.optimizer.eps) == ((0.9, 0.999), 1e-4)
    before = 0
    for i in range(8):
        rate, last = 1e-3 * 10 ** (-i / 7), before + 3**i
        for step in (steps * before, steps * last - 1):
            assert schedule.lr(step) == pytest.approx(rate, rel=1e-12)
        before = last


def test_one_sample_is_one_run_of_both_rows():
    for column in ("mnist-nll", "omniglot-active-1"):
        cells = [CELLS[f"{kind}-1-1/{column}"] for kind in ("vae", "iwae")]
        assert cells[0].recipe.content_hash == cells[1].recipe.content_hash
    hashes = {cell.recipe.content_hash for cell in CELLS.values()}
    assert len(hashes) == 3 * 10
