"""The network that a configuration describes."""

from __future__ import annotations

from metalayer.config import ModelConfig
from metalayer.models.meta import MetaSpliceModel


def build_model(config: ModelConfig) -> MetaSpliceModel:
    """The network, untrained: its weights are drawn from torch's generator.

    Raises:
        ConfigError: an encoder that this version does not build, or one that sees further than the window.
    """
    return MetaSpliceModel(
        sequence_encoder=config.sequence_encoder,
        sequence_encoder_config=dict(config.sequence_encoder_config),
        hidden_dim=config.hidden_dim,
        dropout=config.dropout,
        fusion=config.fusion,
        score_encoder=config.score_encoder,
        track_encoder=config.track_encoder,
        track_encoder_config=dict(config.track_encoder_config),
        track_dropout=config.track_dropout,
        context_bp=config.context_bp,
    )
