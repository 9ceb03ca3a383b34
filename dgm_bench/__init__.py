"""Reproduces the published tables of deep generative models, with a verdict for each number.

Example:
    >>> import dgm_bench
    >>> model = dgm_bench.load("ffjord/density/maf-5/8gaussians")  # doctest: +SKIP
    >>> model.log_prob(model.sample(5, seed=0))  # doctest: +SKIP

Nothing is imported before it is used: torch by :func:`load` and :func:`run`, pandas by
:func:`results` and :func:`published`.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dgm_bench.library.frames import published, results
    from dgm_bench.library.loading import load
    from dgm_bench.library.running import plan, run
    from dgm_bench.library.trained import TrainedModel

__all__ = ["TrainedModel", "load", "plan", "published", "results", "run"]

#: Where each name of the library is.
_HOMES = {
    "TrainedModel": "trained",
    "load": "loading",
    "plan": "running",
    "published": "frames",
    "results": "frames",
    "run": "running",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        from dgm_bench.extras import needing

        with needing(f"dgm_bench.{name}"):
            return getattr(import_module(f"dgm_bench.library.{_HOMES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
