"""BibTeX: what is read is what is written, and what BibTeX would stumble over is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgm_bench.bibtex import REQUIRED, parse
from dgm_bench.errors import DeclarationError

GOOD = '@misc{key,\n  author = {A{\\"a} and {The B}},\n  title = {T {N} of 2},\n  year = 2019\n}'

words = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="{}@"))
values = st.recursive(words, lambda inner: inner.map("{{{}}}".format), max_leaves=4)


@given(st.dictionaries(st.from_regex(r"[a-z]{2,8}", fullmatch=True), values, max_size=5))
def test_what_is_written_is_read(fields):
    wanted = {**fields, "author": "A", "title": "T"}
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in wanted.items())
    (entry,) = parse(f"a comment\n@MISC{{a-b:c.1,\n{body}}}\n", "x.bib")
    assert (entry.kind, entry.key, entry.fields) == ("misc", "a-b:c.1", wanted)
    assert parse(entry.text, "x.bib") == [entry]


def test_several_entries_come_in_order_and_an_address_is_arxivs_where_it_is_there():
    second = GOOD.replace("key", "other").replace("year = 2019", "eprint = {1810.01367}")
    third = GOOD.replace("key", "third").replace("year = 2019", "url = {https://x.org/a}")
    found = parse(f"{GOOD}\n% words between\n{second}\n{third}", "x.bib")
    assert [entry.key for entry in found] == ["key", "other", "third"]
    assert found[0].fields["year"] == "2019"
    assert [entry.url for entry in found] == ["", "https://arxiv.org/abs/1810.01367",
                                              "https://x.org/a"]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (GOOD[-2:], "", "x.bib:4: broken BibTeX: key: no comma behind year"),
        ("of 2}", "of {2", "a brace is not closed"),
        ("{The B}},", "{The B}}", "key: no comma behind author"),
        ("title", "author", "key has author twice"),
        ("@misc", "@article", "key has no journal"),
        ("@misc", "@software", "unknown type @software"),
        ("= 2019", "= MMXIX", "a number, or a value in braces"),
        ('{\\"a}', "ä", "is not in ASCII"),
        ("{key,", "{2key,", "not @type{key,"),
        (GOOD, f"{GOOD}\n{GOOD.replace('key', 'KEY')}", "KEY comes twice"),
        (GOOD, GOOD.replace("title = {T {N} of 2}", "title = {}"), "key has no title"),
    ],
)
def test_what_bibtex_would_stumble_over_is_told(old, new, told):
    with pytest.raises(DeclarationError) as error:
        parse(GOOD.replace(old, new, 1), "x.bib")
    assert told in str(error.value)


def test_the_required_fields_are_those_of_the_standard_styles():
    """As the documentation of BibTeX has them; of a misc it requires none."""
    assert set(REQUIRED["inproceedings"]) == {"author", "title", "booktitle", "year"}
    assert set(REQUIRED["techreport"]) == {"author", "title", "institution", "year"}
