"""What a variant is said to do to exons, on genes whose sites are words: each name, both strands, indels among them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from metalayer.variants.columns import Columns
from metalayer.variants.meaning import TERMS, ExonEvent, Meaning
from metalayer.variants.words import WIDTH, described, drawing, event_in_words, lines_of
from tests.spliced_genes import CODING, EXONS, SIZE, Silenced, SplicedGene

STRANDS = pytest.mark.parametrize("is_plus", [True, False], ids=["plus", "minus"])
SMALL = ((300, 450), (900, 960), (1035, 1095), (1720, 1840), (2400, 2700))


def events(meaning: Meaning) -> dict[str, ExonEvent]:
    assert len({event.term for event in meaning.events}) == len(meaning.events)
    return {event.term: event for event in meaning.events}


def sense(gene: SplicedGene, place: tuple[int, int]) -> int:
    return place[0] if gene.is_plus else SIZE - 1 - place[0]


def spans(gene: SplicedGene, meaning: Meaning, *, after: bool) -> list[tuple[int, int]]:
    """Exons, half-open in transcript sense."""
    exons = meaning.after if after else meaning.before
    return [(sense(gene, exon.first), sense(gene, exon.last) + 1) for exon in exons]


@STRANDS
def test_a_lost_donor_skips_its_exon(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, is_plus=is_plus)
    found = gene.meaning(1020, 1, "A")
    assert found.terms == ("donor_loss", "exon_skipping") and found.transcript == "T0" and found.exons == 5
    assert (found.length, found.frame, found.stop) == (-120, "kept", None)
    said = events(found)
    assert sense(gene, said["donor_loss"].first) == 1019 and said["donor_loss"].reference == pytest.approx(0.95)
    assert (said["exon_skipping"].exon, said["exon_skipping"].skipped) == (2, 1)
    assert spans(gene, found, after=False) == [*EXONS[:3]]
    assert spans(gene, found, after=True) == [EXONS[0], EXONS[2]]
    assert [exon.number for exon in found.after] == [1, 3] and found.probability > 0.9


@STRANDS
def test_a_lost_acceptor_skips_its_exon(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, is_plus=is_plus)
    found = gene.meaning(899, 1, "T")
    assert found.terms == ("acceptor_loss", "exon_skipping")
    assert sense(gene, events(found)["acceptor_loss"].first) == 900


@STRANDS
@pytest.mark.parametrize(
    ("word", "at", "distance", "term", "frame"),
    [("CAGGTAAGA", 1029, 12, "exon_extension", "kept"), ("CAGGTAAGC", 1007, -10, "partial_exon_deletion", "shifted")],
)
def test_a_cryptic_donor_takes_the_place_of_a_lost_one(
    tmp_path: Path, is_plus: bool, word: str, at: int, distance: int, term: str, frame: str
) -> None:
    gene = SplicedGene(tmp_path, {at: word}, is_plus=is_plus)
    found = gene.meaning(1020, 1, "A")
    assert found.terms == ("donor_loss", "cryptic_donor_gain", term)
    said = events(found)
    assert said["cryptic_donor_gain"].length == distance == said[term].length == found.length
    assert sense(gene, said["cryptic_donor_gain"].first) == 1019 + distance
    assert found.frame == frame and said[term].exon == 2
    assert spans(gene, found, after=True) == [EXONS[0], (900, 1020 + distance), EXONS[2]]


@STRANDS
@pytest.mark.parametrize(("at", "distance", "term"), [(907, 15, "partial_exon_deletion"), (872, -20, "exon_extension")])
def test_a_cryptic_acceptor_takes_the_place_of_a_lost_one(
    tmp_path: Path, is_plus: bool, at: int, distance: int, term: str
) -> None:
    gene = SplicedGene(tmp_path, {at: "TCATTCAG"}, is_plus=is_plus)
    found = gene.meaning(899, 1, "T")
    assert found.terms == ("acceptor_loss", "cryptic_acceptor_gain", term)
    said = events(found)
    assert said["cryptic_acceptor_gain"].length == distance and said[term].length == found.length == -distance
    assert spans(gene, found, after=True)[1] == (900 + distance, 1020)


@STRANDS
def test_a_stronger_new_donor_wins_and_the_old_way_is_said(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, {1017: "CAGGTAAGC", 1047: "CAGGTTAGT"}, is_plus=is_plus)
    found = gene.meaning(1052, 1, "A")
    assert found.terms == ("cryptic_donor_gain", "exon_extension") and found.length == 30
    assert [other.terms for other in found.alternatives] == [("no_change",)]
    assert found.probability + found.alternatives[0].probability == pytest.approx(1, abs=0.05)
    assert 0.2 < found.alternatives[0].probability < 0.5
    # An annotated donor of another isoform is not cryptic.
    isoforms = (EXONS, (EXONS[0], (900, 1050), *EXONS[2:]))
    other = SplicedGene(tmp_path, gene.planted, isoforms, is_plus=is_plus)
    assert other.meaning(1052, 1, "A").terms == ("donor_gain", "exon_extension")


@STRANDS
def test_a_weaker_new_donor_is_no_change_but_an_alternative(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, {1017: "CAGGTAAGC", 1047: "CAGGTTAGC"}, is_plus=is_plus)
    found = gene.meaning(1052, 1, "A")
    assert found.terms == ("no_change",) and found.frame is None and found.length == 0
    assert [other.terms for other in found.alternatives] == [("cryptic_donor_gain", "exon_extension")]
    assert [site.kind for site in found.sites] == ["donor"] and not found.sites[0].annotated


@STRANDS
def test_an_intron_between_small_exons_is_retained(tmp_path: Path, is_plus: bool) -> None:
    planted = {
        **{892: "TCTTTCAG", 957: "CAGGTAAGT", 1027: "TCTTTCAG", 1092: "CAGGTAAGT"},
        **{1017: "ACATTACAT", 1492: "ACATTACA", 1617: "ACATTACAT"},
    }
    gene = SplicedGene(tmp_path, planted, (SMALL,), is_plus=is_plus, has_coding=False)
    # Both ends of the intron go: what lies between is kept.
    found = gene.meaning(960, 75, "A" * 75)
    assert found.terms == ("donor_loss", "acceptor_loss", "intron_retention")
    said = events(found)["intron_retention"]
    assert (said.length, said.exon, found.length, found.frame) == (75, 2, 75, "unknown")
    assert spans(gene, found, after=True)[1] == (900, 1095)


@STRANDS
def test_a_first_exon_without_its_donor_goes_on_into_the_intron(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, is_plus=is_plus)
    found = gene.meaning(450, 1, "A")
    assert found.terms == ("donor_loss", "intron_retention") and found.length == 450
    assert found.stop is not None and found.stop[0] < found.stop[1] == _codons()


def _codons() -> int:
    return sum(min(end, CODING[1]) - max(start, CODING[0]) for start, end in EXONS if start < CODING[1]) // 3


@STRANDS
def test_an_intron_too_long_to_be_retained_is_unclear(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(
        tmp_path, {447: "CAGGTAAGT", 2792: "TCTTTCAG"}, ((EXONS[0], (2800, 2900)),), is_plus=is_plus, has_coding=False
    )
    found = gene.meaning(450, 1, "A", distance=100)
    assert found.terms == ("donor_loss", "outcome_unclear") and found.frame is None


@STRANDS
def test_a_new_donor_deep_in_an_intron_makes_a_pseudoexon(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, {2000: "TCTTTCAG", 2090: "CAGTTAAGT"}, is_plus=is_plus)
    found = gene.meaning(2093, 1, "G")
    assert found.terms == ("pseudoexon",) and found.length == 85 and found.frame == "shifted"
    assert spans(gene, found, after=True) == [EXONS[3], (2008, 2093), EXONS[4]]
    assert [exon.number for exon in found.after] == [4, 0, 5]
    # Its acceptor alone, which was there before, is none.
    assert gene.meaning(2060, 1, "A").terms == ("no_change",)
    # And a window that does not reach to the acceptor cannot name it.
    assert gene.meaning(2093, 1, "G", distance=50).terms == ("no_change",)


@STRANDS
def test_an_exon_of_another_isoform_is_no_pseudoexon(tmp_path: Path, is_plus: bool) -> None:
    isoforms = (EXONS, (*EXONS[:4], (2008, 2093), EXONS[4]))
    gene = SplicedGene(tmp_path, {2000: "TCTTTCAG", 2090: "CAGTTAAGT"}, isoforms, is_plus=is_plus)
    found = gene.meaning(2093, 1, "G")
    assert found.terms == ("exon_of_other_isoform",) and found.transcript == "T0" and found.length == 85


@STRANDS
def test_an_inserted_exon_is_a_pseudoexon_of_inserted_letters(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, is_plus=is_plus)
    found = gene.meaning(2100, 0, "TCTTTCAG" + "GATC" * 20 + "CAGGTAAGT")
    assert found.terms == ("pseudoexon",) and found.length == 83
    assert all(place[1] > 0 for place in (found.after[1].first, found.after[1].last))


@STRANDS
def test_deletions(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, is_plus=is_plus)
    whole = gene.meaning(850, 250, "")
    assert whole.terms == ("donor_loss", "acceptor_loss", "exon_deleted") and whole.length == -120
    across = gene.meaning(1015, 10, "")
    assert across.terms == ("donor_loss", "exon_skipping") and across.length == -120
    intron = gene.meaning(1620, 100, "")
    assert intron.terms == ("donor_loss", "acceptor_loss", "intron_deleted")
    assert (intron.length, intron.frame) == (0, "kept")
    two = gene.meaning(870, 800, "")
    assert "exon_deleted" in two.terms and two.events[-1].skipped == 2 and two.length == -240
    inside = gene.meaning(950, 7, "")
    assert inside.terms == ("no_change",)


@STRANDS
def test_exons_whose_sites_all_fall_are_skipped_together(tmp_path: Path, is_plus: bool) -> None:
    """As networks do when an exon loses an end: what is around falls with it."""
    gene = SplicedGene(tmp_path, is_plus=is_plus)
    found = gene.meaning(1560, 0, Silenced.word, model=Silenced())
    assert found.terms == ("donor_loss", "acceptor_loss", "exon_skipping")
    skipped = [event for event in found.events if event.term == "exon_skipping"]
    assert [(event.exon, event.skipped, event.length) for event in skipped] == [(3, 2, -240)]
    assert spans(gene, found, after=True) == [EXONS[1], EXONS[4]] and found.frame == "kept"


@STRANDS
def test_a_new_intron_within_an_exon(tmp_path: Path, is_plus: bool) -> None:
    wide = ((300, 450), (900, 1020), (1500, 2100), (2400, 2700))
    planted = {1617: "ACATTACAT", 1712: "ACATTACA", 1837: "ACATTACAT", 2097: "CAGGTAAGT", 1792: "TCTTTCAG"}
    gene = SplicedGene(tmp_path, {**planted, 1697: "CAGTTAAGT"}, (wide,), is_plus=is_plus, has_coding=False)
    found = gene.meaning(1700, 1, "G")
    assert found.terms == ("cryptic_donor_gain", "cryptic_acceptor_gain", "intron_in_exon")
    assert found.length == -100 == events(found)["intron_in_exon"].length


@STRANDS
def test_frames(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, {1004: "CAGGTAAGC", 2440: "TCATTCAG"}, is_plus=is_plus)
    shorter = gene.meaning(1020, 1, "A")
    assert (shorter.length, shorter.frame) == (-13, "shifted") and shorter.stop is not None
    start_lost = SplicedGene(tmp_path, is_plus=is_plus).meaning(330, 20, "")
    assert start_lost.terms == ("no_change",)  # a change of letters, not of exons
    stop = gene.meaning(2399, 1, "T")
    assert stop.terms[0] == "acceptor_loss" and stop.frame == "kept" and stop.length == -48
    far = SplicedGene(tmp_path, {2540: "TCATTCAG"}, is_plus=is_plus).meaning(2399, 1, "T")
    assert far.frame == "stop_lost"
    unknown = SplicedGene(tmp_path, is_plus=is_plus, has_coding=False).meaning(1020, 1, "A")
    assert unknown.frame == "unknown" and unknown.stop is None


@STRANDS
def test_an_effect_before_the_start_codon_is_outside_the_coding_sequence(tmp_path: Path, is_plus: bool) -> None:
    exons = ((100, 160), *EXONS)
    planted = {157: "CAGGTAAGT", 292: "TCTTTCAG", 177: "CAGGTAAGA"}
    found = SplicedGene(tmp_path, planted, (exons,), is_plus=is_plus).meaning(160, 1, "A")
    assert found.terms == ("donor_loss", "cryptic_donor_gain", "exon_extension")
    assert (found.length, found.frame) == (20, "outside_cds")


@STRANDS
def test_the_transcript_with_the_site_that_falls_is_the_one_that_is_read(tmp_path: Path, is_plus: bool) -> None:
    other = (EXONS[0], (600, 660), *EXONS[2:])
    gene = SplicedGene(tmp_path, {592: "TCTTTCAG", 657: "CAGGTAAGT"}, (EXONS, other), is_plus=is_plus)
    found = gene.meaning(660, 1, "A")
    assert found.transcript == "T1" and found.terms == ("donor_loss", "exon_skipping") and found.length == -60
    assert gene.meaning(1020, 1, "A").transcript == "T0"


@STRANDS
def test_a_weak_annotated_site_is_lost_and_one_that_the_model_does_not_see_is_not_called(
    tmp_path: Path, is_plus: bool
) -> None:
    weak = SplicedGene(tmp_path, {1017: "CAGGTAAGA"}, is_plus=is_plus).meaning(1020, 1, "A")
    assert weak.terms == ("donor_loss", "exon_skipping") and events(weak)["donor_loss"].reference == pytest.approx(0.3)
    unseen = SplicedGene(tmp_path, {1017: "CAGGTCAGT"}, is_plus=is_plus).meaning(1020, 1, "A")
    assert unseen.terms == ("no_change",) and 2 in [exon.number for exon in unseen.before]


@STRANDS
def test_what_a_model_finds_beside_the_annotation_is_not_laid_to_the_variant(tmp_path: Path, is_plus: bool) -> None:
    """A whole exon that the annotation does not have, near a donor that is lost."""
    planted = {1112: "TCTTTCAG", 1217: "CAGGTAAGT"}
    plain = SplicedGene(tmp_path, planted, is_plus=is_plus)
    assert plain.meaning(1300, 1, "AC").terms == ("no_change",)
    assert "pseudoexon" not in plain.meaning(1020, 1, "A").terms


def test_a_table_of_junctions_alone(tmp_path: Path) -> None:
    gene = SplicedGene(tmp_path)
    scorer = gene.scorer()
    table = tmp_path / "junctions.csv"
    starts = ",".join(str(end) for _, end in EXONS[:-1])
    ends = ",".join(str(start + 1) for start, _ in EXONS[1:])
    line = f'G,chr1,+,{EXONS[0][0] + 1},{EXONS[-1][1]},"{starts},","{ends},"'
    table.write_text(f"gene_id,chr,strand,start,end,jn_start,jn_end\n{line}\n")
    from metalayer.contigs import Contigs
    from metalayer.variants.genes import Genes

    scorer._genes = Genes.read(table, scorer._letters, Contigs(), allow_introns=True)
    position, ref, alt = gene.variant(1020, 1, "A")
    (allele,) = scorer.score("chr1", position, ref, [alt])
    found = allele.genes[0].meanings["words"]
    assert found.terms == ("donor_loss", "exon_skipping") and found.transcript == "" and found.frame == "unknown"
    assert lines_of(found, "chr1", "+")[-5].strip().startswith("exons of all known junctions, 5 exons")


@pytest.mark.parametrize(("opened", "surplus"), [(4, 3), (4, -3), (4, 0)])
@STRANDS
def test_columns_go_there_and_back(is_plus: bool, opened: int, surplus: int) -> None:
    columns = Columns(100, opened, surplus, is_plus)
    for alt in (False, True):
        there = np.arange(-3, 15)
        on = there[columns.are_on(there, alt=alt)]
        senses = [columns.turned(int(column)) for column in on]
        numbers = [columns.on_haplotype(one, alt=alt) for one in senses]
        assert [columns.from_haplotype(one, alt=alt) for one in numbers] == senses
        assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
        low, high = sorted((senses[0], senses[-1]))
        assert columns.length(low, high, alt=alt) == len(on)
    for position in (98, 103, 104, 120):
        assert columns.place(columns.column(position)) == (position, 0)
    if surplus > 0:
        assert columns.place(5) == (103, 2)


def test_meanings_survive_json(tmp_path: Path) -> None:
    gene = SplicedGene(tmp_path, {1017: "CAGGTAAGC", 1047: "CAGGTTAGT"})
    for found in (gene.meaning(1052, 1, "A"), gene.meaning(450, 1, "A"), gene.meaning(700, 1, "A")):
        assert Meaning.from_json(json.loads(json.dumps(found.to_json()))) == found


@STRANDS
def test_words_and_drawings(tmp_path: Path, is_plus: bool) -> None:
    gene = SplicedGene(tmp_path, is_plus=is_plus)
    strand = "+" if is_plus else "-"
    found = gene.meaning(1020, 1, "A")
    lines = lines_of(found, "chr1", strand)
    donor, last = ("1020", "901-1020") if is_plus else ("2581", "2581-2700")
    assert lines[:4] == [
        "consequence: donor loss, exon skipping (research prediction)",
        f"  donor loss: chr1:{donor}, 0.95 on REF, 0.00 on ALT",
        f"  exon 2 skipped: chr1:{last}, 120 nt less",
        "  120 nt less, a multiple of three; reading frame kept",
    ]
    rows = drawing(found, strand)
    assert rows[1].count("[") == 3 and rows[2].count("[") == 2
    assert rows[1].index("[", 10) and rows[1].split()[0] == "before"
    # Ends at one base stand one above the other.
    assert rows[1].rindex("[") == rows[2].rindex("[") and rows[1].index("]") == rows[2].index("]")
    assert lines_of(gene.meaning(700, 1, "A"), "chr1", strand)[0].startswith(
        "consequence: no change of exons is called"
    )
    data = described(found, "chr1", strand)
    assert json.loads(json.dumps(data)) == data
    assert data["label"] == "research prediction" and data["multiple_of_three"] is True
    assert [exon["number"] for exon in data["exons_after"]] == [1, 3]


def test_every_term_has_words_within_the_width() -> None:
    place = (123_456_789, 0)
    for term in TERMS[:-1]:
        said = event_in_words(ExonEvent(term, place, (place[0] + 5, 0), -123_456, 12, 2, 0.5, 0.25), "chr12")
        assert "12" in said or term.endswith(("loss", "gain"))
        meaning = Meaning("T", TERMS[:-1], (ExonEvent(term, place, place, 5, 1, 1),), 5, "kept", (10, 1000))
        assert max(map(len, lines_of(meaning, "chr12", "+"))) <= WIDTH - 4


def test_many_exons_are_drawn_as_far_as_they_fit() -> None:
    from metalayer.variants.meaning import ShownExon

    def exons(count: int) -> tuple[ShownExon, ...]:
        return tuple(ShownExon((1000 * i, 0), (1000 * i + 99, 0), 100, i + 1) for i in range(count))

    rows = drawing(Meaning("T", ("no_change",), before=exons(12), after=exons(12)), "+")
    assert rows and max(map(len, rows)) <= WIDTH - 6
    assert drawing(Meaning("T", ("no_change",), before=exons(40), after=exons(40)), "+") == []
