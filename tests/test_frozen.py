"""Frozen means once: states of a frozen language model on disk, rows and genes read from there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metalayer.data.crops import CropLoader
from metalayer.data.dataset import RowLoader
from metalayer.data.states import StateStore, state_key
from metalayer.errors import ConfigError, TrainingError
from metalayer.genome import N_TOKEN
from metalayer.models import MetaSpliceModel
from metalayer.models.language import LanguageEncoder
from metalayer.settings.sections import TrainConfig
from metalayer.training import frozen
from metalayer.training.distributed import World
from metalayer.training.trainer import Trainer, seed_everything
from tests import checkpoints, test_crops
from tests.processes import assert_same, train_in_one_and_two
from tests.test_models import perturbed
from tests.test_resume import Stop, same, stop_after
from tests.test_training import planted

WORLD = World(device="cpu")
ROUNDING = 4e-3  # of float16, through the projection and the head


def model(folder: Path, **options: Any) -> MetaSpliceModel:
    place = folder / "checkpoint"
    if not place.exists():
        checkpoints.hyenadna(place)
    given = {"model_size": str(place), "chunk_bp": 48, "stride_bp": 16, "output_dim": 12, "freeze": True, **options}
    seed_everything(1)
    return MetaSpliceModel("hyenadna", sequence_encoder_config=given, hidden_dim=16)


def encoder_of(it: MetaSpliceModel) -> LanguageEncoder:
    assert isinstance(it.encoder, LanguageEncoder)
    return it.encoder


def rows(**options: Any) -> tuple[RowLoader, RowLoader]:
    return RowLoader(planted(120, 0), 32, shuffle=True, seed=5, **options), RowLoader(planted(70, 1), 64)


def crops() -> tuple[CropLoader, CropLoader]:
    parts = []
    for seed in (0, 1):
        genes = test_crops.planted(6, seed)
        genes.tokens[130:170] = genes.tokens[:5] = N_TOKEN
        parts.append(test_crops.crops(genes, 31, crop_bp=160, shuffle=not seed, with_features=True))
    return parts[0], parts[1]


def read(it: MetaSpliceModel, loaders: Any, cache: Path, seed: int = 0) -> None:
    frozen.read_frozen(it.encoder, loaders, seed, cache, WORLD)


def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many chunks the backbone was given, call by call."""
    seen: list[int] = []
    states = LanguageEncoder._states

    def note(self: LanguageEncoder, chunks: Tensor) -> Tensor:
        seen.append(len(chunks))
        return states(self, chunks)

    monkeypatch.setattr(LanguageEncoder, "_states", note)
    return seen


def test_rows_have_the_states_of_one_offset_each(tmp_path: Path) -> None:
    it = model(tmp_path)
    encoder = encoder_of(it)
    train, valid = rows()
    read(it, (train, valid), tmp_path / "cache")
    centre, offsets = 250, []
    with torch.no_grad():
        for loader, inner in ((train, range(16, 32)), (valid, [24])):
            for batch in loader:
                windows = torch.from_numpy(loader.table.windows[batch.rows.numpy()])
                near = windows[:, centre - encoder.radius_bp : centre + encoder.radius_bp + 1]
                at = [encoder.states_at(near, torch.full((len(near),), offset)) for offset in inner]
                off = (torch.stack(at) - batch.windows.float()).abs().amax(dim=-1)
                assert off.amin(dim=0).max() < 2e-3
                offsets += (off.argmin(dim=0) + inner[0]).tolist() if loader is train else []
    assert set(offsets) == set(range(16, 32))


def test_offsets_are_drawn_from_the_seed(tmp_path: Path) -> None:
    it = model(tmp_path)
    drawn = []
    for seed in (0, 0, 1):
        train, valid = rows()
        read(it, (train, valid), tmp_path / "cache", seed)
        drawn.append(np.concatenate([train.dataset[np.arange(120)].windows, valid.dataset[np.arange(70)].windows]))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0][:120], drawn[2][:120])
    assert np.array_equal(drawn[0][120:], drawn[2][120:])


def test_rows_and_crops_say_what_their_letters_say(tmp_path: Path) -> None:
    it = perturbed(model(tmp_path))
    for loaders in (rows(), crops()):
        from_letters = [it(*batch.inputs).detach() for batch in loaders[1]]
        read(it, loaders, tmp_path / "cache")
        for batch, expected in zip(loaders[1], from_letters, strict=True):
            assert batch.inputs[0].dtype == torch.float16
            found = it(*batch.inputs).detach()
            assert (found - expected).abs().max() < ROUNDING
            assert found.std() > 0.1
        frozen.read_frozen(MetaSpliceModel().encoder, loaders, 0, None, WORLD)
        assert all(batch.inputs[0].dtype == torch.uint8 for loader in loaders for batch in loader)


def test_crops_of_any_length_are_cut_from_the_same_states(tmp_path: Path) -> None:
    it = perturbed(model(tmp_path))
    genes = test_crops.planted(3, 0)
    answers = []
    for crop_bp in (1000, 333):
        loader = test_crops.crops(genes, it.reach_bp, crop_bp=crop_bp, batch_crops=1, with_features=True)
        read(it, (loader,), tmp_path / "cache")
        answers.append(torch.cat([it(*batch.inputs).detach()[batch.weights > 0] for batch in loader]))
    assert torch.allclose(answers[0], answers[1], atol=1e-5)


def test_once_is_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    seen = computed(monkeypatch)
    it = model(tmp_path)
    with caplog.at_level(logging.INFO):
        read(it, rows(), tmp_path / "cache")
    assert sum(seen) == 120 + 70
    assert "120 of 120 sequences to embed" in caplog.text
    assert "embedded 120 of 120" in caplog.text
    seen.clear()
    read(it, rows(), tmp_path / "cache")
    table = planted(120, 0)
    twice = RowLoader(table, 8, rows=np.array([3, 3, 77]), shuffle=True)
    read(model(tmp_path, output_dim=5), (twice, RowLoader(planted(70, 1), 8)), tmp_path / "cache")
    assert seen == []
    read(model(tmp_path, chunk_bp=50), (twice,), tmp_path / "cache")
    assert seen == [2]  # another chunk length, each sequence once


def test_another_checkpoint_has_other_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = model(tmp_path)
    read(one, rows(), tmp_path / "cache")
    seen = computed(monkeypatch)
    other = model(tmp_path)
    with torch.no_grad():
        encoder_of(other).backbone.ln_f.bias += 1  # type: ignore[operator,union-attr]
    read(other, rows(), tmp_path / "cache")
    assert sum(seen) == 120 + 70
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_PART_SECONDS", 0.0)
    monkeypatch.setattr(frozen, "_AT_ONCE", 16)
    it, seen = model(tmp_path), computed(monkeypatch)
    whole = rows()
    read(it, whole, tmp_path / "other")
    states = LanguageEncoder._states
    seen.clear()

    def cut(self: LanguageEncoder, chunks: Tensor) -> Tensor:
        if len(seen) == 3:
            raise KeyboardInterrupt
        return states(self, chunks)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageEncoder, "_states", cut)
        with pytest.raises(KeyboardInterrupt):
            read(it, rows(), tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 3
    seen.clear()
    again = rows()
    read(it, again, tmp_path / "cache")
    assert sum(seen) == 120 + 70 - 3 * 16
    everything = np.arange(120)
    assert torch.equal(again[0].dataset[everything].windows, whole[0].dataset[everything].windows)


def trainer(folder: Path, loaders: Any, output: Path | None = None, **changes: Any) -> Trainer:
    settings = {"max_epochs": 4, "learning_rate": 5e-3, "device": "cpu", "threads": 1, "patience": 50}
    config = TrainConfig(**{**settings, "embedding_cache": folder / "cache", **changes})
    return Trainer(model(folder), *loaders, config, output)


@pytest.mark.parametrize("loaders", [rows, crops])
def test_training_reads_the_states_and_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaders: Any
) -> None:
    seen = computed(monkeypatch)
    whole = trainer(tmp_path, loaders())
    history = whole.train()
    assert min(epoch["train_loss"] for epoch in history[2:]) < history[1]["train_loss"]
    first = sum(seen)
    cut = trainer(tmp_path, loaders(), tmp_path / "cut")
    cut.on_epoch = stop_after(2)
    with pytest.raises(Stop):
        cut.train()
    resumed = Trainer.from_checkpoint(tmp_path / "cut" / "last_model.pt", *loaders())
    resumed.train()
    assert same(whole.model, resumed.model)
    assert sum(seen) == first


def test_workers_read_states_too(tmp_path: Path) -> None:
    plain = trainer(tmp_path, rows(), max_epochs=2).train()
    loaders = rows(num_workers=1)
    list(loaders[0])  # workers were started on letters
    with_workers = trainer(tmp_path, loaders, max_epochs=2).train()
    assert [e["train_loss"] for e in plain[1:]] == [e["train_loss"] for e in with_workers[1:]]


def test_by_default_states_are_kept_with_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "home"))
    trainer(tmp_path, rows(), max_epochs=1, embedding_cache=None).train()
    assert list((tmp_path / "home" / "embeddings").rglob("rows/*.arrow"))
    monkeypatch.setattr(frozen, "code_hash", lambda: "that of other code")
    trainer(tmp_path, rows(), max_epochs=1, embedding_cache=None).train()
    assert len(list((tmp_path / "home" / "embeddings").iterdir())) == 2


def test_states_that_do_not_fit_the_disk_or_float16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = StateStore(tmp_path, (2,))
    with pytest.raises(TrainingError, match="no numbers or above"):
        store.add([state_key(b"a")], np.array([[1.0, 1e6]], dtype=np.float32))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 7}))
    assert store.missing([state_key(b"a")]) == [0]
    with pytest.raises(ConfigError, match=r"embedding_cache: the states of 2 sequences need 0\.0 GB"):
        store.missing([state_key(b"a"), state_key(b"b")])


def test_two_processes_share_the_work_and_train_the_model_of_one(tmp_path: Path) -> None:
    checkpoints.hyenadna(tmp_path / "checkpoint")
    one, two = train_in_one_and_two(
        tmp_path,
        f"""
        from pathlib import Path
        from tests.test_frozen import rows, trainer
        it = trainer(Path({str(tmp_path)!r}), rows(), folder, max_epochs=2, embedding_cache=folder / "cache")
        for module in it.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        history = it.train()
        """,
    )
    assert_same(one, two)
