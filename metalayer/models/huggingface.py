"""Encoders of transformers: any plain architecture (BERT, ESM ...) with a DNA vocabulary, as a sequence encoder.

Code of a checkpoint is never run, and only safetensors are read. A saved model holds the architecture and the
tokenizer's files as text, so that it can be built again without the checkpoint.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metalayer.errors import ConfigError, ModelError
from metalayer.models.checkpoints import find_checkpoint
from metalayer.models.language import LanguageEncoder
from metalayer.models.tokens import NucleotideTokens
from metalayer.settings.encoders import HuggingFaceOptions

CONFIG = "config.json"
_FILES = ("*.safetensors", "*.json", "vocab*.txt", "merges.txt")
_POOLER = "pooler."
"""Reads one state of the whole chunk, which is not asked for."""


class HuggingFaceEncoder(LanguageEncoder):
    """The last hidden state of the token that covers each letter."""

    def __init__(self, options: HuggingFaceOptions, checkpoint: Mapping[str, Any] | None = None) -> None:
        """Load a checkpoint.

        Args:
            options: of the encoder, which name the checkpoint.
            checkpoint: of a saved model, whose weights come later, or are those of this very checkpoint.

        Raises:
            ConfigError: no model named, one that is not there, or longer chunks than it takes.
            ModelError: one that needs code of its own, has no DNA vocabulary, is damaged, or is another than that of
                the saved model.
        """
        if options.model is None:
            raise ConfigError("model.sequence_encoder_config.model: missing; needs a directory, or a hub id")
        if checkpoint is not None and options.bundle_encoder:
            backbone, tokenizer = _built(checkpoint["architecture"])
        else:
            given = checkpoint or {"source": options.model, "revision": options.revision, "sha256": None}
            found = find_checkpoint(given["source"], given["revision"], (CONFIG,), _FILES, given["sha256"])
            backbone, tokenizer = _loaded(found.directory)
            checkpoint = {"source": found.source, "revision": found.revision, "sha256": found.sha256}
        tokens = NucleotideTokens(tokenizer)
        _check_length(backbone.config, tokens, options)
        if options.gradient_checkpointing:
            backbone.activation_checkpointing_enable({"use_reentrant": False})
        record = {**checkpoint, "pretrained": True, "architecture": _architecture(backbone, tokenizer)}
        super().__init__(backbone, backbone.config.hidden_size, record, options)
        self.tokens = tokens
        self.pads = tokens.table is None and not tokens.k

    def states(self, chunks: Tensor) -> Tensor:
        """Chunks of letters uint8 (B, C) to float32 (B, C, D)."""
        ids, mask, at = self.tokens(chunks)
        hidden: Tensor = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden.float().gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))

    def blocks(self) -> list[nn.Module]:
        """The backbone's blocks: its longest list of modules."""
        lists = [list(module) for module in self.backbone.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len)


def _loaded(directory: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint directory."""
    transformers = _transformers()
    if not any(directory.glob("*.safetensors")):
        raise ConfigError(f"checkpoint {directory}: no *.safetensors; pickled weights are not read, as they hold code")
    if "auto_map" in json.loads((directory / CONFIG).read_text(encoding="utf-8")):
        raise ModelError(
            f"checkpoint {directory}: its architecture is code of its own (auto_map in {CONFIG}), which is not run; "
            "use a checkpoint of an architecture that transformers has, or HyenaDNA"
        )
    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **options)
        model, told = transformers.AutoModel.from_pretrained(
            directory,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # to list them
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"checkpoint {directory}: transformers cannot read it: {error}") from None
    prefix = f"{model.base_model_prefix}."
    mistakes = [f"missing: {name}" for name in told["missing_keys"] if not name.startswith(_POOLER)]
    mistakes += [f"extra: {name}" for name in told["unexpected_keys"] if _is_of_backbone(name, directory, prefix)]
    mistakes += [f"of another shape: {item}" for item in told["mismatched_keys"]]
    if mistakes:
        raise ModelError(f"checkpoint {directory} does not fit its {CONFIG}:\n  " + "\n  ".join(sorted(mistakes)))
    return _prepared(model), tokenizer


def _is_of_backbone(name: str, directory: Path, prefix: str) -> bool:
    """Whether a tensor is no head's: by its prefix, where the checkpoint has heads beside the backbone."""
    from safetensors import safe_open

    names: list[str] = []
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names += file.keys()
    with_head = any(other.startswith(prefix) for other in names)
    return name.startswith(prefix) if with_head else not name.startswith(_POOLER)


def _built(architecture: Mapping[str, Any]) -> tuple[Any, Any]:
    """Model with random weights, and tokenizer, of a saved model."""
    transformers = _transformers()
    settings = dict(architecture["config"])
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**architecture["tokenizer"], CONFIG: json.dumps(architecture["config"])}.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return _prepared(transformers.AutoModel.from_config(config, trust_remote_code=False)), tokenizer


def _prepared(model: Any) -> Any:
    if model.config.is_encoder_decoder:
        raise ModelError(f"a model of type {model.config.model_type!r} has a decoder; only encoders are read")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model.float().eval()


def _architecture(model: Any, tokenizer: Any) -> dict[str, Any]:
    """JSON-ready: the configuration, and the tokenizer's files as text."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}
    return {"config": json.loads(model.config.to_json_string(use_diff=False)), "tokenizer": texts}


def _check_length(config: Any, tokens: NucleotideTokens, options: HuggingFaceOptions) -> None:
    limit = getattr(config, "max_position_embeddings", None)
    longest = options.chunk_bp + tokens.special  # each letter a token of its own
    if limit is not None and longest > limit:
        raise ConfigError(
            f"chunk_bp: given {options.chunk_bp}, up to {longest} tokens; the model takes {limit} at most"
        )


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError:
        raise ConfigError(
            "sequence_encoder 'huggingface' needs the package transformers; install metalayer[language], and serve "
            "such a model from the image metalayer-serving-language"
        ) from None
    return transformers
