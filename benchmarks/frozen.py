"""Epochs of a frozen HyenaDNA from the states on disk, against epochs through it: rows, and crops of whole genes.

The weights are random, as nothing is downloaded here; the shape is that of small-32k, as in the preset `hyenadna`.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Result, seconds
from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.core.loader import TRACKS
from metalayer.data.crops import CropLoader, GeneArrays
from metalayer.data.dataset import RowLoader
from metalayer.data.prepare import prepare_training_dataset
from metalayer.data.tracks import TrackStore
from metalayer.models.meta import build_model
from metalayer.training.frozen import read_frozen
from metalayer.training.trainer import Loader, Trainer

ROWS, GENES = 64, 1
AIM = "aim 20"


def run(data: Path) -> list[Result]:
    config = MetaLayerConfig(
        base_model="pwm",
        data_root=data,
        sequence_encoder="hyenadna",
        sequence_encoder_config={"model_size": "small-32k", "pretrained": False, "freeze": True},
        embedding_cache=data / "embeddings",
        max_samples=ROWS,
        device="cpu",
    )
    dataset = prepare_training_dataset(config, output_dir=data / "frozen_rows")
    ArtifactLoader(config).load(data / "frozen_genes")
    store = TrackStore(data / "frozen_genes" / TRACKS)
    model = build_model(config)
    genes = GeneArrays.read(store, list(store.genes())[:GENES])
    rows = RowLoader(dataset, config.batch_size, shuffle=True)
    crops = CropLoader(genes, model.reach_bp, crop_bp=config.crop_bp, batch_crops=config.batch_crops, shuffle=True)
    return [
        _compared("rows", Trainer(model, rows, rows, config), rows, len(dataset), config),
        _compared("positions of genes", Trainer(model, crops, crops, config), crops, len(genes), config),
    ]


def _compared(unit: str, trainer: Trainer, loader: Loader, size: int, config: MetaLayerConfig) -> Result:
    encoder, world = trainer.model.encoder, trainer.world

    def cached() -> None:
        trainer.train_on(loader)

    def through() -> None:
        loader.use_states(None)
        trainer.train_on(loader)
        read_frozen(encoder, [loader], config.seed, config.embedding_cache, world)

    read_frozen(encoder, [loader], config.seed, config.embedding_cache, world)  # once
    opening = seconds({"open": lambda: read_frozen(encoder, [loader], config.seed, config.embedding_cache, world)})
    times = seconds({"through": through, "cached": cached}, repeats=1)
    ratio = (times["through"] - opening["open"]) / times["cached"]
    return Result(
        f"an epoch of frozen HyenaDNA small-32k from disk, {unit}",
        size / times["cached"],
        f"{unit}/s",
        "an epoch through it",
        ratio,
        AIM,
    )
