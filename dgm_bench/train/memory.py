"""Running out of memory, which ends a run and not the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dgm_bench.errors import RunFailure


@contextmanager
def failures() -> Iterator[None]:
    """Turn running out of memory, an error of another kind on each device, into a failed run."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error).split("\n")[0]
        on_cpu = isinstance(error, MemoryError) or "can't allocate memory" in text
        if not (on_cpu or isinstance(error, torch.OutOfMemoryError)):
            raise
        hint = "use a smaller batch (--set batch_size=...), or a machine with more memory"
        raise RunFailure("out-of-memory", text or "out of memory", hint) from error
