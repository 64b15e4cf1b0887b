"""`metalayer gene`: a gene by name, its sites of base and meta beside each other, on both strands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.base.pwm import PwmModel
from metalayer.errors import InputError
from metalayer.genome import Gene, Interval, decode, reverse_complement
from metalayer.inference import Predictor
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.sites.calling import THRESHOLD, call_sites
from metalayer.variants.calls import Opened, Sources, opened
from metalayer.variants.genes import Genes, GeneSites
from metalayer.variants.whole_gene import find_genes, score_gene, sites_of
from tests.releases import make_bundle


@pytest.fixture(scope="module")
def files(simulation: Path) -> dict[str, Path]:
    return {name: simulation / "genome" / f"simulated.{end}" for name, end in (("fasta", "fa"), ("annotation", "gff3"))}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


def first_of(loaded: Opened, strand: str) -> GeneSites:
    return next(one for one in loaded.genes if one.gene.strand == strand)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_scores_are_those_of_the_models_with_real_letters_around(
    files: dict[str, Path], model: Path, strand: str
) -> None:
    with opened(Sources(**files, bases=["pwm"], model=model, device="cpu")) as loaded:
        one = first_of(loaded, strand)
        found = score_gene(one, loaded)
        span, pwm = one.gene.interval, PwmModel()
        letters = loaded.letters.tokens(span.chrom, span.start - pwm.flank_bp, span.end + pwm.flank_bp)
        letters = letters if strand == "+" else reverse_complement(letters)
        text, flank = decode(letters), pwm.flank_bp
        base = pwm.score(text[flank:-flank], text[:flank], text[-flank:])
        meta = Predictor.load(model, "cpu").predict_tracks(text[flank:-flank], base)
        for name, expected in (("base", base), ("meta", meta)):
            ascending = expected if strand == "+" else expected[::-1]
            np.testing.assert_array_equal(found.stretch.scores[name], ascending[:, :2])
        shown = sites_of(found, THRESHOLD)
        annotated = {(site.position, site.kind) for site in shown if site.annotated}
        assert annotated == {
            (at, kind) for kind, there in ((DONOR, one.donors), (ACCEPTOR, one.acceptors)) for at in there
        }
        called = call_sites(base, THRESHOLD)
        genomic = span.start + called.positions if strand == "+" else span.end - 1 - called.positions
        expected_calls = set(zip(genomic.tolist(), called.kinds.tolist(), strict=True))
        assert {(site.position, site.kind) for site in shown if "base" in site.called_by} == expected_calls
        assert all(site.motif == ("GT" if site.kind == DONOR else "AG") for site in shown if site.annotated)
        places = [site.position for site in shown]
        assert places == sorted(places, reverse=strand == "-")


def sites(gene_id: str, name: str | None, start: int, strand: str = "+") -> GeneSites:
    none = np.empty(0, np.int64)
    return GeneSites(Gene(gene_id, Interval("1", start, start + 100), strand, gene_name=name), none, none, none)


GENES = Genes(
    [
        sites("ENSG00000182606.15", "TRAK1", 100),
        sites("gene-BRCA2", "BRCA2", 1000),
        sites("A1", "TWIN", 2000),
        sites("A2", "TWIN", 3000, "-"),
        sites("A3", None, 3050),
    ]
)


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("TRAK1", [100]),
        ("trak1", [100]),
        ("ENSG00000182606", [100]),
        ("ENSG00000182606.15", [100]),
        ("ENSG00000182606.2", [100]),
        ("BRCA2", [1000]),
        ("gene:BRCA2", [1000]),
        ("A2", [3000]),
        ("chr1:50-2k", [100, 1000]),
        ("1:3,001-3,090:-", [3000]),
        ("1:3,001-3,090", [3000, 3050]),
    ],
)
def test_genes_by_name_and_place(text: str, starts: list[int]) -> None:
    assert [one.gene.interval.start for one in find_genes(text, GENES)] == starts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TRAK2", "no gene of that name or id on a contig of the FASTA; did you mean TRAK1?"),
        ("ZZZ", "there are A1, A2, "),
        ("TWIN", r"2 genes have this name, A1 \(1:2,001-2,100:\+\), A2 \(1:3,001-3,100:-\); give an id"),
        ("chr1:5000-6000", "no gene of the annotation lies there"),
        ("chr1:6000-5000", "needed is CONTIG:FIRST-LAST"),
    ],
)
def test_what_names_no_gene(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_genes(text, GENES)


def asked(files: dict[str, Path], *arguments: object) -> list[str]:
    given = ["--fasta", files["fasta"], "--annotation", files["annotation"], "--base", "pwm"]
    return list(map(str, ["gene", *arguments, *given]))


def test_the_command_and_its_files(
    files: dict[str, Path], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(Sources(**files, bases=["pwm"])) as loaded:
        gene = first_of(loaded, "-")
        contig = loaded.letters.names[gene.gene.interval.chrom]
    name, outputs = gene.gene.gene_id, [tmp_path / f"a.{end}" for end in ("bed", "gff3", "parquet")]
    options = [
        "--model",
        model,
        "--plot",
        tmp_path / "a.png",
        *(part for file in outputs for part in ("--output", file)),
    ]
    assert cli.main(asked(files, name, *options)) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.split("wrote")[0].splitlines())) <= 100
    total = len(gene.donors) + len(gene.acceptors)
    assert f"of {total} annotated sites" in printed
    assert all(f"wrote   {file}" in printed for file in [*outputs, tmp_path / "a.png"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    table = pl.read_parquet(tmp_path / "a.parquet")
    assert len(table) == len(gene.gene)
    assert table["contig"].unique().to_list() == [contig]
    assert cli.main(asked(files, name, "--model", model, "--json")) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    by_place: dict[int, dict[str, Any]] = {row["position"]: row for row in table.to_dicts()}
    assert sum(site["annotated"] for site in shown["sites"]) == total
    for site in shown["sites"]:
        for system in ("base", "meta"):
            assert site[system] == by_place[site["position"]][f"{system}_{site['kind']}"]
    called = {(site["position"], site["kind"]) for site in shown["sites"] if site["called_by"]}
    lines = [line.split("\t") for line in (tmp_path / "a.bed").read_text().splitlines()]
    assert {(int(line[2]), line[3]) for line in lines} == called
    assert (tmp_path / "a.gff3").read_text().count("\tmRNA\t") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("NOPE",), "no gene of that name or id"),
        (("chr1:1-60k", "--plot", "a.png"), "--plot draws one gene"),
        (("SIM0001", "--plot", "a.txt"), "needed is a name in .png, .svg or .pdf"),
        (("SIM0001", "--output", "a.txt"), "needed is one each of .bed or .bed.gz, .gff3, .parquet"),
        (("SIM0001", "--output", "a.bed", "--output", "b.bed"), "needed is one each of"),
    ],
)
def test_bad_input_writes_nothing(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(asked(files, *arguments)) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
