"""Fusion: what is joined of the score features and the letters, before the model's last two layers.

All read the same for a window and for a whole gene: cross attention sees the bases at fixed offsets
from the labelled one, never a whole window, whose ends would move with the base.
Axes: B rows, H width of the score features, E channels of the letters, O offsets, D channels of a
neighbour, A channels of the attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metalayer.models.constants import ATTENTION_HEAD_DIM, ATTENTION_HEADS, ATTENTION_REACH_BP
from metalayer.models.encoders import SequenceEncoder


class Fusion(nn.Module):
    """What every fusion offers.

    Attributes:
        reach_bp: bases on either side whose features it wants of the encoder; None if it wants none.
        output_dim: channels J of the result.
    """

    reach_bp: int | None = None
    output_dim: int

    def forward(self, scores: Tensor, letters: Tensor, around: Tensor | None = None) -> Tensor:
        """Join rows.

        Args:
            scores: float32 (B, H).
            letters: float32 (B, E), at the labelled base.
            around: float32 (B, 2 * reach_bp + 1, D), the features of the bases around it; given if
                `reach_bp` is a number.

        Returns:
            float32 (B, J).
        """
        raise NotImplementedError

    def dense(self, scores: Tensor, letters: Tensor, around: Tensor) -> Tensor:
        """Join a stretch with its neighbourhood: of fusions whose `reach_bp` is a number.

        Args:
            scores: float32 (n, H).
            letters: float32 (n, E).
            around: float32 (n + 2 * reach_bp, D); the neighbourhood of base i is rows i to i + 2 * reach_bp.

        Returns:
            float32 (n, J).
        """
        raise NotImplementedError


class ConcatFusion(Fusion):
    """Side by side."""

    def __init__(self, hidden_dim: int, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.output_dim = hidden_dim + encoder.output_dim

    def forward(self, scores: Tensor, letters: Tensor, around: Tensor | None = None) -> Tensor:
        """[scores, letters]: (B, H + E)."""
        return torch.cat([scores, letters], dim=-1)


class GatedFusion(Fusion):
    """A mean of scores and letters, channel by channel, weighted by a gate that looks at both.

    Without letters the gate scales the scores.
    """

    def __init__(self, hidden_dim: int, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.output_dim = hidden_dim
        self.project = nn.Linear(encoder.output_dim, hidden_dim) if encoder.output_dim else None
        self.gate = nn.Linear(hidden_dim + encoder.output_dim, hidden_dim)

    def forward(self, scores: Tensor, letters: Tensor, around: Tensor | None = None) -> Tensor:
        """The weighted mean: (B, H)."""
        gate = torch.sigmoid(self.gate(torch.cat([scores, letters], dim=-1)))
        kept = gate * scores
        return kept if self.project is None else kept + (1.0 - gate) * self.project(letters)


class CrossAttentionFusion(Fusion):
    """[scores, letters] ask the bases around the labelled one; the answer is joined to them.

    Key and value of the base at offset o are linear in its features plus a learned embedding of o.
    Both terms are kept apart: features are projected once a base, also where a base is the neighbour
    of many (`dense`), and embeddings once a batch. A bias of the keys would cancel in the softmax.
    """

    reach_bp = ATTENTION_REACH_BP

    def __init__(self, hidden_dim: int, encoder: SequenceEncoder) -> None:
        super().__init__()
        asked = hidden_dim + encoder.output_dim
        self.output_dim = asked + ATTENTION_HEADS * ATTENTION_HEAD_DIM
        self.query = nn.Linear(asked, ATTENTION_HEADS * ATTENTION_HEAD_DIM)
        self.key = nn.Linear(encoder.neighbour_dim, ATTENTION_HEADS * ATTENTION_HEAD_DIM, bias=False)
        self.value = nn.Linear(encoder.neighbour_dim, ATTENTION_HEADS * ATTENTION_HEAD_DIM, bias=False)
        self.offsets = nn.Parameter(0.1 * torch.randn(2 * ATTENTION_REACH_BP + 1, encoder.neighbour_dim))

    def forward(self, scores: Tensor, letters: Tensor, around: Tensor | None = None) -> Tensor:
        """[scores, letters, answer]: (B, H + E + A)."""
        assert around is not None
        return self._attend(torch.cat([scores, letters], dim=-1), self.key(around), self.value(around))

    def dense(self, scores: Tensor, letters: Tensor, around: Tensor) -> Tensor:
        """[scores, letters, answer] of a stretch: (n, H + E + A)."""
        keys, values = (
            projected.unfold(0, 2 * ATTENTION_REACH_BP + 1, 1).transpose(1, 2)  # a view: (n, O, A)
            for projected in (self.key(around), self.value(around))
        )
        return self._attend(torch.cat([scores, letters], dim=-1), keys, values)

    def _attend(self, asked: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Rows (B, H + E), keys and values (B, O, A) without their offsets, to (B, H + E + A)."""
        query = _heads(self.query(asked)) * ATTENTION_HEAD_DIM**-0.5
        weights = torch.softmax(
            torch.einsum("bhc,bohc->bho", query, _heads(keys))
            + torch.einsum("bhc,ohc->bho", query, _heads(self.key(self.offsets))),
            dim=-1,
        )
        answer = torch.einsum("bho,bohc->bhc", weights, _heads(values))
        answer = answer + torch.einsum("bho,ohc->bhc", weights, _heads(self.value(self.offsets)))
        return torch.cat([asked, answer.flatten(-2)], dim=-1)


def _heads(channels: Tensor) -> Tensor:
    """(..., A) to (..., ATTENTION_HEADS, ATTENTION_HEAD_DIM)."""
    return channels.reshape(*channels.shape[:-1], ATTENTION_HEADS, ATTENTION_HEAD_DIM)


FUSIONS: dict[str, Callable[[int, SequenceEncoder], Fusion]] = {
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "cross_attention": CrossAttentionFusion,
}
"""Name to class; a new fusion registers here, and its name in `settings/encoders.py`."""
