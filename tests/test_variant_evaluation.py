"""Labelled variants: what is read, what counts, the figures against others' and by hand, tables of probabilities."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from metalayer import cli
from metalayer.base.simulator import simulate_genes, simulate_variants
from metalayer.errors import ConfigError, InputError
from metalayer.evaluation.detection import Items, detection, figures, found_at
from metalayer.evaluation.detection_tables import area_table, calibration_table, threshold_table
from metalayer.settings.sections import EvaluateConfig
from metalayer.variants import score_variants
from metalayer.variants.calibration import (
    MIN_OF_EACH,
    Calibration,
    best_threshold,
    fit_curves,
    held_out,
    refuse_too_few,
    slope_of,
)
from metalayer.variants.calls import Sources
from metalayer.variants.kinds import KINDS
from metalayer.variants.labelled import LabelledFile, read_labelled
from metalayer.variants.letters import Letters
from metalayer.variants.scoring import Options
from metalayer.workflows.variant_evaluation import NOT_ANSWERED, Request, calibrate_variants, evaluate_variants
from tests import variant_genomes as made

TEXT = made.letters()
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
QUICK = EvaluateConfig(n_bootstrap=100)


def snv(at: int) -> str:
    """A substitution at a 0-based place."""
    return f"chr1-{at + 1}-{TEXT[at]}-{OTHER[TEXT[at]]}"


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made.write(tmp_path_factory.mktemp("genome"), TEXT)


def read(genome: tuple[Path, Path], path: Path, content: str | bytes, **options: Any) -> LabelledFile:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with Letters(genome[0]) as letters:
        return read_labelled(path, letters, **options)


def known(found: LabelledFile) -> list[tuple[str, bool, str]]:
    return [(one.variant.text, one.altering, one.gene) for one in found.variants]


@pytest.mark.parametrize(
    "content",
    [
        f"{snv(321)}\t1\n{snv(330)}\t0\n",
        f"variant,label\n{snv(321)},yes\n\n{snv(330)},No\n",
        f"#label\tVariant\nSplice-altering\t{snv(321).replace('-', ':')}\nNORMAL\t{snv(330)}\n",
        f"\ufeffvariant\tlabel\tnote\nchr1:g.322{TEXT[321]}>{OTHER[TEXT[321]]}\ttrue\tx\r\n{snv(330)}\tfalse\t\r\n",
    ],
)
def test_plain_forms(tmp_path: Path, genome: tuple[Path, Path], content: str) -> None:
    found = read(genome, tmp_path / "labels", content)
    assert known(found) == [(snv(321), True, ""), (snv(330), False, "")]
    assert (found.form, found.build, found.passed_over, found.repeated) == ("table", None, {}, 0)


def test_a_column_names_the_gene_and_doubtful_labels_are_counted(tmp_path: Path, genome: tuple[Path, Path]) -> None:
    lines = ["variant\tgene\tlabel", f"{snv(1420)}\tOVER\t1", f"{snv(1421)}\t\tconflicting", f"{snv(1420)}\tMINUS\t0"]
    found = read(genome, tmp_path / "labels", "\n".join(lines))
    assert known(found) == [(snv(1420), True, "OVER"), (snv(1420), False, "MINUS")]
    assert found.passed_over == {"conflicting": 1}


def test_a_haplotype_counts_once_however_it_is_written(tmp_path: Path, genome: tuple[Path, Path]) -> None:
    left, right = f"chr1-300-{TEXT[299:302]}-{TEXT[299]}", f"1-302-{TEXT[301:304]}-{TEXT[301]}"
    found = read(genome, tmp_path / "labels", f"{left}\t1\n{right}\t1\n{snv(330)}\t0\n")
    assert known(found) == [(left, True, ""), (snv(330), False, "")]
    assert found.repeated == 1
    with pytest.raises(InputError, match=rf"1 are there with two labels: {right} \(lines 1 and 2\); give each one"):
        read(genome, tmp_path / "labels", f"{left}\t1\n{right}\t0\n{snv(330)}\t0\n")


def splicevardb(lines: Sequence[tuple[str, str, str]]) -> str:
    rows = [f"{number}\t{one}\t{other}\tG\t{kind}" for number, (one, other, kind) in enumerate(lines)]
    return "\n".join(["variant_id\thg19\thg38\tgene\tclassification", *rows]) + "\n"


def test_splicevardb_and_the_column_of_the_genome(tmp_path: Path, genome: tuple[Path, Path]) -> None:
    elsewhere = f"1-1-{OTHER[TEXT[0]]}-{TEXT[0]}"
    lines = [
        (elsewhere, f'"{snv(321)[3:]}"', "Splice-altering"),
        (elsewhere, snv(330)[3:], "Normal"),
        (elsewhere, snv(331)[3:], "Low-frequency"),
        (elsewhere, "?", "Normal"),
    ]
    found = read(genome, tmp_path / "labels", splicevardb(lines))
    assert (found.form, found.build) == ("SpliceVarDB, hg38", "GRCh38")
    assert known(found) == [(snv(321)[3:], True, "G"), (snv(330)[3:], False, "G")]
    assert found.passed_over == {"low-frequency": 1, "unreadable coordinates": 1}
    swapped = splicevardb([(other, one, kind) for one, other, kind in lines])
    assert read(genome, tmp_path / "labels", swapped).form == "SpliceVarDB, hg19"
    assert read(genome, tmp_path / "labels", swapped, build="hg19").build == "GRCh37"
    both = splicevardb([(snv(321), snv(321), "Normal")])
    with pytest.raises(InputError, match=r"1 of 1 in hg38, 1 of 1 in hg19; needed are 90% in one .* --build takes one"):
        read(genome, tmp_path / "labels", both)
    with pytest.raises(InputError, match="0 of 1 in hg38, 0 of 1 in hg19"):
        read(genome, tmp_path / "labels", splicevardb([(elsewhere, elsewhere, "Normal")]))
    with pytest.raises(InputError, match="--build mm10: SpliceVarDB has GRCh38 and GRCh37"):
        read(genome, tmp_path / "labels", both, build="mm10")


def vcf(*lines: str) -> str:
    head = [
        "##fileformat=VCFv4.2",
        '##INFO=<ID=ALTERING,Number=0,Type=Flag,Description="x">',
        '##INFO=<ID=KIND,Number=A,Type=String,Description="x">',
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
    ]
    return "\n".join([*head, *lines]) + "\n"


def test_a_flag_or_a_field_of_vcf_is_the_label(tmp_path: Path, genome: tuple[Path, Path]) -> None:
    ref, alt = TEXT[321], OTHER[TEXT[321]]
    third = OTHER[alt]
    lines = [
        f"chr1\t322\t.\t{ref}\t{alt},{third}\t.\t.\tALTERING;KIND=yes,no",
        f"chr1\t331\t.\t{TEXT[330]}\t{OTHER[TEXT[330]]}\t.\t.\tDP=3",
        f"chr1\t332\t.\t{TEXT[331]}\t.\t.\t.\tALTERING",
    ]
    content = gzip.compress(vcf(*lines).encode())
    by_flag = read(genome, tmp_path / "labels.vcf.gz", content, label="ALTERING")
    assert [of for _, of, _ in known(by_flag)] == [True, True, False]
    assert by_flag.passed_over == {"no other allele": 1}
    by_field = read(genome, tmp_path / "labels.vcf", vcf(*lines), label="KIND")
    assert [(text[-1], of) for text, of, _ in known(by_field)] == [(alt, True), (third, False)]
    assert by_field.passed_over == {"no label": 1, "no other allele": 1}
    with pytest.raises(InputError, match=r"--label AF: no INFO field of .*, whose header declares ALTERING, KIND"):
        read(genome, tmp_path / "labels.vcf", vcf(*lines), label="AF")
    with pytest.raises(InputError, match="of VCF, --label names the INFO flag or field"):
        read(genome, tmp_path / "labels.vcf", vcf(*lines))
    uneven = lines[0].replace("yes,no", "yes,no,no")
    with pytest.raises(InputError, match="record 1: 3 labels in KIND for 2 ALT; give one, or one each"):
        read(genome, tmp_path / "labels.vcf", vcf(uneven), label="KIND")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty; needed is a table of variants with labels"),
        (
            f"{snv(321)}\tmaybe\n",
            r"line 1: label 'maybe'; allowed are, .* splice-altering, 1, yes, true, altering; for",
        ),
        (f"variant\tlabel\n{snv(321)}\t\n", "line 2: label ''; allowed are"),
        (f"{snv(321)}\t1\t2\n", "line 1: 3 columns, needed are 2: variant and label with a tab or comma between"),
        ("chr1-x-A-C\t1\n", "line 1: variant 'chr1-x-A-C': needed is CHROM:POS:REF:ALT"),
        ("variant\tlabel\n", "none has a label; needed is a table"),
        (f"{snv(321)}\tconflicting\n", "none has a label: 1 conflicting; needed is a table"),
        ("@HD\tVN:1.6\n", "this is SAM, aligned reads; needed is a table"),
        (splicevardb([("?", snv(321), "Benign")]), "line 2: label 'benign'; allowed are"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, genome: tuple[Path, Path], content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(genome, tmp_path / "labels", content)


def items(n: int = 400, clusters: int = 30, seed: int = 2) -> Items:
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.4
    scores = {name: np.round(np.clip(random.normal(0.3, 0.2, n) + shift * positive, 0, 1), 2) for name, shift in
              (("base", 0.15), ("metalayer", 0.3))}  # fmt: skip
    return Items(positive, random.integers(0, clusters, n), scores)


def test_figures_are_those_of_scikit_learn_and_of_counting_by_hand() -> None:
    given = items()
    report = detection(given, {"all": np.ones(400, bool)}, QUICK, ours="metalayer", thresholds=(0.2, 0.5))
    found = report["all"]
    assert (found["altering"], found["neutral"]) == (given.positive.sum(), (~given.positive).sum())
    for name, scores in given.scores.items():
        of = found["systems"][name]
        assert of["roc_auc"]["value"] == pytest.approx(roc_auc_score(given.positive, scores))
        assert of["pr_auc"]["value"] == pytest.approx(average_precision_score(given.positive, scores))
        for row, threshold in zip(of["thresholds"], (0.2, 0.5), strict=True):
            called = scores >= threshold
            assert row["found"] == (called & given.positive).sum()
            assert row["false_calls"] == (called & ~given.positive).sum()
            assert row["sensitivity"]["value"] == pytest.approx(called[given.positive].mean())
            assert row["false_positive_rate"]["value"] == pytest.approx(called[~given.positive].mean())
            assert row["precision"]["value"] == pytest.approx(given.positive[called].mean())
            assert row["sensitivity"]["low"] < row["sensitivity"]["value"] < row["sensitivity"]["high"]
        equal = found["equal_false_calls"].get(name, [])
        for row in equal:
            worst = np.sort(scores[~given.positive])[::-1][row["false_calls"]]
            assert row[name] == (scores[given.positive] > worst).sum()
    gap = found["differences"]["base"]["roc_auc"]
    assert gap["value"] == pytest.approx(
        found["systems"]["metalayer"]["roc_auc"]["value"] - found["systems"]["base"]["roc_auc"]["value"]
    )
    assert 0 < gap["low"] < gap["high"]


def test_more_false_calls_than_neutral_ones_find_all() -> None:
    positive, scores = np.array([True, False, True]), np.array([0.1, 0.5, 0.5])
    assert [found_at(positive, scores, n) for n in (0, 1, 2)] == [0, 2, 2]


def test_groups_of_one_label_have_no_areas_and_few_clusters_no_interval() -> None:
    given = items()
    groups = {
        "all": np.ones(400, bool),
        "altering": given.positive,
        "none": np.zeros(400, bool),
        "few": given.clusters < 3,
    }
    report = {"groups": detection(given, groups, QUICK, ours="metalayer"), "ours": "metalayer"}
    of = report["groups"]["altering"]["systems"]["base"]
    assert of["roc_auc"] is None and of["pr_auc"] is None
    assert of["thresholds"][2]["false_positive_rate"] is None and of["thresholds"][2]["sensitivity"]["value"] > 0
    assert report["groups"]["few"]["systems"]["base"]["roc_auc"]["low"] is None
    assert report["groups"]["none"]["systems"] == {}
    table = figures(report)
    assert table.filter(pl.col("group") == "none").is_empty()
    assert set(table["system"]) == {"base", "metalayer", "metalayer - base"}
    text = area_table(report)
    assert "none" not in text.replace("no interval", "") and text.splitlines()[4].split() == [
        "altering",
        *_counts(report),
        "all",
        "-",
        "-",
    ]


def _counts(report: dict[str, Any]) -> list[str]:
    of = report["groups"]["altering"]
    return [str(of["altering"]), str(of["neutral"])]


def test_tables_are_at_most_100_columns_wide() -> None:
    given = items(2000)
    long = Items(
        given.positive,
        given.clusters,
        {"openspliceai_10000": given.scores["base"], "metalayer": given.scores["metalayer"]},
    )
    groups = {"splice_region": np.ones(2000, bool)}
    report = {"groups": detection(long, groups, QUICK, ours="metalayer")}
    text = area_table(report) + "\n" + threshold_table(report["groups"]["splice_region"])
    assert "opensp~10000" in text
    assert max(map(len, text.splitlines())) <= 100


def curves_of(change: np.ndarray, altering: np.ndarray, kinds: list[str]) -> Any:
    return fit_curves(change, altering, kinds)


def drawn(n: int = 3000, seed: int = 4) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """|delta|, labels that follow a known curve by kind, kinds and clusters."""
    random = np.random.default_rng(seed)
    kinds = random.choice(["exonic", "deep_intronic", "canonical"], n, p=[0.48, 0.5, 0.02]).tolist()
    x = random.normal(-1.5, 2.0, n)
    slope = np.where(np.array(kinds) == "deep_intronic", 1.2, 0.7)
    bias = np.where(np.array(kinds) == "deep_intronic", 2.0, -0.5)
    altering = random.random(n) < 1 / (1 + np.exp(-(slope * x + bias)))
    return 1 / (1 + np.exp(-x)), altering, kinds, random.integers(0, 60, n)


def test_curves_are_found_again_and_never_fall() -> None:
    change, altering, kinds, _ = drawn(12_000)
    altering[np.array(kinds) == "canonical"] = True
    curves = fit_curves(change, altering, kinds)
    assert curves["deep_intronic"].slope == pytest.approx(1.2, abs=0.15)
    assert curves["deep_intronic"].bias == pytest.approx(2.0, abs=0.25)
    assert curves["exonic"].slope == pytest.approx(0.7, abs=0.15)
    assert not curves["exonic"].pooled
    # Too few of one label, or none at all: the curve of all.
    assert curves["canonical"] == curves["splice_region"]
    assert curves["canonical"].pooled and curves["canonical"].altering == altering.sum()
    grid = np.linspace(0, 1, 101)
    for curve in curves.values():
        p = curve.probability(grid)
        assert (np.diff(p) >= 0).all()
        n = curve.altering + curve.neutral
        assert p.min() >= 1 / (n + 2) and p.max() <= 1 - 1 / (n + 2)
    upside_down = fit_curves(change, ~altering, kinds)
    assert upside_down["exonic"].slope == 0.0


def test_of_many_variants_the_prior_says_nothing() -> None:
    change, altering, kinds, _ = drawn(20_000)
    here = np.array(kinds) == "exonic"
    x = np.log(np.clip(change, 0.001, 0.999) / (1 - np.clip(change, 0.001, 0.999)))[here][:, None]
    plain = LogisticRegression(C=np.inf).fit(x, altering[here])
    curve = fit_curves(change, altering, kinds)["exonic"]
    assert curve.slope == pytest.approx(plain.coef_[0, 0], abs=0.01)
    assert curve.bias == pytest.approx(plain.intercept_[0], abs=0.01)


def test_held_out_probabilities_know_nothing_of_their_cluster() -> None:
    change, altering, kinds, clusters = drawn()
    first = held_out(change, altering, kinds, clusters, seed=1)
    turned = altering.copy()
    turned[clusters == 7] ^= True
    again = held_out(change, turned, kinds, clusters, seed=1)
    assert (first[clusters == 7] == again[clusters == 7]).all()
    assert not np.allclose(first, again)
    slope = slope_of(first, altering, clusters)
    assert slope is not None and abs(slope[0] - 1) < 3 * slope[1] < 0.3
    twice = slope_of(1 / (1 + (1 / first - 1) ** 2), altering, clusters)
    assert twice is not None and twice[0] == pytest.approx(slope[0] / 2, rel=1e-6)
    assert slope_of(np.where(altering, 0.9, 0.1), altering, clusters) is None


def test_best_threshold_by_hand() -> None:
    change = np.array([0.0, 0.01, 0.02, 0.5, 0.03, 0.9])
    altering = np.array([False, False, False, False, True, True])
    clusters = np.arange(6)
    weights = np.ones((1, 6))
    found = best_threshold(change, altering, clusters, weights, 0.95)
    assert (found.threshold, found.sensitivity, found.specificity) == (0.03, 1.0, 0.75)
    assert found.low is None and found.high is None
    resampled = np.concatenate([weights, [[1, 1, 1, 1, 0, 1]] * 3])  # without 0.03 the best is 0.9
    found = best_threshold(change, altering, clusters, resampled, 0.95)
    assert (found.threshold, found.low, found.high) == (0.03, 0.9, 0.9)


def test_too_few_variants_are_refused() -> None:
    altering = np.arange(60) < 30
    refuse_too_few(altering, np.arange(60) % 7, 5)
    with pytest.raises(InputError, match=r"30 altering ones in 4 clusters of genes and 30 neutral .* needed are 20 of"):
        refuse_too_few(altering, np.arange(60) % 4, 5)
    with pytest.raises(InputError, match="10 altering ones"):
        refuse_too_few(np.arange(60) < 10, np.arange(60) % 7, 5)


@pytest.fixture(scope="module")
def planted(made_once: Any, simulation: Path) -> dict[str, Path]:
    """Variants with planted effects in simulated genes, a model of half of them, and the figures of both."""

    def make(folder: Path) -> None:
        found = simulate_variants(simulate_genes(11, 44), 11, share=0.35)
        lines = [f"chr{one.variant.text}\t{int(one.classification == 'Splice-altering')}\n" for one in found]
        (folder / "labels.tsv").write_text("".join(dict.fromkeys(lines)))
        scores = [str(simulation / "nucleotide_scores" / f"pwm_chr{chrom}.parquet") for chrom in "12345"]
        given = ["--base-model", "pwm", "--set", "head=stack", "--output-dir", str(folder / "trained")]
        assert cli.main(["train", "--scores", *scores, *given]) == 0
        evaluate_variants(_request(folder, simulation, model=folder / "trained" / "model"), folder / "judged")

    folder = made_once("planted_variants", make)
    return {"labels": folder / "labels.tsv", "model": folder / "trained" / "model", "judged": folder / "judged"}


def _request(folder: Path, simulation: Path, *, answers: Path | None = None, **sources: Any) -> Request:
    genome = simulation / "genome"
    bases = [] if answers else ["pwm"]
    given = Sources(genome / "simulated.fa", genome / "simulated.gff3", bases, device="cpu", **sources)
    return Request(folder / "labels.tsv", given, answers=answers, config=QUICK)


def test_ours_finds_at_least_what_the_base_finds_at_equal_false_alarms(planted: dict[str, Path]) -> None:
    report = json.loads((planted["judged"] / "report.json").read_text())
    whole = report["groups"]["all"]
    assert whole["altering"] > 50 and whole["neutral"] > 50
    for row in whole["equal_false_calls"]["pwm"]:
        assert row["metalayer"] >= row["pwm"], row
    assert sum(row["metalayer"] - row["pwm"] for row in whole["equal_false_calls"]["pwm"]) > 20
    assert whole["differences"]["pwm"]["roc_auc"]["low"] > 0


def test_genes_of_the_training_do_not_count(planted: dict[str, Path], simulation: Path) -> None:
    report = json.loads((planted["judged"] / "report.json").read_text())
    table = pl.read_parquet(planted["judged"] / "variants.parquet")
    trained = {"1", "2", "3", "4", "5"}
    assert set(table.filter(pl.col("reason") == "seen_in_training")["contig"]) == trained
    assert trained.isdisjoint(table.filter(pl.col("reason").is_null())["contig"])
    left = report["not_counted"]["seen_in_training"]
    assert left["altering"] + left["neutral"] == (table["reason"] == "seen_in_training").sum()
    answers = planted["judged"] / "answers.parquet"
    asked = _request(planted["labels"].parent, simulation, answers=answers, model=planted["model"])
    again = evaluate_variants(asked)
    assert again["groups"] == report["groups"]  # of what was written, without scoring
    unknown = evaluate_variants(_request(planted["labels"].parent, simulation, answers=answers))
    assert unknown["genes_seen_in_training"] is None and unknown["not_counted"] == {}


def test_groups_are_those_of_the_table(planted: dict[str, Path]) -> None:
    report = json.loads((planted["judged"] / "report.json").read_text())
    table = pl.read_parquet(planted["judged"] / "variants.parquet").filter(pl.col("reason").is_null())
    for kind in KINDS:
        here = table.filter(pl.col("kind") == kind)
        of = report["groups"][kind]
        assert (of["altering"], of["altering"] + of["neutral"]) == (here["altering"].sum(), len(here))
    bins = [of for name, of in report["groups"].items() if name.startswith(("intron", "exon "))]
    assert sum(of["altering"] + of["neutral"] for of in bins) == len(table)
    here = table.filter((pl.col("side") == "intron") & pl.col("distance").is_between(3, 8))
    assert report["groups"]["intron 3-8"]["altering"] == here["altering"].sum()
    written = pl.read_csv(planted["judged"] / "detection.tsv", separator="\t")
    (area,) = written.filter(
        (pl.col("group") == "all") & (pl.col("system") == "pwm") & (pl.col("metric") == "roc_auc")
    )["value"]
    assert area == pytest.approx(roc_auc_score(table["altering"], table["pwm"]))


def test_answers_of_vcf_are_those_of_parquet_to_four_decimals(
    planted: dict[str, Path], simulation: Path, tmp_path: Path
) -> None:
    table = pl.read_parquet(planted["judged"] / "variants.parquet")
    lines = [f"{row['chrom']}\t{row['pos']}\t.\t{row['ref']}\t{row['alt']}\t.\t.\t.\n" for row in table.to_dicts()]
    given = tmp_path / "in.vcf"
    given.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + "".join(lines[1:]))
    genome = ["--fasta", str(simulation / "genome/simulated.fa"), "--annotation"]
    genome += [str(simulation / "genome/simulated.gff3"), "--base", "pwm"]
    assert cli.main(["variants", str(given), "-O", str(tmp_path / "out.vcf.gz"), *genome]) == 0
    asked = _request(planted["labels"].parent, simulation, answers=tmp_path / "out.vcf.gz")
    evaluate_variants(asked, tmp_path / "judged")
    found = pl.read_parquet(tmp_path / "judged" / "variants.parquet")
    assert found["reason"].to_list()[0] == NOT_ANSWERED and found["reason"][1:].null_count() == len(found) - 1
    assert np.abs(found["pwm"][1:].to_numpy() - table["pwm"][1:].to_numpy()).max() < 1.01e-4
    assert not (tmp_path / "judged" / "answers.parquet").exists()
    masked = tmp_path / "masked.vcf"
    assert cli.main(["variants", str(given), "-O", str(masked), *genome, "--mask"]) == 0
    assert cli.main(["variants", str(given), "-O", str(tmp_path / "masked.parquet"), *genome, "--mask"]) == 0
    both = [
        evaluate_variants(_request(planted["labels"].parent, simulation, answers=path))["groups"]["all"]["systems"][
            "pwm"
        ]
        for path in (masked, tmp_path / "masked.parquet")
    ]
    assert both[0]["roc_auc"]["value"] == pytest.approx(both[1]["roc_auc"]["value"], abs=0.005)


def test_a_table_is_fitted_written_and_read_by_the_commands(
    planted: dict[str, Path], simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genome = ["--fasta", str(simulation / "genome/simulated.fa"), "--annotation"]
    genome += [str(simulation / "genome/simulated.gff3")]
    answers, table = str(planted["judged"] / "answers.parquet"), tmp_path / "table.json"
    given = [str(planted["labels"]), *genome, "--answers", answers, "--score", "pwm", "-O", str(table)]
    assert cli.main(["variants", "calibrate", *given]) == 0
    assert "table for scores of pwm" in capsys.readouterr().out
    calibration = Calibration.read(table)
    held = calibration.about["held_out"]["all"]
    assert held["calibrated"]["log_loss"]["value"] < held["delta"]["log_loss"]["value"]
    assert held["calibrated"]["brier"]["value"] < held["delta"]["brier"]["value"]
    assert abs(held["calibrated"]["slope"]["value"] - 1) < 0.25
    assert calibration.about["fitted_on"]["variants"]["sha256"]
    (row,) = pl.read_parquet(planted["judged"] / "variants.parquet").filter(pl.col("pwm") > 0.5)[:1].to_dicts()
    text = f"{row['chrom']}-{row['pos']}-{row['ref']}-{row['alt']}"
    expected = calibration.probability(row["kind"], row["pwm"])
    assert cli.main(["variant", text, *genome, "--base", "pwm", "--calibration", str(table)]) == 0
    assert f"alters splicing with probability {expected:.4f}" in capsys.readouterr().out
    python = score_variants([text], fasta=genome[1], annotation=genome[3], base="pwm", calibration=table).filter(
        pl.col("gene_id") == row["gene_id"]
    )
    assert python["probability"].to_list() == pytest.approx([expected], abs=1e-6)
    assert python["kind"].to_list() == [row["kind"]]
    given_vcf = tmp_path / "in.vcf"
    given_vcf.write_text(
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"{row['chrom']}\t{row['pos']}\t.\t{row['ref']}\t{row['alt']},*\t.\t.\tMetaLayerProbability=old\n"
        "chr1\t1\t.\t" + "N\tA\t.\t.\t.\n"
    )
    run = ["variants", str(given_vcf), *genome, "--base", "pwm", "--calibration", str(table), "-O"]
    cli.main([*run, str(tmp_path / "out.vcf")])
    lines = (tmp_path / "out.vcf").read_text().splitlines()
    (declared,) = [line for line in lines if line.startswith("##INFO=<ID=MetaLayerProbability,")]
    assert "Format: ALLELE|SYMBOL|PROBABILITY|KIND" in declared and "table.json" in declared
    entries = dict(part.partition("=")[::2] for part in lines[-2].split("\t")[7].split(";"))
    assert f"{row['alt']}|{row['gene_name']}|{expected:.4f}|{row['kind']}" in entries["MetaLayerProbability"].split(",")
    assert "MetaLayerProbability" not in lines[-1]
    cli.main([*run, str(tmp_path / "out.tsv")])
    rows = pl.read_csv(tmp_path / "out.tsv", separator="\t").filter(pl.col("gene_id") == row["gene_id"])
    assert rows["probability"][0] == pytest.approx(expected, abs=1e-5)
    capsys.readouterr()
    for other, words in (
        (["--distance", "60"], "distance 50, here 60"),
        (["--mask"], "mask False, here True"),
        (["--flanks", "real"], "flanks N, here real"),
    ):
        assert cli.main(["variant", text, *genome, "--base", "pwm", "--calibration", str(table), *other]) == 2
        assert words in capsys.readouterr().err
    for_ours = tmp_path / "ours.json"
    asked = _request(planted["labels"].parent, simulation, answers=Path(answers), model=planted["model"])
    assert calibrate_variants(asked, for_ours)["fitted_for"]["score"] == "metalayer"
    assert cli.main(["variant", text, *genome, "--base", "pwm", "--calibration", str(for_ours)]) == 2
    assert "fitted for scores of metalayer; this run has those of pwm" in capsys.readouterr().err
    with pytest.raises(InputError, match="--score spliceai: there are pwm, metalayer"):
        calibrate_variants(asked, for_ours, "spliceai")
    table.write_text(table.read_text().replace('"slope"', '"Slope"', 1))
    assert cli.main(["variant", text, *genome, "--base", "pwm", "--calibration", str(table)]) == 2
    assert "its content is not that of its SHA-256" in capsys.readouterr().err


def test_calibrations_have_no_curve_of_their_own_with_few_of_a_label(
    planted: dict[str, Path], simulation: Path, tmp_path: Path
) -> None:
    asked = _request(planted["labels"].parent, simulation, answers=planted["judged"] / "answers.parquet")
    written = calibrate_variants(asked, tmp_path / "table.json", "pwm")
    for kind, of in written["held_out"].items():
        if kind != "all":
            assert written["curves"][kind]["pooled"] == (min(of["altering"], of["neutral"]) < MIN_OF_EACH)
            assert (written["thresholds"][kind] is None) == written["curves"][kind]["pooled"]
    assert max(map(len, calibration_table(written).splitlines())) <= 100
    table = pl.read_parquet(planted["judged"] / "variants.parquet")
    _, clusters = np.unique(table["cluster"].to_numpy(), return_inverse=True)
    altering, kinds = table["altering"].to_numpy(), table["kind"].to_list()
    p = held_out(table["pwm"].to_numpy(), altering, kinds, clusters, QUICK.seed)
    here = np.array(kinds) == "splice_region"
    of = written["held_out"]["splice_region"]["calibrated"]
    assert of["brier"]["value"] == pytest.approx(((p - altering) ** 2)[here].mean())
    assert of["log_loss"]["value"] == pytest.approx(-np.log(np.where(altering, p, 1 - p))[here].mean())


def labelled(folder: Path, lines: Sequence[str]) -> Path:
    path = folder / "labels.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def evaluated(genome: tuple[Path, Path], path: Path, output: Path | None = None, **more: Any) -> dict[str, Any]:
    sources = Sources(*genome, more.pop("bases", ["pwm"]), allow_introns=True, device="cpu")
    return evaluate_variants(Request(path, sources, config=QUICK, **more), output)


def test_what_has_no_score_is_counted_by_reason_and_not_as_neutral(tmp_path: Path, genome: tuple[Path, Path]) -> None:
    lines = [f"{snv(at)}\t{at % 2}" for at in range(321, 345)]
    lines += [f"{snv(50)}\t0", f"{snv(60)}\t1", f"chr1-343-{OTHER[TEXT[342]]}-{TEXT[342]}\t1"]
    report = evaluated(genome, labelled(tmp_path, lines))
    assert report["not_counted"] == {
        "no_gene": {"altering": 1, "neutral": 1},
        "ref_mismatch": {"altering": 1, "neutral": 0},
    }
    assert (report["groups"]["all"]["altering"], report["groups"]["all"]["neutral"]) == (12, 12)
    assert (report["variants"]["altering"], report["variants"]["neutral"]) == (14, 13)


def test_what_spliceai_gives_no_numbers_for_is_counted(tmp_path: Path, genome: tuple[Path, Path]) -> None:
    of_two = f"chr1-351-{TEXT[350:352]}-{OTHER[TEXT[350]]}{OTHER[TEXT[351]]}"
    path = labelled(tmp_path, [*(f"{snv(at)}\t{at % 2}" for at in range(321, 341)), f"{of_two}\t1"])
    report = evaluated(genome, path, options=Options(way="spliceai"))
    assert report["not_counted"] == {"as_spliceai": {"altering": 1, "neutral": 0}}
    assert evaluated(genome, path)["not_counted"] == {}


def test_a_label_is_of_the_gene_that_it_names(tmp_path: Path, genome: tuple[Path, Path]) -> None:
    lines = ["variant\tgene\tlabel", f"{snv(1420)}\tOVER\t1", f"{snv(1420)}\tMINUS\t0", f"{snv(1421)}\t\t0"]
    evaluated(genome, labelled(tmp_path, lines), tmp_path / "out")
    found = pl.read_parquet(tmp_path / "out" / "variants.parquet")
    assert found["gene_id"].to_list()[:2] == ["OVER", "MINUS"]
    assert found["distance"].to_list() == [80, 121, 79]
    assert found["cluster"].n_unique() == 1  # overlapping genes are one cluster


def test_bad_input_of_an_evaluation(
    tmp_path: Path, genome: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    good = [f"{snv(at)}\t{at % 2}" for at in range(321, 331)]
    wrong = [f"chr1-{at + 1}-{OTHER[TEXT[at]]}-{TEXT[at]}\t{at % 2}" for at in range(321, 331)]
    with pytest.raises(InputError, match=r"10 REF is not what the FASTA has there, of 20; at most 10% may"):
        evaluated(genome, labelled(tmp_path, [*good, *wrong]), tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()
    with pytest.raises(InputError, match="0 that alter splicing and 5 others count; needed are both"):
        evaluated(genome, labelled(tmp_path, good[1::2]))
    with pytest.raises(InputError, match=r"5 that alter splicing and 0 others .* Not counted: 1 touches no gene"):
        evaluated(genome, labelled(tmp_path, [*good[::2], f"{snv(50)}\t0"]))
    path = labelled(tmp_path, good)
    with pytest.raises(ConfigError, match="--base names the models that score them, or --answers"):
        evaluated(genome, path, bases=[])
    with pytest.raises(ConfigError, match="--answers has scores: give one of both"):
        evaluated(genome, path, answers=path)
    for content, said in ((b"PAR1 and no more", "damaged"), (vcf().encode(), "does not say what decided the scores")):
        (tmp_path / "answers").write_bytes(content)
        with pytest.raises(InputError, match=said):
            evaluated(genome, path, bases=[], answers=tmp_path / "answers")
    with pytest.raises(InputError, match="needed is VCF, BCF or Parquet that `metalayer variants` wrote"):
        evaluated(genome, path, bases=[], answers=path)
    with pytest.raises(InputError, match="this is a file; give a folder"):
        evaluated(genome, path, path)
    evaluated(genome, path, tmp_path / "out")
    other = tmp_path / "other.gtf"
    other.write_text(genome[1].read_text() + "\n")
    with pytest.raises(InputError, match=r"written with another annotation, genes0.gtf; given is .*other.gtf"):
        evaluated((genome[0], other), path, bases=[], answers=tmp_path / "out" / "answers.parquet")
    with pytest.raises(InputError, match="needed are 20 of either in 5 clusters"):
        sources = Sources(*genome, ["pwm"], allow_introns=True, device="cpu")
        calibrate_variants(Request(path, sources), tmp_path / "table.json")
    assert not (tmp_path / "table.json").exists()
    given = ["--fasta", str(genome[0]), "--annotation", str(genome[1]), "--base", "pwm", "--allow-introns"]
    assert cli.main(["evaluate", "variants", str(tmp_path / "none"), *given]) == 2
    assert "metalayer evaluate variants: variants" in capsys.readouterr().err


def test_the_command_prints_what_counts(
    tmp_path: Path, genome: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = labelled(
        tmp_path, [*(f"{snv(at)}\t{at % 2}" for at in range(321, 341)), f"{snv(50)}\t0", f"{snv(51)}\tconflicting"]
    )
    given = ["--fasta", str(genome[0]), "--annotation", str(genome[1]), "--base", "pwm", "--allow-introns"]
    assert cli.main(["evaluate", "variants", str(path), *given]) == 0
    said = capsys.readouterr().out
    assert "labels.tsv (table): 10 variants that alter splicing, 11 that do not" in said
    assert "1 more without a label that counts: conflicting" in said
    assert "0 altering and 1 neutral ones do not count: touches no gene of the annotation" in said
    assert [*tmp_path.iterdir()] == [path]  # no files without --output
