"""Tensors cached on disk under a key of what they were computed from; a hash of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dgm_bench.data.dataset import fingerprint


def weights_hash(model: nn.Module) -> str:
    """Return SHA-256 over the names and fingerprints of all parameters and buffers."""
    state = sorted(model.state_dict().items())
    text = "".join(f"{name} {fingerprint(tensor)}\n" for name, tensor in state)
    return hashlib.sha256(text.encode()).hexdigest()


def read_keyed(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return tensors and metadata of a safetensors file, or None where they are not those sought.

    Args:
        path: Where they would lie.
        key: What the file's metadata has to have as ``key``.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            # The file has keys, and is no dict that could be gone over itself.
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
