"""The published numbers on priors against a second transcription."""

from dgm_bench.catalog import load_catalog

#: Static MNIST: VLAE's Table 1, and second-hand those of Xu et al. (2019) and of VampPrior.
PRINTED = {
    "iaf-vae": "79.88",
    "af-prior-vae": "79.30",
    "xu-standard": "82.95",
    "xu-flow-posterior": "80.97",
    "xu-flow-prior": "79.99",
    "conv-hvae-vamp": "81.09",
    "pixel-hvae-vamp": "79.78",
}


def test_the_numbers_are_as_printed_and_second_hand_ones_say_so():
    cells = [cell for cell in load_catalog().select("priors/*") if cell.published]
    assert {cell.row.id: str(cell.published.value) for cell in cells} == PRINTED
    assert {cell.column.id for cell in cells} == {"mnist-static-importance-nll"}
    sources = {source.id: source for source in load_catalog().paper("priors").sources}
    told = {cell.row.id for cell in cells if "second-hand" in sources[cell.published.source].note}
    assert told == set(PRINTED) - {"iaf-vae", "af-prior-vae"}
