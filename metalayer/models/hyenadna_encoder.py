"""HyenaDNA as a sequence encoder: both strands of each chunk, so that a causal model sees what follows a base too."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metalayer.errors import ConfigError
from metalayer.models.checkpoints import find_checkpoint
from metalayer.models.hyenadna import CONFIG, NUCLEOTIDE_IDS, WEIGHTS, HyenaConfig, HyenaDna, load_hyenadna
from metalayer.models.language import LanguageEncoder
from metalayer.settings.encoders import HyenaDnaOptions, is_hub_id

logger = logging.getLogger(__name__)


class _Published(NamedTuple):
    """A checkpoint of huggingface.co/LongSafari, its commit, and what differs between the sizes."""

    name: str
    revision: str
    d_model: int
    n_layer: int
    max_seq_len: int

    @property
    def hub_id(self) -> str:
        return f"LongSafari/hyenadna-{self.name}-hf"

    @property
    def config(self) -> HyenaConfig:
        return HyenaConfig(self.d_model, self.n_layer, self.max_seq_len, d_inner=4 * self.d_model)


PUBLISHED = {
    "tiny-1k": _Published("tiny-1k-seqlen", "e8c1effa8673814e257e627d2e1eda9ea5a373f6", 128, 2, 1026),
    "tiny-1k-d256": _Published("tiny-1k-seqlen-d256", "6036d4e144922b44470294f510cbfd2539ba3b7e", 256, 2, 1026),
    "tiny-16k-d128": _Published("tiny-16k-seqlen-d128", "d79fa37e2cd62dd338103c630f95be8f90812d46", 128, 2, 16_386),
    "small-32k": _Published("small-32k-seqlen", "8fe770c78eb13fe33bf81501612faeddf4d6f331", 256, 4, 32_770),
    "medium-160k": _Published("medium-160k-seqlen", "7ebf71773d22c0ede2cc55cb2be15ee8c289e1ce", 256, 8, 160_002),
    "medium-450k": _Published("medium-450k-seqlen", "42dedd4d374eac0fb8168549e546a3472fbd27ae", 256, 8, 450_002),
    "large-1m": _Published("large-1m-seqlen", "0a629abf9c7f85b4ec9aa6a1aefa3adcf1907446", 256, 8, 1_000_002),
}
"""Size to checkpoint. Another revision may be asked for with `revision`."""
_SHORT = {"tiny": "tiny-1k", "small": "small-32k", "medium": "medium-160k", "large": "large-1m"}


class HyenaDnaEncoder(LanguageEncoder):
    """States of the forward strand and of the reverse complement at each base, side by side: D = 2 * d_model."""

    backbone: HyenaDna
    ids: Tensor
    complement: Tensor

    def __init__(self, options: HyenaDnaOptions, checkpoint: Mapping[str, Any] | None = None) -> None:
        """Load a checkpoint, or draw random weights.

        Args:
            options: of the encoder, which name the checkpoint.
            checkpoint: of a saved model, whose weights come later, or are those of this very checkpoint.

        Raises:
            ConfigError: a checkpoint that is not there, or longer chunks than the model takes.
            ModelError: one that is damaged, or another than that of the saved model.
        """
        size, pretrained = options.model_size, options.pretrained
        if checkpoint is not None and options.bundle_encoder:
            backbone = HyenaDna(_fitting(HyenaConfig(**checkpoint["architecture"]), options), options.chunk_bp)
        elif pretrained:
            published = PUBLISHED.get(_SHORT.get(size, size))
            name, commit = (published.hub_id, published.revision) if published else (size, None)
            given = checkpoint or {"source": name, "revision": options.revision or commit, "sha256": None}
            found = find_checkpoint(given["source"], given["revision"], (CONFIG, WEIGHTS), expected=given["sha256"])
            _fitting(HyenaConfig.read(found.directory), options)
            backbone = load_hyenadna(found.directory, options.chunk_bp)
            checkpoint = {"source": found.source, "revision": found.revision, "sha256": found.sha256}
        else:
            config, name = _architecture(size)
            backbone = HyenaDna(_fitting(config, options), options.chunk_bp)
            logger.warning("%s with random weights: no checkpoint is read, it knows nothing of DNA", name)
            checkpoint = {"source": f"random {name}", "revision": None, "sha256": None}
        architecture = asdict(backbone.config)
        backbone.gradient_checkpointing = options.gradient_checkpointing
        record = {"pretrained": pretrained, **checkpoint, "architecture": architecture}
        super().__init__(backbone, 2 * backbone.config.d_model, record, options)
        self.register_buffer("ids", torch.tensor(NUCLEOTIDE_IDS), persistent=False)
        self.register_buffer("complement", torch.tensor([3, 2, 1, 0, 4]), persistent=False)

    def states(self, chunks: Tensor) -> Tensor:
        """Chunks of letters uint8 (B, C) to float32 (B, C, D): forward strand, then reverse complement."""
        letters = chunks.long()
        both = torch.cat([letters, self.complement[letters].flip(1)])
        forward, backward = self.backbone(self.ids[both]).chunk(2)
        return torch.cat([forward, backward.flip(1)], dim=-1)

    def blocks(self) -> list[nn.Module]:
        """The backbone's blocks, first to last."""
        return list(self.backbone.layers)


def _fitting(config: HyenaConfig, options: HyenaDnaOptions) -> HyenaConfig:
    if options.chunk_bp > config.max_seq_len:
        raise ConfigError(f"chunk_bp: given {options.chunk_bp}; this HyenaDNA takes {config.max_seq_len} at most")
    return config


def _architecture(model_size: str) -> tuple[HyenaConfig, str]:
    """Of a size or a directory, and what to call it."""
    published = PUBLISHED.get(_SHORT.get(model_size, model_size))
    if published:
        return published.config, f"hyenadna-{published.name}"
    if is_hub_id(model_size):
        raise ConfigError(
            f"model_size: given {model_size!r} with pretrained false; random weights need a size "
            f"({', '.join(PUBLISHED)}) or a directory with config.json"
        )
    return HyenaConfig.read(Path(model_size)), f"hyenadna as in {Path(model_size).resolve()}"
