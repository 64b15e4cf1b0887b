"""Positions of several genes: contradicting labels are ignored, agreeing ones count once, in all that reads them."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer.data.crops import CropLoader, GeneArrays
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.sample import Sample
from metalayer.genome import Gene
from metalayer.overlaps import PlacedSites, contradicted, repeated
from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR, NEITHER, POSITIONS
from metalayer.settings.sections import EvaluateConfig

ONE = Gene.from_table("ONE", "1", "+", 101, 200)
TWO = Gene.from_table("TWO", "1", "+", 151, 250)
OTHER_STRAND = Gene.from_table("MINUS", "1", "-", 151, 250)


def labels_of(gene: Gene, sites: dict[int, int]) -> np.ndarray:
    """From genomic positions, 1-based, and their class."""
    labels = np.full(len(gene), NEITHER, dtype=np.uint8)
    for position, site_class in sites.items():
        labels[gene.index(position - 1)] = site_class
    return labels


def scored(gene: Gene, sites: dict[int, int], build: str | None = None, seed: int = 0) -> GeneScores:
    rng = np.random.default_rng([seed, gene.interval.start])
    scores = {name: rng.dirichlet([1, 1, 30], len(gene)).astype(np.float32) for name in ("base", "meta")}
    return GeneScores(gene.gene_id, gene.interval.chrom, labels_of(gene, sites), scores, gene, genome_build=build)


def test_a_site_of_one_gene_and_not_of_the_other_is_ignored_in_both() -> None:
    sites = [{120: DONOR, 160: ACCEPTOR, 170: DONOR}, {160: ACCEPTOR, 190: DONOR, 240: ACCEPTOR}]
    genes = [scored(ONE, sites[0]), scored(TWO, sites[1])]
    sample = Sample.of(genes, ["base", "meta"])
    assert [at.tolist() for at in sample.contradicted] == [[69, 89], [19, 39]]  # 170 and 190
    assert sample.sizes.tolist() == [150 - 2]  # one cluster, each base once
    assert sample.sites.sum(axis=0).tolist() == [1, 2]


def test_shared_positions_are_those_of_the_gene_that_begins_first() -> None:
    one, two = scored(ONE, {120: DONOR, 160: ACCEPTOR}), scored(TWO, {160: ACCEPTOR, 240: DONOR})
    for genes in ([one, two], [two, one]):
        parts = Sample.of(genes, ["base"]).parts(genes, ["base"])
        expected = np.concatenate([g.scores["base"] if g is one else g.scores["base"][50:] for g in genes])
        np.testing.assert_array_equal(np.concatenate([part.scores["base"] for part in parts]), expected)
    minus = [Gene.from_table(g.gene_id, "1", "-", g.interval.start + 1, g.interval.end) for g in (ONE, TWO)]
    assert repeated([PlacedSites.of(g, labels_of(g, {})) for g in minus]) == [slice(100, None), slice(50, None)]


@pytest.mark.parametrize("other", [OTHER_STRAND, Gene.from_table("FAR", "2", "+", 151, 250)])
def test_other_strands_and_chromosomes_share_nothing(other: Gene) -> None:
    genes = [scored(ONE, {160: DONOR}), scored(other, {170: ACCEPTOR})]
    sample = Sample.of(genes, ["base"])
    assert sample.lengths.tolist() == [100, 100]
    assert not any(len(at) for at in sample.contradicted)


def test_other_builds_share_nothing() -> None:
    sample = Sample.of([scored(ONE, {160: DONOR}, "GRCh38"), scored(TWO, {170: ACCEPTOR}, "GRCh37")], ["base"])
    assert sample.lengths.tolist() == [100, 100]


@pytest.mark.parametrize("seed", range(30))
def test_as_a_slow_reading_position_by_position(seed: int) -> None:
    rng = np.random.default_rng(seed)
    genes = []
    for number in range(int(rng.integers(2, 9))):
        start = int(rng.integers(1, 150))
        gene = Gene.from_table(
            f"G{number}",
            str(rng.choice(["1", "2"])),
            str(rng.choice(["+", "-"])),
            start,
            start + int(rng.integers(1, 80)),
        )
        genes.append((gene, rng.choice([DONOR, ACCEPTOR, NEITHER], len(gene), p=[0.05, 0.05, 0.9]).astype(np.uint8)))
    said: dict[tuple[str, str, int], list[int]] = {}
    for gene, labels in genes:
        for index, label in enumerate(labels):
            said.setdefault((gene.interval.chrom, gene.strand, gene.genomic(index)), []).append(int(label))
    placed = [PlacedSites.of(gene, labels) for gene, labels in genes]
    left = 0
    for (gene, labels), odd, shared in zip(genes, contradicted(placed), repeated(placed), strict=True):
        keys = [(gene.interval.chrom, gene.strand, gene.genomic(index)) for index in range(len(gene))]
        assert odd.tolist() == [index for index, key in enumerate(keys) if len(set(said[key])) > 1]
        mask = np.ones(len(labels), dtype=bool)
        mask[shared] = False
        left += int(mask.sum())
    assert left == len(said)


def test_the_report_counts_and_lists_them() -> None:
    genes = [scored(ONE, {120: DONOR, 160: ACCEPTOR, 170: DONOR}, "GRCh38"), scored(TWO, {160: ACCEPTOR}, "GRCh38")]
    report = evaluate(genes, EvaluateConfig(n_bootstrap=100))
    found = report["overlaps"]
    assert (found["contradicted"], found["shared"]) == (1, 49)
    assert [(one["gene_id"], one["chrom"], one["strand"], one["position"], one["class"]) for one in found["list"]] == [
        ("ONE", "1", "+", 170, "donor"),
        ("TWO", "1", "+", 170, "neither"),
    ]
    assert found["list"][0]["base"] == pytest.approx(float(genes[0].scores["base"][69][:2].sum()))
    assert report["positions"] == 149
    assert (report["by_gene"]["genes"], report["by_gene"]["counted_elsewhere"]) == (2, 0)
    # Errors are placed where they are, also behind positions that do not count.
    for error in itertools.chain(report["errors"]["fixed"]["list"], report["errors"]["made"]["list"]):
        gene = {one.gene_id: one for one in genes}[error["gene_id"]]
        assert gene.gene is not None
        index = gene.gene.index(error["position"] - 1)
        assert error["base"] == float(gene.scores["base"][index, CLASSES.index(error["class"])])


@pytest.fixture
def store(tmp_path: Path) -> TrackStore:
    """Two genes that contradict each other at 170 and 190."""
    frames = []
    for gene, sites in ((ONE, {120: DONOR, 170: DONOR}), (TWO, {190: ACCEPTOR, 240: ACCEPTOR})):
        labels, scores = labels_of(gene, sites), scored(gene, sites).scores["base"]
        frames.append(
            pl.DataFrame(
                {
                    "gene_id": [gene.gene_id] * len(gene),
                    "chrom": ["chr1"] * len(gene),
                    "strand": [gene.strand] * len(gene),
                    "position": range(gene.interval.start + 1, gene.interval.end + 1),
                    "base": ["ACGT"[i % 4] for i in range(len(gene))],
                    **dict(zip(BASE_SCORES, scores.T, strict=True)),
                    "label": [CLASSES[label] for label in labels],
                }
            )
        )
    pl.concat(frames).write_parquet(tmp_path / "scores.parquet")
    found = write_tracks([tmp_path / "scores.parquet"], tmp_path / "canonical.parquet", {}, pl.DataFrame)
    assert found.contradicted == 2
    return TrackStore(tmp_path / "canonical.parquet")


def test_training_ignores_them(store: TrackStore) -> None:
    assert store.read("ONE").ignored.tolist() == [69, 89]
    assert store.read("TWO").ignored.tolist() == [19, 39]
    genes = GeneArrays.read(store, ["ONE", "TWO"])
    assert genes.weights is not None
    assert np.flatnonzero(genes.weights == 0).tolist() == [69, 89, 119, 139]
    loader = CropLoader(genes, 4, crop_bp=64, batch_crops=2, with_features=False)
    batches = list(loader)
    weights = np.concatenate([batch.weights.numpy().ravel() for batch in batches])
    assert weights.sum() == 200 - 4
    # Two sites weigh, in the sum that scales losses too.
    assert loader.loss_scale == 200 / 2


def test_genes_whose_sites_are_all_contradicted_have_none(store: TrackStore) -> None:
    from metalayer.errors import TrainingError

    genes = GeneArrays.read(store, ["ONE", "TWO"])
    assert genes.weights is not None
    genes.weights[genes.labels != NEITHER] = 0.0
    with pytest.raises(TrainingError, match="have no site"):
        CropLoader(genes, 4, with_features=False)


def test_on_real_genes(shared: Path, tmp_path: Path) -> None:
    """11 positions of chr3, which overlapping genes label differently."""
    files = [shared / "real" / "nucleotide_scores" / "openspliceai_10000_chr3.parquet"]
    found = write_tracks(files, tmp_path / "canonical.parquet", {}, pl.DataFrame)
    assert found.contradicted == 11


def test_calibration_leaves_them_out(store: TrackStore) -> None:
    from metalayer.inference import Predictor
    from metalayer.models.meta import build_model
    from metalayer.settings.network import ModelConfig
    from metalayer.workflows.calibrate import calibrate_on_genes

    track_encoder = {"stages": 1, "channels": 8, "distances": [1, 20, 100], "both_ways": False}
    options = {"sequence_encoder": "none", "score_encoder": False, "track_encoder": "stages"}
    model = build_model(ModelConfig(**options, track_encoder_config=track_encoder))
    found = calibrate_on_genes(Predictor(model, {}, "", "cpu"), store, ["ONE", "TWO"])[POSITIONS]
    assert found["left_out"] == 4
