"""On a GPU: the same training as on a CPU, mixed precision, dense inference. Run where one is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.hyenadna import load_hyenadna
from metalayer.release import onnx
from metalayer.release.engine import Engine
from metalayer.training.trainer import Trainer
from tests import checkpoints, test_crops, test_frozen
from tests.options import build_encoder
from tests.releases import make_release
from tests.test_resume import Stop, loaders, stop_after, trainer
from tests.test_workflows import prepare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


def test_a_gpu_trains_as_a_cpu_does() -> None:
    losses = []
    for device in ("cpu", "cuda"):
        it = trainer(None, max_epochs=2, device=device)
        for module in it.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        losses.append([epoch["train_loss"] for epoch in it.train()[1:]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_mixed_precision_learns() -> None:
    it = trainer(None, max_epochs=6, device="cuda", mixed_precision=True)
    assert it.precision in (torch.bfloat16, torch.float16)
    history = it.train()
    assert max(epoch["val_pr_auc_splice"] for epoch in history) > history[0]["val_pr_auc_splice"]


def test_float16_scales_its_gradients() -> None:
    it = trainer(None, max_epochs=3, device="cuda", mixed_precision=True)
    it.precision = torch.float16
    it.scaler = torch.amp.GradScaler("cuda")
    history = it.train()
    assert np.isfinite(history[-1]["train_loss"])
    assert history[-1]["train_loss"] < history[1]["train_loss"]


def test_a_run_that_was_cut_off_goes_on_on_a_gpu(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", device="cuda").train()
    cut = trainer(tmp_path / "cut", device="cuda")
    cut.on_epoch = stop_after(3)
    with pytest.raises(Stop):
        cut.train()
    resumed = Trainer.from_checkpoint(tmp_path / "cut" / "last_model.pt", *loaders()).train()
    losses = [[epoch["train_loss"] for epoch in history[1:]] for history in (whole, resumed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("unit", ["rows", "genes"])
def test_a_model_trained_on_a_gpu_is_evaluated_there(simulation: Path, tmp_path: Path, unit: str) -> None:
    prepared = prepare(simulation, tmp_path, "train.device=cuda", f"train.training_unit={unit}")
    assert prepared.train(tmp_path / "model")["device"].startswith("cuda")
    evaluation = prepared.evaluate(tmp_path / "model", tmp_path / "evaluation")
    report = evaluation[evaluation["primary"]]
    assert report["meta"]["pr_auc_splice"] > report["base"]["pr_auc_splice"]


def test_rows_on_a_gpu_are_those_of_a_cpu() -> None:
    torch.manual_seed(0)
    model = MetaSpliceModel(hidden_dim=32)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    rng = np.random.default_rng(0)
    scores = np.zeros((200, 7), dtype=np.float32)
    scores[:, :3] = rng.dirichlet([1, 1, 1], 200)
    windows = rng.integers(0, 4, (200, 500)).astype(np.uint8)
    answers = [Predictor(model, {}, "", device).predict_rows(scores, windows) for device in ("cpu", "cuda")]
    assert np.abs(answers[0] - answers[1]).max() < 1e-3  # a GPU convolves in TF32


def test_whole_genes_train_and_are_read_on_a_gpu_as_on_a_cpu() -> None:
    losses = []
    for device in ("cpu", "cuda"):
        it = test_crops.trainer(max_epochs=2, device=device)
        losses.append([epoch["train_loss"] for epoch in it.train()[1:]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    sequence, scores = "ACGT" * 5000, np.random.default_rng(0).dirichlet([0.05, 0.05, 1.0], 20_000)
    answers = [Predictor(it.model, {}, "", device).predict_tracks(sequence, scores) for device in ("cpu", "cuda")]
    assert np.abs(answers[0] - answers[1]).max() < 1e-3


def test_hyenadna_on_a_gpu_is_that_of_a_cpu_and_in_mixed_precision_near_it(tmp_path: Path) -> None:
    model = load_hyenadna(checkpoints.hyenadna(tmp_path))
    ids = torch.randint(7, 12, (4, 400))
    with torch.inference_mode():
        exact = model(ids)
        model.cuda()
        plain = model(ids.cuda()).cpu()
        with torch.autocast("cuda", torch.bfloat16):
            reduced = model(ids.cuda()).cpu()
    assert (plain - exact).abs().max() < 1e-2  # TF32
    assert reduced.dtype == torch.float32
    assert (reduced - exact).abs().max() < 0.1


@pytest.mark.parametrize("name", ["hyenadna", "huggingface"])
def test_a_language_model_trains_in_mixed_precision_as_in_float32(tmp_path: Path, name: str) -> None:
    if name == "hyenadna":
        place = {"model_size": str(checkpoints.hyenadna(tmp_path / "checkpoint"))}
    else:
        place = {"model": str(checkpoints.esm(tmp_path / "checkpoint", "ACGTN"))}
    options = {**place, "chunk_bp": 48, "stride_bp": 16, "output_dim": 16, "gradient_checkpointing": True}
    losses = []
    for mixed in (False, True):
        it = trainer(None, max_epochs=3, device="cuda", mixed_precision=mixed)
        torch.manual_seed(0)
        model = MetaSpliceModel(name, sequence_encoder_config=options, hidden_dim=16, dropout=0.0)
        it = type(it)(model, it.train_loader, it.val_loader, it.config)
        losses.append([epoch["train_loss"] for epoch in it.train()[1:]])
    assert losses[0] == pytest.approx(losses[1], rel=5e-2)
    assert losses[0][-1] < losses[0][0]


def test_states_of_a_frozen_model_computed_on_a_gpu_are_those_of_a_cpu(tmp_path: Path) -> None:
    figures = []
    for device in ("cpu", "cuda"):
        it = test_frozen.trainer(tmp_path, test_frozen.rows(), device=device, embedding_cache=tmp_path / device)
        for module in it.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        figures.append([epoch["train_loss"] for epoch in it.train()[1:]])
    assert figures[0] == pytest.approx(figures[1], rel=1e-2)


def test_tokens_of_a_gpu_are_aligned_there(tmp_path: Path) -> None:
    place = checkpoints.bpe_bert(tmp_path)
    encoder = build_encoder("huggingface", {"model": str(place), "chunk_bp": 48, "stride_bp": 16}).eval()
    stretch = torch.randint(0, 5, (2, 100 + 2 * encoder.radius_bp), dtype=torch.uint8)
    with torch.inference_mode():
        exact = encoder.dense(stretch)
        found = encoder.cuda().dense(stretch.cuda()).cpu()
    assert (found - exact).abs().max() < 1e-2


def test_a_release_answers_its_golden_rows_on_a_gpu(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    assert onnx.prepare(release) == ""
    assert Engine(release, "cuda").describe()["rows_run_in"] == "torch on cuda:0"
