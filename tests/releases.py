"""Small models and releases for the serving tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from metalayer.data.windows import encode_windows
from metalayer.inference import Predictor
from metalayer.integrity import unsealed, write_json
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
from metalayer.release import onnx
from metalayer.release.folder import read_facts, seal, write_release
from metalayer.schema import CLASSES, ROW_SCORES
from tests.exporter import collect_once

if TYPE_CHECKING:
    from metalayer.registry.registration import Registration

_export = getattr(onnx._export, "once", onnx._export)
_graphs: dict[str, bytes] = {}


def _exported_once(predictor: Predictor, path: Path) -> None:
    """Half of what it takes to make a release is the export: of one model once in a test process."""
    if predictor.digest not in _graphs:
        collect_once()
        _export(predictor, path)
        _graphs[predictor.digest] = path.read_bytes()
    path.write_bytes(_graphs[predictor.digest])


_exported_once.once = _export  # type: ignore[attr-defined]  # this module may be imported again
onnx._export = _exported_once


def make_bundle(directory: Path, seed: int = 0, **options: Any) -> Path:
    """A model directory whose model differs from its base, as if trained."""
    torch.manual_seed(seed)
    model = MetaSpliceModel(hidden_dim=32, **options)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    split = {"train": ["A"], "valid": ["B"], "test": ["C"]}
    save_model(model, directory, {"base_model": "pwm", "data_hash": "d4t4", "git_commit": "c0ffee", "split": split})
    return directory


def score_rows(n: int, seed: int = 0) -> list[dict]:
    """Valid rows of the score contract, of different lengths and labelled bases."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        length = int(rng.integers(180, 700))
        scores = rng.dirichlet([0.2, 0.2, 1.0]).astype(np.float32).astype(float)
        context = rng.random(4).astype(np.float32).astype(float)
        rows.append(
            {
                "sequence": "".join(rng.choice(list("ACGTN"), length, p=[0.24, 0.25, 0.25, 0.24, 0.02])),
                **dict(zip(ROW_SCORES, [*scores.tolist(), *context.tolist()], strict=True)),
                "index": int(rng.integers(0, length)),
            }
        )
    return rows


def expected(bundle: Path, rows: list[dict]) -> np.ndarray:
    """What the model says of rows, past everything in metalayer.serving: float32 (n, 3)."""
    table = pl.DataFrame(rows)
    windows = encode_windows(table["sequence"], table["index"].to_numpy(), 500)
    return Predictor.load(bundle).predict_rows(table.select(ROW_SCORES).to_numpy().astype(np.float32), windows)


def make_golden(bundle: Path, path: Path, n: int = 40) -> Path:
    """Golden rows of a model, in the form that evaluation writes."""
    rows = score_rows(n, seed=99)
    answers = expected(bundle, rows).astype(np.float64)
    table = pl.DataFrame(rows).with_columns(
        pl.col("index").cast(pl.Int32), *[pl.Series(name, answers[:, i]) for i, name in enumerate(CLASSES)]
    )
    table.write_parquet(path)
    return path


def make_champion(bundle: Path, golden: Path, uri: str | None = None, **facts: Any) -> Registration:
    """Register a model and let it be champion, as yet without a Bento."""
    from metalayer.registry import line, registration

    made = registration.register(bundle, golden, base_model="pwm", promoted=True, tracking_uri=uri, **facts)
    now = line.read(made.name, uri)
    line.move(now, [*now.history, made.version], uri)
    return made


def rewrite(path: Path, **changes: Any) -> None:
    """Change a JSON file of ours as whoever wrote it would have: its digest is that of the new content."""
    write_json(path, {**unsealed(path.read_text()), **changes})


def reseal(directory: Path) -> None:
    """Let a release whose files were changed be one that was written so."""
    seal(directory, read_facts(directory))


def make_release(folder: Path, seed: int = 0, version: str = "3", **options: Any) -> Path:
    """A release directory; options of its model."""
    bundle = make_bundle(folder / "bundle", seed, **options)
    golden = make_golden(bundle, folder / "golden.parquet")
    directory = folder / "release"
    directory.mkdir()
    facts = {"name": "metalayer-pwm", "version": version, "alias": "champion", "metrics": {"pr_auc_splice": 0.9}}
    write_release(directory, bundle, golden, facts)
    return directory
