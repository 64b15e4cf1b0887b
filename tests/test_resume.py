"""Checkpoints, resuming, accumulation, balancing and several processes: equal work gives equal weights."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metalayer.data.dataset import BatchSampler, RowLoader
from metalayer.errors import ConfigError, ModelError, SchemaError, TrainingError
from metalayer.integrity import seal_archive
from metalayer.models import MetaSpliceModel
from metalayer.settings.sections import TrainConfig
from metalayer.training.trainer import Trainer, best_epoch, seed_everything
from tests.processes import assert_same, train_in_one_and_two
from tests.test_training import SMALL, planted

TRAIN, VALID = planted(150, 0), planted(100, 1)


def loaders(**options: Any) -> tuple[RowLoader, RowLoader]:
    batch_size = options.pop("batch_size", 32)
    return RowLoader(TRAIN, batch_size, shuffle=True, seed=5, **options), RowLoader(VALID, 64)


def trainer(folder: Path | None, pair: tuple[RowLoader, RowLoader] | None = None, **changes: Any) -> Trainer:
    settings = {"max_epochs": 6, "learning_rate": 3e-3, "batch_size": 32, "device": "cpu", "patience": 50, "threads": 1}
    config = TrainConfig(**{**settings, **changes})
    seed_everything(config.seed)
    model = MetaSpliceModel(hidden_dim=16, sequence_encoder_config=SMALL)
    return Trainer(model, *(pair or loaders()), config, folder)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Stop(Exception):
    pass


def stop_after(epoch: int) -> Any:
    def stop(figures: dict[str, float]) -> None:
        if figures["epoch"] == epoch:
            raise Stop

    return stop


def test_six_epochs_equal_three_and_three_bit_for_bit(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.train()
    cut = trainer(tmp_path / "cut")
    cut.on_epoch = stop_after(3)
    with pytest.raises(Stop):
        cut.train()
    torch.rand(100)  # another program's random numbers in between
    resumed = Trainer.from_checkpoint(tmp_path / "cut" / "last_model.pt", *loaders())
    resumed.train()
    assert same(whole.model, resumed.model)
    without_time = [[{k: v for k, v in e.items() if k != "seconds"} for e in t.history] for t in (whole, resumed)]
    assert str(without_time[0]) == str(without_time[1])
    last = [torch.load(tmp_path / name / "last_model.pt", weights_only=True) for name in ("whole", "cut")]
    for name, value in last[0]["model"].items():
        assert torch.equal(value, last[1]["model"][name]), name


@pytest.mark.parametrize(
    ("loading", "settings"),
    [
        ({"num_workers": 2}, {}),
        ({}, {"balance_classes": True, "gradient_accumulation_steps": 3}),
        ({}, {"patience": 2, "early_stopping_metric": "loss", "learning_rate": 0.3}),
    ],
)
def test_other_settings_resume_bit_for_bit(tmp_path: Path, loading: dict[str, Any], settings: dict[str, Any]) -> None:
    whole = trainer(None, loaders(**loading), **settings)
    whole.train()
    cut = trainer(tmp_path, loaders(**loading), **settings)
    cut.on_epoch = stop_after(2)
    with pytest.raises(Stop):
        cut.train()
    pair = loaders(**loading)
    resumed = Trainer.from_checkpoint(tmp_path / "last_model.pt", *pair)
    list(pair[0])  # looking at a batch first changes nothing
    resumed.train()
    assert [epoch["epoch"] for epoch in whole.history] == [epoch["epoch"] for epoch in resumed.history]
    assert same(whole.model, resumed.model)


def test_going_on_with_the_same_trainer_equals_its_checkpoint(tmp_path: Path) -> None:
    first = trainer(tmp_path, max_epochs=4, learning_rate=0.3)
    first.train()
    again = Trainer.from_checkpoint(tmp_path / "last_model.pt", *loaders())
    again.output_dir = tmp_path / "again"
    again.train(additional_epochs=2)
    first.train(additional_epochs=2)
    assert same(first.model, again.model)


def test_other_rows_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, max_epochs=1).train()
    fewer = RowLoader(TRAIN, 32, rows=np.arange(100), shuffle=True), RowLoader(VALID, 64)
    with pytest.raises(ConfigError, match="other training or validation rows"):
        Trainer.from_checkpoint(tmp_path / "last_model.pt", *fewer)


def test_a_run_cut_off_within_an_epoch_does_not_go_on_from_there(tmp_path: Path) -> None:
    it = trainer(tmp_path)
    step, steps = it._step, []

    def interrupted(*given: float) -> None:
        steps.append(given)
        if len(steps) == 7:
            raise KeyboardInterrupt
        step(*given)

    it._step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        it.train()
    with pytest.raises(TrainingError, match="cut off within an epoch"):
        it.train()
    whole = trainer(None)
    whole.train()
    resumed = Trainer.from_checkpoint(tmp_path / "last_model.pt", *loaders())
    resumed.train()
    assert same(whole.model, resumed.model)


def test_rows_without_weight_are_refused() -> None:
    nothing = RowLoader(TRAIN, 32, weights=np.zeros(len(TRAIN), dtype=np.float32)), RowLoader(VALID, 64)
    with pytest.raises(TrainingError, match="all training rows weigh 0"):
        trainer(None, nothing)


def test_kill_9_leaves_a_state_to_go_on_from(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys; sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from tests.test_resume import trainer
        trainer(Path(sys.argv[2]), max_epochs=400).train()
        """
    )
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen([sys.executable, "-c", program, str(root), str(tmp_path / "run")]) as process:
        for _ in range(600):
            if (tmp_path / "run" / "last_model.pt").exists():
                break
            time.sleep(0.1)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    resumed = Trainer.from_checkpoint(tmp_path / "run" / "last_model.pt", *loaders(), max_epochs=400)
    reached = resumed.history[-1]["epoch"]
    resumed.train(additional_epochs=1)
    assert resumed.history[-1]["epoch"] == reached + 1
    assert [e["epoch"] for e in json.loads((tmp_path / "run" / "history.json").read_text())] == list(
        range(int(reached) + 2)
    )


def test_additional_epochs_after_a_finished_run(tmp_path: Path) -> None:
    first = trainer(tmp_path, max_epochs=2)
    first.train()
    more = Trainer.from_checkpoint(tmp_path / "last_model.pt", *loaders())
    history = more.train(additional_epochs=2)
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2, 3, 4]
    assert [epoch["learning_rate"] for epoch in history[3:]] == [pytest.approx(3e-4)] * 2
    with pytest.raises(ConfigError, match="additional_epochs: given 0"):
        more.train(additional_epochs=0)


def test_accumulated_batches_equal_one_large_batch() -> None:
    one = trainer(None, loaders(batch_size=64), max_epochs=3, batch_size=64)
    four = trainer(None, loaders(batch_size=16), max_epochs=3, batch_size=16, gradient_accumulation_steps=4)
    for it in (one, four):
        for module in it.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        it.train()
        assert it.steps_done == 3 * math.ceil(150 / 64)  # optimizer steps, with the tail of 22 rows as one
        assert 0 < it._rate(3, it._steps_an_epoch() - 1) < 1e-3
        assert it._rate(4, 0) == pytest.approx(3e-4)  # the schedule has ended
    for a, b in zip(one.model.parameters(), four.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_no_gradient_is_left_for_the_next_epoch() -> None:
    it = trainer(None, loaders(batch_size=32), gradient_accumulation_steps=3)  # 5 batches: a tail of 2
    it.train_on(it.train_loader)
    assert it.steps_done == 2
    assert all(p.grad is None for p in it.model.parameters())


def test_balanced_batches_are_seeded_and_even() -> None:
    labels = np.repeat([0, 1, 2], [5, 10, 985])
    draws = []
    for seed in (1, 1, 2):
        sampler = BatchSampler(1000, 100, shuffle=True, seed=seed)
        sampler.balance(labels)
        draws.append(list(sampler))
    assert all(np.array_equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not np.array_equal(draws[0][0], draws[2][0])
    counts = np.bincount(labels[np.concatenate(draws[0])])
    assert (counts > 280).all()
    with pytest.raises(ConfigError, match="no row of class donor"):
        RowLoader(TRAIN, 8, rows=np.flatnonzero(TRAIN.labels != 0)).balance()


def test_the_configuration_balances_the_training_rows() -> None:
    rows = np.concatenate([np.flatnonzero(TRAIN.labels == 2), np.flatnonzero(TRAIN.labels < 2)[:12]])
    pair = RowLoader(TRAIN, 16, rows=rows, shuffle=True), RowLoader(VALID, 64)
    trainer(None, pair, balance_classes=True)
    drawn = np.bincount(np.concatenate([batch.labels.numpy() for batch in pair[0]]), minlength=3)
    assert drawn[2] < len(rows) // 2 < np.bincount(TRAIN.labels[rows])[2]
    trainer(None, pair)  # the next run on the same loader is not balanced
    every = np.concatenate([batch.rows.numpy() for batch in pair[0]])
    assert sorted(every.tolist()) == sorted(rows.tolist())


def test_batches_are_not_in_label_order() -> None:
    labels = np.repeat([0, 1, 2], 100)
    first = labels[next(iter(BatchSampler(300, 64, shuffle=True, seed=0)))]
    assert len(set(first.tolist())) == 3


def test_an_unknown_metric_is_refused_not_taken_for_the_worst_epoch() -> None:
    with pytest.raises(ConfigError, match="early_stopping_metric: given 'val_pr_auc'"):
        TrainConfig(early_stopping_metric="val_pr_auc")
    with pytest.raises(ConfigError, match="there are loss, pr_auc_splice"):
        best_epoch([{"epoch": 0, "val_loss": 1.0, "val_pr_auc_splice": 0.5}], "pr_acu")


def test_the_loss_is_better_when_it_is_lower() -> None:
    history = [{"epoch": i, "val_loss": loss} for i, loss in enumerate((0.5, 0.2, 0.2, 0.9))]
    assert best_epoch(history, "loss")["epoch"] == 1


def test_damaged_and_foreign_checkpoints(tmp_path: Path) -> None:
    trainer(tmp_path, max_epochs=1).train()
    path = tmp_path / "last_model.pt"
    content = torch.load(path, weights_only=True)
    with pytest.raises(ModelError, match="no such file"):
        Trainer.from_checkpoint(tmp_path / "none.pt", *loaders())

    def save(name: str, **changes: object) -> None:
        torch.save({**content, **changes}, tmp_path / name)
        seal_archive(tmp_path / name)

    save("new.pt", format_version=99)
    with pytest.raises(ModelError, match="format version 99"):
        Trainer.from_checkpoint(tmp_path / "new.pt", *loaders())
    save("other.pt", schema_hash="f00")
    with pytest.raises(SchemaError, match="train again"):
        Trainer.from_checkpoint(tmp_path / "other.pt", *loaders())
    save("code.pt", code=Path)
    with pytest.raises(ModelError, match="holds more than tensors"):
        Trainer.from_checkpoint(tmp_path / "code.pt", *loaders())
    save("wrong.pt", model={k: v for k, v in content["model"].items() if k != "head.weight"})
    with pytest.raises(ModelError, match=r"head\.weight"):
        Trainer.from_checkpoint(tmp_path / "wrong.pt", *loaders())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelError, match="damaged"):
        Trainer.from_checkpoint(path, *loaders())
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"its SHA-256, is missing; .* train again"):
        Trainer.from_checkpoint(path, *loaders())


def test_plot_history_needs_a_history(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="train first"):
        trainer(tmp_path).plot_history()


def test_two_processes_train_the_model_of_one(tmp_path: Path) -> None:
    one, two = train_in_one_and_two(
        tmp_path,
        """
        from tests.test_resume import loaders, trainer
        it = trainer(folder, loaders(batch_size=32), max_epochs=2, gradient_accumulation_steps=2)
        for module in it.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        history = it.train()
        """,
    )
    assert_same(one, two)
