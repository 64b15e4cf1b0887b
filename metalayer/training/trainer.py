"""The training loop, readable from top to bottom."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from metalayer.config import TrainConfig
from metalayer.data.dataset import Batch, RowLoader
from metalayer.errors import TrainingError
from metalayer.evaluation.metrics import average_precision
from metalayer.models.device import resolve_device
from metalayer.models.meta import MetaSpliceModel
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave."""

    epoch: int
    train_loss: float
    val_loss: float
    val_pr_auc_splice: float
    learning_rate: float
    seconds: float


class Trainer:
    """Fits a model to rows; `train()` leaves the weights of the best epoch in it.

    Normalisation is fitted on the rows of `train_loader` into the model's buffers. Every row's weight
    multiplies its own loss. Training stops when the validation PR-AUC of splice sites has not risen
    for `patience` epochs; epoch 0, the untrained model, counts, so that training never ends worse
    than it began.
    """

    def __init__(
        self, model: MetaSpliceModel, train_loader: RowLoader, val_loader: RowLoader, config: TrainConfig
    ) -> None:
        self.config = config
        self.device = torch.device(resolve_device(config.device))
        self.model = model.to(self.device)
        self.train_loader = train_loader
        self.val_loader = val_loader
        # Biases and one-dimensional parameters are not decayed.
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate,
        )
        steps = config.max_epochs * len(train_loader)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _warmup_cosine(step, round(config.warmup_fraction * steps), steps)
        )

    def train(self) -> list[dict[str, float]]:
        """Train to the end or until the validation PR-AUC stops rising.

        Returns:
            One dictionary an epoch, the untrained model first.

        Raises:
            TrainingError: a loss that is not finite.
        """
        self.model.normaliser.fit(self.train_loader.table.features)
        history = [self._epoch_zero()]
        best, best_weights = history[0], copy.deepcopy(self.model.state_dict())
        for epoch in range(1, self.config.max_epochs + 1):
            started = time.monotonic()
            train_loss = self.train_on(self.train_loader)
            val_loss, val_ap = self._validate()
            rate = float(self.scheduler.get_last_lr()[0])
            history.append(Epoch(epoch, train_loss, val_loss, val_ap, rate, time.monotonic() - started))
            logger.info(
                "epoch %d/%d: loss %.5f, validation loss %.5f, PR-AUC splice %.4f (%.1f s)",
                *(epoch, self.config.max_epochs, train_loss, val_loss, val_ap, history[-1].seconds),
            )
            if val_ap > best.val_pr_auc_splice:
                best, best_weights = history[-1], copy.deepcopy(self.model.state_dict())
            elif epoch - best.epoch >= self.config.patience:
                logger.info("no better epoch in %d; stopping", self.config.patience)
                break
        self.model.load_state_dict(best_weights)
        self.model.eval()
        logger.info("best: epoch %d, validation PR-AUC splice %.4f", best.epoch, best.val_pr_auc_splice)
        return [asdict(epoch) for epoch in history]

    def _epoch_zero(self) -> Epoch:
        val_loss, val_ap = self._validate()
        logger.info("base model: validation loss %.5f, PR-AUC splice %.4f", val_loss, val_ap)
        return Epoch(0, math.nan, val_loss, val_ap, 0.0, 0.0)

    def train_on(self, batches: Iterable[Batch]) -> float:
        """One optimizer step a batch; returns the weighted mean loss.

        A batch's loss is divided by its rows and by the mean weight of all training rows, not by its own
        weights: a row pulls as hard whatever it is batched with.
        """
        self.model.train()
        scale = 1.0 / float(self.train_loader.weights.mean())
        losses, weights = 0.0, 0.0
        for batch in batches:
            on_device = batch.to(self.device)
            loss = self._loss(on_device).sum() * (scale / len(batch))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the training loss is {loss.item()} at learning rate {self.scheduler.get_last_lr()[0]:g}; lower "
                    "train.learning_rate"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            self.optimizer.step()
            self.scheduler.step()
            losses += loss.item() * len(batch) / scale
            weights += float(batch.weights.sum())
        return losses / weights

    def _loss(self, batch: Batch) -> Tensor:
        """Weighted negative log-likelihood of each row, (B,): the weight acts on the row, not on the mean."""
        log_p = self.model(batch.windows, batch.features)
        nll = torch.nn.functional.nll_loss(log_p, batch.labels, reduction="none")
        weighted: Tensor = nll * batch.weights
        return weighted

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        self.model.eval()
        losses: list[Tensor] = []
        scores: list[Tensor] = []
        for batch in self.val_loader:
            on_device = batch.to(self.device)
            log_p = self.model(on_device.windows, on_device.features)
            losses.append(torch.nn.functional.nll_loss(log_p, on_device.labels, reduction="none").cpu())
            scores.append(log_p.double().exp()[:, [DONOR, ACCEPTOR]].sum(dim=1).cpu())
        table = self.val_loader.table
        weights = self.val_loader.weights.astype(np.float64)
        if not torch.isfinite(torch.cat(scores)).all():
            raise TrainingError(
                "the model gives probabilities that are no numbers; check the features, or lower train.learning_rate"
            )
        loss = float((torch.cat(losses).double().numpy() * weights).sum() / weights.sum())
        return loss, average_precision(table.labels != NEITHER, torch.cat(scores).numpy(), weights)


def _warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate at an optimizer step: linear rise, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def seed_everything(seed: int) -> None:
    """Seed torch and numpy's global generators."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  a library below may draw from it


def best_epoch(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The epoch whose weights were kept."""
    return max(history, key=lambda epoch: epoch["val_pr_auc_splice"])
