"""What long work has done so far, kept so that the same work goes on from there.

Code that works through many parts goes over them by :func:`each`, and code that takes many steps
by :func:`steps`. Both ask between two parts whether to stop. Within :meth:`Journal.active` what is
done is kept in files, every few seconds and when the work stops. Done again, the same code finds
the results of its parts there, and its source of noise where it was: no number depends on whether
or where the work was interrupted.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from dgm_bench.control import Interrupted, ask, ask_within
from dgm_bench.errors import ResultsError
from dgm_bench.sealed import read_sealed, write_sealed

Part = TypeVar("Part")
Result = TypeVar("Result")
State = dict[str, Any]

#: Seconds of work that a killed process loses at most.
EVERY = 5.0
#: The same for steps, each of which changes all that is kept.
EVERY_STATE = 30.0
_INSTEAD = "that part of the work is done again"


def each(
    parts: Sequence[Part],
    function: Callable[[Part], Result],
    generator: torch.Generator | None = None,
) -> Iterator[Result]:
    """Yield ``function`` of each part, in order; ask before each whether to stop.

    Args:
        parts: What is worked through.
        function: Returns a tensor, or a tuple or list of them, and changes nothing else.
        generator: Source of its noise; nobody else draws from it until all parts are done.

    Raises:
        Interrupted: It is time to stop.
    """
    if _active is not None:
        return _active.each(parts, function, generator)
    return _plain(parts, function, ask)


def steps(total: int, state: Callable[[], State], load: Callable[[State], None]) -> Iterator[int]:
    """Yield the numbers of steps, from the first that is not done; ask before each.

    Args:
        total: Number of steps.
        state: Gives all that steps change: tensors and plain values.
        load: Goes back to such a state.

    Raises:
        Interrupted: It is time to stop.
    """
    if _active is not None:
        return _active.steps(total, state, load)
    return _plain(range(total), int, ask)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Keep the work of the block under a name of its own, whoever is the first to ask for it."""
    if _active is None:
        yield
        return
    with _active.scope(name):
        yield


def ask_in_modules() -> RemovableHandle:
    """Let the modules of all models ask before each forward pass, until that is taken back."""
    return register_module_forward_pre_hook(lambda module, inputs: ask_within())


def _plain(
    parts: Sequence[Part], function: Callable[[Part], Result], question: Callable[[], None]
) -> Iterator[Result]:
    for part in parts:
        question()
        yield function(part)


# ----------------------------------------------------------------------------- the journal


@runtime_checkable
class CountsEvaluations(Protocol):
    """Counts how often it evaluates its dynamics; see ``models.capabilities.SolvesODE``."""

    function_evaluations: int


@dataclass
class _Unsaved:
    """Results of parts in a row from number ``start``; noise and evaluations after the last."""

    start: int
    results: list[Any] = field(default_factory=list)
    noise: Tensor | None = None
    evaluations: int = 0


class Journal:
    """The files of one piece of work, and what is not yet in them.

    Args:
        folder: For these files alone.
        identity: Of all that decides the results; what was kept under another is removed.
        model: Its evaluations of dynamics, if it counts them, are counted on.
        every: Seconds between two savings.
    """

    def __init__(
        self, folder: Path, identity: str, model: object = None, every: float = EVERY
    ) -> None:
        self.folder, self.every = folder / identity, every
        self._model = model if isinstance(model, CountsEvaluations) else None
        self._scope, self._counts = "work", dict[str, int]()
        self._unsaved: dict[str, _Unsaved] = {}
        self._texts: dict[str, tuple[str, int]] = {}
        self._busy = False
        self._saved = self._started = time.perf_counter()
        for other in folder.glob("*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        self._before = self._read("seconds").get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """Seconds of this work, in this process and in those before."""
        return float(self._before) + time.perf_counter() - self._started

    @contextmanager
    def active(self) -> Iterator[None]:
        """Keep what is done within the block, all of it when the work stops there."""
        global _active
        before, _active = _active, self
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            self.save()
            raise
        finally:
            _active = before

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Keep the work of the block under this name."""
        before, self._scope = self._scope, name
        try:
            yield
        finally:
            self._scope = before

    def remove(self) -> None:
        """Remove all files: the work is done and its result is elsewhere."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    # ------------------------------------------------------------------------- work

    def text(self, name: str, compute: Callable[[], str]) -> str:
        """Return a text that is computed once, and until then what its work is made of."""
        if kept := self._read(f"{name}.text"):
            self._count_on(kept)
            return str(kept["text"])
        before = self._evaluations()
        with self.scope(name):
            found = compute()
        self._texts[name] = found, self._evaluations() - before
        self._unsaved = {n: u for n, u in self._unsaved.items() if not n.startswith(f"{name}.")}
        self._save_if_due()
        return found

    def each(
        self,
        parts: Sequence[Part],
        function: Callable[[Part], Result],
        generator: torch.Generator | None,
    ) -> Iterator[Result]:
        """Yield results as :func:`each` does; those within a part are not kept."""
        if self._busy:
            yield from _plain(parts, function, ask_within)
            return
        name, done = self._next_name(), 0
        while kept := self._read(f"{name}.{done}"):
            done += len(kept["results"])
            self._count_on(kept)
            if generator is not None:
                generator.set_state(kept["noise"])
            yield from kept["results"]
        for part in parts[done:]:
            self._save_if_due()
            ask()
            result = self._noted(name, done, function, part, generator)
            done += 1
            yield result

    def _noted(
        self,
        name: str,
        number: int,
        function: Callable[[Part], Result],
        part: Part,
        generator: torch.Generator | None,
    ) -> Result:
        before, self._busy = self._evaluations(), True
        try:
            result = function(part)
        finally:
            self._busy = False
        unsaved = self._unsaved.setdefault(name, _Unsaved(number))
        unsaved.results.append(result)
        unsaved.noise = None if generator is None else generator.get_state()
        unsaved.evaluations += self._evaluations() - before
        return result

    def steps(
        self, total: int, state: Callable[[], State], load: Callable[[State], None]
    ) -> Iterator[int]:
        """Yield numbers as :func:`steps` does; those within a part are not kept."""
        if self._busy:
            yield from _plain(range(total), int, ask_within)
            return
        name, saved = f"{self._next_name()}.state", time.perf_counter()
        if kept := self._read(name):
            load(kept["state"])
        for step in range(kept.get("step", 0), total):
            try:
                ask()
            except Interrupted:
                self._write(name, {"step": step, "state": state()})
                raise
            if time.perf_counter() - saved >= EVERY_STATE:
                self._write(name, {"step": step, "state": state()})
                saved = time.perf_counter()
            yield step

    # ------------------------------------------------------------------------- files

    def save(self) -> None:
        """Write what is not written yet; where that is not possible, it is done again later."""
        for name, unsaved in self._unsaved.items():
            self._write(f"{name}.{unsaved.start}", {**vars(unsaved)})
        for name, (text, evaluations) in self._texts.items():
            self._write(f"{name}.text", {"text": text, "evaluations": evaluations})
            for file in self.folder.glob(f"{name}.[0-9]*"):
                file.unlink(missing_ok=True)
        self._write("seconds", {"seconds": self.seconds})
        self._unsaved, self._texts = {}, {}
        self._saved = time.perf_counter()

    def _save_if_due(self) -> None:
        if time.perf_counter() - self._saved >= self.every:
            self.save()

    def _write(self, name: str, content: State) -> None:
        buffer = io.BytesIO()
        torch.save(tree_map_only(Tensor, _compact, content), buffer)
        with suppress(ResultsError):
            write_sealed(self.folder / name, buffer.getvalue())

    def _read(self, name: str) -> State:
        content = read_sealed(self.folder / name, _INSTEAD)
        if content is None:
            return {}
        found: State = torch.load(io.BytesIO(content), weights_only=True)
        return found

    def _next_name(self) -> str:
        number = self._counts[self._scope] = self._counts.get(self._scope, -1) + 1
        return f"{self._scope}.{number}"

    def _evaluations(self) -> int:
        return self._model.function_evaluations if self._model is not None else 0

    def _count_on(self, kept: State) -> None:
        if self._model is not None:
            self._model.function_evaluations += kept["evaluations"]


def _compact(tensor: Tensor) -> Tensor:
    """Return a tensor that no more memory belongs to than its own: files hold all of it."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor.detach() if whole else tensor.detach().clone()


_active: Journal | None = None
