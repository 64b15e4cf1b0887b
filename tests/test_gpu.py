"""On a GPU: the same training as on a CPU, mixed precision, dense inference. Run where one is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from tests import test_crops
from tests.test_resume import trainer

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
