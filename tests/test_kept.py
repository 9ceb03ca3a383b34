"""What is kept of work that was interrupted."""

import pytest
import torch
from factories import StopAfter

from dgm_bench import kept
from dgm_bench.control import Interrupted
from dgm_bench.errors import ResultsError
from dgm_bench.kept import Journal, each, steps

PARTS = torch.arange(12.0).split(2)


def noisy(generator, seen):
    def function(part):
        seen.append(part[0].item())
        return part + torch.rand(2, generator=generator), part.view(1, 2)

    return function


def work(journal, times=1000, seen=None):
    """Two loops with one source of noise, after some that is drawn anyway."""
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(3, generator=generator)
    seen = [] if seen is None else seen
    with StopAfter(times + 1).active(), journal.active():
        first = torch.cat([x for x, _ in each(PARTS, noisy(generator, seen), generator)])
        second = torch.cat([x for x, _ in each(PARTS[:2], noisy(generator, seen), generator)])
    return torch.cat([before, first, second, torch.rand(1, generator=generator)])


@pytest.mark.parametrize("every", [0.0, 100.0])
@pytest.mark.parametrize("times", range(8))
def test_what_is_done_is_found_again_and_the_noise_goes_on(tmp_path, times, every):
    whole = work(Journal(tmp_path / "whole", "a"))
    seen = []
    with pytest.raises(Interrupted):
        work(Journal(tmp_path / "work", "a", every=every), times, seen)
    assert torch.equal(work(Journal(tmp_path / "work", "a"), seen=seen), whole)
    assert seen == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 0.0, 2.0]


def test_a_part_that_is_cut_off_is_done_again_from_its_own_noise(tmp_path):
    generator = torch.Generator().manual_seed(0)
    expected = [torch.rand(1, generator=generator).item() for _ in range(3)]
    for attempt in range(2):
        generator = torch.Generator().manual_seed(0)

        def drawn(part, attempt=attempt, generator=generator):
            value = torch.rand(1, generator=generator)
            if part == 1 and attempt == 0:
                raise Interrupted("within")
            return value

        journal = Journal(tmp_path / "work", "a")
        try:
            with journal.active():
                found = [x.item() for x in each(range(3), drawn, generator)]
        except Interrupted:
            assert attempt == 0
    assert found == expected


def test_work_of_another_identity_and_damaged_files_count_for_nothing(tmp_path, caplog):
    with pytest.raises(Interrupted):
        work(Journal(tmp_path / "work", "a"), 4)
    file = tmp_path / "work" / "a" / "work.0.0"
    file.write_bytes(file.read_bytes()[:-1])
    seen = []
    work(Journal(tmp_path / "work", "a"), seen=seen)
    assert len(seen) == 8
    assert "work.0.0" in caplog.text
    with pytest.raises(Interrupted):
        work(Journal(tmp_path / "work", "a"), 4)
    seen.clear()
    work(Journal(tmp_path / "work", "b"), seen=seen)
    assert len(seen) == 8
    assert not (tmp_path / "work" / "a").exists()


def test_a_file_holds_the_part_and_not_all_that_it_is_a_view_of(tmp_path):
    many = torch.zeros(100_000)
    with (
        pytest.raises(Interrupted),
        StopAfter(3).active(),
        Journal(tmp_path / "work", "a").active(),
    ):
        list(each(many.split(10), lambda part: part))
    assert (tmp_path / "work/a/work.0.0").stat().st_size < 10_000


def test_steps_go_on_from_the_state_that_they_were_stopped_in(tmp_path):
    done = []
    for times in (3, 4, 1000):
        state = {"sum": 0}
        journal = Journal(tmp_path / "work", "a")
        try:
            with StopAfter(times + 1).active(), journal.active():
                for step in steps(10, lambda s=state: dict(s), state.update):
                    state["sum"] += step
                    done.append(step)
        except Interrupted:
            continue
    assert done == list(range(10))
    assert state["sum"] == 45


def test_a_text_is_computed_once_and_its_parts_are_forgotten(tmp_path):
    computed = []

    def compute():
        computed.append(1)
        return str(sum(x.item() for x in each([1, 2], torch.tensor)))

    for _ in range(2):
        journal = Journal(tmp_path / "work", "a", every=0.0)
        with journal.active():
            assert journal.text("sum", compute) == "3"
        journal.save()
    assert len(computed) == 1
    assert sorted(p.name for p in (tmp_path / "work/a").iterdir()) == ["seconds", "sum.text"]


def test_seconds_are_those_of_all_processes(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(kept.time, "perf_counter", lambda: now[0])
    for seconds in (5.0, 7.0):
        journal = Journal(tmp_path / "work", "a")
        now[0] += seconds
        journal.save()
    assert Journal(tmp_path / "work", "a").seconds == 12.0


def test_a_full_disk_keeps_nothing_and_stops_no_work(tmp_path, monkeypatch):
    def full(path, content):
        raise ResultsError(path, "cannot be written (No space left on device)", "free some")

    monkeypatch.setattr(kept, "write_sealed", full)
    work(Journal(tmp_path / "work", "a", every=0.0))
