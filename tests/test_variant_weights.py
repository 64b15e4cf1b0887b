"""SpliceVarDB on positions of whole genes: which ones weigh, and that the weights reach the fit and nothing else."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from metalayer.core import MetaLayerConfig
from metalayer.data.crops import UNKNOWN, CropLoader, GeneArrays
from metalayer.data.labels import label_rows
from metalayer.data.loaders import RowPart
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE, VariantWeights
from metalayer.errors import ArtifactError
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model
from metalayer.models.meta import build_model
from metalayer.schema import ACCEPTOR, DONOR, NEITHER, POSITIONS, ROWS
from metalayer.settings.network import ModelConfig
from metalayer.settings.sections import DataConfig, TrainConfig
from metalayer.training.parts import Part, TrainingParts
from metalayer.workflows import train_meta_model
from metalayer.workflows.calibrate import calibrate_on_genes, calibrate_on_rows
from tests.test_workflows import Prepared, prepare

# Both genes lie at 1001 to 1100 (1-based), a on + of chromosome 1, b on - of X. In both the donor's exon base has
# index 20 (G and T of GT 21 and 22), the acceptor's 60 (A and G of AG 58 and 59). In b, index i is at 1100 - i.
DONOR_AT, ACCEPTOR_AT = 20, 60
PLACES = {"a": ("1", "+"), "b": ("X", "-")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, gene table and tracks of the two genes."""
    folder = tmp_path_factory.mktemp("two_genes")
    parts, genes = [], []
    for gene_id, (chrom, strand) in PLACES.items():
        labels = ["neither"] * 100
        labels[DONOR_AT], labels[ACCEPTOR_AT] = "donor", "acceptor"
        if strand == "-":
            labels.reverse()
        columns: dict[str, Any] = {
            "gene_id": [gene_id] * 100,
            "chrom": [chrom] * 100,
            "strand": [strand] * 100,
            "position": list(range(1001, 1101)),
            "base": ["A"] * 100,
            "donor_score": [0.1] * 100,
            "acceptor_score": [0.1] * 100,
            "neither_score": [0.8] * 100,
            "label": labels,
        }
        parts.append(pl.DataFrame(columns))
        genes.append((gene_id, "", chrom, strand, 1001, 1100, None))
    pl.concat(parts).write_parquet(folder / "scores.parquet")
    write_tracks([folder / "scores.parquet"], folder / "tracks.parquet", {}, pl.DataFrame)
    names = ["gene_id", "gene_name", "chrom", "strand", "start", "end", "paralog_group"]
    pl.DataFrame(genes, schema=names, orient="row").write_parquet(folder / "genes.parquet")
    rows = [("a", DONOR_AT + 1, "donor"), ("a", ACCEPTOR_AT - 1, "acceptor")]
    pl.DataFrame(rows, schema=["gene_id", "position", "splice_type"], orient="row").cast(
        {"position": pl.Int32}
    ).write_parquet(folder / "rows.parquet")
    return folder


def weigh(
    base: Path,
    folder: Path,
    variants: Sequence[tuple[str, str]],
    build: str = "GRCh38",
    saved: Callable[[str], bytes] = str.encode,
    **changes: Any,
) -> tuple[VariantWeights, dict[str, Any]]:
    lines = ["hg19\thg38\tclassification", *(f"9-9-A-C\t{place}\t{kind}" for place, kind in variants)]
    (folder / "splicevardb.download.tsv").write_bytes(saved("\n".join(lines) + "\n"))
    artifacts = folder / "data" / "s" / "GRCh38" / "pwm_eval" / "meta_models"
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "analysis_sequences_1_chunk_1_2.tsv").write_text("x\n")
    config = DataConfig(base_model="pwm", data_root=folder, variant_source="splicevardb", **changes)
    files = (base / "rows.parquet", base / "genes.parquet")
    report = label_rows(*files, config, folder / "out.parquet", build, base / "tracks.parquet")
    weights = VariantWeights.read(folder / VARIANT_WEIGHTS_FILE)
    assert weights is not None
    return weights, report["variants"]


def positions(weights: VariantWeights) -> dict[str, dict[int, float]]:
    return {
        gene_id: dict(zip(at.tolist(), values.tolist(), strict=True))
        for gene_id, (at, values) in weights.positions(list(PLACES)).items()
    }


@pytest.mark.parametrize(
    ("gene_id", "place", "touched"),
    [
        ("a", "1-1021-A-C", [20]),  # the donor's exon base
        ("a", "chr1-1022-G-C", [20, 21]),  # G of GT, and the position there
        ("a", "1-1023-T-C", [20, 22]),  # T of GT
        ("a", "1-1024-A-C", [23]),
        ("a", "1-1020-A-C", [19]),
        ("a", "1-1061-A-C", [60]),  # the acceptor's exon base
        ("a", "1-1060-G-C", [59, 60]),  # G of AG
        ("a", "1-1059-A-C", [58, 60]),  # A of AG
        ("a", "1-1058-A-C", [57]),
        ("a", "1-1062-A-C", [61]),
        ("b", "X-1080-A-C", [20]),
        ("b", "X-1079-C-A", [20, 21]),
        ("b", '"X-1078-A-C"', [20, 22]),
        ("b", "X-1077-A-C", [23]),
        ("b", "X-1081-A-C", [19]),
        ("b", "X-1040-A-C", [60]),
        ("b", "X-1041-C-A", [59, 60]),
        ("b", "X-1042-T-C", [58, 60]),
        ("b", "X-1043-A-C", [57]),
        ("b", "X-1039-A-C", [61]),
        ("a", "1-1001-A-C", [0]),
        ("b", "X-1001-A-C", [99]),
        ("a", "1-1016-AAAAAAA-A", [15, 16, 17, 18, 19, 20, 21]),  # a deletion touches what it removes, and its anchor
        ("a", "1-1022-G-GTT", [20, 21]),  # an insertion touches its anchor
    ],
)
def test_which_positions_a_variant_touches(
    base: Path, tmp_path: Path, gene_id: str, place: str, touched: list[int]
) -> None:
    weights, report = weigh(base, tmp_path, [(place, "Splice-altering")])
    assert positions(weights) == {gene_id: dict.fromkeys(touched, 2.0)}
    assert report["positions"]["matched"] == 1
    assert report["positions"]["positions_weighted"] == len(touched)


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: bz2.compress(text.encode()),
    ],
    ids=["of a spreadsheet", "gzip", "bzip2"],
)
def test_variants_as_people_save_them(base: Path, tmp_path: Path, saved: Callable[[str], bytes]) -> None:
    weights, _ = weigh(base, tmp_path, [("1-1021-A-C", "Splice-altering")], saved=saved)
    assert positions(weights) == {"a": {20: 2.0}}


def test_variants_of_another_kind(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"variants .*this is VCF, variants; needed is the SpliceVarDB download"):
        weigh(base, tmp_path, [], saved=lambda _: b"##fileformat=VCFv4.2\n#CHROM\tPOS\n")


@pytest.mark.parametrize("build", ["hg38", "grch38.p14"])
def test_a_build_by_its_other_name(base: Path, tmp_path: Path, build: str) -> None:
    weights, _ = weigh(base, tmp_path, [("1-1021-A-C", "Normal")], build)
    assert positions(weights) == {"a": {20: 1.5}}
    with pytest.raises(ArtifactError, match="the rows' build is 'mm10'"):
        weigh(base, tmp_path, [("1-1021-A-C", "Normal")], "mm10")


def test_with_a_radius_it_is_the_distance_to_the_exon_base(base: Path, tmp_path: Path) -> None:
    weights, _ = weigh(base, tmp_path, [("1-1022-G-C", "Normal"), ("X-1101-A-C", "Normal")], variant_radius_bp=1)
    assert positions(weights) == {"a": dict.fromkeys([20, 21, 22], 1.5), "b": {0: 1.5}}


def test_the_largest_weight_wins_and_all_is_counted(base: Path, tmp_path: Path) -> None:
    variants = [
        ("1-1021-A-C", "Low-frequency"),
        ("1-1022-G-C", "Splice-altering"),
        ("X-1050-A-C", "Conflicting"),
        ("2-1050-A-C", "Normal"),
        ("1-2050-A-C", "Normal"),
    ]
    weights, report = weigh(base, tmp_path, variants)
    assert positions(weights) == {"a": {20: 2.0, 21: 2.0}, "b": {50: 0.5}}
    assert report["positions"] == {
        "matched": 3,
        "not_matched": 2,
        "matched_by_class": {"conflicting": 1, "low-frequency": 1, "splice-altering": 1},
        "positions_weighted": 3,
        "genes": 2,
    }
    assert (report["matched"], report["rows_weighted"]) == (1, 1)  # the row lies at G of GT
    training = pl.DataFrame({"gene_id": ["a", "z"]})
    reported = {"source": "splicevardb", "unit": "positions", "variants": 2, "weighed": 2, "genes": 1}
    assert weights.used("positions", training) == reported
    reported = {"source": "splicevardb", "unit": "rows", "variants": 1, "weighed": 1, "genes": 1}
    assert weights.used("rows", pl.DataFrame({"gene_id": ["a"], "position": [DONOR_AT + 1]})) == reported
    assert weights.used("positions", pl.DataFrame({"gene_id": ["z"]}))["variants"] == 0


def made_up(weighed: bool = True) -> GeneArrays:
    """Genes of which each position weighs 1 and its letter."""
    rng = np.random.default_rng(0)
    starts = np.arange(7, dtype=np.int64) * 3000
    n = int(starts[-1])
    labels = np.full(n, NEITHER, np.uint8)
    exons = np.zeros(n, np.uint8)
    for start in starts[:-1].tolist():
        labels[[start + 400, start + 1500]], labels[start + 1300] = DONOR, ACCEPTOR
        exons[start : start + 401], exons[start + 1300 : start + 1501] = 1, 1
    exons[starts[:-1] + 2999] = UNKNOWN
    tokens = rng.integers(0, 4, n).astype(np.uint8)
    scores = rng.dirichlet([1, 1, 60], n).astype(np.float32)
    return GeneArrays(
        tuple("abcdef"), starts, tokens, scores, labels, exons, (tokens + 1).astype("f4") if weighed else None
    )


@pytest.mark.parametrize("augmented", [False, True])
def test_a_weight_travels_with_its_position(augmented: bool) -> None:
    """Through drawn crops, genes joined from parts of others, and the shares of two processes."""
    reach = 30
    options: dict[str, Any] = {"crop_bp": 150, "shuffle": True, "easy_share": 0.5, "with_features": False}
    parts = []
    for weighed in (True, False):
        loaders = [CropLoader(made_up(weighed), reach, augmented=augmented, **options) for _ in range(2)]
        for rank, loader in enumerate(loaders):
            loader.share(rank, 2)
            loader.set_epoch(3)
        parts.append([batch for loader in loaders for batch in loader])
    for batch, plain in zip(*parts, strict=True):
        assert torch.equal(batch.tokens, plain.tokens)  # variants do not change what is drawn
        letters = batch.tokens[:, reach + 1 :][:, :150].float() + 1
        assert torch.equal(batch.weights, plain.weights * letters)
    assert sum(len(batch) for batch in parts[0]) > 60


def test_losses_are_scaled_to_one_a_weighed_site() -> None:
    plain, weighed = (CropLoader(made_up(kind), 30, with_features=False) for kind in (False, True))
    sites = made_up().labels != NEITHER
    assert weighed.loss_scale * float(weighed.weights[sites].sum()) == pytest.approx(plain.loss_scale * sites.sum())
    assert plain.identity != weighed.identity  # a run does not go on with other weights


def test_validation_counts_every_position_once(base: Path, tmp_path: Path) -> None:
    weights, _ = weigh(base, tmp_path, [("1-1022-G-C", "Splice-altering")])
    store = TrackStore(base / "tracks.parquet")
    parts = TrainingParts(Part(["a"], store), Part(["a"], store), weights)
    train, valid = parts.loaders(small_network(), TrainConfig(training_unit="genes"), tmp_path)
    assert isinstance(train, CropLoader)
    assert isinstance(valid, CropLoader)
    assert np.flatnonzero(train.weights == 2).tolist() == [20, 21]
    assert (valid.weights == 1).all()
    assert all(set(batch.weights.unique().tolist()) <= {0.0, 1.0} for batch in valid)


QUICK = (
    "train.training_unit=genes",
    "train.batch_crops=2",
    "train.max_epochs=1",
    "train.device=cpu",
    "model.sequence_encoder=none",
    "model.score_encoder=false",
    "model.track_encoder=stages",
    "model.track_encoder_config={stages: 1, channels: 8, distances: [1, 20, 100], both_ways: false}",
)


def planted(prepared: Prepared, site_class: int, path: Path) -> Path:
    """A download with a splice-altering variant at the exon base of every site of this class."""
    assert prepared.tracks is not None
    store = TrackStore(prepared.tracks)
    lines = ["hg19\thg38\tclassification"]
    for track in store.read_many(list(store.genes())):
        for at in np.flatnonzero(track.labels == site_class).tolist():
            place = f"{track.gene.interval.chrom}-{track.gene.genomic(at) + 1}-A-C"
            lines.append(f"9-9-A-C\t{place}\tSplice-altering")
    path.write_text("\n".join(lines) + "\n")
    return path


def small_network() -> MetaSpliceModel:
    options = {"sequence_encoder": "none", "score_encoder": False, "track_encoder": "stages"}
    options["track_encoder_config"] = {"stages": 1, "channels": 8, "distances": [1, 20, 100], "both_ways": False}
    return build_model(ModelConfig(**options))


def at_sites(prepared: Prepared, bundle: Path) -> list[float]:
    """Mean log-probability of each class at its training sites, by the whole correction."""
    model, _ = load_model(bundle)
    model.calibrators[POSITIONS].set_shrinkage(1.0, 1.0)
    predictor = Predictor(model, {}, "", "cpu")
    assert prepared.tracks is not None
    tracks = list(TrackStore(prepared.tracks).read_many(prepared.manifest["train"]["genes"]))
    answers = np.concatenate([predictor.log_probabilities(track) for track in tracks])
    labels = np.concatenate([track.labels for track in tracks])
    return [float(answers[labels == c, c].mean()) for c in (DONOR, ACCEPTOR)]


def test_what_is_doubtful_is_left_out_of_the_calibration(base: Path, tmp_path: Path) -> None:
    """Positions and rows that only variants of a weight below 1 touch; if these are all donors, none is fitted."""
    variants = [("1-1022-G-C", "Conflicting"), ("X-1040-A-C", "Normal"), ("X-1039-A-C", "Low-frequency")]
    weights, _ = weigh(base, tmp_path, variants)
    found = {gene_id: at.tolist() for gene_id, at in weights.doubtful("positions", list(PLACES)).items()}
    assert found == {"a": [20, 21], "b": [61]}
    found = {gene_id: at.tolist() for gene_id, at in weights.doubtful("rows", list(PLACES)).items()}
    assert found == {"a": [DONOR_AT + 1]}

    model = small_network()
    store = TrackStore(base / "tracks.parquet")
    all_donors, _ = weigh(base, tmp_path, [("1-1021-A-C", "Conflicting"), ("X-1080-A-C", "Conflicting")])
    for given, left_out, lacks in ((None, 0, False), (weights, 3, False), (all_donors, 2, True)):
        calibration = calibrate_on_genes(Predictor(model, {}, "", "cpu"), store, ["a", "b"], given)[POSITIONS]
        assert calibration["left_out"] == left_out
        assert (calibration["reason"] == "no donor to fit on") is lacks


def test_planted_variants_change_the_fit_and_nothing_else(simulation: Path, tmp_path: Path) -> None:
    """Weighed donors are fitted closer, weighed acceptors are; calibration and validation know of no variant."""
    plain = prepare(simulation, tmp_path / "plain", *QUICK)
    valid = RowPart.read(plain.rows, plain.tracks, plain.manifest["valid"]["genes"])
    donors = valid.table.frame.filter(pl.col("splice_type") == "donor").select("gene_id", "position")
    doubted = VariantWeights(donors.with_columns(unit=pl.lit("rows"), sample_weight=pl.lit(0.5)))
    untrained = Predictor(build_model(plain.config.model), {}, "", "cpu")
    for given, left_out in ((None, 0), (doubted, len(donors))):
        calibration = calibrate_on_rows(untrained, valid, given)[ROWS]
        assert calibration["left_out"] == left_out
        assert (calibration["reason"] == "no donor to fit on") is (left_out > 0)

    results, weights, reported = {}, {}, {}
    for name, site_class in (("plain", None), ("again", None), ("donor", DONOR), ("acceptor", ACCEPTOR)):
        it = plain
        if site_class is not None:
            path = planted(plain, site_class, tmp_path / f"{name}.tsv")
            variants = ("data.variant_source=splicevardb", f"data.splicevardb_path={path}")
            it = prepare(simulation, tmp_path / name, *QUICK, *variants)
        results[name] = it.train(tmp_path / f"{name}_model")
        model, info = load_model(tmp_path / f"{name}_model")
        weights[name], reported[name] = model.state_dict(), info["sample_weights"]
    assert all(torch.equal(value, weights["again"][key]) for key, value in weights["plain"].items())
    assert reported["plain"] is None
    for name in ("donor", "acceptor"):
        assert reported[name]["unit"] == "positions"
        assert reported[name]["weighed"] == reported[name]["variants"] > 50
        assert any(not torch.equal(value, weights["plain"][key]) for key, value in weights[name].items())
        assert results[name]["sample_weights"] == reported[name]
        first, without = results[name]["history"][0], results["plain"]["history"][0]
        assert first | {"seconds": 0} == pytest.approx(without | {"seconds": 0}, nan_ok=True)
    surer = {kind: at_sites(plain, tmp_path / f"{kind}_model") for kind in ("donor", "acceptor")}
    assert surer["donor"][DONOR] > surer["acceptor"][DONOR]
    assert surer["acceptor"][ACCEPTOR] > surer["donor"][ACCEPTOR]


def test_train_meta_model_weighs_positions_too(simulation: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "base_model": "pwm",
        "data_root": simulation,
        "training_unit": "genes",
        "sequence_encoder": "none",
        "score_encoder": False,
        "track_encoder": "stages",
        "track_encoder_config": {"stages": 1, "channels": 8, "distances": [1, 20, 100]},
        "max_epochs": 1,
        "device": "cpu",
        "threads": 1,
    }
    found = {}
    for source in ("splicevardb", None):  # into one folder: the training set is written again
        train_meta_model(MetaLayerConfig(variant_source=source, **settings), tmp_path / "run")
        model, info = load_model(tmp_path / "run" / "model")
        found[source] = (model.state_dict(), info["sample_weights"])
        assert (tmp_path / "run" / "data" / VARIANT_WEIGHTS_FILE).exists() is (source is not None)
    (with_variants, used), (without, nothing) = found["splicevardb"], found[None]
    assert nothing is None
    assert used["unit"] == "positions"
    assert used["weighed"] > used["genes"] > 5
    assert any(not torch.equal(value, without[key]) for key, value in with_variants.items())
    assert json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())["variants"] is None
