"""Whatever stands in declarations and records, each format shows it as text and nothing else."""

import csv
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from types import SimpleNamespace

import hostile
import pytest
from factories import make_cell, make_column, make_published, make_record, make_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dgm_bench import escaping
from dgm_bench.compare import ComparedRow, Comparison, Side
from dgm_bench.report.comparison import render_comparison
from dgm_bench.report.page import write_report
from dgm_bench.report.plots import comparison_plot, to_svg
from dgm_bench.report.tables import render_table
from dgm_bench.spec import Erratum, Paper, Row, Source
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict

many = settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
NAMES = frozenset(
    {"id", "paper", "table", "direction", "metric", "data", "pm_kind", "split", "recipe", "args",
     "beside", "ranks_like", "reads", "cells"}
)  # fmt: skip
ERRATUM = Erratum(id="e", cells=(), text="a text", source="a source")
MAF, MADE = Row(id="maf", title="MAF", note="n"), Row(id="made", title="MADE", published=False)
CELLS = [
    make_cell(MAF, "power", published=make_published("-0.24", "0.1", note="n"), errata=(ERRATUM,)),
    make_cell(MAF, make_column("gas", note="n"), published=make_published("1", None, "none")),
    make_cell(MADE, make_column("ours", published=False), no_recipe="none", recipe=None),
    make_cell(MADE, "power"),
]
TURNING = ("LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI", "PDF", "PDI")
STATES = ("reproduced", "not-run", "measured", "failed")


@st.composite
def tables(draw):
    """A table whose every text is hostile, and verdicts with hostile reasons."""
    table = make_table(CELLS)
    word = lambda: draw(hostile.texts)  # noqa: E731
    rows = {row.id: hostile.poisoned(row, word, NAMES) for row in table.rows}
    columns = {column.id: hostile.poisoned(column, word, NAMES) for column in table.columns}
    cells = tuple(
        hostile.poisoned(cell, word, NAMES | {"row", "column", "recipe"}).model_copy(
            update={"row": rows[cell.row.id], "column": columns[cell.column.id]}
        )
        for cell in CELLS
    )
    verdicts = {
        cell.id: Verdict(cell.id, state, word(), mean=None if state == "not-run" else -1.5,
                         se_test=0.1, seeds=1, remarks=(word(),))
        for cell, state in zip(cells, STATES, strict=True)
    }  # fmt: skip
    whole = table.model_copy(
        update={"title": word(), "where": word(), "rows": tuple(rows.values()),
                "columns": tuple(columns.values()), "cells": cells}
    )  # fmt: skip
    return whole, verdicts


@st.composite
def comparisons(draw):
    rows = tuple(
        ComparedRow("a/b/c/d", draw(hostile.texts), draw(hostile.texts), state, draw(hostile.texts),
                    Side(), Side(1.0, seeds=1, train_seconds=1.0))
        for state in ("worse", "same")
    )  # fmt: skip
    return Comparison(rows)


def rendered(format):
    """What a table or a comparison is in a format, with its texts."""
    table = tables().map(lambda t: (render_table(*t, format), [row.title for row in t[0].rows]))
    if format in ("latex", "json"):
        return table
    compared = comparisons().map(
        lambda c: (render_comparison(c, format), [row.reason for row in c.rows])
    )
    return st.one_of(table, compared)


def shown(text):
    """A text without what lines and spaces do to it."""
    return "".join(escaping.plain(text).split())


# --------------------------------------------------------------------------- text


@many
@given(rendered("text"))
def test_a_terminal_gets_no_control_character(case):
    text, _ = case
    for character in text:
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Cs"), text
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "LRI",
            "RLI",
        )


@many
@given(st.text())
def test_plain_text_stays_and_what_is_dropped_is_dropped_once(text):
    once = escaping.plain(text)
    assert escaping.plain(once) == once
    once.encode()
    assert visible(once) == visible(text.replace("\u2028", "").replace("\u2029", ""))


def visible(text):
    return "".join(c for c in text if unicodedata.category(c)[0] in "LNPSZM")


# --------------------------------------------------------------------------- CSV


@many
@given(rendered("csv"))
def test_no_cell_of_a_csv_file_is_computed(case):
    rows = list(csv.reader(io.StringIO(case[0], newline="")))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        bare = unicodedata.normalize("NFKC", cell.lstrip())
        assert bare[:1] not in ("=", "+", "-", "@") or re.fullmatch(r"[+-]?[\d.]+(e[+-]\d+)?", bare)


@many
@given(hostile.texts)
def test_a_cell_of_a_csv_file_is_the_text_behind_at_most_an_apostrophe(text):
    file = io.StringIO()
    csv.writer(file).writerow(["first", escaping.csv_cell(text)])
    ((_, cell),) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert escaping.plain(text) in (cell, cell.removeprefix("'"))
    assert escaping.csv_cell(-1.5) == -1.5
    assert escaping.csv_cell("-1.5e-3") == "-1.5e-3"


# --------------------------------------------------------------------------- Markdown

PLAIN_MARKDOWN = {
    "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text",
    "table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close",
    "tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close", "bullet_list_open",
    "bullet_list_close", "list_item_open", "list_item_close", "strong_open", "strong_close",
    "text_special",
}  # fmt: skip
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tokens(text):
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


@many
@given(rendered("markdown"))
def test_markdown_has_no_links_html_code_or_structure_of_a_texts_own(case):
    text, titles = case
    found = list(tokens(text))
    for token in found:
        breaks = token.type == "html_inline" and token.content == "<br>"
        assert token.type in PLAIN_MARKDOWN or breaks, (token.type, token.content)
        assert token.nesting <= 0 or token.level <= 8
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert "table_open" in {token.type for token in PARSER.parse(table)}
    everything = shown("".join(token.content for token in found if token.type.startswith("text")))
    assert all(shown(title) in everything for title in titles)


# --------------------------------------------------------------------------- LaTeX

KNOWN = {
    "\\noindent", "\\textbf", "\\par", "\\medskip", "\\begin", "\\end", "\\toprule", "\\midrule",
    "\\addlinespace", "\\bottomrule", "\\footnotesize", "\\textsuperscript", "\\textbackslash",
    "\\textasciitilde", "\\textasciicircum", "\\textless", "\\textgreater", "\\textbar", "\\pm",
    "\\downarrow", "\\uparrow", "\\surd", "\\times", "\\triangledown", "\\triangle", "\\neq",
    "\\textbullet", "\\to", "\\approx", "\\S", "\\tau",
}  # fmt: skip
ENVIRONMENTS = re.compile(r"\\(begin|end)\{tabular\}(\{[lr]+\})?")
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\$[^$]*\$|.", re.DOTALL)


@many
@given(rendered("latex"))
def test_latex_has_only_our_own_commands_and_its_braces_match(case):
    text, _ = case
    assert len(re.findall(r"\\begin", text)) == len(re.findall(r"\\begin\{tabular\}", text))
    depth = 0
    for token in TOKEN.findall(ENVIRONMENTS.sub("", text)):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
        assert token not in ("#", "%", "_", "^", "~", "$"), text
        if token.startswith("\\") and token[1].isalpha():
            assert token in KNOWN, token
    assert depth == 0
    assert not re.search(r"(?<!\{)[\[\]*]", text)
    for line in text.splitlines():
        if line.endswith(" \\\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == len(re.findall(r" & ", line))


# --------------------------------------------------------------------------- HTML


class Structure(HTMLParser):
    """The tags of a page with the names of their attributes, drawings apart; no texts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.drawn, self.addresses, self.inside = [], set(), [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside |= tag == "svg"
        names = (tag, *sorted(name for name, _ in attrs))
        self.drawn.update(names) if self.inside else self.found.append(names)
        self.addresses += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        self.inside &= tag != "svg"

    def handle_comment(self, data):
        self.found.append("comment")


def page_of(word, folder):
    """A page whose texts are all one word."""
    cell = make_cell(MAF, "power", published=make_published("-0.24", note="n"), errata=(ERRATUM,))
    ours = make_cell(MAF, make_column("oracle-6", published=False, beside="power"))
    source = Source(id="s", citation="c", where="w", pm_kind="none", selection="s", note="n")
    paper = Paper(id="ffjord", title="t", authors="a", year=2018, url="http://x.y", bibtex="b",
                  tables=(make_table([cell, ours]),), sources=(source,))  # fmt: skip
    same = NAMES | {"created", "recipe_hash", "run_id", "status", "name", "supersedes", "published"}
    record = hostile.poisoned(make_record(cell, modified=("m",)), lambda: word, same)
    stored = Store(folder)
    stored.records = lambda: [record]
    stored.for_cell = lambda c: [record] if c.id == cell.id else []
    stored.curve_content = lambda _: b"known"
    stored.curve = lambda _: [dict.fromkeys(CURVE, step) for step in (1.0, 2.0)]
    papers = (hostile.poisoned(paper, lambda: word, NAMES),)
    write_report(folder / "page.html", catalog=SimpleNamespace(papers=papers), store=stored)
    return (folder / "page.html").read_text()


CURVE = ("step", "epoch", "seconds", "train_loss", "validation", "lr", "function_evaluations")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_page_has_no_tags_attributes_or_addresses_of_a_texts_own(tmp_path):
    words = "word", "".join(hostile.PIECES).encode("utf-8", "replace").decode()
    plain, attacked = (Structure(page_of(word, tmp_path)) for word in words)
    assert attacked.found == plain.found
    assert len(plain.found) > 100
    assert attacked.drawn <= plain.drawn | {"clippath", "clip-path"}
    assert not any(name.startswith("on") or name == "script" for name in attacked.drawn)
    assert {a for a in attacked.addresses if not a.startswith("#")} <= {"http://x.y"}


def test_json_is_read_back_as_it_was():
    verdict = Verdict(CELLS[0].id, "failed", "".join(hostile.PIECES))
    text = render_table(make_table(CELLS), {CELLS[0].id: verdict}, "json")
    assert json.loads(text)["cells"][0]["reason"] == verdict.reason


def test_a_formula_that_is_none_is_drawn_as_text():
    row, column = Row(id="r", title=r"a $\frac$ b"), make_column(title=r"$x_$ and $\y$")
    cells = [make_cell(row, column, published=make_published("-0.24"))]
    number = {
        "mean": -0.2,
        "difference": -0.04,
        "delta": 0.1,
        "interval": (-0.1, 0.0),
        "sd": 0.1,
        "se": 0.1,
        "seeds": 2,
    }
    figure = comparison_plot(
        make_table(cells), {cells[0].id: Verdict(cells[0].id, "better", "", **number)}
    )
    svg = to_svg(figure, "figure")
    assert row.title in svg
    assert column.title in svg
