"""Genes and their splice sites from GTF or GFF3, plain or gzip.

A site is annotated where any transcript of the gene has an intron: the last base of the exon before is a
donor, the first base of the exon after an acceptor. Transcripts without introns give none.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import Gene, normalise_gene_id
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

_GTF = re.compile(r'(\w+) "([^"]*)"')
_GZIP = b"\x1f\x8b"


@dataclass
class AnnotatedGene:
    """A gene and the exons of its transcripts, each 1-based inclusive on the plus strand."""

    gene: Gene
    exons: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def introns(self) -> list[tuple[int, int]]:
        """Distinct introns, 0-based half-open on the plus strand, ascending."""
        found = set()
        for exons in self.exons.values():
            ordered = sorted(exons)
            for (_, end), (start, _) in pairwise(ordered):
                if start - 1 > end:
                    found.add((end, start - 1))
        return sorted(found)

    def labels(self) -> NDArray[np.uint8]:
        """Class of every exon base in transcript sense, uint8 (L,); a base that is both is a donor."""
        labels = np.full(len(self.gene), NEITHER, dtype=np.uint8)
        for site_class in (ACCEPTOR, DONOR):
            for start, end in self.introns():
                before, after = self.gene.index(start - 1), self.gene.index(end)  # the exon bases at either side
                first, last = (before, after) if self.gene.strand == "+" else (after, before)
                base = first if site_class == DONOR else last
                if 0 <= base < len(labels):
                    labels[base] = site_class
        return labels


def read_annotation(path: Path) -> list[AnnotatedGene]:
    """Genes of an annotation, ordered by chromosome as they come and by start.

    Raises:
        InputError: no such file, a damaged one, lines that are no GTF or GFF3, a gene in two places, or no gene
            with an exon.
    """
    genes: dict[str, AnnotatedGene] = {}
    spans: dict[str, tuple[str, str, int, int]] = {}
    names: dict[str, str] = {}
    gene_of: dict[str, str] = {}  # GFF3: transcript to gene
    exons: list[tuple[str, str, str, str, int, int]] = []
    for number, fields in _lines(path):
        chrom, kind, strand, attributes = fields[0], fields[2], fields[6], _attributes(fields[8])
        try:
            start, end = int(fields[3]), int(fields[4])
        except ValueError:
            raise InputError(f"annotation {path}, line {number}: start {fields[3]!r}, end {fields[4]!r}") from None
        if kind == "gene":
            gene_id = normalise_gene_id(attributes.get("gene_id") or attributes.get("ID", ""))
            place = (chrom, strand, start, end)
            if spans.setdefault(gene_id, place) != place:
                raise InputError(f"annotation {path}, line {number}: gene {gene_id!r} stands there in two places")
            names[gene_id] = attributes.get("gene_name") or attributes.get("Name") or attributes.get("gene", "")
            gene_of[attributes.get("ID", "")] = gene_id
        elif kind == "exon":
            transcript = attributes.get("transcript_id") or attributes.get("Parent", "")
            exons.append((transcript, attributes.get("gene_id", ""), chrom, strand, start, end))
        elif "Parent" in attributes and "ID" in attributes:
            parent = attributes["Parent"]
            gene_of[attributes["ID"]] = gene_of.get(parent, normalise_gene_id(parent))
    by_parent = {normalise(key): value for key, value in gene_of.items() for normalise in (str, _without_prefix)}
    for transcript, gene_id, chrom, strand, start, end in exons:
        owner = normalise_gene_id(gene_id) if gene_id else by_parent.get(transcript, "")
        if not owner:
            continue
        known = genes.get(owner)
        if known is None:
            place = spans.get(owner, (chrom, strand, start, end))
            known = genes[owner] = AnnotatedGene(Gene.from_table(owner, *place, names.get(owner, "")))
        span = known.gene.interval
        if start <= span.start or end > span.end:
            if owner in spans:
                raise InputError(f"annotation {path}: exon {start}-{end} of {owner} lies outside its gene")
            wider = (min(start, span.start + 1), max(end, span.end))
            known.gene = Gene.from_table(owner, span.chrom, known.gene.strand, *wider, known.gene.gene_name)
        known.exons.setdefault(transcript, []).append((start, end))
    if not genes:
        raise InputError(
            f"annotation {path}: no gene with an exon; it needs gene (optional) and exon lines, GTF or GFF3"
        )
    first_seen = {gene.gene.interval.chrom: i for i, gene in reversed(list(enumerate(genes.values())))}
    return sorted(
        genes.values(), key=lambda g: (first_seen[g.gene.interval.chrom], g.gene.interval.start, g.gene.gene_id)
    )


def _without_prefix(name: str) -> str:
    return name.removeprefix("transcript:").removeprefix("rna-")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == _GZIP
        with gzip.open(path, "rt", encoding="utf-8") if zipped else path.open("r", encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                if line.startswith("##FASTA"):
                    return
                if not line.strip() or line.startswith("#"):
                    continue
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) != 9:
                    raise InputError(
                        f"annotation {path}, line {number}: {len(fields)} fields; GTF and GFF3 have 9, tab separated"
                    )
                yield number, fields
    except FileNotFoundError:
        raise InputError(f"annotation {path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"annotation {path}: damaged ({error}); copy it again") from None


def _attributes(text: str) -> dict[str, str]:
    """Of a GTF (`key "value";`) or GFF3 (`key=value;`) line."""
    if "=" in text and '"' not in text:
        return dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)
    return dict(_GTF.findall(text))
