"""Options of a network's parts as a test states them: by name, with the mistakes one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metalayer.errors import ConfigError
from metalayer.models import encoders
from metalayer.settings.mistakes import listed
from metalayer.settings.network import Network


def mistakes(**network: Any) -> list[str]:
    """What is wrong with the description of a network, without the section's name in front."""
    try:
        Network(**network)
    except ConfigError as error:
        return [line.removeprefix("model.") for line in listed(error)]
    return []


def check_encoder_options(name: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with a sequence encoder and its options."""
    return mistakes(sequence_encoder=name, sequence_encoder_config=dict(options))


def check_fusion(fusion: str, encoder: str) -> list[str]:
    """What is wrong with a fusion beside a sequence encoder."""
    return mistakes(fusion=fusion, sequence_encoder=encoder)


def build_encoder(name: str, options: Mapping[str, Any]) -> encoders.SequenceEncoder:
    """The encoder, of a configuration that names it."""
    network = Network(sequence_encoder=name, sequence_encoder_config=dict(options))
    return encoders.build_encoder(network.sequence_encoder_config)
