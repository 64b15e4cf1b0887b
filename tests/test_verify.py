"""A training set is usable until it is damaged, and then the very check that looks for the damage says so."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from metalayer.core import ArtifactLoader
from metalayer.data.labels import label_rows
from metalayer.data.splits import make_split
from metalayer.data.verify import BATCH_ROWS, Check, DatasetReport, verify_dataset
from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError
from metalayer.features import derived_features, feature_matrix
from metalayer.genome import decode, encode, reverse_complement
from metalayer.schema import ARTIFACT_WINDOW_BP, FEATURES, ROW_FEATURES, ROW_SCORES
from metalayer.settings.sections import DataConfig, SplitConfig

Change = Callable[[pl.DataFrame], pl.DataFrame]
SITE = pl.col("label") < 2


def training_set(config: DataConfig, folder: Path) -> Path:
    """What preparing a training set leaves: training_data.parquet and genes.parquet."""
    build = ArtifactLoader(config).load(folder)["genome_build"]
    path = folder / "training_data.parquet"
    label_rows(folder / "rows.parquet", folder / "genes.parquet", config, path, build)
    return path


@pytest.fixture(scope="module")
def prepared(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_set(DataConfig(base_model="pwm", data_root=simulation), tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def rows(prepared: Path) -> pl.DataFrame:
    return pl.read_parquet(prepared)


def verified(rows: pl.DataFrame, folder: Path, **arguments: object) -> DatasetReport:
    path = folder / "rows.parquet"
    rows.write_parquet(path)
    return verify_dataset(path, **arguments)  # type: ignore[arg-type]


def found(report: DatasetReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def wrong(report: DatasetReport) -> dict[str, str]:
    return {check.name: check.status for check in report.checks if check.status in ("warning", "failed")}


def recomputed(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows with the features that belong to their scores."""
    windows = encode_windows(rows["sequence"], rows["index"].to_numpy(), ARTIFACT_WINDOW_BP)
    features = feature_matrix(rows.select(ROW_SCORES).to_numpy(), windows)
    return rows.with_columns(pl.Series(name, features[:, i]) for i, name in enumerate(FEATURES))


def first(n: int, column: str, value: object) -> Change:
    """Set a column in the first rows."""
    return lambda rows: rows.with_columns(
        pl.when(pl.int_range(pl.len()) < n).then(pl.lit(value)).otherwise(column).alias(column)
    )


def test_a_prepared_set_is_usable(prepared: Path, rows: pl.DataFrame) -> None:
    report = verify_dataset(str(prepared))
    assert report.verdict == "usable"
    assert report.ok
    assert report.rows == len(rows)
    assert [check.name for check in report.checks if check.status != "ok"] == ["genes across parts"]
    assert "no split given" in found(report, "genes across parts").found
    sites = (rows["label"] < 2).sum()
    assert f"{sites // 2} donor" in found(report, "class balance").found
    assert "all 4," in found(report, "derived features").found
    assert "GT at 100.0% of donor rows" in found(report, "donor letters").found


def test_the_report_shows_itself_and_is_json_ready(rows: pl.DataFrame, tmp_path: Path) -> None:
    report = verified(first(3, "label", 7)(rows), tmp_path)
    lines = repr(report).splitlines()
    assert lines == str(report).splitlines()
    assert lines[0].endswith(f"{len(rows):,} rows: not usable")
    assert lines[2].split() == ["check", "status", "found", "what", "to", "do"]
    starts = {line.index("failed") for line in lines if "failed" in line}
    assert starts == {lines[2].index("status")}
    told = json.loads(json.dumps(report.to_dict()))
    assert (told["verdict"], told["ok"], told["rows"]) == ("not usable", False, len(rows))
    assert [check["name"] for check in told["checks"]] == [check.name for check in report.checks]


def test_what_is_wrong_is_logged(rows: pl.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report = verified(pl.concat([rows, rows[:2]]), tmp_path)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "duplicates (failed): 2 positions" in warned[0]
    assert str(report) in [record.getMessage() for record in caplog.records if record.levelname == "INFO"]


def test_43_features_are_enough(rows: pl.DataFrame, tmp_path: Path) -> None:
    report = verified(rows.drop(ROW_FEATURES), tmp_path)
    assert report.verdict == "usable"
    assert found(report, "schema").found == "43 features"
    doubled = verified(rows.drop(ROW_FEATURES).with_columns(pl.col("context_max") * 2), tmp_path)
    assert wrong(doubled) == {"derived features": "failed"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows.drop("donor_surge_ratio"), "49 features, must be 43 or 50; missing donor_surge_ratio"),
        (lambda rows: rows.drop("label", "gene_id"), "no column gene_id, label"),
        (lambda rows: rows.drop("context_score_p1"), "no column context_score_p1"),
        (lambda rows: rows.with_columns(pl.col("chrom").cast(pl.Int64, strict=False)), "chrom is Int64, must be text"),
        (lambda rows: rows.with_columns(pl.col("index").cast(pl.Float64)), "index is Float64, must be a whole number"),
        (lambda rows: rows.with_columns(pl.col("has_gt").cast(pl.String)), "has_gt is String, must be a number"),
    ],
)
def test_columns_that_cannot_be_used(rows: pl.DataFrame, tmp_path: Path, change: Change, text: str) -> None:
    report = verified(change(rows), tmp_path)
    assert wrong(report) == {"schema": "failed"}
    assert text in found(report, "schema").found
    assert found(report, "all other checks").status == "not checked"


def test_a_column_twice(rows: pl.DataFrame, tmp_path: Path) -> None:
    table = rows.to_arrow()
    pq.write_table(table.append_column("label", table["label"]), tmp_path / "rows.parquet")
    assert "stand there twice: label" in found(verify_dataset(tmp_path / "rows.parquet"), "schema").found


def test_columns_that_may_be_absent_or_more(rows: pl.DataFrame, tmp_path: Path) -> None:
    report = verified(rows.drop("sample_weight", "splice_type"), tmp_path)
    assert wrong(report) == {"schema": "warning"}
    assert report.ok
    assert report.verdict == "usable, with warnings"
    assert "no sample_weight: every row weighs 1" in found(report, "schema").found
    assert found(report, "labels").status == "not checked"
    middle = verified(rows.filter(pl.col("sequence").str.len_bytes() == 500).drop("index"), tmp_path)
    assert wrong(middle) == {"schema": "warning"}
    more = verified(rows.with_columns(note=pl.lit("x"), pair=pl.lit([1, 2]), nothing=pl.lit(None)), tmp_path)
    assert more.verdict == "usable"
    assert found(more, "schema").found.endswith("other columns: note, pair, nothing")


def test_other_types_of_the_same_columns(rows: pl.DataFrame, tmp_path: Path) -> None:
    wide = rows.with_columns(
        pl.col("label").cast(pl.Int64),
        pl.col("index", "position").cast(pl.UInt64),
        pl.col("splice_type", "gene_id", "chrom", "strand").cast(pl.Categorical),
        pl.col(FEATURES).cast(pl.Float64),
        note=pl.col("gene_id").cast(pl.Categorical),
    )
    assert verified(wide, tmp_path).verdict == "usable"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (first(4, "donor_score", float("nan")), "donor_score null, NaN or infinite: 4 rows"),
        (first(2, "gc_fraction", None), "gc_fraction null, NaN or infinite: 2 rows"),
        (first(2, "donor_logit", float("inf")), "donor_logit null, NaN or infinite: 2 rows"),
        (first(3, "acceptor_score", 1.5), "acceptor_score outside [0, 1]: 3 rows"),
        (first(3, "context_score_m2", -0.1), "context_score_m2 outside [0, 1]: 3 rows"),
        (first(5, "neither_score", 0.3), "scores that do not add up to 1: 5 rows"),
        (first(3, "label", 7), "label other than 0, 1, 2: 3 rows"),
        (first(3, "label", None), "label other than 0, 1, 2: 3 rows"),
        (first(2, "sample_weight", 0.0), "sample_weight that is not above 0 and finite: 2 rows"),
        (first(2, "sample_weight", float("inf")), "sample_weight that is not above 0 and finite: 2 rows"),
        (first(2, "sample_weight", None), "sample_weight that is not above 0 and finite: 2 rows"),
        (first(2, "index", 500), "index outside its sequence: 2 rows"),
        (first(2, "index", -1), "index outside its sequence: 2 rows"),
        (first(2, "index", None), "empty gene_id, chrom, strand, position or index: 2 rows"),
        (first(2, "sequence", None), "no sequence: 2 rows"),
        (first(2, "sequence", "ACGR" * 125), "sequence with a letter other than ACGTN: 2 rows"),
        (first(2, "strand", "."), "strand other than + and -: 2 rows"),
    ],
)
def test_values_out_of_range(rows: pl.DataFrame, tmp_path: Path, change: Change, text: str) -> None:
    # Rows without a site first: no changed score of theirs adds up to 1 by chance.
    report = verified(change(rows.sort("neither_score", descending=True)), tmp_path)
    assert report.verdict == "not usable"
    assert found(report, "ranges").status == "failed"
    assert text in found(report, "ranges").found
    assert not {"duplicates", "leaking columns", "donor letters", "acceptor letters"} & set(wrong(report))


def test_lower_case_letters_are_letters(rows: pl.DataFrame, tmp_path: Path) -> None:
    assert verified(rows.with_columns(pl.col("sequence").str.to_lowercase()), tmp_path).verdict == "usable"


def test_a_label_that_is_not_its_splice_type(rows: pl.DataFrame, tmp_path: Path) -> None:
    some = (pl.int_range(pl.len()) % 500 == 0) & ~SITE
    flipped = rows.with_columns(pl.when(some).then(0).otherwise("label").cast(pl.UInt8).alias("label"))
    report = verified(flipped, tmp_path)
    n = (flipped["label"] != rows["label"]).sum()
    assert n > 0
    assert wrong(report) == {"labels": "failed"}
    assert f"differs from splice_type in {n} rows" in found(report, "labels").found


@pytest.mark.parametrize("feature", ["probability_entropy", "has_gt", "gc_fraction", "signal_strength_ratio"])
def test_a_feature_that_is_not_its_formula(rows: pl.DataFrame, tmp_path: Path, feature: str) -> None:
    report = verified(rows.with_columns(pl.col(feature) * 2), tmp_path)
    assert wrong(report) == {"derived features": "failed"}
    assert (
        f"1 differ from their formula in all {len(rows):,} rows: {feature} in"
        in found(report, "derived features").found
    )


def test_a_feature_that_differs_in_a_few_rows_is_a_warning(rows: pl.DataFrame, tmp_path: Path) -> None:
    report = verified(first(3, "context_max", 0.123)(rows), tmp_path)
    assert wrong(report) == {"derived features": "warning"}
    assert "context_max in 3" in found(report, "derived features").found


def test_features_of_scores_before_rounding_agree(rows: pl.DataFrame, tmp_path: Path) -> None:
    """A file with float64 scores and features of them: ratios of small differences are not those of float32 scores."""
    rng = np.random.default_rng(0)
    scores = rows.select(ROW_SCORES).to_numpy().astype(np.float64)
    scores[:, 3:] = np.clip(scores[:, [0]] + rng.normal(0, 1e-7, (len(scores), 4)), 0, 1)
    exact = derived_features(scores)
    wide = rows.drop(ROW_FEATURES).with_columns(
        *(pl.Series(name, scores[:, i]) for i, name in enumerate(ROW_SCORES)),
        *(pl.Series(name, values) for name, values in exact.items()),
    )
    assert found(verified(wide, tmp_path), "derived features").status == "ok"
    rounded = wide.with_columns(pl.col(ROW_SCORES).cast(pl.Float32))
    assert found(verified(rounded, tmp_path), "derived features").status == "failed"


def test_a_class_that_is_missing_or_rare(rows: pl.DataFrame, tmp_path: Path) -> None:
    for code, name in enumerate(("donor", "acceptor", "neither")):
        report = verified(rows.filter(pl.col("label") != code), tmp_path)
        assert found(report, "class balance").status == "failed"
        assert f"add rows of class {name};" in found(report, "class balance").advice
    few = pl.concat([rows.filter(pl.col("label") != 0), rows.filter(pl.col("label") == 0)[:49]])
    assert wrong(verified(few, tmp_path)) == {"class balance": "warning"}
    enough = pl.concat([few, rows.filter(pl.col("label") == 0)[49:50]])
    assert wrong(verified(enough, tmp_path)) == {}


def test_rows_twice(rows: pl.DataFrame, tmp_path: Path) -> None:
    report = verified(pl.concat([rows, rows[10:13], rows[10:11]]), tmp_path)
    assert wrong(report) == {"duplicates": "failed"}
    assert "3 positions stand there more than once (7 rows)" in found(report, "duplicates").found
    assert f"{rows['gene_id'][10]} {rows['position'][10]}" in found(report, "duplicates").found


def test_identical_windows_with_different_labels(rows: pl.DataFrame, tmp_path: Path) -> None:
    copies = rows.filter(SITE)[:5].with_columns(pl.lit("copy").alias("gene_id"))
    assert wrong(verified(pl.concat([rows, copies]), tmp_path)) == {}
    neither = copies.with_columns(pl.lit(2, pl.UInt8).alias("label"), pl.lit("neither").alias("splice_type"))
    report = verified(pl.concat([rows, neither]), tmp_path)
    assert wrong(report) == {"identical windows": "warning"}
    assert "5 windows (10 rows)" in found(report, "identical windows").found
    elsewhere = neither.with_columns(pl.col("index") - 1)  # the same letters around another base
    assert "identical windows" not in wrong(verified(pl.concat([rows, elsewhere]), tmp_path))


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pl.lit("TP").alias("pred_type"), "pred_type is made from the label"),
        (pl.col("splice_type").str.head(1).alias("kind"), "kind determines the label"),
        (SITE.alias("annotated"), "annotated tells sites apart with an AUC of 1.0000"),
        (pl.when(SITE).then(pl.int_range(pl.len())).alias("site_number"), "site_number determines the label"),
        (
            (SITE.cast(pl.Float64) + pl.int_range(pl.len()).cast(pl.Float64) / 1e5).alias("evidence"),
            "evidence tells sites apart with an AUC of 1.0000",
        ),
    ],
)
def test_a_column_that_gives_the_label_away(rows: pl.DataFrame, tmp_path: Path, column: pl.Expr, text: str) -> None:
    report = verified(rows.with_columns(column), tmp_path)
    assert wrong(report) == {"leaking columns": "warning"}
    assert text in found(report, "leaking columns").found


def test_columns_that_give_nothing_away(rows: pl.DataFrame, tmp_path: Path) -> None:
    innocent = rows.with_columns(
        pl.int_range(pl.len()).alias("row"),
        pl.int_range(pl.len()).cast(pl.String).alias("row_name"),
        pl.lit("human").alias("species"),
        (pl.col("position") % 7).alias("remainder"),
        (3.0 - pl.col("label").cast(pl.Float32)).alias("sample_weight"),  # weights may follow the class
    )
    assert verified(innocent, tmp_path).verdict == "usable"


@pytest.mark.parametrize("feature", ["gc_fraction", "n_fraction", "context_asymmetry", "context_score_p2"])
def test_a_feature_that_knows_the_label(rows: pl.DataFrame, tmp_path: Path, feature: str) -> None:
    noise = pl.Series(np.random.default_rng(0).random(len(rows)).astype(np.float32))
    known = rows.with_columns((SITE.cast(pl.Float32) * 0.5 + noise * 0.5).alias(feature))
    report = verified(known, tmp_path)
    assert found(report, "single features").status == "failed"
    assert f"{feature} tells sites apart with an AUC of 1.0000" in found(report, "single features").found
    assert wrong(report) == {"derived features": "failed", "single features": "failed"}


def test_base_scores_may_be_excellent_but_not_perfect(rows: pl.DataFrame, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def scored(noise: float) -> pl.DataFrame:
        logits = rng.normal(0, noise, (len(rows), 3)) + 8.0 * np.eye(3)[rows["label"].to_numpy()]
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        context = rng.uniform(0, 0.01, (len(rows), 4))
        both = np.hstack([scores, context]).astype(np.float32)
        return recomputed(rows.with_columns(pl.Series(name, both[:, i]) for i, name in enumerate(ROW_SCORES)))

    excellent = verified(scored(3.0), tmp_path)
    assert excellent.verdict == "usable"
    assert "neither_score 0.99" in found(excellent, "single features").found
    perfect = verified(scored(0.1), tmp_path)
    assert wrong(perfect) == {"single features": "warning"}
    assert "acceptor_score, donor_score, neither_score without one mistake" in found(perfect, "single features").found


def test_areas_are_scikit_learns(prepared: Path, rows: pl.DataFrame) -> None:
    text = found(verify_dataset(prepared), "single features").found
    labels = rows["label"].to_numpy()
    for feature, positive, target in (("donor_score", labels == 0, "donors"), ("neither_score", labels < 2, "sites")):
        area = roc_auc_score(positive, rows[feature].to_numpy())
        assert f"{feature} {max(area, 1 - area):.4f} for {target}" in text


@pytest.mark.parametrize("by", [1, -1])
def test_an_index_shifted_by_one(rows: pl.DataFrame, tmp_path: Path, by: int) -> None:
    inside = (pl.col("index") + by).is_between(0, pl.col("sequence").str.len_bytes() - 1)
    report = verified(rows.filter(inside).with_columns(pl.col("index") + by), tmp_path)
    for site in ("donor", "acceptor"):
        check = found(report, f"{site} letters")
        assert check.status == "failed"
        assert f"{site} rows agree at {-by:+d} (100.0%)" in check.found
        assert (
            check.advice == f"{'subtract' if by > 0 else 'add'} 1 {'from' if by > 0 else 'to'} the index of {site} rows"
        )


def test_exon_bases_for_intron_bases(rows: pl.DataFrame, tmp_path: Path) -> None:
    """Trap 2: donor rows on the last, acceptor rows on the first exonic base."""
    offset = pl.when(pl.col("label") == 0).then(-1).when(pl.col("label") == 1).then(1).otherwise(0)
    report = verified(rows.with_columns((pl.col("index") + offset).cast(pl.Int32)), tmp_path)
    assert "donor rows agree at +1" in found(report, "donor letters").found
    assert "acceptor rows agree at -1" in found(report, "acceptor letters").found
    for site in ("donor", "acceptor"):
        assert found(report, f"{site} letters").status == "failed"
        assert "looks like the exon base" in found(report, f"{site} letters").advice


def turned(sequence: str) -> str:
    return decode(reverse_complement(encode(sequence)))


@pytest.mark.parametrize(
    ("letters", "mirrored", "text"),
    [
        (turned, False, "on the reverse complement with the index as it stands"),
        (turned, True, "on the reverse complement with the index mirrored too"),
        (lambda s: s[::-1], False, "on the reversed sequence with the index as it stands"),
        (lambda s: s[::-1], True, "on the reversed sequence with the index mirrored too"),
    ],
)
@pytest.mark.parametrize("strands", ["+-", "-"])
def test_sequences_of_the_wrong_strand(
    rows: pl.DataFrame, tmp_path: Path, letters: Callable[[str], str], mirrored: bool, text: str, strands: str
) -> None:
    concerned = pl.col("strand").is_in(list(strands))
    other = rows["sequence"].map_elements(letters, return_dtype=pl.String)
    index = pl.col("sequence").str.len_bytes().cast(pl.Int32) - 1 - pl.col("index") if mirrored else pl.col("index")
    inside = rows.with_columns(
        pl.when(concerned).then(other).otherwise("sequence").alias("sequence"),
        pl.when(concerned).then(index).otherwise("index").alias("index"),
    )
    report = verified(inside, tmp_path)
    for site in ("donor", "acceptor"):
        check = found(report, f"{site} letters")
        assert check.status == "failed"
        assert f"{site} rows agree {text} (100.0%)" in check.found
        assert "transcript sense" in check.advice
        if strands == "-":
            assert "(+ genes 100.0%, - genes" in check.found


def test_some_sites_without_their_letters_are_a_warning(rows: pl.DataFrame, tmp_path: Path) -> None:
    """A fifth of the donors on random bases: no shift would mend them."""
    donors = pl.col("label") == 0
    fifth = donors & (pl.int_range(pl.len()).over("label") % 5 == 0)
    report = verified(
        rows.with_columns(pl.when(fifth).then(pl.lit("A" * 500)).otherwise("sequence").alias("sequence")), tmp_path
    )
    check = found(report, "donor letters")
    assert check.status == "warning"
    assert "GT at 80.0%" in check.found
    assert "agree" not in check.found
    assert found(report, "acceptor letters").status == "ok"


def test_a_split_that_holds(prepared: Path) -> None:
    manifest = make_split(prepared, prepared.parent / "genes.parquet", SplitConfig(by="gene"))
    check = found(verify_dataset(prepared, manifest), "genes across parts")
    assert check.status == "ok"
    assert "overlapping genes: none cross" in check.found


def test_a_split_that_leaks(prepared: Path, rows: pl.DataFrame, tmp_path: Path) -> None:
    genes = pl.read_parquet(prepared.parent / "genes.parquet")
    manifest = make_split(prepared, prepared.parent / "genes.parquet", SplitConfig(by="gene"))
    crossing = manifest["test"]["genes"][0]
    in_two = {**manifest, "train": {"genes": [*manifest["train"]["genes"], crossing]}}
    report = verify_dataset(prepared, in_two)
    assert wrong(report) == {"genes across parts": "failed"}
    assert f"gene {crossing} is in both train and test" in found(report, "genes across parts").found

    (tmp_path / "manifest.json").write_text(json.dumps({"split": manifest}), encoding="utf-8")
    held = manifest["train"]["genes"][0]
    place = genes.filter(pl.col("gene_id") == held).select("chrom", "strand", "start", "end").row(0)
    over = genes.with_columns(
        pl.when(pl.col("gene_id") == crossing).then(pl.lit(value)).otherwise(name).alias(name)
        for name, value in zip(("chrom", "strand", "start", "end"), place, strict=True)
    )
    over.write_parquet(tmp_path / "genes.parquet")
    beside = found(verified(rows, tmp_path), "genes across parts")
    assert beside.status == "failed"
    assert "overlaps" in beside.found


def test_a_split_of_another_file(prepared: Path, rows: pl.DataFrame, tmp_path: Path) -> None:
    ids = sorted(rows["gene_id"].unique())
    (tmp_path / "genes.parquet").write_bytes((prepared.parent / "genes.parquet").read_bytes())
    manifest = {"train": {"genes": ids}, "valid": {"genes": ["elsewhere"]}, "test": {"genes": []}}
    check = found(verified(rows, tmp_path, manifest=manifest), "genes across parts")
    assert check.status == "warning"
    assert "no gene of the file is in valid, test" in check.found
    without = {"train": {"genes": ids[2:]}, "valid": {"genes": []}, "test": {"genes": []}, "left_out": {ids[0]: "why"}}
    check = found(verified(rows, tmp_path, manifest=without), "genes across parts")
    assert f"1 genes are in no part ({ids[1]})" in check.found
    check = found(verified(rows, tmp_path, manifest={"train": ids}), "genes across parts")
    assert (check.status, "make_split" in check.found) == ("failed", True)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("manifest.json", b"{", "manifest.json beside the file is no JSON"),
        ("manifest.json", b"{}", "no split given"),
        ("genes.parquet", b"no table", "genes.parquet beside the file cannot be read"),
    ],
)
def test_files_beside_it_that_say_nothing(
    rows: pl.DataFrame, tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    (tmp_path / name).write_bytes(content)
    manifest = {part: {"genes": []} for part in ("train", "valid", "test")} if name == "genes.parquet" else None
    report = verified(rows, tmp_path, manifest=manifest)
    assert found(report, "genes across parts").status == "not checked"
    assert text in found(report, "genes across parts").found


def test_a_gene_table_of_another_form(rows: pl.DataFrame, tmp_path: Path) -> None:
    pl.DataFrame({"gene": ["a"]}).write_parquet(tmp_path / "genes.parquet")
    manifest = {part: {"genes": []} for part in ("train", "valid", "test")}
    check = found(verified(rows, tmp_path, manifest=manifest), "genes across parts")
    assert (check.status, "'gene_id'" in check.found) == ("not checked", True)


def test_more_than_one_batch(rows: pl.DataFrame, tmp_path: Path) -> None:
    copies = BATCH_ROWS // len(rows) + 2
    many = pl.concat([rows.with_columns(pl.col("gene_id") + f"_{copy}") for copy in range(copies)])
    later = pl.int_range(pl.len()) >= BATCH_ROWS
    other_later = pl.when(later).then(2 - pl.col("label")).otherwise("label").alias("other_later")
    report = verified(many.with_columns(other_later, kind=pl.col("label").cast(pl.String)), tmp_path)
    assert wrong(report) == {"leaking columns": "warning"}
    assert "kind determines the label" in found(report, "leaking columns").found
    assert "other_later determines" not in found(report, "leaking columns").found
    assert "a sample of 20,000 rows" in found(report, "derived features").found
    assert f"{copies * (rows['label'] == 0).sum():,} donor" in found(report, "class balance").found
    twice = verified(pl.concat([many, many[:1]]), tmp_path)
    assert wrong(twice) == {"duplicates": "failed"}


def test_no_rows(rows: pl.DataFrame, tmp_path: Path) -> None:
    report = verified(rows[:0], tmp_path)
    assert wrong(report) == {"class balance": "failed"}
    assert report.verdict == "not usable"


def test_rows_of_which_none_can_be_read(rows: pl.DataFrame, tmp_path: Path) -> None:
    report = verified(rows.with_columns(pl.lit(None, pl.String).alias("sequence")), tmp_path)
    assert found(report, "ranges").status == "failed"
    for name in ("derived features", "donor letters", "acceptor letters"):
        assert found(report, name).status == "not checked"


def test_what_is_no_parquet(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        verify_dataset(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("gene_id\tlabel\n", encoding="utf-8")
    whole = prepared.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "zeros.parquet").write_bytes(whole[:4] + bytes(100_000) + whole[100_004:])
    for name in ("text", "cut", "zeros"):
        with pytest.raises(ArtifactError, match="not a whole Parquet file"):
            verify_dataset(tmp_path / f"{name}.parquet")
    with pytest.raises(ArtifactError, match="not a whole Parquet file"):
        verify_dataset(tmp_path)


def test_a_file_of_another_writer(rows: pl.DataFrame, tmp_path: Path) -> None:
    """One row group, dictionary-encoded text, as pandas and pyarrow write."""
    table = rows.to_arrow()
    columns = {
        name: table[name].cast(pa.string()).dictionary_encode() if name in ("gene_id", "chrom") else table[name]
        for name in table.column_names
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=10**7)
    assert verify_dataset(tmp_path / "rows.parquet").verdict == "usable"


@pytest.mark.parametrize("base_model", ["openspliceai_80", "openspliceai_10000"])
def test_real_rows(shared: Path, tmp_path: Path, base_model: str) -> None:
    """Usable: rows of bases that overlapping genes label differently, whose windows are identical, are left out."""
    report = verify_dataset(training_set(DataConfig(base_model=base_model, data_root=shared / "real"), tmp_path))
    assert report.ok
    assert wrong(report) == {}
    for letters, rate in (("donor letters", "GT at 99."), ("acceptor letters", "AG at 99.")):
        assert rate in found(report, letters).found
