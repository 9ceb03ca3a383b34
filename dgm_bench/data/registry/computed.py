"""Sets that need no download: scikit-learn's digits, and what is drawn from densities."""

from __future__ import annotations

from dataclasses import replace

from dgm_bench.data.cards import DatasetCard, split_sizes

DIGITS = DatasetCard(
    name="digits",
    title="scikit-learn's 1,797 handwritten digits, 8x8 with 17 levels",
    event_shape=(1, 8, 8),
    unit="bits/dim",
    sizes=split_sizes(1_347, 200, 250),
    loader="digits:load",
    note="fixed split and fixed noise; bits/dim count 17 levels",
)

BINARY_DIGITS = replace(
    DIGITS,
    name="digits-binary",
    title="scikit-learn's digits, 8x8, drawn black and white once",
    unit="nats",
    loader="binary_images:load_digits",
    note="the images and the split of digits; a pixel is 1 with its level / 16 as probability",
)

DIGITS_LABELLED = replace(
    DIGITS,
    name="digits-labelled",
    title="scikit-learn's digits with classes, 8x8",
    classes=10,
    unit="nats",
    loader="labelled_images:load_digits",
    note="the images and the split of digits; levels 0 to 16 become bytes, pixels are bytes / 255",
)

DIGITS_CAPTIONED = replace(
    DIGITS_LABELLED,
    name="digits-captioned",
    title="scikit-learn's digits with captions of class, thickness and slant, 8x8",
    classes=90,
    sizes=split_sizes(1_202, 181, 414),
    loader="captioned_images:load_digits",
    note="as digits-labelled; thickness and slant are thirds of what is measured of the class's "
    "training images; those of 10 held-out captions are moved from train and val to the test",
)

DIGITS_CLASSES = replace(
    DIGITS_LABELLED,
    name="digits-classes",
    title="scikit-learn's digits, 8x8, each image and its class in one row",
    event_shape=(8 * 8 + 1,),
    loader="class_rows:load_digits",
    note="the images and the split of digits; bytes / 255, not shifted",
)

DIGITS_LEVELS = replace(
    DIGITS,
    name="digits-levels",
    title="scikit-learn's digits, 8x8, levels 0 to 16",
    loader="levels:load_digits",
    note="the images and the split of digits, without noise; bits/dim of probabilities of levels",
)

TOYS = tuple(
    DatasetCard(
        name=name,
        title=f"{title}, a 2-D density of the FFJORD paper",
        event_shape=(2,),
        unit="nats",
        sizes=split_sizes(20_000, 5_000, 5_000),
        loader="toys:load",
    )
    for name, title in {
        "8gaussians": "eight Gaussians on a circle",
        "checkerboard": "eight squares of a checkerboard",
        "2spirals": "two spirals",
        "pinwheel": "a pinwheel of five arms",
        "swissroll": "a Swiss roll",
        "moons": "two half moons",
        "circles": "two circles",
        "rings": "four rings",
    }.items()
)

ORACLES = tuple(
    DatasetCard(
        name=f"oracle-{dim}",
        title=f"a fixed random transformation of a simple base in {dim} dimensions",
        event_shape=(dim,),
        unit="nats",
        sizes=split_sizes(100_000, 10_000, 20_000),
        loader="oracles:load",
        note="log density and entropy are known",
    )
    for dim in (6, 8, 21, 43, 63)
)
