"""DALL-E's second stage: one transformer over the tokens of a text and then of its image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, Fraction
from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.models.capabilities import Levels
from dgm_bench.models.codes.packing import Grids, unpack
from dgm_bench.models.codes.priors.attention import WEIGHT_STD, CausalTransformer, init_as_gpt
from dgm_bench.models.codes.priors.byte_pairs import BytePairs, segmentations
from dgm_bench.models.codes.priors.code_prior import CodeLevel
from dgm_bench.models.codes.priors.code_transformer import GridEmbedding, TextEmbedding
from dgm_bench.models.codes.priors.sparse_attention import Pattern, joint_mask, layer_patterns
from dgm_bench.models.networks.discrete_relaxations import gumbel_noise
from dgm_bench.models.whole_batch import integers_

Attention = Literal["sparse", "dense"]


class JointTransformer(nn.Module):
    """``p(text) p(codes | text)``, token by token: a decoder-only transformer over both.

    The sequence is a token that starts the text, byte pairs of the lower-cased text, a learnt
    padding token for each position that the text leaves, a token that starts the image, and codes
    in raster order with row and column embeddings. Layers attend within the image by row, column
    or neighbourhood (:mod:`~dgm_bench.models.codes.priors.sparse_attention`), under masks: that
    saves no time here.

    Texts are those of a list, by whose numbers packed rows name them. Probabilities of all texts
    of at most ``text_length`` tokens sum to one: the first padding, which ends a text, is
    predicted, and the rest is certain.

    Ramesh et al. (2021), https://arxiv.org/abs/2102.12092, section 2.2 and appendix B.

    Args:
        event_shape: Shape of a row of packed codes, which ends in the number of the caption.
        grids: Rows and columns of the codes, of one level.
        codes: Number of codes; 8,192 in DALL-E.
        captions: The texts.
        known: Byte pairs are learnt from so many captions, the first ones.
        vocabulary: Number of tokens of text; 16,384 in DALL-E.
        text_length: Positions for text; 256 in DALL-E.
        bpe_dropout: Probability that a merge is left out in training; 0.1 in DALL-E.
        attention: ``"sparse"``, or ``"dense"``: every token attends to all before it.
        kernel: Side of the last layer's convolutional attention; 11 in DALL-E.
        width: Number of features of a token; 3,968 in DALL-E.
        depth: Number of blocks; 64 in DALL-E.
        heads: Number of heads; divides ``width``; 62 in DALL-E.
        dropout: Dropout probability of embeddings, attention weights and sublayers' outputs.

    Raises:
        DeclarationError: Shape, grids and number of codes are inconsistent, a caption does not
            fit, the vocabulary is too small, or width and heads do not go together.
        UsageError: SentencePiece is not installed.

    Example:
        >>> shape = {"grids": [[1, 1]], "codes": 3, "captions": ["a", "b a"], "known": 2}
        >>> text = {"vocabulary": 6, "text_length": 4, "bpe_dropout": 0.0}
        >>> sizes = {"kernel": 3, "width": 8, "depth": 2, "heads": 2}
        >>> model = JointTransformer((2,), **shape, **text, attention="sparse", **sizes)
        >>> rows = torch.tensor([[0, 1], [1, 1], [2, 1]])  # code and caption
        >>> round(model.log_prob(rows).exp().sum().item(), 4)
        1.0
    """

    segmentations: Int[Tensor, "captions draws length"]
    masks: Bool[Tensor, "patterns tokens tokens"]
    level = 0

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        grids: Grids,
        codes: Count,
        captions: Sequence[str],
        known: Count,
        vocabulary: Count,
        text_length: Count,
        bpe_dropout: Fraction = 0.0,
        attention: Attention = "sparse",
        kernel: Count,
        width: Count,
        depth: Count,
        heads: Count,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        require_choice("attention", attention, ("sparse", "dense"))
        _require(kernel, known, captions)
        sizes = CodeLevel(event_shape, grids, 0, codes, len(captions)).sizes
        self.grids = tuple((rows, columns) for rows, columns in grids)
        self.codebook_sizes, self.classes = tuple(sizes), len(captions)
        self.padding, self.text_length = vocabulary, text_length
        self.pairs = BytePairs(captions[:known], vocabulary)
        texts = segmentations(self.pairs, captions, text_length, vocabulary, bpe_dropout)
        self.register_buffer("segmentations", texts, persistent=False)
        self.text = TextEmbedding(text_length, width, vocabulary)
        self.embed = GridEmbedding(codes, grids[0], width)
        #: What starts the text, and what starts the image.
        self.starts = nn.Parameter(torch.randn(2, width) * WEIGHT_STD)
        # Besides the tokens, the end.
        self.text_logits, self.logits = nn.Linear(width, vocabulary + 1), nn.Linear(width, codes)
        self.apply(init_as_gpt)
        # Last, as some of its weights are initialised otherwise.
        self.transformer = CausalTransformer(width, depth, heads, dropout)
        self.patterns = layer_patterns(depth) if attention == "sparse" else []
        # Text with both starts; the last code is never attended to.
        distinct = [joint_mask(p, text_length + 2, grids[0], kernel) for p in self._distinct]
        masks = torch.stack(distinct) if distinct else torch.empty(0, 0, 0, dtype=torch.bool)
        self.register_buffer("masks", masks, persistent=False)

    # ------------------------------------------------------------------- the density

    def log_prob(self, x: Int[Tensor, "batch packed"]) -> Float[Tensor, " batch"]:
        """Return the log probability of codes given their captions, in nats, of packed rows."""
        (codes,), captions = unpack(x, self.grids)
        return self.log_prob_given(codes, self.caption_tokens(captions))

    def log_prob_given(
        self, codes: Int[Tensor, "batch rows columns"], text: Int[Tensor, "batch length"]
    ) -> Float[Tensor, " batch"]:
        """Return the log probability of codes given the tokens of any texts, in nats."""
        return self._log_prob_of_codes(self._features(text, codes), codes)

    def log_prob_of_text(self, text: Int[Tensor, "batch length"]) -> Float[Tensor, " batch"]:
        """Return the log probability of the tokens of texts, with their end, in nats."""
        features = self._run(self._embedded_text(text)[:, : self.text_length])
        return self._log_prob_of_text(features, text)

    def terms(
        self, x: Int[Tensor, "batch packed"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return what the loss is made of, of packed rows.

        These are the log probability of each text in nats, its number of tokens with the end, and
        the log probability of the codes given the text. In training merges are dropped at random.
        """
        (codes,), captions = unpack(x, self.grids)
        text = self._drawn_tokens(captions, generator) if self.training else None
        text = self.caption_tokens(captions) if text is None else text
        features = self._features(text, codes)
        of_codes = self._log_prob_of_codes(features, codes)
        return self._log_prob_of_text(features, text), self.lengths(text), of_codes

    # ------------------------------------------------------------------- texts

    def caption_tokens(self, captions: Int[Tensor, " batch"]) -> Int[Tensor, "batch length"]:
        """Return the tokens of captions by their numbers, padded."""
        return self.segmentations[captions, 0]

    def text_tokens(self, texts: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Return the tokens of any texts, padded.

        Raises:
            DeclarationError: A text has more tokens than there are positions.
        """
        rows = segmentations(self.pairs, texts, self.text_length, self.padding, 0.0)
        return rows[:, 0].to(self.segmentations.device)

    def lengths(self, text: Int[Tensor, "batch length"]) -> Int[Tensor, " batch"]:
        """Return how many tokens of each text are predicted: those written, and the end."""
        return self._predicted(text).sum(1)

    def _predicted(self, text: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
        """Say which positions are not certain: all but those after the first padding."""
        return F.pad(text[:, :-1] != self.padding, (1, 0), value=True)

    def _drawn_tokens(
        self, captions: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Int[Tensor, "batch length"] | None:
        draws = self.segmentations.shape[1] - 1
        if not draws:
            return None
        drawn = integers_(torch.empty_like(captions), draws, generator)
        return self.segmentations[captions, 1 + drawn]

    # ------------------------------------------------------------------- sampling

    def sample_codes(
        self, above: Levels, labels: Int[Tensor, " n"], generator: torch.Generator
    ) -> Int[Tensor, "n rows columns"]:
        """Return codes given the captions of these numbers; there are no levels above."""
        return self.sample_codes_given(self.caption_tokens(labels), generator)

    @torch.no_grad()
    def sample_codes_given(
        self, text: Int[Tensor, "n length"], generator: torch.Generator
    ) -> Int[Tensor, "n rows columns"]:
        """Return codes given the tokens of any texts, with cached keys and values."""
        new, grid = self._with_start_of_image(text), self.grids[0]
        caches = self.transformer.new_caches(len(new), new.shape[1] + math.prod(grid) - 1)
        drawn: list[Tensor] = []
        for place in range(math.prod(grid)):
            ask_within()
            features = self.transformer(new, caches, self._masks)
            drawn.append(_draw(self.logits(features[:, -1]), generator))
            new = self.embed(drawn[-1], place)
        return torch.cat(drawn, 1).reshape(-1, *grid)

    @torch.no_grad()
    def sample_codes_uncached(
        self, text: Int[Tensor, "n length"], generator: torch.Generator
    ) -> Int[Tensor, "n rows columns"]:
        """Return the codes of :meth:`sample_codes_given`, by a pass of the network per code."""
        given, codes = self._with_start_of_image(text), text[:, :0]
        for _ in range(math.prod(self.grids[0])):
            ask_within()
            features = self._run(torch.cat([given, self.embed(codes)], 1))
            codes = torch.cat([codes, _draw(self.logits(features[:, -1]), generator)], 1)
        return codes.reshape(-1, *self.grids[0])

    # ------------------------------------------------------------------- the network

    @property
    def _distinct(self) -> list[Pattern]:
        return sorted(set(self.patterns))

    @property
    def _masks(self) -> list[Tensor] | None:
        """Which tokens each layer attends to; None for all before each."""
        return [self.masks[self._distinct.index(p)] for p in self.patterns] or None

    def _run(
        self, stream: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        features: Tensor = self.transformer(stream, None, self._masks)
        return features

    def _embedded_text(self, text: Int[Tensor, "batch length"]) -> Float[Tensor, "batch own width"]:
        start = self.starts[0].expand(len(text), 1, -1)
        return torch.cat([start, self.text(text)], 1)

    def _with_start_of_image(
        self, text: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch given width"]:
        return torch.cat([self._embedded_text(text), self.starts[1].expand(len(text), 1, -1)], 1)

    def _features(
        self, text: Int[Tensor, "batch length"], codes: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Return features of all tokens but the last code, each of which tells the next one."""
        image = self.embed(codes.flatten(1)[:, :-1])
        return self._run(torch.cat([self._with_start_of_image(text), image], 1))

    def _log_prob_of_codes(
        self,
        features: Float[Tensor, "batch tokens width"],
        codes: Int[Tensor, "batch rows columns"],
    ) -> Float[Tensor, " batch"]:
        logits = self.logits(features[:, self.text_length + 1 :])
        return -F.cross_entropy(logits.mT, codes.flatten(1), reduction="none").sum(1)

    def _log_prob_of_text(
        self, features: Float[Tensor, "batch tokens width"], text: Int[Tensor, "batch length"]
    ) -> Float[Tensor, " batch"]:
        logits = self.text_logits(features[:, : self.text_length])
        nats = F.cross_entropy(logits.mT, text, reduction="none")
        return -(nats * self._predicted(text)).sum(1)


def _draw(logits: Float[Tensor, "n codes"], generator: torch.Generator) -> Int[Tensor, "n 1"]:
    """Draw a code by the Gumbel-max trick."""
    return (logits + gumbel_noise(logits, generator)).argmax(1, keepdim=True)


def _require(kernel: int, known: int, captions: Sequence[str]) -> None:
    if kernel % 2 == 0:
        raise DeclarationError(f"kernel {kernel}", "has no middle", "use an odd one")
    if not (0 < known <= len(captions) and all(captions)):
        thing = f"{known} known captions of {len(captions)}"
        raise DeclarationError(thing, "are no texts to learn from", "give some that are not empty")
