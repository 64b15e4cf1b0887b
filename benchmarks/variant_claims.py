"""`python -m benchmarks.variant_claims DIR [--model MODEL]`: what variants must, and must not, change in real genes.

DIR is a folder like `../shared/real`. At each annotated donor of chromosomes 3 and 7 to which the base model gives a
probability of at least .5 (`nucleotide_scores/BASE_chrN.parquet`), GT becomes GA, at each such acceptor AG becomes AA:
in 95 % of them the site must lose .5 or more. Of random substitutions in introns, far from annotated sites, at most 1 %
may change anything by .2 or more. Base model and ours (`--model`) are asked in one run. With networks of flank 10,000
it takes six minutes of a core for the sites and one and a quarter seconds for each random one, so `make bench` leaves
it out.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from metalayer.genome import Variant, encode
from metalayer.variants.calls import Opened, Sources, opened
from metalayer.variants.genes import Genes
from metalayer.variants.haplotype import event_of
from metalayer.variants.kinds import DEEP_INTRONIC, place_of
from metalayer.variants.letters import Letters

CONFIDENT, LOST, LOST_SHARE = 0.5, 0.5, 0.95
CHANGED, CHANGED_SHARE = 0.2, 0.01
SENSE = {"+": 1, "-": -1}
OTHER = {"A": "T", "C": "G", "G": "C", "T": "A"}


def broken_sites(scores: Path, letters: Letters) -> Iterator[tuple[str, str, int, Variant]]:
    """Kind of each confident site, its gene, its exon base (0-based), and the substitution that breaks it."""
    table = pl.read_parquet(scores).filter(pl.col("label") != "neither")
    for row in table.iter_rows(named=True):
        kind, sense, site = row["label"], SENSE[row["strand"]], row["position"] - 1
        if row[f"{kind}_score"] < CONFIDENT:
            continue
        at = site + 2 * sense if kind == "donor" else site - sense
        chrom = letters.key(row["chrom"])
        assert chrom
        first = min(at, at - sense)
        there = letters.raw(chrom, first, first + 2).decode().upper()
        wanted, new = ("GT" if kind == "donor" else "AG"), "A"
        if sense < 0:
            wanted, new = "".join(OTHER[letter] for letter in reversed(wanted)), OTHER[new]
        if there == wanted:
            yield kind, row["gene_id"], site, Variant(chrom, at, letters.raw(chrom, at, at + 1).decode().upper(), new)


def in_introns(
    genes: Genes, letters: Letters, contigs: Sequence[str], bp: int, draw: random.Random, n: int
) -> list[Variant]:
    """Random substitutions at least so far from any annotated site of every gene there."""
    spans = [gene.gene.interval for gene in genes if gene.gene.interval.chrom in contigs]
    found: dict[tuple[str, int], Variant] = {}
    while len(found) < n:
        span = draw.choices(spans, [len(one) for one in spans])[0]
        at = draw.randrange(span.start, span.end)
        ref = letters.raw(span.chrom, at, at + 1).decode().upper()
        alt = draw.choice("ACGT".replace(ref, ""))
        event = event_of(at, encode(ref), encode(alt), lambda a, b: letters.tokens(span.chrom, a, b))  # noqa: B023
        assert event
        places = [place_of(event, gene) for gene in genes.touched(span.chrom, at, at + 1)]
        if all(place.kind == DEEP_INTRONIC and (place.distance or 0) >= bp for place in places):
            found[span.chrom, at] = Variant(span.chrom, at, ref, alt)
    return [found[key] for key in sorted(found)]


def lost(loaded: Opened, sites: Sequence[tuple[str, str, int, Variant]]) -> None:
    counts, weak = Counter[tuple[str, str]](), list[str]()
    for kind, gene_id, site, variant in sites:
        (allele,) = loaded.scorer.score(variant.chrom, variant.position, variant.ref, [variant.alt])
        for gene in allele.genes:
            if gene.gene_id.removeprefix("gene-") != gene_id.removeprefix("gene-"):
                continue
            for name, effect in gene.effects.items():
                assert effect
                change = effect[3 if kind == "donor" else 1]
                is_lost = change.position == site and change.score >= LOST
                counts[name, kind] += 1
                counts[name, f"{kind} lost"] += is_lost
                if not is_lost:
                    weak.append(
                        f"  {name}: {kind} of {gene.symbol} at {variant.chrom}:{site + 1} falls by {change.score:.2f} "
                        f"from {change.reference:.2f}"
                    )
    for name in loaded.scorer.names:
        for kind in ("donor", "acceptor"):
            n, found = counts[name, kind], counts[name, f"{kind} lost"]
            said = "as claimed" if found >= LOST_SHARE * n else "NOT as claimed"
            print(
                f"{name}: {found} of {n} {kind}s ({found / n:.1%}) lose {LOST} or more; claim {LOST_SHARE:.0%}: {said}"
            )
    for line in weak:
        print(line)


def changed(loaded: Opened, variants: Sequence[Variant], bp: int, seconds: float) -> None:
    counts, n, started = Counter[str](), 0, time.process_time()
    for variant in variants:
        if time.process_time() - started > seconds:
            break
        (allele,) = loaded.scorer.score(variant.chrom, variant.position, variant.ref, [variant.alt])
        n += 1
        for name in loaded.scorer.names:
            effects = [gene.effects[name] for gene in allele.genes]
            counts[name] += max(change.score for effect in effects if effect for change in effect) >= CHANGED
    for name in loaded.scorer.names:
        said = "as claimed" if counts[name] <= CHANGED_SHARE * n else "NOT as claimed"
        print(
            f"{name}: {counts[name]} of {n} random substitutions ({counts[name] / n:.2%}) at least {bp} nt from a site "
            f"change something by {CHANGED} or more; claim at most {CHANGED_SHARE:.0%}: {said}"
        )
    if n < len(variants):
        print(f"{len(variants) - n} of the {len(variants)} were left out, at {seconds:.0f} s of CPU")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", default="openspliceai_10000")
    parser.add_argument("--weights", type=Path, help="default: golden/openspliceai-mane/10000nt beside DIR")
    parser.add_argument("--model", type=Path, help="model directory of ours, of this base")
    parser.add_argument("--contigs", nargs="+", default=["7", "3"])
    parser.add_argument("--only", choices=("sites", "random"), help="one of the two claims (default both)")
    parser.add_argument("--random", type=int, default=2000, help="substitutions in introns (default 2000)")
    parser.add_argument("--bp", type=int, default=50, help="least distance of these from a site (default 50)")
    parser.add_argument("--seconds", type=float, default=1e9, help="of CPU, at most, for these")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    genome = asked.data / "genome"
    weights = asked.weights or asked.data.parent / "golden" / "openspliceai-mane" / "10000nt"
    sources = Sources(
        genome / "hg19_slices.fa.gz", genome / "hg19_slices.gff3", [asked.base], [weights], asked.model, device="cpu"
    )
    with opened(sources) as loaded:
        draw = random.Random(asked.seed)
        for contig in asked.contigs if asked.only != "random" else ():
            scores = asked.data / "nucleotide_scores" / f"{asked.base}_chr{contig}.parquet"
            started = time.process_time()
            print(f"chromosome {contig}")
            lost(loaded, list(broken_sites(scores, loaded.letters)))
            print(f"{time.process_time() - started:.0f} s of CPU", flush=True)
        if asked.only == "sites":
            return 0
        chosen = in_introns(loaded.genes, loaded.letters, asked.contigs, asked.bp, draw, asked.random)
        draw.shuffle(chosen)  # what is left out at --seconds is a random part, too
        changed(loaded, chosen, asked.bp, asked.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
