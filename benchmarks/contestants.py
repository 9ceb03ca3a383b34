"""What takes part in a round of interleaved timing."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Contestant:
    """What takes part in a round.

    Args:
        name: Of the library, or of what it does.
        is_cuda: Whether it runs on a GPU.
    """

    def __init__(self, name: str, is_cuda: bool = False) -> None:
        self.name, self.is_cuda = name, is_cuda

    def run(self) -> None:
        """Do the work."""
        raise NotImplementedError

    def __call__(self) -> None:
        """Do the work, and wait for the device to be done."""
        self.run()
        if self.is_cuda:
            torch.cuda.synchronize()

    def evaluations(self) -> int | None:
        """Return how often the work evaluates the dynamics; None where there are none."""
        return None


class Call(Contestant):
    """A function of no arguments.

    Args:
        name: Of the library, or of what it does.
        function: Does the work; what it returns is dropped.
        is_cuda: Whether it runs on a GPU.
    """

    def __init__(self, name: str, function: Callable[[], object], is_cuda: bool = False) -> None:
        super().__init__(name, is_cuda)
        self.function = function

    def run(self) -> None:
        """Call it."""
        self.function()
