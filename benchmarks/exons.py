"""`python -m benchmarks.exons DIR`: called sites at ±0 and whole exons, by decoding and by pairing, on real genes.

DIR is a folder like `../shared/real`: per-nucleotide scores with labels of principal transcripts. Sites are those of
`metalayer.sites`; exons of a gene run from its first base over acceptors and donors to its last. Lengths are counted on
four fifths of the genes, and the others are decoded. Pairing takes, for each acceptor that is called, the next donor:
what people do by hand. `--chromosomes` (1, 5 and 7) and `--base` choose the files. `make bench` leaves it out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR
from metalayer.sites import CalledSites, LengthPriors, call_sites, count_lengths, decode_exons
from metalayer.sites.calling import THRESHOLD
from metalayer.sites.exons import CANDIDATE

Exons = list[tuple[int, int]]
_THRESHOLDS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)
_FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """A gene in transcript sense: scores (L, 3), and positions of donors and acceptors."""

    scores: NDArray[np.float32]
    sites: dict[int, NDArray[np.int64]]

    @property
    def exons(self) -> Exons:
        """First and last base of each."""
        starts = [0, *self.sites[ACCEPTOR].tolist()]
        return list(zip(starts, [*self.sites[DONOR].tolist(), len(self.scores) - 1], strict=True))


def genes_of(path: Path) -> Iterator[Labelled]:
    """Genes of a file that have introns."""
    for _, rows in pl.read_parquet(path).group_by("gene_id", maintain_order=True):
        ordered = rows.sort("position", descending=rows["strand"][0] == "-")
        labels = ordered["label"].cast(pl.String).to_numpy()
        sites = {kind: np.flatnonzero(labels == CLASSES[kind]) for kind in (DONOR, ACCEPTOR)}
        if len(sites[DONOR]) and len(sites[DONOR]) == len(sites[ACCEPTOR]):
            yield Labelled(ordered.select(BASE_SCORES).to_numpy(), sites)


def paired(sites: CalledSites, last: int) -> Exons:
    """For the first base and each acceptor the next donor; from the last acceptor on the last exon."""
    donors, acceptors = (sites.positions[sites.kinds == kind] for kind in (DONOR, ACCEPTOR))
    found = []
    for start in (0, *acceptors.tolist()):
        at = int(np.searchsorted(donors, start))
        if at < len(donors):
            found.append((start, int(donors[at])))
    return [*found, (int(acceptors[-1]) if len(acceptors) else 0, last)]


def right(pairs: Sequence[tuple[AbstractSet[Any], AbstractSet[Any]]]) -> str:
    """Precision, recall and F1 of what was found and what is true."""
    hits = sum(len(found & true) for found, true in pairs)
    precision = hits / max(1, sum(len(found) for found, _ in pairs))
    recall = hits / max(1, sum(len(true) for _, true in pairs))
    return f"{precision:.4f}     {recall:.4f}  {2 * precision * recall / max(precision + recall, 1e-9):.4f}"


def _lengths(genes: Sequence[Labelled]) -> LengthPriors:
    return count_lengths([[(start, end + 1) for start, end in gene.exons] for gene in genes])


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--chromosomes", default="chr1,chr5,chr7")
    parser.add_argument("--base", default="openspliceai_10000")
    options = parser.parse_args()
    files = [
        options.folder / "nucleotide_scores" / f"{options.base}_{one}.parquet" for one in options.chromosomes.split(",")
    ]
    genes = [gene for path in files for gene in genes_of(path)]
    bases = sum(len(gene.scores) for gene in genes)
    print(f"{options.base}, {options.chromosomes}: {len(genes)} genes with introns, {bases:,} nt\n")
    print("sites at ±0    threshold  precision  recall  F1")
    for kind in (DONOR, ACCEPTOR):
        for threshold in _THRESHOLDS:
            calls = [call_sites(gene.scores, threshold) for gene in genes]
            found = [
                ({*one.positions[one.kinds == kind].tolist()}, {*gene.sites[kind].tolist()})
                for one, gene in zip(calls, genes, strict=True)
            ]
            print(f"{CLASSES[kind]:<13}  {threshold:<9}  {right(found)}")
    print("\nwhole exons    sites from  precision  recall  F1")
    folds = [_lengths([gene for i, gene in enumerate(genes) if i % _FOLDS != fold]) for fold in range(_FOLDS)]
    for threshold in (CANDIDATE, 0.1, THRESHOLD):
        decoded, by_hand, seconds = [], [], []
        for i, gene in enumerate(genes):
            begun = time.process_time()
            called, last = call_sites(gene.scores, threshold), len(gene.scores) - 1
            exons = decode_exons(called, 0, last, folds[i % _FOLDS]).chains[0].exons
            seconds.append(time.process_time() - begun)
            decoded.append(({*exons}, {*gene.exons}))
            by_hand.append(({*paired(called, last)}, {*gene.exons}))
        print(f"decoded        {threshold:<10}  {right(decoded)}")
        print(f"paired         {threshold:<10}  {right(by_hand)}")
        print(f"               seconds of CPU a gene: {np.mean(seconds):.4f} in the mean, {max(seconds):.4f} at most")
    whole = _lengths(genes)
    print(f"\nlengths of these genes, half octaves\n{whole}")


if __name__ == "__main__":
    main()
