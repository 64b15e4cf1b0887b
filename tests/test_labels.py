import shutil
from pathlib import Path

import polars as pl
import pytest

from metalayer.data.labels import label_rows
from metalayer.errors import ArtifactError
from metalayer.settings.sections import DataConfig

# Gene a: 1-based 1001..2000 on +; gene b: the same on - of chromosome X.
GENES = pl.DataFrame(
    [("a", "A", "1", "+", 1001, 2000, None), ("b", "B", "X", "-", 1001, 2000, None)],
    schema=["gene_id", "gene_name", "chrom", "strand", "start", "end", "paralog_group"],
    orient="row",
)
ROWS = pl.DataFrame(
    [
        ("a", 100, "donor"),  # G of GT at genomic 1101, T at 1102
        ("a", 300, "acceptor"),  # G of AG at 1301, A at 1300
        ("a", 500, "neither"),  # 1501
        ("b", 100, "donor"),  # minus strand: genomic 1900, T at 1899
        ("b", 500, "neither"),
    ],
    schema={"gene_id": pl.String, "position": pl.Int32, "splice_type": pl.String},
    orient="row",
)


def weigh(
    tmp_path: Path, variants: list[tuple[str, str]], build: str = "GRCh38", genes: bool = True, **changes: object
) -> tuple[list[float], dict[str, object]]:
    """Sample weights of `ROWS` with these (coordinate, classification) variants."""
    folder = tmp_path / "data" / "s" / build / "pwm_eval" / "meta_models"
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "analysis_sequences_1_chunk_1_2.tsv").write_text("x\n")
    lines = ["variant_id\thg19\thg38\tgene\thgvs\tmethod\tclassification\tlocation\tdoi"]
    column = "hg38" if build == "GRCh38" else "hg19"
    for number, (place, kind) in enumerate(variants):
        hg19, hg38 = ("9-9-A-C", place) if column == "hg38" else (place, "9-9-A-C")
        lines.append(f"{number}\t{hg19}\t{hg38}\tG\tx\tRNA-Seq\t{kind}\tIntronic\td")
    (tmp_path / "splicevardb.download.tsv").write_text("\n".join(lines) + "\n")
    ROWS.write_parquet(tmp_path / "rows.parquet")
    GENES.write_parquet(tmp_path / "genes.parquet")
    config = DataConfig(**{"base_model": "pwm", "data_root": tmp_path, "variant_source": "splicevardb", **changes})
    table = tmp_path / "genes.parquet" if genes else None
    report = label_rows(tmp_path / "rows.parquet", table, config, tmp_path / "out.parquet", build)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert len(out) == len(ROWS), "rows are never duplicated"
    assert out["label"].to_list() == [0, 1, 2, 0, 2]
    return out["sample_weight"].to_list(), report["variants"]


def test_classes_weigh_as_stated_on_both_strands(tmp_path: Path) -> None:
    weights, report = weigh(
        tmp_path,
        [
            ("1-1101-G-A", "Splice-altering"),
            ("chr1-1300-A-G", "Normal"),
            ('"1-1501-C-T"', "Low-frequency"),
            ("X-1899-A-C", "Conflicting"),
            ("X-5-A-C", "Normal"),
        ],
    )
    assert weights == [2.0, 1.5, 0.5, 0.5, 1.0]
    assert report["matched"] == 4
    assert report["not_matched"] == 1
    assert report["rows_weighted"] == 4


def test_the_dinucleotide_counts_and_its_neighbours_do_not(tmp_path: Path) -> None:
    assert weigh(tmp_path, [("1-1102-T-C", "Normal")])[0][0] == 1.5
    assert weigh(tmp_path, [("1-1103-T-C", "Normal")])[0][0] == 1.0
    assert weigh(tmp_path, [("1-1100-T-C", "Normal")])[0][0] == 1.0
    assert weigh(tmp_path, [("1-1103-T-C", "Normal")], variant_radius_bp=2)[0][0] == 1.5


def test_deletions_touch_every_base_they_remove_and_insertions_their_anchor(tmp_path: Path) -> None:
    assert weigh(tmp_path, [("1-1097-ACGTAC-A", "Splice-altering")])[0][0] == 2.0
    assert weigh(tmp_path, [("1-1101-G-GTT", "Splice-altering")])[0][0] == 2.0
    assert weigh(tmp_path, [("1-1100-G-GTT", "Splice-altering")])[0][0] == 1.0


def test_the_largest_weight_wins(tmp_path: Path) -> None:
    weights, _ = weigh(tmp_path, [("1-1101-G-A", "Low-frequency"), ("1-1102-T-C", "Splice-altering")])
    assert weights[0] == 2.0


def test_negatives_are_spelt_normal_and_the_other_way(tmp_path: Path) -> None:
    weights, report = weigh(tmp_path, [("1-1101-G-A", "Non-splice-altering"), ("1-1301-G-A", "Odd"), ("x", "Normal")])
    assert weights[:2] == [1.5, 1.0]
    assert report["unknown_classification"] == 1
    assert report["unreadable_coordinates"] == 1


def test_the_build_picks_the_coordinates(tmp_path: Path) -> None:
    assert weigh(tmp_path, [("1-1101-G-A", "Normal")], build="GRCh37")[0][0] == 1.5


def test_without_gene_table_or_known_build_or_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="needs a gene table"):
        weigh(tmp_path, [], genes=False)
    with pytest.raises(ArtifactError, match="build is 'T2T'"):
        weigh(tmp_path, [], build="T2T")
    with pytest.raises(ArtifactError, match="splicevardb_path"):
        weigh(tmp_path, [], splicevardb_path=tmp_path / "none.tsv")
    with pytest.raises(ArtifactError, match="no column hg38"):
        (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
        weigh(tmp_path, [], splicevardb_path=tmp_path / "other.tsv")


def test_no_variants_asked_for(tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "rows.parquet")
    config = DataConfig(base_model="pwm", data_root=tmp_path)
    report = label_rows(tmp_path / "rows.parquet", None, config, tmp_path / "out.parquet", None)
    assert pl.read_parquet(tmp_path / "out.parquet")["sample_weight"].to_list() == [1.0] * 5
    assert report["classes"] == {"donor": 2, "acceptor": 1, "neither": 2}
