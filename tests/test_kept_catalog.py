"""The kept catalogue: the same as reading the declarations, whatever becomes of them or of it."""

import os
import pickle
import random
import time

import pytest
from factories import make_cell, make_recipe
from fuzz.test_declarations import write

from dgm_bench import kept_catalog
from dgm_bench.catalog import default_folder, load_catalog
from dgm_bench.declarations import load_paper
from dgm_bench.sealed import write_sealed
from dgm_bench.spec import Recipe


@pytest.fixture
def declared(tmp_path, monkeypatch):
    """A folder with a paper whose sources are older than this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_catalog, "STARTED", time.time() + 60)
    (tmp_path / "papers").mkdir()
    write(tmp_path / "papers" / "toy" / "paper.toml")
    return tmp_path / "papers"


def read(folder):
    """What is declared, and whether it was read rather than taken from the cache."""
    papers, took = [], []

    def anew():
        took.append(True)
        papers.append(load_paper(folder / "toy"))
        return tuple(papers)

    found = kept_catalog.read_once(folder, anew, lambda papers: ["sound"])
    return found.papers, bool(took)


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "dgm-bench" / "catalogue").glob("*.pickle"))


@pytest.fixture(scope="module")
def own():
    return tuple(load_paper(default_folder() / name) for name in ("avb", "discrete"))


def types_of(value):
    """The types of all that a declaration holds, in depth."""
    if hasattr(value, "model_fields_set"):
        return type(value), [types_of(getattr(value, name)) for name in type(value).model_fields]
    if isinstance(value, tuple | list):
        return type(value), [types_of(part) for part in value]
    return type(value)


def test_all_declarations_come_back_as_they_were_read(own):
    (content,) = kept_catalog._content(own, lambda papers: ["a"])
    found = kept_catalog._unpickled(content)
    assert found.papers == own
    assert found.sound == {"a"}
    assert types_of(found.papers) == types_of(own)
    for ours, theirs in zip(found.papers, own, strict=True):
        assert ours.model_dump_json() == theirs.model_dump_json()


def fresh(recipe):
    """The recipe, with nothing computed of it."""
    return Recipe(**{name: getattr(recipe, name) for name in Recipe.model_fields})


def test_hashes_that_are_kept_are_those_of_the_recipes():
    cells = [cell for cell in load_catalog().cells if cell.recipe is not None]
    known = {cell.recipe.content_hash: cell.recipe for cell in cells}
    assert [fresh(recipe).content_hash for recipe in list(known.values())[::9]] == list(known)[::9]


def test_a_second_reading_takes_what_the_first_kept(declared, tmp_path):
    first, second = read(declared), read(declared)
    assert (first[1], second[1]) == (True, False)
    assert first[0] == second[0]


CHANGES = (
    lambda toy: toy.joinpath("paper.toml").write_text(
        toy.joinpath("paper.toml").read_text().replace("-1.50", "-1.51")
    ),
    lambda toy: toy.joinpath("recipes.py").write_text(
        toy.joinpath("recipes.py").read_text().replace("batch_size=10", "batch_size=11")
    ),
    lambda toy: toy.joinpath("shared.py").write_text(""),
    lambda toy: toy.with_name("tow").mkdir() or toy.with_name("tow").joinpath("x.py").touch(),
)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_in_the_sources_is_read_anew(declared, change):
    read(declared)
    toy, before = declared / "toy", {f: f.stat() for f in (declared / "toy").iterdir()}
    change(toy)
    for file, state in before.items():  # as a copy with --times leaves them
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    found, anew = read(declared)
    assert anew
    assert found == (load_paper(toy),)


def test_sources_younger_than_the_process_are_neither_kept_nor_taken(
    declared, tmp_path, monkeypatch
):
    read(declared)
    (file,) = kept(tmp_path)
    monkeypatch.setattr(kept_catalog, "STARTED", time.time() - 1)
    assert read(declared)[1], "what this process imported may be older"
    file.unlink()
    read(declared)
    assert kept(tmp_path) == []


def test_a_damaged_file_is_made_again(declared, tmp_path):
    whole = read(declared)[0]
    (file,) = kept(tmp_path)
    content = file.read_bytes()
    for seed in range(8):
        place = random.Random(seed).randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert read(declared) == (whole, True)
    file.write_bytes(b"")
    assert read(declared) == (whole, True)
    assert read(declared) == (whole, False)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("content", [pickle.dumps(Hostile()), pickle.dumps(3), b""])
def test_a_file_of_another_kind_calls_nothing(declared, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    whole = read(declared)[0]
    write_sealed(*kept(tmp_path), content)
    assert read(declared) == (whole, True)
    assert not (tmp_path / "made-by-a-pickle").exists()


def test_without_a_place_for_it_all_is_read(declared, tmp_path):
    (tmp_path / "cache").write_text("a file in the way of a folder")
    assert read(declared) == read(declared) == ((load_paper(declared / "toy"),), True)


def test_old_files_do_not_pile_up(declared, tmp_path):
    for number in range(kept_catalog.KEPT + 2):
        (declared / "toy" / "more.py").write_text(f"{number}")
        read(declared)
    assert len(kept(tmp_path)) == kept_catalog.KEPT


# --------------------------------------------------------------------------- hashes


def test_a_changed_copy_has_a_hash_of_its_own():
    recipe = make_recipe()
    before, (stage,) = recipe.content_hash, recipe.stages
    changed = recipe.model_copy(update={"stages": (stage.model_copy(update={"batch_size": 7}),)})
    assert changed.content_hash == fresh(changed).content_hash != before
    assert recipe.with_revisions([2]).content_hash != before
    assert make_cell(recipe=recipe).recipe.content_hash == before


def test_recipes_differ_by_revisions_where_their_hashes_say_so():
    recipes = [cell.recipe for cell in load_catalog().cells if cell.recipe is not None]
    some = random.Random(0).sample(recipes, 25)
    some += [recipe.unrevised for recipe in some] + [make_recipe()]
    unrevised = [recipe.unrevised.content_hash for recipe in some]
    for recipe, own_hash in zip(some, unrevised, strict=True):
        found = [recipe.differs_by_revisions(other) for other in some]
        assert found == [own_hash == other for other in unrevised]
