"""The loader and a training step, against stepping on one fixed batch and against a plain CNN; preparing a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from benchmarks.measure import Result, seconds
from benchmarks.plain_cnn import SCORES, WINDOW_BP, PlainCnn
from metalayer.core import MetaLayerConfig
from metalayer.data.dataset import Batch, MetaLayerDataset, RowLoader
from metalayer.data.prepare import prepare_training_dataset
from metalayer.models import MetaSpliceModel
from metalayer.models.meta import build_model
from metalayer.schema import DERIVED_FEATURES
from metalayer.training.trainer import Trainer

BATCH, PLAIN_BATCH, FIXED_BATCHES, COPIES = 512, 64, 12, 30
_LETTERS = np.frombuffer(b"ACGT", dtype=np.uint8)


def run(data: Path) -> list[Result]:
    prepared = _prepare(data)  # first: the network's idle threads would share the cores with it
    config = MetaLayerConfig(base_model="pwm", data_root=data, batch_size=BATCH)
    dataset = prepare_training_dataset(config, output_dir=data / "training_set")
    return [*prepared, *_loader(dataset), *_steps(dataset)]


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


def _prepare(data: Path) -> list[Result]:
    """Preparing a training set against polars' own scan and sink of the same files."""
    root = data / "copies"
    files = _copies(data, root / "data" / "sim" / "GRCh38" / "pwm_eval" / "meta_models")
    config = MetaLayerConfig(base_model="pwm", data_root=root, allow_introns=True)  # letters are drawn at random
    rows = len(prepare_training_dataset(config, output_dir=root / "ours"))

    def plain() -> None:
        scan = pl.scan_csv(files, separator="\t", schema_overrides={"chrom": pl.String})
        scan.sink_parquet(root / "plain.parquet", compression="zstd")

    times = seconds({"ours": lambda: prepare_training_dataset(config, output_dir=root / "ours"), "plain": plain})
    size = sum(path.stat().st_size for path in files) / 1e6
    ratio = times["plain"] / times["ours"]
    return [
        Result(
            "prepare_training_dataset",
            rows / times["ours"],
            "rows/s",
            "polars scan to sink of the same files",
            ratio,
            f"{size:.0f} MB, aim 0.6",
        )
    ]


def _copies(data: Path, folder: Path) -> list[Path]:
    """The artifact rows many times, as other genes with other letters and other last digits of their features.

    Repeated values would compress to nothing, which real rows do not.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    out = []
    for path in sorted(data.glob("data/*/*/*/meta_models/*.tsv")):
        frame = pl.read_csv(path, separator="\t", schema_overrides={"chrom": pl.String})
        numbers = [name for name in DERIVED_FEATURES if frame[name].dtype == pl.Float64]
        lengths = frame["sequence"].str.len_bytes().to_list()
        parts = []
        for copy in range(COPIES):
            letters = [rng.choice(_LETTERS, n).tobytes().decode() for n in lengths]
            gene = (pl.col("gene_id") + f"_{copy}").alias("gene_id")
            other = [pl.col(name) * (1 + 1e-9 * pl.Series(rng.random(len(frame)))) for name in numbers]
            parts.append(frame.with_columns(gene, pl.Series("sequence", letters), *other))
        out.append(folder / path.name)
        pl.concat(parts).write_csv(out[-1], separator="\t")
    return out
