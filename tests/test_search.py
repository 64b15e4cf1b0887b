"""Hyperparameter search: what it finds, writes, resumes and refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from metalayer import yaml12
from metalayer.core import MetaLayerConfig
from metalayer.data.dataset import RowLoader
from metalayer.errors import ConfigError, TrainingError
from metalayer.models import MetaSpliceModel
from metalayer.settings.run import RunConfig
from metalayer.settings.search import Range
from metalayer.training import hyperparameter_search
from tests.test_training import planted

BASE = MetaLayerConfig(
    max_epochs=2,
    learning_rate=3e-3,
    hidden_dim=16,
    device="cpu",
    sequence_encoder_config={"kernel_sizes": [5], "num_filters": 8, "output_dim": 8, "levels": 5},
)
TRAIN, VALID = planted(300, 0), planted(200, 1)


def loaders(model: MetaSpliceModel, config: MetaLayerConfig) -> tuple[RowLoader, RowLoader]:
    return RowLoader(TRAIN, config.batch_size, shuffle=True, seed=config.seed), RowLoader(VALID, 256)


def search(folder: Path, **changes: Any) -> tuple[MetaLayerConfig, list[dict[str, Any]]]:
    space = {"learning_rate": [1e-7, 1e-2]}
    options: dict[str, Any] = {"search_space": space, "n_trials": 4, "make_loaders": loaders, **changes}
    return hyperparameter_search(BASE, output_dir=folder, **options)


def test_the_better_setting_is_found_and_written(tmp_path: Path) -> None:
    best, results = search(tmp_path)
    assert best.learning_rate == 1e-2
    assert results[0]["value"] == max(r["value"] for r in results if r["state"] == "complete")
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert MetaLayerConfig.from_yaml(tmp_path / "best_config.yaml") == best
    _, again = search(tmp_path / "again")
    assert [r["settings"] for r in again] == [r["settings"] for r in results]  # seeded


def test_ranges_and_lists_that_are_no_plain_values(tmp_path: Path) -> None:
    space = {
        "learning_rate": (1e-4, 1e-2),
        "hidden_dim": (16, 24),
        "sequence_encoder_config": [{"levels": 3}, {"levels": 4}],
    }
    best, results = search(tmp_path, search_space=space, n_trials=3)
    for trial in results:
        assert 1e-4 <= trial["settings"]["learning_rate"] <= 1e-2
        assert trial["settings"]["hidden_dim"] in range(16, 25)
    assert dict(best.sequence_encoder_config) in space["sequence_encoder_config"]


def test_resume_goes_on_and_a_new_search_starts_anew(tmp_path: Path) -> None:
    search(tmp_path, n_trials=2)
    assert len(search(tmp_path, n_trials=1, resume=True)[1]) == 3
    with pytest.raises(ConfigError, match="another space"):
        search(tmp_path, search_space={"dropout": [0.1]}, resume=True)
    assert len(search(tmp_path, n_trials=1)[1]) == 1


def test_a_killed_search_comes_to_the_same_end(tmp_path: Path) -> None:
    """No trial is trained twice, and the rest are those that it would have come to: past the ten drawn at random."""
    space, n = {"learning_rate": (1e-4, 1e-2), "dropout": (0.0, 0.3)}, 12
    _, whole = search(tmp_path / "whole", search_space=space, n_trials=n)
    program = textwrap.dedent(
        f"""
        import os, signal, sys; sys.path[:0] = sys.argv[1:2]
        from pathlib import Path
        from tests.test_search import loaders, search
        trained = []
        def killed(model, config):
            trained.append(config)
            if len(trained) == {n - 1}:
                os.kill(os.getpid(), signal.SIGKILL)
            return loaders(model, config)
        options = dict(search_space={space}, n_trials={n}, resume=True, in_all=True, make_loaders=killed)
        search(Path(sys.argv[2]), **options)
        """
    )
    root = str(Path(__file__).resolve().parents[1])
    killed = subprocess.run([sys.executable, "-c", program, root, str(tmp_path / "cut")], check=False)
    assert killed.returncode == -signal.SIGKILL
    trained = []

    def counted(model: MetaSpliceModel, config: MetaLayerConfig) -> tuple[RowLoader, RowLoader]:
        trained.append(config)
        return loaders(model, config)

    options = {"search_space": space, "n_trials": n, "resume": True, "in_all": True, "make_loaders": counted}
    for _ in range(2):  # the second time nothing is left to do
        best, results = search(tmp_path / "cut", **options)
        assert len(trained) == 2
        assert results == whole
        assert best.learning_rate == whole[0]["settings"]["learning_rate"]


def test_bad_trials_are_pruned(tmp_path: Path) -> None:
    config = BASE.model_copy()
    config.max_epochs = 5
    space = {"learning_rate": [1e-9, 1e-2]}
    _, results = hyperparameter_search(config, space, 14, output_dir=tmp_path, make_loaders=loaders)
    assert {"pruned", "complete"} <= {trial["state"] for trial in results}
    assert results[0]["settings"]["learning_rate"] == 1e-2


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    space = {"learning_rat": [1], "dropout": (0.3, 0.1), "hidden_dim": "128", "batch_size": [0, 64]}
    with pytest.raises(ConfigError) as caught:
        search(tmp_path, search_space=space, metric="auc", direction="up", n_trials=0)
    for part in (
        "learning_rat: is no setting",
        "dropout: given (0.3",
        "hidden_dim: given '128'",
        "batch_size: given 0",
    ):
        assert part in str(caught.value)
    for part in ("metric: given 'auc'", "direction: given 'up'", "n_trials: given 0"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="minimize the loss"):
        search(tmp_path, metric="loss")


def test_no_trial_that_ends(tmp_path: Path) -> None:
    broken = planted(64, 0)
    broken.features[:] = float("nan")

    def bad(model: MetaSpliceModel, config: MetaLayerConfig) -> tuple[RowLoader, RowLoader]:
        return RowLoader(broken, 64), RowLoader(VALID, 64)

    with pytest.raises(TrainingError, match="none of 1 trials"):
        hyperparameter_search(BASE, {"dropout": [0.1]}, 1, output_dir=tmp_path, make_loaders=bad)


def test_ranges_are_of_the_kind_of_their_setting(tmp_path: Path) -> None:
    _, results = search(tmp_path, search_space={"weight_decay": (0, 1), "hidden_dim": (16.0, 24.0)}, n_trials=3)
    assert all(isinstance(trial["settings"]["hidden_dim"], int) for trial in results)
    assert any(trial["settings"]["weight_decay"] not in (0, 1) for trial in results)


def test_what_judges_is_not_searched(tmp_path: Path) -> None:
    for name in ("seed", "max_samples", "train_split", "early_stopping_metric"):
        with pytest.raises(ConfigError, match=f"{name}: is no setting of the network"):
            search(tmp_path, search_space={name: [1, 2]})
    with pytest.raises(ConfigError, match="give a list of choices"):
        search(tmp_path, search_space={"balance_classes": (0, 1)})


def test_settings_that_do_not_fit_fail_their_trial_alone(tmp_path: Path) -> None:
    space = {"fusion": ["concat", "cross_attention"], "sequence_encoder": ["none", "cnn"]}
    base = BASE.model_copy()
    base.sequence_encoder_config = {}
    _, results = hyperparameter_search(base, space, 6, output_dir=tmp_path, make_loaders=loaders)
    assert results[0]["state"] == "complete"


def test_what_cannot_act_in_a_trial_has_its_default_there(tmp_path: Path) -> None:
    base = MetaLayerConfig(**{**BASE.model_dump(exclude_unset=True), "batch_size": 16, "max_epochs": 1})
    space = {"training_unit": ["rows", "genes"], "batch_size": [16, 32]}  # genes are read in crops
    best, results = hyperparameter_search(base, space, 6, output_dir=tmp_path, make_loaders=loaders)
    assert {trial["state"] for trial in results} <= {"complete", "pruned"}
    assert {trial["settings"]["training_unit"] for trial in results} == {"rows", "genes"}
    for trial in results:
        assert ("batch_size" in trial["settings"]) == (trial["settings"]["training_unit"] == "rows")
    assert MetaLayerConfig.from_yaml(tmp_path / "best_config.yaml") == best


def test_another_base_is_not_resumed(tmp_path: Path) -> None:
    search(tmp_path, n_trials=1)
    other = BASE.model_copy()
    other.hidden_dim = 24
    with pytest.raises(ConfigError, match="another base"):
        hyperparameter_search(
            other, {"learning_rate": [1e-7, 1e-2]}, 1, output_dir=tmp_path, make_loaders=loaders, resume=True
        )
    with pytest.raises(ConfigError, match="another space"):
        search(tmp_path, search_space={"learning_rate": (1e-7, 1e-2)}, resume=True)


def test_ranges_of_a_pipeline_run_survive_json() -> None:
    text = "space: {learning_rate: {low: 1e-5, high: 1.0e-3}, hidden_dim: [128, 256]}"
    config = RunConfig.from_dict({"search": yaml12.parse(text)})
    again = RunConfig.model_validate_json(config.model_dump_json())
    assert again.search.space == config.search.space
    assert config.search.space is not None
    assert config.search.space["learning_rate"] == Range(low=1e-5, high=1e-3)
    with pytest.raises(ConfigError, match=r"search\.space"):
        RunConfig.from_dict({"search": {"space": {"dropout": {"low": "x", "high": 1}}}})
