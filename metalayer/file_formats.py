"""Every file that is read or written, column by column: the one home of these descriptions.

`python -m metalayer.file_formats` prints docs/formats.md, which a test holds against it. Names of columns are those of
`schema.py` and of the readers; a column without a description here is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metalayer.base.annotation_tables import COLUMNS
from metalayer.evaluation.detection import FIGURES
from metalayer.file_kinds import CISPLICEAI_TABLE, SPLICEAI_TABLE
from metalayer.formats.sources import SHEET_COLUMNS
from metalayer.formats.tables import KNOWN
from metalayer.release import answer
from metalayer.schema import (
    ARTIFACT_COLUMNS,
    DERIVED_FEATURES,
    ERROR_COLUMNS,
    GENE_COLUMNS,
    ROW_SCORES,
    SCORED_COLUMNS,
    TRACK_COLUMNS,
)
from metalayer.variants.answers import CALIBRATED_COLUMNS, DETAIL_FORMAT, FACTS_KEY, FORMAT, PROBABILITY_FORMAT
from metalayer.variants.answers import COLUMNS as VARIANT_COLUMNS
from metalayer.variants.definition import KINDS
from metalayer.variants.kinds import KINDS as VARIANT_PLACES
from metalayer.variants.labelled import JUDGED_COLUMNS
from metalayer.variants.meaning import FRAMES


@dataclass(frozen=True)
class Column:
    """A column: its type, and what it holds, with unit, base of positions and strand."""

    kind: str
    text: str
    is_optional: bool = False


@dataclass(frozen=True)
class FileFormat:
    """A file.

    Attributes:
        title: what it is.
        path: where it lies, or how it is called.
        made_by: which tools write it.
        read_by: which of our commands read it.
        text: form, positions, strands and what is to be known beside.
        columns: by name, in their order; empty where the format is not a table of ours.
        example: a line, or none.
    """

    title: str
    path: str
    made_by: str
    read_by: str
    text: str
    columns: Mapping[str, Column]
    example: str = ""


_SCORE = answer.PROBABILITY
_PLACE = {
    "gene_id": Column("text", "the gene; `gene-` before it says nothing"),
    "gene_name": Column("text", "the gene's symbol", is_optional=True),
    "chrom": Column("text", "chromosome; `chr` before it says nothing"),
    "strand": Column("text", "strand of the gene, `+` or `-`"),
    "start": Column("whole number", "first base, 1-based, on the plus strand"),
    "end": Column("whole number", "last base, 1-based inclusive"),
}
_GENE_TABLE = {
    **{name: _PLACE[name] for name in GENE_COLUMNS},
    "paralog_group": Column("text", "genes that must not be split apart share one; empty: none", is_optional=True),
    "contig": Column("text", "name of the chromosome in the FASTA", is_optional=True),
}
_TRACK_TABLE = {
    "contig": Column("text", "name in the reference"),
    "strand": _PLACE["strand"],
    "position": Column("whole number", "base, 1-based, on the plus strand; sites at their exon bases"),
    **{
        f"{system}_{name}": Column("float32", f"{_SCORE}: {name} by the {system} model; empty: missing")
        for system in ("base", "meta")
        for name in ("donor", "acceptor")
    },
}
_TRACK = {
    "gene_id": _PLACE["gene_id"],
    "chrom": _PLACE["chrom"],
    "strand": _PLACE["strand"],
    "position": Column("whole number", "base, 1-based, on the plus strand; every base of the gene once, ascending"),
    "base": Column("text", "letter of the plus strand, A, C, G, T or N, in genes of both strands"),
    "donor_score": Column("float32", f"{_SCORE}: the last base of an exon, on the gene's strand; empty: missing"),
    "acceptor_score": Column("float32", f"{_SCORE}: the first base of an exon, on the gene's strand; empty: missing"),
    "neither_score": Column("float32", f"{_SCORE}: 1 - donor_score - acceptor_score; empty: missing"),
}
_LABEL = {
    "label": Column(
        "text", "`donor`, `acceptor` or `neither`, at exon bases; training and evaluation need it", is_optional=True
    ),
    "paralog": Column(
        "whole number", "1 the gene has paralogs, 0 it has none, -1 unknown; one value a gene", is_optional=True
    ),
    "site_kind": Column(
        "text",
        "which isoforms have a site here, whatever is labelled: `none`; `principal`: the principal transcript; "
        "`alternative`: others alone; `unknown`: none is known to be principal",
        is_optional=True,
    ),
    "transcripts": Column("whole number", "how many have it; -1 not known; stands beside site_kind", is_optional=True),
    "ignored": Column("true, false", "whether the base counts neither in training nor in evaluation", is_optional=True),
    "evidence.NAME": Column(
        "float32", "evidence of that name (evidence.md), any number; empty: missing, which is not 0", is_optional=True
    ),
}
_EVIDENCE = {
    "chrom": _PLACE["chrom"],
    "position": Column("whole number", "base, 1-based, on the plus strand; each once, of a strand once"),
    "value": Column("number", "of the base; the column may have the name of the evidence; empty: missing"),
    "strand": Column("text", "`+` or `-`, where numbers are of one strand", is_optional=True),
}
_SPLICEAI_TABLE = {
    "#NAME": Column("text", "the gene"),
    "CHROM": _PLACE["chrom"],
    "STRAND": _PLACE["strand"],
    "TX_START": Column("whole number", "first base, 0-based, on the plus strand"),
    "TX_END": Column("whole number", "last base, 1-based inclusive"),
    "EXON_START": Column("list", "first base of each exon, 0-based, with commas"),
    "EXON_END": Column("list", "last base of each exon, 1-based inclusive, in the same order"),
}
_CISPLICEAI_TABLE = {
    "gene_id": Column("text", "the gene"),
    "chr": _PLACE["chrom"],
    **{name: _PLACE[name] for name in ("strand", "start", "end")},
    "jn_start": Column(
        "list", "last base of an exon before an intron along the chromosome, 1-based: donors of +, acceptors of - genes"
    ),
    "jn_end": Column("list", "first base of an exon after an intron, likewise: acceptors of +, donors of - genes"),
}
_VARIANTS = {
    "chrom": Column("text", "CHROM as it is written"),
    "pos": Column("whole number", "POS, 1-based"),
    "id": Column("text", "ID; of `score_variants` the variant as it was given"),
    "ref": Column("text", "REF"),
    "alt": Column("text", "ALT"),
    "skipped": Column("text", "why there is no score; empty where there is one"),
    "gene_id": Column("text", "a gene that the variant touches"),
    "gene_name": Column("text", "its symbol, or its id"),
    "strand": Column("text", "its strand, `+` or `-`"),
    "model": Column("text", "the base model, or `metalayer` for ours"),
    "consequence": Column("text", "research prediction: what happens to exons, names with `&` between (variants.md)"),
    "transcript": Column("text", "of which exons are read"),
    "length_change": Column("whole number", "nt that the spliced transcript gains; empty where no change is called"),
    "frame": Column("text", f"of the reading frame: {', '.join(FRAMES)}; empty where no change is called"),
    "exons_before": Column("text", "exons around what changes on REF, 5' to 3', from lower to higher end, 1-based"),
    "exons_after": Column("text", "likewise on ALT; `x^n`: inserted letter n behind x"),
    "alternatives": Column("text", "other ways to splice ALT: what they would be called, and their probability"),
    **{
        f"{kind}_{name}": Column(of, text.format(kind.replace("_", " ")))
        for kind in KINDS
        for name, of, text in (
            ("score", "number", "{}: how much the probability of the site changes, 0 to 1"),
            ("position", "whole number", "{}: base where it changes most, 1-based, on the plus strand"),
            ("offset", "whole number", "{}: bases from POS to there, positive downstream on the gene's strand"),
            ("ref", "number", "{}: probability of the site there on REF; 0 of an inserted letter"),
            ("alt", "number", "{}: probability of the site there on ALT; 0 of a deleted base"),
            ("annotated", "true, false", "{}: whether the annotation has this site, of any isoform"),
        )
    },
    "kind": Column(
        "text",
        f"with `--calibration`: where the variant lies in the gene, {', '.join(VARIANT_PLACES)}",
        is_optional=True,
    ),
    "probability": Column(
        "number",
        "with `--calibration`: that splicing is altered, in rows of the scores that it reads",
        is_optional=True,
    ),
}
_JUDGED = {
    "chrom": _VARIANTS["chrom"],
    "contig": Column("text", "chromosome by our name"),
    **{name: _VARIANTS[name] for name in ("pos", "ref", "alt")},
    "altering": Column("true, false", "the label: whether it alters splicing"),
    "gene_id": Column("text", "the gene that it is judged in; empty without a score"),
    "gene_name": Column("text", "its symbol, or its id"),
    "kind": Column("text", f"where it lies in the gene: {', '.join(VARIANT_PLACES)}"),
    "side": Column("text", "`intron` or `exon`, of the site"),
    "distance": Column("whole number", "base of intron or exon, from 1 at the exon's edge; empty: no sites"),
    "cluster": Column("whole number", "genes that overlap have one number; intervals draw them as one"),
    "reason": Column("text", "why it does not count: as `skipped`, `not_answered`, `seen_in_training`; empty: it does"),
}
_DETECTION = {
    "group": Column("text", "`all`, a kind, or a range of distances from the nearest site"),
    "system": Column("text", "the base model, `metalayer` for ours, or `metalayer - BASE`: the difference"),
    "metric": Column("text", "`roc_auc`, `pr_auc`, `sensitivity`, `false_positive_rate`, `precision`"),
    "threshold": Column("number", "of the largest change, from which a variant is called; empty: of areas"),
    "value": Column("number", "the figure"),
    "low": Column("number", "lower bound of its 95 % interval; empty with fewer than 5 clusters of genes of a label"),
    "high": Column("number", "upper bound"),
}
_LABELLED = {
    "variant": Column("text", "chr3:42600000:G:A, 3-42600000-G-A, chr3:g.42600000G>A ([variants.md](variants.md))"),
    "label": Column("text", "1, yes, true, altering, splice-altering; 0, no, false, neutral, normal"),
    "gene": Column("text", "symbol or id of the gene that this is known of", is_optional=True),
}
_ROW_SCORES = {
    "donor_score": "donor score that the row's pass reads",
    "acceptor_score": "acceptor score that the row's pass reads",
    "neither_score": "neither score that the row's pass reads",
    "context_score_m2": "score of the pass's class two bases before",
    "context_score_m1": "one base before",
    "context_score_p1": "one base after",
    "context_score_p2": "two bases after",
}
_PER_CLASS = {
    "diff_m1": "X - m1",
    "diff_m2": "X - m2",
    "diff_p1": "X - p1",
    "diff_p2": "X - p2",
    "surge_ratio": "X / (m1 + p1 + e)",
    "is_local_peak": "1 where X > m1, X > p1 and X > 0.001, else 0",
    "weighted_context": "0.1 m2 + 0.2 m1 + 0.4 X + 0.2 p1 + 0.1 p2",
    "peak_height_ratio": "X / (mean of m2, m1, p1, p2 + e)",
    "second_derivative": "2 X - m1 - p1",
    "signal_strength": "X - mean of m2, m1, p1, p2",
    "context_diff_ratio": "X / (largest of m2, m1, p1, p2 + e)",
}
_DERIVED = {
    "relative_donor_probability": "D / (D + A + e)",
    "splice_probability": "(D + A) / (D + A + N + e)",
    "donor_acceptor_diff": "(D - A) / (max(D, A) + e)",
    "splice_neither_diff": "(max(D, A) - N) / (max(D, A, N) + e)",
    "donor_acceptor_logodds": "ln(D + e) - ln(A + e)",
    "splice_neither_logodds": "ln(D + A + e) - ln(N + e)",
    "probability_entropy": "entropy of D, A, N, in nats",
    "context_neighbor_mean": "mean of m2, m1, p1, p2",
    "context_asymmetry": "(m1 + m2) - (p1 + p2)",
    "context_max": "largest of m2, m1, p1, p2",
    **{f"donor_{name}": text.replace("X", "D") for name, text in _PER_CLASS.items()},
    **{f"acceptor_{name}": text.replace("X", "A") for name, text in _PER_CLASS.items()},
    "donor_acceptor_peak_ratio": "donor_peak_height_ratio / (acceptor_peak_height_ratio + e)",
    "type_signal_difference": "donor_signal_strength - acceptor_signal_strength",
    "score_difference_ratio": "(D - A) / (D + A + e)",
    "signal_strength_ratio": "donor_signal_strength / (acceptor_signal_strength + e)",
}
"""D, A, N: donor, acceptor, neither score; m2 to p2: context scores; e: 1e-10."""
_ARTIFACT: Mapping[str, Column] = {
    "gene_id": _PLACE["gene_id"],
    "transcript_id": Column("text", "a transcript with the site; empty for others"),
    "position": Column(
        "whole number",
        "0-based, from the gene's 5' end in transcript direction: an intron base, the G of "
        "GT for a donor, the G of AG for an acceptor",
    ),
    "predicted_position": Column("whole number", "`position` where the base model calls a site; never a feature"),
    "true_position": Column("whole number", "`position` where a site is annotated; never a feature"),
    "pred_type": Column("text", "TP, FN, FP or TN of the base model at 0.5; never a feature"),
    "score": Column("number", f"{_SCORE}, of the row's own class; never a feature"),
    "strand": _PLACE["strand"],
    **{name: Column("number", f"{_SCORE}: {text}") for name, text in _ROW_SCORES.items()},
    "splice_type": Column("text", "label: `donor`, `acceptor`, or empty or `neither`"),
    **{name: Column("number", text) for name, text in _DERIVED.items()},
    "chrom": Column("text", "chromosome, without `chr`"),
    "window_start": Column("whole number", "first letter of `sequence`, 0-based, as `position`"),
    "window_end": Column("whole number", "one past its last letter"),
    "transcript_count": Column("whole number", "transcripts with the site"),
    "sequence": Column(
        "text", "letters in transcript direction, 250 before `position` and 249 after it, cut at gene ends"
    ),
}
_SHEET = {
    "path": Column("text", "the file, beside the sheet or with its folder"),
    "class": Column("text", "`donor` or `acceptor`; BigWig and bedGraph need it", is_optional=True),
    "strand": Column(
        "text", "`+` or `-`; BigWig and bedGraph need it, arrays where they have no gene_id", is_optional=True
    ),
    "key": Column("text", "which array of an npz or HDF5 file", is_optional=True),
    "gene_id": Column("text", "the gene that an array is of", is_optional=True),
    "chrom": Column("text", "where an array lies, if not on a gene", is_optional=True),
    "start": Column("whole number", "its first base, 1-based, on the plus strand", is_optional=True),
    "end": Column("whole number", "its last base, 1-based inclusive", is_optional=True),
    "sense": Column(
        "text",
        "`transcript`: row 0 is the 5' end (so without this column); `genome`: row 0 is `start`",
        is_optional=True,
    ),
    "channels": Column(
        "text", "classes of its columns in their order; without it `neither acceptor donor`", is_optional=True
    ),
}
_TABLE = {
    "chrom": Column("text", "any name that FASTA or --aliases knows"),
    "position": Column("whole number", "base, 1-based, on the plus strand"),
    "start": Column("whole number", "base, 0-based; only where --columns says so, instead of position"),
    "strand": Column("text", "`+` or `-` (`1` and `-1`): of the scores; not needed beside gene_id"),
    "gene_id": Column(
        "text", "the gene whose scores these are; without it they are of all genes there", is_optional=True
    ),
    "donor": Column("number", f"{_SCORE}; empty: missing"),
    "acceptor": Column("number", f"{_SCORE}; empty: missing"),
    "neither": Column("number", f"{_SCORE}; else 1 - donor - acceptor", is_optional=True),
}
_LIST = {
    **{name: _PLACE[name] for name in GENE_COLUMNS},
    "donor_scores": Column("whole number", "bases with a donor score"),
    "acceptor_scores": Column("whole number", "bases with an acceptor score"),
    "written": Column("true, false", "whether the gene is in the score files"),
    "reason": Column("text", "why it is not, or is not complete"),
}
_ANSWERS = {name: Column("float32", text) for name, text in answer.COLUMNS.items()}
_ERRORS = {
    "outcome": Column("text", "`fixed`: an error of the base alone; `made`: of meta alone; `left`: of both"),
    "error": Column("text", "`missed`: a site that is not called; `false call`: a call where there is no site"),
    "class": Column("text", "donor or acceptor"),
    "gene_id": _PLACE["gene_id"],
    "also_in": Column("text", "other genes that have the position too, with commas", is_optional=True),
    "chrom": _PLACE["chrom"],
    "strand": _PLACE["strand"],
    "position": Column("whole number", "1-based, on the plus strand: the exon base"),
    "genome_build": Column("text", "of the position, where it is known", is_optional=True),
    "base": Column("number", f"{_SCORE}: of the class, by the base"),
    "meta": Column("number", f"{_SCORE}: of the class, by meta"),
}


def _described(columns: Sequence[str], known: Mapping[str, Column]) -> dict[str, Column]:
    """Columns with their descriptions; KeyError where one has none."""
    return {name: known[name] for name in columns}


def file_formats() -> list[FileFormat]:
    """All files, those that are read from others first."""
    assert set(DERIVED_FEATURES) == set(_DERIVED), set(DERIVED_FEATURES) ^ set(_DERIVED)
    assert set(ROW_SCORES) == set(_ROW_SCORES)
    return [
        FileFormat(
            "Reference",
            "*.fa, *.fasta",
            "Ensembl, GENCODE, NCBI, UCSC, `samtools faidx`",
            "`base run`, `import`",
            "FASTA, plain or packed (gzip, bgzip, bzip2, xz, zstd, zip). Lower case is the same letter, U is T, IUPAC "
            "letters "
            "of several bases are N.",
            {},
            ">chr1",
        ),
        FileFormat(
            "Annotation",
            "*.gff3, *.gtf",
            "GENCODE, Ensembl, NCBI, UCSC, StringTie, gffread, BRAKER and others",
            "`base run`, `import`, `label`",
            "GTF or GFF3: 1-based inclusive, on the plus strand. Labels come from the introns between the exons of "
            "each "
            "transcript. [base_layer.md](base_layer.md) says what is done with what is odd.",
            {},
            "chr3\tGENCODE\texon\t42727011\t42728262\t.\t+\t.\tParent=rna-KLHL40",
        ),
        FileFormat(
            "Gene table of SpliceAI",
            "grch37.txt, grch38.txt",
            "SpliceAI, OpenSpliceAI (the same file), you",
            "`base run`, `import`, `label`, as annotation",
            "Tab separated, with a header: a transcript a line, others of one name that overlap are of its gene; "
            "columns in any order, others are passed over.",
            _described(COLUMNS[SPLICEAI_TABLE], _SPLICEAI_TABLE),
            "KLHL40\t3\t+\t42727010\t42734036\t42727010,42730303,\t42728262,42730456,",
        ),
        FileFormat(
            "Gene table of CI-SpliceAI",
            "grch37.csv, grch38.csv",
            "CI-SpliceAI (CC BY 4.0), you",
            "`base run`, `import`, `label`, as annotation",
            "CSV, with a header: a gene a line, with the junctions of all its isoforms, each once, ascending along the "
            "chromosome. Donors and acceptors are known from it, transcripts are not.",
            _described(COLUMNS[CISPLICEAI_TABLE], _CISPLICEAI_TABLE),
            'ENSG00000186092,chr1,+,65419,71585,"65433,65573","65520,69037"',
        ),
        FileFormat(
            "Aliases of contigs",
            "*_assembly_report.txt, chromAlias.txt",
            "NCBI, UCSC, you",
            "`--aliases` of `base run`, `import`, `train`, `evaluate`; `data.aliases`",
            "NCBI's assembly report, UCSC's chromAlias, or a table with the names of one contig a line.",
            {},
            "1\tchr1\tNC_000001.11",
        ),
        FileFormat(
            "BigWig",
            "donor_plus.bw, or any name in a sheet",
            "pyBigWig, UCSC's bedGraphToBigWig, and others",
            "`import`",
            "One class of one strand a file. 0-based half-open inside; both strands ascend along the chromosome. A "
            "score "
            "stands on the exon base. Bases without an entry are missing, not 0. Lengths of contigs must be those of "
            "the "
            "FASTA.",
            {},
        ),
        FileFormat(
            "Evidence",
            "any name.bw or .parquet",
            "UCSC (phyloP, phastCons), `bamCoverage`, STAR, you; `simulate` (evidence/*.parquet)",
            "`data.evidence` of `train`, `ablate` and pipelines; `--evidence` of `base run`, `score`, `evaluate`, "
            "`gene`, `variants`, `variant`, `register`; `METALAYER_SERVE_EVIDENCE`",
            "BigWig (0-based half-open inside, of both strands alike or a file a strand), or Parquet with the columns "
            "below. A base without an entry is missing, not 0. Contigs must be those of the scores, and as long "
            "(evidence.md).",
            _EVIDENCE,
        ),
        FileFormat(
            "bedGraph",
            "donor_plus.bedgraph, or any name in a sheet",
            "bedtools, UCSC's tools, and others",
            "`import`",
            "contig, start, end, score; 0-based half-open, tabs or blanks; one class of one strand a file, else as "
            "BigWig. "
            "`track` and `browser` lines are passed over.",
            {},
            "chr3\t42727217\t42727218\t0.001951",
        ),
        FileFormat(
            "BED of OpenSpliceAI",
            "donor_predictions.bed, acceptor_predictions.bed",
            "`openspliceai predict`",
            "`import`",
            "Calls above a threshold: all other bases are missing. 0-based half-open. Donors stand on the exon base; "
            "acceptors one base before it in transcript direction (0.0.7), and are moved. Calls past the end of a "
            "sequence "
            "are left out. Contigs may be called `s1:+`.",
            {},
            "chr3\t42623433\t42623434\tgene-SEC22C chr3:42594376-42623494(-)_Donor\t0.015006\t-",
        ),
        FileFormat(
            "Predictions of OpenSpliceAI",
            "predict.h5, datafile.h5",
            "`openspliceai predict --predict-all`",
            "`import` (name predict.h5; datafile.h5 lies beside it)",
            "`predictions`, float32 (blocks, 3, 5000): neither, acceptor, donor, transcript sense, exon bases; `NAME` "
            "and "
            "`SEQ` of datafile.h5 say what they are of.",
            {},
        ),
        FileFormat(
            "Arrays",
            "*.npy, *.npz, *.h5",
            "NumPy, h5py: what SpliceAI's and CI-SpliceAI's networks give",
            "`import`",
            "Floating point, (L, 3), (1, L, 3) or (3, L): neither, acceptor, donor; transcript sense, exon bases. "
            "Keys (npz, "
            "HDF5) or the file's name (npy) are ids of genes, else a sheet has the places. Pickled objects are "
            "refused.",
            {},
        ),
        FileFormat(
            "Sheet",
            "any name",
            "you",
            "`import`",
            "Lists files; a table with a header, tabs or commas.",
            _described(SHEET_COLUMNS, _SHEET),
            "flank80_donor_plus.bw\tdonor\t+",
        ),
        FileFormat(
            "Table of scores",
            "*.csv, *.tsv, *.parquet",
            "pandas, polars, R, the original base layer",
            "`import`",
            "A base a line, on the exon base, with a header; tabs, commas or semicolons, or Parquet. Found by these "
            "names, "
            "their usual other names ("
            + "; ".join(f"{', '.join(names[1:])} for {name}" for name, names in _others().items())
            + ") or `--columns NAME=COLUMN`.",
            _described(tuple(KNOWN), _TABLE),
            "chr3,42727011,+,2.178422e-08,6.07688e-08",
        ),
        FileFormat(
            "Per-nucleotide scores",
            "ROOT/nucleotide_scores/BASE_chrCHROM.parquet",
            "`base run`, `import`, `simulate`, `merge`, `label`",
            "`train --scores`, `evaluate`, `ablate`, `init`, pipelines, `merge`, `import`",
            "Parquet, a row group a gene: every base of each gene once, ascending on the plus strand in genes of both "
            "strands. Optional metadata `genome_build`. Where `merge` put several base models side by side, each has "
            "its three scores with its name behind, as in `donor_score.NAME`. Those of `pangolin_spliced` have "
            "`spliced_score` in place of the three, and are read beside those of another alone. A gene with an empty "
            "score is left out by what reads it, and counted.",
            {**_described(TRACK_COLUMNS, _TRACK), **_LABEL},
            "gene-SIM0001\tchr1\t-\t1846\tC\t0.796279\t1.11e-10\t0.203721\tdonor",
        ),
        FileFormat(
            "Gene table",
            "ROOT/genes.tsv",
            "`base run`, `import`, `simulate`, you",
            "pipelines, `train --gene-table`, `evaluate --gene-table`",
            "Tab separated, with a header.",
            _GENE_TABLE,
            "gene-KLHL40\tKLHL40\tchr3\t+\t42727011\t42734036\t\tchr3",
        ),
        FileFormat(
            "Artifact rows",
            "ROOT/data/ANNOTATION/BUILD/BASE_eval/meta_models/analysis_sequences_CHROM_chunk_FIRST_LAST.tsv",
            "`base run`, `simulate`, the original base layer",
            "pipelines, `train`, `score` (these also as Parquet, with `index`, the labelled base in `sequence`, "
            "0-based)",
            "Tab separated, with a header; columns in any order. A sample of positions: all sites, hard negatives and "
            "some "
            "others. In the columns' formulas D, A, N are donor, acceptor and neither score, m2, m1, p1, p2 the "
            "context "
            "scores, e is 1e-10.",
            _described(ARTIFACT_COLUMNS, _ARTIFACT),
        ),
        FileFormat(
            "SpliceVarDB",
            "ROOT/splicevardb.download.tsv",
            "SpliceVarDB's download",
            "pipelines with `data.variant_source: splicevardb`; `evaluate variants`, `variants calibrate`",
            "Tab separated, with a header; others of its columns are not read.",
            {
                "hg19": Column("text", "CHROM-POS-REF-ALT, 1-based, plus strand; read for GRCh37"),
                "hg38": Column("text", "likewise, read for GRCh38"),
                "classification": Column("text", "Splice-altering, Normal, Low-frequency or Conflicting"),
            },
            "1-100107682-T-C",
        ),
        FileFormat(
            "Manifest of a base layer",
            "ROOT/base_layer_BASE.json",
            "`base run`, `import`",
            "whatever reads a file that it lists",
            "JSON: base model, its `origin` (licence of the weights, what they were trained on), build, sources with "
            "SHA-256, options, counts, and `files`, each with its SHA-256: a "
            "file that "
            "was changed since is refused.",
            {},
        ),
        FileFormat(
            "List of an import",
            "ROOT/import_BASE.tsv",
            "`import`",
            "you",
            "Tab separated: every gene of the annotation, and why it was not written.",
            _LIST,
            "gene-KLHL40\tKLHL40\tchr3\t+\t42727011\t42734036\t38\t0\tfalse\tno file has a score of its bases",
        ),
        FileFormat(
            "Errors",
            "errors.tsv, beside a run's report",
            "training pipelines, `register`",
            "you",
            "Tab separated: every missed site and every false call of base and meta on the test genes, where whole "
            "genes were scored and each calls as many positions of a class as there are sites. A position of several "
            "overlapping genes is there once. Genes in the order of the evaluation, positions ascending.",
            _described(ERROR_COLUMNS, _ERRORS),
            "left\tmissed\tdonor\tACKR2\tKRBOX1\t3\t+\t42851024\t\t0.11214083\t0.18062781",
        ),
        FileFormat(
            "Scored rows",
            "any name.parquet or .tsv",
            "`score`",
            "you",
            "A line a row, in the order of the rows, with the columns that name a row where they were given.",
            _described(answer.ROW_COLUMNS_WITH_BASE, _ANSWERS),
        ),
        FileFormat(
            "Scored sequence",
            "any name.parquet",
            "`client sequence`, `MetaLayerClient.score_sequence`",
            "you",
            "A row a letter of the sequence, in its order; at exon bases.",
            _described(answer.SEQUENCE_COLUMNS, _ANSWERS),
        ),
        FileFormat(
            "Scored genes",
            "OUTPUT/*.parquet",
            "`--pipeline score`",
            "`ScoredGenome` ([genome.md](genome.md))",
            "Parquet: every base of each gene once, sorted by chromosome and start of the gene.",
            _described(SCORED_COLUMNS, {**_TRACK, **_ANSWERS}),
        ),
        FileFormat(
            "Tracks of a browser",
            "DIR/base_donor_plus.bw or .bedGraph, and so on: system, class, strand",
            "`export`",
            "genome browsers; `import`",
            "BigWig, or bedGraph without a header: 0-based half-open, at exon bases, both strands in genomic order; a "
            "base without a score has no line. Where genes of a strand overlap the highest of their scores.",
            {},
            "chr1\t12065\t12066\t0.0000010125958",
        ),
        FileFormat(
            "Called sites",
            "any name.bed or .bed.gz",
            "`export --bed`, `gene --output`",
            "genome browsers; `bedtools`, `tabix`",
            "BED9 and four more columns, sorted: base score and meta score (a dot where there is none), which of the "
            "two calls the site, genes. 0-based half-open, each site at its own exon base; packed with a tabix index.",
            {},
            "chr1\t2040\t2041\tacceptor\t936\t-\t2040\t2041\t196,78,0\t0.923756\t0.936285\tbase,meta\tSIM0001",
        ),
        FileFormat(
            "Exons of called sites",
            "any name.gff3",
            "`export --gff3`, `gene --output`",
            "genome browsers; whatever reads GFF3",
            "GFF3: gene, mRNA and exon lines; of an mRNA `model` (base or meta) and `probability`, among all chains of "
            "the same sites.",
            {},
        ),
        FileFormat(
            "Table of tracks",
            "any name.parquet",
            "`export --parquet`, `gene --output`",
            "you",
            "A row for each position and strand with a score, in genomic order of the genes.",
            _TRACK_TABLE,
        ),
        FileFormat(
            "Variants",
            "any name.vcf, .vcf.gz or .bcf",
            "`variants`; other tools, without our fields",
            "`variants`; `bcftools`, VEP and others ([variants.md](variants.md))",
            "VCF or BCF with every record of the input in its order, all else untouched. INFO has, with commas "
            f"between, entries {_code(FORMAT)} in a field named after each base model (`SpliceAI`, `OpenSpliceAI`, "
            "`CISpliceAI`, `biPangolin`, `PWM`) and in `MetaLayer` for our model; "
            f"in `MetaLayerDetail` entries {_code(DETAIL_FORMAT)}; with `--calibration` in `MetaLayerProbability` "
            f"entries {_code(PROBABILITY_FORMAT)}; in `MetaLayerSkipped` why a record has no score, or "
            "`ALLELE|reason` where some alleles have one.",
            {},
            "chr3\t42133054\t.\tT\tC\t.\t.\tPWM=C|TRAK1|0.00|0.00|0.00|0.52|4|12|2|-2",
        ),
        FileFormat(
            "Table of variants",
            "any name.tsv or .parquet",
            "`variants` with an output of this name or `--format`, `score_variants`",
            "you",
            "A row for each allele, gene and model, in the order of the records; one for each allele without a score. "
            f"Metadata of Parquet, `{FACTS_KEY}`: JSON of what decided the scores, as in the header of VCF.",
            _described((*VARIANT_COLUMNS, *CALIBRATED_COLUMNS), _VARIANTS),
        ),
        FileFormat(
            "Labelled variants",
            "any name.tsv or .csv",
            "you",
            "`evaluate variants`, `variants calibrate`, beside SpliceVarDB's download and VCF",
            "Tabs or commas; without a header two columns, variant and label. Capital letters are the same. Labels "
            "low-frequency and conflicting are doubtful and do not count; other words are refused.",
            _LABELLED,
            "chr1:6790:C:T\t1",
        ),
        FileFormat(
            "Judged variants",
            "DIR/variants.parquet",
            "`evaluate variants --output DIR`",
            "you",
            "A row a labelled variant, by place: what is known of it, where it lies, and in a column of the name of "
            "each score its largest change.",
            _described(tuple(JUDGED_COLUMNS), _JUDGED),
        ),
        FileFormat(
            "Detection",
            "DIR/detection.tsv",
            "`evaluate variants --output DIR`",
            "you",
            "Tab separated: every figure of DIR/report.json, a line each.",
            _described(FIGURES, _DETECTION),
        ),
        FileFormat(
            "Calibration of variants",
            "any name.json",
            "`variants calibrate`",
            "`variants --calibration`, `variant --calibration`, `score_variants(calibration=...)`",
            "JSON with its SHA-256: the scores that it is `fitted_for` (base model with weights, model, distance, "
            "mask, flanks), `curves` by kind, what it was `fitted_on`, errors on clusters of genes that were "
            "`held_out`, and best `thresholds`.",
            {},
        ),
    ]


def _code(text: str) -> str:
    return f"`{text}`"


def _others() -> dict[str, tuple[str, ...]]:
    return {name: names for name, names in KNOWN.items() if len(names) > 1}


def page() -> str:
    """docs/formats.md."""
    return "\n".join(_lines(file_formats())) + "\n"


def _lines(formats: Iterable[FileFormat]) -> Iterable[str]:
    yield "# Files, column by column"
    yield ""
    yield "Made from the schema; to make this page again:"
    yield ""
    yield "```bash"
    yield ".venv/bin/python -m metalayer.file_formats"
    yield "```"
    yield ""
    yield "Inside metalayer a site is its exon base: the last base of an exon is a donor, the first one an acceptor, in"
    yield "transcript direction. [own_data.md](own_data.md) says how scores of your own come in."
    for one in formats:
        yield ""
        yield f"## {one.title}"
        yield ""
        yield f"`{one.path}`"
        yield ""
        yield f"- made by: {one.made_by}"
        yield f"- read by: {one.read_by}"
        yield f"- {one.text}"
        if one.example:
            yield ""
            yield "```"
            yield one.example
            yield "```"
        if one.columns:
            yield ""
            yield "| column | type | what |"
            yield "|---|---|---|"
            for name, column in one.columns.items():
                yield f"| `{name}`{' (optional)' * column.is_optional} | {column.kind} | {column.text} |"


if __name__ == "__main__":
    sys.stdout.write(page())
