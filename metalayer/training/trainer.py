"""The training loop, readable from top to bottom."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, nll_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from metalayer.data.crops import UNKNOWN, CropBatch, CropLoader
from metalayer.data.dataset import Batch
from metalayer.device import resolve_device, use_threads
from metalayer.errors import ConfigError, TrainingError
from metalayer.files import publish_file
from metalayer.models.meta import MetaSpliceModel, build_model
from metalayer.settings.evidence import ABSENT, Source
from metalayer.settings.flat import MetaLayerConfig
from metalayer.settings.network import ModelConfig
from metalayer.settings.sections import TrainConfig
from metalayer.training import distributed
from metalayer.training.checkpoint import BEST, LAST, load_checkpoint, restored_model, save_checkpoint
from metalayer.training.frozen import read_frozen
from metalayer.training.parts import Loader
from metalayer.training.trackers import Tracker
from metalayer.training.validation import Validation

logger = logging.getLogger(__name__)

CONFIG, HISTORY, LOGS, CURVES = "config.yaml", "history.json", "logs", "history.png"
_CHECK_STEPS = 50
_AHEAD = 8
"""Batches that are made while a GPU computes."""
Epoch = dict[str, float]
"""One epoch: epoch, train_loss, val_loss, val_pr_auc_splice, val_ap_*, learning_rate, seconds."""


class Trainer:
    """Fits a model to rows, or to crops of whole genes; `train()` leaves the weights of the best epoch in it.

    Normalisation is fitted on the rows of `train_loader` into the model's buffers. The weight of every row or
    position multiplies its own loss. What a frozen language model says is computed once, before the first
    epoch (see `frozen.py`). With `weight_average` it is the running mean of the weights that is validated and
    kept. Training stops when the validation figure (`early_stopping_metric`) has not improved for `patience`
    epochs; epoch 0, the untrained model, counts, so that training never ends worse than it began.

    With an `output_dir` each epoch ends with a checkpoint (`last_model.pt`, `best_model.pt`),
    `history.json` and TensorBoard files in `logs/`; a run killed at any moment goes on from its last whole
    epoch (`from_checkpoint`) and ends with the same weights, bit for bit on a CPU. Started by `torchrun`,
    each process takes its share of every batch.
    """

    def __init__(
        self,
        model: MetaSpliceModel,
        train_loader: Loader,
        val_loader: Loader,
        config: TrainConfig | MetaLayerConfig,
        output_dir: str | Path | None = None,
        use_wandb: bool = False,
        trackers: Sequence[Tracker] = (),
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> None:
        """Prepare a run; nothing is written yet.

        Args:
            model: to train, in place.
            train_loader: shuffled rows or crops with their weights.
            val_loader: rows or crops that pick the best epoch.
            config: of training.
            output_dir: folder for checkpoints, history and logs; None writes nothing.
            use_wandb: log to Weights & Biases.
            trackers: further places to log to.
            on_epoch: called after each epoch; what it raises ends the run.

        Raises:
            ConfigError: a device that is not there, or a class to balance that has no row.
            TrainingError: training rows that all weigh 0.
        """
        self.config = config.model_copy(deep=True)
        use_threads(config.threads)
        self.world = distributed.join(resolve_device(config.device))
        self.device = torch.device(self.world.device)
        self.model = model.to(self.device)
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.use_wandb = use_wandb
        self.trackers = list(trackers)
        self.on_epoch = on_epoch
        self.history: list[Epoch] = []
        self.best_weights: dict[str, Tensor] = {}
        self._last_weights: dict[str, Tensor] = {}  # `train()` leaves the best ones in the model
        self._random: list[dict[str, Any]] = []  # of a checkpoint, by process
        self._cut_off = False
        train_loader.share(self.world.rank, self.world.size)
        train_loader.balance(config.balance_classes)
        if not float(train_loader.weights.sum()) > 0:
            raise TrainingError("all training rows weigh 0, so there is nothing to learn from; check sample_weight")
        self.optimizer = torch.optim.AdamW(_groups_of(model, config.weight_decay), lr=config.learning_rate)
        self.steps_done = 0
        self.average: AveragedModel | None = None
        if config.weight_average:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.weight_average))  # type: ignore[no-untyped-call]
        self.precision = _precision(config, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_path: str | Path,
        train_loader: Loader,
        val_loader: Loader,
        output_dir: str | Path | None = None,
        use_wandb: bool = False,
        **changes: Any,
    ) -> Self:
        """A run as its checkpoint left it; `train()` goes on to `max_epochs`.

        Args:
            checkpoint_path: `last_model.pt` or `best_model.pt` of a run.
            train_loader: of the same rows as in the run.
            val_loader: likewise.
            output_dir: None goes on in the checkpoint's folder.
            use_wandb: log to Weights & Biases.
            changes: settings to change, such as `device` or `max_epochs`.

        Raises:
            ModelError: a checkpoint that is absent or damaged.
            SchemaError: one of another feature schema.
            ConfigError: loaders of other rows, of which some might be judged by what was learned from them.
        """
        content = load_checkpoint(checkpoint_path)
        kind = MetaLayerConfig if content["config_kind"] == MetaLayerConfig.__name__ else TrainConfig
        config = kind(**{**content["config"], **changes})
        trainer = cls(
            restored_model(content),
            train_loader,
            val_loader,
            config,
            Path(checkpoint_path).parent if output_dir is None else output_dir,
            use_wandb,
        )
        trainer._restore(content)
        return trainer

    def resume(self, checkpoint_path: str | Path) -> None:
        """Take up a run of the same model, rows and settings where its checkpoint left it; `train()` goes on.

        Args:
            checkpoint_path: `last_model.pt` of that run.

        Raises:
            ModelError: a checkpoint that is absent or damaged; nothing is changed.
            SchemaError: one of another feature schema; nothing is changed.
            ConfigError: one of other rows.
        """
        content = load_checkpoint(checkpoint_path)
        self.model.load_state_dict(content["model"])
        self._restore(content)

    def train(self, additional_epochs: int | None = None) -> list[Epoch]:
        """Train until `max_epochs`, or until the validation figure stops improving.

        Args:
            additional_epochs: go on for so many epochs after those there are, whatever `max_epochs` says;
                where the learning-rate schedule has ended, at `additional_rate_share` of its peak.

        Returns:
            One dictionary an epoch, the untrained model first.

        Raises:
            ConfigError: `additional_epochs` below 1.
            TrainingError: a loss that is not finite, or a run that was cut off within an epoch.
        """
        if additional_epochs is not None and additional_epochs < 1:
            raise ConfigError(f"additional_epochs: given {additional_epochs}; at least 1")
        if self._cut_off:
            raise TrainingError(
                f"this run was cut off within an epoch; go on with Trainer.from_checkpoint of its {LAST}, or make "
                "a new Trainer"
            )
        self._open_outputs()
        both = (self.train_loader, self.val_loader)
        read_frozen(self.model.encoder, both, self.config.seed, self.config.embedding_cache, self.world)
        model = self.world.share(self.model, self.device)
        if self._last_weights:
            self.model.load_state_dict(self._last_weights)
        self._restore_random()
        if not self.history:
            torch.manual_seed(self.config.seed + self.world.rank)
            if self.model.reads_features:
                self.model.normaliser.fit(self.train_loader.features)
            tracks = self.model.tracks
            if tracks is not None and isinstance(self.train_loader, CropLoader):
                genes = self.train_loader.genes
                if tracks.coding is not None:
                    tracks.coding.fit(genes.tokens, genes.exons, genes.starts)
                if tracks.evidence is not None and genes.evidence is not None:
                    tracks.evidence.fit(genes.evidence)
            if self.average is not None:
                self.average.update_parameters(self.model)  # the first time it copies
            self._end_epoch(
                {"epoch": 0, "train_loss": math.nan, **self._validate(), "learning_rate": 0.0, "seconds": 0.0}
            )
        start = int(self.history[-1]["epoch"])
        end = self.config.max_epochs if additional_epochs is None else start + additional_epochs
        patient_from = 0 if additional_epochs is None else start
        if additional_epochs is not None:
            logger.info("%d more epochs, from learning rate %.3g", additional_epochs, self._rate(start + 1, 0))
        try:
            for epoch in range(start + 1, end + 1):
                if self._is_over(patient_from):
                    logger.info("no better epoch in %d; stopping", self.config.patience)
                    break
                started = time.monotonic()
                self._cut_off = True
                self.train_loader.set_epoch(epoch)
                loss = self.train_on(self.train_loader, model, epoch)
                rate = self._rate(epoch, self._steps_an_epoch() - 1)
                figures = {"train_loss": loss, **self._validate(), "learning_rate": rate}
                self._cut_off = False
                self._end_epoch({"epoch": epoch, **figures, "seconds": time.monotonic() - started}, end)
        finally:
            for tracker in self._opened:
                tracker.close()
        self._last_weights = _copied(self.model)
        self.model.load_state_dict(self.best_weights)
        self.model.eval()
        best = best_epoch(self.history, self.config.early_stopping_metric)
        if self.world.is_first:
            logger.info("best: epoch %d, %s", best["epoch"], _told(best, self.config.early_stopping_metric))
        return self.history

    def train_on(
        self, batches: Iterable[Batch | CropBatch], model: torch.nn.Module | None = None, epoch: int = 1
    ) -> float:
        """One pass, an optimizer step every `gradient_accumulation_steps` batches; returns the weighted mean loss.

        A step's loss is divided by its rows or positions and scaled by what the loader says (the mean weight
        of all rows, the positions a site), not by its own weights: a row pulls as hard whatever it is
        batched with. The last step takes the batches that are left.

        Args:
            batches: in order.
            model: `self.model` as shared with other processes; None where there are none.
            epoch: where the learning-rate schedule is, from 1.
        """
        model = model or self.model
        model.train()
        scale = self.train_loader.loss_scale
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        losses, weights = torch.zeros((), dtype=kind, device=self.device), 0.0
        if self.device.type == "cuda":
            batches = _ahead(batches)
        for step, group in enumerate(_groups(batches, self.config.gradient_accumulation_steps), start=1):
            for number, batch in enumerate(group, start=1):
                with self.world.apart(model, last=number == len(group)):
                    loss = self._loss(model, batch.to(self.device)).sum()
                    self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                losses += loss.detach()
                weights += float(batch.weights.sum())
            (rows,) = self.world.total(sum(batch.labels.numel() for batch in group))
            rate = self._rate(epoch, step - 1)
            self._step(scale * self.world.size / rows, rate)  # several processes average their gradients
            if step % _CHECK_STEPS == 0:
                self._refuse_not_finite(losses, rate)
        self._refuse_not_finite(losses, rate)
        all_losses, all_weights = self.world.total(losses.item(), weights)
        return all_losses / all_weights

    def _refuse_not_finite(self, loss: Tensor, rate: float) -> None:
        """Looking at a loss waits for the device, so it is done now and then."""
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the training loss is {loss.item()} at learning rate {rate:g}; lower train.learning_rate"
            )

    def plot_history(self) -> Path:
        """Losses, validation figures and learning rate by epoch as `history.png`; returns its path.

        Raises:
            TrainingError: no `output_dir`, or nothing trained yet.
        """
        from metalayer.training.curves import plot

        if self.output_dir is None or not self.history:
            raise TrainingError("plot_history needs an output_dir and a history: train first")
        return plot(self.history, self.output_dir / CURVES)

    def _step(self, factor: float, rate: float) -> None:
        """One optimizer step on the gradients of summed losses, times `factor`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]
        self.scaler.unscale_(self.optimizer)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        for parameter in parameters:
            parameter.grad.mul_(factor)  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_done += 1

    def _steps_an_epoch(self) -> int:
        return math.ceil(len(self.train_loader) / self.config.gradient_accumulation_steps)

    def _rate(self, epoch: int, step: int) -> float:
        """Learning rate of optimizer step `step` (from 0) of an epoch (from 1).

        Warm-up and half a cosine over `max_epochs`, then `additional_rate_share` of the peak.
        """
        if epoch > self.config.max_epochs:
            return self.config.learning_rate * self.config.additional_rate_share
        steps, done = self.config.max_epochs * self._steps_an_epoch(), (epoch - 1) * self._steps_an_epoch() + step
        return self.config.learning_rate * _warmup_cosine(done, round(self.config.warmup_fraction * steps), steps)

    def _loss(self, model: torch.nn.Module, batch: Batch | CropBatch) -> Tensor:
        """Weighted negative log-likelihood of each row or position: the weight acts on the row, not on the mean."""
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            if isinstance(batch, Batch):
                log_p, exon_logits = model(*batch.inputs), None
            else:
                log_p, exon_logits = model(*batch.inputs, with_exons=True)
        losses = _nll(log_p.float(), batch.labels) * batch.weights
        if exon_logits is None or not self.config.exon_loss:
            return losses
        assert isinstance(batch, CropBatch)
        known = batch.exons != UNKNOWN
        guess = binary_cross_entropy_with_logits(exon_logits.float(), (batch.exons == 1).float(), reduction="none")
        # Its mean over positions is what `exon_loss` weighs, beside about one loss a site.
        return losses + (self.config.exon_loss / self.train_loader.loss_scale) * guess * known

    @property
    def kept(self) -> MetaSpliceModel:
        """What is validated and kept: the model, or the running mean of its weights."""
        if self.average is None:
            return self.model
        averaged = self.average.module
        assert isinstance(averaged, MetaSpliceModel)
        return averaged

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        model, validation = self.kept.eval(), Validation()
        for batch in self.val_loader:
            log_p = model(*batch.to(self.device).inputs).cpu()
            counts = batch.weights > 0  # a crop may reach beyond its gene
            losses = _nll(log_p, batch.labels)[counts]
            validation.add(log_p[counts], batch.labels[counts], losses, batch.weights[counts])
        return self.world.agree(validation.figures())

    def _open_outputs(self) -> None:
        self._opened: list[Tracker] = list(self.trackers) if self.world.is_first else []
        if self.world.is_first and self.output_dir is not None:
            from metalayer.training.trackers.tensorboard import TensorBoardTracker

            self.output_dir.mkdir(parents=True, exist_ok=True)
            with publish_file(self.output_dir / CONFIG) as draft:
                draft.write_text(str(self.config), encoding="utf-8")
            self._opened.append(TensorBoardTracker(self.output_dir / LOGS))
        if self.world.is_first and self.use_wandb:
            from metalayer.training.trackers.weights_and_biases import WandbTracker

            self._opened.append(WandbTracker(self.config.model_dump(mode="json")))

    def _end_epoch(self, epoch: Epoch, of: int = 0) -> None:
        """Note an epoch; keep its weights if it is the best; write the checkpoint."""
        metric = self.config.early_stopping_metric
        self.history.append(epoch)
        is_best = best_epoch(self.history, metric) is epoch
        if is_best:
            self.best_weights = _copied(self.kept)
        state = self._state()
        if self.world.is_first:
            self._tell(epoch, of)
            if self.output_dir is not None:
                # The last state comes last: a kill before it makes the epoch run, and write, again.
                if is_best:
                    save_checkpoint(self.output_dir / BEST, self.kept, state)
                with publish_file(self.output_dir / HISTORY) as draft:
                    draft.write_text(json.dumps(_json_ready(self.history), indent=1), encoding="utf-8")
                save_checkpoint(self.output_dir / LAST, self.kept, state)
        self.world.wait()
        if self.on_epoch:
            self.on_epoch(epoch)

    def _tell(self, epoch: Epoch, of: int) -> None:
        figures = {name: value for name, value in epoch.items() if name != "epoch" and math.isfinite(value)}
        for tracker in self._opened:
            tracker.log(figures, int(epoch["epoch"]))
        told = _told(epoch, self.config.early_stopping_metric)
        if not epoch["epoch"]:
            logger.info("base model: %s", told)
            return
        logger.info(
            "epoch %d/%d: loss %.5f, %s (%.1f s)", epoch["epoch"], of, epoch["train_loss"], told, epoch["seconds"]
        )

    def _is_over(self, patient_from: int) -> bool:
        """Whether the last `patience` epochs, counted from `patient_from` at the earliest, brought nothing better."""
        best = int(best_epoch(self.history, self.config.early_stopping_metric)["epoch"])
        return int(self.history[-1]["epoch"]) - max(best, patient_from) >= self.config.patience

    def _state(self) -> dict[str, Any]:
        """All that the next epoch depends on, beside the model."""
        return {
            "config_kind": type(self.config).__name__,
            "config": self.config.model_dump(mode="json"),
            "history": self.history,
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "steps_done": self.steps_done,
            "scaler": self.scaler.state_dict(),
            # The checkpoint's model is what is kept; training goes on from these.
            "weights": None if self.average is None else _copied(self.model),
            "average": None if self.average is None else _copied(self.average),
            "sampler": {"epoch": self.history[-1]["epoch"], "seed": self.train_loader.seed},
            "rows": self._rows_hash(),
            "random": self.world.gather(
                {
                    "cpu": torch.get_rng_state(),
                    "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
                }
            ),
        }

    def _rows_hash(self) -> str:
        """Of which rows train and which validate."""
        return (self.train_loader.identity + self.val_loader.identity).hex()

    def _restore(self, content: Mapping[str, Any]) -> None:
        self.history = list(content["history"])
        self.best_weights = dict(content["best_weights"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.steps_done = content["steps_done"]
        self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
            self.model.load_state_dict(content["weights"])
        self.train_loader.seed = content["sampler"]["seed"]
        self._random = content["random"]
        if content["rows"] != self._rows_hash():
            raise ConfigError(
                "the loaders hold other training or validation rows than the run of this checkpoint; split the same "
                "data with the same shares and seed, or start a new run"
            )

    def _restore_random(self) -> None:
        """Random states of the checkpoint, once; a process that was not there then starts from the seed."""
        if not self._random:
            return
        if self.world.rank < len(self._random):
            mine = self._random[self.world.rank]
            torch.set_rng_state(mine["cpu"])
            if mine["cuda"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(mine["cuda"], self.device)
        else:
            torch.manual_seed(self.config.seed + self.world.rank)
        self._random = []


def _precision(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The reduced precision of the network's inner products, None for float32."""
    if not config.mixed_precision:
        return None
    if device.type != "cuda":
        logger.info("mixed precision needs a GPU; training on %s in float32", device.type)
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _nll(log_p: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, in the shape of the labels: log p (..., C), labels (...)."""
    losses: Tensor = nll_loss(log_p.flatten(0, -2), labels.flatten(), reduction="none")
    return losses.reshape(labels.shape)


def _groups_of(model: MetaSpliceModel, weight_decay: float) -> list[dict[str, Any]]:
    """What learns, by share of the learning rate; biases and other one-dimensional parameters are not decayed."""
    slow = set(model.encoder.slow_parameters())
    groups = []
    for share, chosen in ((1.0, False), (model.encoder.slow_share, True)):
        learning = [p for p in model.parameters() if p.requires_grad and (p in slow) is chosen]
        decayed, plain = ([p for p in learning if (p.ndim > 1) is wide] for wide in (True, False))
        groups.append({"params": decayed, "weight_decay": weight_decay, "rate_share": share})
        groups.append({"params": plain, "weight_decay": 0.0, "rate_share": share})
    return groups


def _copied(model: torch.nn.Module) -> dict[str, Tensor]:
    """Weights on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _ahead(batches: Iterable[Batch | CropBatch]) -> Iterator[Batch | CropBatch]:
    """The same batches in the same order, made by a thread while those before are used."""
    source = iter(batches)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, source, None) for _ in range(_AHEAD))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, source, None))
            yield batch


def _groups(batches: Iterable[Batch | CropBatch], size: int) -> Iterable[list[Batch | CropBatch]]:
    """Batches in lists of `size`, the last with what is left."""
    group: list[Batch | CropBatch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate at an optimizer step: linear rise, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def seed_everything(seed: int) -> None:
    """Seed torch and numpy's global generators."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  a library below may draw from it


def new_model(config: ModelConfig, train: TrainConfig, evidence: Mapping[str, Source]) -> MetaSpliceModel:
    """An untrained network, with the threads and the seed of a training: the seed decides its weights.

    Args:
        config: the network.
        train: the training.
        evidence: `data.evidence`.

    Raises:
        ConfigError: parts that do not fit, or evidence that is `none`.
    """
    if absent := [name for name, source in evidence.items() if source == ABSENT]:
        raise ConfigError(f"data.evidence.{absent[0]}: given {ABSENT!r}; a model learns from numbers: name a file")
    use_threads(train.threads)
    seed_everything(train.seed)
    return build_model(config, evidence)


def best_epoch(history: Sequence[Epoch], metric: str = "pr_auc_splice") -> Epoch:
    """The epoch whose weights are kept: the first of the best.

    Raises:
        ConfigError: a figure that the history does not hold.
    """
    name = f"val_{metric}"
    if name not in history[0]:
        known = ", ".join(key.removeprefix("val_") for key in history[0] if key.startswith("val_"))
        raise ConfigError(f"early_stopping_metric: given {metric!r}; there are {known}")
    sign = -1.0 if metric == "loss" else 1.0
    return max(history, key=lambda epoch: sign * epoch[name])


def _told(epoch: Epoch, metric: str) -> str:
    name = f"AP {metric.removeprefix('ap_')}"
    extra = "" if metric in ("loss", "pr_auc_splice") else f", {name} {epoch[f'val_{metric}']:.4f}"
    return f"validation loss {epoch['val_loss']:.5f}, PR-AUC splice {epoch['val_pr_auc_splice']:.4f}{extra}"


def _json_ready(history: Sequence[Epoch]) -> list[dict[str, float | None]]:
    """NaN is no JSON: null instead."""
    return [{k: (v if math.isfinite(v) else None) for k, v in epoch.items()} for epoch in history]
