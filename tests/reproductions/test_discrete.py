"""The tables of discrete latent variables against a second transcription."""

from dgm_bench.catalog import load_catalog

# Jang et al., Table 1, as printed: SF, DARN, MuProp, ST, annealed ST, Gumbel-S., ST Gumbel-S.
JANG = {
    "structured/{}/mnist-bernoulli": "72.0 59.7 58.9 58.9 58.7 58.5 59.3",
    "structured/{}/mnist-categorical": "73.1 67.9 63.0 61.8 61.1 59.0 59.7",
    "gumbel/{}/mnist-bernoulli": "112.2 110.9 109.7 116.0 111.5 105.0 111.5",
    "gumbel/{}/mnist-categorical": "110.6 128.8 107.0 110.9 107.8 101.5 107.8",
}
ROWS = ("sf", "darn", "muprop", "st", "annealed-st", "gumbel", "st-gumbel")

# Maddison et al., Table 1, MNIST test, as printed: Concrete and VIMCO, or NVIL for one sample.
MADDISON = """
linear    1  107.3 104.4
linear    5  104.9 101.9
linear    50 104.3 98.8
nonlinear 1  92.1  93.8
nonlinear 5  89.5  91.4
nonlinear 50 88.5  89.3
"""


def printed():
    for key, numbers in JANG.items():
        yield from zip(map(key.format, ROWS), numbers.split(), strict=True)
    for line in MADDISON.strip().splitlines():
        kind, m, concrete, score = line.split()
        yield f"concrete/{kind}-concrete-{m}/mnist", concrete
        yield f"concrete/{kind}-{'nvil' if m == '1' else 'vimco'}-{m}/mnist", score


def test_the_numbers_are_as_printed():
    cells = {c.id.removeprefix("discrete/"): c for c in load_catalog().select("discrete/*")}
    found = {key: str(cell.published.value) for key, cell in cells.items() if cell.published}
    assert found == dict(printed())


def test_both_readings_of_a_number_are_of_one_run():
    cells = {c.id: c for c in load_catalog().select("discrete/*/gumbel/*")}
    for table, metrics in (("structured", "prediction-nll"), ("gumbel", "importance-nll")):
        one, other = (cells[f"discrete/{table}/gumbel/mnist-bernoulli{end}"]
                      for end in ("", "-importance"))  # fmt: skip
        assert one.recipe == other.recipe
        assert other.metric == metrics != one.metric
