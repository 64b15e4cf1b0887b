"""`metalayer export`: scores of whole genes as BigWig, bedGraph and Parquet, read again by who reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyBigWig
import pysam
import pytest

from metalayer import cli
from metalayer.base.annotation import read_annotation
from metalayer.errors import ArtifactError, InputError
from metalayer.formats.written import BedGraphFile, BigWigFile, runs
from metalayer.genome import Interval
from metalayer.regions import parse_region
from metalayer.sites.calling import THRESHOLD
from metalayer.sites.stretch import BASE, META, Stretch
from metalayer.workflows.export import Outputs, export, lengths_of
from metalayer.workflows.score_genes import score_genes
from metalayer.workflows.stretches import WholeGeneScores, merged
from tests.releases import make_bundle

NAN = float("nan")


@pytest.fixture(scope="module")
def scores(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base and meta scores of the genes of a chromosome."""
    folder = tmp_path_factory.mktemp("scores")
    output = folder / "scores.parquet"
    base = sorted((simulation / "nucleotide_scores").glob("pwm_*.parquet"))[0]
    score_genes(base, make_bundle(folder / "model"), output)
    return output


@pytest.fixture(scope="module")
def sizes(scores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lengths of contigs: that of the genes, and two that nothing is known of."""
    contig, end = pl.read_parquet(scores).select("contig", "position").max().row(0)
    path = tmp_path_factory.mktemp("sizes") / "genome.chrom.sizes"
    path.write_text(f"chrEmpty\t5000\n{contig}\t{end + 999}\nchr2_alt\t70\n")
    return path


def expected(scores: Path, strand: str, column: str) -> pl.DataFrame:
    rows = pl.read_parquet(scores).filter(pl.col("strand") == strand)
    return rows.group_by("position").agg(pl.col(column).max()).sort("position")


def tracks() -> Iterator[tuple[str, str, str]]:
    for system in (BASE, META):
        for site in ("donor", "acceptor"):
            for strand, name in (("+", "plus"), ("-", "minus")):
                yield f"{system}_{site}_{name}", strand, f"base_{site}" if system == BASE else site


def test_every_number_is_where_it_was_and_no_other(scores: Path, sizes: Path, tmp_path: Path) -> None:
    bigwig, bedgraph, table = tmp_path / "bw", tmp_path / "bg", tmp_path / "all.parquet"
    done = export(scores, lengths_of(sizes), Outputs(bigwig=bigwig, bedgraph=bedgraph, parquet=table))
    assert len(done.files) == 17
    whole = pl.read_parquet(table)
    assert done.positions == len(whole) == sum(len(expected(scores, strand, "donor")) for strand in "+-")
    (contig,) = pl.read_parquet(scores)["contig"].unique()
    for name, strand, column in tracks():
        right = expected(scores, strand, column)
        at, values = right["position"].to_numpy() - 1, right[column].to_numpy()
        with pyBigWig.open(str(bigwig / f"{name}.bw")) as file:
            lengths = file.chroms()
            assert lengths.keys() == {contig, "chrEmpty", "chr2_alt"}
            found = np.array(file.values(contig, 0, lengths[contig]), np.float32)
            np.testing.assert_array_equal(found[at], values)
            assert np.isnan(np.delete(found, at)).all()
            assert file.stats(contig, 0, lengths[contig], type="max") == [pytest.approx(values.max())]
            assert file.values("chrEmpty", 0, 3) == pytest.approx([NAN] * 3, nan_ok=True)
        lines = pl.read_csv(
            bedgraph / f"{name}.bedGraph",
            separator="\t",
            has_header=False,
            schema={"contig": pl.String, "start": pl.Int64, "end": pl.Int64, "value": pl.Float32},
        )
        assert (lines["start"].to_numpy()[1:] >= lines["end"].to_numpy()[:-1]).all()
        spread = np.repeat(lines["value"].to_numpy(), (lines["end"] - lines["start"]).to_numpy())
        np.testing.assert_array_equal(spread, values)
        np.testing.assert_array_equal(
            np.concatenate([np.arange(a, b) for a, b in lines.select("start", "end").iter_rows()]), at
        )
        beside = whole.filter(pl.col("strand") == strand)
        np.testing.assert_array_equal(beside["position"].to_numpy() - 1, at)
        np.testing.assert_array_equal(beside[name.rpartition("_")[0]].to_numpy(), values)


def stretch(start: int, values: list[float], strand: str = "+", chrom: str = "1", name: str = "g") -> Stretch:
    column = np.array(values, np.float32)
    return Stretch(chrom, strand, start, {META: np.stack([column, column / 2], axis=1)}, (name,))


def test_genes_that_overlap_have_the_highest_of_theirs() -> None:
    given = [
        stretch(10, [0.1, 0.2, NAN, NAN], name="a"),
        stretch(12, [0.5], strand="-", name="b"),
        stretch(12, [0.3, NAN, 0.9], name="c"),
        stretch(15, [0.7], name="d"),
        stretch(3, [0.6], chrom="2", name="e"),
    ]
    found = {(one.chrom, one.strand, one.start): one for one in merged(given)}
    assert found.keys() == {("1", "+", 10), ("1", "-", 12), ("1", "+", 15), ("2", "+", 3)}
    joined = found["1", "+", 10]
    assert joined.names == ("a", "c")
    np.testing.assert_array_equal(joined.scores[META][:, 0], np.array([0.1, 0.2, 0.3, NAN, 0.9], np.float32))
    with pytest.raises(ArtifactError, match="gene b stands before genes that lie before it"):
        list(merged([stretch(10, [0.1], name="a"), stretch(4, [0.1], name="b")]))


def test_a_base_without_a_score_has_none(tmp_path: Path) -> None:
    values = np.array([NAN, 0.0, 0.25, NAN, NAN, 1.0], np.float32)
    assert runs(values) == [(1, 3), (5, 6)]
    for file in (BigWigFile(tmp_path / "a.bw", {"c": 100}), BedGraphFile(tmp_path / "a.bedGraph", {"c": 100})):
        file.add("c", 40, values)
        file.close()
    with pyBigWig.open(str(tmp_path / "a.bw")) as file:
        assert file.intervals("c") == ((41, 42, 0.0), (42, 43, 0.25), (45, 46, 1.0))
    assert (tmp_path / "a.bedGraph").read_text() == "c\t41\t42\t0.0\nc\t42\t43\t0.25\nc\t45\t46\t1.0\n"


def test_scores_of_a_base_model_alone(simulation: Path, sizes: Path, scores: Path, tmp_path: Path) -> None:
    base = sorted((simulation / "nucleotide_scores").glob("pwm_*.parquet"))[0]
    assert WholeGeneScores(base).systems == (BASE,)
    export(base, lengths_of(sizes), Outputs(parquet=tmp_path / "base.parquet"))
    found = pl.read_parquet(tmp_path / "base.parquet")
    assert found.columns == ["contig", "strand", "position", "base_donor", "base_acceptor"]
    for strand in "+-":
        right, there = expected(scores, strand, "base_donor"), found.filter(pl.col("strand") == strand)
        assert there["base_donor"].to_list() == right["base_donor"].to_list()


def test_genes_and_regions(scores: Path, sizes: Path, tmp_path: Path) -> None:
    genes = (
        pl.read_parquet(scores)
        .group_by("gene_id", "contig", "strand")
        .agg(pl.col("position").min().alias("start"), pl.len())
    )
    gene_id, contig, strand, start, length = genes.sort("start").row(0)
    done = export(scores, lengths_of(sizes), Outputs(parquet=tmp_path / "a.parquet"), genes=[f"gene:{gene_id}"])
    assert (done.genes, done.positions) == (1, length)
    for text, count in (
        (f"{contig}:{start + 10}-{start + 19}", 10),
        (f"{contig.removeprefix('chr')}:{start + 10}-{start + 19}:{strand}", 10),
    ):
        done = export(scores, lengths_of(sizes), Outputs(parquet=tmp_path / "a.parquet"), regions=[parse_region(text)])
        assert done.positions == count
        assert pl.read_parquet(tmp_path / "a.parquet")["position"].to_list() == list(range(start + 10, start + 20))


@pytest.mark.parametrize(
    ("text", "strands", "place"),
    [
        ("chr3:42.6M-42.61M", "+-", Interval("chr3", 42_599_999, 42_610_000)),
        ("chr3:1-1:-", "-", Interval("chr3", 0, 1)),
        ("HLA-A*01:01:1,000-2k:+", "+", Interval("HLA-A*01:01", 999, 2000)),
    ],
)
def test_regions_as_text(text: str, strands: str, place: Interval) -> None:
    assert parse_region(text) == (strands, place)


@pytest.mark.parametrize(
    "text", ["chr3", "chr3:5-4", "chr3:0-4", "chr3:1.5-4", "chr3:1-4:x", "chr3:-4", "chr3:1..2k-4"]
)
def test_what_is_no_region(text: str) -> None:
    with pytest.raises(InputError, match=r"needed is CONTIG:FIRST-LAST, 1-based"):
        parse_region(text)


@pytest.mark.parametrize(
    ("sizes_text", "options", "words"),
    [
        ("chr1\t10\n", (), "of the same build?"),
        ("chrOther\t9999999\n", (), "is not in --sizes"),
        ("chr1 10\n", (), "needed is a name, a tab and a length"),
        ("", (), "no contigs; `samtools faidx FASTA`"),
        (None, ("--gene", "NOPE"), "--gene NOPE: not in"),
        (None, ("--region", "chrEmpty:1-9"), "nothing to write: no gene of it lies there"),
    ],
)
def test_bad_input_writes_nothing(
    scores: Path,
    sizes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sizes_text: str | None,
    options: tuple[str, ...],
    words: str,
) -> None:
    contig = pl.read_parquet(scores)["contig"][0]
    given = tmp_path / "given.sizes"
    given.write_text(sizes.read_text() if sizes_text is None else sizes_text.replace("chr1", contig))
    out = tmp_path / "out"
    arguments = ["export", str(scores), "--sizes", str(given), "--bigwig", str(out), "--bedgraph", f"{out}g", *options]
    assert cli.main(arguments) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.sizes"]


def test_other_files_and_no_output(
    scores: Path, sizes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(scores), "--sizes", str(sizes)]) == 2
    assert "nothing to write: give --bigwig DIR" in capsys.readouterr().err
    for options, words in (
        (("--bed", "a.txt"), "the name must end in .bed or .bed.gz"),
        (("--gff3", "a.gff3", "--transcripts", "0"), "--transcripts: given 0; needs 1 or more"),
    ):
        assert cli.main(["export", str(scores), "--sizes", str(sizes), *options]) == 2
        assert words in capsys.readouterr().err
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    assert cli.main(["export", str(tmp_path / "other.parquet"), "--sizes", str(sizes), "--parquet", "x.parquet"]) == 2
    assert "no scores of whole genes; they are what `metalayer score` writes" in capsys.readouterr().err


def test_a_folder_with_files_of_others_is_left_alone(scores: Path, sizes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for _ in range(2):  # our own are replaced
        export(scores, lengths_of(sizes), Outputs(bigwig=folder))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already, with other files"):
        export(scores, lengths_of(sizes), Outputs(bigwig=folder))
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(list(folder.iterdir())) == 9


def test_called_sites_are_at_their_own_bases(scores: Path, sizes: Path, tmp_path: Path) -> None:
    plain, packed = tmp_path / "sites.bed", tmp_path / "sites.bed.gz"
    export(scores, lengths_of(sizes), Outputs(bed=plain))
    done = export(scores, lengths_of(sizes), Outputs(bed=packed))
    assert [file.name for file in done.files] == ["sites.bed.gz", "sites.bed.gz.tbi"]
    lines = [line.split("\t") for line in plain.read_text().splitlines()]
    assert len(lines) > 20
    with pysam.TabixFile(str(packed)) as file:
        assert [row.split("\t") for row in file.fetch(lines[0][0])] == lines
        first = file.fetch(lines[0][0], int(lines[0][1]), int(lines[0][2]))
        assert next(first).split("\t") == lines[0]
    assert [int(line[1]) for line in lines] == sorted(int(line[1]) for line in lines)
    for column, site in (("base_donor", "donor"), ("base_acceptor", "acceptor")):
        for strand in "+-":
            right = expected(scores, strand, column)
            values = dict(zip(right["position"].to_list(), right[column].to_list(), strict=True))
            high = {at for at, value in values.items() if value >= THRESHOLD}
            found = {
                int(line[2]): float(line[9])
                for line in lines
                if line[3] == site and line[5] == strand and "base" in line[11].split(",")
            }
            assert found.keys() <= high
            assert all(values[at] == pytest.approx(value, abs=1e-5) for at, value in found.items())
            near = {at for at in high for away in (-2, -1, 0, 1, 2) if at + away in found}
            assert near == high  # each that is high is called, or lies beside one that is
    for line in lines:
        assert int(line[2]) - int(line[1]) == 1
        shown = [float(value) for value, name in zip(line[9:11], (BASE, META), strict=True) if name in line[11]]
        assert int(line[4]) == round(1000 * max(shown))


def test_exons_are_read_again_as_an_annotation(scores: Path, sizes: Path, tmp_path: Path) -> None:
    path = tmp_path / "exons.gff3"
    export(scores, lengths_of(sizes), Outputs(gff3=path, transcripts=2))
    ends = pl.col("position").min(), pl.col("position").max().alias("end")
    genes = pl.read_parquet(scores).group_by("gene_id").agg(*ends)
    bounds = {gene: (start - 1, end) for gene, start, end in genes.iter_rows()}
    found = {one.gene.gene_id: one for one in read_annotation(path).genes}
    assert found.keys() == bounds.keys()
    several = 0
    for gene_id, one in found.items():
        assert (one.gene.interval.start, one.gene.interval.end) == bounds[gene_id]
        for exons in one.exons.values():
            ordered = sorted(exons)
            assert (ordered[0][0], ordered[-1][1]) == bounds[gene_id]
            assert all(end < start for (_, end), (start, _) in pairwise(ordered))
            several += len(exons) > 2
    assert several > 5
    chances = [float(one) for one in re.findall(r"probability=([\d.e-]+)", path.read_text())]
    assert all(0 < chance <= 1 for chance in chances)


def test_exons_of_a_region_are_those_of_whole_genes(scores: Path, sizes: Path, tmp_path: Path) -> None:
    export(scores, lengths_of(sizes), Outputs(gff3=tmp_path / "all.gff3"))
    first = next(line for line in (tmp_path / "all.gff3").read_text().splitlines() if "\tgene\t" in line).split("\t")
    places = [parse_region(f"{first[0]}:{at}-{at + 5}:{first[6]}") for at in (int(first[3]) + 9, int(first[3]) + 50)]
    export(scores, lengths_of(sizes), Outputs(gff3=tmp_path / "one.gff3"), regions=places)
    kept = (tmp_path / "one.gff3").read_text()
    assert kept.count("\tgene\t") == 1
    assert set(kept.splitlines()) <= set((tmp_path / "all.gff3").read_text().splitlines())
