import copy
import pickle
from pathlib import Path

import pytest

from metalayer.core import MetaLayerConfig
from metalayer.errors import ConfigError
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import DataConfig, TrainConfig

CONFIGS = sorted((Path(__file__).parent.parent / "pipelines" / "configs").glob("*.yaml"))


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({"train": {"max_epoch": 3, "learning_rate": -1}, "spilt": {}, "gate": {"margin": "x"}})
    text = str(caught.value)
    assert "4 mistakes" in text
    assert "train.max_epoch: unknown key; did you mean 'max_epochs'?" in text
    assert "train.learning_rate: given -1" in text
    assert "did you mean 'split'" in text
    assert "gate.margin: given 'x'" in text


def test_assignment_is_checked() -> None:
    config = TrainConfig()
    config.batch_size = 16
    with pytest.raises(ConfigError, match="batch_size: given 0"):
        config.batch_size = 0
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        config.batch_siz = 3  # type: ignore[attr-defined]
    assert config.batch_size == 16


def test_chromosomes_may_be_numbers_and_carry_chr() -> None:
    assert RunConfig.from_dict({"split": {"test_chroms": [1, "chrX"]}}).split.test_chroms == ("1", "X")


def test_overrides_and_data_root() -> None:
    config = RunConfig.load(None, ["train.max_epochs=3", "split.valid_chroms=[2, 4]"], data_root=Path("there"))
    assert config.train.max_epochs == 3
    assert config.split.valid_chroms == ("2", "4")
    assert config.data.data_root == Path("there")
    flat = RunConfig.load(None, ["max_epochs=3", "sequence_encoder_config={levels: 2}", "top_k_values=[7]"])
    assert (flat.train.max_epochs, flat.evaluate.top_k_values) == (3, (7,))
    assert flat.model.sequence_encoder_config["levels"] == 2


@pytest.mark.parametrize("override", ["train.max_epochs", "margin=3", "train.=3", "train.a.b=3"])
def test_override_of_another_form_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        RunConfig.load(None, [override])


@pytest.mark.parametrize("text", [b"- a\n- b\n", b"a: [", b"3", b"data: {base_model: caf\xe9}"])
def test_files_that_are_no_configuration(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        RunConfig.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        RunConfig.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert RunConfig.load(path).data.base_model
    assert path.read_text().startswith("#")


def test_flat_configuration_has_every_field_of_its_sections() -> None:
    config = MetaLayerConfig(base_model="spliceai", max_epochs=2)
    assert isinstance(config, DataConfig)
    assert config.__dict__["max_epochs"] == 2
    assert len(config.get_feature_columns()) == 50
    with pytest.raises(ConfigError, match="2 mistakes"):
        MetaLayerConfig(max_epochs=0, frob=1)


@pytest.mark.parametrize("name", ["../x", "", "spliceai_", ".hidden", "x" * 49])
def test_a_base_model_name_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="base_model"):
        DataConfig(base_model=name)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("train", {"learning_rate": float("inf")}),
        ("train", {"max_grad_norm": float("nan")}),
        ("evaluate", {"top_k_values": [10, 0]}),
        ("train", {3: 4}),
    ],
)
def test_values_that_are_no_setting(section: str, values: dict) -> None:
    with pytest.raises(ConfigError, match=f"{section}."):
        RunConfig.from_dict({section: values})


def test_copies_check_options_of_their_own() -> None:
    config = MetaLayerConfig(sequence_encoder_config={"output_dim": 32})
    for copied in (copy.deepcopy(config), config.model_copy(), copy.copy(config), pickle.loads(pickle.dumps(config))):
        copied.sequence_encoder_config["freeze"] = True
        with pytest.raises(ConfigError, match="bogus"):
            copied.sequence_encoder_config["bogus"] = 1
        assert config.sequence_encoder_config == {"output_dim": 32}
