"""The training guide, every call in its order: first in our own words, then its very text where it is at hand.

Replaced is what this machine lacks (device, encoder weights, variant file) and how long training takes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from metalayer import MetaLayerConfig
from metalayer.errors import ArtifactError, ConfigError
from tests import forked

BASE = Path("data/mane/GRCh38/openspliceai_eval/meta_models")


@pytest.fixture(scope="module")
def guide_folder(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as the guide's prerequisites describe it, of the simulation's files."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / BASE).mkdir(parents=True)
    for path in simulation.glob("data/*/*/*/meta_models/*.tsv"):
        shutil.copy(path, folder / BASE)
    (folder / "nucleotide_scores").mkdir()
    for path in simulation.glob("nucleotide_scores/pwm_*"):
        shutil.copy(path, folder / "nucleotide_scores" / path.name.replace("pwm_", "openspliceai_"))
    for name in ("genes.tsv", "splicevardb.download.tsv"):
        shutil.copy(simulation / name, folder)
    return folder


@pytest.fixture
def here(guide_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(guide_folder)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(guide_folder))
    monkeypatch.setenv("WANDB_SILENT", "true")
    return guide_folder


def test_quick_start(here: Path) -> None:
    from metalayer.workflows import train_meta_model

    config = MetaLayerConfig(
        base_model="openspliceai",
        sequence_encoder="cnn",
        max_samples=1_000,
        batch_size=32,
        max_epochs=2,
        device="cpu",
    )
    results = train_meta_model(config, output_dir="models/meta_layer_lite")
    assert 0.0 < results["metrics"]["pr_auc_splice"] <= 1.0
    assert results["history"][-1]["epoch"] == 2
    for path in results["paths"].values():
        assert path.exists(), path
    manifest = json.loads((here / "models/meta_layer_lite/data/manifest.json").read_text())
    assert manifest["rows"] == 1_000


def test_what_is_absent_is_named(here: Path, tmp_path: Path) -> None:
    from metalayer.data import prepare_training_dataset
    from metalayer.workflows import train_meta_model

    absent = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(ConfigError, match=f"device '{absent}' is not available here; there is .*cpu"):
        train_meta_model(MetaLayerConfig(device=absent), output_dir=tmp_path)
    with pytest.raises(ConfigError, match="hyenadna"):
        train_meta_model(MetaLayerConfig(sequence_encoder="hyenadna", device="cpu"), output_dir=tmp_path)
    config = MetaLayerConfig(variant_source="splicevardb", splicevardb_path=tmp_path / "none.tsv")
    with pytest.raises(ArtifactError, match=r"none\.tsv"):
        prepare_training_dataset(config, variant_source="splicevardb", output_dir=tmp_path)


def test_step_by_step(here: Path) -> None:
    from metalayer.core import ArtifactLoader
    from metalayer.data import MetaLayerDataset, create_dataloaders, prepare_training_dataset, verify_dataset
    from metalayer.inference import Predictor
    from metalayer.models import MetaSpliceModel
    from metalayer.training import MetaLayerEvaluator, Trainer, hyperparameter_search

    config = MetaLayerConfig(base_model="openspliceai")
    config.max_epochs = 1
    stats = ArtifactLoader(config).get_statistics()
    dataset = prepare_training_dataset(
        config=config, variant_source="splicevardb", output_dir="data/meta_training/openspliceai_v1"
    )
    assert len(dataset) == stats["total_positions"] == sum(stats["classes"].values())
    assert config.variant_source is None
    assert set(dataset.weights.tolist()) - {1.0}  # variants weigh

    path = "data/meta_training/openspliceai_v1/training_data.parquet"
    dataset = MetaLayerDataset(
        data_path=path,
        sequence_col="sequence",
        feature_cols=config.get_feature_columns(),
        label_col="label",
        weight_col="sample_weight",
    )
    train_loader, val_loader, test_loader = create_dataloaders(
        dataset=dataset,
        train_split=0.8,
        val_split=0.1,
        test_split=0.1,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        seed=config.seed,
    )
    genes = [set(dataset.frame["gene_id"].gather(loader.rows)) for loader in (train_loader, val_loader, test_loader)]
    assert not (genes[0] & genes[1] or genes[0] & genes[2] or genes[1] & genes[2])
    assert len(train_loader) == -(-len(train_loader.rows) // 64)

    model = MetaSpliceModel(
        sequence_encoder=config.sequence_encoder,
        num_score_features=50,
        hidden_dim=config.hidden_dim,
        num_classes=3,
        dropout=config.dropout,
    )
    device = config.get_device()
    assert isinstance(device, str)
    model = model.to(device)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) > 10_000

    folder = Path("models/meta_layer_v1")
    trainer = Trainer(
        model=model, train_loader=train_loader, val_loader=val_loader, config=config, output_dir="models/meta_layer_v1"
    )
    history = trainer.train()
    trainer.plot_history()
    for name in ("best_model.pt", "last_model.pt", "config.yaml", "history.json", "history.png"):
        assert (folder / name).is_file(), name
    assert list((folder / "logs").glob("events.out.tfevents.*"))

    metrics = MetaLayerEvaluator(top_k_values=[10, 50, 100, 500]).evaluate_dataloader(model, test_loader, device)
    for name in ("pr_auc_splice", "ap_splice", "top100_acc_donor", "top100_acc_acceptor", "ece"):
        assert 0.0 <= metrics[name] <= 1.0

    best_config, results = hyperparameter_search(
        base_config=config,
        search_space={"learning_rate": [1e-5, 1e-4, 1e-3], "hidden_dim": [128, 256], "dropout": [0.0, 0.1, 0.2]},
        n_trials=2,
        metric="pr_auc_splice",
        direction="maximize",
    )
    assert len(results) == 2
    assert best_config.learning_rate == results[0]["settings"]["learning_rate"]

    import wandb

    run = wandb.init(project="meta-spliceai", config=config.__dict__)
    trainer = Trainer(
        model=model,
        train_loader=train_loader,
        val_loader=val_loader,
        config=config,
        output_dir="models/meta_layer_wandb",
        use_wandb=True,
    )
    trainer.train()
    assert run.summary["val_pr_auc_splice"] == pytest.approx(trainer.history[-1]["val_pr_auc_splice"])
    run.finish()

    trainer = Trainer.from_checkpoint(
        checkpoint_path="models/meta_layer_v1/last_model.pt", train_loader=train_loader, val_loader=val_loader
    )
    trainer.train(additional_epochs=1)
    assert [epoch["epoch"] for epoch in trainer.history] == [epoch["epoch"] for epoch in history] + [2]
    assert trainer.history[-1]["learning_rate"] == pytest.approx(0.1 * config.learning_rate)

    config.batch_size = 16
    config.gradient_accumulation_steps = 4
    config.sequence_encoder = "cnn"
    config.mixed_precision = True
    config.sequence_encoder_config["freeze"] = True
    config.num_workers = 0
    report = verify_dataset(path)
    assert report.ok, report
    config.balance_classes = True
    config.variant_source = "splicevardb"
    frozen = MetaSpliceModel("cnn", sequence_encoder_config=config.sequence_encoder_config)
    assert not any(p.requires_grad for p in frozen.encoder.parameters())

    with pytest.raises(ConfigError, match="freze"):
        config.sequence_encoder_config["freze"] = True
    assert Predictor(model, {}, "").model is model


@pytest.mark.parametrize("name", ["configs/lightweight.yaml", "configs/hyenadna.yaml"])
def test_the_two_files_load_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    config = MetaLayerConfig.from_yaml(name)
    assert config.hidden_dim == {"lightweight": 128, "hyenadna": 256}[Path(name).stem]
    config.to_yaml(tmp_path / "again.yaml")
    assert MetaLayerConfig.from_yaml(tmp_path / "again.yaml") == config


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def as_here(code: str, base_model: str, data_root: str) -> str:
    """The guide's text with our package, this machine's device and short runs."""
    changes = [
        (r"meta_spliceai\.splice_engine\.meta_layer", "metalayer"),
        (r"device='(mps|cuda)'", "device='cpu'"),
        (r"sequence_encoder='hyenadna'", "sequence_encoder='cnn'"),
        (r"max_epochs=\d+", "max_epochs=1"),
        (r"n_trials=10", "n_trials=2"),
        (r"additional_epochs=50", "additional_epochs=1"),
        (r"MetaLayerConfig\(base_model='openspliceai'\)", "MetaLayerConfig(base_model='openspliceai', max_epochs=1)"),
        (r"base_model=args\.base_model", "base_model=args.base_model, max_epochs=1"),
    ]
    if data_root != ".":
        changes += [
            (r"base_model='openspliceai'", f"base_model='{base_model}', data_root='{data_root}'"),
            (r"default='openspliceai'", f"default='{base_model}'"),
            (r"max_epochs=1$", "max_epochs=1"),
            (r"base_model=args\.base_model", f"base_model=args.base_model, data_root='{data_root}'"),
            (r"variant_source='splicevardb'", "variant_source=None"),
            (r"variant_source = 'splicevardb'", "variant_source = None"),
        ]
    for pattern, text in changes:
        code = re.sub(pattern, text, code)
    return code


@pytest.mark.parametrize("data", ["demo", "real"])
def test_the_text_of_the_guide(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path, data: str
) -> None:
    text = (shared / "guide.md").read_text("utf-8")
    base_model, root = ("openspliceai", ".") if data == "demo" else ("openspliceai_80", str(shared / "real"))
    if data == "real":
        monkeypatch.chdir(tmp_path)
    *snippets, script = (as_here(block, base_model, root) for block in blocks(text, "python"))
    assert len(snippets) >= 12
    names: dict[str, Any] = {"__name__": "guide"}
    try:
        for number, snippet in enumerate(snippets):
            exec(compile(snippet, f"guide block {number}", "exec"), names)
    finally:
        names["wandb"].finish()  # the guide leaves its run open
    assert names["metrics"]["pr_auc_splice"] > 0
    for block in blocks(text, "yaml"):
        path = tmp_path / "guide.yaml"
        path.write_text(block)
        preset = re.search(r"configs/\w+\.yaml", block)
        assert preset
        assert MetaLayerConfig.from_yaml(path) == MetaLayerConfig.from_yaml(preset[0])
    (tmp_path / "train_meta_layer.py").write_text(script, encoding="utf-8")
    program = [str(tmp_path / "train_meta_layer.py"), "--output-dir", "models/script"]
    done = forked.run(program, os.environ, Path.cwd())
    assert done.returncode == 0, done.stderr
    assert re.search(r"PR-AUC \(splice\): +0\.\d{4}", done.stdout)
