"""Letters, labels and scores that do not keep one convention: every way of it is named, and no right file refused."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.base import load_base_model
from metalayer.base.agreement import begins_intron, ends_intron
from metalayer.base.simulator import SimulationParameters, simulate_genes
from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.data.convention_counts import ConventionCounts
from metalayer.data.conventions import MIN_SITES, facts, log_facts, refuse_mistakes
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.errors import ArtifactError
from metalayer.genome import decode, intron_base, reverse_complement
from metalayer.schema import BASE_SCORES, CLASSES, DONOR
from metalayer.settings.sections import DataConfig
from metalayer.workflows.ablate import ablate
from metalayer.workflows.score_genome import plan_shards
from tests.conftest import artifact_files
from tests.releases import make_bundle

Change = Callable[[pl.DataFrame], pl.DataFrame]
SCORES = ["donor_score", "acceptor_score"]
FILL = {"donor_score": 0.0, "acceptor_score": 0.0, "neither_score": 1.0, "label": "neither", "base": "A"}


@pytest.fixture(scope="module")
def frame(simulation: Path) -> pl.DataFrame:
    """All genes of the simulation."""
    text = pl.col("gene_id", "chrom", "strand", "base", "label").cast(pl.String)
    files = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    return pl.concat([pl.read_parquet(path).with_columns(text) for path in files])


def count(frame: pl.DataFrame) -> ConventionCounts:
    counts = ConventionCounts()
    for gene in frame.partition_by("gene_id", maintain_order=True):
        codes = gene["label"].replace_strict(list(CLASSES), [0, 1, 2], return_dtype=pl.UInt8)
        chrom, strand = gene.select("chrom", "strand").row(0)
        counts.add(chrom, strand, gene["base"], gene.select(BASE_SCORES).to_numpy(), codes)
    return counts


def said(frame: pl.DataFrame, *, allow_introns: bool = False) -> str:
    """What a file with these genes is refused with; empty where it is not."""
    try:
        refuse_mistakes(count(frame), "f.parquet", allow_introns=allow_introns)
    except ArtifactError as error:
        return str(error)
    return ""


def shift(by: int, *columns: str, sense: bool = False) -> Change:
    """Columns of a gene moved along the chromosome, or in transcript direction."""

    def changed(gene: pl.DataFrame) -> pl.DataFrame:
        n = -by if sense and gene["strand"][0] == "-" else by
        gene = gene.with_columns(pl.col(c).shift(n).fill_null(FILL[c]) for c in columns)
        return gene.with_columns(pl.col(BASE_SCORES) / pl.sum_horizontal(BASE_SCORES))

    return changed


def swap(gene: pl.DataFrame) -> pl.DataFrame:
    return gene.rename(dict(zip(SCORES, SCORES[::-1], strict=True)))


def swap_labels(gene: pl.DataFrame) -> pl.DataFrame:
    return gene.with_columns(pl.col("label").replace({"donor": "acceptor", "acceptor": "donor"}))


def complement(gene: pl.DataFrame) -> pl.DataFrame:
    return gene.with_columns(pl.col("base").replace(dict(zip("ACGT", "TGCA", strict=True))))


def turn(*columns: str) -> Change:
    return lambda gene: gene.with_columns(pl.col(c).reverse() for c in columns)


def then(*changes: Change) -> Change:
    def changed(gene: pl.DataFrame) -> pl.DataFrame:
        for change in changes:
            gene = change(gene)
        return gene

    return changed


def shift_label(site_class: str, by: int) -> Change:
    """The labels of one class moved in transcript direction."""

    def changed(gene: pl.DataFrame) -> pl.DataFrame:
        n = -by if gene["strand"][0] == "-" else by
        moved, others = pl.col("label") == site_class, pl.col("label").replace({site_class: "neither"})
        at = moved.shift(n, fill_value=False)
        return gene.with_columns(pl.when(at).then(pl.lit(site_class)).otherwise(others).alias("label"))

    return changed


def of(change: Change, **where: str) -> Change:
    """A change of all genes, or of those on a strand or chromosome."""

    def changed(frame: pl.DataFrame) -> pl.DataFrame:
        parts = frame.partition_by("gene_id", maintain_order=True)
        return pl.concat(
            [
                change(gene).select(frame.columns) if all(gene[k][0] == v for k, v in where.items()) else gene
                for gene in parts
            ]
        )

    return changed


INTRON_LABELS = then(shift_label("donor", 1), shift_label("acceptor", -1))
SPOILED: dict[str, tuple[Change, str]] = {
    "columns swapped": (of(swap), r"^  donor and acceptor look swapped in scores: exchange the columns \("),
    "columns swapped on the minus strand": (
        of(swap, strand="-"),
        r"^  minus-strand genes: donor and acceptor look swapped in scores: exchange the columns \(-",
    ),
    "scores a base late": (
        of(shift(1, *BASE_SCORES)),
        r"^  donor_score and acceptor_score look 1 base late: shift them by -1 along the chromosome \(\+: donor peaks "
        r"at \d+ of \d+ donor labels, but \d+ 1 base after them; .*-: .* 1 base before them",
    ),
    "scores two bases early in transcript direction": (
        of(shift(-2, *BASE_SCORES, sense=True)),
        r"^  donor_score and acceptor_score look 2 bases early: shift them by \+2 in transcript direction \(",
    ),
    "acceptor scores a base early on the plus strand": (
        of(shift(-1, "acceptor_score"), strand="+"),
        r"^  plus-strand genes: acceptor_score looks 1 base early: shift it by \+1 along the chromosome \(",
    ),
    "donors late, acceptors early": (
        of(then(shift(1, "donor_score", sense=True), shift(-1, "acceptor_score", sense=True))),
        r"^  donor_score looks 1 base late: shift it by -1 in transcript direction \(.*\n"
        r"  acceptor_score looks 1 base early: shift it by \+1 in transcript direction \(",
    ),
    "scores in reverse order on the minus strand": (
        of(turn(*BASE_SCORES), strand="-"),
        r"^  minus-strand genes: donor_score and acceptor_score look in the reverse order: turn them round",
    ),
    "labels a base late": (
        of(shift(1, "label")),
        r"^  donor and acceptor labels look 1 base late: shift them by -1 along the chromosome \(\+: GT or GC after "
        r"\d+ of \d+ donor labels, but \d+ 1 base before them, donor peaks at",
    ),
    "labels at intron bases": (
        of(INTRON_LABELS),
        r"^  donor labels look 1 base late: shift them by -1 in transcript direction \(.*\n"
        r"  acceptor labels look 1 base early: shift them by \+1 in transcript direction \(",
    ),
    "labels and scores at intron bases": (
        of(then(INTRON_LABELS, shift(1, "donor_score", sense=True), shift(-1, "acceptor_score", sense=True))),
        r"^  donor labels and scores look 1 base late: shift them by -1 in transcript direction",
    ),
    "labels swapped": (of(swap_labels), r"^  donor and acceptor look swapped in labels: exchange the names \("),
    "labels and columns swapped on the minus strand": (
        of(then(swap, swap_labels), strand="-"),
        r"^  minus-strand genes: donor and acceptor look swapped in labels and scores: exchange the names \(",
    ),
    "labels in reverse order on the minus strand": (
        of(turn("label"), strand="-"),
        r"^  minus-strand genes: donor and acceptor labels look in the reverse order: turn them round",
    ),
    "letters of the gene's own strand": (
        of(complement, strand="-"),
        r"^  minus-strand genes: letters look complemented, those of the gene's own strand: complement them \(-: GT or "
        r"GC after \d+ of \d+ donor labels, but \d+ in complemented letters",
    ),
    "letters of the transcript in minus-strand genes": (
        of(then(complement, turn("base")), strand="-"),
        r"^  minus-strand genes: letters look in the reverse order and complemented: turn them round",
    ),
    "letters in reverse order": (of(turn("base")), r"^  letters look in the reverse order: turn them round"),
    "letters a base late": (
        of(shift(1, "base")),
        r"^  letters look 1 base late: shift them by -1 along the chromosome",
    ),
    "minus-strand genes in transcript order": (
        of(turn("base", "label", *BASE_SCORES), strand="-"),
        r"^  minus-strand genes: rows look to be in transcript order: turn round base, scores and labels within each "
        r"gene \(",
    ),
    "minus-strand genes in transcript order and letters": (
        of(then(complement, turn("base", "label", *BASE_SCORES)), strand="-"),
        r"^  minus-strand genes: rows look to be in transcript order: .*, and complement base \(",
    ),
    "letters of something else": (
        of(lambda gene: gene.with_columns(pl.col("base").shift(400).fill_null("A"))),
        r"^  letters do not fit the donor and acceptor labels, at no shift, strand or order: are both of one genome",
    ),
    "scores a base late and letters complemented": (
        of(then(shift(1, *BASE_SCORES, sense=True), complement), strand="-"),
        r"(?s)letters look complemented.*\(or the labels, the other way\) look 1 base early: shift them by \+1 along",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_wrong_is_named(frame: pl.DataFrame, name: str) -> None:
    spoil, expected = SPOILED[name]
    message = said(spoil(frame))
    assert message.startswith("f.parquet: letters, labels and scores do not keep one convention:\n"), message
    assert re.search(expected, message, re.MULTILINE), message


@pytest.mark.parametrize("name", [name for name in SPOILED if "strand" not in name])
def test_one_chromosome_alone(frame: pl.DataFrame, name: str) -> None:
    change = {"columns swapped": swap, "scores a base late": shift(1, *BASE_SCORES)}.get(name)
    chrom = frame.group_by("chrom").agg((pl.col("label") != "neither").sum()).sort("label")["chrom"][-1]
    whole = SPOILED[name][0](frame)
    spoiled = pl.concat([frame.filter(pl.col("chrom") != chrom), whole.filter(pl.col("chrom") == chrom)])
    message = said(spoiled)
    assert f"chromosome {chrom}" in message, message
    assert change is None or said(of(change, chrom=chrom)(frame)) == message
    assert len(message.splitlines()) <= 6


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("n_genes", [1, 2, 5, 12, 40])
def test_right_files_pass(seed: int, n_genes: int) -> None:
    """Of a weak base model (PWM), of it smoothed, of others that know GT and AG, or nothing, or are flat; and of N."""
    introns = (1, 3) if seed % 3 == 0 else (3, 12)
    simulation = simulate_genes(1000 * n_genes + seed, n_genes, SimulationParameters(introns=introns))
    model = load_base_model("pwm")
    rng = np.random.default_rng(seed)
    counts = [ConventionCounts() for _ in range(6)]
    for item in simulation.genes:
        sense, minus = item.tokens, item.gene.strand == "-"
        base = pl.Series(list(decode(reverse_complement(sense) if minus else sense)), dtype=pl.String)
        labels = pl.Series(item.labels[::-1] if minus else item.labels)
        weak = model.score(decode(sense))
        noise = rng.dirichlet([0.1, 0.1, 3.0], len(sense)).astype(np.float32)
        same = np.broadcast_to(np.float32([0.01, 0.01, 0.98]), noise.shape)
        smooth = np.stack([np.convolve(weak[:, i], np.ones(7) / 7, "same") for i in range(3)], axis=1)
        at = np.arange(len(sense))[:-3]
        motifs = np.zeros_like(noise)
        motifs[at, 0] = begins_intron(sense[at + 1], sense[at + 2]) * rng.random(len(at))
        motifs[at + 2, 1] = ends_intron(sense[at], sense[at + 1]) * rng.random(len(at))
        letters = (base, base, base, pl.Series(["N"] * len(sense)), base, base)
        for one, scores, text in zip(counts, (weak, noise, same, weak, smooth, motifs), letters, strict=True):
            one.add(item.gene.interval.chrom, item.gene.strand, text, scores[::-1] if minus else scores, labels)
    for one in counts:
        refuse_mistakes(one, "f.parquet", allow_introns=False)
    found = facts(counts[0], allow_introns=False)["donor"]
    sites = sum(int((item.labels == DONOR).sum()) for item in simulation.genes)
    assert found["labels"] == found["with_letters"] == found["with_intron_letters"] == sites
    assert facts(counts[3], allow_introns=False)["donor"]["with_letters"] == 0
    assert facts(counts[2], allow_introns=False)["donor"]["with_peaks"] == 0


def test_counts_do_not_depend_on_when_they_are_taken(frame: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = count(frame)
    found = facts(whole, allow_introns=False)
    monkeypatch.setattr("metalayer.data.convention_counts._SITES_AT_ONCE", 3)
    assert facts(count(frame), allow_introns=False) == found
    monkeypatch.setattr("metalayer.data.convention_counts._MOST_CELLS", 2)
    few = count(frame)
    assert facts(few, allow_introns=False) == found
    assert len(few.cells) == 4


def test_few_sites_are_counted_and_not_judged(frame: pl.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    few = []
    for gene in frame.partition_by("gene_id", maintain_order=True):
        if gene["strand"][0] == "+" and (gene["label"] == "donor").sum() < MIN_SITES:
            few = [gene]
    spoiled = of(shift(1, "label"))(few[0])
    assert said(spoiled) == ""
    with caplog.at_level(logging.WARNING):
        log_facts(facts(count(spoiled), allow_introns=False), "f.parquet")
    n = (few[0]["label"] == "donor").sum()
    assert f"of {n} donor labels, AG before" in caplog.text
    assert "too few to tell" in caplog.text


def test_genes_without_sites_say_nothing(frame: pl.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    none = frame.with_columns(pl.lit("neither").alias("label"))
    with caplog.at_level(logging.INFO):
        log_facts(facts(count(none), allow_introns=False), "f.parquet")
    assert said(none) == caplog.text == ""


def other_introns(frame: pl.DataFrame) -> pl.DataFrame:
    """A genome whose introns begin and end with anything: letters there are drawn again."""
    site = pl.col("label") != "neither"
    near = pl.any_horizontal(*(site.shift(n, fill_value=False) for n in (-2, -1, 1, 2)))
    drawn = pl.Series(np.random.default_rng(1).choice(list("ACGT"), len(frame)))
    return frame.with_columns(pl.when(near).then(drawn).otherwise("base").alias("base"))


def test_other_introns_are_allowed_where_asked(frame: pl.DataFrame) -> None:
    other = other_introns(frame)
    assert "--allow-introns; setting allow_introns" in said(other)
    assert said(other, allow_introns=True) == ""
    assert "donor_score and acceptor_score (or the labels, the other way) look 1 base late" in said(
        of(shift(1, *BASE_SCORES))(other), allow_introns=True
    )
    assert "--allow-introns" not in said(of(swap)(frame))


# Doors.

BUNDLE_GENES = 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="module")
def few(frame: pl.DataFrame) -> pl.DataFrame:
    ids = frame["gene_id"].unique(maintain_order=True)[:BUNDLE_GENES]
    return frame.filter(pl.col("gene_id").is_in(ids.to_list()))


AT_THE_DOORS = {
    "columns swapped": "look swapped in scores",
    "scores a base late": "donor_score and acceptor_score look 1 base late",
    "labels a base late": "donor and acceptor labels look 1 base late",
    "letters of the gene's own strand": "letters look complemented",
}


def write(frame: pl.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return path


def evaluate(bundle: Path, path: Path, folder: Path, *more: str) -> int:
    output = str(folder / "report.json")
    command = ["evaluate", "--model", str(bundle), "--scores", str(path), "--output", output, "--device", "cpu"]
    return cli.main([*command, *more])


@pytest.mark.parametrize("name", AT_THE_DOORS)
def test_evaluate(
    few: pl.DataFrame, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = write(SPOILED[name][0](few), tmp_path / "a.parquet")
    assert evaluate(bundle, path, tmp_path) == 2
    error = capsys.readouterr().err
    assert AT_THE_DOORS[name] in error
    assert str(path) in error
    assert "Traceback" not in error
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_evaluate_records_what_it_counted(few: pl.DataFrame, bundle: Path, tmp_path: Path) -> None:
    path = write(other_introns(few), tmp_path / "a.parquet")
    assert evaluate(bundle, path, tmp_path) == 2
    assert evaluate(bundle, path, tmp_path, "--allow-introns") == 0
    found = json.loads((tmp_path / "report.json").read_text())["files"][0]["conventions"]
    assert found["any_introns_allowed"] is True
    n = int((few["label"] == "donor").sum())
    assert found["donor"]["labels"] == found["donor"]["with_letters"] == n
    assert found["donor"]["with_intron_letters"] < n / 2


TRAIN = [
    "--set",
    "max_epochs=1",
    "--set",
    "threads=1",
    "--set",
    "device=cpu",
    "--set",
    "track_encoder_config={channels: 8}",
]


@pytest.mark.parametrize("name", AT_THE_DOORS)
@pytest.mark.parametrize("option", ["--scores", "--valid-scores"])
def test_train(
    simulation: Path, few: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, option: str
) -> None:
    bad = write(SPOILED[name][0](few), tmp_path / "a.parquet")
    good = str(max(simulation.glob("nucleotide_scores/*.parquet")))
    files = {"--scores": good, "--valid-scores": good, option: str(bad)}
    output = tmp_path / "model"
    assert (
        cli.main(["train", *(word for pair in files.items() for word in pair), "--output-dir", str(output), *TRAIN])
        == 2
    )
    assert AT_THE_DOORS[name] in capsys.readouterr().err
    assert not list(output.rglob("model")) and not list(output.rglob("*.pt"))


def test_train_where_introns_are_others(few: pl.DataFrame, tmp_path: Path) -> None:
    bad = write(other_introns(few), tmp_path / "a.parquet")
    command = ["train", "--scores", str(bad), "--output-dir", str(tmp_path / "m"), *TRAIN]
    assert cli.main(command) == 2
    assert cli.main([*command, "--set", "allow_introns=true"]) == 0
    assert MetaLayerConfig.from_yaml(tmp_path / "m" / "config.yaml").allow_introns


@pytest.mark.parametrize("name", AT_THE_DOORS)
def test_the_pipeline(base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig], name: str) -> None:
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        text = pl.col("gene_id", "chrom", "strand", "base", "label").cast(pl.String)
        write(SPOILED[name][0](pl.read_parquet(path).with_columns(text)), path)
    with pytest.raises(ArtifactError, match=AT_THE_DOORS[name]):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_the_pipeline_records_what_it_counted(
    base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        report = ArtifactLoader(data_config(base_layer, allow_introns=True)).load(tmp_path / "out")
    found = report["nucleotide_scores"]["conventions"]
    assert json.loads(json.dumps(found)) == found
    assert found["any_introns_allowed"] is True
    assert found["acceptor"]["with_intron_letters"] == found["acceptor"]["labels"] > 200
    assert found["acceptor"]["with_peaks_at_label"] > 0.5 * found["acceptor"]["labels"]
    lines = [record for record in caplog.records if "AG before" in record.message]
    assert [record.levelno for record in lines] == [logging.INFO]


def artifact_rows(root: Path, change: Change) -> Path:
    """A root with artifact rows alone, changed."""
    shutil.rmtree(root / "nucleotide_scores")
    for path in artifact_files(root):
        change(pl.read_csv(path, separator="\t", infer_schema=False)).write_csv(path, separator="\t")
    return root


def number(column: str, by: int) -> pl.Expr:
    return (pl.col(column).cast(pl.Int64) + by).cast(pl.String)


ROWS: dict[str, tuple[Change, str]] = {
    "a base early": (
        lambda rows: rows.with_columns(number("window_start", 1)),
        r"donor and acceptor labels \(or the letters, the other way\) look 1 base early: shift them by \+1 in",
    ),
    "at exon bases": (
        lambda rows: rows.with_columns(
            pl.when(pl.col("splice_type") == "donor")
            .then(number("window_start", 1))
            .when(pl.col("splice_type") == "acceptor")
            .then(number("window_start", -1))
            .otherwise("window_start")
        ),
        r"(?s)donor labels look 1 base early: shift them by \+1 .* acceptor labels look 1 base late: shift them by -1",
    ),
    "scores swapped": (swap, "donor and acceptor look swapped in scores: exchange the columns"),
    "labels swapped": (
        lambda rows: rows.with_columns(pl.col("splice_type").replace({"donor": "acceptor", "acceptor": "donor"})),
        "donor and acceptor look swapped in labels: exchange the names",
    ),
    "sequences of the plus strand": (
        lambda rows: rows.with_columns(
            pl.when(pl.col("strand") == "-")
            .then(pl.col("sequence").str.replace_many(list("ACGT"), list("TGCA")))
            .otherwise("sequence")
            .alias("sequence")
        ),
        "minus-strand genes: letters look complemented",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_artifact_rows_alone(
    base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig], name: str
) -> None:
    change, message = ROWS[name]
    root = artifact_rows(base_layer, change)
    with pytest.raises(ArtifactError, match=message):
        ArtifactLoader(data_config(root)).load(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_artifact_rows_that_are_right(base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig]) -> None:
    root = artifact_rows(base_layer, lambda rows: rows)
    found = ArtifactLoader(data_config(root)).load(tmp_path / "out")["conventions_of_rows"]["donor"]
    assert found["labels"] == found["with_intron_letters"] > 200
    assert found["with_peaks"] == 0


def test_scoring_plans_carry_the_option(simulation: Path, data_config: Callable[..., DataConfig]) -> None:
    for allowed in (False, True):
        plan = plan_shards(data_config(simulation, allow_introns=allowed), 2)
        assert [shard.allow_introns for shard in plan.shards] == [allowed] * 2


@pytest.mark.parametrize("part", ["scores", "valid_scores", "test_scores"])
def test_ablate(simulation: Path, few: pl.DataFrame, tmp_path: Path, part: str) -> None:
    found = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    bad = write(SPOILED["columns swapped"][0](few), tmp_path / "a.parquet")
    files: dict[str, Any] = {
        "scores": found[-3:-2],
        "valid_scores": found[-2:-1],
        "test_scores": found[-1:],
        part: [bad],
    }
    config = MetaLayerConfig(training_unit="genes", max_epochs=1, threads=1, device="cpu")
    with pytest.raises(ArtifactError, match="look swapped in scores"):
        ablate(config=config, output_dir=tmp_path / "out", variants={"none": {}}, seeds=[1], **files)
    assert not list((tmp_path / "out").rglob("*.pt"))


@pytest.mark.parametrize("off", [0, 1])
def test_labels_of_artifact_rows_beside_scores_without_letters(frame: pl.DataFrame, tmp_path: Path, off: int) -> None:
    """The original TSV has no letters: only the peaks say that rows are one base off."""
    table = frame.rename({"position": "genomic_position"}).drop("base", "label")
    path = tmp_path / "nucleotide_scores.tsv"
    table.write_csv(path, separator="\t")
    sites: list[tuple[str, int, str]] = []
    for gene in frame.partition_by("gene_id", maintain_order=True):
        labels = gene["label"].reverse() if gene["strand"][0] == "-" else gene["label"]
        for at in np.flatnonzero(labels.to_numpy() != "neither"):
            kind = CLASSES.index(labels[int(at)])
            sites.append((gene["gene_id"][0].removeprefix("gene-"), intron_base(int(at), kind) + off, CLASSES[kind]))
    rows = pl.DataFrame(sites, schema=["gene_id", "position", "splice_type"], orient="row")
    if not off:
        assert (
            write_tracks([path], tmp_path / "out.parquet", {}, lambda: rows).conventions["donor"]["with_letters"] == 0
        )
        return
    with pytest.raises(ArtifactError, match=r"scores? \(or the labels, the other way\) look 1 base early"):
        write_tracks([path], tmp_path / "out.parquet", {}, lambda: rows)
    assert not (tmp_path / "out.parquet").exists()


def test_many_small_files_are_judged_together(frame: pl.DataFrame, tmp_path: Path) -> None:
    parts = [gene.head(len(gene)) for gene in frame.partition_by("gene_id", maintain_order=True)]
    small = [gene for gene in parts if max((gene["label"] == kind).sum() for kind in CLASSES[:2]) < MIN_SITES]
    files = [write(of(shift(1, "label"))(gene), tmp_path / f"{i}.parquet") for i, gene in enumerate(small)]
    assert len(files) > 3

    def refused() -> pl.DataFrame:
        raise AssertionError("the files have labels")

    write_tracks(files[:1], tmp_path / "out.parquet", {}, refused)
    with pytest.raises(ArtifactError, match=f"{len(files)} files from .*(?s:.*)labels look 1 base late"):
        write_tracks(files, tmp_path / "out.parquet", {}, refused)


# Real genes.


def real(shared: Path, name: str) -> pl.DataFrame:
    columns = ["gene_id", "chrom", "strand", "base", *BASE_SCORES, "label"]
    text = pl.col("gene_id", "chrom", "strand", "base", "label").cast(pl.String)
    return pl.read_parquet(shared / "real" / "nucleotide_scores" / name, columns=columns).with_columns(text)


def test_real_genes_pass(shared: Path) -> None:
    folder = shared / "real" / "nucleotide_scores"
    names = sorted(path.name for path in folder.iterdir() if set(BASE_SCORES) <= set(pl.read_parquet_schema(path)))
    assert len(names) >= 10
    assert {name: said(real(shared, name)) for name in names} == dict.fromkeys(names, "")


@pytest.mark.parametrize("name", ["openspliceai_80_chr3", "spliceai_chr3"])
def test_real_genes_that_are_spoiled(shared: Path, name: str) -> None:
    frame = real(shared, f"{name}.parquet")
    for kind, (spoil, expected) in SPOILED.items():
        message = said(spoil(frame))
        assert re.search(expected, message, re.MULTILINE), (kind, message)
