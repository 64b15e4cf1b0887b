"""Every column, class and feature is declared here, once.

The feature schema and its hash travel with the weights; a model is never loaded against another
schema, and nobody guesses a feature count. Definitions of the features: `features.py`, which the hash covers.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from metalayer.provenance import meaning_hash

# Classes, in the order of every probability axis C.
CLASSES: tuple[str, str, str] = ("donor", "acceptor", "neither")
DONOR, ACCEPTOR, NEITHER = 0, 1, 2
PROBABILITY_SUM_TOLERANCE = 0.01
"""Donor, acceptor and neither scores of one position must sum to 1 within this."""

PROBABILITY_FLOOR = 1e-10
"""Base probabilities below this count as this before the logarithm."""

WAYS: tuple[str, str] = ("positions", "rows")
"""Ways of asking a model: for every position of a sequence, with the base scores around it, or for rows, which carry
a window of letters and seven scores and no more."""
POSITIONS, ROWS = WAYS

# The seven numbers a base model leaves for one row; all other score features derive from them.
BASE_SCORES: tuple[str, ...] = ("donor_score", "acceptor_score", "neither_score")
SPLICED_SCORE = "spliced_score"
"""Of a base model that does not tell donors from acceptors: a splice site of either kind."""
CONTEXT_SCORES: tuple[str, ...] = (
    "context_score_m2",
    "context_score_m1",
    "context_score_p1",
    "context_score_p2",
)
ROW_SCORES: tuple[str, ...] = BASE_SCORES + CONTEXT_SCORES

_PER_TYPE = (
    "diff_m1",
    "diff_m2",
    "diff_p1",
    "diff_p2",
    "surge_ratio",
    "is_local_peak",
    "weighted_context",
    "peak_height_ratio",
    "second_derivative",
    "signal_strength",
    "context_diff_ratio",
)
DERIVED_FEATURES: tuple[str, ...] = (
    "relative_donor_probability",
    "splice_probability",
    "donor_acceptor_diff",
    "splice_neither_diff",
    "donor_acceptor_logodds",
    "splice_neither_logodds",
    "probability_entropy",
    "context_neighbor_mean",
    "context_asymmetry",
    "context_max",
    *(f"donor_{name}" for name in _PER_TYPE),
    *(f"acceptor_{name}" for name in _PER_TYPE),
    "donor_acceptor_peak_ratio",
    "type_signal_difference",
    "score_difference_ratio",
    "signal_strength_ratio",
)
ROW_FEATURES: tuple[str, ...] = (
    "donor_logit",
    "acceptor_logit",
    "score_margin",
    "has_gt",
    "has_ag",
    "gc_fraction",
    "n_fraction",
)
SCORE_FEATURES: tuple[str, ...] = ROW_SCORES + DERIVED_FEATURES
"""The 43 columns an artifact file may carry."""
FEATURES: tuple[str, ...] = SCORE_FEATURES + ROW_FEATURES
"""The 50 model features, in the model's order."""

RATIO_FEATURES: frozenset[str] = frozenset(
    name
    for name in FEATURES
    if name.endswith(("surge_ratio", "height_ratio", "context_diff_ratio", "peak_ratio", "strength_ratio"))
    or name in ("donor_acceptor_diff", "splice_neither_diff")
)
"""Features divided by something that may be ~1e-10: normalised after a signed logarithm."""

# The artifact TSV of the base layer, in the order in which we write it (read by name).
ARTIFACT_COLUMNS: tuple[str, ...] = (
    "gene_id",
    "transcript_id",
    "position",
    "predicted_position",
    "true_position",
    "pred_type",
    "score",
    "strand",
    *BASE_SCORES,
    "splice_type",
    *CONTEXT_SCORES,
    *DERIVED_FEATURES,
    "chrom",
    "window_start",
    "window_end",
    "transcript_count",
    "sequence",
)
LABEL_LEAKING_COLUMNS: frozenset[str] = frozenset(
    ("splice_type", "pred_type", "predicted_position", "true_position", "score", "is_correct", "error_type")
)
"""Never features: they give the label away."""
IDENTITY_COLUMNS: frozenset[str] = frozenset(
    (
        "gene_id",
        "transcript_id",
        "gene_name",
        "gene_type",
        "chrom",
        "strand",
        "position",
        "absolute_position",
        "window_start",
        "window_end",
        "transcript_count",
    )
)
"""Never features: they name the row."""

GENE_COLUMNS: tuple[str, ...] = ("gene_id", "gene_name", "chrom", "strand", "start", "end")
"""The gene table: start and end are 1-based inclusive; `paralog_group` and `contig`, the name of the chromosome in the
FASTA, are optional."""
TRACK_COLUMNS: tuple[str, ...] = ("gene_id", "chrom", "strand", "position", "base", *BASE_SCORES)
"""Per-nucleotide scores: position 1-based genomic, base on the plus strand, scores on the exon
base; `label`, `paralog`, `ignored` and `MARK_COLUMNS` are optional. Several base models may stand side by side, each
with its `score_columns`."""
SITE_KINDS: tuple[str, ...] = ("none", "principal", "alternative", "unknown")
NO_SITE, PRINCIPAL, ALTERNATIVE, KIND_UNKNOWN = 0, 1, 2, 3
"""What a base is in the isoforms of its gene: a site of the principal transcript, of others alone, or of isoforms of
which none is known to be the principal one."""
MARK_COLUMNS: tuple[str, ...] = ("site_kind", "transcripts")
"""Optional columns of per-nucleotide scores beside `label`."""
TRANSCRIPTS_UNKNOWN = -1
LABELS = ("all", "principal")
"""Which sites are labels: those of every isoform, or of the principal transcript of each gene."""
SCORED_COLUMNS: tuple[str, ...] = ("gene_id", "chrom", "strand", "position", *CLASSES)
"""Calibrated scores of whole genes: position 1-based genomic, probabilities on the exon base."""
ERROR_COLUMNS: tuple[str, ...] = (
    *("outcome", "error", "class", "gene_id", "also_in"),
    *("chrom", "strand", "position", "genome_build", "base", "meta"),
)
"""Errors of base and meta on test genes: position 1-based genomic, probabilities of the class."""
PARALOG_UNKNOWN = -1
"""Paralog flag of a gene of which nothing is known; 1 it has paralogs, 0 it has none."""
BASE_MODEL_KEY = "metalayer.base_model"
"""Optional metadata of a per-nucleotide Parquet file with the scores of one base model: its name."""
GENOME_BUILD_KEY = "genome_build"
"""Optional metadata of a per-nucleotide Parquet file: the build of its positions."""
PRECISION_KEY = "metalayer.precision"
"""Optional metadata of a per-nucleotide Parquet file: in what the networks computed its scores."""
KERNELS_KEY = "metalayer.kernels"
"""Likewise: JSON list, the instructions that they ran on; with others the last digits differ."""
CONTIGS_KEY = "metalayer.contigs"
"""Optional metadata of a per-nucleotide Parquet file: JSON object, names of chromosomes in the FASTA by ours."""


def score_columns(base_model: str, scores: tuple[str, ...] = BASE_SCORES) -> tuple[str, ...]:
    """Where base models stand side by side, the columns of one: `donor_score.NAME` and so on.

    Args:
        base_model: its name.
        scores: what it gives: `BASE_SCORES`, or `SPLICED_SCORE` alone.
    """
    return tuple(f"{column}.{base_model}" for column in scores)


def evidence_column(name: str) -> str:
    """The column of per-nucleotide files that holds a piece of evidence; numbers, empty where missing."""
    return f"evidence.{name}"


BASES_SEPARATOR = "+"


def bases_of(base_model: str) -> list[str]:
    """The base models that a name stands for: of `a+b` those two."""
    return base_model.split(BASES_SEPARATOR)


ARTIFACT_WINDOW_BP = 500
"""Artifact sequences cover [position - 250, position + 250), cut at gene ends."""
SITE_CONVENTION = "exon_base_transcript_sense"
"""Inside: a site is its last / first exonic base, in transcript direction. Rows (intron base)
convert at the border, in `genome.py`."""


@dataclass(frozen=True)
class FeatureSchema:
    """What a model's inputs mean: the feature columns in order, their formulas, the window and the convention.

    Attributes:
        features: feature columns, in the model's order.
        window_bp: letters around the labelled base that `gc_fraction` and `n_fraction` see:
            [position - window_bp // 2, position + window_bp // 2).
        site_convention: see `SITE_CONVENTION`.
        classes: the probability axis.
    """

    features: tuple[str, ...] = FEATURES
    window_bp: int = ARTIFACT_WINDOW_BP
    site_convention: str = SITE_CONVENTION
    classes: tuple[str, ...] = CLASSES

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready description."""
        return {
            "features": list(self.features),
            "formulas": formulas(),
            "window_bp": self.window_bp,
            "site_convention": self.site_convention,
            "classes": list(self.classes),
        }

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the description."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_FORMULAS = {
    "features.py": (
        *("EPSILON", "FEATURE_REACH_BP", "_G", "_A", "_T", "_N", "derived_features", "_score_columns", "_stack"),
        *("feature_matrix", "gene_row_scores", "gene_feature_matrix", "stretch_feature_matrix"),
    ),
    "genome.py": ("LETTERS", "N_TOKEN", "_INTRON_OFFSET", "exon_base"),
}
"""By module, what says how a feature is computed."""


@functools.cache
def formulas(folder: Path = Path(__file__).parent) -> str:
    """First 16 hex digits of the SHA-256 over what the features' source computes; words and layout do not count."""
    found = [meaning_hash((folder / name).read_text("utf-8"), names) for name, names in _FORMULAS.items()]
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:16]


FEATURE_SCHEMA = FeatureSchema()
