"""A transformer over the codes of an image, given a class or a text (DALL-E's second stage)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0, Fraction
from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import Levels
from dgm_bench.models.codes.packing import Grids, unpack
from dgm_bench.models.codes.priors.attention import WEIGHT_STD, CausalTransformer, init_as_gpt
from dgm_bench.models.codes.priors.code_prior import CodeLevel
from dgm_bench.models.networks.discrete_relaxations import gumbel_noise

Prefix = Literal["none", "class", "text"]

#: Number of byte values, and the padding token.
BYTES = PADDING = 256


class GridEmbedding(nn.Module):
    """Tokens of codes on a grid: the sum of embeddings of code, row and column.

    Args:
        codes: Number of codes.
        grid: Rows and columns.
        width: Number of features of a token.
    """

    def __init__(self, codes: int, grid: Sequence[int], width: int) -> None:
        super().__init__()
        rows, self.row_length = grid
        self.code = nn.Embedding(codes, width)
        self.row, self.column = nn.Embedding(rows, width), nn.Embedding(self.row_length, width)

    def forward(
        self, codes: Int[Tensor, "batch new"], first: int = 0
    ) -> Float[Tensor, "batch new width"]:
        """Return tokens of consecutive codes in raster order, from position ``first``."""
        places = torch.arange(first, first + codes.shape[1], device=codes.device)
        where = self.row(places // self.row_length) + self.column(places % self.row_length)
        tokens: Tensor = self.code(codes) + where
        return tokens


class TextEmbedding(nn.Module):
    """Tokens of text with position embeddings, and a learned padding token for each position.

    Padding is not masked (Ramesh et al. 2021, section 2.2).

    Args:
        length: Number of positions.
        width: Number of features of a token.
        tokens: Number of tokens, by default bytes; the next number is padding.
    """

    def __init__(self, length: int, width: int, tokens: int = BYTES) -> None:
        super().__init__()
        self.byte, self.place = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.padding = nn.Embedding(length, width)

    def forward(self, text: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """Return the embedded tokens and padding."""
        padding = self.byte.num_embeddings
        written = self.byte(text.clamp(max=padding - 1)) + self.place.weight
        return torch.where((text == padding)[..., None], self.padding.weight, written)


class CodeTransformer(nn.Module):
    """``p(codes of one level | levels above, class or text)``, code by code in raster order.

    A small version of DALL-E's decoder-only transformer (Ramesh et al. 2021, section 2.2 and
    appendix B), with row and column embeddings of image tokens. The sequence is the levels above,
    the class or the text, a learned token that starts the image, and the image.

    Unlike in DALL-E attention is dense, not by row, column or neighbourhood; text is bytes and not
    byte pairs; and text is conditioned on, not modelled: DALL-E's loss is 1/8 that of the text and
    7/8 that of the image, this one is the image's alone. The model that has all of these is
    :class:`~dgm_bench.models.codes.priors.joint_transformer.JointTransformer`.

    Ramesh et al. (2021), https://arxiv.org/abs/2102.12092, section 2.2 and appendix B.

    Args:
        event_shape: Shape of a row of packed codes.
        grids: Rows and columns of each level, top first.
        level: The level whose codes are modelled; those before it in ``grids`` are given.
        codes: Number of codes of each level, or one number for all.
        classes: Number of classes; None where ``prefix`` is ``"none"``.
        prefix: ``"none"``, ``"class"``: one learned token, or ``"text"``: the class's caption.
        captions: One for each class, for ``"text"``.
        width: Number of features of a token; 3968 in DALL-E, with 64 blocks of 62 heads.
        depth: Number of blocks.
        heads: Number of heads; divides ``width``.
        dropout: Dropout probability of embeddings, attention weights and sublayers' outputs.

    Raises:
        DeclarationError: Shape, grids, level and numbers of codes are inconsistent.
        DeclarationError: Prefix, classes and captions, or width and heads, do not.

    Example:
        >>> shape = {"grids": [[1, 1]], "level": 0, "codes": 3, "width": 8}
        >>> model = CodeTransformer((2,), **shape, depth=1, heads=2)
        >>> rows = torch.tensor([[0, 0], [1, 0], [2, 0]])  # code and class, which is unused
        >>> round(model.log_prob(rows).exp().sum().item(), 4)
        1.0
    """

    captions: Int[Tensor, "classes length"]

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        grids: Grids,
        level: CountFrom0,
        codes: Count | Sequence[Count],
        classes: Count | None = None,
        prefix: Prefix = "none",
        captions: Sequence[str] | None = None,
        width: Count,
        depth: Count,
        heads: Count,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        sizes = CodeLevel(event_shape, grids, level, codes, classes).sizes
        _check_prefix(prefix, classes, captions)
        self.grids = tuple((rows, columns) for rows, columns in grids)
        self.codebook_sizes, self.level, self.classes = tuple(sizes), level, classes
        texts = _as_bytes(captions or [])
        self.register_buffer("captions", texts, persistent=False)
        self.prefix = _prefix_embedding(prefix, classes, texts.shape[1], width)
        embeddings = [GridEmbedding(*of, width) for of in zip(sizes, grids, strict=True)]
        self.above, self.embed = nn.ModuleList(embeddings[:level]), embeddings[level]
        self.start = nn.Parameter(torch.randn(width) * WEIGHT_STD)
        self.logits = nn.Linear(width, sizes[level])
        self.apply(init_as_gpt)
        # Last, as some of its weights are initialised otherwise.
        self.transformer = CausalTransformer(width, depth, heads, dropout)

    def log_prob(self, x: Int[Tensor, "batch packed"]) -> Float[Tensor, " batch"]:
        """Return the log probability of the level's codes in packed rows, in nats."""
        levels, labels = unpack(x, self.grids)
        tokens = self.prefix_tokens(labels)
        return self.log_prob_given(levels[self.level], tokens, levels[: self.level])

    def log_prob_given(
        self,
        codes: Int[Tensor, "batch rows columns"],
        prefix_tokens: Int[Tensor, "batch length"],
        above: Sequence[Int[Tensor, "batch _rows _columns"]] = (),
    ) -> Float[Tensor, " batch"]:
        """Return the log probability of codes after any prefix, in nats.

        Args:
            codes: Codes of the level.
            prefix_tokens: Those of :meth:`prefix_tokens` or :meth:`text_tokens`.
            above: Codes of the levels above, top first.

        Raises:
            DeclarationError: The numbers of tokens or levels are not the model's.
        """
        flat = codes.flatten(1)
        stream = self._stream(prefix_tokens, above)
        first = stream.shape[1] - 1
        stream = torch.cat([stream, self.embed(flat[:, :-1])], 1)
        logits = self.logits(self.transformer(stream)[:, first:])
        return -F.cross_entropy(logits.transpose(1, 2), flat, reduction="none").sum(1)

    def sample_codes(
        self, above: Levels, labels: Int[Tensor, " n"], generator: torch.Generator
    ) -> Int[Tensor, "n rows columns"]:
        """Return codes given those of the levels above and the classes (zeros where unused)."""
        return self.sample_codes_given(self.prefix_tokens(labels), above, generator)

    @torch.no_grad()
    def sample_codes_given(
        self,
        prefix_tokens: Int[Tensor, "n length"],
        above: Levels,
        generator: torch.Generator,
    ) -> Int[Tensor, "n rows columns"]:
        """Return codes after any prefix, with cached keys and values.

        Raises:
            DeclarationError: The numbers of tokens or levels are not the model's.
        """
        new, grid = self._stream(prefix_tokens, above), self.grids[self.level]
        caches = self.transformer.new_caches(len(new), new.shape[1] + math.prod(grid) - 1)
        drawn: list[Tensor] = []
        for place in range(math.prod(grid)):
            ask_within()
            drawn.append(self._draw(self.transformer(new, caches), generator))
            new = self.embed(drawn[-1], place)
        return torch.cat(drawn, 1).reshape(-1, *grid)

    @torch.no_grad()
    def sample_codes_uncached(
        self, above: Levels, labels: Int[Tensor, " n"], generator: torch.Generator
    ) -> Int[Tensor, "n rows columns"]:
        """Return the codes of :meth:`sample_codes`, by one pass of the whole network per code."""
        given, grid = self._stream(self.prefix_tokens(labels), above), self.grids[self.level]
        codes = labels.new_empty(len(labels), 0)
        for _ in range(math.prod(grid)):
            ask_within()
            features = self.transformer(torch.cat([given, self.embed(codes)], 1))
            codes = torch.cat([codes, self._draw(features, generator)], 1)
        return codes.reshape(-1, *grid)

    def prefix_tokens(self, labels: Int[Tensor, " batch"]) -> Int[Tensor, "batch length"]:
        """Return the prefix of each class: nothing, the class, or the bytes of its caption."""
        if isinstance(self.prefix, TextEmbedding):
            return self.captions[labels]
        return labels[:, None] if self.prefix is not None else labels.new_empty(len(labels), 0)

    def text_tokens(self, texts: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Return the bytes of texts, padded to the model's length.

        Raises:
            DeclarationError: A text is longer than the longest caption, or the model takes no text.
        """
        length, longest = self.captions.shape[1], max(len(text.encode()) for text in texts)
        if longest > length:
            reason = f"is longer than the {length} bytes that the model has places for"
            remedy = "shorten it, or train with prefix='text' and a caption as long"
            raise DeclarationError(f"a text of {longest} bytes", reason, remedy)
        return _as_bytes(texts, length).to(self.captions.device)

    def _stream(
        self,
        tokens: Int[Tensor, "batch length"],
        above: Sequence[Int[Tensor, "batch _rows _columns"]],
    ) -> Float[Tensor, "batch given width"]:
        """Return the embedded levels above and prefix, and the token that starts the image."""
        length = self.prefix_tokens(tokens.new_zeros(1)).shape[1]
        if tokens.shape[1] != length or len(above) != self.level:
            thing = f"{tokens.shape[1]} prefix tokens and {len(above)} levels above"
            reason = f"do not fit the model, which takes {length} and {self.level}"
            raise DeclarationError(thing, reason, "make tokens by prefix_tokens or text_tokens")
        given = [f(codes.flatten(1)) for f, codes in zip(self.above, above, strict=True)]
        if self.prefix is not None:
            given.append(self.prefix(tokens))
        return torch.cat([*given, self.start.expand(len(tokens), 1, -1)], 1)

    def _draw(
        self, features: Float[Tensor, "n seen width"], generator: torch.Generator
    ) -> Int[Tensor, "n 1"]:
        """Draw the code after the last token by the Gumbel-max trick."""
        logits: Tensor = self.logits(features[:, -1])
        return (logits + gumbel_noise(logits, generator)).argmax(1, keepdim=True)


def _prefix_embedding(
    prefix: Prefix, classes: int | None, length: int, width: int
) -> nn.Module | None:
    if prefix == "text":
        return TextEmbedding(length, width)
    return None if classes is None else nn.Embedding(classes, width)


def _as_bytes(texts: Sequence[str], length: int | None = None) -> Int[Tensor, "texts length"]:
    """Return UTF-8 bytes, padded to ``length`` or to the longest."""
    encoded = [list(text.encode()) for text in texts]
    if length is None:
        length = max(map(len, encoded), default=0)
    rows = [text + [PADDING] * (length - len(text)) for text in encoded]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(texts), length)


def _check_prefix(prefix: Prefix, classes: int | None, captions: Sequence[str] | None) -> None:
    if (prefix == "none") != (classes is None):
        reason = "'none' is for classes=None, 'class' and 'text' need the number of classes"
        thing = f"prefix {prefix!r} with classes {classes}"
        raise DeclarationError(thing, reason, "change one of the two")
    if (prefix == "text") != (captions is not None):
        reason = "'text' needs captions, one for each class, and the others take none"
        thing = f"prefix {prefix!r} with captions {captions}"
        raise DeclarationError(thing, reason, "change one of the two")
    if captions is not None and (len(captions) != classes or not all(captions)):
        thing = f"{sum(map(bool, captions))} captions that are not empty"
        raise DeclarationError(thing, f"are not {classes} classes", "give one for each class")
