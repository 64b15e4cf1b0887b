"""Where rows lie: contig as in the user's FASTA and genomic position, from a gene table."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from metalayer.contigs import Contigs
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import (
    contigs_of,
    genes_from_frame,
    normalised_chrom,
    normalised_gene_id,
    read_gene_table,
    with_keys,
)
from metalayer.errors import ArtifactError, InputError
from metalayer.genome import one_based

CONTIG, GENOMIC_POSITION = "contig", "genomic_position"
"""Columns: the chromosome as the FASTA has it, and the 1-based position on it."""
_NEEDED = ("gene_id", "chrom", "position")


class Places:
    """Gives rows their places; a gene that the table lacks has none."""

    def __init__(self, gene_table: Path, aliases: Path | None = None) -> None:
        """Read a gene table.

        Args:
            gene_table: TSV; its column `contig` has names as in the FASTA, else those of the rows stand.
            aliases: names of contigs, where rows and gene table have different ones.

        Raises:
            ArtifactError: a table that cannot be used.
            InputError: aliases that cannot be used.
        """
        self.path, self._aliases = gene_table, Contigs.of(aliases)
        frame = read_gene_table(gene_table, self._aliases)
        self._names, self._contigs = GeneNames(genes_from_frame(frame)), contigs_of(frame)

    def of(self, rows: pl.DataFrame, source: str) -> pl.DataFrame:
        """`CONTIG` and `GENOMIC_POSITION` of n rows, in their order.

        Args:
            rows: with gene_id, chrom and position, which is 0-based in the gene, in transcript sense, as in artifact
                rows: the intron base next to a site.
            source: of the rows, for messages.

        Raises:
            InputError: rows without these columns.
            ArtifactError: a row beyond the end of its gene: of another build or annotation.
        """
        lacking = [name for name in _NEEDED if name not in rows.columns]
        if lacking:
            raise InputError(
                f"{source}: --gene-table places rows by gene_id, chrom and position; no {', '.join(lacking)}"
            )
        keys = with_keys(
            rows.select(
                normalised_gene_id(),
                normalised_chrom(),
                pl.col("chrom").alias("given"),
                pl.col("position").cast(pl.Int64),
            ),
            self._aliases,
        )
        found = []
        for gene_id, chrom in keys.select("gene_id", "chrom").unique().iter_rows():
            if gene := self._names.find(gene_id, chrom):
                first, last = one_based(gene.interval.start, gene.interval.end)
                contig = self._contigs.get(gene.interval.chrom)
                found.append((gene_id, chrom, first, last, gene.strand, contig))
        table = pl.DataFrame(
            found,
            schema={
                "gene_id": pl.String,
                "chrom": pl.String,
                "first": pl.Int64,
                "last": pl.Int64,
                "strand": pl.String,
                "own": pl.String,
            },
            orient="row",
        )
        placed = keys.join(table, on=("gene_id", "chrom"), how="left", maintain_order="left").with_columns(
            pl.coalesce("own", "given").alias(CONTIG),
            pl.when(pl.col("strand") == "+")
            .then(pl.col("first") + pl.col("position"))
            .otherwise(pl.col("last") - pl.col("position"))
            .alias(GENOMIC_POSITION),
        )
        beyond = placed.filter(~pl.col(GENOMIC_POSITION).is_between(pl.col("first"), pl.col("last")))
        if len(beyond):
            one = beyond.row(0, named=True)
            raise ArtifactError(
                f"{source}: gene {one['gene_id']} has a row at position {one['position']}, but {self.path} has it from "
                f"{one['first']} to {one['last']}. Are both of one annotation and build?"
            )
        return placed.select(CONTIG, GENOMIC_POSITION)

    def check(self, source: str) -> None:
        """Say how the genes of the rows met the table; errors as in `GeneNames.check`."""
        self._names.check(source, f"gene table {self.path}")
