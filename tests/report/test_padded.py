"""Padded tables, against rich's."""

import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from dgm_bench.report import grid, padded
from dgm_bench.report.grid import Entry, Heading, Line, Section

TEXTS = st.text("abc 1±₁▲漢é-", max_size=6).map(str.strip)
STYLES = st.sampled_from(["", "green", "bold red", "dim"])
ENTRIES = st.lists(st.builds(Line, TEXTS, STYLES, st.booleans()), max_size=3).map(
    lambda lines: Entry(tuple(lines))
)
HEADINGS = st.builds(
    Heading, st.lists(TEXTS, min_size=1, max_size=2).map(tuple), right=st.booleans()
)


@st.composite
def sections(draw):
    headings = draw(st.lists(HEADINGS, min_size=1, max_size=4))
    row = st.tuples(*[ENTRIES] * len(headings))
    return Section("", tuple(headings), tuple(draw(st.lists(row, max_size=4))))


def bare(text):
    """The lines without styles, and without the blanks at their ends."""
    plain = re.sub("\x1b\\[[0-9;]*m", "", text)
    return [line.rstrip() for line in plain.rstrip().splitlines()]


@settings(max_examples=60, deadline=None)
@given(sections(), st.integers(1, 60), st.booleans())
def test_a_table_that_fits_looks_as_rich_draws_it(section, width, colour):
    lines = section.padded(width)
    assume(lines is not None)
    drawn = grid._table_text(section, width, colour)
    assert bare(drawn) == bare(grid._rich_text(grid._rich_table(section), width, colour))


def test_what_does_not_fit_is_folded():
    section = Section("", (Heading(("name",)),), ((Entry.of("a long text"),),))
    assert section.padded(11) is not None
    assert section.padded(10) is None
    assert "a long text" not in grid._table_text(section, 10, False)
    assert Section("", (Heading(("name",)),), ((Entry.of("two\nlines"),),)).padded(80) is None


def test_styles_are_those_of_the_lines():
    entry = Entry((Line("worse", "red", bold=True), Line("bare")))
    text = grid._table_text(Section("", (Heading(("name",)),), ((entry,),)), 80, True)
    assert "\x1b[1;31mworse\x1b[0m" in text
    assert "\x1b[1mname\x1b[0m" in text
    assert "\nbare" in text


def test_what_counts_as_narrow_has_one_column_in_rich():
    narrow = [c for c in map(chr, range(0x10000)) if padded._NARROW.fullmatch(c)]
    assert len(narrow) > 700
    assert not [c for c in narrow if cell_len(c) != 1]
    assert not padded._NARROW.fullmatch("漢")
