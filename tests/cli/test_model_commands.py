"""``sample`` and ``evaluate``: a trained model at the command line."""

import json

import pytest
from kept_models import keep
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import dgm_bench
from dgm_bench.cli import cli

TOY, IMAGES = "ffjord/density/made/8gaussians", "ffjord/density/made/digits"
TABLE = "ffjord/density/made/oracle-8"


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


@pytest.fixture
def command(results, capsys):
    """Runs a verb; returns its exit code, what it printed and what it told."""

    def run(*words, **options):
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--results", str(results), "--device", "cpu"])
        return end.value.code, *capsys.readouterr()

    return run


def test_images_are_drawn_in_a_square_of_whole_dots(results, command):
    record = keep(results, IMAGES)
    code, said, told = command("sample", IMAGES, "-n", "10", "-o", "grid.png")
    assert (code, told) == (0, "")
    assert said == f"grid.png: 10 samples of {IMAGES}, run {record.run_id}\n"
    side = 4 * 8 + 3  # dots of four images and the gaps between them
    with Image.open("grid.png") as picture:
        width, height = picture.size
        assert width // side == height // (3 * 8 + 2) > 1
        assert (width % side, height % (3 * 8 + 2)) == (0, 0)
        assert len(picture.convert("L").getcolors()) > 10


def test_points_of_the_plane_are_drawn_and_the_name_is_of_the_cell(results, command):
    keep(results, TOY)
    assert command("sample", TOY, "-n", "50")[0] == 0
    with Image.open("made-8gaussians.png") as picture:
        assert isinstance(picture, PngImageFile)


@pytest.mark.parametrize(("cell", "words"), [(TABLE, ()), (TOY, ("-o", "made-oracle-8.csv"))])
def test_numbers_are_those_of_the_library(results, command, tmp_path, cell, words):
    keep(results, cell)
    assert command("sample", cell, "-n", "7", "--seed", "3", *words)[0] == 0
    names, *lines = (tmp_path / "made-oracle-8.csv").read_text().splitlines()
    model = dgm_bench.load(cell, results=results, stored="none", data_root=tmp_path)
    drawn = model.sample(7, seed=3)
    assert names.split(",") == [f"x{place + 1}" for place in range(drawn.shape[1])]
    assert [[float(text) for text in line.split(",")] for line in lines] == drawn.tolist()


@pytest.mark.parametrize(
    ("cell", "file", "remedy"),
    [(TABLE, "x.png", "use .csv: 8 dimensions"), (TOY, "x.gif", "use .csv, .png, .pdf or .svg")],
)
def test_what_cannot_be_drawn_is_told_before_anything_is(results, command, cell, file, remedy):
    keep(results, cell)
    code, said, told = command("sample", cell, "-o", file)
    assert (code, said) == (2, "")
    assert told.endswith(f"{remedy}\n")


def test_without_a_model_the_command_that_makes_one_is_told(command):
    for verb in ("sample", "evaluate"):
        code, said, told = command(verb, TOY)
        assert (code, said) == (2, "")
        assert told == f"error: {TOY}: was not run here; dgm-bench run {TOY} --budget none\n"


def test_the_numbers_stand_beside_the_records(results, command):
    record = keep(results, IMAGES, metrics=("nll",))
    code, said, told = command("evaluate", IMAGES)
    assert (code, told) == (0, "")
    assert said.startswith(f"{IMAGES}, run {record.run_id}, seed 0, on cpu\n")
    assert said.count("equal to the bit") == len(record.metrics) == 2
    shown = json.loads(command("evaluate", IMAGES, "--json")[1])
    assert shown["run"] == record.run_id
    for metric, line in zip(record.metrics, shown["metrics"], strict=True):
        assert (line["name"], line["value"], line["record"]) == (
            metric.name, metric.value, metric.value
        )  # fmt: skip


def test_other_weights_give_another_number_and_the_difference(results, command, tmp_path):
    record = keep(results, IMAGES, metrics=("nll",))
    other = keep(tmp_path / "other", IMAGES, scale_of_noise=0.1)
    file = other.weights_file(tmp_path / "other")
    shown = json.loads(command("evaluate", IMAGES, "--weights", str(file), "--json")[1])
    first = shown["metrics"][0]
    assert first["record"] == record.metric("nll").value != first["value"]
    said = command("evaluate", IMAGES, "--weights", str(file))[1]
    assert f"{first['value'] - first['record']:+.1e}" in said


def test_a_cell_of_data_fetch_is_its_models_weights(results, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DGM_BENCH_RESULTS", str(results))
    record = keep(results, TOY)
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "fetch", TOY, "--data-root", str(tmp_path)])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{TOY}: {record.weights_file(results)}\n"


def test_a_model_that_is_here_is_told_with_the_command_that_draws_from_it(results, capsys):
    record = keep(results, TOY)
    drawing = f"dgm-bench sample {TOY} -o samples.png"
    for told in (True, False):
        with pytest.raises(SystemExit):
            cli.main(["show", TOY, "--results", str(results)])
        assert (drawing in capsys.readouterr().out) is told
        record.weights_file(results).unlink(missing_ok=True)


def test_without_results_of_ones_own_the_stored_model_is_taken(tmp_path, monkeypatch, capsys):
    keep(tmp_path / "stored", TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DGM_BENCH_STORED", str(tmp_path / "stored"))
    with pytest.raises(SystemExit) as end:
        cli.main(["sample", TOY, "-n", "3", "-o", "x.csv"])
    assert (end.value.code, capsys.readouterr().err) == (0, "")
    assert not (tmp_path / "dgm-results").exists()
