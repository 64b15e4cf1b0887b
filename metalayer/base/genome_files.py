"""The annotation files beside the artifacts: gene table, FASTA, GFF3 and a SpliceVarDB-like table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.files import publish_file
from metalayer.genome import Gene, Variant, decode, one_based
from metalayer.schema import GENE_COLUMNS

_FASTA_LINE = 100


def write_gene_table(path: Path, genes: Iterable[Gene], contigs: Mapping[str, str] | None = None) -> None:
    """`genes.tsv`: `GENE_COLUMNS` and paralog_group (empty where there is none); 1-based inclusive.

    Args:
        path: the file to publish.
        genes: its lines.
        contigs: names of the chromosomes in the user's files, by ours: a column `contig`; None for no such column.
    """
    rows = []
    for gene in genes:
        span = gene.interval
        fields = (f"gene-{gene.gene_id}", gene.gene_name, f"chr{span.chrom}", gene.strand)
        own = () if contigs is None else (contigs.get(span.chrom),)
        rows.append((*fields, *one_based(span.start, span.end), gene.paralog_group or None, *own))
    columns = (*GENE_COLUMNS, "paralog_group", *(() if contigs is None else ("contig",)))
    kinds = {name: pl.Int64 if name in ("start", "end") else pl.String for name in columns}
    with publish_file(path) as draft:  # fields with a quote or a tab in them are quoted
        pl.DataFrame(rows, schema=kinds, orient="row").write_csv(draft, separator="\t")


def write_fasta(path: Path, chromosomes: Mapping[str, NDArray[np.uint8]]) -> None:
    """Plain FASTA of the plus strands, named with `chr`.

    Args:
        path: the file to publish.
        chromosomes: name without `chr` to tokens, uint8 (L,).
    """
    lines = []
    for chrom, tokens in chromosomes.items():
        letters = decode(tokens)
        lines.append(f">chr{chrom}")
        lines.extend(letters[i : i + _FASTA_LINE] for i in range(0, len(letters), _FASTA_LINE))
    _write(path, lines)


def write_gff3(path: Path, genes: Iterable[tuple[Gene, Sequence[tuple[int, int]]]], source: str) -> None:
    """GFF3 with gene, mRNA and exon lines.

    Args:
        path: the file to publish.
        genes: each gene with its exons, transcript sense, 0-based half-open, 5' to 3'.
        source: second column.
    """
    lines = ["##gff-version 3"]
    for gene, exons in genes:
        span = gene.interval

        def line(kind: str, start: int, end: int, attributes: str, gene: Gene = gene) -> str:
            place = one_based(start, end)
            fields = (f"chr{gene.interval.chrom}", source, kind, *place, ".", gene.strand, ".", attributes)
            return "\t".join(map(str, fields))

        name = gene.gene_id
        lines.append(line("gene", span.start, span.end, f"ID=gene-{name};Name={gene.gene_name};gene={name}"))
        lines.append(line("mRNA", span.start, span.end, f"ID=rna-{name};Parent=gene-{name};gene={name}"))
        ends = sorted(sorted((gene.genomic(start), gene.genomic(end - 1))) for start, end in exons)
        for number, (low, high) in enumerate(ends, start=1):  # numbered as they stand on the plus strand
            attributes = f"ID=exon-{name}-{number};Parent=rna-{name};gene={name}"
            lines.append(line("exon", low, high + 1, attributes))
    _write(path, lines)


@dataclass(frozen=True)
class AnnotatedVariant:
    """A line of a SpliceVarDB-like table.

    Attributes:
        variant: on the table's hg38.
        gene_name: symbol.
        hgvs: name on the transcript.
        classification: `Splice-altering`, `Normal`, `Low-frequency` or `Conflicting`.
        exonic: whether it lies in an exon.
    """

    variant: Variant
    gene_name: str
    hgvs: str
    classification: str
    exonic: bool


def write_splicevardb(
    path: Path, variants: Iterable[AnnotatedVariant], *, hg19_shift_bp: int, method: str, quote_every: int
) -> None:
    """A table in the form of `splicevardb.download.tsv`.

    Args:
        path: the file to publish.
        variants: the lines.
        hg19_shift_bp: hg19 position minus hg38 position, so that taking the wrong column is seen.
        method: the assay's name.
        quote_every: every so manyth line has its coordinates in literal double quotes, as in the real file.
    """
    lines = ["variant_id\thg19\thg38\tgene\thgvs\tmethod\tclassification\tlocation\tdoi"]
    for number, item in enumerate(variants, start=1):
        variant, quote = item.variant, '"' if number % quote_every == 0 else ""
        coordinates = [
            f"{quote}{replace(variant, position=variant.position + shift).text}{quote}" for shift in (hg19_shift_bp, 0)
        ]
        location = "Exonic" if item.exonic else "Intronic"
        fields = (item.gene_name, item.hgvs, method, item.classification, location, "none")
        lines.append("\t".join((str(number), *coordinates, *fields)))
    _write(path, lines)


def _write(path: Path, lines: Sequence[str]) -> None:
    with publish_file(path) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
