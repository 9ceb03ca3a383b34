"""``gan/images``: the published numbers, whose they are, and what is measured beside them."""

import pytest

from dgm_bench.catalog import load_catalog

PAPER = load_catalog().paper("gan")
(TABLE,) = PAPER.tables
CELLS = {(cell.row.id, cell.column.id): cell for cell in TABLE.cells}
#: FID and Inception score as printed, by row and column.
PUBLISHED = {
    ("sngan", "imagenet-128"): ("27.62", "36.8"),
    ("sagan", "imagenet-128"): ("18.65", "52.52"),
    ("sagan-ablation", "imagenet-128"): ("18.28", None),
    ("biggan-either", "imagenet-128"): ("7.4", "166.5"),
    ("biggan-deep", "imagenet-128"): ("6.02", None),
    ("biggan-deep", "imagenet-256"): ("6.95", "171.4"),
    ("biggan-hub", "imagenet-256"): ("7.53", "168.6"),
    ("biggan-deep-hub", "imagenet-256"): ("6.84", "203.6"),
    ("biggan-deep", "imagenet-512"): ("8.43", "177.90"),
    ("biggan", "cifar10-inception"): ("9.59", "9.06"),
    ("progan", "cifar10-inception"): (None, "8.80"),
    ("progan", "ffhq-1024"): ("8.04", None),
    ("stylegan", "ffhq-1024"): ("4.40", None),
    ("progan", "celeba-hq-1024"): ("7.79", None),
    ("stylegan", "celeba-hq-1024"): ("5.17", None),
}


@pytest.mark.parametrize(
    ("place", "printed"), PUBLISHED.items(), ids=lambda x: "-".join(map(str, x))
)
def test_the_published_numbers_are_as_printed(place, printed):
    row, data = place
    for score, value in zip(("fid", "isc"), printed, strict=True):
        cell = CELLS.get((row, f"{data}-{score}"))
        published = cell.published if cell is not None else None
        assert (published and str(published.value)) == value


def test_there_are_no_others_but_precision_and_recall_of_one_evaluation():
    others = {
        key for key, cell in CELLS.items() if cell.published and key[1][-3:] not in ("fid", "isc")
    }
    assert {row for row, _ in others} == {"biggan-deep"}
    assert {CELLS[key].published.source for key in others} == {"adm"}
    count = sum(value is not None for printed in PUBLISHED.values() for value in printed)
    assert sum(bool(cell.published) for cell in TABLE.cells) == count + len(others)


def test_every_source_is_used_and_names_network_and_selection():
    used = {cell.published.source for cell in TABLE.cells if cell.published}
    assert used == {source.id for source in PAPER.sources}
    for source in PAPER.sources:
        assert "Inception v3" in source.note
        assert source.selection
        assert source.cites


def test_published_columns_are_compared_by_the_published_network():
    for cell in TABLE.cells:
        if cell.published:
            assert cell.column.published
            assert cell.row.published
            assert cell.column.metric.startswith("inception-v3-compat-")
            if cell.recipe:
                assert cell.recipe.evaluation.judge.features == ("inception-v3-compat",)


def test_games_are_scored_at_several_truncations_on_small_images():
    """All but ProGAN's, whose noise is of length one: nearer to the centre it is the same."""
    for cell in TABLE.cells:
        if cell.recipe and cell.column.data.endswith("-labelled"):
            truncations = cell.recipe.evaluation.judge.truncations
            assert (len(set(truncations)) >= 3) == (cell.row.id != "progan")
            assert list(truncations) == sorted(truncations, reverse=True)
