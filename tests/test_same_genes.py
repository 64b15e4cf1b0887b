"""What a model has seen is known by name, place, letters and paralog group: at every door that trains or judges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.data.gene_table import genes_from_frame, read_gene_table
from metalayer.data.same_genes import SEEN_KEY, KnownGene, alike, described, same_as, seen_by
from metalayer.data.splits import split_genes
from metalayer.genome import Gene
from metalayer.models.bundle import load_model

QUICK = ("max_epochs=1", "threads=1", "device=cpu", "track_encoder_config={channels: 4, stages: 1}")


def known(gene_id: str, start: int, end: int, **facts: str | None) -> KnownGene:
    chrom = facts.pop("chrom", None) or "1"
    gene = Gene.from_table(gene_id, chrom, facts.pop("strand", None) or "+", start, end)
    return KnownGene(gene_id, gene, **facts)  # type: ignore[arg-type]


TRAINED = [
    known("LONG", 1, 9000, build="GRCh38", letters="l"),
    known("SHORT", 100, 200, build="GRCh38", letters="s", paralog_group="p"),
    known("ENSG00000000001.4", 20_000, 21_000, build="GRCh38", letters="v"),
    KnownGene("NAMED"),
]


@pytest.mark.parametrize(
    ("gene", "why"),
    [
        (known("NAMED", 50_000, 50_100, build="GRCh38"), "is NAMED"),
        (known("ENSG00000000001.7", 70_000, 70_100, build="GRCh37"), "is ENSG00000000001.4"),
        (known("NEW", 8999, 9500, build="hg38", strand="-"), "overlaps LONG"),  # behind a shorter one that begins later
        (known("NEW", 9000, 9001), "overlaps LONG"),  # of which build is not known
        (known("NEW", 9001, 9500, build="hg38"), None),
        (known("NEW", 8999, 9500, build="GRCh37"), None),
        (known("NEW", 8999, 9500, build="hg38", chrom="2"), None),
        (known("NEW", 90_000, 90_100, build="GRCh38", letters="s"), "has the letters of SHORT"),
        (known("NEW", 90_000, 90_100, build="GRCh37", paralog_group="p"), "is a paralog of SHORT"),
        (known("NEW", 90_000, 90_100), None),
        (KnownGene("NEW"), None),
    ],
)
def test_same_as(gene: KnownGene, why: str | None) -> None:
    found = same_as([gene], TRAINED)
    assert {gene_id: str(one) for gene_id, one in found.items()} == ({} if why is None else {gene.gene_id: why})


def test_as_a_slow_comparison_of_places() -> None:
    rng = np.random.default_rng(0)

    def drawn(name: str) -> list[KnownGene]:
        starts = rng.integers(1, 3000, 60)
        return [known(f"{name}{i}", int(s), int(s + rng.integers(1, 120))) for i, s in enumerate(starts)]

    one, other = drawn("A"), drawn("B")
    expected = {
        a.gene_id for a in one for b in other if a.gene and b.gene and a.gene.interval.overlaps(b.gene.interval)
    }
    assert same_as(one, other).keys() == expected
    assert 0 < len(expected) < 60


def test_a_model_tells_what_it_has_seen() -> None:
    info = json.loads(json.dumps({SEEN_KEY: described(TRAINED), "split": {"train": ["LONG", "NAMED"], "valid": []}}))
    genes = seen_by(info)
    assert [one.gene_id for one in genes] == ["LONG", "SHORT", "ENSG00000000001.4", "NAMED"]
    assert [one.gene for one in genes] == [one.gene for one in TRAINED]
    assert seen_by({"split": {"train": ["A"], "valid": ["B"], "test": ["C"]}}) == [KnownGene("A"), KnownGene("B")]
    assert seen_by({}) == []


def test_genes_of_equal_letters_or_of_one_group_share_a_part() -> None:
    genes = [known(f"G{i}", 1000 * i + 1, 1000 * i + 500, letters=str(i % 20)) for i in range(40)]
    chrom_of, table = {one.gene_id: "1" for one in genes}, {one.gene_id: one.gene for one in genes if one.gene}
    together = alike(genes)
    assert ["G0", "G20"] in together
    for seed in range(5):
        part_of = split_genes(chrom_of, table, {"valid": 0.3}, seed, together)
        assert all(part_of[f"G{i}"] == part_of[f"G{i + 20}"] for i in range(20))
        assert set(part_of.values()) == {"train", "valid"}


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("nucleotide_scores/*.parquet"))


def train(scores: list[Path], output: Path, *more: str) -> int:
    settings = [part for setting in QUICK for part in ("--set", setting)]
    return cli.main(["train", "--scores", *map(str, scores), "--output-dir", str(output), *settings, *more])


def renamed(path: Path, target: Path, *, shift: int = 0, build: str = "GRCh38") -> Path:
    """The same genes under other names, perhaps elsewhere, as of another annotation or assembly."""
    frame = pl.read_parquet(path).with_columns(
        (pl.lit("other-") + pl.col("gene_id").cast(pl.String)).alias("gene_id"), pl.col("position") + shift
    )
    frame.write_parquet(target, metadata={"genome_build": build})
    return target


@pytest.fixture(scope="module")
def trained(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("same") / "model"
    assert train(files(simulation)[:-1], output) == 0
    return output


@pytest.mark.parametrize(("shift", "build", "why"), [(7, "GRCh38", "overlaps "), (7, "GRCh37", "has the letters of ")])
def test_evaluate_knows_them_under_other_names(
    simulation: Path,
    trained: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    shift: int,
    build: str,
    why: str,
) -> None:
    seen = renamed(files(simulation)[0], tmp_path / "seen.parquet", shift=shift, build=build)
    arguments = ["--scores", str(seen), str(files(simulation)[-1]), "--output", str(tmp_path / "report.json")]
    assert cli.main(["evaluate", "--model", str(trained), *arguments]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    genes = {f"other-{gene}" for gene in pl.read_parquet(files(simulation)[0])["gene_id"].cast(pl.String).unique()}
    assert set(report["genes_seen_in_training"]) == genes
    assert all(one.startswith(why) for one in report["seen_because"].values())
    assert f"{len(genes)} of " in caplog.text
    assert "which " + why in caplog.text


def test_train_refuses_them_on_both_sides(simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = renamed(files(simulation)[0], tmp_path / "copy.parquet", shift=1_000_000)
    assert train(files(simulation)[:2], tmp_path / "m", "--valid-scores", str(copy)) == 2
    message = capsys.readouterr().err
    assert "genes of --scores share data with --valid-scores (gene " in message
    assert "has the letters of other-" in message


def test_a_gene_table_keeps_paralogs_together(
    simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pl.read_csv(simulation / "genes.tsv", separator="\t", infer_schema=False)
    chroms = table["chrom"].unique().sort()
    # One paralog on each of two chromosomes.
    pair = [table.filter(pl.col("chrom") == chrom)["gene_id"][0] for chrom in chroms[:2]]
    table = table.with_columns(
        pl.when(pl.col("gene_id").is_in(pair)).then(pl.lit("pair")).otherwise(None).alias("paralog_group")
    )
    table.write_csv(tmp_path / "genes.tsv", separator="\t")
    by_chrom = {path.stem.rpartition("chr")[2]: path for path in files(simulation)}
    one, other = (by_chrom[str(chrom).removeprefix("chr")] for chrom in chroms[:2])
    more = ("--gene-table", str(tmp_path / "genes.tsv"))
    assert train([one], tmp_path / "m", "--valid-scores", str(other), *more) == 2
    assert "is a paralog of" in capsys.readouterr().err
    for seed in (1, 2, 3):
        assert train([one, other], tmp_path / f"m{seed}", "--seed", str(seed), *more) == 0
        _, info = load_model(tmp_path / f"m{seed}" / "model")
        parts = [
            part for part in ("train", "valid") for gene in pair if gene.removeprefix("gene-") in info["split"][part]
        ]
        assert parts in (["train"] * 2, ["valid"] * 2)
        assert "genes.tsv" in info["data_hash"]
        places = genes_from_frame(read_gene_table(tmp_path / "genes.tsv"))
        assert {one.gene_id: (one.gene.interval, one.gene.strand) for one in seen_by(info) if one.gene} == {
            gene_id: (places[gene_id].interval, places[gene_id].strand)
            for part in ("train", "valid")
            for gene_id in info["split"][part]
        }


def test_a_table_of_other_genes_is_refused(
    simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "gene_id\tgene_name\tchrom\tstrand\tstart\tend\n"
    (tmp_path / "genes.tsv").write_text(header + "ELSE\t\t1\t+\t1\t9\n")
    assert train(files(simulation)[:1], tmp_path / "m", "--gene-table", str(tmp_path / "genes.tsv")) == 2
    assert "the table has ELSE" in capsys.readouterr().err
