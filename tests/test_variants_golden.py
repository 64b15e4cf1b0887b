"""Against the answers of SpliceAI 1.3.1 and OpenSpliceAI 0.0.7 on real sequence, with their real networks.

SpliceAI's are those of the distribution, which is looked for where `METALAYER_TEST_PEERS` says. `--as spliceai` gives
their numbers. By our definition every entry that differs is of a class that docs/variants.md names, and is what the
slow reference says: each haplotype scored whole, aligned by hand. Of long lists every fourth record is asked; all are
where `METALAYER_TEST_WHOLE` is set (six minutes).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from metalayer.base.dilated import Ensemble
from metalayer.base.haplotypes import Alternative, Answers, Tokens
from metalayer.base.protocol import BaseModel, load_base_model
from metalayer.contigs import Contigs
from metalayer.genome import encode
from metalayer.variants.definition import KINDS
from metalayer.variants.genes import Genes, GeneSites
from metalayer.variants.haplotype import event_of
from metalayer.variants.letters import Letters
from metalayer.variants.scoring import Allele, Options, Scorer
from metalayer.variants.windows import haplotype_answers
from tests.variant_genomes import Slow

Entries = dict[tuple[str, str], list[str]]
AROUND_BP = 6500
"""Letters to either side that the slow reference reads."""
PART = 1 if os.environ.get("METALAYER_TEST_WHOLE") else 4
LONG = 20
LISTS = [("spliceai", 50), ("spliceai", 500), ("spliceai.extra", 50), ("spliceai.extra", 200)]


class Kept:
    """A base model that remembers what it was asked: lists and masks share windows."""

    def __init__(self, model: Ensemble) -> None:
        self.model, self.answers = model, dict[Any, Answers]()

    def ask(self, model: BaseModel, tokens: Tokens, alternatives: Sequence[Alternative]) -> list[Answers]:
        assert model is self.model
        window = hashlib.sha256(tokens.tobytes()).digest()
        keys = [(window, one.start, one.end, one.at, one.ref_len, one.letters.tobytes()) for one in alternatives]
        new = [one for key, one in zip(keys, alternatives, strict=True) if key not in self.answers]
        if new:
            asked = (key for key in keys if key not in self.answers)
            self.answers |= dict(zip([*asked], haplotype_answers(model, tokens, new), strict=True))
        return [self.answers[key] for key in keys]


@pytest.fixture(scope="module")
def peers(shared: Path) -> Path:
    folder = shared / "golden" / "peers"
    if not folder.is_dir():
        pytest.skip("no answers of other tools beside this checkout")
    return folder


@pytest.fixture(scope="module")
def letters(shared: Path) -> Iterator[Letters]:
    with Letters(shared / "real/genome/hg19_slices.fa.gz") as found:
        yield found


@pytest.fixture(scope="module")
def genes(peers: Path, letters: Letters) -> Genes:
    return Genes.read(peers / "annotation.txt", letters, Contigs())


@pytest.fixture(scope="module")
def spliceai() -> Iterator[Kept]:
    folder = os.environ.get("METALAYER_TEST_PEERS")
    if not folder:
        pytest.skip("METALAYER_TEST_PEERS does not say where the real distributions are")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield Kept(cast(Ensemble, load_base_model("spliceai", device="cpu")))


@pytest.fixture(scope="module")
def openspliceai(shared: Path) -> Kept:
    weights = shared / "golden/openspliceai-mane/10000nt"
    return Kept(cast(Ensemble, load_base_model("openspliceai", weights=weights, device="cpu")))


def answers(path: Path, tag: str) -> Iterator[tuple[list[str], Entries]]:
    """Fields of each record, and the entries that the tool gave it: by allele and gene, four scores and positions."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    for line in lines[:: PART if len(lines) > LONG else 1]:
        fields = line.split("\t")
        found: Entries = {}
        for part in fields[7].split(";"):
            name, _, value = part.partition("=")
            for entry in value.split(",") if name == tag else ():
                allele, symbol, *numbers = entry.split("|")
                found[allele, symbol] = numbers
        yield fields, found


def asked(scorer: Scorer, fields: list[str]) -> tuple[list[Allele], Entries]:
    """Our answer to a record, in the same form."""
    alleles = scorer.score(fields[0], int(fields[1]) - 1, fields[3], [] if fields[4] == "." else fields[4].split(","))
    found: Entries = {}
    for allele in alleles:
        for gene in allele.genes:
            (changes,) = gene.effects.values()
            found[allele.alt, gene.symbol] = (
                ["."] * 8
                if changes is None
                else [
                    *(f"{change.score:.7f}" for change in changes),
                    *(str(change.position + 1 - int(fields[1])) for change in changes),
                ]
            )
    return alleles, found


def differ(one: list[str], other: list[str]) -> tuple[bool, int]:
    """Whether one of four scores differs by more than 0.01, and how many positions do."""
    if "." in (one[0], other[0]):
        return one != other, 0
    scores = np.abs(np.array(one[:4], float) - np.array(other[:4], float)).max()
    return bool(scores > 0.01), sum(a != b for a, b in zip(one[4:], other[4:], strict=True))


@pytest.mark.parametrize("mask", [0, 1])
@pytest.mark.parametrize(("name", "distance"), LISTS)
def test_as_spliceai(
    peers: Path, letters: Letters, genes: Genes, spliceai: Kept, name: str, distance: int, mask: int
) -> None:
    agrees_as(spliceai, "SpliceAI", peers / f"answers/{name}.d{distance}.m{mask}.exact.vcf", letters, genes, distance)


@pytest.mark.parametrize("mask", [0, 1])
def test_as_openspliceai(peers: Path, letters: Letters, genes: Genes, openspliceai: Kept, mask: int) -> None:
    agrees_as(openspliceai, "OpenSpliceAI", peers / f"answers/openspliceai.d50.m{mask}.exact.vcf", letters, genes, 50)


def agrees_as(model: Kept, tag: str, path: Path, letters: Letters, genes: Genes, distance: int) -> None:
    options = Options(distance, mask=".m1." in path.name, way="spliceai")
    scorer = Scorer(letters, genes, [model.model], options, ask=model.ask)
    entries = 0
    for fields, expected in answers(path, tag):
        _, found = asked(scorer, fields)
        assert set(found) == set(expected), fields[2]
        for key, numbers in expected.items():
            entries += 1
            assert differ(found[key], numbers) == (False, 0), (fields[2], key, found[key], numbers)
    assert entries > 7


def classes(letters: Letters, fields: list[str], alt: str, distance: int, mask: int) -> set[str]:
    """Of docs/variants.md, at "As SpliceAI has it": those that a record belongs to."""
    ref, key = fields[3].upper(), letters.key(fields[0]) or ""
    found = {"mask"} if mask else set()
    if fields[3] != ref:
        found.add("small letters")
    if not set(ref + alt.upper()) <= set("ACGT"):
        return found | {"letters"}
    if len(ref) > 1 and len(alt) > 1:
        found.add("several for several")
    event = event_of(int(fields[1]) - 1, encode(ref), encode(alt), lambda start, end: letters.tokens(key, start, end))
    if event is None:
        return found | {"nothing"}
    if event.repeat:
        found.add("repeat")
    if event.surplus > 0:
        found.add("insertion")
    if len(ref) > distance + 1:
        found.add("longer than the distance")
    return found


@pytest.mark.parametrize("mask", [0, 1])
@pytest.mark.parametrize(("name", "distance"), LISTS)
def test_the_definition(
    peers: Path, letters: Letters, genes: Genes, spliceai: Kept, name: str, distance: int, mask: int
) -> None:
    options = Options(distance, mask=bool(mask))
    scorer = Scorer(letters, genes, [spliceai.model], options, ask=spliceai.ask)
    by_symbol = {gene.symbol: gene for gene in genes}
    different: Counter[str] = Counter()
    entries = 0
    for fields, expected in answers(peers / f"answers/{name}.d{distance}.m{mask}.exact.vcf", "SpliceAI"):
        alleles, found = asked(scorer, fields)
        for (alt, symbol), numbers in found.items():
            entries += 1
            theirs = expected.get((alt, symbol))
            if theirs is not None and differ(numbers, theirs) == (False, 0):
                continue
            why = classes(letters, fields, alt, distance, mask)
            if theirs is None:
                gene = by_symbol[symbol].gene.interval
                is_edge = not gene.start < int(fields[1]) <= gene.end
                why |= {"gene begins in the deletion"} if is_edge else set()
                why |= {"longer than twice the distance"} if len(fields[3]) > 2 * distance else set()
                end = letters.lengths[gene.chrom] - spliceai.model.flank_bp - distance
                why |= {"end of a contig"} if int(fields[1]) > end else set()
            assert why, (fields[2], alt, symbol, numbers, theirs)
            different.update(why)
            if not mask or theirs is None or differ(numbers, theirs)[0]:
                agrees_slowly(spliceai, letters, by_symbol[symbol], fields, alt, numbers, distance, mask)
        reasons = {allele.alt: allele.reason for allele in alleles}
        for alt, symbol in set(expected) - set(found):  # what is no change of letters
            assert classes(letters, fields, alt, distance, mask) & {"letters", "nothing"}, fields[2]
            assert reasons[alt] in ("ambiguous_letters", "breakend", "same_as_ref"), (fields[2], symbol)
    assert entries > 7
    assert not mask or different["mask"]


def scores_within(model: Ensemble, text: str) -> NDArray[np.float32]:
    """Scores (L, 3) of a text wherever the text has all letters that the network reads; NaN elsewhere."""
    flank, size = model.flank_bp, len(text)
    scores = np.full((size, 3), np.nan, np.float32)
    scores[flank : size - flank] = model.score(text[flank : size - flank], text[:flank], text[size - flank :])
    return scores


def agrees_slowly(
    model: Kept,
    letters: Letters,
    sites: GeneSites,
    fields: list[str],
    alt: str,
    numbers: list[str],
    distance: int,
    mask: int,
) -> None:
    span, position, ref = sites.gene.interval, int(fields[1]) - 1, fields[3].upper()
    first = position - AROUND_BP - distance
    text = letters.raw(span.chrom, first, position + AROUND_BP + distance + len(ref)).decode().upper()
    slow = Slow(
        lambda text: scores_within(model.model, text),
        text,
        sites.gene.strand,
        min(max(span.start - first, 0), len(text)),
        max(min(span.end - first, len(text)), 0),
        {"acceptor": {*(sites.acceptors - first)}, "donor": {*(sites.donors - first)}},
    )
    expected = slow.effect(position - first, ref, alt.upper(), distance, mask=bool(mask))
    for kind, score in zip(KINDS, numbers[:4], strict=True):
        assert float(score) == pytest.approx(expected[kind][0], abs=1e-5), (fields[2], alt, sites.symbol, kind)
