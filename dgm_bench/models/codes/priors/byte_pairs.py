"""Texts as tokens by byte-pair encoding, learnt by SentencePiece, with dropout of merges."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import torch
from jaxtyping import Int
from torch import Tensor

from dgm_bench.errors import DeclarationError
from dgm_bench.extras import needing

#: Segmentations of a text that are drawn with dropout.
DRAWS = 32
#: Of the segmentations' noise: they are part of the model, not of a run.
SEED = 0


class BytePairs:
    """A tokeniser of lower-cased texts by byte pairs (Sennrich et al. 2016), learnt from texts.

    SentencePiece (Kudo and Richardson 2018) learns the pairs and applies them; NFKC and case
    folding make texts lower-case. With dropout of merges (Provilkov et al. 2020, algorithm 1) they
    are applied here, as its own noise cannot be seeded in every version.

    Args:
        texts: What the pairs are learnt from; each counts once.
        vocabulary: The largest number of tokens; 0 is an unknown character.

    Raises:
        DeclarationError: The vocabulary is smaller than the number of characters.
        UsageError: SentencePiece is not installed.
    """

    def __init__(self, texts: Sequence[str], vocabulary: int) -> None:
        with needing("byte-pair encoding of captions"):
            import sentencepiece
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=written,
                model_type="bpe",
                vocab_size=vocabulary,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_name="nmt_nfkc_cf",
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                num_threads=1,
                minloglevel=3,
            )
        except RuntimeError as error:
            reason = f"is too small for the characters of {len(texts)} texts"
            raise DeclarationError(f"vocabulary {vocabulary}", reason, "raise it") from error
        self._model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
        size = self._model.vocab_size()
        self.pieces: tuple[str, ...] = tuple(map(self._model.id_to_piece, range(size)))
        self._number = {piece: number for number, piece in enumerate(self.pieces)}

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return list(self._model.encode(text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return str(self._model.decode(list(tokens)))

    def encode_with_dropout(self, text: str, dropout: float, noise: Random) -> list[int]:
        """Return the tokens of a text where each possible merge is left out at random.

        Of the pairs that may be merged, each is dropped with this probability, and the first
        learnt of the others is merged; where all are dropped, the text stays as it is.

        Args:
            text: Any.
            dropout: The probability; with 0 the tokens are those of :meth:`encode`.
            noise: Its source.
        """
        symbols = list("".join(self._model.encode(text, out_type=str)))
        while True:
            # Pieces are numbered in the order in which their merges were learnt.
            merges = [
                (self._number[pair], place)
                for place, pair in enumerate(map("".join, pairwise(symbols)))
                if pair in self._number and noise.random() >= dropout
            ]
            if not merges:
                return [self._number.get(symbol, 0) for symbol in symbols]
            _, place = min(merges)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]


def segmentations(
    pairs: BytePairs, texts: Sequence[str], length: int, padding: int, dropout: float
) -> Int[Tensor, "texts draws length"]:
    """Return the tokens of texts, padded: without dropout and, where there is any, draws with it.

    A draw that is longer than ``length`` is replaced by the tokens without dropout.

    Raises:
        DeclarationError: A text has more tokens than ``length``.
    """
    noise, rows = Random(SEED), []
    for text in texts:
        plain = pairs.encode(text)
        if len(plain) > length:
            reason = f"has {len(plain)} tokens, and the model has places for {length}"
            raise DeclarationError(f"the text {text!r}", reason, "shorten it, or raise text_length")
        drawn = [
            pairs.encode_with_dropout(text, dropout, noise) for _ in range(DRAWS if dropout else 0)
        ]
        rows.append([plain, *(own if len(own) <= length else plain for own in drawn)])
    padded = [[own + [padding] * (length - len(own)) for own in row] for row in rows]
    return torch.tensor(padded, dtype=torch.int64).reshape(len(texts), -1, length)
