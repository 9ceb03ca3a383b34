"""Tensors cached on disk under a key of what they were computed from; a hash of weights.

The files are ordinary safetensors; their metadata has the key, and a digest of all the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dgm_bench.data.dataset import fingerprint
from dgm_bench.errors import ResultsError, reading
from dgm_bench.sealed import set_aside, staged


def weights_hash(model: nn.Module) -> str:
    """Return SHA-256 over the names and fingerprints of all parameters and buffers."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256 over the names and fingerprints of tensors, whatever their order."""
    lines = (f"{name} {fingerprint(tensor)}\n" for name, tensor in sorted(tensors.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_keyed(
    path: Path, key: str, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Keep tensors, so that they are there whole or not at all.

    Args:
        path: Where they lie: a safetensors file.
        key: Hash of what they were computed from.
        tensors: By name, on any device.
        notes: More metadata.

    Raises:
        ResultsError: The folder cannot be written, or the disk is full.
    """
    host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {**(notes or {}), "key": key}
    metadata["digest"] = _digest(host, metadata)
    with staged(path) as temporary:
        try:
            save_file(host, temporary, metadata)
        except SafetensorError as error:
            remedy = "free space there, or name another folder"
            raise ResultsError(path, f"cannot be written ({error})", remedy) from error


def read_keyed(
    path: Path, key: str, instead: str = "it is made again"
) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return tensors and metadata of a file, or None where they are not those sought.

    Args:
        path: Where they would lie; a damaged file is set aside, and told in one line.
        key: What the file's metadata has to have as ``key``.
        instead: What is done where it is damaged.

    Raises:
        ResultsError: When the system cannot read the file.
    """
    if not path.exists():
        return None
    with reading(path, ResultsError):
        path.open("rb").close()
    try:
        tensors, metadata = _read(path)
        digest = metadata.pop("digest", None)
        damage = "" if digest == _digest(tensors, metadata) else "its digest is another"
    except Exception as error:  # a damaged file can raise anything
        damage = str(error) or type(error).__name__
    if damage:
        set_aside(path, f"is damaged ({damage})", instead)
        return None
    return (tensors, metadata) if metadata["key"] == key else None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        # The file has keys, and is no dict that could be gone over itself.
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return tensors, dict(sorted((file.metadata() or {}).items()))


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    text = json.dumps(metadata, sort_keys=True) + tensors_hash(tensors)
    return hashlib.sha256(text.encode()).hexdigest()
