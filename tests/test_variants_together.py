"""Records that lie near each other are scored together: as one by one, in order, and with memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from metalayer.base.haplotypes import Alternative, Answers, Scores, Tokens
from metalayer.base.openspliceai import load_openspliceai
from metalayer.base.protocol import BaseModel
from metalayer.base.pwm import PwmModel
from metalayer.contigs import Contigs
from metalayer.gene_track import GeneTrack
from metalayer.inference import Predictor
from metalayer.variants import together
from metalayer.variants.genes import Genes
from metalayer.variants.letters import Letters
from metalayer.variants.scoring import Allele, Asked, Options, Scorer
from metalayer.variants.together import neighbours
from metalayer.variants.windows import haplotype_answers
from tests import variant_genomes as made
from tests.releases import make_bundle
from tests.test_openspliceai import member

TEXT = made.letters()


class Watched:
    """What base models are asked: the number of haplotypes in each call."""

    def __init__(self) -> None:
        self.calls = list[int]()

    def ask(self, model: BaseModel, tokens: Tokens, alternatives: Sequence[Alternative]) -> Sequence[Answers]:
        self.calls.append(len(alternatives))
        return haplotype_answers(model, tokens, alternatives)


@pytest.mark.parametrize(
    "options",
    [Options(45), Options(20, mask=True), Options(45, flanks="real"), Options(45, way="spliceai")],
    ids=["hidden", "mask", "real", "spliceai"],
)
def test_together_as_one_by_one(tmp_path: Path, options: Options) -> None:
    """SNVs, indels and replacements on genes of both strands that overlap, with others in between, in any order."""
    member(tmp_path, 80, 1)
    fasta, gtf = made.write(tmp_path, TEXT)
    records = [Asked("chr1", at, ref, [alt, "*"]) for at, ref, alt in made.some_variants(TEXT, 13, 60, 150, 1800)]
    records = [*sorted(records[:40], key=lambda one: one.position), *records[40:]]
    records[7:7] = [Asked("chr1", 50, TEXT[50], ["A"]), Asked("chr7", 50, "A", ["C"]), records[6]]
    watched = Watched()
    with Letters(fasta) as letters:
        genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
        scorer = Scorer(letters, genes, [load_openspliceai(tmp_path, device="cpu")], options, ask=watched.ask)
        alone = [scorer.score(*one) for one in records]
        one_by_one = len(watched.calls)
        watched.calls.clear()
        found = [*scorer.score_all(iter(records))]
    assert len(watched.calls) < one_by_one / 2
    assert max(watched.calls) > 8
    compared = 0
    for one, other in zip(found, alone, strict=True):
        assert [(a.alt, a.reason, len(a.genes)) for a in one] == [(a.alt, a.reason, len(a.genes)) for a in other]
        for changes, expected in zip(effects(one), effects(other), strict=True):
            for change, same in zip(changes, expected, strict=True):
                one_of, other_of = ([c.reference, c.alternative, c.score] for c in (change, same))
                assert np.allclose(one_of, other_of, rtol=0, atol=1e-6)
                assert (change.score == 0) == (same.score == 0), "an unchanged base has a delta of exactly 0"
                if same.score > 1e-5:
                    assert (change.position, change.inserted, change.annotated) == same[1:3] + same[5:]
                compared += 1
    assert compared > 150


def effects(alleles: Sequence[Allele]) -> Iterator[tuple[object, ...]]:
    for allele in alleles:
        for gene in allele.genes:
            yield from (changes or () for changes in gene.effects.values())


def test_genes_that_show_the_same_letters_are_asked_once(tmp_path: Path) -> None:
    fasta, gtf = made.write(tmp_path, TEXT)
    text = gtf.read_text()
    gtf.write_text(text + text.replace("PLUS", "TWIN"))
    watched, toy = Watched(), made.Toy()
    with Letters(fasta) as letters:
        genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
        scorer = Scorer(letters, genes, [toy], Options(), ask=watched.ask)
        (allele,) = scorer.score("chr1", 400, TEXT[400], ["A" if TEXT[400] != "A" else "C"])
    assert [gene.symbol for gene in allele.genes] == ["PLUS", "TWIN"]
    assert allele.genes[0].effects == allele.genes[1].effects
    assert watched.calls == [1]


def test_our_model_reads_the_reference_once_for_all_letters_of_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fasta, gtf = made.write(tmp_path, TEXT)
    predictor = Predictor.load(make_bundle(tmp_path / "model"), "cpu")
    predict, asked = Predictor.predict_gene_track, list[int]()

    def counted(self: Predictor, track: GeneTrack) -> Scores:
        asked.append(len(track.tokens))
        return predict(self, track)

    monkeypatch.setattr(Predictor, "predict_gene_track", counted)
    with Letters(fasta) as letters:
        genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
        scorer = Scorer(letters, genes, [PwmModel()], Options(), predictor)
        alts = [alt for alt in "ACGT" if alt != TEXT[400]]
        together_now = scorer.score("chr1", 400, TEXT[400], alts)
        assert len(asked) == 4
        assert together_now == [scorer.score("chr1", 400, TEXT[400], [alt])[0] for alt in alts]


@dataclass(frozen=True)
class Place:
    """A record that asks of letters 10 to either side, or of nothing."""

    at: int | None
    contig: str = "1"
    answer_bytes: int = 10

    @property
    def span(self) -> tuple[str, int, int] | None:
        return None if self.at is None else (self.contig, self.at - 10, self.at + 11)

    @property
    def questions(self) -> Iterator[object]:
        return iter(() if self.at is None else (self.at,))


def groups(*places: int | None) -> list[list[int | None]]:
    return [[place.at for place in group] for group in neighbours(map(Place, places), lambda place: place)]


def test_what_is_near_is_one_group() -> None:
    assert groups(0, 20, 41, 40) == [[0, 20], [41, 40]]
    assert groups(100, 85, None, 115, 300) == [[100, 85, None, 115], [300]]
    assert groups(None, None, 5, None, 90, None) == [[None], [None], [5, None], [90, None]]
    assert groups() == []
    other = [Place(5), Place(5, "2")]
    assert len([*neighbours(other, lambda place: place)]) == 2


def test_groups_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST_QUESTIONS", 3)
    monkeypatch.setattr(together, "MOST_RECORDS", 5)
    assert groups(1, 2, 3, 4, 5) == [[1, 2, 3], [4, 5]]
    assert groups(1, None, None, None, None, None, 2) == [[1, None, None, None, None], [None], [2]]
    fewer = neighbours(map(Place, range(5)), lambda place: place, most=2)
    assert [len(group) for group in fewer] == [2, 2, 1]
    monkeypatch.setattr(together, "MOST_BYTES", 15)
    assert groups(1, 2, 3) == [[1, 2], [3]]
    sized = neighbours(map(Place, range(4)), lambda place: place, lambda _: 15)
    assert [len(group) for group in sized] == [1, 1, 1, 1]
