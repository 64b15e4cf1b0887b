"""The network: which parts it has, how they fit together, and what describes one in a model directory."""

from __future__ import annotations

import copy
import logging
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from metalayer.errors import ConfigError
from metalayer.schema import ARTIFACT_WINDOW_BP
from metalayer.settings.encoders import (
    KINDS,
    CnnOptions,
    FusionName,
    LanguageOptions,
    NoTrackOptions,
    Options,
    SequenceEncoderName,
    SequenceEncoderOptions,
    StageOptions,
    TrackEncoderName,
    TrackEncoderOptions,
    read_options,
)
from metalayer.settings.mistakes import listed, refuse
from metalayer.settings.section import Section

logger = logging.getLogger(__name__)


class ModelConfig(Section):
    """The network."""

    section: ClassVar[str] = "model"

    head: Literal["network", "stack", "both"] = "network"
    """What is learned: `network`, a neural network; `stack`, a regression on what one or several base models say around
    a position, fitted in seconds, for few genes; `both`, a network on top of the stack. A model with a stack answers
    whole genes, not rows."""
    base_dropout: bool = False
    """Whether a stack of three base models or more answers with one of them missing, too: a stack of the others is
    fitted for each that can be missing, and its answers say so. Else a base model that is missing is refused."""
    sequence_encoder: SequenceEncoderName = "cnn"
    """Name of the sequence encoder: `cnn`, `hyenadna`, `huggingface` (language models) or `none`."""
    sequence_encoder_config: SequenceEncoderOptions = Field(default_factory=CnnOptions, validate_default=True)
    """Options of the sequence encoder, by name, see `settings/encoders.py`; unknown ones are errors."""
    score_encoder: bool = True
    """Whether the 50 score features of a position are read."""
    track_encoder: TrackEncoderName = "none"
    """Encoder of the base's scores far around a position: `stages` or `none`. Rows that come without tracks are
    answered with the tracks masked."""
    track_encoder_config: TrackEncoderOptions = Field(default_factory=NoTrackOptions, validate_default=True)
    """Options of the track encoder, by name: `stages`, `channels`, `letters` ..."""
    track_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of crops whose tracks are masked in training, so that rows without tracks are answered well too."""
    evidence_dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of crops in which each piece of `data.evidence` is missing in training, so that the model answers without
    it; of a model trained with 0 all of it is needed."""
    context_bp: int | None = Field(None, ge=1, le=1_000_000)
    """Positions that a window of tracks holds; None: as many as the track encoder sees."""
    fusion: FusionName = "concat"
    """How scores and sequence meet: `concat`, `gated` or `cross_attention`."""
    hidden_dim: int = Field(256, ge=8, le=8192)
    """Width of the score encoder and of the fused layer."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of activations dropped in training."""

    @field_validator("sequence_encoder_config", "track_encoder_config", mode="before")
    @classmethod
    def _are_of_the_encoder(cls, given: Any, known: ValidationInfo) -> Options:
        setting = str(known.field_name).removesuffix("_config")
        encoder = known.data.get(setting)
        if encoder is None:  # which is the mistake
            return KINDS[setting]["none"]()
        try:
            return read_options(setting, encoder, given)
        except ConfigError as error:
            raise ValueError("\n".join(listed(error))) from None

    @model_validator(mode="after")
    def _fit(self) -> Self:
        refuse(_misfits(self))
        return self

    def __copy__(self) -> Self:
        copied: Self = super().__copy__()
        for name in _OPTIONS.values():
            copied.__dict__[name] = copy.deepcopy(copied.__dict__[name])
        return copied

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.copy()
        if name in _OPTIONS and isinstance(value, str) and value in KINDS[name]:
            self.__dict__[_OPTIONS[name]] = _kept(name, value, before[_OPTIONS[name]])
        try:
            super().__setattr__(name, value)
        except ConfigError:
            self.__dict__.update(before)
            raise


_OPTIONS = {setting: f"{setting}_config" for setting in KINDS}
"""Setting that names an encoder to the one that holds its options."""


def _kept(setting: str, encoder: str, given: Options) -> Options:
    """Options given to another encoder, those that this one has too."""
    dropped = [name for name in given if name not in KINDS[setting][encoder].model_fields]
    if dropped:
        logger.warning("encoder %s has no option %s; dropped", encoder, ", ".join(sorted(dropped)))
    return read_options(setting, encoder, {name: given[name] for name in given if name not in dropped})


def _misfits(network: ModelConfig) -> list[str]:
    """Parts that do not go together; empty where there are none."""
    sequence, encoder = network.sequence_encoder_config, network.sequence_encoder
    tracks, mistakes = network.track_encoder_config, []
    if network.head == "stack":
        return []
    if not network.score_encoder and encoder == network.track_encoder == "none":
        mistakes.append(
            "score_encoder: given false with no sequence and no track encoder; the model would read nothing"
        )
    elif not network.score_encoder and network.fusion == "gated":
        mistakes.append(
            "fusion: given 'gated' without a score encoder; the gate scales the score features. Use fusion 'concat', "
            "or score_encoder true"
        )
    if network.fusion == "cross_attention" and isinstance(sequence, LanguageOptions):
        mistakes.append(
            f"fusion: given 'cross_attention' with sequence_encoder {encoder!r}; a language model is read at the "
            "labelled base alone, which has seen what is around it. Use fusion 'concat' or 'gated', or encoder 'cnn'"
        )
    if network.fusion == "cross_attention" and encoder == "none":
        mistakes.append(
            "fusion: given 'cross_attention' with sequence_encoder 'none'; it attends to the encoder's features of the "
            "bases around the labelled one, and 'none' has none. Use fusion 'concat' or 'gated', or another encoder"
        )
    if isinstance(tracks, StageOptions) and tracks.letters and isinstance(sequence, LanguageOptions):
        mistakes.append(
            "track_encoder_config.letters: given true beside a language model, whose states may stand in place of "
            "letters; leave one of them out"
        )
    return mistakes


class Network(ModelConfig):
    """What a network is built from: the arguments of `MetaSpliceModel`, and `model` in a model directory.

    Settings that cannot act are no mistakes here: a model directory names all of them.
    """

    refuses_idle: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _is_empty_beside_a_stack_alone(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("head") == "stack":
            kept = {name: value for name, value in given.items() if name not in _OPTIONS.values()}
            return kept | {"sequence_encoder": "none", "score_encoder": False, "track_encoder": "none"}
        return given

    window_bp: int = Field(ARTIFACT_WINDOW_BP, ge=2, le=1_000_000)
    """Letters that a window holds, in bp, the labelled base in its middle."""
    encoder_checkpoint: dict[str, Any] | None = None
    """What the sequence encoder of a saved model was built from, see `SequenceEncoder.checkpoint`."""
    evidence: tuple[str, ...] = ()
    """Names of the evidence that the track encoder reads, in the order of its channels."""

    @model_validator(mode="after")
    def _reads_evidence(self) -> Self:
        refuse(
            [
                f"evidence: given {', '.join(self.evidence)} without a track encoder, which reads it; set "
                "model.track_encoder to stages and train.training_unit to genes, or leave data.evidence out"
            ]
            if self.evidence and self.track_encoder == "none"
            else []
        )
        return self
