"""Genes from the tables of SpliceAI, OpenSpliceAI and CI-SpliceAI; their conventions end here.

SpliceAI's text (OpenSpliceAI's is the same) has a transcript a line, starts 0-based, ends as in GFF. Lines of one name
and strand that overlap are transcripts of one gene. CI-SpliceAI's CSV has a gene a line, 1-based: the junctions of all
its isoforms, as sorted bases of exons before (`jn_start`) and after (`jn_end`) introns along the chromosome, each once:
which start goes with which end, and in which transcript, it does not say.

A line that cannot be right refuses the file: such tables are made by programs, and one odd line means a wrong column.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metalayer.base.annotation_features import Features, Key
from metalayer.base.introns import AnnotatedGene
from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.file_kinds import CISPLICEAI_TABLE, SPLICEAI_TABLE, unpacked
from metalayer.genome import Gene, Interval, half_open, normalise_gene_id

COLUMNS: Mapping[str, tuple[str, ...]] = {
    SPLICEAI_TABLE: ("#NAME", "CHROM", "STRAND", "TX_START", "TX_END", "EXON_START", "EXON_END"),
    CISPLICEAI_TABLE: ("gene_id", "chr", "strand", "start", "end", "jn_start", "jn_end"),
}
"""By kind of table: name, chromosome, strand, start, end, and the two lists; others are passed over."""

Pairs = list[tuple[int, int]]


def read_table(
    path: Path, kind: str, min_intron_bp: int, contigs: Contigs
) -> tuple[Features, dict[Key, AnnotatedGene]]:
    """The genes of a table, and how their chromosomes are called.

    Args:
        path: of the table, plain or packed.
        kind: `SPLICEAI_TABLE` or `CISPLICEAI_TABLE`.
        min_intron_bp: least length of an intron.
        contigs: which names are of one contig.

    Raises:
        InputError: a damaged file, a column that is missing, no gene, or a line that cannot be right.
    """
    lines, genes = Features(contigs), dict[Key, AnnotatedGene]()
    for number, (name, chrom, strand, first, last, starts, ends) in _rows(path, kind):
        where = f"annotation {path}, line {number}, gene {name}"
        if strand not in ("+", "-"):
            raise InputError(f"{where}: strand {strand!r}; allowed are + and -")
        start_column, end_column, *lists = COLUMNS[kind][3:]
        (start,), (end,) = _numbers(first, start_column, where), _numbers(last, end_column, where)
        if kind == CISPLICEAI_TABLE:
            start, end = half_open(start, end)
        if not 0 <= start < end:
            raise InputError(
                f"{where}: {start_column} {first} and {end_column} {last} are no place; start is "
                f"{'1' if kind == CISPLICEAI_TABLE else '0'}-based and before the end"
            )
        span = Interval(lines.chrom(chrom), start, end)
        opening, closing = (_numbers(text, column, where) for text, column in zip((starts, ends), lists, strict=True))
        gene = AnnotatedGene(
            Gene(normalise_gene_id(name), span, strand, "" if kind == CISPLICEAI_TABLE else name),
            min_intron_bp=min_intron_bp,
        )
        if kind == CISPLICEAI_TABLE:
            gene.junctions = _junctions(opening, closing, gene, where, lines.handled)
        else:
            gene.exons[f"{name}.1"] = _exons(opening, closing, span, where)
        _add(gene, number, lines, genes)
    for reason, number in lines.odd.values():
        lines.count(reason, number)
    for key in lines.odd:
        del genes[key]
    return lines, genes


def _rows(path: Path, kind: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Number and fields of each line, in the order of `COLUMNS`."""
    wanted, count = COLUMNS[kind], 0
    with unpacked(path, "annotation") as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
        reader = csv.reader(text, delimiter="," if kind == CISPLICEAI_TABLE else "\t", strict=True)
        try:
            header = [name.strip() for name in next(reader)]
            if missing := [name for name in wanted if name not in header]:
                raise InputError(
                    f"annotation {path}: no column {', '.join(missing)}; {kind} has {', '.join(wanted)}; here are "
                    f"{', '.join(header)}"
                )
            at = [header.index(name) for name in wanted]
            for fields in reader:
                if not any(fields):
                    continue
                if len(fields) < len(header):
                    raise InputError(
                        f"annotation {path}, line {reader.line_num}: {len(fields)} fields; the header has {len(header)}"
                    )
                count += 1
                yield reader.line_num, tuple(fields[i].strip() for i in at)
        except csv.Error as error:
            raise InputError(f"annotation {path}, line {reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise InputError(
                f"annotation {path}: not in UTF-8 after line {reader.line_num}; save the file in UTF-8"
            ) from None
    if not count:
        raise InputError(f"annotation {path}: a header and no gene")


def _numbers(text: str, column: str, where: str) -> list[int]:
    """Whole numbers with commas between, and perhaps one at the end."""
    parts = text.rstrip(",").split(",") if text.strip(",") else []
    if column not in ("EXON_START", "EXON_END", "jn_start", "jn_end") and len(parts) != 1:
        raise InputError(f"{where}: {column} {text!r}; needs a whole number")
    if odd := [part for part in parts if not part.isdecimal()]:
        raise InputError(f"{where}: {column} has {odd[0]!r}; needs whole numbers with commas between")
    return [int(part) for part in parts]


def _exons(starts: Sequence[int], ends: Sequence[int], span: Interval, where: str) -> Pairs:
    """Exons of a line of SpliceAI's, 0-based half-open."""
    if len(starts) != len(ends) or not starts:
        raise InputError(
            f"{where}: EXON_START has {len(starts)} numbers and EXON_END {len(ends)}; each exon needs one of both, and "
            "a gene an exon"
        )
    for start, end in zip(starts, ends, strict=True):
        if start >= end:
            raise InputError(f"{where}: an exon from EXON_START {start} to EXON_END {end}; start is 0-based, below end")
        if start < span.start or end > span.end:
            raise InputError(
                f"{where}: the exon from EXON_START {start} to EXON_END {end} lies outside TX_START {span.start} and "
                f"TX_END {span.end}"
            )
    return list(zip(starts, ends, strict=True))


def _junctions(
    before: Sequence[int], after: Sequence[int], gene: AnnotatedGene, where: str, handled: Counter[str]
) -> Pairs:
    """Pairs of edges of introns, 0-based half-open, such that each junction of a line is in one.

    Each start goes with the next end, and each end with the start before it, that leave room for an intron; edges that
    have none are counted.
    """
    span, room = gene.gene.interval, gene.min_intron_bp
    for column, bases in (("jn_start", before), ("jn_end", after)):
        if outside := [base for base in bases if not span.start < base <= span.end]:
            raise InputError(
                f"{where}: {column} {outside[0]} lies outside start {span.start + 1} and end {span.end}; junctions are "
                "1-based bases of exons"
            )
    starts, ends = sorted(set(before)), sorted({base - 1 for base in after})
    pairs = set[tuple[int, int]]()
    for start in starts:
        if not ends or start > ends[-1]:
            raise InputError(f"{where}: no jn_end after jn_start {start}: no intron begins there")
        at = bisect_left(ends, start + room)
        pairs.update((start, end) for end in ends[at : at + 1])
    for end in ends:
        if not starts or end < starts[0]:
            raise InputError(f"{where}: no jn_start before jn_end {end + 1}: no intron ends there")
        at = bisect_right(starts, end - room)
        pairs.update((start, end) for start in starts[max(0, at - 1) : at])
    lone = len(set(starts) - {start for start, _ in pairs}) + len(set(ends) - {end for _, end in pairs})
    handled["gaps_too_short_for_an_intron"] += lone
    return sorted(pairs)


def _add(gene: AnnotatedGene, number: int, lines: Features, genes: dict[Key, AnnotatedGene]) -> None:
    """Put a line into its gene; lines of one name that lie apart are of no one gene."""
    one, key = gene.gene, (gene.gene.gene_id, gene.gene.interval.chrom)
    known = genes.setdefault(key, gene)
    if known is gene:
        return
    if known.gene.strand != one.strand or not known.gene.interval.overlaps(one.interval):
        lines.odd.setdefault(key, ("genes_in_two_places", number))
        return
    span, more = known.gene.interval, one.interval
    span = replace(span, start=min(span.start, more.start), end=max(span.end, more.end))
    known.gene = replace(known.gene, interval=span)
    for exons in gene.exons.values():
        known.exons[f"{one.gene_id}.{len(known.exons) + 1}"] = exons
    known.junctions = sorted({*known.junctions, *gene.junctions})
