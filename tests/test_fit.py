"""One path to a trained model: whoever starts a training, the same data, settings and seed give the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from metalayer.core import MetaLayerConfig
from metalayer.models.bundle import load_model
from metalayer.training import hyperparameter_search
from metalayer.workflows import train_meta_model
from metalayer.workflows.ablate import ablate
from metalayer.workflows.search import search_bundle
from metalayer.workflows.train_genes import train_on_scores
from tests.test_workflows import Prepared, prepare

COMMON: dict[str, Any] = {
    "sequence_encoder": "none",
    "learning_rate": 0.01,
    "max_epochs": 2,
    "patience": 2,
    "threads": 1,
    "device": "cpu",
    "seed": 5,
}
GENES: dict[str, Any] = COMMON | {
    "score_encoder": False,
    "track_encoder": "stages",
    "track_encoder_config": {"channels": 8, "distances": [1, 10, 100]},
    "training_unit": "genes",
    "batch_crops": 8,
}
ROWS_ALONE: dict[str, Any] = COMMON | {"hidden_dim": 16, "training_unit": "rows", "batch_size": 64}


def weights(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Of a model directory, with what it says of its training."""
    model, info = load_model(folder)
    said = ("calibration", "best_epoch", "trained_on", "seed")
    return {name: value.clone() for name, value in model.state_dict().items()}, {name: info[name] for name in said}


def assert_same(found: Mapping[str, Path]) -> None:
    (first, (tensors, said)), *others = ((name, weights(folder)) for name, folder in found.items())
    assert said["best_epoch"] > 0  # these are weights that were learned
    for name, (other, says) in others:
        assert says == said, (first, name)
        assert other.keys() == tensors.keys()
        different = [key for key, value in tensors.items() if not torch.equal(value, other[key])]
        assert not different, (first, name)


def by_pipeline(simulation: Path, folder: Path, settings: Mapping[str, Any], genes: Mapping[str, Any]) -> Prepared:
    """What the pipeline's steps make of the same files, with the genes of another training as its split."""
    prepared = prepare(
        simulation, folder, *(() if settings["training_unit"] == "rows" else ("train.training_unit=genes",))
    )
    sections = prepared.config.model_dump(mode="json", include={"data"})
    for name, value in settings.items():
        section = "model" if name in type(prepared.config.model).model_fields else "train"
        sections.setdefault(section, {})[name] = value
    config = type(prepared.config).from_dict(
        {**sections, "search": {"n_trials": 1, "space": {"learning_rate": [0.01]}}}
    )
    manifest = {**prepared.manifest, **{part: {"genes": list(ids)} for part, ids in genes.items()}}
    return replace(prepared, config=config, manifest=manifest)


def files_of(simulation: Path, gene_ids: Sequence[str], folder: Path, files: int) -> list[Path]:
    """Per-nucleotide files of these genes alone, the last gene first."""
    folder.mkdir()
    scores = pl.concat([pl.read_parquet(path) for path in sorted(simulation.glob("nucleotide_scores/*.parquet"))])
    plain = pl.col("gene_id").cast(pl.String).str.strip_prefix("gene-")
    out = []
    for i in range(files):
        chosen = sorted(gene_ids, reverse=True)[i::files]
        out.append(folder / f"{i}.parquet")
        scores.filter(plain.is_in(chosen)).write_parquet(out[-1])
    return out


def test_genes(simulation: Path, tmp_path: Path) -> None:
    guided = train_meta_model(MetaLayerConfig(base_model="pwm", data_root=simulation, **GENES), tmp_path / "guided")
    found = {"train_meta_model": guided["paths"]["model"]}
    split = load_model(guided["paths"]["model"])[1]["split"]

    prepared = by_pipeline(simulation, tmp_path / "prepared", GENES, split)
    stepped = prepared.train(tmp_path / "stepped")
    found["train step"] = tmp_path / "stepped"

    files = {part: files_of(simulation, split[part], tmp_path / part, n) for part, n in (("train", 3), ("valid", 1))}
    config = MetaLayerConfig(base_model="pwm", **GENES)
    train_on_scores(files["train"], files["valid"], config, tmp_path / "scores")
    found["train --scores"] = tmp_path / "scores" / "model"

    ablate(
        *(files["train"], files["valid"], files_of(simulation, split["test"], tmp_path / "test", 1)),
        MetaLayerConfig(base_model="pwm", **GENES),
        tmp_path / "ablation",
        variants={"it": {name: GENES[name] for name in ("score_encoder", "track_encoder", "track_encoder_config")}},
        seeds=[GENES["seed"]],
    )
    found["ablate"] = tmp_path / "ablation" / "runs" / "it" / "seed-5" / "model"

    assert_same(found)
    figures = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in guided["history"]]
    assert [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in stepped["history"]][1:] == figures[1:]

    scratch, study = tmp_path / "scratch", tmp_path / "study"
    searched = search_bundle(prepared.rows, prepared.tracks, prepared.manifest, prepared.config, scratch, study)
    _, trials = hyperparameter_search(
        MetaLayerConfig(base_model="pwm", data_root=simulation, **GENES),
        {"learning_rate": [0.01]},
        1,
        output_dir=tmp_path / "search",
    )
    best = guided["history"][guided["best_epoch"]]["val_pr_auc_splice"]
    assert [trial["value"] for trial in (*searched["trials"], *trials)] == [best, best]


def test_rows(simulation: Path, tmp_path: Path) -> None:
    config = MetaLayerConfig(base_model="pwm", data_root=simulation, **ROWS_ALONE)
    guided = train_meta_model(config, tmp_path / "guided")
    split = load_model(guided["paths"]["model"])[1]["split"]
    prepared = by_pipeline(simulation, tmp_path / "prepared", ROWS_ALONE, split)
    prepared.train(tmp_path / "stepped")
    assert_same({"train_meta_model": guided["paths"]["model"], "train step": tmp_path / "stepped"})

    searched = search_bundle(
        prepared.rows, prepared.tracks, prepared.manifest, prepared.config, tmp_path / "scratch", tmp_path / "study"
    )
    _, trials = hyperparameter_search(config, {"learning_rate": [0.01]}, 1, output_dir=tmp_path / "search")
    best = guided["history"][guided["best_epoch"]]["val_pr_auc_splice"]
    assert [trial["value"] for trial in (*searched["trials"], *trials)] == [best, best]
