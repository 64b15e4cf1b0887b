"""The parts that a network may have and the options of each: one type an encoder, chosen by the encoder's name.

An option is declared here and nowhere else: type, range, default, meaning and unit. YAML, `--set`, the constructor and
the model directory all make these types, so each of them refuses the same value in the same words. No torch: a
configuration is refused before torch is imported.

Options read and write like the dictionary of those that were given; `options["freeze"] = True` is checked.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, MutableMapping
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from metalayer.errors import ConfigError
from metalayer.settings.mistakes import Needs, choices, joined, refuse

MAX_WIDTH_BP = 499
"""Widest motif detector."""
MAX_DISTANCE_BP = 100_000
"""Furthest that a stage of the track encoder reads."""
MAX_CHANNELS = 4096
"""Most channels of a layer of an encoder."""
MAX_STRIDE_BP = 8192
"""Whole genes are read in blocks of so many positions, each a whole number of strides."""
HYENADNA_SIZES = (
    "tiny",
    "small",
    "medium",
    "large",
    "tiny-1k",
    "tiny-1k-d256",
    "tiny-16k-d128",
    "small-32k",
    "medium-160k",
    "medium-450k",
    "large-1m",
)
"""Published HyenaDNA checkpoints, and the short names of their sizes."""
FUSION_NAMES = ("concat", "gated", "cross_attention")
"""How the scores and the letters may be joined; none has options."""


def needs(field: FieldInfo) -> str:
    """What an option takes, in words."""
    parts, kind = list(field.metadata), field.annotation
    for inner in (one for one in get_args(kind) if one is not NoneType and NoneType in get_args(kind)):
        kind, *more = get_args(inner) if get_origin(inner) is Annotated else (inner,)
        parts += [one for part in more for one in (part.metadata if isinstance(part, FieldInfo) else [part])]
    if said := next((part.text for part in parts if isinstance(part, Needs)), None):
        return said
    if kind is bool:
        return "needs true or false"
    low, high = (next(getattr(part, bound) for part in parts if hasattr(part, bound)) for bound in ("ge", "le"))
    return f"needs a whole number from {low} to {high}"


class Options(BaseModel, MutableMapping[str, Any]):
    """Options of one encoder; as a mapping, those that were given, and as attributes all.

    Attributes:
        setting: which encoder they are of: `sequence_encoder` or `track_encoder`.
        encoder: its name.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )
    setting: ClassVar[str]
    encoder: ClassVar[str]

    def __init__(self, **given: Any) -> None:
        """Check all options.

        Raises:
            ConfigError: all that the encoder does not have or take.
        """
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ConfigError(joined(self._mistakes(error, given))) from None

    @classmethod
    def names(cls) -> list[str]:
        """All options, those of this encoder alone first."""
        declared = dict.fromkeys(name for kind in cls.__mro__ for name in inspect.get_annotations(kind))
        return [name for name in declared if name in cls.model_fields]

    @classmethod
    def _mistakes(cls, error: ValidationError, given: Mapping[str, Any]) -> list[str]:
        known, lines = cls.model_fields, []
        for item in error.errors():
            where = ".".join([f"{cls.setting}_config", *map(str, item["loc"][:1])])
            if not item["loc"]:  # options that do not go together, each with its name in front
                lines += [f"{where}.{line}" for line in item["msg"].removeprefix("Value error, ").split("\n")]
            elif item["type"] == "extra_forbidden":
                hint = choices(item["loc"][0], cls.names()) if known else "it takes none"
                lines.append(f"{where}: unknown option of encoder {cls.encoder!r}; {hint}")
            else:
                name = str(item["loc"][0])
                lines.append(f"{where}: given {given[name]!r}; {needs(known[name])}")
        return list(dict.fromkeys(lines))  # a list with two wrong items is one mistake

    @model_serializer
    def _as_given(self) -> dict[str, Any]:
        return dict(self)

    def __getitem__(self, name: str) -> Any:
        if name not in self.model_fields_set:
            raise KeyError(name)
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __setattr__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __delitem__(self, name: str) -> None:
        self[name]  # a KeyError where it was not given
        self._become({key: value for key, value in self.items() if key != name})

    def update(self, *given: Any, **named: Any) -> None:
        """As in a dictionary.

        Raises:
            ConfigError: all options that the encoder does not have or take; nothing is changed.
        """
        self._become({**self, **dict(*given, **named)})

    def _become(self, given: Mapping[str, Any]) -> None:
        other = read_options(self.setting, self.encoder, given)
        self.__dict__.update(other.__dict__)
        self.__pydantic_fields_set__.clear()
        self.__pydantic_fields_set__.update(other.model_fields_set)

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return (name for name in self.names() if name in self.model_fields_set)

    def __len__(self) -> int:
        return len(self.model_fields_set)

    def __ior__(self, given: Any) -> Self:  # type: ignore[misc]
        self.update(given)
        return self

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(dict(self))

    __str__ = __repr__


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _odd(widths: list[int]) -> list[int]:
    refuse([] if widths and all(width % 2 for width in widths) else ["odd"])
    return widths


def _ascending(distances: list[int]) -> list[int]:
    refuse([] if len(distances) > 1 and all(low < high for low, high in pairwise(distances)) else ["ascending"])
    return distances


def _power_of_two(value: int) -> int:
    refuse([] if value & (value - 1) == 0 else ["power of two"])
    return value


def is_hub_id(name: str) -> bool:
    """Whether a checkpoint's name is a hub id, `owner/name`, and not a directory."""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", name)) and not Path(name).is_dir()


def _place(value: str) -> str:
    refuse([] if value and ("/" in value or Path(value).is_dir()) else ["place"])
    return value


def _size(value: str) -> str:
    return value if value in HYENADNA_SIZES else _place(value)


Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
OddWidths = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_WIDTH_BP)]],
    BeforeValidator(_as_list),
    AfterValidator(_odd),
    Needs(f"needs a list of odd widths in bp from 1 to {MAX_WIDTH_BP}, as in [7, 11]"),
]
Distances = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_DISTANCE_BP)]],
    BeforeValidator(_as_list),
    AfterValidator(_ascending),
    Needs(f"needs two or more ascending whole distances in bp from 1 to {MAX_DISTANCE_BP}, as in [1, 10, 100]"),
]
Share = Annotated[float, Field(ge=0.0, lt=1.0), Needs("needs a share from 0 to below 1")]
RateShare = Annotated[float, Field(gt=0.0, le=1.0), Needs("needs a share above 0, at most 1")]
Stride = Annotated[
    int,
    Field(ge=1, le=MAX_STRIDE_BP),
    AfterValidator(_power_of_two),
    Needs(f"needs a power of two from 1 to {MAX_STRIDE_BP}, so that blocks of a gene fit together"),
]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$"), Needs("needs the commit of a hub repository, 40 hex digits")]
Place = Annotated[str, AfterValidator(_place), Needs("needs a directory, or a hub id as in owner/name")]
Size = Annotated[
    str,
    AfterValidator(_size),
    Needs(f"allowed are {', '.join(HYENADNA_SIZES)}, a directory, or a hub id as in owner/name"),
]


class SequenceOptions(Options):
    """What every sequence encoder takes."""

    setting: ClassVar[str] = "sequence_encoder"

    freeze: bool = False
    """Whether the encoder's weights stay as they are; of a language model those of its backbone."""


class CnnOptions(SequenceOptions):
    """Motif detectors of several widths, then a pyramid of convolutions."""

    encoder: ClassVar[str] = "cnn"

    kernel_sizes: OddWidths = [7, 11]
    """Odd widths of the motif detectors, in bp."""
    num_filters: Channels = 32
    """Detectors of each width."""
    output_dim: Channels = 64
    """Channels of the result."""
    levels: int = Field(6, ge=0, le=12)
    """Levels of the pyramid, which sees 2^(levels + 1) - 1 positions of the detectors."""


class LanguageOptions(SequenceOptions):
    """What all language models take: they read letters in chunks, with weights of a checkpoint."""

    revision: Commit | None = None
    """Commit of a hub repository, 40 hex digits; needed with a hub id."""
    output_dim: Channels = 256
    """Channels that the states are projected to."""
    chunk_bp: int = Field(372, ge=2, le=1_000_000)
    """Letters of a chunk, in bp; by default what a window of 500 letters just holds."""
    stride_bp: Stride = 128
    """Bases read from a chunk, in bp: a power of two."""
    unfreeze_layers: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many of the last blocks learn; None: all, where nothing is frozen."""
    learning_rate_share: RateShare | None = None
    """Share of the learning rate at which the backbone learns; None: 0.1 of a checkpoint, 1 of random weights."""
    gradient_checkpointing: bool = False
    """Compute blocks again in the backward pass instead of keeping what is in them: less memory, more time."""
    bundle_encoder: bool = True
    """Whether a saved model holds the backbone's weights, or names the checkpoint."""

    def _checkpoint(self) -> str | None:
        """Directory or hub id of the weights; None where none is named."""
        return None

    def _has_trained_weights(self) -> bool:
        return True

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        mistakes, place = [], self._checkpoint()
        if self.chunk_bp < self.stride_bp or (self.chunk_bp - self.stride_bp) % 2:
            mistakes.append(
                f"chunk_bp: given {self.chunk_bp} with stride_bp {self.stride_bp}; needs the stride and an even number "
                "more"
            )
        if self.freeze and self.unfreeze_layers is not None:
            mistakes.append("unfreeze_layers: given with freeze true; leave one of them out")
        if not self.bundle_encoder and not (self.freeze and self._has_trained_weights()):
            mistakes.append(
                "bundle_encoder: given false; a model may name its encoder only where that is a checkpoint's and frozen"
            )
        if place is not None and is_hub_id(place) and self.revision is None:
            mistakes.append(f"revision: missing; the hub id {place!r} needs the commit to use, 40 hex digits")
        refuse(mistakes)
        return self


class HyenaDnaOptions(LanguageOptions):
    """HyenaDNA, which is read natively."""

    encoder: ClassVar[str] = "hyenadna"

    model_size: Size = "small"
    """Published size, directory or hub id."""
    pretrained: bool = True
    """Whether weights of a checkpoint are read; false draws random ones for the architecture of the size."""

    def _checkpoint(self) -> str | None:
        return None if self.model_size in HYENADNA_SIZES else self.model_size

    def _has_trained_weights(self) -> bool:
        return self.pretrained


class HuggingFaceOptions(LanguageOptions):
    """Any plain transformer with a DNA vocabulary."""

    encoder: ClassVar[str] = "huggingface"

    model: Place | None = None
    """Directory or hub id; must be given when the network is built."""

    def _checkpoint(self) -> str | None:
        return self.model


class NoSequenceOptions(SequenceOptions):
    """No sequence encoder: there is nothing to set."""

    encoder: ClassVar[str] = "none"


class TrackOptions(Options):
    """What every track encoder takes: nothing."""

    setting: ClassVar[str] = "track_encoder"


class StageOptions(TrackOptions):
    """Readings of the base's scores one after the other, each as far as the last distance."""

    encoder: ClassVar[str] = "stages"

    stages: int = Field(2, ge=1, le=8)
    """Readings."""
    channels: Channels = 40
    """Channels of the result."""
    local_channels: Channels = 20
    """Channels of a stage's convolution over the bases next to one."""
    distances: Distances = [1, 4, 10, 20, 35, 55, 80, 110, 150, 200, 300, 500, 800, 1200]
    """Edges, in bp, of the ranges whose maxima are read on either side."""
    dropout: Share = 0.0
    """Share of channels dropped in training."""
    letters: bool = False
    """Read also what the letters say of coding, see `models/coding.py`."""
    both_ways: bool = True
    """Read mirrored too."""


class NoTrackOptions(TrackOptions):
    """No track encoder: there is nothing to set."""

    encoder: ClassVar[str] = "none"


SequenceEncoderOptions = CnnOptions | HyenaDnaOptions | HuggingFaceOptions | NoSequenceOptions
"""Options of a sequence encoder; a new encoder states its options in a type of its own, and joins here."""
TrackEncoderOptions = StageOptions | NoTrackOptions
"""Options of a track encoder."""
KINDS: dict[str, dict[str, type[Options]]] = {
    "sequence_encoder": {kind.encoder: kind for kind in get_args(SequenceEncoderOptions)},
    "track_encoder": {kind.encoder: kind for kind in get_args(TrackEncoderOptions)},
}
"""Setting to the encoders that it may name, each with the type of its options."""
LANGUAGE_MODELS = tuple(name for name, kind in KINDS["sequence_encoder"].items() if issubclass(kind, LanguageOptions))
"""Encoders that read letters in chunks, with weights of a checkpoint."""


def read_options(setting: str, encoder: str, given: Any) -> Options:
    """Options of an encoder, from a mapping; None holds none.

    Args:
        setting: `sequence_encoder` or `track_encoder`.
        encoder: a known name.
        given: by name.

    Raises:
        ConfigError: all that the encoder does not have or take.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(joined([f"{setting}_config: given {given!r}; needs options by name, as in {{freeze: true}}"]))
    return KINDS[setting][encoder](**given)


def _named(*known: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str) and value in known:
            return value
        raise PydanticCustomError("name", "{hint}", {"hint": choices(value, known)})

    return BeforeValidator(check)


def _registered(fusion: Any) -> Any:
    """`cross-attention` is `cross_attention`."""
    return fusion.replace("-", "_") if isinstance(fusion, str) else fusion


SequenceEncoderName = Annotated[str, _named(*KINDS["sequence_encoder"])]
TrackEncoderName = Annotated[str, _named(*KINDS["track_encoder"])]
FusionName = Annotated[str, _named(*FUSION_NAMES), BeforeValidator(_registered)]
