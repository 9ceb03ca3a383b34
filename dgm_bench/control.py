"""When to stop: Ctrl-C, SIGTERM, and the time that there is.

Long work asks: :func:`ask` between two pieces of it, which stops at once, and :func:`ask_within`
inside of a piece, which lets the piece half a second to end first. What cannot ask, such as a call
of another library, goes :func:`beside` a thread that asks for it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from threading import Event, Thread, Timer
from types import FrameType
from typing import Protocol, TypeVar

Result = TypeVar("Result")

#: Seconds that a piece of work has to end in after a request: what is left of it is lost later.
PATIENCE = 0.5
#: Why work stops that its run's budget leaves no time for.
OUT_OF_BUDGET = "budget"
TIME_LIMIT = "time limit"
#: Why one run stops that somebody cancelled: those after it are done all the same.
CANCELLED = "cancelled"
_POLL = 0.05


class Interrupted(BaseException):
    """Work stopped in good order, with what is done kept; ``reason`` says why.

    Like ``KeyboardInterrupt`` it is no error: the run goes on at the next command.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Removable(Protocol):
    """What can be taken back."""

    def remove(self) -> None:
        """Take it back."""


class Control:
    """Collects reasons to stop.

    Args:
        time_limit: Seconds this process may take from now, or None.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        self._deadlines: dict[str, float] = {}
        if time_limit is not None:
            self._deadlines[TIME_LIMIT] = time.monotonic() + time_limit
        self._signal: tuple[str, float] | None = None
        self._caught = False
        self._on_request: Callable[[], Removable] | None = None
        self._heard: list[Removable] = []
        self._asked = time.monotonic()

    @property
    def quiet_seconds(self) -> float:
        """How long nobody has asked whether to stop, which all work does every few seconds."""
        return time.monotonic() - self._asked

    def stop_reason(self) -> str | None:
        """Return why to stop now, or None to continue."""
        self._asked = time.monotonic()
        request = self._request()
        return None if request is None else request[0]

    def ask(self, patience: float = 0.0) -> None:
        """Stop where there has been a reason to for so many seconds.

        Raises:
            Interrupted: There is.
        """
        self._asked = time.monotonic()
        request = self._request()
        if request is not None and time.monotonic() >= request[1] + patience:
            raise Interrupted(request[0])

    def _request(self) -> tuple[str, float] | None:
        """Return a reason to stop, and since when there is one."""
        if self._signal is not None:
            return self._signal
        now = time.monotonic()
        over = [(since, reason) for reason, since in self._deadlines.items() if since <= now]
        return (min(over)[1], min(over)[0]) if over else None

    @contextmanager
    def until(self, deadline: float | None, reason: str = OUT_OF_BUDGET) -> Iterator[None]:
        """Stop what is within the block at a time of the monotonic clock, if there is one."""
        if deadline is None:
            yield
            return
        self._deadlines[reason] = deadline
        timer = self._listen_from(deadline)
        try:
            yield
        finally:
            timer.cancel()
            del self._deadlines[reason]

    @contextmanager
    def active(self, on_request: Callable[[], Removable] | None = None) -> Iterator[None]:
        """Let :func:`ask` ask this control, within the block.

        Args:
            on_request: Called once somebody or a deadline wants to stop; taken back at the end.
        """
        global _active
        before, _active = _active, self
        self._on_request = on_request
        timers = [self._listen_from(deadline) for deadline in self._deadlines.values()]
        try:
            yield
        finally:
            _active = before
            self._on_request = None
            for timer in timers:
                timer.cancel()
            while self._heard:
                self._heard.pop().remove()

    def _listen_from(self, deadline: float) -> Timer:
        timer = Timer(max(deadline - time.monotonic(), 0.0), self._listen)
        timer.daemon = True
        timer.start()
        return timer

    def _listen(self) -> None:
        if self._on_request is not None and not self._heard:
            self._heard.append(self._on_request())

    @contextmanager
    def catching_signals(self, *, but_ignored: bool = False) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a request to stop; a second one stops at once.

        Args:
            but_ignored: Whether the process goes on to ignore one that it ignores now.
        """
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if but_ignored:
            kept = {number: how for number, how in kept.items() if how != signal.SIG_IGN}
        for number in kept:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def request(self, reason: str) -> None:
        """Ask for a stop, from any thread."""
        if self._signal is None or self._signal[0] == CANCELLED != reason:
            self._signal = reason, time.monotonic()
            self._listen()

    def go_on(self) -> None:
        """Take back the request that one run be :data:`CANCELLED`, once it has stopped."""
        if self._signal is not None and self._signal[0] == CANCELLED:
            self._signal = None
            while self._heard:
                self._heard.pop().remove()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._caught:
            raise KeyboardInterrupt
        self._caught = True
        self.request("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


_active: Control | None = None
_question: Callable[[], None] | None = None
_left: list[Thread] = []


@contextmanager
def asking(question: Callable[[], None]) -> Iterator[None]:
    """Let :func:`ask` ask this in place of the control, within the block, and the others nothing.

    Several processes that compute in step may stop between the same two pieces of work only.
    """
    global _question
    before, _question = _question, question
    try:
        yield
    finally:
        _question = before


def ask() -> None:
    """Stop here if it is time to: between two pieces of work, when what is done can be kept.

    Raises:
        Interrupted: It is.
    """
    if _question is not None:
        _question()
    elif _active is not None:
        _active.ask()


def ask_within() -> None:
    """Stop here if it was time to half a second ago: within a piece of work, which is then lost.

    Raises:
        Interrupted: It was.
    """
    if _active is not None and _question is None:
        _active.ask(PATIENCE)


def beside(function: Callable[[], Result]) -> Result:
    """Return what a call gives that cannot ask itself; this thread asks while it waits.

    A call that is not waited for any longer ends with the process, at any place: it is to write
    nothing but what may be cut off anywhere.

    Raises:
        Interrupted: It is time to stop, and the call has not ended or asked for half a second.
    """
    if _active is None:
        return function()
    done: Future[Result] = Future()
    thread = Thread(target=_complete, args=(done, function), daemon=True)
    thread.start()
    while not wait([done], _POLL).done:
        try:
            ask_within()
        except (Interrupted, KeyboardInterrupt):
            _left.append(thread)
            raise
    return done.result()


@contextmanager
def every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call a function again and again beside the block; one that is under way at its end ends.

    Args:
        seconds: Between two calls.
        look: The function.
    """
    over = Event()

    def watch() -> None:
        while not over.wait(seconds):
            look()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def end_at_once_if_left(code: int) -> None:
    """End the process where a call :func:`beside` was left: its ordinary end can break on that."""
    if any(thread.is_alive() for thread in _left):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _complete(done: Future[Result], function: Callable[[], Result]) -> None:
    try:
        done.set_result(function())
    except BaseException as error:
        done.set_exception(error)
