"""The stored tables and the README's judged numbers are those of the stored records."""

import re

import evidence
import pytest
import result_tables

from dgm_bench.spec import YES_NO

REMEDY = "python docs/generate/result_tables.py writes them anew"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
FILES = result_tables.files()


def same(stored, now):
    """Words are equal; so are numbers, but for last digits that another numpy adds up otherwise."""
    assert NUMBER.sub("#", stored) == NUMBER.sub("#", now), REMEDY
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(now), strict=True)
    apart = [(a, b) for a, b in pairs if a != b and float(a) != pytest.approx(float(b), rel=1e-6)]
    assert not apart, REMEDY


def test_every_table_is_there_and_no_other():
    stored = {path.name for path in result_tables.FOLDER.iterdir()}
    assert stored == set(FILES), REMEDY
    assert len(stored) == 2 + 2 * len(evidence.catalog().tables)


@pytest.mark.parametrize("name", list(FILES))
def test_a_stored_table_is_that_of_the_records(name):
    same((result_tables.FOLDER / name).read_text(encoding="utf-8"), FILES[name])


def test_the_readme_has_the_numbers_that_were_judged():
    readme = evidence.README.read_text(encoding="utf-8")
    part = readme.split(result_tables.BEGIN)[1].split(result_tables.END)[0]
    same(part.strip(), result_tables.judged().strip())
    tried = [cell for table in evidence.catalog().tables for cell in table.cells
             if cell.published and not cell.repeats
             and evidence.verdicts()[cell.id].state not in result_tables.UNTRIED]  # fmt: skip
    assert f"have tried {len(tried)}:" in part
    for cell in tried:
        assert (f"`{cell.id}`" in part) != (cell.column.unit == YES_NO)
