"""Crops of whole genes: every position once, weights that add up, equal to the gene they were cut from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metalayer.core import ArtifactLoader
from metalayer.core.loader import TRACKS
from metalayer.data.crops import UNKNOWN, CropLoader, GeneArrays, exon_states
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError, ConfigError, ModelError, TrainingError
from metalayer.features import gene_feature_matrix, gene_row_scores, stretch_feature_matrix
from metalayer.models import MetaSpliceModel
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from metalayer.settings.sections import TrainConfig
from metalayer.training.parts import Part
from metalayer.training.trainer import Trainer, seed_everything
from tests.processes import train_in_one_and_two

NEAR = {
    "both_ways": False,
    "stages": 1,
    "channels": 8,
    "local_channels": 4,
    "distances": [1, 20, 95, 105, 160],
}


@pytest.fixture(scope="module")
def store(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> TrackStore:
    from metalayer.settings.sections import DataConfig

    folder = tmp_path_factory.mktemp("tracks")
    ArtifactLoader(DataConfig(base_model="pwm", data_root=simulation)).load(folder)
    return TrackStore(folder / TRACKS)


@pytest.fixture(scope="module")
def genes(store: TrackStore) -> GeneArrays:
    return GeneArrays.read(store, list(store.genes())[:8])


def planted(n_genes: int, seed: int, shuffled: bool = False) -> GeneArrays:
    """Genes of 1,000 bases whose base scores 30 candidates of each type alike; true are those of exons of 100 bases."""
    rng = np.random.default_rng(seed)
    length, starts = 1000, np.arange(n_genes + 1, dtype=np.int64) * 1000
    scores = np.tile(np.float32([1e-4, 1e-4, 1 - 2e-4]), (n_genes * length, 1))
    labels = np.full(n_genes * length, NEITHER, dtype=np.uint8)
    for start in starts[:-1]:
        at = start + 200 + rng.permutation(600)[:20]
        acceptors, lonely = at[:5], at[5:]
        scores[acceptors] = (1e-4, 0.3, 0.6999)
        scores[acceptors + 99] = (0.3, 1e-4, 0.6999)
        labels[acceptors], labels[acceptors + 99] = ACCEPTOR, DONOR
        for i, position in enumerate(lonely):
            if scores[position, 2] > 0.9:
                scores[position] = (0.3, 1e-4, 0.6999) if i % 2 else (1e-4, 0.3, 0.6999)
    for site_class in (DONOR, ACCEPTOR) if shuffled else ():  # which of the candidates are true
        candidates = np.flatnonzero(scores[:, site_class] > 0.2)
        labels[candidates] = rng.permutation(labels[candidates])
    tokens = rng.integers(0, 4, n_genes * length).astype(np.uint8)
    exons = np.full(n_genes * length, UNKNOWN, np.uint8)
    return GeneArrays(tuple(f"{seed}-{i}" for i in range(n_genes)), starts, tokens, scores, labels, exons)


def crops(genes: GeneArrays, reach: int = 160, **options: object) -> CropLoader:
    return CropLoader(genes, reach, **{"crop_bp": 500, "batch_crops": 8, "with_features": False, **options})


def trainer(folder: Path | None = None, **changes: object) -> Trainer:
    settings = {"max_epochs": 6, "learning_rate": 5e-3, "device": "cpu", "patience": 50, "threads": 1}
    config = TrainConfig(**{**settings, "weight_average": 0.9, **changes})
    seed_everything(config.seed)
    model = MetaSpliceModel("none", score_encoder=False, track_encoder="stages", track_encoder_config=NEAR)
    return Trainer(model, *pair(), config, folder)


def pair() -> tuple[CropLoader, CropLoader]:
    return crops(planted(30, 0), shuffle=True, easy_share=0.5), crops(planted(10, 1))


def test_in_order_every_position_comes_once(genes: GeneArrays) -> None:
    seen = [np.concatenate([b.labels[b.weights > 0].numpy() for b in crops(genes, crop_bp=n)]) for n in (333, 100_000)]
    for labels in seen:
        assert np.array_equal(labels, genes.labels)
    assert all((batch.weights <= 1).all() for batch in crops(genes))


def test_weights_of_an_epoch_add_up_to_all_positions(genes: GeneArrays) -> None:
    loader = crops(genes, crop_bp=50, shuffle=True, easy_share=0.3)
    total = sum(float(batch.weights.sum()) for batch in loader)
    assert total == pytest.approx(len(genes), rel=0.01)  # a gene's last crop may be short
    sites = sum(int((batch.labels != NEITHER).sum()) for batch in loader)
    assert sites == (genes.labels != NEITHER).sum()
    drawn = sum(int((batch.weights > 0).sum()) for batch in loader)
    assert drawn < 0.9 * len(genes)
    assert len(list(loader)) == len(loader)


def test_the_expected_loss_is_that_of_whole_genes(genes: GeneArrays) -> None:
    """Of a quantity of each position, the weighted sum over epochs goes to the sum over genes."""
    whole = float(genes.scores[:, 0].astype(np.float64).sum())
    loader = crops(genes, crop_bp=50, shuffle=True, easy_share=0.2)
    sums = [sum(float((b.base[..., 0] * b.weights).sum()) for b in loader) for _ in range(30)]
    assert np.mean(sums) == pytest.approx(whole, rel=0.01)


def test_an_epoch_is_a_function_of_seed_and_number(genes: GeneArrays) -> None:
    def labels(loader: CropLoader, epoch: int) -> list[bytes]:
        loader.set_epoch(epoch)
        return [batch.tokens.numpy().tobytes() for batch in loader]

    one, other = crops(genes, shuffle=True, seed=3), crops(genes, shuffle=True, seed=3)
    labels(one, 1)
    assert labels(one, 2) == labels(other, 2)
    assert labels(one, 2) != labels(one, 3)


def test_processes_share_each_batch(genes: GeneArrays) -> None:
    whole = list(crops(genes, shuffle=True))
    parts = []
    for rank in (0, 1):
        loader = crops(genes, shuffle=True)
        loader.share(rank, 2)
        parts.append(list(loader))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.tokens[0::2], first.tokens)
        assert torch.equal(batch.labels[1::2], second.labels)


def test_a_process_without_a_share_gets_an_empty_batch() -> None:
    loader = crops(planted(1, 0), crop_bp=1000)
    loader.share(1, 2)
    (batch,) = loader
    assert batch.tokens.shape == (0, 1000 + 2 * 161)
    model = trainer().model.train()
    answer, exons = model(*batch.inputs, with_exons=True)
    assert answer.shape == (0, 1000, 3)
    assert exons.shape == (0, 1000)


def test_mapped_arrays_equal_those_in_memory(store: TrackStore, genes: GeneArrays, tmp_path: Path) -> None:
    mapped = GeneArrays.read(store, [*genes.gene_ids, "no such gene"], tmp_path)
    assert isinstance(mapped.scores, np.memmap)
    for name in ("starts", "tokens", "scores", "labels", "exons"):
        assert np.array_equal(getattr(mapped, name), getattr(genes, name))
    assert crops(mapped).identity == crops(genes).identity


def test_genes_lie_in_transcript_sense(store: TrackStore) -> None:
    strands = {gene.strand for gene in store.genes().values()}
    assert strands == {"+", "-"}
    for gene_id, gene in store.genes().items():
        arrays = GeneArrays.read(store, [gene_id])
        donors = np.flatnonzero(arrays.labels == DONOR)
        assert (arrays.tokens[donors + 1] == 2).mean() > 0.95, gene.strand  # G of GT follows the exon's last base


def test_features_of_a_stretch_are_those_of_the_gene(genes: GeneArrays) -> None:
    end = int(genes.starts[1])
    tokens, scores = genes.tokens[:end], genes.scores[:end]
    whole = gene_feature_matrix(gene_row_scores(scores), tokens)
    for start, stop in ((0, end), (0, 5), (3, 700), (end - 300, end), (end - 1, end)):
        assert np.array_equal(stretch_feature_matrix(scores, tokens, start, stop), whole[start:stop])
    batch = next(iter(crops(genes, crop_bp=200, with_features=True)))
    assert np.array_equal(batch.features[1].numpy(), whole[199:401])


def test_exon_states() -> None:
    labels = np.full(20, NEITHER, np.uint8)
    labels[[4, 14]], labels[[9]] = DONOR, ACCEPTOR
    assert exon_states(labels).tolist() == [1] * 5 + [0] * 4 + [1] * 6 + [UNKNOWN] * 5
    labels[11] = DONOR  # two donors in a row: which of them, nothing says
    assert exon_states(labels).tolist() == [1] * 5 + [0] * 4 + [1] * 3 + [UNKNOWN] * 8
    assert exon_states(np.full(3, NEITHER, np.uint8)).tolist() == [UNKNOWN] * 3


def test_a_planted_signal_is_found_and_nothing_where_labels_are_shuffled() -> None:
    found = trainer(max_epochs=30)
    history = found.train()
    assert history[0]["val_ap_donor"] < 0.75
    assert max(epoch["val_ap_donor"] for epoch in history) > 0.9
    nothing = trainer(max_epochs=15)
    nothing.train_loader = crops(planted(30, 0, shuffled=True), shuffle=True)
    nothing.val_loader = crops(planted(80, 1, shuffled=True))  # of few genes, chance gives more
    history = nothing.train()
    assert max(epoch["val_ap_donor"] for epoch in history) < history[0]["val_ap_donor"] + 0.05


def test_six_epochs_equal_three_and_three_bit_for_bit(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", gradient_accumulation_steps=2)
    whole.train()

    class Stop(Exception):
        pass

    def stop(epoch: dict[str, float]) -> None:
        if epoch["epoch"] == 3:
            raise Stop

    cut = trainer(tmp_path / "cut", gradient_accumulation_steps=2)
    cut.on_epoch = stop
    with pytest.raises(Stop):
        cut.train()
    torch.rand(10)
    resumed = Trainer.from_checkpoint(tmp_path / "cut" / "last_model.pt", *pair())
    resumed.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    last = [torch.load(tmp_path / name / "last_model.pt", weights_only=True) for name in ("whole", "cut")]
    for kind in ("model", "weights", "average"):
        for name, value in last[0][kind].items():
            assert torch.equal(value, last[1][kind][name]), (kind, name)


def test_two_processes_train_the_model_of_one(tmp_path: Path) -> None:
    one, two = train_in_one_and_two(
        tmp_path,
        """
        from tests.test_crops import trainer
        history = trainer(folder, max_epochs=2, gradient_accumulation_steps=2).train()
        """,
    )
    assert one.losses == pytest.approx(two.losses, rel=1e-4)
    for name, value in one.weights.items():
        torch.testing.assert_close(value, two.weights[name], atol=1e-4, rtol=1e-3)


def test_what_is_kept_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    it = trainer(tmp_path, max_epochs=2)
    it.train()
    content = torch.load(tmp_path / "last_model.pt", weights_only=True)
    assert any(not torch.equal(value, content["weights"][name]) for name, value in content["model"].items())
    assert all(torch.equal(value, content["average"][f"module.{name}"]) for name, value in content["model"].items())


def test_bad_input(genes: GeneArrays, store: TrackStore, tmp_path: Path) -> None:
    without = planted(2, 0)
    without.labels[:] = NEITHER
    with pytest.raises(TrainingError, match="no site among them"):
        crops(without)
    with pytest.raises(ConfigError, match="crop_bp 0"):
        crops(genes, crop_bp=0)
    with pytest.raises(ConfigError, match="crops of whole genes hold every position"):
        trainer(balance_classes=True)
    for there in (None, store):
        with pytest.raises(ArtifactError, match="none of the 1 genes of the train part"):
            Part(["nothing"], there).arrays("train", None)
    trainer(tmp_path, max_epochs=1).train()
    with pytest.raises(ConfigError, match="other training or validation rows"):
        Trainer.from_checkpoint(tmp_path / "last_model.pt", crops(planted(30, 5), shuffle=True), pair()[1])
    with pytest.raises(ModelError):
        Trainer.from_checkpoint(tmp_path / "none.pt", *pair())
