"""PixelCNN++ (https://arxiv.org/abs/1701.05517) over the codes of one level of a VQ-VAE."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from dgm_bench.annotations import Count, CountFrom0, Fraction
from dgm_bench.models.codes.priors.code_prior import CachedPrior, CodeLevel, CodePrior
from dgm_bench.models.codes.priors.code_sampling import Context
from dgm_bench.models.codes.priors.two_streams import TwoStreams
from dgm_bench.models.codes.priors.two_streams_sampling import CachedTwoStreams
from dgm_bench.models.codes.priors.weight_norm import NormedLinear, initialising
from dgm_bench.models.elementwise import elu

#: Deviation of the logits over the first batch.
LOGIT_SCALE = 0.1


class PixelCNNPP(CodePrior):
    """PixelCNN++'s network over one level's codes, given the class and the levels above.

    Codes have no order, so that its mixture of logistics has no meaning for them: the network ends
    in logits, and begins with embeddings. Class and levels above enter every block before its gate.

    Salimans, Karpathy, Chen and Kingma (2017), https://arxiv.org/abs/1701.05517, section 2; layers
    and initialisation as in openai/pixel-cnn.

    Args:
        event_shape: Shape of a row of packed codes.
        grids: Rows and columns of each level, top first.
        level: The level to model; 0 is the top.
        codes: Number of codes of each level, or one number for all.
        classes: Number of classes to be conditioned on, or None.
        hidden: Channels of both streams.
        blocks: Residual layers at each scale on the way down.
        scales: Number of scales, each of half the sides of the one before.
        dropout: Dropout probability in the residual blocks.
        conditioning_layers: Number of residual blocks over the levels above, if any.
        conditioning_residual: Channels inside those blocks; ``hidden`` if None.

    Raises:
        DeclarationError: Shape, grids, level and numbers of codes are inconsistent.

    Example:
        >>> shape = {"grids": [[1, 1]], "level": 0, "codes": 3, "hidden": 8}
        >>> model = PixelCNNPP((2,), **shape, blocks=1, scales=1)
        >>> rows = torch.tensor([[0, 0], [1, 0], [2, 0]])  # code and class, which is unused
        >>> round(model.log_prob(rows).exp().sum().item(), 4)
        1.0
    """

    #: As many as in the released code.
    initial_examples: int | None = 100

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        grids: Sequence[Sequence[Count]],
        level: CountFrom0,
        codes: Count | Sequence[Count],
        classes: Count | None = None,
        hidden: Count,
        blocks: Count = 5,
        scales: Count = 3,
        dropout: Fraction = 0.5,
        conditioning_layers: CountFrom0 = 20,
        conditioning_residual: Count | None = None,
    ) -> None:
        code_level = CodeLevel(event_shape, grids, level, codes, classes)
        super().__init__(code_level, hidden, conditioning_residual or hidden, conditioning_layers)
        self.streams = TwoStreams(hidden, hidden, blocks, scales, dropout, self.conditional)
        self.head = NormedLinear(hidden, self.codes, LOGIT_SCALE)

    def initialise(self, x: Int[Tensor, "batch packed"]) -> None:
        """Set lengths and biases of all layers from packed codes."""
        with initialising(self):
            self.log_prob(x)

    def network(
        self, embedded: Float[Tensor, "n rows columns hidden"], context: Context
    ) -> Float[Tensor, "n rows columns codes"]:
        """Return the logits of every position given the embedded codes before it."""
        logits: Tensor = self.head(elu(self.streams(embedded, context)))
        return logits

    def cached(self, n: int, context: Context) -> CachedPixelCNNPP:
        """Return the network with empty caches and without dropout, at the first position."""
        return CachedPixelCNNPP(self, n, context)


class CachedPixelCNNPP(CachedPrior):
    """A :class:`PixelCNNPP` evaluated one position at a time.

    Args:
        model: In evaluation mode.
        n: Batch.
        context: The features that the codes are conditioned on.
    """

    def __init__(self, model: PixelCNNPP, n: int, context: Context) -> None:
        super().__init__(model, n, context)
        self.streams = CachedTwoStreams(model.streams, n, model.grid[1], context)
        self.head = model.head

    def begin_row(self, row: int) -> None:
        """Compute all that does not depend on the codes of the row."""
        self.streams.begin_row(row)

    def logits(self, column: int) -> Float[Tensor, "n codes"]:
        """Return the logits at a column of the row."""
        logits: Tensor = self.head(elu(self.streams.step(column)))
        return logits

    def feed(self, code: Int[Tensor, " n"], column: int) -> None:
        """Append the codes drawn at a column."""
        super().feed(code, column)
        self.streams.feed(self.row[:, column + 1], column)
