"""Configuration: every setting with its unit, range and default, checked on construction and assignment.

`RunConfig` is one pipeline run (one YAML of `pipelines/configs/`), in sections; the flat
`metalayer.core.MetaLayerConfig` is built from the same sections, so each field exists once.
Unknown keys and impossible values are errors, all of them in one message.
"""

from __future__ import annotations

import difflib
import logging
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from metalayer import environment, yaml12
from metalayer.errors import ConfigError
from metalayer.genome import normalise_chrom
from metalayer.model_options import (
    ENCODER_OPTIONS,
    check_encoder_options,
    check_fusion,
    check_letters,
    check_track_options,
)
from metalayer.no_effect import PIPELINE, Need, is_given, is_switched_off, without_effect

logger = logging.getLogger(__name__)


_PATH_MARKS = " /._-+=@,~()"
"""MLflow and ZenML write the state folder into addresses, where others mean something, as `%2F` and `?` do."""


def state_dir() -> Path:
    """Where metalayer keeps runs, registry and packages: `$METALAYER_HOME`, else `./.metalayer`.

    Raises:
        ConfigError: a path with characters that the programs which use it take for something else, or of a file.
    """
    path = environment.path("METALAYER_HOME") or Path(".metalayer").resolve()
    wrong = {one for one in str(path) if one not in _PATH_MARKS and unicodedata.category(one)[0] not in "LMN"}
    if wrong:
        raise ConfigError(
            f"state folder: given {str(path)!r}, which holds {' '.join(sorted(map(repr, wrong)))}; set METALAYER_HOME "
            f"to a path of letters, digits, blanks and {' '.join(_PATH_MARKS.strip())}"
        )
    if file := next((part for part in (path, *path.parents) if os.path.isfile(part)), None):  # noqa: PTH113
        raise ConfigError(f"state folder {path}: {file} is a file; set METALAYER_HOME to a folder that can be written")
    return path


_FOLDER_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"


class Section(BaseModel):
    """A group of settings; mistakes raise one `ConfigError` that lists them all."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    section: ClassVar[str] = ""

    @field_validator("*", mode="before")
    @classmethod
    def _means_what_it_says(cls, value: Any, known: ValidationInfo) -> Any:
        """A truth value is no number, though Pydantic takes it for one; `~` is the home folder where a path begins."""
        kind = cls.model_fields[str(known.field_name)].annotation
        if not _holds(kind, bool) and _has_truth_value(value):
            raise PydanticCustomError(
                "no_truth_value", "a truth value, where {wanted} belongs", {"wanted": _wanted(kind)}
            )
        if _holds(kind, Path) and isinstance(value, str | Path) and str(value).startswith("~"):
            return environment.home(value, str(known.field_name))
        return value

    def __init__(self, **values: Any) -> None:
        mistakes: list[str] = []
        try:
            super().__init__(**values)
        except ValidationError as error:
            mistakes = _mistakes(error, type(self))
            given = {name: value for name, value in values.items() if name in type(self).model_fields}
            settings = {
                name: field.get_default(call_default_factory=True) for name, field in _fields(type(self))
            } | given
        else:
            given, settings = {name: self.__dict__[name] for name in self.model_fields_set}, self.__dict__
        mistakes += _without_effect(type(self), settings, given)
        if mistakes:
            raise ConfigError(joined(mistakes))

    def __str__(self) -> str:
        """All settings that act beside the others, as YAML."""
        values = self.model_dump(mode="json")
        for name in self.idle():
            values.pop(name, None)
        return yaml12.dump(values)

    def __setattr__(self, name: str, value: Any) -> None:
        before, named = self.__dict__.copy(), self.model_fields_set.copy()
        try:
            super().__setattr__(name, value)
            given = {key: self.__dict__[key] for key in self.model_fields_set}
            mistakes = _without_effect(type(self), self.__dict__, given)
        except ValidationError as error:
            mistakes = _mistakes(error, type(self))
        if mistakes:
            self.__dict__.clear()
            self.__dict__.update(before)
            self.__pydantic_fields_set__.clear()
            self.__pydantic_fields_set__.update(named)
            raise ConfigError(joined(mistakes))

    @classmethod
    def acting(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by name without those that cannot act beside the others."""
        qualified = {_qualified(cls, name): value for name, value in values.items()}
        idle = without_effect(qualified, qualified)
        return {name: value for name, value in values.items() if _qualified(cls, name) not in idle}

    def idle(self) -> set[str]:
        """The settings that cannot act beside the others, given or not."""
        values = {name: self.__dict__[name] for name in type(self).model_fields}
        return set(values) - set(self.acting(values))

    def given(self) -> dict[str, Any]:
        """The settings that were given, see `no_effect.py`, by name."""
        kind, named = type(self), self.model_fields_set
        defaults = {name: field.get_default(call_default_factory=True) for name, field in _fields(kind)}
        return {
            name: value
            for name, value in self.__dict__.items()
            if name in named
            and (
                name not in defaults
                or value != defaults[name]
                or is_given(name, value, defaults[name], named, _home(kind, name).model_fields)
            )
        }


def _fields(kind: type[Section]) -> Iterable[tuple[str, FieldInfo]]:
    """Fields that may be left out."""
    return ((name, field) for name, field in kind.model_fields.items() if not field.is_required())


def _home(kind: type[Section], name: str) -> type[Section]:
    """The section that a field is of: in a flat configuration one of those it is made from."""
    bases = (base for base in kind.__mro__[1:] if issubclass(base, Section) and base.section)
    return next((base for base in bases if name in base.model_fields), kind)


def _qualified(kind: type[Section], name: str) -> str:
    home = _home(kind, name)
    return f"{home.section}.{name}" if home.section else name


def _without_effect(
    kind: type[Section], settings: Mapping[str, Any], given: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> list[str]:
    """One text for each given setting of a section that cannot act, as `no_effect.py` says.

    Args:
        kind: the section.
        settings: by name, of the section.
        given: those that were named.
        known: settings of other sections, by `section.key`.
    """
    values = dict(known or {}) | {_qualified(kind, name): value for name, value in settings.items()}
    named = {}
    for name, value in given.items():
        home, field = _home(kind, name), kind.model_fields[name]
        default = field.get_default(call_default_factory=True)
        if is_given(name, value, default, given, home.model_fields):
            named[_qualified(kind, name)] = name
    prefix = f"{kind.section}." if kind.section else ""
    found = without_effect(values, named)
    return [f"{prefix}{_no_effect(named[key], given[named[key]], need)}" for key, need in found.items()]


_NO_EFFECT = "; no effect "


def _no_effect(name: str, value: Any, need: Need) -> str:
    return f"{name}: given {_shown(value)}{_NO_EFFECT}{need.text}"


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Path) else repr(value)


def _holds(kind: Any, part: type) -> bool:
    """Whether an annotation is or holds a type; one that takes anything holds each."""
    return kind in (part, Any) or any(_holds(inner, part) for inner in get_args(kind))


def _has_truth_value(value: Any) -> bool:
    return isinstance(value, bool) or (
        isinstance(value, list | tuple) and any(isinstance(item, bool) for item in value)
    )


def _wanted(kind: Any) -> str:
    """What a setting takes, in words."""
    if _holds(kind, int) or _holds(kind, float):
        return "a number"
    return "a path" if _holds(kind, Path) else "text"


def _list_wanted(key: str, section: type[Section]) -> str:
    """That a list is wanted, with one that the setting takes."""
    field = section.model_fields.get(key)
    return "needs a list, as in " + ("[10, 50]" if field and _holds(field.annotation, int) else "[1, 3]")


def _mistakes(error: ValidationError, section: type[Section]) -> list[str]:
    prefix = f"{section.section}." if section.section else ""
    lines = []
    for item in error.errors():
        if item["type"] == "value_error":  # of ours: each line names its setting
            lines += [f"{prefix}{line}" for line in item["msg"].removeprefix("Value error, ").split("\n")]
            continue
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] in ("extra_forbidden", "no_such_attribute"):
            close = difflib.get_close_matches(key, list(section.model_fields), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(section.model_fields)}"
            lines.append(f"{prefix}{key}: unknown key; {hint}")
        elif item["type"] == "missing":
            field = section.model_fields.get(key)
            lines.append(f"{prefix}{key}: missing; {_lower_first((field and field.description) or item['msg'])}")
        else:
            field = section.model_fields.get(str(item["loc"][0]))
            given = repr(item["input"]) if field is None or field.repr else "what is not shown here, as it may be a key"
            is_list = item["type"] in ("tuple_type", "list_type")
            wanted = _list_wanted(key, section) if is_list else _lower_first(item["msg"])
            lines.append(f"{prefix}{key}: given {given}; {wanted}")
    return lines


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def joined(mistakes: Sequence[str]) -> str:
    """Mistakes in one message."""
    if len(mistakes) == 1:
        return f"configuration: {mistakes[0]}"
    return f"configuration: {len(mistakes)} mistakes\n" + "\n".join(f"  {line}" for line in mistakes)


def _chrom_names(value: Any) -> Any:
    """`[1, chrX]` is `["1", "X"]`: chromosomes are text, and YAML reads `1` as a number."""
    if isinstance(value, list | tuple):
        named = [isinstance(item, int | str) and not isinstance(item, bool) for item in value]
        return tuple(
            normalise_chrom(str(item)) if is_name else item for item, is_name in zip(value, named, strict=True)
        )
    return value


Chromosomes = Annotated[tuple[str, ...], BeforeValidator(_chrom_names)]


class DataConfig(Section):
    """Which base-layer files to read."""

    section: ClassVar[str] = "data"

    base_model: str = Field("openspliceai", max_length=48, pattern=_FOLDER_NAME)
    """Name of the base model, as in `<base_model>_eval`; the registered model and the Bento are named after it."""
    data_root: Path = Path()
    """Folder that holds `data/`, `genes.tsv` and `nucleotide_scores/`."""
    annotation_source: str | None = None
    """Annotation folder (`mane`, `ensembl`, `gencode` ...); None finds it."""
    genome_build: str | None = None
    """Build folder (`GRCh38`, `GRCh37`; `hg38` and `hg19` are the same); None finds it, and several are an error."""
    artifacts_dir: Path | None = None
    """Folder with `analysis_sequences_*.tsv`, instead of the one found under `data_root`."""
    gene_table: Path | None = None
    """Gene table (TSV), instead of `<data_root>/genes.tsv`."""
    aliases: Path | None = None
    """Names of contigs, where rows, scores and gene table have different ones; like `base.aliases`."""
    nucleotide_scores: Path | None = None
    """Folder with per-nucleotide scores, instead of `<data_root>/nucleotide_scores`."""
    variant_source: Literal["splicevardb"] | None = None
    """Where sample weights come from; None weighs all rows alike."""
    splicevardb_path: Path | None = None
    """SpliceVarDB download (TSV), instead of `<data_root>/splicevardb.download.tsv`."""
    variant_radius_bp: int | None = Field(None, ge=0, le=1000)
    """A variant touches a row within this many bp of its labelled base; None: the labelled base
    and the two intron bases of its dinucleotide."""
    max_bad_share: float = Field(0.01, ge=0.0, le=1.0)
    """Rows with a null or NaN score or no sequence (and genes with such per-nucleotide scores) are
    dropped and counted; a larger share stops the run."""
    allow_introns: bool = False
    """Whether introns of per-nucleotide files may begin and end with anything, as in some genomes; else nearly all do
    with GT or GC and AG."""


class SplitConfig(Section):
    """Which genes train, validate and test."""

    section: ClassVar[str] = "split"

    by: Literal["chromosome", "gene"] = "chromosome"
    """`chromosome`: by the lists below; `gene`: whole genes at the fractions below."""
    test_chroms: Chromosomes = ("1", "3", "5", "7", "9")
    """Chromosomes to test on (SpliceAI-family base models never trained on the default ones)."""
    valid_chroms: Chromosomes | None = None
    """Chromosomes to validate on; None: `valid_fraction` of the genes of the training chromosomes."""
    train_chroms: Chromosomes | None = None
    """Chromosomes to train on; None: all others."""
    valid_fraction: float = Field(0.15, gt=0.0, lt=1.0)
    """Share of genes to validate on, where no `valid_chroms` are given."""
    test_fraction: float = Field(0.2, gt=0.0, lt=1.0)
    """Share of genes to test on, with `by: gene`."""
    seed: int = Field(42, ge=0)
    """Draws the genes."""

    @model_validator(mode="after")
    def _parts_are_apart(self) -> Self:
        if self.by == "gene":
            total = self.valid_fraction + self.test_fraction
            _refuse([f"test_fraction: {total:g} with valid_fraction; less than 1"] if total >= 1 else [])
            return self
        listed: dict[str, str] = {}
        mistakes = []
        for key in ("test_chroms", "valid_chroms", "train_chroms"):
            for chrom in getattr(self, key) or ():
                if listed.setdefault(chrom, key) != key:
                    mistakes.append(f"{key}: chromosome {chrom} is in {listed[chrom]} too; a chromosome is of one part")
        _refuse(mistakes)
        return self


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise ValueError("\n".join(mistakes))


_CHECKS = {"sequence_encoder": check_encoder_options, "track_encoder": check_track_options}


class EncoderOptions(dict[str, Any]):
    """Options of an encoder; each assignment is checked as those of the configuration that owns them."""

    def __init__(self, owner: ModelConfig, encoder: str, options: Mapping[str, Any]) -> None:
        """Own a copy of `options`, those of the setting `encoder` (`sequence_encoder` or `track_encoder`)."""
        super().__init__(options)
        self._owner, self._encoder = owner, encoder

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *given: Any, **named: Any) -> None:
        """As of a dictionary.

        Raises:
            ConfigError: all options that the encoder does not have or take; nothing is changed.
        """
        options = {**self, **dict(*given, **named)}
        mistakes = _CHECKS[self._encoder](getattr(self._owner, self._encoder), options)
        if mistakes:
            prefix = f"{self._owner.section}." if self._owner.section else ""
            raise ConfigError(joined([f"{prefix}{line}" for line in mistakes]))
        super().update(options)

    def __ior__(self, given: Any) -> Self:  # type: ignore[override,misc]
        self.update(given)
        return self

    def setdefault(self, name: str, value: Any = None) -> Any:
        """As of a dictionary; errors as in `update`."""
        if name not in self:
            self[name] = value
        return self[name]

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class ModelConfig(Section):
    """The network."""

    section: ClassVar[str] = "model"

    sequence_encoder: str = "cnn"
    """Name in the encoder registry: `cnn`, `hyenadna`, `huggingface` (language models) or `none`."""
    sequence_encoder_config: dict[str, Any] = Field(default_factory=dict)
    """Options of the encoder; unknown ones are errors."""
    score_encoder: bool = True
    """Whether the 50 score features of a position are read."""
    track_encoder: str = "none"
    """Encoder of the base's scores far around a position: `stages` or `none`. Rows that come without tracks are
    answered with the tracks masked."""
    track_encoder_config: dict[str, Any] = Field(default_factory=dict)
    """Options of the track encoder, the arguments of `TrackEncoder`: `stages`, `channels`, `letters` ..."""
    track_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of crops whose tracks are masked in training, so that rows without tracks are answered well too."""
    context_bp: int | None = Field(None, ge=1, le=1_000_000)
    """Positions that a window of tracks holds; None: as many as the track encoder sees."""
    fusion: str = "concat"
    """How scores and sequence meet: `concat`, `gated` or `cross_attention`."""

    @field_validator("sequence_encoder")
    @classmethod
    def _is_an_encoder(cls, name: str) -> str:
        _refuse(check_encoder_options(name, {}))
        return name

    @field_validator("sequence_encoder_config")
    @classmethod
    def _are_its_options(cls, options: dict[str, Any], known: ValidationInfo) -> dict[str, Any]:
        if "sequence_encoder" in known.data:  # else that is the mistake
            _refuse(check_encoder_options(known.data["sequence_encoder"], options))
        return options

    @field_validator("fusion")
    @classmethod
    def _is_a_fusion(cls, name: str) -> str:
        _refuse(check_fusion(name, "cnn"))
        return name

    @field_validator("track_encoder")
    @classmethod
    def _is_a_track_encoder(cls, name: str) -> str:
        _refuse(check_track_options(name, {}))
        return name

    @model_validator(mode="after")
    def _fit(self) -> Self:
        _refuse(check_encoder_options(self.sequence_encoder, self.sequence_encoder_config))
        _refuse(check_track_options(self.track_encoder, self.track_encoder_config))
        if not self.score_encoder and self.sequence_encoder == self.track_encoder == "none":
            _refuse(["score_encoder: given false with no sequence and no track encoder; the model would read nothing"])
        _refuse(check_fusion(self.fusion, self.sequence_encoder, self.score_encoder))
        _refuse(check_letters(self.sequence_encoder, self.track_encoder_config))
        self._rebound(self)
        return self

    def __copy__(self) -> Self:
        copied: Self = self._rebound(super().__copy__())
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        copied: Self = self._rebound(super().__deepcopy__(memo))
        return copied

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._rebound(self)

    @staticmethod
    def _rebound(copied: Any) -> Any:
        """A copy has options of its own, checked as the original's are."""
        for encoder in _CHECKS:
            name = f"{encoder}_config"
            copied.__dict__[name] = EncoderOptions(copied, encoder, copied.__dict__[name])
        return copied

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.copy()
        if name == "sequence_encoder" and value in ENCODER_OPTIONS and value != self.sequence_encoder:
            dropped = sorted(set(self.sequence_encoder_config) - set(ENCODER_OPTIONS[value]))
            if dropped:
                logger.warning("encoder %s has no option %s; dropped", value, ", ".join(dropped))
                kept = {k: v for k, v in self.sequence_encoder_config.items() if k not in dropped}
                self.__dict__["sequence_encoder_config"] = EncoderOptions(self, name, kept)
        try:
            super().__setattr__(name, value)
        except ConfigError:
            self.__dict__.update(before)
            raise

    hidden_dim: int = Field(256, ge=8, le=8192)
    """Width of the score encoder and of the fused layer."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of activations dropped in training."""


class TrainConfig(Section):
    """The training run."""

    section: ClassVar[str] = "train"

    training_unit: Literal["rows", "genes"] = "rows"
    """`rows`: artifact rows; `genes`: every position of genes with per-nucleotide scores, in crops."""
    crop_bp: int = Field(2048, ge=16, le=1_000_000)
    """Positions a crop of a gene."""
    batch_crops: int = Field(8, ge=1, le=65536)
    """Crops a batch, over all processes."""
    easy_share: float = Field(0.25, gt=0.0, le=1.0)
    """Share of the crops without site or hard negative that an epoch takes; they weigh as much more."""
    augment_tracks: bool = False
    """Show augmented copies of the genes each epoch, see `data/augment.py`: joined inside introns in another order, the
    base's scores shaken. Only training on genes has it, of a model without score encoder and frozen language model."""
    exon_loss: float = Field(0.5, ge=0.0, le=100.0)
    """Weight of telling exon from intron positions beside the sites, which shows crops where sites are wanted; only
    training on genes with a track encoder has it."""
    weight_average: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay a step of the running mean of the weights, which is validated and kept; 0 keeps the last weights."""

    learning_rate: float = Field(1e-4, gt=0.0, le=1.0)
    """Peak learning rate of AdamW."""
    additional_rate_share: float = Field(0.1, gt=0.0, le=1.0)
    """Share of `learning_rate` at which `train(additional_epochs=N)` goes on where the schedule has ended."""
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Decoupled weight decay of AdamW."""
    batch_size: int = Field(64, ge=1, le=65536)
    """Rows a batch, over all processes."""
    gradient_accumulation_steps: int = Field(1, ge=1, le=4096)
    """Batches an optimizer step."""
    balance_classes: bool = False
    """Draw training rows, with replacement, so that the three classes come equally often; validation and test
    rows stay as they are."""
    max_epochs: int = Field(100, ge=1, le=100_000)
    """Passes over the training rows, at most."""
    patience: int = Field(10, ge=1)
    """Epochs without a better `early_stopping_metric` after which training stops."""
    early_stopping_metric: Literal["pr_auc_splice", "ap_splice", "ap_donor", "ap_acceptor", "loss"] = "pr_auc_splice"
    """Which validation figure picks the best epoch: average precision of splice sites, of a class, the
    mean of both, or the loss."""
    warmup_fraction: float = Field(0.05, ge=0.0, lt=1.0)
    """Share of the optimizer steps in which the learning rate rises to its peak."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradient norm above which gradients are scaled down."""
    mixed_precision: bool = False
    """On a GPU: bfloat16 where it has it, else float16 with a gradient scaler. Elsewhere float32 as ever."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """`auto` takes cuda, then mps, then cpu."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of the network; None: as many as cores. Results repeat bit for bit at equal seed and
    threads. Where other programs want the cores too, 1 is faster than 2: threads wait for each other."""
    embedding_cache: Path | None = None
    """Folder for the states of frozen language models, which are computed once for each sequence and read from there
    in each epoch, also of later runs; None: `embeddings` in the state directory (`$METALAYER_HOME`, else
    `.metalayer`). It may be deleted when no run uses it."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seeds weights, order of rows and dropout."""


class EvaluateConfig(Section):
    """How the model is compared with its base."""

    section: ClassVar[str] = "evaluate"

    n_bootstrap: int = Field(1000, ge=100, le=100_000)
    """Bootstrap resamples of gene clusters behind each interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""
    top_k_values: tuple[PositiveInt, ...] = (10, 50, 100, 500)
    """k of the top-k accuracies, beside k = number of true sites."""
    seed: int = Field(42, ge=0)
    """Draws the bootstrap resamples."""


class GateConfig(Section):
    """What a model must show before it is promoted."""

    section: ClassVar[str] = "gate"

    min_pr_auc_splice: float = Field(0.3, ge=0.0, le=1.0)
    """Absolute floor of the splice-site PR-AUC."""
    margin: float = Field(0.003, ge=0.0, le=1.0)
    """Not worse than base on donor and acceptor AP, nor than the champion on any of the three, nor than the best
    champion of the line on splice PR-AUC: the lower bound of the paired interval must lie above -margin."""
    log_loss_margin: float = Field(0.01, ge=0.0, le=1.0)
    """Calibration: the upper bound of the paired interval of log loss against the base may lie this share of the
    base's log loss above 0, and no higher."""
    require_better_than_base: bool = True
    """The paired interval of splice PR-AUC against the base must lie above `min_gain`."""
    min_gain: float = Field(1e-4, ge=0.0, le=1.0)
    """Smallest lower bound that counts as better; above numerical noise."""


class Range(BaseModel):
    """All values from `low` to `high`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""

    @field_validator("low", "high", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, bool | str):
            raise PydanticCustomError("number_wanted", "needs a number")
        return value


class SearchConfig(Section):
    """A hyperparameter search (`--pipeline search`)."""

    section: ClassVar[str] = "search"

    n_trials: int = Field(10, ge=1, le=100_000)
    """Trials to train."""
    metric: Literal["pr_auc_splice", "ap_splice", "ap_donor", "ap_acceptor", "loss"] = "pr_auc_splice"
    """Validation figure to maximise (the loss is minimised)."""
    space: dict[str, Range | list[Any]] | None = None
    """Settings of model and train by name: a list of choices, or `{low: …, high: …}`; None takes the default
    ranges of learning_rate, batch_size, hidden_dim, dropout and weight_decay, of those that act."""

    def choices(self) -> dict[str, Sequence[Any]] | None:
        """`space` with each range as a tuple (low, high)."""
        if self.space is None:
            return None
        return {name: (of.low, of.high) if isinstance(of, Range) else of for name, of in self.space.items()}


class _Network(ModelConfig, TrainConfig):
    section: ClassVar[str] = ""


SEARCHED = tuple(
    name for name in _Network.model_fields if name not in ("seed", "device", "threads", "early_stopping_metric")
)
"""Settings that may be searched: what the network is and how it is trained, not what judges it."""


def space_mistakes(space: Mapping[str, Sequence[Any]], settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with a search space, each mistake with the setting's name in front.

    Args:
        space: by setting a list of choices, or a tuple (low, high).
        settings: all of model and train. A value that acts beside some choice of another setting is no mistake.
    """
    mistakes = [] if space else ["empty; name a setting to search"]
    settings = {name: settings[name] for name in _Network.model_fields}
    fixed = {_qualified(_Network, name): value for name, value in settings.items() if name not in space}
    for name, values in space.items():
        if name not in SEARCHED:
            mistakes.append(f"{name}: is no setting of the network or its training; there are " + ", ".join(SEARCHED))
            continue
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            mistakes.append(f"{name}: given {values!r}; a list of choices or a range (low, high)")
            continue
        if isinstance(values, tuple):
            numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            kind = _Network.model_fields[name].annotation
            if kind not in (int, float):
                mistakes.append(f"{name}: given {values!r}; not a number, so give a list of choices")
                continue
            whole = kind is float or (numbers and all(float(v).is_integer() for v in values))
            if len(values) != 2 or not numbers or not whole or not values[0] < values[1]:
                what = "numbers" if kind is float else "whole numbers"
                mistakes.append(f"{name}: given {values!r}; a range is (low, high), two {what}")
                continue
        found: list[str] = []
        for value in values:
            idle = {} if is_switched_off(value) else without_effect(fixed, [_qualified(_Network, name)])
            found += [_no_effect(name, value, need) for need in idle.values()]
            try:
                _Network(**{**settings, name: value})
            except ConfigError as error:
                found += [line for line in listed(error) if _NO_EFFECT not in line]
        mistakes += [line if line.startswith(f"{name}") else f"{name}: {line}" for line in found]
    return mistakes


class ScoreConfig(Section):
    """Scores of every position of all genes (`--pipeline score`)."""

    section: ClassVar[str] = "score"

    shards: int = Field(8, ge=1, le=10_000)
    """Steps that the genes are divided over, by positions; one on a cluster is a Job."""
    model: int | Path | None = None
    """A registered version, or a model directory; None: the champion of `data.base_model`."""
    output: Path | None = None
    """Parquet to write, with a manifest of the same name in JSON beside it; None: `scores/<base model>.parquet` in the
    state directory (`$METALAYER_HOME`, else `.metalayer`)."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """Where the network runs. `cuda` sends the shards to the stack's step operator, where it has one."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of the network; None: as many as cores. Scores repeat bit for bit at equal threads and device."""

    @field_validator("output")
    @classmethod
    def _is_parquet(cls, path: Path | None) -> Path | None:
        _refuse([f"output: given {path}; the name must end in .parquet"] if path and path.suffix != ".parquet" else [])
        return path


class BaseConfig(Section):
    """A base-layer pass (`--pipeline base_layer`, `metalayer base run`)."""

    section: ClassVar[str] = "base"

    model: str
    """Name of the base model: `pwm` (built in), or `openspliceai` with `weights`."""
    fasta: Path
    """Reference: FASTA, plain or packed."""
    annotation: Path
    """Genes with their exons: GTF or GFF3, plain or packed."""
    aliases: Path | None = None
    """Names of contigs, where FASTA and annotation have different ones: NCBI's assembly report, UCSC's chromAlias, or a
    table with the names of one contig a line."""
    output: Path
    """Data root to write: `data/`, `genes.tsv`, `nucleotide_scores/` and the manifest."""
    weights: Path | None = None
    """Folder with the model's `model_<flank>nt_rs<seed>.pt` state dicts."""
    flank: int | None = Field(None, ge=0)
    """Which networks of `weights`, by the nt that they see around a position, both sides together; None where
    the folder holds those of one flank."""
    device: str | None = Field(None, pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """Where the networks run; None leaves it to the model."""
    flanks: Literal["real", "N"] = "real"
    """Letters around a gene: those of the reference, or N, which tells a network where the annotated transcript
    ends."""
    annotation_source: str = Field("annotation", pattern=_FOLDER_NAME)
    """Folder name of the annotation (`mane`, `ensembl`, `gencode` ...)."""
    build: str = Field("unknown", pattern=_FOLDER_NAME)
    """Folder name of the genome build (`GRCh38`, `GRCh37`)."""
    min_intron_bp: int = Field(20, ge=1)
    """Least length of an intron; shorter gaps between exons are within one."""
    allow_introns: bool = False
    """Whether introns may begin and end with anything, as in some genomes; else nearly all do with GT or GC and AG."""
    workers: int = Field(1, ge=1, le=1024)
    """Processes that score genes, one CPU thread each; 1 scores in this process with all threads."""


class RunConfig(Section):
    """One pipeline run."""

    data: DataConfig = Field(default_factory=DataConfig)
    """Which files to read."""
    split: SplitConfig = Field(default_factory=SplitConfig)
    """Which genes train, validate and test."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The network."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    """The training run."""
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    """The comparison with the base."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """The bar for promotion."""
    search: SearchConfig = Field(default_factory=SearchConfig)
    """The hyperparameter search."""
    score: ScoreConfig = Field(default_factory=ScoreConfig)
    """Scores of all genes."""
    base: BaseConfig | None = None
    """The base-layer pass; needed by that pipeline alone."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from nested dictionaries.

        Raises:
            ConfigError: all unknown keys and impossible values, of all sections, in one message.
        """
        sections: dict[str, type[Section]] = {
            name: kind
            for name, field in cls.model_fields.items()
            for kind in (field.annotation, *get_args(field.annotation))  # of `Section | None` too
            if isinstance(kind, type) and issubclass(kind, Section)
        }
        mistakes: list[str] = []
        built: dict[str, Any] = {}
        for name, given in values.items():
            if name not in sections:
                close = difflib.get_close_matches(str(name), list(sections), n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known sections: {', '.join(sections)}"
                mistakes.append(f"{name}: unknown section; {hint}")
            elif given is None and cls.model_fields[name].default is None:
                continue
            elif given is not None and not isinstance(given, Mapping):
                mistakes.append(f"{name}: given {given!r}; a section holds keys and values")
            elif given and not all(isinstance(key, str) for key in given):
                odd = ", ".join(repr(key) for key in given if not isinstance(key, str))
                mistakes.append(f"{name}.{odd}: unknown key; keys are words")
            else:
                try:
                    built[name] = sections[name].model_validate(dict(given or {}))
                except ValidationError as error:
                    mistakes.extend(_mistakes(error, sections[name]))
                except ConfigError as error:
                    mistakes.extend(listed(error))
        named = {name: dict(given) for name, given in values.items() if name in sections and isinstance(given, Mapping)}
        settings = {**named, **{name: dict(section) for name, section in built.items()}}
        given = {name: {key: settings[name].get(key, value) for key, value in named[name].items()} for name in named}
        known = {line.split(": ", 1)[0] for line in mistakes}
        across = _across_sections(sections, settings, given)
        mistakes += [line for line in across if line.split(": ", 1)[0] not in known]
        if not {"model", "train", "search"} & (set(named) - set(built)):
            mistakes += _mistakes_of_search(built)
        if mistakes:
            raise ConfigError(joined(mistakes))
        return cls(**built)

    @model_validator(mode="after")
    def _act_together(self) -> Self:
        sections = {name: value for name, value in self.__dict__.items() if isinstance(value, Section)}
        given = {
            name: {key: section.__dict__[key] for key in section.model_fields_set} for name, section in sections.items()
        }
        kinds = {name: type(section) for name, section in sections.items()}
        mistakes = _across_sections(kinds, {name: section.__dict__ for name, section in sections.items()}, given)
        _refuse(mistakes + _mistakes_of_search(sections))
        return self

    @classmethod
    def load(cls, path: Path | None, overrides: Sequence[str] = (), data_root: Path | None = None) -> Self:
        """Read a YAML file, then apply `section.key=value` overrides and `data_root`.

        Raises:
            ConfigError: a file that cannot be read, or mistakes in it or in the overrides.
        """
        values = yaml12.read_mapping(path) if path else {}
        for override in overrides:
            form = "section.key=value, as in train.max_epochs=3"
            key, value = yaml12.setting(override, form)
            parts = key.split(".")
            if len(parts) != 2 or not all(parts):
                raise ConfigError(f"--set {override}: expected {form}")
            section = values.setdefault(parts[0], {})
            if not isinstance(section, dict):
                raise ConfigError(f"--set {override}: {parts[0]} is not a section")
            section[parts[1]] = value
        if data_root is not None:
            if not isinstance(values.setdefault("data", {}), dict):
                raise ConfigError(f"data: given {values['data']!r}; a section holds keys and values")
            values["data"]["data_root"] = data_root
        return cls.from_dict(values)


def _across_sections(
    kinds: Mapping[str, type[Section]],
    settings: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Given settings that cannot act in a pipeline beside those of other sections.

    Args:
        kinds: by name of the section.
        settings: of each, by name; those that are left out have their defaults.
        given: those that were named.
    """
    known: dict[str, Any] = {PIPELINE: True}
    for name, kind in kinds.items():
        known |= {f"{name}.{key}": field.get_default(call_default_factory=True) for key, field in _fields(kind)}
        known |= {f"{name}.{key}": value for key, value in settings.get(name, {}).items()}
    found = []
    for name, named in given.items():
        fields = kinds[name].model_fields
        found += _without_effect(kinds[name], {}, {key: named[key] for key in named if key in fields}, known)
    return found


def _mistakes_of_search(sections: Mapping[str, Section]) -> list[str]:
    search = sections.get("search")
    space = search.choices() if isinstance(search, SearchConfig) else None
    if space is None:
        return []
    settings = {**dict(sections.get("model") or ModelConfig()), **dict(sections.get("train") or TrainConfig())}
    return [f"search.space.{line}" for line in space_mistakes(space, settings)]


def listed(error: ConfigError) -> list[str]:
    """The single mistakes of a message made by `joined`."""
    first, *rest = str(error).removeprefix("configuration: ").split("\n")
    return [line.strip() for line in rest] if rest else [first]
