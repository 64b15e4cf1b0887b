"""Training all of a HyenaDNA of the shape of small-32k: samples a second by window, in float32 and mixed precision.

Only where there is a GPU. The share of an epoch that waits for data is what it takes longer than as many times one
batch that is in memory.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Result, seconds
from metalayer.core import MetaLayerConfig
from metalayer.data.dataset import MetaLayerDataset, RowLoader
from metalayer.data.prepare import TRAINING_DATA, prepare_training_dataset
from metalayer.models import MetaSpliceModel
from metalayer.training.trainer import Trainer

BATCH = 128
CHUNKS = {501: 372, 1024: 896}
"""Letters of a window, and of the chunk that is read in it."""


def run(data: Path, device: str = "cuda", size: str = "small-32k") -> list[Result]:
    if device == "cuda" and not torch.cuda.is_available():
        print("hyenadna needs a GPU: not run", file=sys.stderr)
        return []
    config = MetaLayerConfig(base_model="pwm", data_root=data, batch_size=BATCH, device=device)
    prepare_training_dataset(config, output_dir=data / "hyenadna_rows")
    return [
        result
        for window_bp in CHUNKS
        for result in _trained(data / "hyenadna_rows" / TRAINING_DATA, window_bp, config, size)
    ]


def _trained(path: Path, window_bp: int, config: MetaLayerConfig, size: str) -> list[Result]:
    loader = RowLoader(MetaLayerDataset(path, window_bp=window_bp), BATCH, shuffle=True)
    rates, waits = {}, {}
    for mixed in (False, True):
        options = {"model_size": size, "pretrained": False, "chunk_bp": CHUNKS[window_bp]}
        model = MetaSpliceModel("hyenadna", sequence_encoder_config=options, window_bp=window_bp)
        trainer = Trainer(model, loader, loader, config.model_copy(update={"mixed_precision": mixed}))
        batches = [next(iter(loader))] * len(loader)
        times = seconds({"epoch": partial(trainer.train_on, loader), "fixed": partial(trainer.train_on, batches)}, 3)
        rates[mixed] = len(loader.rows) / times["epoch"]
        waits[mixed] = max(0.0, 1.0 - times["fixed"] / times["epoch"])
    name = f"training HyenaDNA {size}, window {window_bp}"
    return [
        Result(f"{name}, float32", rates[False], "samples/s", note=f"waits for data {waits[False]:.1%}"),
        Result(
            f"{name}, mixed precision",
            rates[True],
            "samples/s",
            "float32",
            rates[True] / rates[False],
            f"waits for data {waits[True]:.1%}, aim 5 %",
        ),
    ]
