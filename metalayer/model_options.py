"""What the network's parts are called and which options they take, checked without building them.

A configuration is refused before torch is imported, and `models/` refuses the same mistakes in the
same words: both ask here. A name may be known here while this version does not build it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

Check = Callable[[Any], str | None]
"""A value to what is wrong with it (`needs ...`), None where it is fine."""

MAX_WIDTH_BP = 499
"""Widest motif detector."""
MAX_DISTANCE_BP = 100_000
"""Furthest that a stage of the track encoder reads."""
MAX_CHANNELS = 4096
"""Most channels of a layer of an encoder."""
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
LANGUAGE_MODELS = ("hyenadna", "huggingface")
"""Encoders that read letters in chunks, with weights of a checkpoint."""
CHUNK_BP, STRIDE_BP = 372, 128
"""Of language models by default: what a window of 500 letters just holds."""
MAX_STRIDE_BP = 8192
"""Whole genes are read in blocks of so many positions, each a whole number of strides."""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int to Python


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        return None if _is_int(value) and low <= value <= high else f"needs a whole number from {low} to {high}"

    return check


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "needs true or false"


def _one_of(allowed: Iterable[str]) -> Check:
    names = tuple(allowed)

    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and value in names else f"allowed are {', '.join(names)}"

    return check


def _odd_widths(value: Any) -> str | None:
    fine = isinstance(value, list | tuple) and bool(value)
    if fine and all(_is_int(width) and 1 <= width <= MAX_WIDTH_BP and width % 2 for width in value):
        return None
    return f"needs a list of odd widths in bp from 1 to {MAX_WIDTH_BP}, as in [7, 11]"


def _distances(value: Any) -> str | None:
    fine = isinstance(value, list | tuple) and len(value) > 1 and all(_is_int(d) for d in value)
    if fine and value[0] >= 1 and value[-1] <= MAX_DISTANCE_BP and all(low < high for low, high in pairwise(value)):
        return None
    return f"needs two or more ascending whole distances in bp from 1 to {MAX_DISTANCE_BP}, as in [1, 10, 100]"


def _share(value: Any) -> str | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value < 1.0
    return None if fine else "needs a share from 0 to below 1"


def _rate_share(value: Any) -> str | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value <= 1.0
    return None if fine else "needs a share above 0, at most 1"


def _stride(value: Any) -> str | None:
    fine = _is_int(value) and 1 <= value <= MAX_STRIDE_BP and value & (value - 1) == 0
    return None if fine else f"needs a power of two from 1 to {MAX_STRIDE_BP}, so that blocks of a gene fit together"


def _commit(value: Any) -> str | None:
    fine = value is None or (isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40}", value))
    return None if fine else "needs the commit of a hub repository, 40 hex digits"


def is_hub_id(name: str) -> bool:
    """Whether a checkpoint's name is a hub id, `owner/name`, and not a directory."""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", name)) and not Path(name).is_dir()


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and ("/" in value or Path(value).is_dir())


def _checkpoint(value: Any) -> str | None:
    return None if _is_place(value) else "needs a directory, or a hub id as in owner/name"


def _size(value: Any) -> str | None:
    if _is_place(value) or (isinstance(value, str) and value in HYENADNA_SIZES):
        return None
    return f"allowed are {', '.join(HYENADNA_SIZES)}, a directory, or a hub id as in owner/name"


_LANGUAGE_OPTIONS: dict[str, Check] = {
    "revision": _commit,
    "output_dim": _integer(1, MAX_CHANNELS),
    "chunk_bp": _integer(2, 1_000_000),
    "stride_bp": _stride,
    "freeze": _boolean,
    "unfreeze_layers": _integer(1, 1000),
    "learning_rate_share": _rate_share,
    "gradient_checkpointing": _boolean,
    "bundle_encoder": _boolean,
}

ENCODER_OPTIONS: dict[str, dict[str, Check]] = {
    "cnn": {
        "kernel_sizes": _odd_widths,
        "num_filters": _integer(1, MAX_CHANNELS),
        "output_dim": _integer(1, MAX_CHANNELS),
        "levels": _integer(0, 12),
        "freeze": _boolean,
    },
    "hyenadna": {"model_size": _size, "pretrained": _boolean, **_LANGUAGE_OPTIONS},
    "huggingface": {"model": _checkpoint, **_LANGUAGE_OPTIONS},
    "none": {"freeze": _boolean},
}
"""Sequence encoder to its options and their checks; a new encoder states its options here."""

TRACK_OPTIONS: dict[str, dict[str, Check]] = {
    "stages": {
        "stages": _integer(1, 8),
        "channels": _integer(1, MAX_CHANNELS),
        "local_channels": _integer(1, MAX_CHANNELS),
        "distances": _distances,
        "dropout": _share,
        "letters": _boolean,
        "both_ways": _boolean,
    },
    "none": {},
}
"""Track encoder to its options and their checks."""

FUSION_NAMES = ("concat", "gated", "cross_attention")
"""How the scores and the letters may be joined."""


def check_encoder_options(name: str, options: Mapping[str, Any]) -> list[str]:
    """All mistakes in the name of a sequence encoder and its options, one text each; empty where there are none."""
    mistakes = _check_options("sequence_encoder", ENCODER_OPTIONS, name, options)
    if name not in LANGUAGE_MODELS or mistakes:
        return mistakes
    return [f"sequence_encoder_config.{mistake}" for mistake in _language_mistakes(options)]


def _language_mistakes(options: Mapping[str, Any]) -> list[str]:
    """Options of a language model that do not go together."""
    mistakes = []
    chunk, stride = options.get("chunk_bp", CHUNK_BP), options.get("stride_bp", STRIDE_BP)
    if chunk < stride or (chunk - stride) % 2:
        mistakes.append(f"chunk_bp: given {chunk} with stride_bp {stride}; needs the stride and an even number more")
    frozen = options.get("freeze", False)
    if frozen and "unfreeze_layers" in options:
        mistakes.append("unfreeze_layers: given with freeze true; leave one of them out")
    if not options.get("bundle_encoder", True) and not (frozen and options.get("pretrained", True)):
        mistakes.append(
            "bundle_encoder: given false; a model may name its encoder only where that is a checkpoint's and frozen"
        )
    place = options.get("model_size", options.get("model"))
    if place is not None and place not in HYENADNA_SIZES and is_hub_id(place) and options.get("revision") is None:
        mistakes.append(f"revision: missing; the hub id {place!r} needs the commit to use, 40 hex digits")
    return mistakes


def check_track_options(name: str, options: Mapping[str, Any]) -> list[str]:
    """All mistakes in the name of a track encoder and its options, one text each; empty where there are none."""
    return _check_options("track_encoder", TRACK_OPTIONS, name, options)


def check_letters(encoder: str, track_options: Mapping[str, Any]) -> list[str]:
    """What is wrong with a track encoder's letters beside a sequence encoder; empty where nothing is."""
    if track_options.get("letters") and encoder in LANGUAGE_MODELS:
        return [
            "track_encoder_config.letters: given true beside a language model, whose states may stand in place of "
            "letters; leave one of them out"
        ]
    return []


def _check_options(
    setting: str, encoders: Mapping[str, Mapping[str, Check]], name: str, options: Mapping[str, Any]
) -> list[str]:
    if name not in encoders:
        return [f"{setting}: given {name!r}; {_hint(name, encoders)}"]
    known = encoders[name]
    mistakes = []
    for option, value in options.items():
        where = f"{setting}_config.{option}"
        if option not in known:
            hint = _hint(option, known) if known else "it takes none"
            mistakes.append(f"{where}: unknown option of encoder {name!r}; {hint}")
        elif wrong := known[option](value):
            mistakes.append(f"{where}: given {value!r}; {wrong}")
    return mistakes


def fusion_name(given: str) -> str:
    """The registered spelling: `cross-attention` is `cross_attention`."""
    return str(given).replace("-", "_")


def check_fusion(fusion: str, encoder: str, with_scores: bool = True) -> list[str]:
    """All mistakes in the name of a fusion and in its use with the encoders there are; empty where there are none."""
    name = fusion_name(fusion)
    if name not in FUSION_NAMES:
        return [f"fusion: given {fusion!r}; {_hint(name, FUSION_NAMES)}"]
    if name == "cross_attention" and encoder in LANGUAGE_MODELS:
        return [
            f"fusion: given 'cross_attention' with sequence_encoder {encoder!r}; a language model is read at the "
            "labelled base alone, which has seen what is around it. Use fusion 'concat' or 'gated', or encoder 'cnn'"
        ]
    if name == "cross_attention" and encoder == "none":
        return [
            "fusion: given 'cross_attention' with sequence_encoder 'none'; it attends to the encoder's features of the "
            "bases around the labelled one, and 'none' has none. Use fusion 'concat' or 'gated', or another encoder"
        ]
    if name == "gated" and not with_scores:
        return [
            "fusion: given 'gated' without a score encoder; the gate scales the score features. Use fusion 'concat', "
            "or score_encoder true"
        ]
    return []


def _hint(given: Any, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(str(given), names, n=1)
    return f"{f'did you mean {close[0]!r}? ' if close else ''}allowed are {', '.join(names)}"
