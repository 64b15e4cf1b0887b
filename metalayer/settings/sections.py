"""The sections of a run beside the network and its search, each field with its unit, range and default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, field_validator, model_validator

from metalayer.genome import normalise_chrom
from metalayer.metric_list import ValidationMetric
from metalayer.schema import BASES_SEPARATOR
from metalayer.settings.evidence import EvidenceSources
from metalayer.settings.mistakes import Needs, refuse
from metalayer.settings.section import Section

_LETTERS = "letters, digits, `.`, `_` and `-`, a letter or digit first and last"
_ONE_BASE = "[A-Za-z0-9]([A-Za-z0-9._-]{0,46}[A-Za-z0-9])?"
_BASE_NAMES = rf"^{_ONE_BASE}(\+{_ONE_BASE})*$"
_FOLDER_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
_Name = Annotated[str, Needs(f"allowed are {_LETTERS}")]
_DEVICE = r"^(auto|cpu|cuda(:\d+)?|mps)$"
_Device = Annotated[str, Needs("allowed are auto, cpu, cuda, cuda:0 and so on, mps")]


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

    base_model: Annotated[str, Needs(f"allowed are names of {_LETTERS}, several joined by `+`")] = Field(
        "openspliceai", max_length=100, pattern=_BASE_NAMES
    )
    """Name of the base model, as in `<base_model>_eval`; the registered model and the Bento are named after it. Of
    several side by side in one file of `metalayer merge` a list, or their names joined by +; `base_models` says the
    same."""
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
    evidence: EvidenceSources = Field(default_factory=dict)
    """Numbers per base that the model reads beside the scores, as conservation or junctions: names, each with a path
    (BigWig, or Parquet), `{plus: PATH, minus: PATH}` for a file a strand, `column` for the column `evidence.NAME` of
    the per-nucleotide scores, or, where a trained model is asked without it, `none`."""
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

    @model_validator(mode="before")
    @classmethod
    def _has_one_name(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "base_models" not in given or "base_model" in given:
            return given  # both of them: base_models is an unknown key
        return {("base_model" if name == "base_models" else name): value for name, value in given.items()}

    @field_validator("base_model", mode="before")
    @classmethod
    def _are_joined(cls, given: Any) -> Any:
        return BASES_SEPARATOR.join(map(str, given)) if isinstance(given, list | tuple) else given


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
            refuse([f"test_fraction: {total:g} with valid_fraction; less than 1"] if total >= 1 else [])
            return self
        listed: dict[str, str] = {}
        mistakes = []
        for key in ("test_chroms", "valid_chroms", "train_chroms"):
            for chrom in getattr(self, key) or ():
                if listed.setdefault(chrom, key) != key:
                    mistakes.append(f"{key}: chromosome {chrom} is in {listed[chrom]} too; a chromosome is of one part")
        refuse(mistakes)
        return self


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
    early_stopping_metric: ValidationMetric = "pr_auc_splice"
    """Which validation figure picks the best epoch: average precision of splice sites, of a class, the
    mean of both, or the loss."""
    warmup_fraction: float = Field(0.05, ge=0.0, lt=1.0)
    """Share of the optimizer steps in which the learning rate rises to its peak."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradient norm above which gradients are scaled down."""
    mixed_precision: bool = False
    """On a GPU: bfloat16 where it has it, else float16 with a gradient scaler. Elsewhere float32 as ever."""
    device: _Device = Field("auto", pattern=_DEVICE)
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
    """Calibration: the upper bound of the paired interval of log loss per site against the base may lie this share of
    the base's log loss per site above 0, and no higher."""
    require_better_than_base: bool = True
    """The paired interval of splice PR-AUC against the base must lie above `min_gain`."""
    min_gain: float = Field(1e-4, ge=0.0, le=1.0)
    """Smallest lower bound that counts as better; above numerical noise."""
    allow_seen_by_base: bool = False
    """Count test genes on human chromosomes that the base model was trained on, as published. Else they are left out of
    what is judged; a model all of whose test genes are such is rejected."""


class ScoreConfig(Section):
    """Scores of every position of all genes (`--pipeline score`)."""

    section: ClassVar[str] = "score"

    shards: int | None = Field(None, ge=1, le=10_000)
    """Steps that the genes are divided over, by positions; one on a cluster is a Job. None: 8, or one a gene where
    there are fewer."""
    model: int | str | None = None
    """A model's name (`NAME`, `NAME@ALIAS`, `NAME/VERSION`, `models:/...` or a model directory), or the number of a
    version; None: the champion of `data.base_model`."""
    output: Path | None = None
    """Parquet to write, with a manifest of the same name in JSON beside it; None: `scores/<base model>.parquet` in the
    state directory (`$METALAYER_HOME`, else `.metalayer`)."""
    device: _Device = Field("auto", pattern=_DEVICE)
    """Where the network runs. `cuda` sends the shards to the stack's step operator, where it has one."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of the network; None: as many as cores. Scores repeat bit for bit at equal threads and device."""

    @field_validator("model", mode="before")
    @classmethod
    def _is_named(cls, model: Any) -> Any:
        return str(model) if isinstance(model, Path) else model

    @field_validator("output")
    @classmethod
    def _is_parquet(cls, path: Path | None) -> Path | None:
        refuse([f"output: given {path}; the name must end in .parquet"] if path and path.suffix != ".parquet" else [])
        return path


class VariantsConfig(Section):
    """What the variants of a file do to splicing (`--pipeline variants`); options as of `metalayer variants`."""

    section: ClassVar[str] = "variants"

    file: Path
    """VCF, plain or packed, or BCF."""
    fasta: Path
    """Reference: FASTA, plain or packed by bgzip."""
    annotation: Path
    """Genes: GTF, GFF3, or a gene table of SpliceAI, OpenSpliceAI or CI-SpliceAI."""
    output: Path
    """`.vcf`, `.vcf.gz` or `.bcf`, `.tsv` or `.parquet`."""
    bases: tuple[str, ...] = Field(min_length=1)
    """Base models: `pwm`, `cispliceai`, `spliceai`, `openspliceai` or with its flank `openspliceai_10000`."""
    weights: tuple[str, ...] = ()
    """`NAME=PATH`, or paths in the order of the base models that take any."""
    model: str | None = None
    """A model's name (`NAME`, `NAME@ALIAS`, `NAME/VERSION`, or a model directory) to stand beside its base models;
    None: base models alone."""
    aliases: Path | None = None
    """Names of contigs, where files have different ones."""
    evidence: EvidenceSources = Field(default_factory=dict)
    """What the model reads beside base scores, like `data.evidence`; files alone."""
    calibration: Path | None = None
    """Table of `metalayer variants calibrate`, for the probability that splicing is altered; None for none."""
    split: bool = False
    """Write one record an allele, with its own scores alone."""
    shards: int | None = Field(None, ge=1, le=10_000)
    """Steps that the records are divided over; one on a cluster is a Job. None: 8, or one a record where there are
    fewer."""
    distance: int = Field(50, ge=1, le=5000)
    """Positions to either side that are looked at."""
    context: int = Field(0, ge=0, le=5000)
    """Positions to either side from which consequences are read, where these are more than `distance`."""
    mask: bool = False
    """Whether gains of annotated sites and losses of others do not count."""
    flanks: Literal["N", "real"] = "N"
    """Letters outside a gene."""
    way: Literal["metalayer", "spliceai"] = "metalayer"
    """`spliceai`: the numbers of SpliceAI 1.3.1 with its faults."""
    max_length: int = Field(10_000, ge=1)
    """Longest REF or ALT that is scored, in nt."""
    max_ambiguous: float = Field(0.5, ge=0.0, le=1.0)
    """Share of N among the letters that a score depends on; above it there is none."""
    allow_introns: bool = False
    """Whether introns of the annotation may begin and end with anything."""
    device: _Device = Field("auto", pattern=_DEVICE)
    """Where the networks run. `cuda` sends the shards to the stack's step operator, where it has one."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of networks."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of the networks; None: as many as cores."""

    @field_validator("bases", "weights", mode="before")
    @classmethod
    def _are_listed(cls, given: Any) -> Any:
        return [one for one in given.split(",") if one] if isinstance(given, str) else given

    @field_validator("model", mode="before")
    @classmethod
    def _is_named(cls, model: Any) -> Any:
        return str(model) if isinstance(model, Path) else model


class BaseConfig(Section):
    """A base-layer pass (`--pipeline base_layer`, `metalayer base run`)."""

    section: ClassVar[str] = "base"

    model: str
    """Name of the base model: `pwm` (built in), `cispliceai` or `spliceai` (of the installed distribution of that name,
    or with `weights`), `openspliceai`, `pangolin` or `pangolin_spliced` (with `weights`)."""
    fasta: Path
    """Reference: FASTA, plain or packed."""
    annotation: Path
    """Genes with their exons: GTF, GFF3, or a gene table of SpliceAI, OpenSpliceAI or CI-SpliceAI, plain or packed;
    `grch37` or `grch38`: the table of such a tool that is installed here."""
    aliases: Path | None = None
    """Names of contigs, where FASTA and annotation have different ones: NCBI's assembly report, UCSC's chromAlias, or a
    table with the names of one contig a line."""
    output: Path
    """Data root to write: `data/`, `genes.tsv`, `nucleotide_scores/` and the manifest."""
    evidence: EvidenceSources = Field(default_factory=dict)
    """Numbers per base to write beside the scores, in columns `evidence.NAME`, like `data.evidence`; that section can
    read them with the scores instead, which needs no new pass."""
    weights: Path | None = None
    """Folder with the model's own files: `spliceai1.h5` to `spliceai5.h5`, `CI-SpliceAI.pb` (or that file itself),
    `model_<flank>nt_rs<seed>.pt` of OpenSpliceAI, `final.<fold>.<0, 2, 4, 6>.3.v2` of Pangolin."""
    flank: int | None = Field(None, ge=0)
    """Which networks of OpenSpliceAI, by the nt that they see around a position, both sides together; None where
    `weights` holds those of one flank."""
    device: _Device | None = Field(None, pattern=_DEVICE)
    """Where the networks run; None leaves it to the model."""
    precision: Literal["float32", "bfloat16", "auto"] | None = None
    """In what the networks compute: `auto` takes bfloat16 where CPU or GPU has instructions for it. None leaves it
    to the model: float32."""
    flanks: Literal["real", "N"] = "real"
    """Letters around a gene: those of the reference, or N, which tells a network where the annotated transcript
    ends."""
    annotation_source: _Name = Field("annotation", pattern=_FOLDER_NAME)
    """Folder name of the annotation (`mane`, `ensembl`, `gencode` ...)."""
    build: _Name = Field("unknown", pattern=_FOLDER_NAME)
    """Folder name of the genome build (`GRCh38`, `GRCh37`)."""
    min_intron_bp: int = Field(20, ge=1)
    """Least length of an intron; shorter gaps between exons are within one."""
    allow_introns: bool = False
    """Whether introns may begin and end with anything, as in some genomes; else nearly all do with GT or GC and AG."""
    labels: Literal["all", "principal"] = "all"
    """Which sites are labelled donor and acceptor: `all`, of every transcript; `principal`, of the principal one of a
    gene (see docs/base_layer.md), the sites of others being `neither`. Both are marked in `site_kind`."""
    workers: int = Field(1, ge=1, le=1024)
    """Processes that score genes, one CPU thread each; 1 scores in this process with all threads."""


class ImportConfig(Section):
    """An import of per-nucleotide scores that are there already (`metalayer import`)."""

    section: ClassVar[str] = "import"

    files: tuple[Path, ...] = Field(min_length=1)
    """Files of scores, and sheets that list some."""
    fasta: Path
    """Reference: FASTA, plain or packed; the letters."""
    annotation: Path
    """Genes with their exons, like `base.annotation`: the labels."""
    aliases: Path | None = None
    """Names of contigs, where files have different ones; like `base.aliases`."""
    base: _Name = Field(max_length=48, pattern=_FOLDER_NAME)
    """Name of the base model, as `data.base_model` will have it."""
    output: Path
    """Data root to write: `genes.tsv`, `nucleotide_scores/`, the manifest and a list of all genes."""
    build: _Name = Field("unknown", pattern=_FOLDER_NAME)
    """Genome build (`GRCh38`, `GRCh37`)."""
    columns: tuple[str, ...] = ()
    """Columns of tables by what they are, `NAME=COLUMN`."""
    shift: tuple[str, ...] = ()
    """Bases by which scores are moved: a number along the chromosome, `donor=N` and `acceptor=N` in transcript
    direction."""
    absent: float | None = Field(None, ge=0.0, le=0.5)
    """Donor and acceptor score of bases that the files leave out because it is low, as below a threshold; None: these
    stay empty."""
    logits: bool = False
    """Whether scores are logits: of three classes by softmax, of two each by the logistic function."""
    labels: Literal["all", "principal"] = "all"
    """Which sites are labelled donor and acceptor; like `base.labels`."""
    allow_introns: bool = False
    """Whether introns may begin and end with anything, as in some genomes; else nearly all do with GT or GC and AG."""
