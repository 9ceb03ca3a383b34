"""A causal transformer, with a cache of keys and values for sampling token by token."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.whole_batch import Dropout

#: Standard deviation of new weights (GPT, Radford et al. 2018, section 4.1).
WEIGHT_STD = 0.02


class Cache:
    """Keys and values of one layer for the tokens so far, in memory of the final size.

    Args:
        keys: Memory for keys.
        values: Memory for values.
    """

    def __init__(
        self,
        keys: Float[Tensor, "batch heads length size"],
        values: Float[Tensor, "batch heads length size"],
    ) -> None:
        self._keys, self._values, self._seen = keys, values, 0

    def extend(
        self,
        keys: Float[Tensor, "batch heads new size"],
        values: Float[Tensor, "batch heads new size"],
    ) -> tuple[Float[Tensor, "batch heads seen size"], Float[Tensor, "batch heads seen size"]]:
        """Append those of new tokens, and return those of all."""
        new = slice(self._seen, self._seen + keys.shape[2])
        self._keys[:, :, new], self._values[:, :, new] = keys, values
        self._seen = new.stop
        return self._keys[:, :, : new.stop], self._values[:, :, : new.stop]


class CausalAttention(nn.Module):
    """Multi-head self-attention of each token to itself and to those before it.

    Args:
        width: Number of features of a token.
        heads: Number of heads; divides ``width``.
        dropout: Dropout probability of attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch new width"],
        cache: Cache | None = None,
        mask: Bool[Tensor, "tokens tokens"] | None = None,
    ) -> Float[Tensor, "batch new width"]:
        """Return the attended values; with a filled cache ``x`` is the next token.

        Args:
            x: New tokens.
            cache: Of those before them; they are appended.
            mask: Which tokens, from the first on, each attends to, or None for all before it.
        """
        split = self.inward(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.extend(k, v)
        dropout = self.dropout if self.training else 0.0
        new, seen = q.shape[2], k.shape[2]
        own = None if mask is None else mask[seen - new : seen, :seen]
        # A single token is the last one: it attends to all.
        causal = own is None and new > 1
        h = F.scaled_dot_product_attention(
            q, k, v, attn_mask=own, dropout_p=dropout, is_causal=causal
        )
        gathered: Tensor = self.outward(h.transpose(1, 2).flatten(2))
        return gathered


class Block(nn.Module):
    """A pre-norm transformer block: attention and a feed-forward network, each residual.

    The layer norms precede each sublayer as in GPT-2 (Radford et al. 2019, section 2.3), and the
    hidden layer is four times as wide, as in GPT.

    Args:
        width: Number of features of a token.
        heads: Number of heads; divides ``width``.
        dropout: Dropout probability of attention weights and of each sublayer's outputs.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch new width"],
        cache: Cache | None = None,
        mask: Bool[Tensor, "tokens tokens"] | None = None,
    ) -> Float[Tensor, "batch new width"]:
        """Return the tokens' new features; arguments are as of :class:`CausalAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), cache, mask))
        h = self.contract(F.gelu(self.expand(self.network_norm(x))))
        features: Tensor = x + self.dropout(h)
        return features


class CausalTransformer(nn.Module):
    """A stack of blocks and a last layer norm, over embedded tokens.

    Weights are drawn from N(0, 0.02²) and biases are zero (GPT, section 4.1); the last weights of
    each residual sublayer are divided by the square root of their number (GPT-2, section 2.3).

    Args:
        width: Number of features of a token.
        depth: Number of blocks.
        heads: Number of heads; divides ``width``.
        dropout: As in :class:`Block`, and of the embedded tokens (GPT, section 4.1).

    Raises:
        DeclarationError: The heads do not divide the width.
    """

    def __init__(self, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        if heads < 1 or width % heads:
            reason = f"cannot share a width of {width}"
            remedy = "choose a width that is a multiple of the number of heads"
            raise DeclarationError(f"{heads} heads", reason, remedy)
        super().__init__()
        self.width, self.heads = width, heads
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(init_as_gpt)
        for name, parameter in self.named_parameters():
            if name.endswith(("outward.weight", "contract.weight")):
                nn.init.normal_(parameter, std=WEIGHT_STD * (2 * depth) ** -0.5)

    def forward(
        self,
        x: Float[Tensor, "batch new width"],
        caches: list[Cache] | None = None,
        masks: Sequence[Bool[Tensor, "tokens tokens"]] | None = None,
    ) -> Float[Tensor, "batch new width"]:
        """Return features of each token, which depend on it and those before it.

        Args:
            x: All tokens; with ``caches`` first the prefix, then one token at a time.
            caches: Those of :meth:`new_caches`; the new tokens are appended.
            masks: Of each block, which of all tokens each attends to; None for all before it.
        """
        x = self.dropout(x)
        for index, block in enumerate(self.blocks):
            cache = None if caches is None else caches[index]
            x = block(x, cache, None if masks is None else masks[index])
        features: Tensor = self.norm(x)
        return features

    def new_caches(self, batch: int, length: int) -> list[Cache]:
        """Return an empty cache for each block, of ``length`` tokens."""
        shape = (batch, self.heads, length, self.width // self.heads)
        new_empty = self.norm.weight.new_empty
        return [Cache(new_empty(shape), new_empty(shape)) for _ in self.blocks]


def init_as_gpt(module: nn.Module) -> None:
    """Draw weights of linear maps and embeddings from N(0, 0.02²); set biases to zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=WEIGHT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
