"""What the recipes of all rows share: data, and the settings of columns that no paper has."""

from __future__ import annotations

from typing import Any, NamedTuple

from dgm_bench.data import card
from dgm_bench.spec import DataSpec, LastBatch

IMAGES = ("mnist", "cifar10")
TABLES = ("power", "gas", "hepmass", "miniboone", "bsds300", "bsds300-patches")

# --------------------------------------------------------------------------- our columns


class SmallSetting(NamedTuple):
    """What converges within about a minute on one core, for a column that no paper has.

    ``steps`` and ``ffjord_steps`` are what the stopping rule was seen to take, for the cost;
    ``max_steps`` only bounds a run that never stops improving.
    """

    hidden: tuple[int, ...]
    batch_size: int
    lr: float
    every: int
    steps: int
    ffjord_hidden: tuple[int, ...]
    ffjord_steps: int
    ffjord_lr: float = 5e-3
    ffjord_every: int = 50
    patience: int = 4
    drops: tuple[int, ...] = (1, 2)
    max_steps: int = 20_000
    ffjord_max_steps: int = 4_000

    def continuous(self) -> SmallSetting:
        """Return the setting of a continuous flow."""
        return self._replace(
            hidden=self.ffjord_hidden,
            lr=self.ffjord_lr,
            every=self.ffjord_every,
            steps=self.ffjord_steps,
            max_steps=self.ffjord_max_steps,
        )


#: In 43 dimensions and more, 64 units leave a continuous flow short of what it can do.
LARGE_ORACLE: dict[str, Any] = {
    "ffjord_hidden": (256, 256),
    "ffjord_lr": 2e-3,
    "ffjord_every": 200,
    "ffjord_steps": 5_000,
    "ffjord_max_steps": 6_000,
}


def small_setting(data: str) -> SmallSetting | None:
    """Return the setting of one of our columns; None for a column of the papers."""
    if data == "digits":
        return SmallSetting((128,), 128, 1e-3, 50, 1_000, (128, 128), 2_200)
    if data.startswith("oracle-"):
        setting = SmallSetting((128,), 256, 2e-3, 200, 7_000, (64, 64), 2_800)
        return setting if card(data).dim < 43 else setting._replace(**LARGE_ORACLE)
    if card(data).dim == 2:
        return SmallSetting((64, 64), 256, 2e-3, 100, 3_000, (64, 64), 2_000)
    return None


def required_setting(data: str) -> SmallSetting:
    """Return the setting of one of our columns.

    Raises:
        ValueError: It is no column of ours.
    """
    small = small_setting(data)
    if small is None:
        raise ValueError(f"{data} is no column of ours")
    return small


# --------------------------------------------------------------------------- data


def flat_data(data: str) -> DataSpec:
    """Return the data set, images in the MAF paper's convention."""
    return DataSpec(name=data, args={"convention": "maf"} if data in IMAGES else {})


def last_batch(data: str, batch_size: int, rule: LastBatch) -> LastBatch:
    """Return a source's rule for what does not fill a batch, where there is such a rest."""
    return rule if card(data).sizes["train"] % batch_size else "drop"


def pixel_data(data: str) -> DataSpec:
    """Return the data set, images in the FFJORD paper's convention: pixels with fresh noise."""
    return DataSpec(name=data, args={"convention": "ffjord"} if data in IMAGES else {})


def image_shape(data: str) -> list[int] | None:
    """Return the shape that a convolutional model needs; None where examples are images already."""
    return None if data in IMAGES else list(card(data).event_shape)
