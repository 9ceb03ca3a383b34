"""Captions of handwritten digits: a small grammar of thickness, class and slant. Torch-free.

Some combinations are held out from training, one of each class, so that models can be judged on
captions that they never saw. Each of their pairs of words is in training.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Levels of the attributes, from the lowest third of the measured values on.
THICKNESSES = ("thin", "medium", "bold")
SLANTS = ("leaning left", "upright", "leaning right")
LEVELS = 3


class Combination(NamedTuple):
    """What a caption says: the class, and the level of each attribute."""

    digit: int
    thickness: int
    slant: int

    @property
    def text(self) -> str:
        """The caption."""
        return f"a {THICKNESSES[self.thickness]} {NAMES[self.digit]}, {SLANTS[self.slant]}"

    @property
    def held_out(self) -> bool:
        """Whether no image of training has it."""
        return (self.thickness, self.slant) == divmod(self.digit % LEVELS**2, LEVELS)


#: All combinations by the number of the caption; those held out from training come last.
COMBINATIONS: tuple[Combination, ...] = tuple(
    sorted(
        (
            Combination(digit, thickness, slant)
            for thickness, slant, digit in product(range(LEVELS), range(LEVELS), range(len(NAMES)))
        ),
        key=lambda combination: combination.held_out,
    )
)
CAPTIONS = tuple(combination.text for combination in COMBINATIONS)
#: So many captions, the first ones, are in training.
KNOWN = sum(not combination.held_out for combination in COMBINATIONS)
