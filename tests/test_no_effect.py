"""Settings that cannot act beside the others are refused when the configuration is built; what is dumped is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from metalayer import cli
from metalayer.core import MetaLayerConfig
from metalayer.errors import ConfigError
from metalayer.settings.no_effect import NEEDS
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import TrainConfig
from metalayer.workflows.gated import check_head
from metalayer.workflows.train_genes import train_on_scores

ROWS: dict[str, Any] = {}
GENES = {"train": {"training_unit": "genes"}}
TRACKS_ALONE = {
    "model": {"sequence_encoder": "none", "score_encoder": False, "track_encoder": "stages"},
    "train": {"training_unit": "genes"},
}
FROZEN = {"sequence_encoder": "hyenadna", "sequence_encoder_config": {"model_size": "tiny", "freeze": True}}
CASES: list[tuple[str, Any, dict[str, Any], str, dict[str, Any]]] = [
    # setting, value, beside what it has no effect, what the message names, beside what it acts
    ("train.crop_bp", 4096, ROWS, "training_unit", GENES),
    ("train.crop_bp", 2048, ROWS, "training_unit", GENES),  # the default, named by a person
    ("train.batch_crops", 4, ROWS, "training_unit", GENES),
    ("train.easy_share", 0.5, ROWS, "training_unit", GENES),
    ("train.exon_loss", 1.0, ROWS, "training_unit", TRACKS_ALONE),
    ("train.exon_loss", 1.0, GENES, "track_encoder", TRACKS_ALONE),
    ("train.augment_tracks", True, ROWS, "training_unit", TRACKS_ALONE),
    ("train.augment_tracks", True, GENES, "score_encoder", TRACKS_ALONE),
    (
        "train.augment_tracks",
        True,
        {**GENES, "model": {**FROZEN, "score_encoder": False}},
        "frozen language model",
        TRACKS_ALONE,
    ),
    ("train.batch_size", 32, GENES, "batch_crops", ROWS),
    ("train.balance_classes", True, GENES, "training_unit", ROWS),
    ("model.track_encoder", "stages", ROWS, "training_unit", GENES),
    ("model.track_dropout", 0.2, GENES, "track_encoder", {**GENES, "model": {"track_encoder": "stages"}}),
    ("model.track_dropout", 0.2, TRACKS_ALONE, "score or sequence", {**GENES, "model": {"track_encoder": "stages"}}),
    ("model.context_bp", 9001, GENES, "track_encoder", {**GENES, "model": {"track_encoder": "stages"}}),
    ("model.hidden_dim", 64, TRACKS_ALONE, "score or sequence encoder", ROWS),
    ("model.dropout", 0.2, TRACKS_ALONE, "score or sequence encoder", ROWS),
    ("model.fusion", "concat", TRACKS_ALONE, "score or sequence encoder", ROWS),
    ("model.base_dropout", True, GENES, "head network", {**GENES, "model": {"head": "stack"}}),
    ("model.evidence_dropout", 0.2, ROWS, "evidence", {**GENES, "data": {"evidence": {"a": "a.bw"}}}),
    ("train.embedding_cache", "folder", ROWS, "sequence_encoder", {"model": FROZEN}),
    ("train.additional_rate_share", 0.2, ROWS, "additional_epochs", {}),
    ("data.splicevardb_path", "x.tsv", ROWS, "variant_source", {"data": {"variant_source": "splicevardb"}}),
    ("data.variant_radius_bp", 3, ROWS, "variant_source", {"data": {"variant_source": "splicevardb"}}),
    ("split.test_chroms", [1], {"split": {"by": "gene"}}, "by", ROWS),
    ("split.valid_chroms", [2], {"split": {"by": "gene"}}, "by", ROWS),
    ("split.train_chroms", [2], {"split": {"by": "gene"}}, "by", ROWS),
    ("split.test_fraction", 0.1, ROWS, "by", {"split": {"by": "gene"}}),
    ("split.valid_fraction", 0.1, {"split": {"valid_chroms": [2]}}, "valid_chroms", ROWS),
    ("gate.min_gain", 0.01, {"gate": {"require_better_than_base": False}}, "require_better_than_base", ROWS),
]

STACK: dict[str, Any] = {"head": "stack", "training_unit": "genes"}
BESIDE_A_STACK: dict[str, Any] = {
    "sequence_encoder": "cnn",
    "sequence_encoder_config": {"num_filters": 8},
    "score_encoder": True,
    "track_encoder": "stages",
    "track_encoder_config": {"channels": 8},
    "hidden_dim": 64,
    "dropout": 0.2,
    "fusion": "gated",
    "track_dropout": 0.2,
    "context_bp": 9001,
    "exon_loss": 1.0,
    "warmup_fraction": 0.1,
    "early_stopping_metric": "loss",
    "learning_rate": 0.01,
    "max_epochs": 3,
    "patience": 3,
    "weight_decay": 0.1,
    "crop_bp": 4096,
    "batch_crops": 4,
    "easy_share": 0.5,
    "weight_average": 0.9,
    "augment_tracks": True,
}


def with_setting(sections: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    section, name = key.split(".")
    return {**sections, section: {**sections.get(section, {}), name: value}}


def flat(sections: dict[str, Any]) -> dict[str, Any]:
    return {name: value for section in sections.values() for name, value in section.items()}


@pytest.mark.parametrize(("key", "value", "beside", "named", "acts_beside"), CASES)
def test_a_setting_that_cannot_act_is_refused_and_one_that_acts_is_not(
    key: str, value: Any, beside: dict[str, Any], named: str, acts_beside: dict[str, Any]
) -> None:
    wrong = with_setting(beside, key, value)
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(wrong)
    text = str(caught.value)
    assert text.startswith(f"configuration: {key}: given ")
    assert named in text.split("no effect", 1)[1]
    is_flat = key.split(".", maxsplit=1)[0] in ("data", "model", "train") and key != "train.additional_rate_share"
    if is_flat:
        with pytest.raises(ConfigError, match=f"{key.split('.')[1]}: given .*no effect"):
            MetaLayerConfig(**flat(wrong))
    if not acts_beside and key == "train.additional_rate_share":
        assert MetaLayerConfig(additional_rate_share=value).additional_rate_share == value
        return
    right = with_setting(acts_beside, key, value)
    config = RunConfig.from_dict(right)
    again = RunConfig.from_dict(config.model_dump(mode="json"))  # as from step to step
    assert again.model_dump() == config.model_dump()
    if is_flat:
        assert MetaLayerConfig(**MetaLayerConfig(**flat(right)).model_dump()) == MetaLayerConfig(**flat(right))


def test_every_need_has_a_case() -> None:
    cases = {key.split(".")[1] for key, *_ in CASES} | {"head", *BESIDE_A_STACK}
    assert {setting.split(".")[1] for need in NEEDS for setting in need.settings} <= cases


@pytest.mark.parametrize(("name", "value"), BESIDE_A_STACK.items())
def test_a_setting_of_networks_beside_a_stack_alone(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}: given .*no effect with head stack"):
        MetaLayerConfig(**STACK, **{name: value})


def test_a_stack_is_of_whole_genes() -> None:
    config = MetaLayerConfig(**STACK)
    assert MetaLayerConfig(**config.model_dump()) == config
    with pytest.raises(ConfigError, match="head: given 'stack'; no effect with training_unit rows"):
        MetaLayerConfig(head="stack")
    with pytest.raises(ConfigError, match=r"model.head: given 'stack'; no effect with training_unit rows"):
        RunConfig.from_dict({"model": {"head": "stack"}})
    assert RunConfig.from_dict({"model": {"head": "stack"}, **GENES}).model.head == "stack"


def test_several_base_models_have_one_name() -> None:
    assert MetaLayerConfig(base_model=["a", "b"]).base_model == "a+b"
    for given in ({"base_model": ["a", "b"]}, {"base_models": ["a", "b"]}, {"base_models": "a+b"}):
        assert RunConfig.from_dict({"data": given}).data.base_model == "a+b"
    with pytest.raises(ConfigError, match=r"data.base_models: unknown key"):
        RunConfig.from_dict({"data": {"base_models": ["a", "b"], "base_model": "a"}})
    check_head("stack", "a+b")
    check_head("network", "a")
    with pytest.raises(ConfigError, match=r"model.head: given network with base models a, b, .* to stack, or to both"):
        check_head("network", "a+b")


def test_they_are_told_with_all_other_mistakes() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(
            {
                "train": {"crop_bp": 4096, "max_epoch": 3, "learning_rate": -1, "exon_loss": 1.0},
                "model": {"track_encoder": "stages"},
                "split": {"test_fraction": 0.1, "valid_chroms": [1]},
                "data": {"variant_radius_bp": 2},
            }
        )
    text = str(caught.value)
    assert "8 mistakes" in text
    for key in ("train.crop_bp", "train.max_epoch:", "train.learning_rate", "train.exon_loss", "model.track_encoder"):
        assert text.count(f"  {key}") == 1, key
    with pytest.raises(ConfigError, match="2 mistakes"):
        MetaLayerConfig(crop_bp=4096, max_epochs=0)


def test_assignment_is_checked_and_undone() -> None:
    config = MetaLayerConfig(batch_size=16)
    before = config.model_dump(exclude_unset=True)
    for name, value in (("crop_bp", 4096), ("training_unit", "genes"), ("context_bp", 100), ("max_epochs", 0)):
        with pytest.raises(ConfigError, match="given"):
            setattr(config, name, value)
        assert config.model_dump(exclude_unset=True) == before
    train = TrainConfig()
    train.training_unit = "genes"
    train.crop_bp = 4096
    with pytest.raises(ConfigError, match=r"train\.batch_size: given 8; no effect with training_unit genes"):
        train.batch_size = 8


@pytest.mark.parametrize("sections", [ROWS, GENES, TRACKS_ALONE, {"split": {"by": "gene"}}])
def test_what_is_written_is_read_again(sections: dict[str, Any]) -> None:
    """By ZenML between steps, from checkpoints, `config.yaml`, `best.yaml` and model.json: whole sections."""
    run = RunConfig.from_dict(sections)
    for again in (
        RunConfig(**json.loads(run.model_dump_json())),
        RunConfig.from_dict(yaml.safe_load(str(run))),
        RunConfig(train=run.train, model=run.model, split=run.split, data=run.data),
    ):
        assert again.model_dump() == run.model_dump()
    parts = {name: section for name, section in sections.items() if name != "split"}
    config = MetaLayerConfig(**flat(parts))
    assert MetaLayerConfig(**yaml.safe_load(str(config))) == config
    assert not set(config.idle()) & set(yaml.safe_load(str(config)))  # a line less does not make it another
    assert MetaLayerConfig(**{**config.model_dump(), "max_epochs": 3}).max_epochs == 3


def test_pairs_that_were_refused_after_the_data_were_loaded() -> None:
    with pytest.raises(ConfigError, match=r"split\.valid_chroms: chromosome 1 is in test_chroms too"):
        RunConfig.from_dict({"split": {"valid_chroms": [1]}})
    with pytest.raises(ConfigError, match=r"test_fraction: 1 with valid_fraction; less than 1"):
        RunConfig.from_dict({"split": {"by": "gene", "test_fraction": 0.5, "valid_fraction": 0.5}})
    letters = {"track_encoder": "stages", "track_encoder_config": {"letters": True}}
    with pytest.raises(ConfigError, match=r"letters: given true beside a language model"):
        RunConfig.from_dict({**GENES, "model": {**FROZEN, **letters}})


def test_training_on_scores_refuses_what_it_does_not_read() -> None:
    values = {"variant_source": "splicevardb", "splicevardb_path": "x.tsv", "max_samples": 3, "max_epochs": 0}
    with pytest.raises(ConfigError) as caught:
        MetaLayerConfig.for_scores(values, separate=False)
    for part in ("4 mistakes", "variant_source: does not go with --scores", "max_epochs: given 0"):
        assert part in str(caught.value)
    assert MetaLayerConfig.for_scores({"crop_bp": 64, "val_split": 0.2}, separate=False).training_unit == "genes"
    with pytest.raises(ConfigError, match=r"val_split: does not go with --valid-scores"):
        MetaLayerConfig.for_scores({"val_split": 0.2}, separate=True)


def test_what_an_object_was_given_is_told_from_its_defaults(tmp_path: Path) -> None:
    """Of the library's call, which gets an object: what was not named is not refused."""
    given = MetaLayerConfig(training_unit="rows", max_samples=5, max_epochs=2)
    for config in (given, MetaLayerConfig(variant_source="splicevardb")):
        with pytest.raises(ConfigError, match="does not go with --scores"):
            train_on_scores([], [], config, tmp_path)
    assert given.given() == {"training_unit": "rows", "max_samples": 5, "max_epochs": 2}
    assert MetaLayerConfig(**given.model_dump()).given() == {"max_samples": 5, "max_epochs": 2}
    assert (
        MetaLayerConfig.for_scores(MetaLayerConfig(score_encoder=False).given(), separate=True).score_encoder is False
    )


def test_a_preset_gives_way_to_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`hyenadna` names a batch of rows: with genes that is no mistake of the one who asks for genes."""
    command = ["train", "--config", "hyenadna", "--output-dir", str(tmp_path), "--set", "training_unit=genes"]
    assert cli.main([*command, "--set", "device=cpu", "--set", "crop_bp=3"]) == 2
    assert capsys.readouterr().err.count("given") == 1
    assert cli.main([*command, "--set", "batch_size=4"]) == 2
    assert "batch_size: given 4; no effect with training_unit genes" in capsys.readouterr().err


def test_a_search_space_is_judged_with_the_rest() -> None:
    space: dict[str, Any] = {
        "crop_bp": [1024, 4096],
        "dropout": [0.1, 1.5],
        "hidden_dims": [8],
        "fusion": {"low": 0, "high": 1},
        "batch_size": [16, 32],
    }
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({"search": {"space": space}, "split": {"valid_fraction": 2}})
    text = str(caught.value)
    assert "6 mistakes" in text
    for value in (1024, 4096):
        assert f"search.space.crop_bp: given {value}; no effect with training_unit rows" in text
    for part in ("dropout: given 1.5", "hidden_dims: is no setting", "fusion: given (0, 1)", "split.valid_fraction"):
        assert part in text, part
    sections = {"search": {"space": {"track_encoder": ["none", "stages"], "exon_loss": [0.1, 1.0]}}, **GENES}
    assert RunConfig.from_dict(RunConfig.from_dict(sections).model_dump(mode="json")).search.space
    with pytest.raises(ConfigError, match=r"search\.space\.exon_loss: given -1"):
        RunConfig.from_dict(with_setting(sections, "search.space", {"track_encoder": ["stages"], "exon_loss": [-1]}))
    with pytest.raises(ConfigError, match=r"search\.space\.track_encoder: given 'stages'; no effect"):
        RunConfig.from_dict({"search": sections["search"]})


def test_parts_of_a_network_that_do_not_fit_are_found_before_the_first_step(tmp_path: Path) -> None:
    from pipelines import configuration, run

    genes = ("train.training_unit=genes", "model.track_encoder=stages", "model.context_bp=100")
    asked = [part for setting in genes for part in ("--set", setting)]
    options = run._parser().parse_args(asked)
    config = configuration.read(options, tmp_path).config
    with pytest.raises(ConfigError, match=r"context_bp: given 100; the track encoder reads"):
        run._check(config, options)
