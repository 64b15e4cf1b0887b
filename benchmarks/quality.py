"""`python -m benchmarks.quality DIR`: the default CNN and the plain CNN on real rows, three seeds each.

Base openspliceai_80 in DIR, trained on chromosome 1's rows, validated on chromosome 3's. The same rows, batch
size and learning rate; each keeps its best epoch. Takes half an hour on two cores, nearly all of it the plain CNN's,
so `make bench` leaves it out.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.plain_cnn import PlainCnn
from benchmarks.training import plain_inputs
from metalayer.core import MetaLayerConfig
from metalayer.data.dataset import MetaLayerDataset, RowLoader
from metalayer.data.prepare import prepare_training_dataset
from metalayer.evaluation.metrics import average_precision
from metalayer.models import MetaSpliceModel
from metalayer.schema import NEITHER
from metalayer.training.trainer import Trainer, best_epoch, seed_everything

SEEDS, BATCH, RATE, OUR_EPOCHS, PLAIN_EPOCHS = (1, 2, 3), 64, 1e-3, 40, 8


def loaders(dataset: MetaLayerDataset, seed: int) -> tuple[RowLoader, RowLoader]:
    chrom = dataset.frame["chrom"].to_numpy()
    train, valid = np.flatnonzero(chrom == "1"), np.flatnonzero(chrom == "3")
    return RowLoader(dataset, BATCH, rows=train, shuffle=True, seed=seed), RowLoader(dataset, 512, rows=valid)


def ours(dataset: MetaLayerDataset, seed: int) -> tuple[float, float]:
    """Best validation PR-AUC of splice sites, and rows trained on a second."""
    config = MetaLayerConfig(
        batch_size=BATCH, learning_rate=RATE, max_epochs=OUR_EPOCHS, patience=10, seed=seed, device="cpu"
    )
    train, valid = loaders(dataset, seed)
    seed_everything(seed)
    trainer = Trainer(MetaSpliceModel(), train, valid, config)
    history = trainer.train()
    rates = [len(train.rows) / epoch["seconds"] for epoch in history[1:]]
    return best_epoch(history)["val_pr_auc_splice"], float(np.median(rates))


def plain(dataset: MetaLayerDataset, seed: int) -> tuple[float, float]:
    """As of `ours`."""
    train, valid = loaders(dataset, seed)
    seed_everything(seed)
    model, normalise = PlainCnn(), MetaSpliceModel()
    normalise.normaliser.fit(train.features)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=PLAIN_EPOCHS * len(train), pct_start=0.05
    )
    best, rates = 0.0, []
    for epoch in range(1, PLAIN_EPOCHS + 1):
        model.train()
        started = time.perf_counter()
        for batch in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(*plain_inputs(batch, normalise)), batch.labels).backward()
            optimizer.step()
            schedule.step()
        rates.append(len(train.rows) / (time.perf_counter() - started))
        model.eval()
        with torch.inference_mode():
            answers = torch.cat([model(*plain_inputs(batch, normalise)).softmax(-1) for batch in valid]).numpy()
        found = average_precision(valid.labels != NEITHER, answers[:, :2].sum(axis=1, dtype=np.float64))
        print(f"  plain, seed {seed}, epoch {epoch}: {found:.4f}", flush=True)
        best = max(best, found)
    return best, float(np.median(rates))


def main() -> int:
    config = MetaLayerConfig(base_model="openspliceai_80", data_root=Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare_training_dataset(config, output_dir=folder)
        for name, run in (("default CNN", ours), ("plain CNN of 613,507 parameters", plain)):
            found = [run(dataset, seed) for seed in SEEDS]
            values = ", ".join(f"{value:.4f}" for value, _ in found)
            median = np.median([value for value, _ in found])
            rate = np.median([rate for _, rate in found])
            print(f"{name}: validation PR-AUC splice {values}; median {median:.4f}; {rate:,.0f} samples/s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
