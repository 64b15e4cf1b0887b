"""The baseline of training speed: a plain two-level CNN over the whole window, 613,507 parameters.

Five parallel convolutions over one-hot letters, one over their channels, batch normalisation, a maximum over
all positions; scores through two linear layers; both concatenated. It gives logits, without a base residual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metalayer.models.encoders import one_hot

WINDOW_BP, SCORES, PARAMETERS = 512, 43, 613_507


class PlainCnn(nn.Module):
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv1d(4, 64, k, padding=k // 2) for k in (3, 5, 7, 11, 15))
        self.first_norm = nn.BatchNorm1d(320)
        self.second = nn.Conv1d(320, 320, 3, padding=1)
        self.second_norm = nn.BatchNorm1d(320)
        self.letters = nn.Sequential(nn.Linear(320, 256), nn.LayerNorm(256))
        layers: list[nn.Module] = []
        for width in (SCORES, 256):
            layers += [nn.Linear(width, 256), nn.BatchNorm1d(256), nn.GELU(), nn.Dropout(dropout)]
        self.scores = nn.Sequential(*layers, nn.LayerNorm(256))
        self.head = nn.Sequential(
            nn.Linear(512, 256), nn.LayerNorm(256), nn.GELU(), nn.Dropout(dropout), nn.Linear(256, 3)
        )

    def forward(self, windows: Tensor, scores: Tensor) -> Tensor:
        """uint8 (B, 512) and normalised float32 (B, 43) to logits (B, 3)."""
        x = one_hot(windows)
        x = nn.functional.gelu(self.first_norm(torch.cat([conv(x) for conv in self.first], dim=1)))
        x = nn.functional.gelu(self.second_norm(self.second(x))).amax(dim=-1)
        logits: Tensor = self.head(torch.cat([self.letters(x), self.scores(scores)], dim=-1))
        return logits
