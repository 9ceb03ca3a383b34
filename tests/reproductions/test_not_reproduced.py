"""Each paper's README says of every number that is not reproduced what was tried."""

import re
from pathlib import Path

import evidence
import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## What is not reproduced"
#: Verdicts that a reader wants explained; the others say that it holds, or that nothing ran.
OPEN = {"worse", "better", "inconclusive", "unfinished", "not-comparable", "failed"}


def section(paper):
    """The part of a README below the heading; empty where there is none."""
    text = (ROOT / "reproductions" / paper / "README.md").read_text(encoding="utf-8")
    return text.partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("paper", [paper.id for paper in evidence.catalog().papers])
def test_every_number_that_is_not_reproduced_is_discussed_and_no_other(paper):
    cells = (cell for table in evidence.catalog().tables for cell in table.cells)
    published = {cell.id for cell in cells if cell.paper == paper and cell.published}
    verdicts = evidence.verdicts()
    named = set(re.findall(r"`([a-z0-9./-]+)`", section(paper))) & published
    assert named == {cell for cell in published if verdicts[cell].state in OPEN}
