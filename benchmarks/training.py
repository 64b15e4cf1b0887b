"""The loader and a training step, against stepping on one fixed batch in memory."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from benchmarks.measure import Result, seconds
from metalayer.config import DataConfig, TrainConfig
from metalayer.core import ArtifactLoader
from metalayer.data.dataset import RowLoader, RowTable
from metalayer.data.labels import label_rows
from metalayer.models import MetaSpliceModel
from metalayer.training.trainer import Trainer

BATCH = 512


def run(data: Path) -> list[Result]:
    config = DataConfig(base_model="pwm", data_root=data)
    ArtifactLoader(config).load(data / "typed")
    labelled = data / "typed" / "labelled.parquet"
    label_rows(data / "typed" / "rows.parquet", data / "typed" / "genes.parquet", config, labelled, "GRCh38")
    table = RowTable.read(labelled, pl.read_parquet(labelled)["gene_id"].unique().to_list())
    loader = RowLoader(table, BATCH, shuffle=True)
    batches = list(loader)
    torch.manual_seed(0)
    trainer = Trainer(MetaSpliceModel(), loader, RowLoader(table, BATCH), TrainConfig(batch_size=BATCH))
    times = seconds(
        {
            "loader": lambda: [len(batch) for batch in loader],
            "epoch": lambda: trainer.train_on(loader),
            "fixed": lambda: trainer.train_on([batches[0]] * len(batches)),
        },
        repeats=3,
    )
    n = len(table)
    fixed_rows = len(batches[0]) * len(batches)
    return [
        Result(f"loader, batch {BATCH}", n / times["loader"], "samples/s"),
        Result(
            f"training step, default CNN, batch {BATCH}",
            n / times["epoch"],
            "samples/s",
            "one fixed batch in memory",
            (n / times["epoch"]) / (fixed_rows / times["fixed"]),
        ),
    ]
