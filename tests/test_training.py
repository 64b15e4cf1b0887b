"""Training on rows with a planted signal: found where it is, not found where it is not."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from metalayer.data.dataset import Batch, RowLoader
from metalayer.data.prevalence import _positions_per_row, prevalence_weights
from metalayer.data.row_table import RowTable
from metalayer.errors import TrainingError
from metalayer.features import feature_matrix
from metalayer.genome import encode
from metalayer.models import MetaSpliceModel
from metalayer.schema import NEITHER
from metalayer.settings.sections import TrainConfig
from metalayer.site_labels import row_classes
from metalayer.training.trainer import Trainer, _ahead, _warmup_cosine, seed_everything

SMALL = {"kernel_sizes": [5], "num_filters": 16, "output_dim": 16, "levels": 5}


def planted(n: int, seed: int, shuffled: bool = False) -> RowTable:
    """Rows whose base scores say nothing and whose letters 20 bp upstream tell donor from acceptor from neither."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, 4, (n, 500)).astype(np.uint8)
    labels = rng.integers(0, 3, n)
    for site_class, motif in ((0, "GAAGAA"), (1, "CTCTTC")):
        windows[labels == site_class, 230:236] = encode(motif)
    scores = np.zeros((n, 7), dtype=np.float32)
    scores[:, :3] = rng.dirichlet([8, 8, 8], n)
    if shuffled:
        labels = rng.permutation(labels)
    return RowTable(
        frame=pl.DataFrame({"gene_id": ["g"] * n}),
        windows=windows,
        features=feature_matrix(scores, windows),
        labels=labels.astype(np.int64),
        weights=np.ones(n, dtype=np.float32),
    )


def fit(train: RowTable, valid: RowTable, epochs: int = 8, **changes: object) -> tuple[Trainer, list[dict[str, float]]]:
    config = TrainConfig(
        **{"max_epochs": epochs, "learning_rate": 3e-3, "batch_size": 64, "device": "cpu", "patience": 20, **changes}
    )
    seed_everything(config.seed)
    model = MetaSpliceModel(hidden_dim=32, sequence_encoder_config=SMALL)
    loader = RowLoader(train, config.batch_size, shuffle=True, seed=config.seed)
    trainer = Trainer(model, loader, RowLoader(valid, 256), config)
    return trainer, trainer.train()


def test_a_planted_signal_is_found() -> None:
    _, history = fit(planted(1500, 0), planted(500, 1))
    assert history[0]["val_pr_auc_splice"] < 0.75  # the base knows nothing: prevalence 2/3
    assert max(epoch["val_pr_auc_splice"] for epoch in history) > 0.95


def test_nothing_is_found_in_shuffled_labels() -> None:
    _, history = fit(planted(1500, 0, shuffled=True), planted(500, 1, shuffled=True))
    assert max(epoch["val_pr_auc_splice"] for epoch in history) < 0.75


def test_the_best_weights_are_left_in_the_model_and_same_seed_same_weights() -> None:
    trainer, history = fit(planted(300, 0), planted(200, 1), epochs=3)
    best = max(history, key=lambda epoch: epoch["val_pr_auc_splice"])
    assert trainer._validate()["val_pr_auc_splice"] == pytest.approx(best["val_pr_auc_splice"], abs=1e-12)
    again, _ = fit(planted(300, 0), planted(200, 1), epochs=3)
    other, _ = fit(planted(300, 0), planted(200, 1), epochs=3, seed=7)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert any(
        not torch.equal(value, other.model.state_dict()[name]) for name, value in trainer.model.state_dict().items()
    )


def test_normalisation_comes_from_training_rows_alone() -> None:
    train, valid = planted(200, 0), planted(200, 1)
    trainer, _ = fit(train, valid, epochs=1)
    valid.features[:] *= 1000
    other, _ = fit(train, valid, epochs=1)
    assert torch.equal(trainer.model.normaliser.centre, other.model.normaliser.centre)
    assert torch.equal(trainer.model.normaliser.scale, other.model.normaliser.scale)


def test_a_weight_acts_on_its_own_row() -> None:
    table = planted(64, 0)
    weights = np.ones(64, dtype=np.float32)
    weights[3] = 5.0
    trainer = Trainer(
        MetaSpliceModel(hidden_dim=32, sequence_encoder_config=SMALL).eval(),
        RowLoader(table, 64),
        RowLoader(table, 64),
        TrainConfig(device="cpu"),
    )
    plain = trainer._loss(trainer.model, next(iter(RowLoader(table, 64))))
    weighted = trainer._loss(trainer.model, next(iter(RowLoader(table, 64, weights=weights))))
    expected = plain.clone()
    expected[3] *= 5
    assert torch.allclose(weighted, expected)
    assert plain[3] > 0


def test_every_row_comes_once_an_epoch_in_a_new_order() -> None:
    table = planted(100, 0)
    table.features[:, 0] = np.arange(100)
    loader = RowLoader(table, 32, shuffle=True, seed=1)
    epochs = [torch.cat([batch.features[:, 0] for batch in loader]).tolist() for _ in range(2)]
    assert len(loader) == 4
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(100))
    assert epochs[0] != epochs[1] != sorted(epochs[1])


def test_a_loss_that_is_not_finite_stops_training() -> None:
    train = planted(64, 0)
    train.features[0, :] = np.nan
    with pytest.raises(TrainingError, match="learning_rate"):
        fit(train, planted(64, 1), epochs=1)


def test_learning_rate_rises_then_falls_by_optimizer_step() -> None:
    rates = [_warmup_cosine(step, 10, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] < 0.001
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_row_classes_from_exon_bases() -> None:
    labels = np.full(12, NEITHER, dtype=np.uint8)
    labels[3], labels[8], labels[11] = 0, 1, 0  # the last exonic base of the gene has no intron base
    out = row_classes(labels)
    assert {int(i): int(out[i]) for i in np.flatnonzero(out != NEITHER)} == {4: 0, 7: 1}
    one_base_intron = np.array([2, 0, 2, 1, 2], dtype=np.uint8)
    assert row_classes(one_base_intron).tolist() == [2, 2, 0, 2, 2]


def test_sparse_strata_join_their_lower_neighbour_and_keep_the_total() -> None:
    positions, rows = np.array([1000, 500, 40, 8]), np.array([10, 5, 2, 8])
    weights = _positions_per_row(positions, rows)
    assert weights[0] == 100
    assert weights[1] == weights[2] == pytest.approx(540 / 7)
    assert weights[3] == 1
    assert (weights * rows).sum() == pytest.approx(positions.sum())


def test_rows_without_tracks_weigh_one() -> None:
    assert prevalence_weights(planted(20, 0), None).tolist() == [1.0] * 20


def test_batches_made_ahead_are_the_same_in_the_same_order_and_so_are_errors() -> None:
    def batches(n: int) -> Iterator[Batch]:
        yield from list(RowLoader(planted(100, 0), 8))[:n]
        if n < 13:
            raise TrainingError("the disk is gone")

    for ours, theirs in zip(_ahead(batches(13)), batches(13), strict=True):
        assert torch.equal(ours.features, theirs.features)
    seen = _ahead(batches(10))
    assert [len(next(seen)) for _ in range(10)] == [8] * 10
    with pytest.raises(TrainingError, match="disk"):
        next(seen)
