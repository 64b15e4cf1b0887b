"""Per-nucleotide score files to the canonical Parquet, gene by gene.

Reads our Parquet (with letters, 1-based genomic positions, of one base model or of several side by side) and the
original base layer's TSV (without letters: it can rebuild rows, but whole genes cannot be scored from it).
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from metalayer.contigs import Contigs
from metalayer.data.convention_counts import ConventionCounts
from metalayer.data.conventions import facts, log_facts, refuse_mistakes
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import normalised_chrom, normalised_gene_id, with_keys
from metalayer.data.tracks import (
    CONTRADICTED_KEY,
    GENE_INDEX_KEY,
    IGNORED_KEY,
    LETTER_HASHES_KEY,
    LETTERS_KEY,
    PARALOG_GROUPS_KEY,
    PARALOGS_KEY,
    score_columns_in,
    tokens_of,
)
from metalayer.errors import ArtifactError
from metalayer.file_kinds import PARQUET, TEXT, head_of, kind_of, refuse_others
from metalayer.files import publish_file
from metalayer.formats.evidence import Evidence
from metalayer.genome import N_TOKEN, Gene, builds_once, exon_base, normalise_build, same_chrom
from metalayer.integrity import PAGE_CHECKSUMS, PARQUET_ERRORS, content_hash, open_parquet, seal_metadata
from metalayer.overlaps import PlacedSites, contradicted
from metalayer.schema import (
    ACCEPTOR,
    BASE_MODEL_KEY,
    BASE_SCORES,
    CLASSES,
    CONTIGS_KEY,
    DONOR,
    GENOME_BUILD_KEY,
    KIND_UNKNOWN,
    MARK_COLUMNS,
    NEITHER,
    PARALOG_UNKNOWN,
    PROBABILITY_SUM_TOLERANCE,
    SITE_KINDS,
    SPLICED_SCORE,
    TRACK_COLUMNS,
    TRANSCRIPTS_UNKNOWN,
    evidence_column,
)
from metalayer.site_labels import labels_of_sites

logger = logging.getLogger(__name__)

_BATCH_ROWS = 1_000_000
_NO_LETTER = "?"
"""Stands in the canonical file for the letter that the original TSV does not carry."""


@dataclass
class TrackReport:
    """What reading found."""

    files: int = 0
    genes: int = 0
    positions: int = 0
    genes_dropped: dict[str, str] = field(default_factory=dict)
    labels: str = "in the files"
    letters: bool = True
    genome_builds: list[str] = field(default_factory=list)
    """Builds that the files name, each once; most files name none."""
    ignored: int = 0
    """Positions that the files mark as ignored, by gene."""
    contradicted: int = 0
    """Positions that overlapping genes of one strand label differently."""
    conventions: dict[str, Any] = field(default_factory=dict)
    """How many labels have letters and score peaks where they belong; see `conventions.facts`."""


def write_tracks(
    files: Sequence[Path],
    output: Path,
    gene_table: Mapping[str, Gene],
    row_sites: Callable[[], pl.DataFrame],
    only: Collection[str] | None = None,
    contigs: Contigs | None = None,
    *,
    base_models: Sequence[str] | None = None,
    allow_introns: bool = False,
    evidence: Evidence | None = None,
) -> TrackReport:
    """Read per-nucleotide files and publish the canonical Parquet.

    Args:
        files: Parquet of ours, or TSV of the original base layer.
        output: the canonical Parquet.
        gene_table: gene by id, or `GeneNames`; a gene that is there must lie where the table says, keeps its paralog
            group, and where its file has no paralog flags, the groups give its own (a group of several genes: 1, of
            one: 0).
        row_sites: gives gene_id, position (intron base), splice_type of the sites among the artifact
            rows: the labels, where the files have none (else it is not called).
        only: genes to read; None: all.
        contigs: which names are of one chromosome; None for the rules alone.
        base_models: of files where several stand side by side, whose scores to keep, in this order; None: of all.
            Files of one base model that do not name it are taken for the only one asked for.
        allow_introns: introns may begin and end with anything, not GT or GC and AG alone.
        evidence: gets a column each: that of its files, or, where it names the column, that of `files`.

    Raises:
        InputError: evidence that lacks a gene's contig, or is of another build.
        ArtifactError: a missing column or base model, a gap or duplicate in positions, scores out of range, letters
            other than ACGTN, a paralog flag that is none or differs within a gene, a gene that lies elsewhere
            than the gene table says, or letters, labels and scores that do not keep one convention.
    """
    builds = builds_once(genome_build_of(path) for path in files)
    names = gene_table if isinstance(gene_table, GeneNames) else GeneNames(gene_table)
    contigs = contigs or Contigs()
    report = TrackReport(files=len(files), genome_builds=[build for build in builds if build])
    index: list[tuple[str, str, str, int, int]] = []
    seen: set[str] = set()
    placed: list[PlacedSites] = []
    paralogs: dict[str, int] = {}
    paralog_groups: dict[str, str] = {}
    letter_hashes: dict[str, str] = {}
    ignored: dict[str, int] = {}
    columns = [_score_columns(path, base_models) for path in files]
    if len({tuple((name, len(theirs)) for name, theirs in one.items()) for one in columns}) > 1:
        there = "; ".join(f"{path}: {', '.join(one)}" for path, one in zip(files, columns, strict=True))
        raise ArtifactError(f"files of different base models ({there}); give files that have the same ones")
    named = columns[0] if columns else {}
    if len(named) < 2:  # without a name
        named = {"": (SPLICED_SCORE,) if any(len(one) == 1 for one in named.values()) else BASE_SCORES}
    scored = [column for names in named.values() for column in names]
    carried = {evidence_column(name): evidence_column(name) for name in (evidence.columns if evidence else ())}
    if carried and (texts := [path for path in files if not _is_parquet(path)]):
        raise ArtifactError(f"{texts[0]}: text has no column {', '.join(carried)}; name files in data.evidence")
    for path in files:
        prefix = evidence_column("")
        there = _open(path).schema_arrow.names if _is_parquet(path) else []
        if unread := [name for name in there if name.startswith(prefix) and name not in carried]:
            logger.info("%s: %s: not read; name it in data.evidence, as `column`", path, ", ".join(unread))
    brought = [evidence_column(name) for name in (*evidence.columns, *evidence.names)] if evidence else []
    has_marks = any(_marks(path) for path in files)
    group_sizes = Counter(gene.paralog_group for gene in gene_table.values())
    schema = pa.schema(
        [
            ("gene_id", pa.dictionary(pa.int32(), pa.string())),
            ("chrom", pa.dictionary(pa.int32(), pa.string())),
            ("strand", pa.dictionary(pa.int32(), pa.string())),
            ("position", pa.int64()),
            ("base", pa.dictionary(pa.int32(), pa.string())),
            *((name, pa.float32()) for name in (*scored, *brought)),
            ("label", pa.uint8()),
            ("ignored", pa.bool_()),
            *(zip(MARK_COLUMNS, (pa.uint8(), pa.int32()), strict=True) if has_marks else ()),
        ]
    )
    sites: dict[str, list[tuple[int, int]]] | None = None
    of_all = {name: ConventionCounts() for name in named}
    encoding = {"position": "DELTA_BINARY_PACKED"} | dict.fromkeys((*scored, *brought), "BYTE_STREAM_SPLIT")
    with (
        publish_file(output) as draft,
        pq.ParquetWriter(
            draft,
            schema,
            compression="zstd",
            use_dictionary=["gene_id", "chrom", "strand", "base"],
            column_encoding=encoding,
            **PAGE_CHECKSUMS,
        ) as writer,
    ):
        for path, own in zip(files, columns, strict=True):
            build = normalise_build(genome_build_of(path) or "")
            counts = {name: ConventionCounts() for name in named}
            for rows in _genes_of(path, dict(zip(itertools.chain(*own.values()), scored, strict=True)) | carried):
                if only is not None and rows["gene_id"][0] not in only:
                    continue
                frame = with_keys(rows, contigs)
                gene = _check(frame, path, names, seen, list(named.values()))
                seen.add(gene.gene_id)
                scores = {name: frame.select(theirs).to_numpy() for name, theirs in named.items()}
                if absent := [name for name, values in scores.items() if np.isnan(values).any()]:
                    report.genes_dropped[gene.gene_id] = f"null or NaN score {', '.join(absent)}".strip()
                    continue
                labels = frame["label"] if "label" in frame.columns else None
                if labels is None:
                    report.labels = "from the artifact rows"
                    sites = _sites_by_gene(row_sites()) if sites is None else sites
                    labels = pl.Series("label", _labels(gene, sites.get(gene.gene_id, ())))
                if frame["base"][0] == _NO_LETTER:
                    report.letters = False
                for name, values in scores.items():
                    # P(spliced) peaks at both kinds of site.
                    of_kinds = values if values.shape[1] > 1 else np.repeat(values, len(CLASSES), axis=1)
                    counts[name].add(gene.interval.chrom, gene.strand, frame["base"], of_kinds, labels)
                if marked := int(frame["ignored"].sum()):
                    ignored[gene.gene_id] = marked
                    report.ignored += marked
                frame = frame.with_columns(labels.alias("label"))
                if has_marks and MARK_COLUMNS[0] not in frame.columns:
                    frame = frame.with_columns(_unmarked(labels))
                if evidence:
                    found = evidence.ascending(gene)
                    frame = frame.with_columns(pl.Series(evidence_column(name), one) for name, one in found.items())
                table = frame.select(schema.names).to_arrow()
                writer.write_table(table.cast(schema), row_group_size=len(frame))
                index.append(
                    (gene.gene_id, gene.interval.chrom, gene.strand, gene.interval.start + 1, gene.interval.end)
                )
                placed.append(_placed_sites(gene, labels, build))
                tokens = tokens_of(gene, frame["base"])
                letter_hashes[gene.gene_id] = content_hash(tokens) if (tokens != N_TOKEN).any() else ""
                known = names.get(gene.gene_id)
                paralogs[gene.gene_id] = _paralog(frame, known, group_sizes)
                if known and known.paralog_group is not None:
                    paralog_groups[gene.gene_id] = known.paralog_group
                report.genes += 1
                report.positions += len(frame)
            for name in named:
                refuse_mistakes(counts[name], _of_base(path, name), allow_introns=allow_introns)
                of_all[name].merge(counts[name])
        together = f"{len(files)} files from {files[0]} on" if len(files) > 1 else str(files[0])
        for name in named:
            refuse_mistakes(of_all[name], _of_base(together, name), allow_introns=allow_introns)
            log_facts(facts(of_all[name], allow_introns=allow_introns), _of_base(together, name))
        report.conventions = facts(of_all[next(iter(named))], allow_introns=allow_introns)
        odd = {one.gene.gene_id: at.tolist() for one, at in zip(placed, contradicted(placed), strict=True) if len(at)}
        report.contradicted = len(
            {
                (one.build, one.gene.interval.chrom, one.gene.strand, one.gene.genomic(index))
                for one in placed
                for index in odd.get(one.gene.gene_id, ())
            }
        )
        metadata = {
            GENE_INDEX_KEY.decode(): json.dumps(index),
            LETTERS_KEY.decode(): "true" if report.letters else "false",
            LETTER_HASHES_KEY.decode(): json.dumps(letter_hashes),
            PARALOGS_KEY.decode(): json.dumps(paralogs),
            PARALOG_GROUPS_KEY.decode(): json.dumps(paralog_groups),
            CONTRADICTED_KEY.decode(): json.dumps(odd),
            IGNORED_KEY.decode(): json.dumps(ignored),
        }
        if names_of_contigs := {
            contigs.key(name): theirs for path in files for name, theirs in contigs_in(path).items()
        }:
            metadata[CONTIGS_KEY] = json.dumps(names_of_contigs)
        if len(builds) == 1 and builds[0]:
            metadata[GENOME_BUILD_KEY] = builds[0]
        writer.add_key_value_metadata(seal_metadata(metadata, schema.names))
    if report.contradicted:
        logger.warning(
            "%d positions are sites of one gene and not of another that overlaps it on the same strand: ignored in "
            "training and evaluation",
            report.contradicted,
        )
    return report


def genes_in(path: Path) -> list[Gene]:
    """The genes of a per-nucleotide Parquet, from the columns that place them.

    Raises:
        ArtifactError: a missing column, a gene in two places or with a gap or duplicate, or a damaged file.
    """
    wanted = ("gene_id", "chrom", "strand", "position")
    missing = [name for name in wanted if name not in _open(path).schema_arrow.names]
    if missing:
        raise ArtifactError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(TRACK_COLUMNS)}")
    key = ("gene_id", "chrom", "strand")
    parts = []
    try:
        for batch in _open(path).iter_batches(_BATCH_ROWS, columns=list(wanted)):
            rows = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            rows = rows.select(normalised_gene_id(), normalised_chrom(), pl.col("strand").cast(pl.String), "position")
            extent = (pl.col("position").min().alias("start"), pl.col("position").max().alias("end"), pl.len())
            parts.append(rows.group_by(key, maintain_order=True).agg(extent))
        whole = (
            pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys((*key, "start", "end", "len"), pl.Int64))
        )
        found = whole.group_by(key, maintain_order=True).agg(
            pl.col("start").min(), pl.col("end").max(), pl.col("len").sum()
        )
    except (pl.exceptions.PolarsError, *PARQUET_ERRORS) as error:
        raise ArtifactError(f"{path}: {str(error).splitlines()[0]}") from None
    wrong = found.filter(
        (pl.col("end") - pl.col("start") + 1 != pl.col("len")) | pl.col("gene_id").is_duplicated()
    ).sort("gene_id", "start")
    if len(wrong) or found.null_count().sum_horizontal().item():
        named = f"gene {wrong['gene_id'][0]}" if len(wrong) else "a gene without name, place or position"
        raise ArtifactError(f"{path}: {named}: one place a gene, and every position of it once")
    return [Gene.from_table(*row[:5]) for row in found.iter_rows()]


def genome_build_of(path: Path) -> str | None:
    """The genome build that a per-nucleotide file names in its metadata; None where it names none.

    Raises:
        ArtifactError: a `.parquet` that is none.
    """
    if not _is_parquet(path):
        return None
    build = (_open(path).metadata.metadata or {}).get(GENOME_BUILD_KEY.encode(), b"").decode().strip()
    return build or None


def contigs_in(path: Path) -> dict[str, str]:
    """Names of chromosomes in the FASTA that a per-nucleotide file was made from, by ours; empty where it names none.

    Raises:
        ArtifactError: a `.parquet` that is none.
    """
    if not _is_parquet(path):
        return {}
    found: dict[str, str] = json.loads((_open(path).metadata.metadata or {}).get(CONTIGS_KEY.encode(), b"{}"))
    return found


def _sites_by_gene(row_sites: pl.DataFrame) -> dict[str, list[tuple[int, int]]]:
    """Gene id to [(exon base, class)], transcript sense."""
    sites: dict[str, list[tuple[int, int]]] = {}
    for gene_id, position, splice_type in row_sites.iter_rows():
        site_class = CLASSES.index(splice_type)
        sites.setdefault(gene_id, []).append((exon_base(position, site_class), site_class))
    return sites


def _labels(gene: Gene, sites: Sequence[tuple[int, int]]) -> np.ndarray:
    at = {kind: [base for base, one in sites if one == kind and 0 <= base < len(gene)] for kind in (DONOR, ACCEPTOR)}
    labels = labels_of_sites(len(gene), at[DONOR], at[ACCEPTOR])
    return labels if gene.strand == "+" else labels[::-1]


def _placed_sites(gene: Gene, labels: pl.Series, build: str) -> PlacedSites:
    """Of labels that ascend in genomic position."""
    at = np.flatnonzero(labels.to_numpy() != NEITHER).astype(np.int64)
    return PlacedSites(gene, gene.interval.start + at, labels.to_numpy()[at], build)


def base_models_in(path: Path) -> tuple[str, ...]:
    """The base models of a per-nucleotide file; of one alone its name, or an empty one where the file has none.

    Raises:
        ArtifactError: a `.parquet` that is none.
    """
    if not _is_parquet(path):
        return ("",)
    file = _open(path)
    own = (file.metadata.metadata or {}).get(BASE_MODEL_KEY.encode(), b"").decode()
    return tuple(name or own for name in score_columns_in(file.schema_arrow.names))


def _of_base(where: Path | str, base_model: str) -> str:
    return f"{where}, {base_model}" if base_model else str(where)


def _score_columns(path: Path, base_models: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """The score columns to read of a file, by base model.

    Raises:
        ArtifactError: scores that name no base model beside those that do, or none of one that is asked for.
    """
    if not _is_parquet(path):
        return {"": BASE_SCORES}
    try:
        found = score_columns_in(_open(path).schema_arrow.names)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    if "" in found or base_models is None:
        return found
    absent = [name for name in base_models if name not in found]
    if absent:
        raise ArtifactError(
            f"{path}: no scores of base model {', '.join(absent)}; there are those of {', '.join(found)}: name one of "
            "these (data.base_model, --base-model)"
        )
    return {name: found[name] for name in base_models}


def _genes_of(path: Path, scores: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """Whole genes, in file order: gene_id, chrom, strand, position, base, scores, ignored, perhaps label and paralog.

    Args:
        path: of the file.
        scores: its score columns, and what they are called here.
    """
    carried: pl.DataFrame | None = None
    for batch in _parquet_batches(path, scores) if _is_parquet(path) else _tsv_batches(path):
        frame = batch if carried is None else pl.concat([carried, batch])
        parts = frame.partition_by("gene_id", maintain_order=True)
        yield from parts[:-1]
        carried = parts[-1]
    if carried is None:
        raise ArtifactError(f"{path}: no rows; write it again with the base-layer pass, or remove it")
    yield carried


def _parquet_batches(path: Path, scores: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    required = ("gene_id", "chrom", "strand", "position", "base", *scores)
    file = _open(path)
    missing = [name for name in required if name not in file.schema_arrow.names]
    if missing:
        spliced = f" ({SPLICED_SCORE} does not tell donors from acceptors)" * (SPLICED_SCORE in file.schema_arrow.names)
        raise ArtifactError(f"{path}: no column {', '.join(missing)}{spliced}; needed are {', '.join(required)}")
    optional = {"label": _label_code(), "paralog": _paralog_flag(), "ignored": _ignored()}
    optional |= dict(zip(MARK_COLUMNS, (_kind_code(), _transcripts()), strict=True)) if _marks(path) else {}
    there = [name for name in optional if name in file.schema_arrow.names]
    batches = file.iter_batches(_BATCH_ROWS, columns=[*required, *there])
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch]))).select(
                normalised_gene_id().alias("gene_id"),
                normalised_chrom().alias("chrom"),
                pl.col("strand").cast(pl.String),
                pl.col("position").cast(pl.Int64),
                pl.col("base").cast(pl.String).str.to_uppercase(),
                *(pl.col(name).cast(pl.Float32).fill_null(float("nan")).alias(ours) for name, ours in scores.items()),
                *(optional[name] for name in there),
            )
            if "ignored" not in there:
                frame = frame.with_columns(ignored=pl.lit(False))
        except PARQUET_ERRORS as error:
            raise ArtifactError(f"{path}: damaged within ({error}); copy or write it again") from None
        except pl.exceptions.PolarsError as error:
            raise ArtifactError(
                f"{path}: a column of the wrong type ({str(error).splitlines()[0]}); position "
                "and transcripts are whole numbers, scores and paralog are numbers, ignored is true or false, all else "
                "is text"
            ) from None
        if frame.select(pl.exclude(scores.values())).null_count().row(0) != (0,) * (frame.width - len(scores)):
            raise ArtifactError(
                f"{path}: empty fields, or labels other than {', '.join(CLASSES)}, or site_kind other than "
                f"{', '.join(SITE_KINDS)}; only scores may be empty"
            )
        yield frame


def _is_parquet(path: Path) -> bool:
    """By name or content: what has the name and is something else is refused when it is opened."""
    return path.suffix == ".parquet" or kind_of(head_of(path, "scores", ArtifactError)) == PARQUET


def _open(path: Path) -> pq.ParquetFile:
    try:
        return open_parquet(path, "copy or write it again")
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: {error.strerror}; copy or write it again") from None


def _paralog_flag() -> pl.Expr:
    return pl.col("paralog").cast(pl.Float64).fill_null(PARALOG_UNKNOWN)


def _ignored() -> pl.Expr:
    return pl.col("ignored").cast(pl.Boolean).fill_null(value=False)


def _marks(path: Path) -> tuple[str, ...]:
    """`MARK_COLUMNS` where a file has them, else none.

    Raises:
        ArtifactError: one of them alone.
    """
    there = [name for name in MARK_COLUMNS if _is_parquet(path) and name in _open(path).schema_arrow.names]
    if len(there) == 1:
        raise ArtifactError(f"{path}: a column {there[0]} alone; {' and '.join(MARK_COLUMNS)} go together")
    return tuple(there)


def _kind_code() -> pl.Expr:
    text = pl.col(MARK_COLUMNS[0]).cast(pl.String).str.to_lowercase()
    return text.replace_strict(list(SITE_KINDS), range(len(SITE_KINDS)), default=None, return_dtype=pl.UInt8)


def _transcripts() -> pl.Expr:
    return pl.col(MARK_COLUMNS[1]).cast(pl.Int32)


def _unmarked(labels: pl.Series) -> list[pl.Series]:
    """Marks of a gene of which the file says nothing, beside files that do."""
    is_site = labels != NEITHER
    found = (is_site.cast(pl.UInt8) * KIND_UNKNOWN, is_site.cast(pl.Int32) * TRANSCRIPTS_UNKNOWN)
    return [one.alias(name) for name, one in zip(MARK_COLUMNS, found, strict=True)]


def _label_code() -> pl.Expr:
    text = pl.col("label").cast(pl.String).str.to_lowercase()
    return text.replace_strict(list(CLASSES), [DONOR, ACCEPTOR, NEITHER], default=None, return_dtype=pl.UInt8)


def _tsv_batches(path: Path) -> Iterator[pl.DataFrame]:
    """The original TSV: one whole file at a time, ordered by genomic position."""
    required = ("gene_id", "chrom", "strand", "genomic_position", *BASE_SCORES)
    refuse_others(
        path, "scores", "Parquet of per-nucleotide scores, or the base layer's text, tab separated", TEXT, ArtifactError
    )
    try:
        header = pl.read_csv(path, separator="\t", n_rows=0).columns
        missing = [name for name in required if name not in header]
        if missing:
            raise ArtifactError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(required)}")
        kinds = {"gene_id": pl.String, "chrom": pl.String, "strand": pl.String, "genomic_position": pl.Int64}
        kinds |= dict.fromkeys(BASE_SCORES, pl.Float32)
        frame = pl.read_csv(path, separator="\t", columns=list(required), schema_overrides=kinds)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ArtifactError(f"{path}: {str(error).splitlines()[0]}") from None
    frame = frame.select(
        normalised_gene_id().alias("gene_id"),
        normalised_chrom().alias("chrom"),
        "strand",
        pl.col("genomic_position").alias("position"),
        pl.lit(_NO_LETTER).alias("base"),
        pl.col(BASE_SCORES).fill_null(float("nan")),
        pl.lit(False).alias("ignored"),
    )
    for part in frame.partition_by("gene_id", maintain_order=True):
        yield part.sort("position")


def _check(
    frame: pl.DataFrame, path: Path, gene_table: GeneNames, seen: set[str], scored: Sequence[Sequence[str]]
) -> Gene:
    """Where the gene of `frame` lies, after checking its rows."""
    gene_id, chrom, strand = frame.row(0)[:3]
    if gene_id in seen:
        raise ArtifactError(
            f"{path}: the rows of gene {gene_id} are not contiguous, or it is there twice; give all its rows one after "
            "the other, once"
        )
    positions = frame["position"].to_numpy()
    steps = np.diff(positions)
    if (steps != 1).any():
        at = int(np.flatnonzero(steps != 1)[0])
        what = "a duplicate or wrong order" if steps[at] <= 0 else f"a gap of {steps[at] - 1}"
        raise ArtifactError(f"{path}: gene {gene_id}: {what} after position {positions[at]}; every position, once")
    for columns in scored:
        scores = frame.select(columns).to_numpy()
        finite = scores[~np.isnan(scores).any(axis=1)]
        off = len(columns) > 1 and (np.abs(finite.sum(axis=1) - 1) > PROBABILITY_SUM_TOLERANCE).any()
        if ((finite < 0) | (finite > 1)).any() or off:
            raise ArtifactError(
                f"{path}: gene {gene_id}: scores {', '.join(columns)} outside [0, 1] or not adding up to 1 within "
                f"{PROBABILITY_SUM_TOLERANCE}"
            )
    letters = set(frame["base"].unique().to_list())
    if not letters <= set("ACGTN") and letters != {_NO_LETTER}:
        raise ArtifactError(
            f"{path}: gene {gene_id}: letters {sorted(map(str, letters - set('ACGTN')))}; allowed are ACGTN"
        )
    if "paralog" in frame.columns:
        flags = frame["paralog"].unique().sort().to_list()
        if len(flags) > 1 or flags[0] not in (1, 0, PARALOG_UNKNOWN):
            raise ArtifactError(
                f"{path}: gene {gene_id}: paralog {', '.join(f'{flag:g}' for flag in flags)}; allowed is one value a "
                "gene: 1 it has paralogs, 0 it has none, -1 unknown"
            )
    gene = Gene.from_table(gene_id, chrom, strand, int(positions[0]), int(positions[-1]))
    known = gene_table.find(gene_id, gene.interval.chrom)
    if known and not _same_place(known, gene):
        raise ArtifactError(
            f"{path}: gene {gene_id} lies at {_place(gene)}, but the gene table says {_place(known)}. Are scores and "
            "gene table of one genome build?"
            + " Where only names of chromosomes differ, give --aliases (data.aliases)"
            * (not same_chrom(known.interval.chrom, gene.interval.chrom))
        )
    return gene


def _paralog(frame: pl.DataFrame, known: Gene | None, group_sizes: Mapping[str | None, int]) -> int:
    """The gene's flag: of its file, else by its group in the gene table."""
    if "paralog" in frame.columns:
        return int(frame["paralog"][0])
    if known is None or known.paralog_group is None:
        return PARALOG_UNKNOWN
    return int(group_sizes[known.paralog_group] > 1)


def _same_place(one: Gene, other: Gene) -> bool:
    places = [(gene.interval.start, gene.interval.end, gene.strand) for gene in (one, other)]
    return places[0] == places[1] and same_chrom(one.interval.chrom, other.interval.chrom)


def _place(gene: Gene) -> str:
    interval = gene.interval
    return f"{interval.chrom}:{interval.start + 1}-{interval.end} ({gene.strand})"
