"""Every SNV of a region: as those of a file, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.genome import Interval
from metalayer.variants import pictures, together
from metalayer.variants.genes import Genes
from metalayer.variants.letters import Letters
from metalayer.variants.notation import region_of
from metalayer.variants.pictures import draw, in_columns
from metalayer.variants.saturation import BASES, DeltaMap, Saturation
from metalayer.variants.scoring import Plan, Scorer
from tests import variant_genomes as made

TEXT = made.letters()
WITH_N = TEXT[:330] + "NN" + TEXT[332:]
REGION = "chr1:311-340"
"""Across the end of an exon, whose donor is the base 320."""


@pytest.fixture
def genome(tmp_path: Path) -> list[str]:
    fasta, gtf = made.write(tmp_path, WITH_N)
    return ["--fasta", str(fasta), "--annotation", str(gtf), "--base", "pwm", "--allow-introns"]


def run(genome: list[str], output: Path, *more: str) -> int:
    return cli.main(["variants", "--output", str(output), *genome, *more])


def test_every_snv_once_as_from_a_file(tmp_path: Path, genome: list[str]) -> None:
    snvs = [(at, alt) for at in range(310, 340) for alt in BASES if WITH_N[at] not in ("N", alt)]
    lines = [f"chr1\t{at + 1}\t.\t{WITH_N[at]}\t{alt}\t.\t.\t." for at, alt in snvs]
    assert len(lines) == 3 * 28
    given = tmp_path / "in.vcf"
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    given.write_text("\n".join(["##fileformat=VCFv4.2", "##contig=<ID=chr1,length=2000>", columns, *lines, ""]))
    assert run(genome, tmp_path / "file.vcf", str(given)) == 0
    assert run(genome, tmp_path / "region.vcf", "--saturate", REGION) == 0
    assert (tmp_path / "region.vcf").read_text() == (tmp_path / "file.vcf").read_text()
    for name in ("out.vcf.gz", "out.tsv", "out.parquet"):
        assert run(genome, tmp_path / name, "--saturate", REGION) == 0
    assert (tmp_path / "out.vcf.gz.tbi").exists()
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert list(zip(table["pos"] - 1, table["alt"], strict=True)) == snvs
    assert table["skipped"].null_count() == len(table)


def test_a_region_that_was_cut_off_goes_on(
    tmp_path: Path, genome: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(genome, tmp_path / "whole.vcf", "--saturate", REGION) == 0
    monkeypatch.setattr(together, "MOST_QUESTIONS", 10)
    answer, asked = Scorer.answer, list[int]()

    def counted(self: Scorer, plans: Sequence[Plan]) -> object:
        asked.append(len(plans))
        if len(asked) == 3:
            raise InputError("stopped")
        return answer(self, plans)

    monkeypatch.setattr(Scorer, "answer", counted)
    assert run(genome, tmp_path / "out.vcf", "--saturate", REGION) == 2
    assert run(genome, tmp_path / "out.vcf", "--saturate", REGION, "--plot", str(tmp_path / "out.png")) == 0
    assert asked[:4] == [10] * 4 and sum(asked) == 84 + 10
    assert (tmp_path / "out.vcf").read_bytes() == (tmp_path / "whole.vcf").read_bytes()
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_map_has_the_largest_change_of_each(
    tmp_path: Path, genome: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps: list[DeltaMap] = []
    monkeypatch.setattr("metalayer.workflows.variants.draw", lambda _, shown: maps.append(shown))
    output = tmp_path / "out.parquet"
    assert run(genome, output, "--saturate", REGION, "--plot", str(tmp_path / "out.png")) == 0
    (shown,) = maps
    assert shown.sites["donor"].tolist() == [319] and shown.sites["acceptor"].tolist() == []
    deltas = shown.deltas["pwm"].copy()
    for row in pl.read_parquet(output).iter_rows(named=True):
        values = [
            sign * row[f"{site}_{kind}_score"]
            for site in ("acceptor", "donor")
            for kind, sign in (("gain", 1), ("loss", -1))
        ]
        at = BASES.index(row["alt"]), row["pos"] - 311
        assert deltas[at] == pytest.approx(max(values, key=abs), abs=1e-6)
        deltas[at] = np.nan
    assert np.isnan(deltas).all(), "nothing where REF or N is"
    assert np.nanmin(shown.deltas["pwm"]) < -0.5


def test_the_picture_names_what_it_shows(tmp_path: Path, genome: list[str]) -> None:
    path = tmp_path / "out.svg"
    assert run(genome, tmp_path / "out.vcf", "--saturate", REGION, "--plot", str(path)) == 0
    text = path.read_text()
    for word in ("chr1:311-340", "pwm", "annotated donor", "gain (+) or loss"):
        assert word in text
    with Letters(Path(genome[1])) as letters:
        every = Saturation(letters, Interval("1", 200, 1700))
        shown = DeltaMap(every, Genes.read(Path(genome[3]), letters, Contigs(), allow_introns=True), ["toy"])
    draw(tmp_path / "empty.svg", shown)
    assert "a column shows the largest change of 2 positions" in (tmp_path / "empty.svg").read_text()


def test_columns_keep_the_largest_change() -> None:
    deltas = np.array([[0.1, -0.5, np.nan, 0.2, np.nan]], np.float32)
    values, several = in_columns(deltas, 3)
    assert several == 2
    assert values.tolist()[0][:2] == [-0.5, np.float32(0.2)] and np.isnan(values[0, 2])
    same, one = in_columns(deltas)
    assert one == 1 and np.array_equal(same, deltas, equal_nan=True)


def test_regions_as_text(tmp_path: Path, genome: list[str]) -> None:
    with Letters(Path(genome[1])) as letters:
        for text in ("chr1:1,001-2,000", "1:1001-2000", " chr1:1001-2000 "):
            assert region_of(text, letters) == Interval("1", 1000, 2000)
        for wrong, why in (
            ("chr1", "needed is CONTIG:FIRST-LAST"),
            ("chr9:1-5", "has no contig chr9"),
            ("chr1:9-5:+", "needed is CONTIG:FIRST-LAST"),
            ("chr1:1-2001", "chr1 has 2,000 nt"),
            ("chr1:1-5:-", "variants are of both strands; leave out :-"),
        ):
            with pytest.raises(InputError, match=why):
                region_of(wrong, letters)


def test_what_does_not_go_together(
    tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.vcf"
    for more, why in (
        ([], "one of both: a FILE of variants, or --saturate"),
        (["in.vcf", "--saturate", REGION], "one of both"),
        (["in.vcf", "--plot", "x.png"], "--plot draws the SNVs of a region"),
        (["--saturate", REGION, "--split"], "--split is for files"),
        (["--saturate", REGION, "--plot", "x.pdf"], "needed is a name in .png or .svg"),
    ):
        assert run(genome, output, *more) == 2
        assert why in capsys.readouterr().err
    monkeypatch.setattr(pictures, "LONGEST", 20)
    assert run(genome, output, "--saturate", REGION, "--plot", str(tmp_path / "x.png")) == 2
    assert "the region has 30 nt; at most 20 are drawn" in capsys.readouterr().err
