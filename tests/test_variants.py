"""What a variant does: haplotypes, alignment and scores, on a made-up genome and on both strands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from metalayer.base.openspliceai import load_openspliceai
from metalayer.contigs import Contigs
from metalayer.errors import ConfigError, InputError
from metalayer.genome import decode, encode
from metalayer.variants.definition import KINDS, Change, Effect
from metalayer.variants.genes import Genes
from metalayer.variants.haplotype import Event, event_of
from metalayer.variants.letters import Letters
from metalayer.variants.scoring import Allele, Options, Scorer
from metalayer.variants.windows import Question, answered, whole_answers
from tests import variant_genomes as made
from tests.test_openspliceai import member

TEXT = made.letters()


def scorer(folder: Path, options: Options, model: made.Toy | None = None, *, mirrored: bool = False) -> Scorer:
    fasta, gtf = made.write(folder, TEXT, mirrored=mirrored)
    letters = Letters(fasta)
    return Scorer(letters, Genes.read(gtf, letters, Contigs(), allow_introns=True), [model or made.Toy()], options)


def event(position: int, ref: str, alt: str, text: str = TEXT) -> Event | None:
    def letters(start: int, end: int) -> np.ndarray:  # type: ignore[type-arg]
        inside = text[max(start, 0) : max(end, 0)]
        return encode("N" * max(0, -start) + inside + "N" * (end - start - len(inside) - max(0, -start)))

    return event_of(position, encode(ref), encode(alt), letters)


def by_gene(allele: Allele) -> dict[str, Effect]:
    found = {}
    for gene in allele.genes:
        effect = gene.effects["toy"]
        assert effect is not None
        found[gene.symbol] = effect
    return found


def writings(position: int, ref: str, alt: str) -> Iterator[tuple[int, str, str]]:
    """The haplotype as other people write it: moved as far as it goes either way, and with letters around."""
    yield position, ref, alt
    yield position - 3, TEXT[position - 3 : position] + ref, TEXT[position - 3 : position] + alt
    behind = TEXT[position + len(ref) : position + len(ref) + 4]
    yield position, ref + behind, alt + behind
    changed = TEXT[:position] + alt + TEXT[position + len(ref) :]
    size = len(ref) - len(alt)
    for at in range(max(1, position - 60), position + 60) if size else ():
        if size > 0 and TEXT[:at] + TEXT[at + size :] == changed:
            yield at - 1, TEXT[at - 1 : at + size], TEXT[at - 1]
        if size < 0 and TEXT[:at] + changed[at : at - size] + TEXT[at:] == changed:
            yield at - 1, TEXT[at - 1], changed[at - 1 : at - size]


def test_one_haplotype_is_one_event_however_it_is_written() -> None:
    moved = 0
    for position, ref, alt in made.some_variants(TEXT, 5, 300, 210, 1690):
        forms = list(writings(position, ref, alt))
        events = {event(*form) for form in forms}
        assert len(events) == 1, (position, ref, alt)
        (one,) = events
        moved += len(forms) > 4
        if one is None:
            continue
        first, last, letters = one.change
        assert TEXT[:first] + decode(letters) + TEXT[last:] == TEXT[:position] + alt + TEXT[position + len(ref) :]
        assert TEXT[: one.start] + decode(np.frombuffer(one.letters, np.uint8)) + TEXT[one.end :] == (
            TEXT[:position] + alt + TEXT[position + len(ref) :]
        )
    assert moved > 20


def test_the_widest_form_takes_in_the_whole_repeat() -> None:
    text, at = "GGT" + "CA" * 9 + "TT", 3
    for where in (at - 1, at + 1, at + 3):
        found = event(where, text[where : where + 3], text[where], text)
        assert found is not None
        assert (found.start, found.end) == (at, at + 18)
        assert decode(np.frombuffer(found.letters, np.uint8)) == "CA" * 8
        assert found.is_indel
        assert found.anchor == at - 1
    assert event(at, "CA", "CA", text) is None


def test_the_contig_ends_a_repeat() -> None:
    found = event(0, "AA", "A", "AAAAAA")
    assert found == Event(0, 6, encode("AAAAA").tobytes(), 5)
    assert event(5, "A", "AA", "AAAAAA") == Event(0, 6, encode("AAAAAAA").tobytes(), 6)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("distance", [12, 50])
def test_scores_are_those_of_a_slow_reference(tmp_path: Path, distance: int, mask: bool) -> None:
    """On genes of both strands, of all kinds of variants, those at the edges of genes among them."""
    toy = made.Toy()
    fast = scorer(tmp_path, Options(distance, mask), toy)
    seen = dict.fromkeys(made.GENES, 0)
    for position, ref, alt in made.some_variants(TEXT, 11, 120, 195, 1705):
        (allele,) = fast.score("1", position, ref, [alt])
        for name, effect in by_gene(allele).items():
            strand, start, end = made.spans()[name]
            slow = made.Slow(toy.score, TEXT, strand, start, end, made.sites(name))
            expected = slow.effect(position, ref, alt, distance, mask=mask)
            for kind, change in zip(KINDS, effect, strict=True):
                score, places = expected[kind]
                assert change.score == pytest.approx(score, abs=1e-5), (position, ref, alt, name, kind)
                if score > 1e-6:
                    place = -(change.position + change.inserted) if change.inserted else change.position
                    assert place in places, (position, ref, alt, name, kind)
            seen[name] += 1
    assert min(seen.values()) > 10


def test_equal_haplotypes_have_equal_scores(tmp_path: Path) -> None:
    fast = scorer(tmp_path, Options())
    checked = 0
    for position, ref, alt in made.some_variants(TEXT, 8, 60, 210, 1690):
        answers = set()
        for form in writings(position, ref, alt):
            (allele,) = fast.score("chr1", form[0], form[1], [form[2]])
            answers.add(tuple((name, tuple(map(_as_letters, effect))) for name, effect in by_gene(allele).items()))
            checked += 1
        assert len(answers) == 1, (position, ref, alt)
    assert checked > 200


def _as_letters(change: Change) -> tuple[object, ...]:
    """An inserted letter by its place on the other haplotype: which base it stands behind is a matter of writing."""
    place = -(change.position + change.inserted) if change.inserted else change.position
    return place, change.score, change.reference, change.alternative, change.annotated


def test_an_inserted_letter_stands_behind_the_base_where_the_record_has_it(tmp_path: Path) -> None:
    fast, shown = scorer(tmp_path, Options()), set()
    at = TEXT.index("G" * 7)
    for position in range(at - 1, at + 6):
        (allele,) = fast.score("chr1", position, TEXT[position], [TEXT[position] + "GCAGGTAAGTAG"])
        inserted = [change for change in by_gene(allele)["PLUS"] if change.position + change.inserted > position]
        shown |= {change.position - position for change in inserted if change.inserted}
    assert shown == {0}


def test_the_other_strand_has_the_same_scores(tmp_path: Path) -> None:
    """The genome read from its other end: places are mirrored, scores are the same."""
    toy, size = made.Toy(), len(TEXT)
    here, there = scorer(tmp_path, Options(), toy), scorer(tmp_path, Options(), toy, mirrored=True)
    for position, ref, alt in made.some_variants(TEXT, 21, 80, 230, 1670):
        (allele,) = here.score("chr1", position, ref, [alt])
        at = size - position - len(ref)
        (other,) = there.score("chr1", at, made.mirror(ref), [made.mirror(alt)])
        one, two = by_gene(allele), by_gene(other)
        assert set(one) == set(two)
        for name, effect in one.items():
            for kind, change, mirrored in zip(KINDS, effect, two[name], strict=True):
                assert change.score == pytest.approx(mirrored.score, abs=0.02), (position, ref, alt, name, kind)


def test_a_site_that_moves_with_its_repeat_is_neither_lost_nor_gained(tmp_path: Path) -> None:
    """An exon that begins with a repeat: the copy that goes can be any, so the site stays; and on the other strand."""
    text = TEXT[:638] + "AGACACACAC" + TEXT[648:]
    for mirrored in (False, True):
        fasta, gtf = made.write(tmp_path, text, mirrored=mirrored)
        letters = Letters(fasta)
        motif = made.Toy(4)
        motif.weights[:] = 0
        motif.weights[3, "ACGT".index("G"), 1] = 9  # the intron's last base makes an acceptor
        genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
        fast = Scorer(letters, genes, [motif], Options())
        for at in range(640, 645, 2):
            position, ref, alt = at - 1, text[at - 1 : at + 2], text[at - 1]
            if mirrored:
                position, ref, alt = len(text) - position - len(ref), made.mirror(ref), made.mirror(alt)
            (allele,) = fast.score("chr1", position, ref, [alt])
            gain, loss = by_gene(allele)["PLUS"][:2]
            assert loss.score < 0.05 and gain.score < 0.05, (mirrored, at)
            (first,) = fast.score("chr1", *_substitution(text, 639, mirrored=mirrored))
            assert by_gene(first)["PLUS"][1].score > 0.9


def _substitution(text: str, at: int, *, mirrored: bool) -> tuple[int, str, list[str]]:
    ref, alt = (text[at], "T") if not mirrored else (made.mirror(text[at]), "A")
    return (len(text) - 1 - at if mirrored else at), ref, [alt]


def test_bases_that_nothing_reaches_are_exactly_unchanged(tmp_path: Path) -> None:
    toy = made.Toy(4)
    fast, changed = scorer(tmp_path, Options(200), toy), 0
    for ref, alt in ((TEXT[700], "TTTAGA"), (TEXT[700:709], TEXT[700])):
        (allele,) = fast.score("chr1", 700, ref, [alt])
        for change in by_gene(allele)["PLUS"]:
            if change.score:
                assert -4 <= change.position - 700 <= 14
                changed += 1
            else:
                assert change.reference == change.alternative
            assert str(change.score)[0] != "-"
    assert changed > 3


def test_a_network_of_random_weights_on_both_strands(tmp_path: Path) -> None:
    """Bases that a change is too far from to be seen are those of REF to the last bit."""
    member(tmp_path, 80, 1)
    network = load_openspliceai(tmp_path, device="cpu")
    name = network.name
    fasta, gtf = made.write(tmp_path, TEXT)
    letters = Letters(fasta)
    genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
    fast = Scorer(letters, genes, [network], Options(45))
    checked = 0
    for position, ref, alt in made.some_variants(TEXT, 13, 24, 250, 1650):
        (allele,) = fast.score("chr1", position, ref, [alt])
        for gene in allele.genes:
            strand, start, end = made.spans()[gene.symbol]
            slow = made.Slow(network.score, TEXT, strand, start, end, made.sites(gene.symbol))
            expected = slow.effect(position, ref, alt, 45, mask=False)
            for kind, change in zip(KINDS, gene.effects[name] or (), strict=True):
                assert change.score == pytest.approx(expected[kind][0], abs=1e-5)
                checked += 1
    assert checked > 60
    plus = encode(TEXT)
    for alt in ("ACGTTG", ""):
        span = 340, 660
        one = Question(name, "1", False, *span, 500, 505, encode(alt).tobytes(), 40, (300, 700), (0, len(TEXT)))
        p, q = answered([one], {name: network}, lambda _, __, first, last: plus[first:last], whole_answers)[one]
        assert np.array_equal(q[:120], p[:120])
        assert np.array_equal(q[-115:], p[-115:])
        assert not np.array_equal(q[120:160], p[120:160])


def test_which_genes_a_variant_touches(tmp_path: Path) -> None:
    fast = scorer(tmp_path, Options())

    def touched(position: int, ref: str, alt: str) -> list[str]:
        (allele,) = fast.score("chr1", position, ref, [alt])
        return [gene.symbol for gene in allele.genes] or [str(allele.reason)]

    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    assert touched(199, TEXT[199], other[TEXT[199]]) == ["no_gene"]
    assert touched(200, TEXT[200], other[TEXT[200]]) == ["PLUS"]
    assert touched(190, TEXT[190:201], TEXT[190]) == ["PLUS"]  # begins before the gene, and reaches into it
    assert touched(799, TEXT[799], other[TEXT[799]]) == ["PLUS"]
    assert touched(800, TEXT[800], other[TEXT[800]]) == ["no_gene"]
    assert touched(1420, TEXT[1420], other[TEXT[1420]]) == ["MINUS", "OVER"]
    assert touched(790, TEXT[790:910], TEXT[790]) == ["PLUS", "MINUS"]
    assert touched(850, TEXT[850], other[TEXT[850]]) == ["no_gene"]


def test_masks_hide_annotated_gains_and_other_losses_before_the_maximum(tmp_path: Path) -> None:
    plain, masked = (scorer(tmp_path, Options(mask=mask)) for mask in (False, True))
    hidden = 0
    for position, ref, alt in made.some_variants(TEXT, 31, 60, 300, 790):
        whole, less = (by_gene(one.score("chr1", position, ref, [alt])[0])["PLUS"] for one in (plain, masked))
        for kind, all_of, some in zip(KINDS, whole, less, strict=True):
            assert 0 <= some.score <= all_of.score
            if some.score:
                assert some.annotated == kind.endswith("loss")
            hidden += some.score < all_of.score
    assert hidden > 50


@pytest.mark.parametrize(
    ("position", "ref", "alts", "reasons"),
    [
        (600, None, [], ["no_alt"]),
        (600, None, ["<DEL>", "*", "A[chr1:5[", ".A"], ["symbolic", "star", "breakend", "breakend"]),
        (600, None, ["R", "N", "?", "acgt"], ["ambiguous_letters", "ambiguous_letters", "no_letters", None]),
        (600, "N", ["A"], ["ambiguous_letters"]),
        (600, "", ["A"], ["no_letters"]),
        (1999, "AA", ["A"], ["out_of_range"]),
        (-1, "N", ["A"], ["out_of_range"]),
        (50, None, ["ACG"], ["no_gene"]),
        (600, None, ["A" * 41], ["too_long"]),
    ],
)
def test_reasons(tmp_path: Path, position: int, ref: str | None, alts: list[str], reasons: list[str | None]) -> None:
    fast = scorer(tmp_path, Options(max_length=40))
    found = fast.score("chr1", position, TEXT[position] if ref is None else ref, alts)
    assert [allele.reason for allele in found] == reasons


def test_reasons_of_the_reference(tmp_path: Path) -> None:
    fast = scorer(tmp_path, Options())
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}[TEXT[600]]
    assert fast.score("chr2", 600, TEXT[600], ["A"])[0].reason == "contig_absent"
    assert fast.score("chr1", 600, other, [TEXT[600]])[0].reason == "ref_mismatch"
    assert fast.score("chr1", 600, TEXT[600], [TEXT[600].lower()])[0].reason == "same_as_ref"
    assert fast.score("1", 600, TEXT[600].lower(), [other])[0].reason is None


def test_too_much_n_around(tmp_path: Path) -> None:
    text = TEXT[:560] + "N" * 60 + TEXT[620:]
    fasta, gtf = made.write(tmp_path, text)
    letters = Letters(fasta)
    genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
    answers = []
    for share in (0.5, 1.0):
        fast = Scorer(letters, genes, [made.Toy()], Options(30, max_ambiguous=share))
        (allele,) = fast.score("chr1", 620, text[620], ["A" if text[620] != "A" else "C"])
        answers.append(allele.reason)
        (edge,) = fast.score("chr1", 201, text[201], ["A" if text[201] != "A" else "C"])
        assert edge.reason is None  # the N that hide what is outside the gene do not count
    assert answers == ["ambiguous_window", None] or answers == [None, None]


def test_options_that_cannot_be() -> None:
    for wrong in (
        {"distance": 0},
        {"distance": 5001},
        {"flanks": "some"},
        {"way": "other"},
        {"way": "spliceai", "flanks": "real"},
        {"max_length": 0},
        {"max_ambiguous": 1.5},
    ):
        with pytest.raises(ConfigError, match="variants: "):
            Options(**wrong)  # type: ignore[arg-type]


def test_an_annotation_that_does_not_fit(tmp_path: Path) -> None:
    fasta, gtf = made.write(tmp_path, TEXT)
    lines = gtf.read_text()
    with Letters(fasta) as letters:
        (tmp_path / "absent.gtf").write_text(lines.replace("chr1", "chr5"))
        with pytest.raises(
            InputError, match=r"0 of its 3 genes lie within the contigs of .* 3 on contigs that it lacks"
        ):
            Genes.read(tmp_path / "absent.gtf", letters, Contigs())
        exons = [(start, start + 40) for start in range(100, 1900, 70)]
        shifted = [f'chr1\tx\texon\t{start}\t{end}\t.\t+\t.\tgene_id "g"; transcript_id "t";' for start, end in exons]
        (tmp_path / "shifted.gtf").write_text("\n".join(shifted) + "\n")
        with pytest.raises(InputError, match="of 25 introns that were looked at begin with GT or GC"):
            Genes.read(tmp_path / "shifted.gtf", letters, Contigs())
        assert len([*Genes.read(tmp_path / "shifted.gtf", letters, Contigs(), allow_introns=True)]) == 1


def test_the_two_names_of_a_mitochondrial_genome(tmp_path: Path) -> None:
    fasta, gtf = made.write(tmp_path, TEXT)
    fasta.write_text(fasta.read_text().replace(">chr1", ">MT"))
    gtf.write_text(gtf.read_text().replace("chr1\t", "chrM\t"))
    with Letters(fasta) as letters:
        genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
        fast = Scorer(letters, genes, [made.Toy()], Options())
        alt = "A" if TEXT[600] != "A" else "C"
        for name in ("MT", "chrM", "M"):
            assert fast.score(name, 600, TEXT[600], [alt])[0].genes
