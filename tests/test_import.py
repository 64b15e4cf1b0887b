"""`metalayer import`: scores in every form that is read, what is refused, and what is written."""

from __future__ import annotations

import gzip
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.data.score_files import ScoreFile
from metalayer.errors import ConfigError, InputError, MetalayerError
from metalayer.formats import pieces
from metalayer.settings.sections import BaseConfig, ImportConfig
from metalayer.workflows import import_scores as module
from metalayer.workflows.base_run import base_run
from metalayer.workflows.import_scores import import_scores
from metalayer.workflows.kept_scores import KeptScores
from tests import foreign_scores as foreign

CHECKED = ("gene_id", "chrom", "strand", "position", "base", "donor_score", "acceptor_score", "label")


@pytest.fixture(scope="module")
def truth(simulation: Path) -> pl.DataFrame:
    return foreign.scores_in(simulation)


@pytest.fixture(scope="module")
def lengths(simulation: Path) -> dict[str, int]:
    return foreign.contig_lengths(simulation / "genome/simulated.fa")


@pytest.fixture
def bring(simulation: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Imports files over the simulated genome into `tmp_path / "out"`."""

    def bring(*files: Path, **options: Any) -> dict[str, Any]:
        genome = {"fasta": simulation / "genome/simulated.fa", "annotation": simulation / "genome/simulated.gff3"}
        given = {**genome, "base": "pwm", "output": tmp_path / "out", **options}
        return import_scores(ImportConfig(files=tuple(files), **given))

    return bring


def left_nothing(out: Path) -> bool:
    """No result; what a run that broke off goes on from is hidden."""
    return not out.exists() or not [path for path in out.rglob("*") if path.is_file() and ".import-" not in str(path)]


def same(ours: pl.DataFrame, theirs: pl.DataFrame, tolerance: float = 0.0) -> None:
    """Letters, labels, places and scores of all bases."""
    assert ours.select("gene_id", "position", "base", "label").equals(
        theirs.select("gene_id", "position", "base", "label")
    )
    for name in ("donor_score", "acceptor_score"):
        assert ours[name].null_count() == 0
        assert (ours[name].cast(pl.Float64) - theirs[name].cast(pl.Float64)).abs().max() <= tolerance
    rest = (ours["neither_score"].cast(pl.Float64) - theirs["neither_score"].cast(pl.Float64)).abs().max()
    assert rest <= 3 * tolerance + 2e-7


def as_table(scores: pl.DataFrame) -> pl.DataFrame:
    return scores.select(
        pl.col("chrom").alias("seqnames"),
        pl.col("position").alias("where"),
        "strand",
        pl.col("donor_score").alias("d"),
        pl.col("acceptor_score").alias("a"),
    )


def bigwig_sheet(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
    lines = ["path\tclass\tstrand"]
    for number, path in enumerate(foreign.bigwigs(folder, scores, lengths)):
        site, word = path.stem.split("_")
        path.rename(folder / f"{number}.bw")
        lines.append(f"{number}.bw\t{site}\t{'+' if word == 'plus' else '-'}")
    (folder / "sheet.tsv").write_text("\n".join(lines) + "\n")
    return [folder / "sheet.tsv"]


def gz(paths: list[Path]) -> list[Path]:
    packed = [path.with_name(path.name + ".gz") for path in paths]
    for path, target in zip(paths, packed, strict=True):
        target.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def csv(folder: Path, scores: pl.DataFrame, **options: Any) -> list[Path]:
    folder.mkdir(exist_ok=True)
    as_table(scores).write_csv(folder / "t.csv", **options)
    return [folder / "t.csv"]


def npz(folder: Path, scores: pl.DataFrame) -> list[Path]:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "a.npz", **{gene["gene_id"][0]: foreign.spliceai_array(gene) for gene in foreign.genes(scores)})
    return [folder / "a.npz"]


def npy_sheet(folder: Path, scores: pl.DataFrame) -> list[Path]:
    """Each gene with some bases more, at a place of the genome; some (1, L, 3), some (3, L), some in genomic order."""
    folder.mkdir(exist_ok=True)
    lines = ["path,chrom,start,end,strand,sense"]
    for number, gene in enumerate(foreign.genes(scores)):
        array = foreign.spliceai_array(gene)
        strand, sense = gene["strand"][0], "genome" if number % 4 == 3 else "transcript"
        if sense == "genome" and strand == "-":
            array = array[::-1]
        array = (array, array[None], array.T, array)[number % 4]
        np.save(folder / f"{number}.npy", array)
        place = (gene["chrom"][0], gene["position"][0], gene["position"][-1])
        lines.append(",".join(map(str, (f"{number}.npy", *place, strand, sense))))
    (folder / "places.csv").write_text("\n".join(lines) + "\n")
    return [folder / "places.csv"]


def h5(folder: Path, scores: pl.DataFrame, *, sheet: bool = True) -> list[Path]:
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "a.h5", "w") as file:
        for gene in foreign.genes(scores):
            file[f"{gene['chrom'][0]}/{gene['gene_id'][0].removeprefix('gene-')}"] = foreign.spliceai_array(gene)
    lines = ["path\tkey\tgene_id"]
    if not sheet:
        return [folder / "a.h5"]
    for gene in foreign.genes(scores):
        gene_id = gene["gene_id"][0].removeprefix("gene-")
        lines.append(f"a.h5\t{gene['chrom'][0]}/{gene_id}\t{gene_id}")
    (folder / "places.tsv").write_text("\n".join(lines) + "\n")
    return [folder / "places.tsv"]


def original_tsv(folder: Path, scores: pl.DataFrame) -> list[Path]:
    """Of the original base layer: `position` counts within the gene."""
    folder.mkdir(exist_ok=True)
    number = pl.int_range(1, pl.len() + 1).over("gene_id").alias("position")
    frame = scores.with_columns(pl.col("position").alias("genomic_position")).with_columns(number)
    columns = ("gene_id", "chrom", "strand", "position", "genomic_position")
    frame.select(*columns, pl.col("^.*_score$")).write_csv(folder / "nucleotide_scores.tsv", separator="\t")
    return [folder / "nucleotide_scores.tsv"]


FORMS: dict[str, Any] = {
    "bigwig by names": foreign.bigwigs,
    "bigwig by sheet": bigwig_sheet,
    "bedgraph": lambda f, s, _: foreign.bedgraphs(f, s),
    "bedgraph with blanks, packed": lambda f, s, _: gz(foreign.bedgraphs(f, s, " ")),
    "bigwig and bedgraph": lambda f, s, n: foreign.bigwigs(f, s, n)[:2] + foreign.bedgraphs(f, s)[2:],
    "npz by genes": lambda f, s, _: npz(f, s),
    "npy by places": lambda f, s, _: npy_sheet(f, s),
    "h5 by sheet": lambda f, s, _: h5(f, s),
    "h5 by genes": lambda f, s, _: h5(f, s, sheet=False),
    "predict.h5": lambda f, s, n: [foreign.predict_h5(f, s, n)],
    "original tsv": lambda f, s, _: original_tsv(f, s),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(
    form: str, truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    manifest = bring(*FORMS[form](tmp_path / "in", truth, lengths), build="GRCh38")
    same(foreign.scores_in(tmp_path / "out"), truth)
    assert manifest["genes"] == truth["gene_id"].n_unique()
    assert manifest["genes_not_written"] == {} and manifest["genes_incomplete"] == 0
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({}, ("chrom=seqnames", "position=where", "donor=d", "acceptor=a")),
        ({"separator": "\t"}, ("position=where", "donor=d", "acceptor=a")),
        ({"separator": ";", "quote_style": "non_numeric"}, ("position=where", "donor=d", "acceptor=a")),
    ],
)
def test_tables_by_names_of_columns(
    options: dict[str, Any],
    columns: tuple[str, ...],
    truth: pl.DataFrame,
    tmp_path: Path,
    bring: Callable[..., dict[str, Any]],
) -> None:
    bring(*csv(tmp_path / "in", truth, **options), columns=columns)
    same(foreign.scores_in(tmp_path / "out"), truth)


def test_parquet_and_positions_from_0(
    truth: pl.DataFrame, tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    as_table(truth).with_columns(pl.col("where") - 1).write_parquet(tmp_path / "t.parquet")
    names = ("start=where", "donor=d", "acceptor=a")
    bring(tmp_path / "t.parquet", columns=names)
    same(foreign.scores_in(tmp_path / "out"), truth)


def test_our_own_files_come_back(
    simulation: Path, truth: pl.DataFrame, tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    manifest = bring(*sorted(simulation.glob("nucleotide_scores/*.parquet")), base="again")
    again = foreign.scores_in(tmp_path / "out", "again")
    assert again.select(truth.columns).equals(truth)
    assert any("labels are not used" in note for note in manifest["notes"])


def test_a_base_layer_pass_by_way_of_bigwig(
    simulation: Path, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    """What is read from a pass and from the BigWig of its scores is one canonical file, and the tree is the same."""
    genome = {"fasta": simulation / "genome/simulated.fa", "annotation": simulation / "genome/simulated.gff3"}
    base_run(BaseConfig(model="pwm", output=tmp_path / "pass", build="GRCh38", **genome))
    passed = foreign.scores_in(tmp_path / "pass")
    bring(*foreign.bigwigs(tmp_path / "in", passed, lengths), build="GRCh38")
    out = tmp_path / "out"
    assert (out / "genes.tsv").read_bytes() == (tmp_path / "pass/genes.tsv").read_bytes()
    names = [sorted(path.name for path in root.glob("nucleotide_scores/*")) for root in (out, tmp_path / "pass")]
    assert names[0] == names[1]
    stores = []
    for root in (out, tmp_path / "pass"):
        found = ScoreFile.read(sorted(root.glob("nucleotide_scores/*")), tmp_path / f"{root.name}.parquet", {})
        assert found.store.genome_build == "GRCh38"
        stores.append(found.store)
    assert list(stores[0].genes()) == list(stores[1].genes())
    for gene_id in stores[0].genes():
        ours, theirs = stores[0].read(gene_id), stores[1].read(gene_id)
        assert np.array_equal(ours.tokens, theirs.tokens) and np.array_equal(ours.labels, theirs.labels)
        assert np.array_equal(ours.scores[:, :2], theirs.scores[:, :2])
        assert np.abs(ours.scores - theirs.scores).max() <= 2e-7


MOVES: dict[str, tuple[Any, str]] = {
    "one base late": (1, "-1"),
    "one base early, as 1-based read as 0-based": (-1, "+1"),
    "on intron bases": (
        {("donor", "+"): 1, ("donor", "-"): -1, ("acceptor", "+"): -1, ("acceptor", "-"): 1},
        "donor=-1 acceptor=+1",
    ),
    "donors late": ({("donor", "+"): 2, ("donor", "-"): -2}, "donor=-2"),
    "acceptors early": ({("acceptor", "+"): -1, ("acceptor", "-"): 1}, "acceptor=+1"),
    "one base in transcript direction": (
        {("donor", "+"): 1, ("donor", "-"): -1, ("acceptor", "+"): 1, ("acceptor", "-"): -1},
        "donor=-1 acceptor=-1",
    ),
}


@pytest.mark.parametrize("mistake", MOVES)
def test_a_shift_is_named_and_done(
    mistake: str,
    truth: pl.DataFrame,
    lengths: dict[str, int],
    tmp_path: Path,
    bring: Callable[..., dict[str, Any]],
) -> None:
    moved, option = MOVES[mistake]
    files = foreign.bigwigs(tmp_path / "in", truth, lengths, moved)
    with pytest.raises(InputError) as refused:
        bring(*files)
    assert str(refused.value).endswith(f"give the same command with --shift {option}"), refused.value
    assert not (tmp_path / "out").exists()
    bring(*files, shift=tuple(option.split()))
    same(foreign.scores_in(tmp_path / "out"), truth)


def test_a_shift_that_is_wrong_is_named_as_the_sum(
    truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    files = foreign.bigwigs(tmp_path / "in", truth, lengths, 1)
    with pytest.raises(InputError, match=r"with --shift -1$"):
        bring(*files, shift=("2",))
    files = foreign.bigwigs(tmp_path / "in", truth, lengths)
    with pytest.raises(InputError, match=r"with no --shift$"):
        bring(*files, shift=("donor=2",))


def swapped(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
    paths = foreign.bigwigs(folder, scores, lengths)
    for word in ("plus", "minus"):
        (folder / f"donor_{word}.bw").rename(folder / "x.bw")
        (folder / f"acceptor_{word}.bw").rename(folder / f"donor_{word}.bw")
        (folder / "x.bw").rename(folder / f"acceptor_{word}.bw")
    return paths


def turned(folder: Path, scores: pl.DataFrame, _: dict[str, int]) -> list[Path]:
    """Transcript sense, where genomic order is said."""
    folder.mkdir()
    lines = ["path\tkey\tgene_id\tsense"]
    lines += [f"a.npz\t{gene}\t{gene}\tgenome" for gene in scores["gene_id"].unique(maintain_order=True)]
    (folder / "s.tsv").write_text("\n".join(lines) + "\n")
    npz(folder, scores)
    return [folder / "s.tsv"]


def shuffled(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
    values = scores.select("donor_score", "acceptor_score", "neither_score").sample(fraction=1.0, shuffle=True, seed=1)
    return foreign.bigwigs(folder, scores.with_columns(values), lengths)


def strands_exchanged(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
    """Whole contigs, low scores between genes."""
    rng = np.random.default_rng(0)
    parts = []
    for chrom, length in lengths.items():
        for strand, other in (("+", "-"), ("-", "+")):
            own = scores.filter((pl.col("chrom") == chrom) & (pl.col("strand") == other))
            values = rng.random((2, length)) * 1e-4
            at = own["position"].to_numpy() - 1
            values[:, at] = own.select("donor_score", "acceptor_score").to_numpy().T
            columns = {"chrom": [chrom] * length, "strand": [strand] * length, "position": np.arange(1, length + 1)}
            parts.append(pl.DataFrame({**columns, "donor_score": values[0], "acceptor_score": values[1]}))
    return foreign.bigwigs(folder, pl.concat(parts), lengths)


CANNOT_BE: dict[str, tuple[Any, str]] = {
    "classes swapped": (swapped, "donor and acceptor look swapped in scores"),
    "minus genes turned round": (turned, "in the reverse order"),
    "scores of nothing": (shuffled, "nothing to do with the sites"),
    "strands exchanged": (strands_exchanged, "nothing to do with the sites"),
}


@pytest.mark.parametrize("mistake", CANNOT_BE)
def test_what_cannot_be_right_is_refused(
    mistake: str, truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    write, text = CANNOT_BE[mistake]
    with pytest.raises(InputError, match=text):
        bring(*write(tmp_path / "in", truth, lengths))
    assert left_nothing(tmp_path / "out")


def test_logits(
    truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    small = truth.with_columns(pl.col("^.*_score$").cast(pl.Float64).clip(1e-9, 1 - 1e-9))
    two = small.with_columns(
        (pl.col(name) / (1 - pl.col(name))).log().alias(name) for name in ("donor_score", "acceptor_score")
    )
    files = foreign.bigwigs(tmp_path / "in", two, lengths)
    with pytest.raises(InputError, match=r"donor scores from -20\.7.*: --logits"):
        bring(*files)
    assert left_nothing(tmp_path / "out")
    bring(*files, logits=True)
    same(foreign.scores_in(tmp_path / "out"), truth, 1e-5)
    three = small.with_columns(pl.col("^.*_score$").log() + 3)
    bring(*npz(tmp_path / "in", three), logits=True)
    same(foreign.scores_in(tmp_path / "out"), truth, 1e-5)
    with pytest.raises(InputError, match="probabilities already; leave out --logits"):
        bring(*npz(tmp_path / "in", truth), logits=True)


def test_missing_is_not_0(
    truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    """Genes without a score are listed, bases without one are empty, and readers leave their genes out."""
    names = truth["gene_id"].unique(maintain_order=True).to_list()
    site = pl.col("label") == "donor"
    there = truth.filter(pl.col("gene_id") != names[0]).with_columns(
        pl.when((pl.col("gene_id") == names[1]) & ~site).then(None).otherwise("donor_score").alias("donor_score")
    )
    files = foreign.bigwigs(tmp_path / "in", there, lengths)
    manifest = bring(*files)
    assert manifest["genes_not_written"] == {"no file has a score of its bases": 1}
    assert (manifest["genes"], manifest["genes_incomplete"]) == (len(names) - 1, 1)
    found = foreign.scores_in(tmp_path / "out").sort("gene_id", "position")
    assert found.select(CHECKED).equals(there.select(CHECKED).sort("gene_id", "position"))
    odd = found.filter(pl.col("donor_score").is_null())
    assert odd["neither_score"].null_count() == len(odd)
    lines = pl.read_csv(tmp_path / "out/import_pwm.tsv", separator="\t")
    assert sorted(lines["gene_id"]) == sorted(names)
    assert lines.filter(~pl.col("written"))["gene_id"].to_list() == [names[0]]
    assert lines.filter(pl.col("gene_id") == names[1])["reason"][0] == f"{len(odd):,} bases without donor score"
    read = ScoreFile.read(sorted((tmp_path / "out").glob("nucleotide_scores/*")), tmp_path / "canonical.parquet", {})
    assert read.found.genes_dropped == {names[1].removeprefix("gene-"): "null or NaN score"}
    filled = bring(*files, absent=0.001)
    assert filled["positions_filled"] == len(odd) and filled["genes_incomplete"] == 0
    assert foreign.scores_in(tmp_path / "out").filter(pl.col("gene_id") == names[1])["donor_score"].min() >= 0


def test_a_class_without_a_file_is_said(
    truth: pl.DataFrame, tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    manifest = bring(*[path for path in foreign.bedgraphs(tmp_path / "in", truth) if "donor.plus" in path.name])
    assert any("no file has acceptor scores of the strand +" in note for note in manifest["notes"])
    assert foreign.scores_in(tmp_path / "out")["acceptor_score"].null_count() == manifest["positions"]


def test_genes_that_overlap_share_scores_unless_they_have_their_own(
    tmp_path: Path, simulation: Path, truth: pl.DataFrame, lengths: dict[str, int], bring: Callable[..., dict[str, Any]]
) -> None:
    text = (simulation / "genome/simulated.gff3").read_text()
    first = next(foreign.genes(truth))
    gene_id, chrom, strand = first.select("gene_id", "chrom", "strand").row(0)
    low, high = int(first["position"][100]), int(first["position"][-100])
    new = [("gene", "ID=gene-INNER"), ("mRNA", "ID=rna-INNER;Parent=gene-INNER"), ("exon", "Parent=rna-INNER")]
    lines = [f"{chrom}\tx\t{kind}\t{low}\t{high}\t.\t{strand}\t.\t{fields}" for kind, fields in new]
    (tmp_path / "two.gff3").write_text(text + "\n".join(lines) + "\n")
    bring(*foreign.bigwigs(tmp_path / "in", truth, lengths), annotation=tmp_path / "two.gff3")
    found = foreign.scores_in(tmp_path / "out")
    inner, outer = (found.filter(pl.col("gene_id") == name) for name in ("gene-INNER", gene_id))
    assert inner["donor_score"].equals(outer.filter(pl.col("position").is_between(low, high))["donor_score"])
    half = first.filter(pl.col("position").is_between(low, high)).with_columns(
        pl.lit("INNER").alias("gene_id"),
        pl.col("donor_score", "acceptor_score") / 2,
        pl.lit(None).alias("neither_score"),
    )
    own = pl.concat([truth, half.select(truth.columns)], how="vertical_relaxed")
    own.drop("label", "base", "neither_score").write_parquet(tmp_path / "own.parquet")
    bring(tmp_path / "own.parquet", annotation=tmp_path / "two.gff3")
    found = foreign.scores_in(tmp_path / "out")
    assert found.filter(pl.col("gene_id") == "gene-INNER")["donor_score"].equals(half["donor_score"])
    assert found.filter(pl.col("gene_id") == gene_id)["donor_score"].equals(first["donor_score"])


@pytest.mark.parametrize("plain", [False, True], ids=["chr1", "1"])
def test_beds_of_openspliceai(
    plain: bool, truth: pl.DataFrame, tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    """Sites stand where they belong, on both strands; what lies past the end of a sequence is left out."""
    files = foreign.predict_beds(tmp_path / "in", truth, 0.02, past=7, plain=plain)
    manifest = bring(*files)
    found = foreign.scores_in(tmp_path / "out")
    for name in ("donor_score", "acceptor_score"):
        called = truth[name] > 0.02
        assert (found[name].is_not_null() == called).all()
        assert (found[name] - truth[name]).abs().max() <= 1e-6
    notes = "\n".join(manifest["notes"])
    assert "moved by +1 in transcript direction" in notes and "its threshold was about 0.02" in notes
    assert f"{7 * manifest['genes']:,} scores lie past the end of their sequence: left out" in notes
    assert manifest["genes_incomplete"] == manifest["genes"]


def test_beds_of_openspliceai_of_whole_contigs(
    truth: pl.DataFrame, tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    """Without an annotation its contigs are called `chr1:+`; in pieces, `chr1:1-2000(.)`, a base counts once."""
    plus = truth.filter((pl.col("strand") == "+") & (pl.col("donor_score") > 0.02))
    cut = int(plus.filter(pl.col("chrom") == plus["chrom"][0])["position"].median() or 0)
    lines = []
    for chrom, position, score in plus.select("chrom", "position", "donor_score").iter_rows():
        fields = [f"{chrom}:+", position - 1, position, f"{chrom}:+_Donor", f"{score:.6f}", "+", "absolute_coordinates"]
        if chrom == plus["chrom"][0]:
            pieces = [(1, cut + 50), (cut - 49, 10**6)]
            for low, high in pieces:
                if low <= position <= high:
                    mine = position <= cut if low == 1 else position > cut
                    value = score if mine else score / 2
                    name = f"{chrom}:{low}-{high}(.):+_Donor"
                    lines.append([chrom, position - 1, position, name, f"{value:.6f}", "+"])
        else:
            lines.append(fields)
    path = tmp_path / "donor_predictions.bed"
    path.write_text("\n".join("\t".join(map(str, line)) for line in lines) + "\n")
    bring(path)
    found = foreign.scores_in(tmp_path / "out").filter(pl.col("donor_score").is_not_null())
    both = found.join(plus, on=["gene_id", "position"], suffix="_true")
    assert len(both) == len(found) == len(plus)
    assert (both["donor_score"] - both["donor_score_true"]).abs().max() <= 1e-6


def test_genes_of_the_minus_strand_in_pieces_are_left_out(
    truth: pl.DataFrame, tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    files = foreign.predict_beds(tmp_path / "in", truth, 0.02)
    gene = next(gene for gene in foreign.genes(truth) if gene["strand"][0] == "-")
    gene_id, chrom = gene["gene_id"][0], gene["chrom"][0]
    start = int(gene["position"][0])
    extra = f"{chrom}\t{start}\t{start + 1}\t{gene_id} {chrom}:{start}-{start + 100}(-)_Donor\t0.500000\t-\n"
    donors = next(path for path in files if "donor" in path.name)
    donors.write_text(donors.read_text() + extra)
    manifest = bring(donors)
    assert any(f"left out ({gene_id})" in note for note in manifest["notes"])
    assert gene_id not in foreign.scores_in(tmp_path / "out")["gene_id"].unique().to_list()


def test_names_of_contigs(truth: pl.DataFrame, tmp_path: Path, bring: Callable[..., dict[str, Any]]) -> None:
    plain = as_table(truth).with_columns(pl.col("seqnames").str.replace("chr", ""))
    columns = ("position=where", "donor=d", "acceptor=a")
    plain.write_csv(tmp_path / "plain.csv")
    bring(tmp_path / "plain.csv", columns=columns)
    same(foreign.scores_in(tmp_path / "out"), truth)
    plain.with_columns(("NC_" + pl.col("seqnames")).alias("seqnames")).write_csv(tmp_path / "foreign.csv")
    with pytest.raises(InputError, match=r"its contigs are NC_.*--aliases"):
        bring(tmp_path / "foreign.csv", columns=columns)
    names = truth["chrom"].unique().to_list()
    (tmp_path / "aliases.tsv").write_text("".join(f"{one}\tNC_{one.removeprefix('chr')}\n" for one in names))
    bring(tmp_path / "foreign.csv", columns=columns, aliases=tmp_path / "aliases.tsv")
    same(foreign.scores_in(tmp_path / "out"), truth)


def test_another_mitochondrial_genome_is_another_contig(
    simulation: Path, truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    """UCSC's hg19 has a chrM of 16,571 bases, GRCh37's MT has 16,569."""
    fasta = tmp_path / "with_mt.fa"
    fasta.write_text((simulation / "genome/simulated.fa").read_text() + ">MT\n" + "ACGT" * 50 + "\n")
    text = (simulation / "genome/simulated.gff3").read_text()
    fields = (("gene", "ID=gene-MT1"), ("mRNA", "ID=rna-MT1;Parent=gene-MT1"), ("exon", "Parent=rna-MT1"))
    lines = [f"MT\tx\t{kind}\t1\t90\t.\t+\t.\t{rest}" for kind, rest in fields]
    (tmp_path / "with_mt.gff3").write_text(text + "\n".join(lines) + "\n")
    files = foreign.bigwigs(tmp_path / "in", truth, {**lengths, "chrM": 202})
    manifest = bring(*files, fasta=fasta, annotation=tmp_path / "with_mt.gff3")
    assert manifest["genes_not_written"] == {"no file has a score of its bases": 1}
    same(foreign.scores_in(tmp_path / "out"), truth)


def test_a_build_is_looked_at_before_anything_is_read(
    truth: pl.DataFrame,
    lengths: dict[str, int],
    tmp_path: Path,
    bring: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = foreign.bigwigs(tmp_path / "in", truth, lengths)
    other = foreign.bigwigs(tmp_path / "other", truth, {name: length + 1 for name, length in lengths.items()})
    monkeypatch.setattr(KeptScores, "put", lambda *_: pytest.fail("was read"))
    with pytest.raises(InputError, match="different genome builds"):
        bring(*files[:3], other[3])


class Bad:
    """Makers of files that are refused: each takes folder, scores and lengths."""

    @staticmethod
    def sheet(*lines: str) -> Any:
        def make(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
            foreign.bigwigs(folder, scores, lengths)
            (folder / "sheet.tsv").write_text("\n".join(lines) + "\n")
            return [folder / "sheet.tsv"]

        return make

    @staticmethod
    def table(change: Any, name: str = "t.csv") -> Any:
        def make(folder: Path, scores: pl.DataFrame, _: dict[str, int]) -> list[Path]:
            folder.mkdir()
            frame = scores.select("chrom", "position", "strand", "donor_score", "acceptor_score")
            change(frame).write_csv(folder / name)
            return [folder / name]

        return make

    @staticmethod
    def content(name: str, content: bytes) -> Any:
        def make(folder: Path, _scores: pl.DataFrame, _lengths: dict[str, int]) -> list[Path]:
            folder.mkdir()
            (folder / name).write_bytes(content)
            return [folder / name]

        return make


def twice(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
    paths = foreign.bigwigs(folder, scores, lengths)
    more = foreign.bedgraphs(folder / "more", scores.with_columns(pl.col("donor_score") / 2))
    return [*paths, more[0]]


def pickled(folder: Path, scores: pl.DataFrame, _: dict[str, int]) -> list[Path]:
    folder.mkdir()
    np.save(folder / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "s.tsv").write_text(f"path\tgene_id\na.npy\t{scores['gene_id'][0]}\n")
    return [folder / "s.tsv"]


def short_array(folder: Path, scores: pl.DataFrame, _: dict[str, int]) -> list[Path]:
    folder.mkdir()
    gene = next(foreign.genes(scores))
    np.savez(folder / "a.npz", **{gene["gene_id"][0]: foreign.spliceai_array(gene)[:-1]})
    return [folder / "a.npz"]


def damaged_bigwig(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
    paths = foreign.bigwigs(folder, scores, lengths)
    content = bytearray(paths[0].read_bytes())
    middle = len(content) // 3
    content[middle : middle + 300] = bytes(300)
    paths[0].write_bytes(bytes(content))
    return paths


def h5_alone(folder: Path, scores: pl.DataFrame, lengths: dict[str, int]) -> list[Path]:
    path = foreign.predict_h5(folder, scores, lengths)
    (folder / "datafile.h5").unlink()
    return [path]


HEAD = "path\tclass\tstrand"
BAD: dict[str, tuple[Any, str]] = {
    "sheet without a class": (
        Bad.sheet(HEAD, "donor_plus.bw\t\t+"),
        r"line 2: class ''; allowed are donor and acceptor",
    ),
    "sheet with another class": (Bad.sheet(HEAD, "donor_plus.bw\tsplice\t+"), "class 'splice'; allowed are donor and"),
    "sheet without a strand": (Bad.sheet(HEAD, "donor_plus.bw\tdonor\t."), r"strand '\.'; allowed are \+ and -"),
    "sheet that lacks acceptors": (Bad.sheet(HEAD, "donor_plus.bw\tdonor\t+"), r"no acceptor of the strand \+"),
    "sheet of files that are not there": (Bad.sheet(HEAD, "no.bw\tdonor\t+"), "given no.bw, which is not a file"),
    "sheet with another column": (Bad.sheet(f"{HEAD}\tcell", "x"), "columns cell; allowed are path, class"),
    "track without class in its name": (Bad.content("plus.bedgraph", b"chr1\t0\t1\t0.5\n"), "does not say its class;"),
    "another build": (
        lambda f, s, n: foreign.bigwigs(f, s, {name: length + 1 for name, length in n.items()}),
        "they are of different genome builds",
    ),
    "other contigs": (
        lambda f, s, n: foreign.bigwigs(
            f,
            s.with_columns(("x" + pl.col("chrom")).alias("chrom")),
            {f"x{name}": length for name, length in n.items()},
        ),
        "its contigs are x",
    ),
    "two values of a base": (twice, r"donor score .* where an earlier line or file has .*One base has one score"),
    "scores beyond 1": (Bad.table(lambda t: t.with_columns(pl.col("donor_score") * 100)), "from 0 to 1.*--logits"),
    "negative scores": (Bad.table(lambda t: t.with_columns(pl.col("donor_score") - 0.5)), "from 0 to 1.*--logits"),
    "infinite scores": (
        Bad.table(lambda t: t.with_columns(pl.lit("inf").alias("donor_score"))),
        "donor scores from inf to inf",
    ),
    "scores that add up to more than 1": (
        Bad.table(lambda t: t.with_columns(pl.lit(0.7).alias("donor_score"), pl.lit(0.7).alias("acceptor_score"))),
        "do not add up to 1",
    ),
    "a score that is a word": (
        Bad.table(lambda t: t.with_columns(pl.lit("high").alias("donor_score"))),
        "line 2: .*high.*scores are numbers or empty",
    ),
    "positions from 0": (
        Bad.table(lambda t: t.with_columns(pl.col("position") - pl.col("position").min())),
        "start=COLUMN",
    ),
    "positions beyond the contig": (
        Bad.table(lambda t: t.with_columns(pl.col("position") + 10**9)),
        "one genome build",
    ),
    "a strand that is none": (Bad.table(lambda t: t.with_columns(pl.lit("*").alias("strand"))), r"strand '\*'"),
    "a table without strands": (Bad.table(lambda t: t.drop("strand")), "no column for strand.*--columns NAME=COLUMN"),
    "a table without scores": (
        Bad.table(lambda t: t.drop("donor_score", "acceptor_score")),
        "no column for donor or acceptor",
    ),
    "an empty file": (Bad.content("t.csv", b""), "the file is empty"),
    "another kind of file": (Bad.content("v.vcf", b"##fileformat=VCFv4.2\n#CHROM\tPOS\n"), "this is VCF"),
    "BED of others": (Bad.content("b.bed", b"chr1\t1\t2\tx\t5\t+\n"), "this is BED, intervals; needed is BigWig"),
    "damaged bedGraph": (
        Bad.content("donor_plus.bedgraph", b"chr1\t0\t1\t0.5\nchr1\tx\t2\t0.5\n"),
        "line 2: 'chr1  x  2",
    ),
    "damaged BigWig": (damaged_bigwig, "damaged at|not a whole BigWig"),
    "cut BigWig": (Bad.content("donor_plus.bw", b"\x26\xfc\x8f\x88" + bytes(30)), "not a whole BigWig file"),
    "pickle": (pickled, "without Python objects|floating point"),
    "array of another length": (short_array, "a row a base"),
    "npz of no gene": (
        lambda f, s, _: npz(f, s.with_columns(("X" + pl.col("gene_id")).alias("gene_id"))),
        "give a sheet with columns path",
    ),
    "predict.h5 without names": (h5_alone, "datafile.h5"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_bad_input_is_refused_and_nothing_is_written(
    mistake: str, truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    make, text = BAD[mistake]
    files = make(tmp_path / "in", truth, lengths)
    with pytest.raises(InputError, match=text):
        bring(*files)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"columns": ("chrom",)}, "--columns: given 'chrom'; allowed is NAME=COLUMN"),
        ({"columns": ("place=x",)}, "NAME one of chrom, position"),
        ({"columns": ("start=position", "position=position")}, "a base has one place"),
        ({"columns": ("donor=nothing",)}, "no column for --columns donor=nothing; its columns are"),
        ({"shift": ("neither=1",)}, "--shift: given 'neither=1'"),
        ({"shift": ("11",)}, "each of at most 10 bases"),
        ({"base": "a/b"}, "base"),
        ({"absent": 0.9}, "absent"),
    ],
)
def test_options_that_are_none(
    options: dict[str, Any], text: str, simulation: Path, tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    files = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    with pytest.raises((ConfigError, InputError), match=text):
        bring(*files, **options)
    assert left_nothing(tmp_path / "out")


def test_an_annotation_without_the_genes(
    simulation: Path, truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    one = truth.filter(pl.col("gene_id") == truth["gene_id"][0])
    files = foreign.bigwigs(tmp_path / "in", one, lengths)
    kept = [
        line
        for line in (simulation / "genome/simulated.gff3").read_text().splitlines()
        if truth["gene_id"][0].removeprefix("gene-") not in line.replace(";", "-").split("-")
    ]
    (tmp_path / "other.gff3").write_text("\n".join(kept) + "\n")
    with pytest.raises(InputError, match=r"none of the 43 genes .* has a score"):
        bring(*files, annotation=tmp_path / "other.gff3")
    assert left_nothing(tmp_path / "out")


def test_contigs_without_genes_are_said(
    simulation: Path,
    truth: pl.DataFrame,
    lengths: dict[str, int],
    tmp_path: Path,
    bring: Callable[..., dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = (simulation / "genome/simulated.gff3").read_text().splitlines()
    one = truth["chrom"][0]
    (tmp_path / "few.gff3").write_text("\n".join(line for line in lines if line.split("\t")[0] != one) + "\n")
    files = foreign.bigwigs(tmp_path / "one", truth.filter(pl.col("chrom") == one), {one: lengths[one]})
    with pytest.raises(
        InputError, match=rf"its contigs are {one}; .* has {one}, but the annotation has no genes there"
    ):
        bring(*files, annotation=tmp_path / "few.gff3")
    assert left_nothing(tmp_path / "out")
    files = foreign.bigwigs(tmp_path / "more", truth, {**lengths, "extra": 1000})
    bring(*files)
    assert "extra: left out, without genes in the FASTA and the annotation" in caplog.text


def test_rows_of_another_base_are_not_joined(
    base_layer: Path, simulation: Path, bring: Callable[..., dict[str, Any]]
) -> None:
    before = sorted(path for path in base_layer.rglob("*") if path.is_file())
    files = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    with pytest.raises(InputError, match="give another --base"):
        bring(*files, output=base_layer)
    assert sorted(path for path in base_layer.rglob("*") if path.is_file()) == before
    bring(*files, output=base_layer, base="other")
    assert foreign.scores_in(base_layer, "other").equals(foreign.scores_in(base_layer))


def test_another_annotation_in_one_root_is_refused(
    simulation: Path, tmp_path: Path, truth: pl.DataFrame, bring: Callable[..., dict[str, Any]]
) -> None:
    files = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    bring(*files)
    text = (simulation / "genome/simulated.gff3").read_text()
    (tmp_path / "renamed.gff3").write_text(text.replace("gene-", "gene-X").replace("rna-", "rna-X"))
    with pytest.raises(InputError, match="a data root has one gene table"):
        bring(*files, base="other", annotation=tmp_path / "renamed.gff3")


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("form", ["bigwig by names", "bedgraph", "npz by genes", "predict.h5"])
def test_an_import_that_broke_off_goes_on(
    form: str,
    truth: pl.DataFrame,
    lengths: dict[str, int],
    tmp_path: Path,
    bring: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = FORMS[form](tmp_path / "in", truth, lengths)
    bring(*files, output=tmp_path / "whole")
    put, seen = KeptScores.put, 0

    def breaking(self: KeptScores, piece: pieces.Piece, *rest: Any) -> int:
        nonlocal seen
        seen += 1
        if seen == 9:
            raise OSError(28, "No space left on device")
        return put(self, piece, *rest)

    monkeypatch.setattr(module, "_NOTE_EVERY_S", 0.0)
    monkeypatch.setattr(KeptScores, "put", breaking)
    if form != "bedgraph":  # of few pieces
        with pytest.raises(MetalayerError, match="run the same command again"):
            bring(*files)
        assert left_nothing(tmp_path / "out")
        first, seen = seen, 10
    else:
        seen = 6
        with pytest.raises(MetalayerError, match="run the same command again"):
            bring(*files)
        first, seen = 3, 10
    bring(*files)
    monkeypatch.setattr(KeptScores, "put", put)
    assert seen - 10 < first + 200
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


KILLED = """
import sys, time
from metalayer import cli
from metalayer.workflows import import_scores as module
from metalayer.workflows.kept_scores import KeptScores
module._NOTE_EVERY_S = 0.0
put = KeptScores.put
def slow(*arguments):
    time.sleep(0.05)
    return put(*arguments)
KeptScores.put = slow
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_killed_import_goes_on_and_gives_the_same_bytes(
    simulation: Path, truth: pl.DataFrame, lengths: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [str(path) for path in foreign.bigwigs(tmp_path / "in", truth, lengths)]
    genome = simulation / "genome"
    command = [
        "import",
        *files,
        "--fasta",
        str(genome / "simulated.fa"),
        "--annotation",
        str(genome / "simulated.gff3"),
    ]
    command += ["--base", "pwm", "--output"]
    assert cli.main([*command, str(tmp_path / "whole")]) == 0
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *command, str(tmp_path / "out")], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            noted = list((tmp_path / "out").glob(".import-pwm-*/read.json"))
            if noted and json.loads(noted[0].read_text())["pieces"].get("1", 0) > 3:
                break
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left_nothing(tmp_path / "out")
    caplog.set_level(logging.INFO)
    assert cli.main([*command, str(tmp_path / "out")]) == 0
    assert "donor_plus.bw: read by the last run" in caplog.text
    assert "donor_minus.bw: going on where the last run was" in caplog.text
    out = {name: content for name, content in files_of(tmp_path / "out").items() if not name.startswith(".")}
    assert out == files_of(tmp_path / "whole")


def test_the_command(simulation: Path, truth: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv(tmp_path / "in", truth)
    genome = simulation / "genome"
    command = ["import", str(tmp_path / "in/t.csv"), "--fasta", str(genome / "simulated.fa"), "--annotation"]
    command += [str(genome / "simulated.gff3"), "--base", "pwm", "--output", str(tmp_path / "out"), "--columns"]
    assert cli.main([*command, "position=where", "donor=d", "acceptor=a"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"44 genes, {len(truth):,} positions, ") and str(tmp_path / "out/import_pwm.tsv") in text
    assert cli.main([*command, "position=nowhere"]) == 2
    assert "no column for --columns position=nowhere" in capsys.readouterr().err


# Real scores in the forms in which people have them, where they are beside the checkout.


@pytest.fixture
def real(shared: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]]:
    """Imports samples; gives manifest, what was written and the right values."""
    folder = shared / "cases/own-data"
    if not folder.is_dir():
        pytest.skip("no samples of own data beside this checkout")
    right = pl.read_parquet(shared / "real/nucleotide_scores/openspliceai_80_chr3.parquet").with_columns(
        pl.col(foreign.TEXT).cast(pl.String), pl.col("position").cast(pl.Int64)
    )

    def real(*files: Path | str, **options: Any) -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
        config = ImportConfig(
            files=tuple(folder / file for file in files),
            fasta=shared / "real/genome/hg19_slices.fa.gz",
            annotation=folder / "two_genes.gff3",
            base="osai",
            output=tmp_path / "out",
            **options,
        )
        manifest = import_scores(config)
        found = foreign.scores_in(tmp_path / "out", "osai")
        joined = found.select("gene_id", "position").join(right, on=["gene_id", "position"], maintain_order="left")
        assert found.select("base", "label").equals(joined.select("base", "label"))
        return manifest, found, joined

    return real


def test_real_bigwigs(real: Any) -> None:
    manifest, found, right = real("sheet.tsv")
    assert manifest["genes"] == 2 and manifest["positions"] == 36_065
    assert found.select("donor_score", "acceptor_score").equals(right.select("donor_score", "acceptor_score"))


def test_real_array(real: Any, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "places.tsv").write_text(
        f"path\tgene_id\n{shared / 'cases/own-data/sec22c_transcript_sense.npy'}\tgene-SEC22C\n"
    )
    manifest, found, right = real(tmp_path / "places.tsv")
    assert manifest["genes_not_written"] == {"no file has a score of its bases": 1}
    columns = ("donor_score", "acceptor_score", "neither_score")
    assert found.select(columns).equals(right.select(columns))


def test_real_table(real: Any) -> None:
    _, found, right = real("klhl40_table.csv")
    for name in ("donor_score", "acceptor_score"):
        assert len(found) == 7026 and (found[name] - right[name]).abs().max() <= 1e-6


def test_real_bedgraph(real: Any) -> None:
    manifest, found, right = real("klhl40_donor_plus.bedgraph")
    there = found["donor_score"].is_not_null()
    assert there.sum() == 38 and found["acceptor_score"].null_count() == len(found)
    assert (found.filter(there)["donor_score"] - right.filter(there)["donor_score"]).abs().max() <= 1e-6
    assert right.filter(~there)["donor_score"].max() < 0.002
    assert any("no file has acceptor scores of the strand +" in note for note in manifest["notes"])


def test_real_beds(real: Any) -> None:
    manifest, found, right = real("openspliceai_donor_predictions.bed", "openspliceai_acceptor_predictions.bed")
    for name in ("donor_score", "acceptor_score"):
        there = found[name].is_not_null()
        assert there.sum() > 40
        assert (found.filter(there)[name] - right.filter(there)[name]).abs().max() <= 5e-4
        assert right.filter(~there)[name].max() < 0.0105
    notes = "\n".join(manifest["notes"])
    assert "52 acceptors moved by +1" in notes and "its threshold was about 0.01" in notes
