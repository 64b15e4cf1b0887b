"""A gene table asked for genes by the names that other files have for them.

Ensembl and GENCODE put a version after an id (`ENSG00000182378.15`) and mark the copies of pseudoautosomal genes
(`..._PAR_Y`); other files leave both out. An id that the table lacks is looked for without them, on its own chromosome
and only where one gene of the table is meant. What was found so is counted and logged; a table that has none, or less
than half, of the genes is of another annotation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from metalayer.errors import ArtifactError
from metalayer.genome import MITOCHONDRIAL, Gene, same_chrom, unversioned

logger = logging.getLogger(__name__)

MAX_UNKNOWN = 0.5
"""Share of genes that a gene table may lack: genes that it lacks have no paralogs, and perhaps no place."""


class GeneNames(Mapping[str, Gene]):
    """The genes of a table by the ids that were asked for; a mapping of them, those of the table itself behind."""

    def __init__(self, table: Mapping[str, Gene]) -> None:
        self._table = dict(table)
        self._by_stem: dict[tuple[str, str], list[str]] = {}
        for gene_id, gene in self._table.items():
            chrom = gene.interval.chrom
            self._by_stem.setdefault((_stem(gene_id, chrom), _one(chrom)), []).append(gene_id)
        self._found: dict[str, str | None] = {}
        self._chroms: dict[str, str] = {}  # where each was asked for

    def __getitem__(self, gene_id: str) -> Gene:
        known = self._found.get(gene_id, gene_id)
        if known is None or known not in self._table:
            raise KeyError(gene_id)
        gene = self._table[known]
        chrom = self._chroms.get(gene_id, "")
        chrom = chrom if same_chrom(chrom, gene.interval.chrom) else gene.interval.chrom
        if (known, chrom) == (gene_id, gene.interval.chrom):
            return gene
        return replace(gene, gene_id=gene_id, interval=replace(gene.interval, chrom=chrom))

    def __iter__(self) -> Iterator[str]:
        asked = {known: None for known in self._found.values() if known is not None}
        yield from (gene_id for gene_id, known in self._found.items() if known is not None)
        yield from (gene_id for gene_id in self._table if gene_id not in asked)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, gene_id: str, chrom: str) -> Gene | None:
        """A gene of another file, under the id that it has there; None where the table lacks it.

        Args:
            gene_id: without `gene-`.
            chrom: where it lies there, without `chr`.
        """
        if gene_id not in self._found:
            known: str | None = gene_id
            if gene_id not in self._table:
                stems = self._by_stem.get((_stem(gene_id, chrom), _one(chrom)), [])
                known = stems[0] if len(stems) == 1 else None
            self._found[gene_id], self._chroms[gene_id] = known, chrom
        return self.get(gene_id)

    def check(self, what: str, table: str) -> None:
        """Say how the names met.

        Args:
            what: whose genes were asked for, in words.
            table: of the gene table, in words.

        Raises:
            ArtifactError: the table lacks all of them, or more than `MAX_UNKNOWN`.
        """
        if not self._table or not self._found:
            return
        lacking = [gene_id for gene_id, known in self._found.items() if known is None]
        renamed = {gene_id: known for gene_id, known in self._found.items() if known not in (None, gene_id)}
        example = next(iter(self._table))
        asked = len(self._found)
        if renamed:
            one, known = next(iter(renamed.items()))
            logger.info(
                "%d of %d genes of %s are found in %s without versions and marks of ids, as %s is %s",
                *(len(renamed), asked, what, table, one, known),
            )
        if len(lacking) > MAX_UNKNOWN * asked:
            raise ArtifactError(
                f"{len(lacking)} of {asked} genes of {what} are not in {table}, also without versions of ids: one is "
                f"{lacking[0]}, the table has {example}. At most {100 * MAX_UNKNOWN:g} % may be absent, as where genes "
                "without place and paralogs go together is not known. Give the gene table of their annotation, or none"
                + self._elsewhere(lacking)
            )
        if lacking:
            logger.warning(
                "%d of %d genes of %s are not in %s (%s): nothing is known of their paralogs",
                *(len(lacking), asked, what, table, ", ".join(lacking[:3]) + " ..." * (len(lacking) > 3)),
            )

    def _elsewhere(self, lacking: Iterable[str]) -> str:
        """A sentence on a gene that the table has on another chromosome, or one of another name; else nothing."""
        places = {_stem(gene_id, chrom): (gene_id, chrom) for (_, chrom), (gene_id, *_) in self._by_stem.items()}
        for gene_id in lacking:
            known, chrom = places.get(_stem(gene_id, self._chroms[gene_id]), ("", ""))
            if known:
                return (
                    f". {gene_id} is {known} of the table, but on {self._chroms[gene_id]} and there on {chrom}: where "
                    "these are names of one chromosome, --aliases (data.aliases) maps them"
                )
        return ""


def _stem(gene_id: str, chrom: str) -> str:
    """An id without version, mark of a pseudoautosomal copy and the chromosome that a base-layer pass adds."""
    plain = unversioned(gene_id)
    for mark in (f"_PAR_{chrom}", f"_{chrom}"):
        plain = plain.removesuffix(mark)
    return plain


def _one(chrom: str) -> str:
    """One name for the mitochondrial genome."""
    return min(chrom, MITOCHONDRIAL.get(chrom, chrom))
