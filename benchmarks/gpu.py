"""A GPU against the CPU cores of the same machine: training on rows and on genes, dense inference, the base pass.

Only where there is a GPU. An epoch's wait for data is what it takes longer than as many times one batch in memory.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.inference import made_up
from benchmarks.measure import Result, seconds
from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.base.openspliceai import load_openspliceai
from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.core.loader import TRACKS
from metalayer.data.crops import CropLoader, GeneArrays
from metalayer.data.dataset import RowLoader
from metalayer.data.prepare import prepare_training_dataset
from metalayer.data.tracks import TrackStore
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.meta import build_model
from metalayer.settings.sections import DataConfig
from metalayer.training.trainer import Trainer

FLANK, BASE_NT, DENSE_BP = 10_000, 200_000, 2_000_000
ROW_BATCH, BATCH_CROPS = 512, (4, 32)


def run(data: Path, device: str = "cuda") -> list[Result]:
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu needs a GPU: not run", file=sys.stderr)
        return []
    torch.manual_seed(0)
    return [*_rows(data, device), *_genes(data, device), *_dense(device), *_base_layer(device)]


def _rows(data: Path, device: str) -> list[Result]:
    config = MetaLayerConfig(base_model="pwm", data_root=data, batch_size=ROW_BATCH)
    loader = RowLoader(prepare_training_dataset(config, output_dir=data / "gpu_rows"), ROW_BATCH, shuffle=True)
    models = {on: MetaSpliceModel() for on in (device, "cpu")}
    return _training(f"default CNN on rows, batch {ROW_BATCH}", models, config, loader, len(loader.rows), "rows/s")


def _genes(data: Path, device: str) -> list[Result]:
    folder = data / "gpu_tracks"
    folder.mkdir()
    ArtifactLoader(DataConfig(base_model="pwm", data_root=data)).load(folder)
    store = TrackStore(folder / TRACKS)
    genes = GeneArrays.read(store, list(store.genes()))
    config = MetaLayerConfig.from_yaml("genes")
    results = []
    for batch_crops in BATCH_CROPS:
        models = {on: build_model(config) for on in (device, "cpu")}
        loader = CropLoader(
            genes,
            models["cpu"].reach_bp,
            crop_bp=config.crop_bp,
            batch_crops=batch_crops,
            shuffle=True,
            with_features=False,
            augmented=True,
        )
        positions = len(loader) * batch_crops * config.crop_bp
        name = f"preset genes, {batch_crops} crops of {config.crop_bp:,}"
        results += _training(name, models, config, loader, positions, "positions/s")
    return results


def _training(
    name: str,
    models: dict[str, MetaSpliceModel],
    config: MetaLayerConfig,
    loader: RowLoader | CropLoader,
    size: int,
    unit: str,
) -> list[Result]:
    device = next(iter(models))
    trainers = {
        on: Trainer(model, loader, loader, config.model_copy(update={"device": on, "threads": None}))
        for on, model in models.items()
    }
    fixed = [next(iter(loader))] * len(loader)
    times = seconds(
        {
            "epoch": lambda: trainers[device].train_on(loader),
            "fixed": lambda: trainers[device].train_on(fixed),
            "cpu": lambda: trainers["cpu"].train_on(loader),
        },
        repeats=2,
    )
    wait = f"waits for data {max(0.0, 1.0 - times['fixed'] / times['epoch']):.0%}"
    return [
        Result(f"training, {name}", size / times["epoch"], unit, _cores(), times["cpu"] / times["epoch"], wait),
    ]


def _dense(device: str) -> list[Result]:
    sequence, scores = made_up(DENSE_BP)
    config = MetaLayerConfig.from_yaml("genes")
    predictors = {on: Predictor(build_model(config).eval(), {}, "", on) for on in (device, "cpu")}
    times = seconds({on: partial(one.predict_tracks, sequence, scores) for on, one in predictors.items()}, repeats=2)
    rate, ratio = DENSE_BP / times[device], times["cpu"] / times[device]
    return [Result(f"dense inference, preset genes, {DENSE_BP / 1e6:g} Mb", rate, "positions/s", _cores(), ratio)]


def _base_layer(device: str) -> list[Result]:
    plain = PlainSpliceAI(FLANK).eval()
    tokens = np.random.default_rng(0).integers(0, 4, BASE_NT + FLANK).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(plain.state_dict(), Path(folder) / f"model_{FLANK}nt_rs1.pt")
        members = {on: load_openspliceai(folder, device=on) for on in (device, "cpu")}
    times = seconds({on: partial(one.score_tokens, tokens) for on, one in members.items()}, repeats=1)
    rate, ratio = BASE_NT / times[device], times["cpu"] / times[device]
    return [Result(f"base layer, flank {FLANK}, one member", rate, "nt/s", _cores(), ratio)]


def _cores() -> str:
    return f"{torch.get_num_threads()} CPU cores"
