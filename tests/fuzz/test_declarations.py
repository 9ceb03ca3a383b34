"""Papers' declarations, damaged or hostile: an error of the file in one line, or a paper."""

from fuzz.harness import Target

from dgm_bench.declarations import load_paper

PAPER = """\
id = "toy"
title = "A toy"
authors = "Nobody"
year = 2020
url = "https://example.org"
bibtex = "@misc{toy}"

[[sources]]
id = "here"
citation = "Nobody, 2020"
where = "Table 1"
pm_kind = "sd_runs"
selection = "none stated"

[[tables]]
id = "first"
title = "First"
where = "Table 1"
metric = "nll"
direction = "lower"
columns = [{ id = "power", title = "POWER", data = "power", unit = "nats" }]
rows = [{ id = "deep", title = "Deep", recipe = "deep", args = { layers = 3, lr = 1e-3 } }]
cells = [{ row = "deep", column = "power", value = -1.50, pm = 0.10, source = "here" }]
"""
RECIPES = """\
from dgm_bench.spec import DataSpec, ModelSpec, OptimizerSpec, Recipe, Stage, StoppingSpec


def deep(data, layers, lr):
    stage = Stage(
        data=DataSpec(name=data),
        model=ModelSpec(name="maf:MAF", args={"layers": layers}),
        optimizer=OptimizerSpec(lr=float(lr)),
        batch_size=10,
        stopping=StoppingSpec(max_steps=1),
    )
    return Recipe(name="deep", stages=(stage,))
"""


def write(path):
    path.parent.mkdir()
    path.write_text(PAPER)
    path.with_name("recipes.py").write_text(RECIPES)


TARGET = Target("toml", write, lambda path: load_paper(path.parent), filename="toy/paper.toml")


def test_damaged_declarations_are_refused_or_read(try_damaged):
    try_damaged(TARGET)
