"""Settings that were given and cannot act beside the others: refused when the configuration is built.

One table says of each such setting when it acts. A setting counts as given where its section names it; in a whole dump
of a section, which names all, where it differs from its default. So what a program writes is read again, and what a
person writes without effect is an error that says what would give it one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metalayer.settings.encoders import LANGUAGE_MODELS

PIPELINE = "pipeline"
"""Stands among the values of a pipeline run, as settings do."""


@dataclass(frozen=True)
class Need:
    """When settings act.

    Attributes:
        settings: `section.key` of each.
        reads: settings that decide.
        acts: whether they act, from the values of `reads`.
        text: why not, and what to do.
    """

    settings: tuple[str, ...]
    reads: tuple[str, ...]
    acts: Callable[..., bool]
    text: str


def _head(score_encoder: Any, sequence_encoder: Any) -> bool:
    """Whether the network has the fused layer: beside tracks, or instead of them, it reads something else."""
    return bool(score_encoder) or sequence_encoder != "none"


def _frozen_language_model(encoder: Any, options: Any) -> bool:
    return encoder in LANGUAGE_MODELS and isinstance(options, Mapping) and bool(options.get("freeze"))


_UNIT, _TRACKS, _HEAD = ("train.training_unit",), ("model.track_encoder",), ("model.head",)
_READS = ("model.score_encoder", "model.sequence_encoder")
_ENCODER = ("model.sequence_encoder", "model.sequence_encoder_config")
_CHROMOSOMES = "with by gene; set by to chromosome, or leave it out"
NEEDS = (
    Need(
        ("model.head",),
        _UNIT,
        lambda unit: unit == "genes",
        "with training_unit rows, which carry no scores around them; set training_unit to genes, or leave it out",
    ),
    Need(
        ("model.base_dropout",),
        _HEAD,
        lambda head: head != "network",
        "with head network, which has no stack; set head to stack or both, or leave it out",
    ),
    Need(
        (
            *("model.sequence_encoder", "model.sequence_encoder_config", "model.score_encoder", "model.track_encoder"),
            *("model.track_encoder_config", "model.hidden_dim", "model.dropout", "model.fusion", "model.track_dropout"),
            *("model.context_bp", "train.exon_loss", "train.warmup_fraction", "train.early_stopping_metric"),
            *("train.learning_rate", "train.max_epochs", "train.patience", "train.weight_decay", "train.crop_bp"),
            *("train.batch_crops", "train.easy_share", "train.weight_average", "train.augment_tracks"),
        ),
        _HEAD,
        lambda head: head != "stack",
        "with head stack, which has no network; set head to both or network, or leave it out",
    ),
    Need(
        ("train.crop_bp", "train.batch_crops", "train.easy_share", "train.exon_loss", "train.augment_tracks"),
        _UNIT,
        lambda unit: unit == "genes",
        "with training_unit rows; set training_unit to genes, or leave it out",
    ),
    Need(
        ("model.track_encoder", "model.track_dropout", "model.context_bp"),
        _UNIT,
        lambda unit: unit == "genes",
        "with training_unit rows, which carry no tracks, so that a track encoder learns nothing; set training_unit to "
        "genes, or leave it out",
    ),
    Need(
        ("model.evidence_dropout",),
        ("data.evidence",),
        bool,
        "without evidence; name some in data.evidence, or leave it out",
    ),
    Need(
        ("train.batch_size",),
        _UNIT,
        lambda unit: unit == "rows",
        "with training_unit genes, whose batches are batch_crops; set that, or leave it out",
    ),
    Need(
        ("train.balance_classes",),
        _UNIT,
        lambda unit: unit == "rows",
        "with training_unit genes, whose crops hold every position; set training_unit to rows, or leave it out",
    ),
    Need(
        ("train.augment_tracks",),
        ("model.score_encoder",),
        lambda score_encoder: not score_encoder,
        "with a score encoder, whose features are of the scores as they are; set score_encoder to false, or leave it "
        "out",
    ),
    Need(
        ("train.augment_tracks",),
        _ENCODER,
        lambda *encoder: not _frozen_language_model(*encoder),
        "with a frozen language model, which read the genes as they are; leave one of them out",
    ),
    Need(
        ("train.exon_loss", "model.track_dropout", "model.context_bp"),
        _TRACKS,
        lambda encoder: encoder != "none",
        "without a track encoder; set track_encoder to stages, or leave it out",
    ),
    Need(
        ("model.hidden_dim", "model.dropout", "model.fusion", "model.track_dropout"),
        _READS,
        _head,
        "where the tracks are all that is read; give a score or sequence encoder, or leave it out",
    ),
    Need(
        ("train.embedding_cache",),
        _ENCODER,
        _frozen_language_model,
        "without a frozen language model; set sequence_encoder to one and freeze in its options, or leave it out",
    ),
    Need(
        ("train.additional_rate_share",),
        (PIPELINE,),
        lambda _: False,
        "in a pipeline, which trains no additional epochs; it is for Trainer.train(additional_epochs=N). Leave it out",
    ),
    Need(
        ("data.splicevardb_path", "data.variant_radius_bp"),
        ("data.variant_source",),
        lambda source: source is not None,
        "without variant_source; set variant_source to splicevardb, or leave it out",
    ),
    Need(
        ("split.test_chroms", "split.valid_chroms", "split.train_chroms"),
        ("split.by",),
        lambda by: by == "chromosome",
        _CHROMOSOMES,
    ),
    Need(
        ("split.test_fraction",),
        ("split.by",),
        lambda by: by == "gene",
        "with by chromosome; set by to gene, or name test_chroms alone",
    ),
    Need(
        ("split.valid_fraction",),
        ("split.by", "split.valid_chroms"),
        lambda by, chroms: by == "gene" or chroms is None,
        "beside valid_chroms; leave one of them out",
    ),
    Need(
        ("gate.min_gain",),
        ("gate.require_better_than_base",),
        bool,
        "with require_better_than_base false; set that to true, or leave it out",
    ),
)
"""Of several needs of a setting the first that is not met counts."""


def without_effect(values: Mapping[str, Any], given: Iterable[str]) -> dict[str, Need]:
    """Settings that cannot act, with what they need.

    Args:
        values: of the settings that are known, by `section.key`; a need that reads another one is not judged.
        given: the settings to judge.
    """
    found: dict[str, Need] = {}
    wanted = set(given)
    for need in NEEDS:
        concerned = [name for name in need.settings if name in wanted and name not in found]
        judged = concerned and all(name in values for name in need.reads)
        if judged and not need.acts(*(values[name] for name in need.reads)):
            found |= dict.fromkeys(concerned, need)
    return found


def is_switched_off(value: Any) -> bool:
    """Whether a value asks for nothing."""
    return value is None or value is False or value == "none"


def is_given(name: str, value: Any, default: Any, named: Collection[str], section: Collection[str]) -> bool:
    """Whether a setting was given, see the module's text; a switch that is off asks for nothing.

    Args:
        name: of the setting.
        value: of it.
        default: of it.
        named: the settings that were named.
        section: all settings of its section.
    """
    if name not in named or is_switched_off(value):
        return False
    return value != default or not set(section) <= set(named)
