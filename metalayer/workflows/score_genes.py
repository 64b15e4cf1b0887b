"""Scoring every position of the genes in per-nucleotide files, in one process: `metalayer score` of such files.

`--pipeline score` does it in shards, and checks that none is missing; it is for whole genomes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from metalayer.contigs import Contigs
from metalayer.data.discovery import check_written
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import contigs_of, genes_from_frame, normalised_chrom, read_gene_table
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.scored import genome_order
from metalayer.data.tracks import TrackStore, score_columns_in
from metalayer.errors import ArtifactError, InputError
from metalayer.files import publish_file
from metalayer.genome import one_based
from metalayer.inference import Predictor
from metalayer.integrity import PAGE_CHECKSUMS, PARQUET_ERRORS, open_parquet
from metalayer.release import answer
from metalayer.release.contract import SEQUENCE
from metalayer.schema import BASE_SCORES, POSITIONS, bases_of
from metalayer.settings.evidence import ABSENT, Source
from metalayer.workflows.asked_evidence import evidence_for
from metalayer.workflows.places import CONTIG
from metalayer.workflows.progress import Progress

logger = logging.getLogger(__name__)

_TEXT = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in ("gene_id", CONTIG, "chrom", "strand")),
        ("position", pa.int64()),
        *((name, pa.float32()) for name in answer.ROW_COLUMNS_WITH_BASE),
    ]
)


def is_whole_genes(path: Path) -> bool:
    """Whether a file holds every position of genes: Parquet with letters and scores of positions, without sequences."""
    if path.suffix != ".parquet" or not path.is_file():
        return False
    try:
        names = open_parquet(path, "").schema_arrow.names
    except (ArtifactError, *PARQUET_ERRORS):
        return False  # refused, as rows are
    return SEQUENCE not in names and "base" in names and any(one.split(".")[0] in BASE_SCORES for one in names)


def score_genes(
    path: Path,
    model: Path,
    output: Path,
    device: str = "cpu",
    gene_table: Path | None = None,
    aliases: Path | None = None,
    evidence: Mapping[str, Source] | None = None,
) -> int:
    """Score every position of the genes of a file.

    Args:
        path: per-nucleotide Parquet with letters, labelled or not.
        model: model directory.
        output: `.parquet`, a row group a gene, genes by chromosome and place; appears whole or not at all. Columns:
            gene_id, contig (as in the FASTA, where file or gene table say it), chrom, strand, position (1-based
            genomic; a site is at its exon base), donor, acceptor, neither (calibrated), base_donor, base_acceptor,
            base_neither (as given; of several base models their mean).
        device: of the network.
        gene_table: where genes must lie, and how the FASTA names their contigs.
        aliases: names of contigs, where file and gene table have different ones.
        evidence: that the model reads, by name; what is left out is read from the column `evidence.NAME` of the file.

    Returns:
        Number of positions.

    Raises:
        ArtifactError: a file that cannot be used, or genes in it that cannot be scored.
        ConfigError: evidence that the model does not read, or reads and is not there.
        InputError: an output of another kind, or evidence that cannot be used.
    """
    if output.suffix != ".parquet":
        raise InputError(f"--output: given {output}; scores of whole genes go into .parquet")
    predictor = Predictor.load(model, device)
    contigs = Contigs.of(aliases)
    read = evidence_for(predictor, [path], evidence or {}, contigs)
    frame = read_gene_table(gene_table, contigs) if gene_table else pl.DataFrame({"chrom": [], "contig": []})
    names = GeneNames(genes_from_frame(frame) if gene_table else {})
    base_model = predictor.info.get("base_model")
    check_written([path])
    no_sites = pl.DataFrame(schema={"gene_id": pl.String, "position": pl.Int64, "splice_type": pl.String})
    with tempfile.TemporaryDirectory() as folder:
        tracks = Path(folder) / "tracks.parquet"
        there = score_columns_in(open_parquet(path, "copy or write it again").schema_arrow.names)
        only = bases_of(base_model) if base_model and len(there) > 1 else None
        without = [name for name, source in (evidence or {}).items() if source == ABSENT]
        note, stack = predictor.note(POSITIONS, there, without), predictor.stack
        if stack and (other := stack.answering(there)) is not stack:
            only = list(other.bases)
            logger.warning("positions: %s", note)
        found = write_tracks([path], tracks, names, lambda: no_sites, contigs=contigs, base_models=only, evidence=read)
        names.check(str(path), f"gene table {gene_table}")
        if found.genes_dropped:
            causes = ", ".join(f"{gene_id} ({why})" for gene_id, why in list(found.genes_dropped.items())[:5])
            raise ArtifactError(
                f"{path}: {len(found.genes_dropped)} genes cannot be scored: {causes}; fix or remove them"
            )
        if not found.letters:
            raise ArtifactError(f"{path}: no letters, so whole genes cannot be read; give Parquet with a column base")
        store = TrackStore(tracks)
        own = _given_names(path) | store.contigs | contigs_of(frame)
        logger.info("positions: %s", note)
        progress, done = Progress(found.positions), 0
        facts = answer.facts(POSITIONS, note)
        with (
            publish_file(output) as draft,
            pq.ParquetWriter(draft, _SCHEMA.with_metadata(facts), compression="zstd", **PAGE_CHECKSUMS) as out,
        ):
            for gene in sorted(store.genes().values(), key=genome_order):
                track = store.read(gene.gene_id)
                scores = np.concatenate([predictor.predict_gene_track(track), track.scores], axis=1)
                scores = scores if gene.strand == "+" else scores[::-1]
                first, _ = one_based(gene.interval.start, gene.interval.end)
                chrom = gene.interval.chrom
                columns = [
                    *(
                        pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(track), np.int32)), [value])
                        for value in (gene.gene_id, own.get(chrom, chrom), chrom, gene.strand)
                    ),
                    pa.array(np.arange(first, first + len(track))),
                    *(pa.array(np.ascontiguousarray(scores[:, i])) for i in range(scores.shape[1])),
                ]
                out.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), row_group_size=len(track))
                progress.add(len(track))
                done += len(track)
    logger.info("scored %d positions of %d genes into %s", done, found.genes, output)
    return done


def _given_names(path: Path) -> dict[str, str]:
    """Chromosomes as a file writes them, by ours."""
    given = pl.scan_parquet(path).select(pl.col("chrom").cast(pl.String).alias("given")).unique().collect()
    return dict(given.select(normalised_chrom("given").alias("chrom"), "given").iter_rows())
