"""The folder of a run under way: its lock, its identity, and what became of it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from dgm_bench.locks import holding
from dgm_bench.paths import SCRATCH, named_folder
from dgm_bench.records import CUT_SHORT, FAILED, NAME, Name, Status, new_run_id, utc_now
from dgm_bench.remote import mirrored_at
from dgm_bench.sealed import (
    read_sealed,
    remove_leftovers,
    require_writable,
    set_aside,
    write_sealed,
)

_LOG = logging.getLogger("dgm_bench")
_HELD = "this run is under way", "wait for it, or stop it first"
_RECORD = rf"^runs(/{NAME}){{4}}/{NAME}\.json$"


class RunState(BaseModel):
    """What ``run.json`` says: the run's identity, kept over interruptions, and how it ended.

    ``cell`` and ``settings`` are the cell and the ``--set`` changes of who began it; ``record`` is
    the record's place below the results folder; ``evaluating`` says that its budget ended the
    training, and that the evaluation is under way; or of a run that failed that its evaluation did.
    """

    model_config = ConfigDict(extra="forbid")

    run_id: Name
    created: str
    cell: str = ""
    settings: tuple[str, ...] = ()
    supersedes: Name | None = None
    status: Status | None = None
    record: Annotated[str, StringConstraints(pattern=_RECORD)] | None = None
    evaluating: bool = False
    source_hash: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether another run goes on with what it left: its training, or to evaluate it."""
        return self.status == CUT_SHORT or (self.evaluating and self.status in FAILED)


def scratch_of(folder: Path) -> Path | None:
    """Return where a run's checkpoints lie by ``DGM_BENCH_WORK``; None where that names no place.

    Runs of several results folders may share the place.

    Args:
        folder: The run's, below the results.
    """
    if (scratch := named_folder(SCRATCH)) is None:
        return None
    results = folder.parent.parent.resolve()
    digest = hashlib.sha256(os.fsencode(results)).hexdigest()
    return scratch / f"{results.name}-{digest[:8]}" / folder.name


def stages_folder(folder: Path, source_hash: str) -> Path:
    """Return the folder of a run's stages, on scratch one for each version of the code.

    Another machine may have gone on with the run since, with other code: what it left here then
    must not be found.
    """
    scratch = scratch_of(folder)
    return folder if scratch is None else scratch / source_hash[:12]


def require_scratch() -> None:
    """Check that checkpoints can be written where ``DGM_BENCH_WORK`` says.

    Raises:
        ResultsError: When they cannot.
    """
    if (scratch := named_folder(SCRATCH)) is not None:
        require_writable(scratch / "checkpoint")


class WorkFolder:
    """``results/work/<recipe hash>-s<seed>/``: what a run needs to be continued.

    Its checkpoints may lie elsewhere (:func:`scratch_of`); lock and state are for all machines.

    Args:
        results: The results folder.
        recipe_hash: Of the recipe that runs.
        seed: Of the run.
    """

    def __init__(self, results: Path, recipe_hash: str, seed: int) -> None:
        self.results = results
        self.path = results / "work" / f"{recipe_hash[:12]}-s{seed}"
        self._source_hash = ""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; where nothing came of it, no folder is left.

        Raises:
            HeldError: When another process holds it.
            ResultsError: When the folder cannot be written.
        """
        try:
            with holding(self.path / "lock", *_HELD), self._held_elsewhere():
                remove_leftovers(self.path)
                yield
        finally:
            for folder in (self.path, self.path.parent):
                with suppress(OSError):  # something is kept there
                    folder.rmdir()

    @contextmanager
    def _held_elsewhere(self) -> Iterator[None]:
        """Hold the run for this machine where the results are at an address, and learn its end."""
        if (remote := mirrored_at(self.results)) is None:
            yield
            return
        with remote.holding(f"work/{self.path.name}/lock", *_HELD):
            if remote.fetch_file(f"work/{self.path.name}/run.json"):
                remote.fetch()
            yield

    def state(self) -> RunState | None:
        """Return what ``run.json`` says, or None where no run was started.

        A damaged file is set aside, and told in one line.

        Raises:
            ResultsError: When the system cannot read it.
        """
        return _state_in(self.path)

    def begin(self, source_hash: str, cell: str = "", settings: tuple[str, ...] = ()) -> RunState:
        """Return the state of the run to do now: the interrupted one's, or a new one's.

        A run that was out of budget continues from its checkpoint as a new run that supersedes the
        old record; so does one whose evaluation failed, to be evaluated again. After any other end
        it starts over, and when the code that decides its numbers has changed: no number comes
        from two versions of the code. What other code left unfinished is kept beside, where that
        code finds it again.
        """
        self._source_hash = source_hash
        before = self.state()
        old = self._exchanged(before)
        if old is not None and old.status is None:
            return old
        if old is None or not old.goes_on:
            self.clear()
        state = RunState(
            run_id=new_run_id(),
            created=utc_now(),
            cell=cell,
            settings=settings,
            source_hash=source_hash,
        )
        last = old or before
        if last is not None and last.goes_on:
            state.supersedes = last.run_id
        self.save(state)
        return state

    def _exchanged(self, old: RunState | None) -> RunState | None:
        """Put beside what other code left unfinished, and take back what this code had left.

        What lies in the folder always belongs to the code that its ``run.json`` names, so that a
        kill in between mixes nothing.
        """
        if old is not None and old.source_hash != self._source_hash and self._is_unfinished(old):
            beside = self._beside(old.source_hash)
            _move_stages(self.path, beside)
            write_sealed(beside / "run.json", old.model_dump_json().encode())
            _LOG.warning(
                "%s: other code of the suite began this run, which starts over; its checkpoints"
                " are kept in %s: with that code the same command goes on with them",
                self.path,
                beside.name,
            )
        own = old if old is not None and old.source_hash == self._source_hash else None
        kept = self._beside(self._source_hash)
        if not kept.is_dir():
            return own
        if own is None and (own := _state_in(kept)) is not None:
            for folder in _stages_in(self.path):
                shutil.rmtree(folder)
            self.save(own)
        if own is not None:
            _move_stages(kept, self.path)
        shutil.rmtree(kept)
        return own

    def _beside(self, source_hash: str) -> Path:
        """Return the folder of what a version of the code has left unfinished, and others found."""
        return self.path.with_name(f"{self.path.name}.{source_hash[:12]}")

    def _is_unfinished(self, state: RunState) -> bool:
        folders = (
            self.path,
            stages_folder(self.path, state.source_hash),
            self._beside(state.source_hash),
        )
        waits = state.status is None or state.goes_on
        return waits and any(map(_stages_in, folders))

    def save(self, state: RunState) -> None:
        """Write ``run.json``."""
        write_sealed(self.path / "run.json", state.model_dump_json().encode())
        if (remote := mirrored_at(self.results)) is not None:
            remote.put_over(f"work/{self.path.name}/run.json")

    def stage(self, name: str) -> Path:
        """Return the folder of a stage's checkpoints, of the code that the run began with."""
        here = self.path / name
        return here if here.is_dir() else stages_folder(self.path, self._source_hash) / name

    def clear(self, *, of_all_codes: bool = False) -> None:
        """Remove checkpoints; the lock and ``run.json`` stay.

        Args:
            of_all_codes: Those too that other versions of the code have left unfinished.
        """
        stages = stages_folder(self.path, self._source_hash)
        folders = {*_stages_in(self.path), *_stages_in(stages)}
        if of_all_codes:
            scratch = scratch_of(self.path)
            folders |= {*self.path.parent.glob(f"{self.path.name}.*"), *_stages_in(scratch)}
        for folder in sorted(folders, reverse=True):  # what lies in another first
            shutil.rmtree(folder)
        self._tidy_scratch()

    def _tidy_scratch(self) -> None:
        """Remove the folders of scratch that nothing is left in; others are of other runs."""
        if (scratch := scratch_of(self.path)) is not None:
            for folder in (scratch / self._source_hash[:12], scratch, scratch.parent):
                with suppress(OSError):
                    folder.rmdir()


def _state_in(folder: Path) -> RunState | None:
    path, instead = folder / "run.json", "the run starts again"
    content = read_sealed(path, instead)
    try:
        return None if content is None else RunState.model_validate_json(content)
    except ValidationError:
        set_aside(path, "is not the state of a run", instead)
        return None


def _stages_in(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir()]


def _move_stages(source: Path, target: Path) -> None:
    """Move the folders of stages; what an interrupted move has left goes on."""
    target.mkdir(parents=True, exist_ok=True)
    for folder in _stages_in(source):
        shutil.rmtree(target / folder.name, ignore_errors=True)
        os.replace(folder, target / folder.name)
