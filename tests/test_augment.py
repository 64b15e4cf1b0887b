"""Genes in other guises: every position once, cut inside introns alone, the same whatever the processes."""

from typing import Any

import numpy as np
import pytest
import torch

from metalayer.data.augment import INTRON_END_BP, NOISE_SD, Arrangement, introns, join_anew, shaken
from metalayer.data.crops import UNKNOWN, CropLoader, GeneArrays, exon_states
from metalayer.errors import ConfigError
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from tests.test_crops import crops, planted, trainer

EXON_BP, INTRON_BP, EXONS = 100, 400, 4


@pytest.fixture(scope="module")
def genes() -> GeneArrays:
    """Six genes of four exons; the base says each site and nothing else."""
    length = EXONS * EXON_BP + (EXONS - 1) * INTRON_BP
    labels = np.full(length, NEITHER, np.uint8)
    for i in range(EXONS - 1):
        end = (i + 1) * EXON_BP + i * INTRON_BP
        labels[end - 1], labels[end + INTRON_BP] = DONOR, ACCEPTOR
    labels = np.tile(labels, 6)
    scores = np.array([0.001, 0.001, 0.998], np.float32)[None].repeat(len(labels), axis=0)
    scores[labels == DONOR], scores[labels == ACCEPTOR] = (0.9, 0.001, 0.099), (0.001, 0.9, 0.099)
    starts = np.arange(7, dtype=np.int64) * length
    exons = np.tile(exon_states(labels[:length]), 6)
    tokens = np.random.default_rng(0).integers(0, 4, len(labels)).astype(np.uint8)
    return GeneArrays(tuple("abcdef"), starts, tokens, scores, labels, exons)


def test_joined_genes_hold_every_position_once_and_are_genes(genes: GeneArrays) -> None:
    cuts = introns(genes.starts, genes.exons)
    assert [len(one) for one in cuts] == [EXONS - 1] * 6
    places = np.arange(len(genes))
    joined = join_anew(genes.starts, cuts, np.random.default_rng(1))
    whole = joined.take(places, 0, len(genes))
    assert np.array_equal(np.sort(whole), places)
    assert not np.array_equal(whole, places)
    for start, end in zip(joined.gene_starts[:-1], joined.gene_starts[1:], strict=True):
        labels = joined.take(genes.labels, start, end)
        assert np.array_equal(exon_states(labels), joined.take(genes.exons, start, end))
        sites = labels[labels != NEITHER].tolist()
        assert sites == [DONOR, ACCEPTOR] * (len(sites) // 2)
    seams = joined.sources[~np.isin(joined.sources, genes.starts)]
    near = [np.abs(np.flatnonzero(genes.labels != NEITHER) - seam).min() for seam in seams]
    assert len(seams) and min(near) >= INTRON_END_BP
    sites = joined.moved(np.flatnonzero(genes.labels != NEITHER))
    assert np.array_equal(sites, np.flatnonzero(joined.take(genes.labels, 0, len(genes)) != NEITHER))


def test_what_one_stretch_holds_is_no_copy(genes: GeneArrays) -> None:
    arrangement = Arrangement.of([[(500, 900), (0, 100)], [(100, 500)]])
    assert arrangement.gene_starts.tolist() == [0, 500, 900]
    assert np.shares_memory(arrangement.take(genes.scores, 10, 400), genes.scores)
    assert arrangement.take(np.arange(900), 398, 402).tolist() == [898, 899, 0, 1]
    assert arrangement.moved(np.array([0, 100, 499, 500])).tolist() == [0, 400, 500, 899]


def test_shaken_scores_are_probabilities_around_those_given() -> None:
    given = np.array([0.2, 0.1, 0.7], np.float32)[None].repeat(100_000, axis=0)
    given[:10] = 0.0
    found = shaken(given, np.random.default_rng(0))
    assert found.dtype == np.float32
    assert not found[:10].any()
    assert found[10:].sum(axis=1) == pytest.approx(np.ones(99_990), abs=1e-6)
    odds = np.log(found[10:, :2] / found[10:, 2:])
    assert odds.std(axis=0) == pytest.approx([NOISE_SD, NOISE_SD], abs=0.02)
    assert odds.mean(axis=0) == pytest.approx(np.log([0.2 / 0.7, 0.1 / 0.7]), abs=0.01)


def augmented(genes: GeneArrays, **options: Any) -> CropLoader:
    settings: dict[str, Any] = {"shuffle": True, "augmented": True, "crop_bp": 300, "batch_crops": 3}
    return crops(genes, **{**settings, **options})


def test_an_augmented_epoch_is_another_each_time_and_loses_nothing(genes: GeneArrays) -> None:
    loader = augmented(genes)
    seen = []
    for _ in range(2):
        batches = list(loader)
        labels, weights, exons, base = (
            torch.cat([getattr(batch, name) for batch in batches]) for name in ("labels", "weights", "exons", "base")
        )
        assert weights.sum() == pytest.approx(len(genes), rel=0.15)  # an offset makes more and shorter crops
        assert len(batches) <= len(loader)
        assert torch.equal(labels != NEITHER, (labels != NEITHER) & (weights > 0))
        assert ((exons == 1) | (exons == 0) | (exons == UNKNOWN)).all()
        sites = labels != NEITHER
        assert 0.8 < int(sites.sum()) / int((genes.labels != NEITHER).sum()) <= 1.0
        assert (base[sites].argmax(dim=-1) == labels[sites]).float().mean() > 0.9
        assert (base.sum(dim=-1) - 1).abs().max() < 1e-6
        seen.append(base)
    again = augmented(genes)
    assert torch.equal(torch.cat([batch.base for batch in again]), seen[0])
    assert not torch.equal(seen[0][: len(seen[1])], seen[1][: len(seen[0])])


def test_the_base_of_a_crop_is_that_of_its_tracks(genes: GeneArrays) -> None:
    batches = list(augmented(genes))
    assert batches
    for batch in batches:
        inner = batch.tracks[:, 161:-161]
        inside = inner.sum(dim=-1) > 0
        assert torch.equal(inner[inside], batch.base[inside])
        assert (batch.base[~inside] == batch.base[~inside][:, :1]).all()


def test_processes_share_each_batch(genes: GeneArrays) -> None:
    parts = []
    for rank in (0, 1):
        loader = augmented(genes)
        loader.share(rank, 2)
        parts.append(list(loader))
    for batch, first, second in zip(augmented(genes), *parts, strict=True):
        assert torch.equal(batch.tracks[0::2], first.tracks)
        assert torch.equal(batch.labels[1::2], second.labels)


def test_a_signal_is_found_in_other_guises_too() -> None:
    found = trainer(max_epochs=15)
    found.train_loader = crops(planted(30, 0), shuffle=True, easy_share=0.5, augmented=True)
    history = found.train()
    assert history[0]["val_ap_donor"] < 0.75
    assert max(epoch["val_ap_donor"] for epoch in history) > 0.85


def test_what_cannot_be_augmented_is_refused(genes: GeneArrays) -> None:
    for options in ({"with_features": True}, {"shuffle": False}):
        with pytest.raises(ConfigError, match="augment_tracks: with_features"):
            augmented(genes, **options)
    with pytest.raises(ConfigError, match="a frozen language model read the genes as they are"):
        augmented(genes).use_states(object())  # type: ignore[arg-type]
