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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import HasCodes
from dgm_bench.models.packing import encoded, packed_size
from dgm_bench.records import write_atomically

#: Codebooks have fewer codes than this.
CODE_TYPE = torch.int16


def code_shape(model: nn.Module, stage: str) -> tuple[int, ...]:
    """Return the shape of one example of the codes of ``model``.

    Raises:
        DeclarationError: It has no codes.
    """
    if not isinstance(model, HasCodes):
        reason = f"{type(model).__name__} has no codes"
        raise DeclarationError(f"codes_of {stage!r}", reason, "name a stage with a codebook")
    return (packed_size(model.grids),)


def latents(
    model: nn.Module, data: Dataset, path: Path, batch_size: int, source: dict[str, str]
) -> Dataset:
    """Return the codes of every image of ``data``, from ``path`` where they are there already.

    Args:
        model: With :class:`HasCodes`, trained; on a device.
        data: Images; their labels go into the rows of codes, 0 where there are none.
        path: Where the codes are kept, as safetensors.
        batch_size: Images encoded at a time.
        source: Fingerprints of the images.
    """
    key = _key(model, source)
    splits = _kept(path, key)
    if splits is None:
        splits = _encoded(model, data, batch_size)
        write_atomically(path, to_safetensors(splits, {"key": key}))
    return Dataset(
        name=f"codes of {data.name}",
        version=data.version,
        splits=splits,
        files=data.files,
        verified=data.verified,
        note=data.note,
    )


def _key(model: nn.Module, source: dict[str, str]) -> str:
    """Return a hash of the weights and the images, which decide the codes."""
    digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _kept(path: Path, key: str) -> dict[str, Tensor] | None:
    """Return the codes that lie there, unless they are of other weights or damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
    except SafetensorError:
        return None


def _encoded(model: nn.Module, data: Dataset, batch_size: int) -> dict[str, Tensor]:
    coder, device = cast(HasCodes, model), next(model.parameters()).device
    training = model.training
    model.eval()
    rows = {
        split: encoded(coder, images, data.labels.get(split), batch_size, device)
        for split, images in data.splits.items()
    }
    model.train(training)
    return {split: codes.to(CODE_TYPE).cpu() for split, codes in rows.items()}
