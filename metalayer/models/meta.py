"""MetaSpliceModel: what the scores and the letters say, added to what the base model said.

log p_meta = log_softmax(log p_base + delta(sequence, score features)), where the last layer of delta
starts at zero: an untrained model equals its base, and a model that learned nothing stays there.
Axes: B batch, L positions, W window, F features, C classes (donor, acceptor, neither).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metalayer.errors import ConfigError
from metalayer.model_options import fusion_name
from metalayer.models.encoders import build_encoder
from metalayer.models.fusion import build_fusion
from metalayer.models.scores import FeatureNormaliser, ScoreEncoder
from metalayer.schema import ARTIFACT_WINDOW_BP, CLASSES, FEATURES

PROBABILITY_FLOOR = 1e-10
"""Base probabilities below this count as this before the logarithm."""


class MetaSpliceModel(nn.Module):
    """Sequence encoder and score encoder, fused, as a residual on the base model's log-probabilities.

    Attributes:
        options: the arguments, from which `bundle.py` builds the model again.
        window_bp: letters a window holds, the labelled base at index window_bp // 2.
        radius_bp: letters the encoder and the fusion's neighbourhood see on either side of it.
    """

    calibration_scale: Tensor
    calibration_bias: Tensor

    def __init__(
        self,
        sequence_encoder: str = "cnn",
        num_score_features: int = len(FEATURES),
        hidden_dim: int = 256,
        num_classes: int = len(CLASSES),
        dropout: float = 0.1,
        sequence_encoder_config: dict[str, Any] | None = None,
        window_bp: int = ARTIFACT_WINDOW_BP,
        fusion: str = "concat",
    ) -> None:
        """Build the model.

        Args:
            sequence_encoder: name in the encoder registry.
            num_score_features: must be the schema's count.
            hidden_dim: width H.
            num_classes: must be 3.
            dropout: share of activations dropped in training.
            sequence_encoder_config: options of the encoder.
            window_bp: width of the windows.
            fusion: name in the fusion registry: `concat`, `gated` or `cross_attention`.

        Raises:
            ConfigError: counts that the schema does not have, unknown encoder, options or fusion, a
                fusion that the encoder cannot serve, or parts that see further than the window.
        """
        super().__init__()
        if num_score_features != len(FEATURES) or num_classes != len(CLASSES):
            raise ConfigError(
                f"num_score_features={num_score_features}, num_classes={num_classes}: the feature schema has "
                f"{len(FEATURES)} features and {len(CLASSES)} classes"
            )
        self.options: dict[str, Any] = {
            "sequence_encoder": sequence_encoder,
            "sequence_encoder_config": dict(sequence_encoder_config or {}),
            "hidden_dim": hidden_dim,
            "dropout": dropout,
            "window_bp": window_bp,
            "fusion": fusion_name(fusion),
        }
        self.window_bp = window_bp
        self.encoder = build_encoder(sequence_encoder, self.options["sequence_encoder_config"])
        self.normaliser = FeatureNormaliser()
        self.score_encoder = ScoreEncoder(num_score_features, hidden_dim, dropout)
        self.fusion = build_fusion(fusion, hidden_dim, sequence_encoder, self.encoder)
        reach = self.fusion.reach_bp
        self.radius_bp = self.encoder.radius_bp if reach is None else self.encoder.radius_with(reach)
        if self.radius_bp > window_bp // 2 - 1:
            raise ConfigError(
                f"encoder {sequence_encoder!r} with fusion {fusion!r} sees {self.radius_bp} bp on either side; a "
                f"window of {window_bp} bp holds {window_bp // 2 - 1}. Lower `levels` or the kernel sizes"
            )
        self.fuse = nn.Sequential(nn.Linear(self.fusion.output_dim, hidden_dim), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Linear(hidden_dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("calibration_scale", torch.ones(()))
        self.register_buffer("calibration_bias", torch.zeros(num_classes))

    def _scores(self, features: Tensor) -> Tensor:
        encoded: Tensor = self.score_encoder(self.normaliser(features))
        return encoded

    def _delta(self, joined: Tensor) -> Tensor:
        delta: Tensor = self.head(self.fuse(joined))
        return delta

    def correction(self, windows: Tensor, features: Tensor) -> Tensor:
        """What the model adds to the base's log-probabilities of rows.

        Args:
            windows: uint8 (B, W), the labelled base at W // 2, N (4) outside the gene.
            features: float32 (B, F), raw, columns `FEATURES`.

        Returns:
            float32 (B, C).
        """
        centre, reach = windows.shape[1] // 2, self.fusion.reach_bp
        tokens = windows[:, centre - self.radius_bp : centre + self.radius_bp + 1]
        scores = self._scores(features)
        if reach is None:
            return self._delta(self.fusion(scores, self.encoder(tokens)))
        letters, around = self.encoder.neighbourhood(tokens, reach)
        return self._delta(self.fusion(scores, letters, around))

    def correction_dense(self, tokens: Tensor, features: Tensor) -> Tensor:
        """`correction` at every row position of a stretch, equal to that of its windows.

        Args:
            tokens: uint8 (n + 2 * radius_bp,): the stretch with what lies on either side.
            features: float32 (n, F), raw.

        Returns:
            float32 (n, C).
        """
        reach, stretch = self.fusion.reach_bp, tokens.unsqueeze(0)
        scores = self._scores(features)
        if reach is None:
            return self._delta(self.fusion(scores, self.encoder.dense(stretch).squeeze(0)))
        letters, around = self.encoder.dense_neighbourhood(stretch, reach)
        return self._delta(self.fusion.dense(scores, letters.squeeze(0), around.squeeze(0)))

    def forward(self, windows: Tensor, features: Tensor) -> Tensor:
        """Log-probabilities of rows, before calibration: float32 (B, C); arguments as of `correction`."""
        return recalibrate(features[..., : len(CLASSES)], self.correction(windows, features))

    def calibrate(self, log_probabilities: Tensor) -> Tensor:
        """Calibrated probabilities: softmax(scale * log p + bias), float32 (..., C) to (..., C)."""
        return torch.softmax(self.calibration_scale * log_probabilities + self.calibration_bias, dim=-1)


def recalibrate(base: Tensor, correction: Tensor) -> Tensor:
    """log_softmax(log base + correction), base probabilities and correction (..., C) to (..., C)."""
    return torch.log_softmax(base.clamp_min(PROBABILITY_FLOOR).log() + correction, dim=-1)
