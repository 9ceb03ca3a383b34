"""Types that say more than Python's: which numbers and names an argument may have.

Signatures of models and objectives are checked against them wherever a recipe is built
(:mod:`dgm_bench.arguments`). Everything is strict: no text is a number, and no number is a bool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

#: Largest size, width or number of layers of a model that is no slip of the keyboard.
MOST_UNITS = 10**6
#: Largest number of steps or examples.
MOST = 2**31 - 1

#: Of units, layers, classes: from 1.
Count = Annotated[int, Field(strict=True, gt=0, le=MOST_UNITS)]
#: The same from 0: what a model may lack.
CountFrom0 = Annotated[int, Field(strict=True, ge=0, le=MOST_UNITS)]
#: Of steps, epochs, examples: from 1.
Steps = Annotated[int, Field(strict=True, gt=0, le=MOST)]
#: The same from 0.
StepsFrom0 = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
#: Of an average, or a probability: from 0 to below 1.
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]


@dataclass(frozen=True)
class ArgumentsOf:
    """Marks arguments of a part of a model, which another argument chooses by its name.

    Attributes:
        makers: Constructors by name; None for a part that takes no arguments.
        given: Arguments that the model itself passes to it.
        by: The argument that has the name, or empty.
        name: The name, where there is no choice.
    """

    makers: Mapping[str, Callable[..., Any] | None]
    given: tuple[str, ...]
    by: str = ""
    name: str = ""
