"""The loader and a training step, against stepping on one fixed batch and against a plain CNN; preparing a set."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch
from torch import nn

from benchmarks.measure import Result, seconds
from benchmarks.plain_cnn import SCORES, WINDOW_BP, PlainCnn
from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.data.dataset import Batch, MetaLayerDataset, RowLoader
from metalayer.data.prepare import TRAINING_DATA, prepare_training_dataset
from metalayer.models import MetaSpliceModel
from metalayer.models.build import build_model
from metalayer.training.trainer import Trainer

BATCH, PLAIN_BATCH, FIXED_BATCHES = 512, 64, 12


def run(data: Path) -> list[Result]:
    config = MetaLayerConfig(base_model="pwm", data_root=data, batch_size=BATCH)
    folder = data / "training_set"
    dataset = prepare_training_dataset(config, output_dir=folder)
    return [*_loader(dataset), *_steps(dataset), *_prepare(config, folder)]


def _loader(dataset: MetaLayerDataset) -> list[Result]:
    loader = RowLoader(dataset, BATCH, shuffle=True)
    lightweight = MetaLayerConfig.from_yaml("lightweight")
    lightweight.batch_size, lightweight.device = BATCH, "cpu"
    trainer = Trainer(build_model(lightweight), loader, loader, lightweight)
    batches = list(loader)
    times = seconds(
        {
            "loader": lambda: [len(batch) for batch in loader],
            "epoch": lambda: trainer.train_on(loader),
            "fixed": lambda: trainer.train_on([batches[0]] * len(batches)),
        },
        repeats=3,
    )
    n = len(dataset)
    epoch, fixed = n / times["epoch"], len(batches[0]) * len(batches) / times["fixed"]
    return [
        Result(f"mapped loader, batch {BATCH}, no workers", n / times["loader"], "samples/s", note="aim 200,000"),
        Result("an epoch, lightweight CNN", epoch, "samples/s", "one fixed batch in memory", epoch / fixed, "aim 0.95"),
    ]


def _steps(dataset: MetaLayerDataset) -> list[Result]:
    """The default CNN's training step beside the plain one's, both on batches in memory."""
    torch.manual_seed(0)
    config = MetaLayerConfig(batch_size=BATCH, device="cpu")
    loader = RowLoader(dataset, BATCH, shuffle=True)
    trainer = Trainer(MetaSpliceModel(), loader, loader, config)
    ours = [batch for batch, _ in zip(loader, range(FIXED_BATCHES), strict=False)]
    small = next(iter(RowLoader(dataset, PLAIN_BATCH, shuffle=True)))
    plain = PlainCnn()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-4)
    windows, scores = plain_inputs(small, trainer.model)

    def plain_step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(windows, scores), small.labels).backward()
        optimizer.step()

    times = seconds({"ours": lambda: trainer.train_on(ours), "plain": plain_step}, repeats=3)
    rate, plain_rate = sum(map(len, ours)) / times["ours"], PLAIN_BATCH / times["plain"]
    return [
        Result("training step, default CNN", rate, "samples/s", "the plain CNN", rate / plain_rate, "aim 10"),
        Result("training step, plain CNN of 613,507 parameters", plain_rate, "samples/s"),
    ]


def plain_inputs(batch: Batch, model: MetaSpliceModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows cut or padded to 512, and the 43 scores as our model normalises them."""
    spare = WINDOW_BP - batch.windows.shape[1]
    windows = nn.functional.pad(batch.windows, (spare // 2, spare - spare // 2), value=4)
    return windows, model.normaliser(batch.features)[:, :SCORES]


def _prepare(config: MetaLayerConfig, folder: Path) -> list[Result]:
    """Preparing a training set against polars' own scan and sink of the same columns."""
    files = [file.path for file in ArtifactLoader(config).files().artifacts]
    columns = pl.read_parquet_schema(folder / TRAINING_DATA)
    there = [name for name in pl.read_csv(files[0], separator="\t", n_rows=0).columns if name in columns]
    rows_only = config.model_copy()
    rows_only.nucleotide_scores = folder.with_name("no_scores")
    rows_only.nucleotide_scores.mkdir(exist_ok=True)

    def plain() -> None:
        scan = pl.scan_csv(files, separator="\t", schema_overrides={"chrom": pl.String})
        scan.select(there).sink_parquet(folder.with_name("plain.parquet"), compression="zstd")

    times = seconds(
        {"ours": lambda: prepare_training_dataset(rows_only, output_dir=folder.with_name("again")), "plain": plain},
        repeats=3,
    )
    n = len(pl.read_parquet(folder / TRAINING_DATA, columns=["label"]))
    ratio = times["plain"] / times["ours"]
    return [Result("prepare_training_dataset", n / times["ours"], "rows/s", "polars scan to sink", ratio, "aim 0.6")]
