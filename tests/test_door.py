"""One kind of YAML and of `--set` for pipelines and the command line; the guide's flat names are taken at the door."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from metalayer import MetaLayerConfig, cli, yaml12
from metalayer.errors import ConfigError
from metalayer.settings.door import LIBRARY_ALONE, SECTION_OF
from metalayer.settings.flat import PRESETS
from metalayer.settings.run import RunConfig
from metalayer.workflows.ablate import chosen_variants

FLAT: dict[str, Any] = {
    "base_model": "pwm",
    "sequence_encoder_config": {"levels": 3},
    "hidden_dim": 64,
    "max_epochs": 3,
    "top_k_values": [10, 20],
}
SECTIONS: dict[str, Any] = {
    "data": {"base_model": "pwm"},
    "model": {"sequence_encoder_config": {"levels": 3}, "hidden_dim": 64},
    "train": {"max_epochs": 3},
    "evaluate": {"top_k_values": [10, 20]},
}


def written(folder: Path, values: Any) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml12.dump(values))
    return path


def test_a_file_is_read_alike_by_pipelines_and_the_command_line(tmp_path: Path) -> None:
    mixed = {**SECTIONS, "model": {"hidden_dim": 64}, "sequence_encoder_config": {"levels": 3}}
    for values in (FLAT, SECTIONS, mixed):
        path = written(tmp_path, values)
        assert MetaLayerConfig.from_yaml(path) == MetaLayerConfig(**FLAT)
        assert RunConfig.load(path) == RunConfig.from_dict(SECTIONS)


def test_every_flat_name_has_a_section_or_a_reason() -> None:
    assert {*SECTION_OF, *LIBRARY_ALONE} == set(MetaLayerConfig.model_fields)
    for name, section in SECTION_OF.items():
        kind = type(getattr(RunConfig(), section))
        assert name in kind.model_fields


def test_what_a_whole_run_wrote_trains_from_the_command_line_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunConfig.from_dict({**SECTIONS, "gate": {"margin": 0.1}})
    with caplog.at_level(logging.INFO):
        config = MetaLayerConfig.from_yaml(written(tmp_path, yaml12.parse(str(run))))
    assert config.given() == MetaLayerConfig(**FLAT).given()
    assert "not read here, as pipelines alone have these steps: " in caplog.text
    assert "gate" in caplog.text


@pytest.mark.parametrize(
    "values", [{"train": {"max_epochs": 3}, "max_epochs": 4}, {"max_epochs": 3, "train": {"max_epochs": 3}}]
)
def test_a_setting_in_both_forms_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    for read in (RunConfig.load, MetaLayerConfig.from_yaml):
        with pytest.raises(ConfigError, match=r"train\.max_epochs: given twice, also as max_epochs; leave one of them"):
            read(written(tmp_path, values))


def test_a_split_that_would_not_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"split: no effect here, where train_split, val_split and test_split draw"):
        MetaLayerConfig.from_yaml(written(tmp_path, {"split": {"test_chroms": [2]}}))
    assert MetaLayerConfig.from_yaml(written(tmp_path, {"split": None, "train": None})) == MetaLayerConfig()


def test_mistakes_of_a_file_name_its_settings(tmp_path: Path) -> None:
    values = {"train": {"max_epoch": 3, "dropout": 0.2}, "hiden_dim": 3, "model": {"dropout": 7}}
    with pytest.raises(ConfigError) as caught:
        MetaLayerConfig.from_yaml(written(tmp_path, values))
    for line in (
        "train.max_epoch: unknown key; did you mean 'max_epochs'?",
        "train.dropout: unknown key; did you mean 'dropout'?",
        "hiden_dim: unknown key; did you mean 'hidden_dim'?",
        "dropout: given 7",
    ):
        assert line in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        RunConfig.load(written(tmp_path, {"max_samples": 3, "max_epoch": 2, "hidden_dim": 3, "train_split": 0.5}))
    for line in (
        "max_samples: given 3; a pipeline trains on all rows; leave it out",
        "train_split: given 0.5; a pipeline divides the genes as its section split says; leave it out",
        "max_epoch: unknown section; did you mean 'max_epochs'?",
        "model.hidden_dim: given 3",
    ):
        assert line in str(caught.value)
    with pytest.raises(ConfigError, match="train: given 3; a section holds keys and values"):
        MetaLayerConfig.from_yaml(written(tmp_path, {"train": 3}))
    with pytest.raises(ConfigError, match="train: given 3; a section holds keys and values"):
        RunConfig.load(written(tmp_path, {"train": 3, "max_epochs": 3}))


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_configures_a_pipeline(preset: Path, tmp_path: Path) -> None:
    values = {name: value for name, value in yaml12.read_mapping(preset).items() if name not in LIBRARY_ALONE}
    run, config = RunConfig.load(written(tmp_path, values)), MetaLayerConfig.from_yaml(preset)
    for name in values:
        assert getattr(getattr(run, SECTION_OF[name]), name) == getattr(config, name)


def test_variants_of_an_ablation_have_the_same_kind(tmp_path: Path) -> None:
    path = written(
        tmp_path, {"flat": {"hidden_dim": 64}, "deep": {"model": {"sequence_encoder_config": {"levels": 7}}}}
    )
    expected = {"flat": {"hidden_dim": 64}, "deep": {"sequence_encoder_config": {"levels": 7}}}
    assert chosen_variants([], path) == expected
    with pytest.raises(ConfigError, match=r"variant deep: .*train: given 3; a section holds keys and values"):
        chosen_variants([], written(tmp_path, {"deep": {"train": 3}}))


def test_one_kind_of_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["train.max_epochs=0", "model.dropout=7", "weight_decay=-1", "gate.margin=0.1", "train.max_epoch=3"]
    wrong = [part for setting in settings for part in ("--set", setting)]
    assert cli.main(["train", "--output-dir", str(tmp_path / "x"), *wrong]) == 2
    shown = capsys.readouterr().err
    for line in (
        "max_epochs: given 0",
        "dropout: given 7",
        "weight_decay: given -1",
        "gate.margin: unknown key",
        "train.max_epoch: unknown key; did you mean 'max_epochs'?",
    ):
        assert line in shown
    for text in ("max_epochs", "=3", "train.=3", ".max_epochs=3", "train.a.b=3"):
        assert cli.main(["train", "--output-dir", str(tmp_path / "x"), "--set", text]) == 2
        assert "section.key=value, as in train.max_epochs=3" in capsys.readouterr().err
