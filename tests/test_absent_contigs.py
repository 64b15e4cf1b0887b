"""Contigs that an annotation has and a FASTA lacks, or that have introns of another kind, or are only a part."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metalayer.base.agreement import check_agreement
from metalayer.base.annotation import read_annotation
from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.genome import decode
from tests.test_annotation_forms import LENGTH, by_chrom, genome, many, write

ALTERNATIVES = [
    "6_GL000250v2_alt",
    "CHR_HSCHR6_MHC_APD_CTG1",
    "HG1012_PATCH",
    "211000022278279",
    "Un_GL000220v1",
    "KI270728.1",
    "MT",
]


def lacking(folder: Path, genes: dict[str, int], there: str = "1") -> dict[str, int]:
    """What is handled where the FASTA has one chromosome of an annotation with so many genes on each contig."""
    lines = [line for chrom, count in genes.items() for line in many([chrom], count)]
    annotation = read_annotation(write(folder, lines))
    reference = genome(folder, read_annotation(write(folder, many([there], genes[there]), "there.gff")))
    found = check_agreement(
        by_chrom(annotation), reference, folder / "a.gff", names=annotation.names, organelles=annotation.organelles
    )
    assert list(found.genes) == [there]
    return dict(found.handled)


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_genes_of_alternatives_that_the_fasta_lacks_are_left_out(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A primary assembly beside a comprehensive annotation."""
    with caplog.at_level(logging.WARNING):
        handled = lacking(tmp_path, {"1": 8, name: 2})
    assert handled["genes_on_contigs_that_the_FASTA_lacks"] == 2
    assert f"a.fa lacks {name} of" in caplog.text
    assert "their 2 of 10 genes are left out" in caplog.text


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ({"1": 8, "2": 1}, "no chromosome 2 of the annotation"),
        ({"1": 8, "2": 1, "6_GL000250v2_alt": 1}, "no chromosome 2 of the annotation"),
        ({"1": 4, "NC_000002.12": 1}, r"no chromosome NC_000002\.12 of the annotation"),
        ({"1": 2, "6_GL000250v2_alt": 2}, "with 2 of 4 genes; at most 20 %, or 10 where that is less than half"),
        ({"1": 8, "scaffold_1": 6, "scaffold_2": 6}, "with 12 of 20 genes; at most 20 %"),
        ({"1": 8, "LG2": 11}, "no chromosome LG2 of the annotation"),
    ],
)
def test_chromosomes_and_many_genes_may_not_lack(tmp_path: Path, genes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lacking(tmp_path, genes)


NCBI = "{name} region 1 6000 + ID=r;gbkey=Src;genome={place}"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("chrM", []),
        ("ChrC", []),
        ("Pt", []),
        ("mitochondrion_genome", []),
        ("NC_000932.1", [NCBI.format(name="NC_000932.1", place="chloroplast")]),
        ("NC_037304.1", [NCBI.format(name="NC_037304.1", place="mitochondrion")]),
    ],
)
def test_introns_of_organelles_are_not_those_of_the_spliceosome(tmp_path: Path, name: str, head: list[str]) -> None:
    """Group II introns of plants and yeasts would stop the run."""
    spliced = read_annotation(write(tmp_path, many(["1"], 8)))
    lines = [*head, *many(["1"], 8), *many([name], 8)]
    annotation = read_annotation(write(tmp_path, lines))
    assert annotation.handled == {"introns_of_organelles": 16}
    reference = genome(tmp_path, spliced)
    letters = decode(np.random.default_rng(5).integers(0, 4, LENGTH).astype(np.uint8))
    reference.path.write_text(reference.path.read_text() + f">{name}\n{letters}\n")
    found = check_agreement(by_chrom(annotation), reference, tmp_path / "a.gff")
    assert (found.introns, found.canonical) == (16, 16)
    organelle = [gene for genes in found.genes.values() for gene in genes if gene.gene.interval.chrom != "1"]
    assert len(organelle) == 8
    assert not any(gene.introns() for gene in organelle)


def test_which_contigs_are_organelles(tmp_path: Path) -> None:
    """Letters say nothing where chromosomes are called by letters; the place in a report says all."""
    contigs = Contigs.of(None)
    assert contigs.organelles({"1", "M", "C", "Pt", "Mito", "mt"}) == {"M", "C", "Pt", "Mito", "mt"}
    assert contigs.organelles({"A", "B", "C", "M", "MT"}) == {"MT"}
    head = (
        "# Sequence-Name\tSequence-Role\tAssigned-Molecule\tAssigned-Molecule-Location/Type\tGenBank-Accn\tRefSeq-Accn"
    )
    rows = ["C\tassembled-molecule\tC\tChromosome\tCP1.1\tNC_1.1", "P\tassembled-molecule\tP\tPlastid\tCP2.1\tNC_2.1"]
    (tmp_path / "report.txt").write_text("\n".join([head, *rows]) + "\n")
    assert Contigs.of(tmp_path / "report.txt").organelles({"C", "P"}) == {"P"}


@pytest.mark.parametrize(("end", "genes"), [(8000, 8), (600, 8), (8999, 11)])
def test_a_region_that_is_a_part_of_its_contig(tmp_path: Path, end: int, genes: int) -> None:
    """Of `##sequence-region`: far shorter than the contig, or a little where the introns fit."""
    annotation = read_annotation(write(tmp_path, many(["1"], genes)))
    reference = genome(tmp_path, annotation, length=9000)
    assert check_agreement(by_chrom(annotation), reference, tmp_path / "a.gff", regions={"1": end}).introns


def test_copies_of_a_gene_on_other_contigs_are_of_one_group(tmp_path: Path) -> None:
    """Also where their letters differ, as on alternative loci: else a model is tested on what it was trained on."""
    names = ("6", "6_GL000250v2_alt", "X")
    lines = [line.replace(f"{c}g0", "G") for c in names for line in many([c], 2)]
    annotation = read_annotation(write(tmp_path, lines))
    found = check_agreement(by_chrom(annotation), genome(tmp_path, annotation), tmp_path / "a.gff")
    groups = {one.gene.gene_id: one.gene.paralog_group for genes in found.genes.values() for one in genes}
    assert {gene_id for gene_id, group in groups.items() if group == "same-G"} == {"G", "G_6_GL000250v2_alt", "G_X"}
    assert {groups[f"{c}g1"] for c in names} == {None}


@pytest.mark.parametrize(("exons", "equal", "left_out"), [(2, True, 1), (3, True, 1), (2, False, 1), (2, None, 0)])
def test_copies_of_one_exon_are_no_exons_of_a_transcript(
    tmp_path: Path, exons: int, equal: bool | None, left_out: int
) -> None:
    """Told by their letters, or by what lies between them; None: an intron that begins with GT and ends with AG."""
    places = [(100 + 1100 * i, 190 + 1100 * i) for i in range(exons)]
    lines = [f'2 exon {start + 1} {end} + gene_id "R"; transcript_id "R";' for start, end in places]
    annotation = read_annotation(write(tmp_path, [*many(["1"], 8), *lines, *moved_to("2", many(["z"], 4))]))

    def copied(tokens: np.ndarray) -> np.ndarray:
        for start, end in places if equal else ():
            tokens[start:end] = tokens[100:190]
        if equal is False:
            tokens[190:192] = 0
        return tokens

    reference = genome(tmp_path, annotation, c2=copied)
    found = check_agreement(by_chrom(annotation), reference, tmp_path / "a.gff")
    assert found.handled["genes_with_a_transcript_in_two_places"] == left_out
    assert len(found.genes["2"]) == 5 - left_out


def moved_to(chrom: str, lines: list[str]) -> list[str]:
    """Further on along a chromosome."""
    rows = [line.split(maxsplit=4) for line in lines]
    return [f"{chrom} {kind} {int(start) + 2500} {int(end) + 2500} {rest}" for _, kind, start, end, rest in rows]


def test_names_that_gff3_escapes(tmp_path: Path) -> None:
    """`%7C` is `|`, also for a table of aliases."""
    name = "gi|568815597|ref|NC_000001.11|"
    plain = read_annotation(write(tmp_path, many([name], 8)))
    reference = genome(tmp_path, plain)
    path = write(tmp_path, [line.replace("|", "%7C") for line in many([name], 8)])
    escaped = read_annotation(path)
    assert check_agreement(by_chrom(escaped), reference, path).canonical == 16
    assert list(reference.names.values()) == [name]
    (tmp_path / "aliases.tsv").write_text("chr1\tNC_000001.11\n")
    assert read_annotation(path, contigs=Contigs.of(tmp_path / "aliases.tsv")).genes[0].gene.interval.chrom == "1"


def test_a_piece_of_a_chromosome_is_named(tmp_path: Path) -> None:
    annotation = read_annotation(write(tmp_path, many(["1"], 8)))
    reference = genome(tmp_path, annotation)
    reference.path.write_text(reference.path.read_text().replace(">1\n", ">chr1:1-6,000\n"))
    with pytest.raises(InputError, match="chr1:1-6,000 is a piece that was cut out"):
        check_agreement(by_chrom(annotation), reference, tmp_path / "a.gff")


@pytest.mark.parametrize(
    ("starts", "ends", "would"),
    [
        (-1, 0, "with the starts of exons +1 base along"),
        (0, -1, "with the ends of exons +1 base along"),
        (-1, -1, "do +1 base along"),
        (2, 2, "do -2 bases along"),
    ],
)
def test_ends_that_are_off_alone(tmp_path: Path, starts: int, ends: int, would: str) -> None:
    """Starts counted from 0 beside ends counted from 1, as of a BED file written as GTF."""
    reference = genome(tmp_path, read_annotation(write(tmp_path, many(["1"], 8))))
    rows = [line.split(maxsplit=4) for line in many(["1"], 8)]
    path = write(tmp_path, [f"{c} {kind} {int(s) + starts} {int(e) + ends} {rest}" for c, kind, s, e, rest in rows])
    with pytest.raises(InputError, match=re.escape(would)):
        check_agreement(by_chrom(read_annotation(path)), reference, path)


def test_accessions_of_organelles_without_a_report(tmp_path: Path) -> None:
    lines = [*many(["1"], 8), *many(["NC_000932.1"], 8)]
    annotation = read_annotation(write(tmp_path, lines))
    changes = {"cNC_000932.1": lambda tokens: tokens[::-1]}
    with pytest.raises(InputError, match="--aliases with NCBI's assembly report says which accessions are theirs"):
        check_agreement(by_chrom(annotation), genome(tmp_path, annotation, **changes), tmp_path / "a.gff")


def test_strands_of_another_kind_and_names_of_columns(tmp_path: Path) -> None:
    path = write(tmp_path, ["seqid kind start end strand attributes", *many(["1"], 8)])
    assert len(read_annotation(path).genes) == 8
    genes = [f'1 gene {start} {start + 50} 1 gene_id "g{start}"' for start in range(100, 2000, 100)]
    path = write(tmp_path, [*genes, *(line.replace("gene_id", "transcript_id 't'; gene_id") for line in genes)])
    with pytest.raises(InputError, match=r"19 of 19 genes .* column 7 is the strand, \+ or -"):
        read_annotation(path)


def test_a_chromosome_that_lacks_though_the_table_has_it(tmp_path: Path) -> None:
    (tmp_path / "aliases.tsv").write_text("chr1\tNC_000001.11\nchrY\tNC_000024.10\n")
    contigs = Contigs.of(tmp_path / "aliases.tsv")
    path = write(tmp_path, [*many(["NC_000001.11"], 8), *many(["NC_000024.10"], 2)])
    annotation = read_annotation(path, contigs=contigs)
    reference = replace(genome(tmp_path, read_annotation(write(tmp_path, many(["1"], 8), "1.gff"))), contigs=contigs)
    with pytest.raises(InputError, match=r"aliases\.tsv has other names of them, but the FASTA has none of these"):
        check_agreement(by_chrom(annotation), reference, path, names=annotation.names)
