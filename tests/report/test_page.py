"""The page, from small hand-made declarations and records."""

import base64
import csv
import io
import json
import math
import re
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import (
    make_cell,
    make_column,
    make_metric,
    make_published,
    make_record,
    make_table,
)
from PIL import Image

from dgm_bench import report
from dgm_bench.records import write_record
from dgm_bench.report.page import write_report
from dgm_bench.report.page_curves import published_level, some_rows
from dgm_bench.report.page_data import on_printed_scale
from dgm_bench.report.page_pictures import pictures_of, small
from dgm_bench.report.page_tables import by_importance, parts_of
from dgm_bench.spec import Erratum, Paper, Source
from dgm_bench.store import Store
from dgm_bench.wording import STATES

SOURCE_URL = "https://arxiv.org/abs/1705.07057"
ERRATUM = Erratum(id="e", cells=("x",), text="Copied <wrongly> & unsaid.", source="a paper")
CELLS = [
    make_cell("maf", "power", published=make_published("-0.24"), errata=(ERRATUM,)),
    make_cell("made", "power", published=make_published("3.08", note="one run"), same_as="maf-5"),
    make_cell("tan", "power", published=make_published("-0.48"), recipe=None),
    make_cell("maf", "oracle-6"),
    make_cell("made", "oracle-6"),
]
TABLE = make_table(CELLS)


def curve_rows(steps=20, start=-0.24):
    return [
        {
            "step": 100.0 * i,
            "epoch": i / 2,
            "seconds": 3.0 * i,
            "train_loss": math.nan if i == 1 else start + 1 / i,
            "validation": start + 1.1 / i,
            "lr": 1e-3 if i < 10 else 1e-4,
            "function_evaluations": math.nan,
        }
        for i in range(1, steps + 1)
    ]


# --------------------------------------------------------------------------- page


PAPER = Paper(
    id="ffjord",
    title="Free-form <flows>",
    authors="A. Author",
    year=2019,
    url="https://arxiv.org/abs/1810.01367",
    bibtex="@inproceedings{x, url={https://arxiv.org/abs/1810.01367}}",
    sources=(
        Source(
            id="maf-paper",
            citation="Papamakarios (2017)",
            where="Table 1",
            url=SOURCE_URL,
            pm_kind="two_se_test",
            selection="best",
        ),
    ),
    tables=(TABLE.model_copy(update={"columns": (
        make_column("power"), make_column("oracle-6", published=False))}),),
)  # fmt: skip
#: Elements that end where the next begins, or the one around them.
IMPLIED = {"dt", "dd", "p", "td", "th", "tr"}
VOID = {"meta", "img", "input", "br", "link"}


class Checker(HTMLParser):
    """Follows the tags of a page, and collects ids, links and what is loaded."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.loaded = [], [], [], []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named["href"]] if tag == "a" else []
        self.loaded += [named[key] for key in ("src", "srcset", "data") if key in named]
        self.loaded += [named["href"]] if tag == "link" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        while (last := self.open.pop()) != tag:
            assert last in IMPLIED


PICTURE = b"\x89PNG picture"


@pytest.fixture
def page(tmp_path):
    """The page of a small store, as text."""
    results = tmp_path / "results"
    for seed in range(3):
        files = {"curve": f"c{seed}.csv", "artifacts": {"samples.png": sha256(PICTURE).hexdigest()}}
        record = make_record(CELLS[0], value=-0.23 - 0.001 * seed, seed=seed, **files)
        path = write_record(record, results)
        with path.with_name(f"c{seed}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(curve_rows()[0]))
            writer.writeheader()
            writer.writerows(
                {k: "" if math.isnan(v) else v for k, v in row.items()} for row in curve_rows()
            )
    picture = results / "artifacts" / record.run_id / "samples.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(PICTURE)
    write_record(make_record(CELLS[1], value=None, status="diverged", metrics=()), results)
    gaps = (make_metric(8.05), make_metric(0.05, name="gap", se=0.01))
    write_record(make_record(CELLS[3], metrics=gaps), results)
    target = tmp_path / "page.html"
    write_report(target, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(results))
    return target.read_text()


def told(page):
    """What the page tells when it is asked to."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def without(page, *addresses):
    for address in addresses:
        page = page.replace(address, "")
    return page


def test_the_page_is_well_formed_and_loads_nothing(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    inner = {link[1:] for link in checker.links if link.startswith("#")}
    assert inner <= set(checker.ids)
    outer = {link for link in checker.links if not link.startswith("#")}
    assert outer == {PAPER.url, PAPER.sources[0].url}
    assert checker.loaded == []
    bare = without(page, PAPER.url, PAPER.sources[0].url)
    assert not re.search(r"https?://|@import|\burl\((?!#)|\bfetch\(|XMLHttpRequest|import\(", bare)


def test_the_tables_are_there_without_a_script(page):
    body = page[: page.index("<script")]
    for cell in CELLS:
        assert f'id="{cell.id}" href="#{cell.id}"' in body
    fields = r"<i>-0.24 ±0.01<sup>e</sup></i><b>-0.231\d* ±0.001\d*</b><em>(\w+)</em>"
    assert re.search(fields, body)[1] in STATES
    assert "Columns of ours" in body


def test_the_page_says_everything_about_every_cell(page):
    data = told(page)
    assert set(data["cells"]) == {cell.id for cell in CELLS}
    maf, made, tan = (data["cells"][cell.id] for cell in CELLS[:3])
    texts = data["texts"]
    assert maf["published"] == "-0.24 ±0.01"
    assert maf["command"] == 1  # no more than the name of the cell
    assert "command" not in tan
    assert texts[maf["error"]] == "two standard errors over the test points of one model"
    assert [texts[n] for n in maf["source"]] == ["Papamakarios (2017), Table 1", SOURCE_URL]
    name, settings = data["recipes"][maf["recipe"]]
    assert name == "maf-power"
    assert "optimizer.lr: 0.0001" in [texts[n] for n in settings]
    assert [texts[n] for pair in maf["errata"] for n in pair] == [ERRATUM.text, ERRATUM.source]
    notes = [texts[n] for n in made["notes"]]
    assert {"one run.", "Reproduced by the recipe of row maf-5."} <= set(notes)
    where = [texts[n] for n in data["runs"][maf["runs"][0][0]]["where"]]
    assert any(text.startswith("commit: ") for text in where)


def test_a_verdict_is_drawn_on_the_printed_scale(page):
    scale = told(page)["cells"][CELLS[0].id]["scale"]
    assert (scale["published"], scale["pm"]) == (-0.24, 0.01)
    assert sorted(scale["seeds"]) == [-0.232, -0.231, -0.23]
    low, high = scale["interval"]
    assert low < scale["measured"] == -0.231 < high
    assert scale["measured"] - low == pytest.approx(high - scale["measured"])
    assert scale["margin"] > 0


@pytest.mark.parametrize(("direction", "interval"), [("lower", [1.9, 2.5]), ("higher", [1.5, 2.1])])
def test_an_interval_of_better_and_worse_is_turned_back(direction, interval):
    column = make_column("power", direction=direction)
    cell = make_cell("maf", column, published=make_published("2.0"))
    assert on_printed_scale(cell, (-0.5, 0.1)) == pytest.approx(interval)


def test_each_run_has_its_curve_its_pictures_and_its_numbers(page):
    data = told(page)
    cell = data["cells"][CELLS[0].id]
    runs = [data["runs"][number] for number, *_ in cell["runs"]]
    assert sorted(run["seed"] for run in runs) == [0, 1, 2]
    for run in runs:
        (curve,) = run["curves"]
        assert curve["of"] == "nll (nats per example)"
        assert curve["steps"][-1] == 2000
        assert curve["training"][0] is None
        assert run["drops"] == [1000]
    assert [len(run.get("pictures", ())) for run in sorted(runs, key=lambda r: r["seed"])] == [
        0,
        0,
        1,
    ]
    assert cell["level"] == -0.24
    assert "level" not in data["cells"][CELLS[3].id]
    assert [number for number, *_ in cell["runs"]] != []
    assert len(data["newest"]) == len(data["runs"]) == 5


def test_a_published_number_in_bits_per_dimension_has_its_place_among_nats():
    """Of MNIST, 784 pixels: bits = nats / (784 ln 2) + c. The MAF paper prints MADE in both."""
    column = make_column("mnist", unit="bits/dim")
    cell = make_cell("made", column, published=make_published("2.04"))
    nats, slope = 1384.78, 784 * math.log(2)
    metrics = (
        make_metric(2.046014, se=2.0 / slope, unit="bits/dim"),
        make_metric(nats, se=2.0, name="nll_nats"),
    )
    found = published_level(cell, make_record(cell, metrics=metrics))
    assert found == pytest.approx(nats - 0.006014 * slope, abs=0.1)
    assert found == pytest.approx(1380.8, abs=2.0)
    assert published_level(cell, make_record(cell, metrics=metrics[:1])) is None
    other = make_cell("made", make_column("mnist", metric="elbo"), published=make_published("2.04"))
    assert published_level(other, make_record(other, metrics=metrics)) is None


def test_a_part_of_the_page_has_its_cells_and_runs_alone(tmp_path, page):
    target = tmp_path / "part.html"
    store, chosen = Store(tmp_path / "results"), {CELLS[0].id, CELLS[2].id}
    catalog = SimpleNamespace(papers=(PAPER,))
    write_report(target, catalog=catalog, store=store, chosen=chosen)
    part = told(target.read_text())
    assert set(part["cells"]) == chosen
    assert len(part["runs"]) == 3
    whole = told(page)["cells"][CELLS[0].id]
    assert part["cells"][CELLS[0].id]["scale"] == whole["scale"]
    assert "ORACLE-6" not in target.read_text()
    assert "A part: 2 of 5 cells." in target.read_text()


def test_a_part_has_the_verdicts_of_the_whole(tmp_path):
    """Half the distance to the neighbouring row is a margin's bound, whether it is shown or not."""
    near = make_cell("near", "power", published=make_published("-0.238"))
    paper = PAPER.model_copy(update={"tables": (make_table([CELLS[0], near]),)})
    for seed in range(3):
        write_record(make_record(CELLS[0], value=-0.23 - 0.001 * seed, seed=seed), tmp_path)
    catalog, target = SimpleNamespace(papers=(paper,)), tmp_path / "page.html"
    margins = []
    for chosen in (None, {CELLS[0].id}):
        write_report(target, catalog=catalog, store=Store(tmp_path), chosen=chosen)
        margins.append(told(target.read_text())["cells"][CELLS[0].id]["scale"]["margin"])
    assert margins == [0.001, 0.001]


def test_yours_are_told_from_those_that_came_with_the_suite(tmp_path):
    for seed, value in enumerate((-0.2, -0.21)):
        write_record(make_record(CELLS[0], value=value, seed=seed), tmp_path / "stored")
        write_record(make_record(CELLS[0], value=value - 9, seed=seed + 2), tmp_path / "own")
    write_record(make_record(CELLS[3]), tmp_path / "own")
    target, catalog = tmp_path / "page.html", SimpleNamespace(papers=(PAPER,))
    write_report(target, catalog=catalog, store=Store(tmp_path / "own", tmp_path / "stored"))
    page = target.read_text()
    assert "5 runs, 3 of them yours" in page
    marked = re.findall(r'<a id="([^"]*)"[^>]*>(?:(?!</a>).)*<u>([^<]*)</u></a>', page)
    assert marked == [(CELLS[0].id, "yours: better"), (CELLS[3].id, "yours")]
    data = told(page)
    cell = data["cells"][CELLS[0].id]
    assert (cell["yours"].split()[0], cell["stored"].split()[0]) == ("-9.205", "-0.205")
    assert cell["word"] == "better"
    assert [run["seed"] for run in data["runs"] if run.get("own")].count(0) == 1


def test_a_picture_that_was_kept_as_a_figure_is_known_by_its_digest(tmp_path):
    artifacts = {"density.png": sha256(PICTURE).hexdigest()}
    record = make_record(CELLS[0], artifacts=artifacts)
    write_record(record, tmp_path)
    figure = tmp_path / "figures" / "maf.png"
    figure.parent.mkdir()
    figure.write_bytes(PICTURE)
    ((name, address),) = pictures_of(record, Store(tmp_path))
    assert name == "density"
    assert address == "data:image/png;base64," + base64.b64encode(PICTURE).decode()


def test_a_picture_is_small_on_the_page():
    file = io.BytesIO()
    Image.effect_noise((2000, 1000), 60).save(file, "PNG")
    kind, content = small(file.getvalue()).split(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (860, 430)


def test_long_curves_keep_their_ends_and_their_best():
    rows = [{"step": float(i), "validation": abs(i - 123.0)} for i in range(1000)]
    found = some_rows(rows)
    assert len(found) <= 41
    assert [found[0], found[-1]] == [rows[0], rows[-1]]
    assert rows[123] in found
    assert [row["step"] for row in found] == sorted(row["step"] for row in found)


def test_the_paper_with_most_published_numbers_comes_first(tmp_path):
    table = make_table(CELLS[3:]).model_copy(update={"paper": "avb", "id": "elbo"})
    other = PAPER.model_copy(update={"id": "avb", "tables": (table,)})
    assert [paper.id for paper in by_importance((other, PAPER))] == ["ffjord", "avb"]
    catalog, target = SimpleNamespace(papers=(other, PAPER)), tmp_path / "page.html"
    write_report(target, catalog=catalog, store=Store(tmp_path))
    tables = re.findall(r'<section class="card table" id="([^"]*)"', target.read_text())
    assert tables == ["ffjord/density", "avb/elbo"]


def test_a_wide_table_is_several_that_a_sheet_takes():
    data = ["a"] * 5 + ["b"] * 5 + ["c"] * 11
    columns = [make_column(f"{name}{i}", data=name, published=False) for i, name in enumerate(data)]
    cells = [make_cell("maf", column) for column in columns]
    states = {(cell.row.id, cell.column.id): "measured" for cell in cells}
    parts = list(parts_of(make_table(cells), states))
    assert [[c.data for c in part.columns] for part in parts] == [
        ["a"] * 5, ["b"] * 5, ["c"] * 8, ["c"] * 3]  # fmt: skip
    idle = dict.fromkeys(states, "not-run") | {("maf", "a0"): "measured"}
    shown = [(part.folded, len(part.columns)) for part in parts_of(make_table(cells), idle)]
    assert shown == [(False, 1), (True, 4), (True, 5), (True, 8), (True, 3)]


def test_texts_are_escaped(page):
    assert "Copied \\u003cwrongly> & unsaid." in page
    assert "<wrongly>" not in page
    assert "Free-form &lt;flows&gt;" in page


def test_an_empty_store_makes_a_page_that_says_how_to_start(tmp_path):
    target = tmp_path / "page.html"
    write_report(target, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(tmp_path))
    assert "No run is stored yet" in target.read_text()


def test_no_module_of_the_report_needs_torch_mlflow_or_a_model():
    files = sorted(Path(report.__file__).parent.glob("*.py"))
    names = [f"dgm_bench.report.{file.stem}" for file in files if file.stem != "__init__"]
    assert "dgm_bench.report.page" in names
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names}]\n"
        "heavy = {'torch', 'mlflow', 'matplotlib', 'dgm_bench.models', 'dgm_bench.pictures'}\n"
        "print(heavy & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
