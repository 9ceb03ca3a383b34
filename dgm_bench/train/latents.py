"""The data of a second stage: the codes that a trained first stage gives its images.

They are made once, kept beside the first stage's checkpoint, and known by the weights and images
that they came from.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Int, Num
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset, fingerprint
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import Journal
from dgm_bench.keyed_tensors import read_keyed, weights_hash, write_keyed
from dgm_bench.models.capabilities import HasCodes
from dgm_bench.models.codes.packing import CODE_TYPE, LARGEST, encoded, packed_size
from dgm_bench.train.world import ALONE, World


def code_shape(model: nn.Module, stage: str) -> tuple[int, ...]:
    """Return the shape of one example of the codes of ``model``.

    Raises:
        DeclarationError: It has no codes, or too many.
    """
    if not isinstance(model, HasCodes):
        reason = f"{type(model).__name__} has no codes"
        raise DeclarationError(f"codes_of {stage!r}", reason, "name a stage with a codebook")
    if max(model.codebook_sizes) > LARGEST:
        reason = f"has codebooks of {model.codebook_sizes}"
        raise DeclarationError(f"codes_of {stage!r}", reason, f"use at most {LARGEST} codes")
    return (packed_size(model.grids),)


def latents(
    model: nn.Module,
    data: Dataset,
    path: Path | None,
    batch_size: int,
    source: dict[str, str],
    world: World = ALONE,
) -> Dataset:
    """Return the codes of every image of ``data``, from ``path`` where they are there already.

    Args:
        model: With :class:`HasCodes`, trained; on a device.
        data: Images; their labels go into the rows of codes, 0 where there are none.
        path: Where the codes are kept, as safetensors; None in a process that follows another.
        batch_size: Images encoded at a time.
        source: Fingerprints of the images.
        world: The processes that each encode a part of these batches, and get all codes.

    Raises:
        Interrupted: It is time to stop; what is encoded is kept beside ``path``.
        ResultsError: The file cannot be read, the folder not be written, or the disk is full.
    """
    key = _key(model, source)
    kept = None if path is None else read_keyed(path, key)
    (known,) = world.agree(kept is not None)
    if known:
        splits = world.share_tensors(kept[0] if kept is not None else {})
    elif path is None:
        splits = _encoded(model, data, batch_size, world)
    else:
        share = key if world.size == 1 else f"{key}-{world.size}"
        journal = Journal(path.with_suffix(".part"), share)
        with journal.active():
            splits = _encoded(model, data, batch_size, world)
        write_keyed(path, key, splits)
        journal.remove()
    return Dataset(
        name=f"codes of {data.name}",
        version=data.version,
        splits=splits,
        files=data.files,
        verified=data.verified,
        note=data.note,
        known_fingerprints={name: fingerprint(codes) for name, codes in splits.items()},
    )


def _key(model: nn.Module, source: dict[str, str]) -> str:
    """Return a hash of the weights and the images, which decide the codes."""
    decisive = {"weights": weights_hash(model), "images": source}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _encoded(
    model: nn.Module, data: Dataset, batch_size: int, world: World
) -> dict[str, Int[Tensor, "_n packed"]]:
    training = model.training
    model.eval()
    rows = {
        split: _encoded_split(model, images, data.labels.get(split), batch_size, world)
        for split, images in data.splits.items()
    }
    model.train(training)
    return rows


def _encoded_split(
    model: nn.Module,
    images: Num[Tensor, "n *shape"],
    labels: Int[Tensor, " n"] | None,
    batch_size: int,
    world: World,
) -> Int[Tensor, "n packed"]:
    """Return the rows of a split; each process does some of the batches that one would do."""
    batches = -(-len(images) // batch_size)
    first, last = (batch_size * (batches * r // world.size) for r in (world.rank, world.rank + 1))
    own = None if labels is None else labels[first:last]
    coder, device = cast(HasCodes, model), next(model.parameters()).device
    if first >= last:
        found = torch.empty(0, packed_size(coder.grids), dtype=CODE_TYPE)
    else:
        found = encoded(coder, images[first:last], own, batch_size, device)
    return found if world.size == 1 else torch.cat(world.gathered(found))
