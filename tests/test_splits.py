import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from metalayer.data.gene_table import load_genes
from metalayer.data.splits import NOT_CHECKED_PARALOGS, check_split, make_split, random_split
from metalayer.errors import ConfigError, SplitError
from metalayer.settings.sections import SplitConfig


def write(
    tmp_path: Path, genes: list[tuple[str, str, int, int, str | None]], table: bool = True
) -> tuple[Path, Path | None]:
    """Rows with one donor, one acceptor and two others a gene: (gene_id, chrom, start, end, paralog_group)."""
    rows = [(g, c, kind) for g, c, *_ in genes for kind in ("donor", "acceptor", "neither", "neither")]
    pl.DataFrame(rows, schema=["gene_id", "chrom", "splice_type"], orient="row").write_parquet(
        tmp_path / "rows.parquet"
    )
    if not table:
        return tmp_path / "rows.parquet", None
    columns = ["gene_id", "gene_name", "chrom", "strand", "start", "end", "paralog_group"]
    data = [(g, g, c, "+", s, e, p) for g, c, s, e, p in genes]
    types = {"paralog_group": pl.String}
    pl.DataFrame(data, schema=columns, orient="row", schema_overrides=types).write_parquet(tmp_path / "genes.parquet")
    return tmp_path / "rows.parquet", tmp_path / "genes.parquet"


def plain(n: int, chrom: str) -> list[tuple[str, str, int, int, str | None]]:
    return [(f"{chrom}_{i}", chrom, 1000 * i + 1, 1000 * i + 500, None) for i in range(n)]


def parts(manifest: dict[str, Any]) -> dict[str, set[str]]:
    return {part: set(manifest[part]["genes"]) for part in ("train", "valid", "test")}


def test_default_tests_on_odd_chromosomes_and_validates_on_whole_genes(tmp_path: Path) -> None:
    rows, genes = write(tmp_path, plain(5, "1") + plain(20, "2") + plain(20, "X"))
    manifest = make_split(rows, genes, SplitConfig())
    assert manifest["test"]["chromosomes"] == ["1"]
    assert len(manifest["valid"]["genes"]) == 6
    assert manifest["train"]["classes"] == {"donor": 34, "acceptor": 34, "neither": 68}
    assert manifest["checks"]["genes_crossing"] == 0
    assert manifest["checks"]["paralog_groups_crossing"] == NOT_CHECKED_PARALOGS
    assert make_split(rows, genes, SplitConfig()) == manifest
    assert make_split(rows, genes, SplitConfig(seed=1)) != manifest


def test_overlapping_genes_share_a_part(tmp_path: Path) -> None:
    chain = [(f"o{i}", "2", 100 * i + 1, 100 * i + 150, None) for i in range(4)]  # each overlaps the next
    rows, genes = write(tmp_path, chain + plain(30, "4"))
    for seed in range(5):
        manifest = make_split(rows, genes, SplitConfig(by="gene", seed=seed))
        assert sum(bool({g for g, *_ in chain} & ids) for ids in parts(manifest).values()) == 1
        assert manifest["checks"]["overlapping_genes_crossing"] == 0


def test_paralogs_share_a_part_or_leave_training(tmp_path: Path) -> None:
    genes_in = [("p1", "1", 1, 500, "A"), ("p2", "2", 1, 500, "A"), *plain(3, "3"), *plain(20, "4")]
    rows, genes = write(tmp_path, genes_in)
    manifest = make_split(rows, genes, SplitConfig())
    assert "p1" in manifest["test"]["genes"]
    assert manifest["left_out"] == {"p2": "paralog of a test gene"}
    assert manifest["checks"]["paralog_groups_crossing"] == 0
    by_gene = make_split(rows, genes, SplitConfig(by="gene", seed=3))
    assert sum(bool({"p1", "p2"} & ids) for ids in parts(by_gene).values()) == 1


def test_the_check_finds_what_crosses(tmp_path: Path) -> None:
    genes_in = [("a", "2", 1, 5000, "A"), ("b", "2", 100, 200, None), ("c", "2", 400, 900, None), ("d", "4", 1, 9, "A")]
    _, genes = write(tmp_path, genes_in)
    table = load_genes(genes)

    def manifest(train: list[str], test: list[str]) -> dict[str, Any]:
        return {"train": {"genes": train}, "valid": {"genes": []}, "test": {"genes": test}}

    chrom_of = {gene_id: chrom for gene_id, chrom, *_ in genes_in}
    with pytest.raises(SplitError, match=r"c .* overlaps a|a .* overlaps c"):
        check_split(manifest(["a", "b"], ["c"]), table, chrom_of)
    with pytest.raises(SplitError, match="paralog group A"):
        check_split(manifest(["a", "b", "c"], ["d"]), table, chrom_of)
    with pytest.raises(SplitError, match="both train and test"):
        check_split(manifest(["a"], ["a"]), table, chrom_of)
    with pytest.raises(SplitError, match="gene b has no place, and its chromosome 2 is in test and train"):
        check_split(manifest(["b"], ["c"]), {}, chrom_of)


def test_a_chromosome_in_no_part_is_an_error(tmp_path: Path) -> None:
    rows, genes = write(tmp_path, plain(5, "1") + plain(5, "2") + plain(5, "8"))
    config = SplitConfig(train_chroms=(2,), test_chroms=(1,), valid_chroms=(3,))
    with pytest.raises(SplitError, match="chromosome 8 of the data is in no part"):
        make_split(rows, genes, config)
    with pytest.raises(ConfigError, match="chromosome 1 is in test_chroms too"):
        SplitConfig(valid_chroms=(1,))


def test_a_part_without_sites_is_an_error(tmp_path: Path) -> None:
    rows, genes = write(tmp_path, plain(5, "2"))
    with pytest.raises(SplitError, match="test part has no donor"):
        make_split(rows, genes, SplitConfig())


def test_by_gene_needs_a_gene_table(tmp_path: Path) -> None:
    rows, _ = write(tmp_path, plain(9, "2"), table=False)
    with pytest.raises(SplitError, match="gene table"):
        make_split(rows, None, SplitConfig(by="gene"))


def test_without_any_gene_table_whole_chromosomes_validate(tmp_path: Path) -> None:
    rows, _ = write(tmp_path, plain(5, "1") + plain(9, "2") + plain(4, "4"), table=False)
    manifest = make_split(rows, None, SplitConfig())
    assert (manifest["train"]["chromosomes"], manifest["valid"]["chromosomes"]) == (["2"], ["4"])
    (tmp_path / "one").mkdir()
    rows, _ = write(tmp_path / "one", plain(5, "1") + plain(9, "2"), table=False)
    with pytest.raises(SplitError, match=r"valid part has no donor.*a gene table would let chromosomes be divided"):
        make_split(rows, None, SplitConfig())


def test_random_split_says_that_it_leaks() -> None:
    train, valid, rest = random_split(1000, seed=1)
    assert sorted([*train, *valid, *rest]) == list(range(1000))
    assert (len(train), len(valid)) == (800, 100)
    assert "LEAKY" in (random_split.__doc__ or "")


def test_a_chromosome_with_a_gene_without_place_is_not_divided(tmp_path: Path) -> None:
    rows, genes = write(tmp_path, plain(5, "1") + plain(20, "2") + plain(20, "4"))
    assert genes is not None
    pl.read_parquet(genes).filter(pl.col("gene_id") != "2_3").write_parquet(genes)
    for seed in range(5):
        manifest = make_split(rows, genes, SplitConfig(seed=seed))
        assert sum(any(g.startswith("2_") for g in ids) for ids in parts(manifest).values()) == 1
        assert manifest["checks"]["genes_without_place"] == 1
    with pytest.raises(SplitError, match="lacks 1 genes"):
        make_split(rows, genes, SplitConfig(by="gene"))


def test_genes_of_the_bases_own_training_are_marked_by_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows, genes = write(tmp_path, plain(5, "1") + plain(20, "2") + plain(20, "X"))
    with caplog.at_level(logging.WARNING):
        manifest = make_split(rows, genes, SplitConfig(), "openspliceai_80", "GRCh38")
    assert manifest["seen_by_base"]["test"] is None
    for part in ("train", "valid"):
        assert manifest["seen_by_base"][part]["genes"] == manifest[part]["genes"]
    (said,) = caplog.messages
    assert said.startswith(
        "training genes: 34 of 34 genes are on chromosomes 2, X, on which openspliceai_80, as published"
    )
    assert said.endswith("human chromosomes that are new to the base: 1, 3, 5, 7, 9")
    unknown = make_split(rows, genes, SplitConfig(), "openspliceai_80")
    assert unknown["seen_by_base"] == dict.fromkeys(("train", "valid", "test"))
    assert {**manifest, "seen_by_base": None} == {**unknown, "seen_by_base": None}
