"""Options of a network's parts: one home each, refused alike at every door, and a dictionary to the guide's users."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metalayer import MetaLayerConfig, cli, yaml12
from metalayer.errors import ConfigError, MetalayerError
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model, save_model
from metalayer.models.description import DESCRIPTION, read_description
from metalayer.settings.encoders import KINDS, CnnOptions, Options, StageOptions, needs, read_options
from metalayer.settings.network import ModelConfig, Network
from metalayer.settings.run import RunConfig
from tests.releases import rewrite

ROOT = Path(__file__).resolve().parents[1]
TYPES = [kind for kinds in KINDS.values() for kind in kinds.values()]
EVERY = [(kind, name) for kind in TYPES for name in kind.names()]
PAGE = (ROOT / "docs" / "language_models.md").read_text("utf-8") + (ROOT / "docs" / "training.md").read_text("utf-8")

WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"sequence_encoder": "cnn", "sequence_encoder_config": {"levels": 99, "kernel_size": [3]}},
        [
            "sequence_encoder_config.levels: given 99; needs a whole number from 0 to 12",
            "sequence_encoder_config.kernel_size: unknown option of encoder 'cnn'; did you mean 'kernel_sizes'? "
            "allowed are kernel_sizes, num_filters, output_dim, levels, freeze",
        ],
    ),
    (
        {"sequence_encoder": "hyenadna", "sequence_encoder_config": {"stride_bp": 96, "freeze": "yes"}},
        [
            "sequence_encoder_config.stride_bp: given 96; needs a power of two from 1 to 8192, so that blocks of a "
            "gene fit together",
            "sequence_encoder_config.freeze: given 'yes'; needs true or false",
        ],
    ),
    (
        {"sequence_encoder": "huggingface", "sequence_encoder_config": {"model": "me/mine"}},
        ["sequence_encoder_config.revision: missing; the hub id 'me/mine' needs the commit to use, 40 hex digits"],
    ),
    (
        {"sequence_encoder": "none", "sequence_encoder_config": {"output_dim": 3}},
        ["sequence_encoder_config.output_dim: unknown option of encoder 'none'; allowed are freeze"],
    ),
    (
        {"sequence_encoder": "hyena"},
        ["sequence_encoder: given 'hyena'; did you mean 'hyenadna'? allowed are cnn, hyenadna, huggingface, none"],
    ),
    (
        {"sequence_encoder_config": 3},
        ["sequence_encoder_config: given 3; needs options by name, as in {freeze: true}"],
    ),
    (
        {"track_encoder": "stages", "track_encoder_config": {"distances": [5, 5], "dropout": 1}},
        [
            "track_encoder_config.distances: given [5, 5]; needs two or more ascending whole distances in bp from 1 to "
            "100000, as in [1, 10, 100]",
            "track_encoder_config.dropout: given 1; needs a share from 0 to below 1",
        ],
    ),
    (
        {"track_encoder": "none", "track_encoder_config": {"stages": 2}},
        ["track_encoder_config.stages: unknown option of encoder 'none'; it takes none"],
    ),
    ({"fusion": "gate"}, ["fusion: given 'gate'; did you mean 'gated'? allowed are concat, gated, cross_attention"]),
    (
        {"fusion": "cross_attention", "sequence_encoder": "none"},
        ["fusion: given 'cross_attention' with sequence_encoder 'none'; it attends to the encoder's features"],
    ),
    ({"hidden_dim": 7}, ["hidden_dim: given 7; input should be greater than or equal to 8"]),
    ({"hidden": 64}, ["hidden: unknown key; did you mean 'hidden_dim'?"]),
]


def train_settings(network: dict[str, Any]) -> dict[str, Any]:
    """What makes the network's settings act."""
    return {"training_unit": "genes"} if network.get("track_encoder") == "stages" else {}


def constructor(network: dict[str, Any], folder: Path) -> None:
    MetaSpliceModel(**network)


def model_directory(network: dict[str, Any], folder: Path) -> None:
    save_model(MetaSpliceModel(hidden_dim=16), folder / "m", {})
    rewrite(folder / "m" / DESCRIPTION, model={**read_description(folder / "m")["model"], **network})
    load_model(folder / "m")


def flat(network: dict[str, Any], folder: Path) -> None:
    MetaLayerConfig(**train_settings(network), **network)


def assignment(network: dict[str, Any], folder: Path) -> None:
    config = MetaLayerConfig(**train_settings(network))
    for name, value in network.items():
        setattr(config, name, value)


def flat_file(network: dict[str, Any], folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml12.dump({**train_settings(network), **network}))
    MetaLayerConfig.from_yaml(folder / "c.yaml")


def file_with_sections(network: dict[str, Any], folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml12.dump({"train": train_settings(network), "model": network}))
    MetaLayerConfig.from_yaml(folder / "c.yaml")


def file_of_a_pipeline(network: dict[str, Any], folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml12.dump({"train": train_settings(network), "model": network}))
    RunConfig.load(folder / "c.yaml")


def flow(value: Any) -> str:
    return repr(value).replace("True", "true").replace("'", '"')


def set_of_a_pipeline(network: dict[str, Any], folder: Path) -> None:
    settings = {"train": train_settings(network), "model": network}
    RunConfig.load(None, [f"{s}.{name}={flow(v)}" for s, values in settings.items() for name, v in values.items()])


DOORS: list[Callable[[dict[str, Any], Path], None]] = [
    constructor,
    model_directory,
    flat,
    assignment,
    flat_file,
    file_with_sections,
    file_of_a_pipeline,
    set_of_a_pipeline,
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize(("network", "lines"), WRONG, ids=[str(index) for index in range(len(WRONG))])
def test_every_door_refuses_the_same_value_in_the_same_words(
    network: dict[str, Any], lines: list[str], door: Callable[[dict[str, Any], Path], None], tmp_path: Path
) -> None:
    with pytest.raises(MetalayerError) as caught:
        door(network, tmp_path)
    shown = str(caught.value).replace("model.", "")
    for line in lines if door is not assignment else lines[:1]:  # the guide's users assign one after the other
        assert line in shown


@pytest.mark.parametrize("section", ["", "model."])
@pytest.mark.parametrize(("network", "lines"), WRONG[:2], ids=["cnn", "hyenadna"])
def test_the_command_line_refuses_it_too(
    network: dict[str, Any], lines: list[str], section: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for name, value in network.items() for part in ("--set", f"{section}{name}={flow(value)}")]
    assert cli.main(["train", "--output-dir", str(tmp_path / "x"), *settings]) == 2
    shown = capsys.readouterr().err
    assert all(line in shown for line in lines)


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{kind.setting}-{kind.encoder}-{name}" for kind, name in EVERY])
def test_every_option_says_what_it_means_takes_and_is_by_default(kind: type[Options], name: str) -> None:
    field = kind.model_fields[name]
    assert field.description
    assert re.match(r"needs |allowed are ", needs(field))
    assert "_bp" not in name or "bp" in field.description  # its unit
    default = field.get_default(call_default_factory=True)
    given = {name: default, "revision": "0" * 40} if "revision" in kind.model_fields else {name: default}
    assert getattr(read_options(kind.setting, kind.encoder, given), name) == given[name]
    with pytest.raises(ConfigError, match=re.escape(f"{kind.setting}_config.{name}: given {{}}; {needs(field)}")):
        read_options(kind.setting, kind.encoder, {name: {}})


def test_the_listing_of_the_docs_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n([^`]*settings\.encoders import[^`]*)^```", PAGE, re.MULTILINE)
    exec(compile(block, "docs", "exec"), {"__name__": "docs"})
    shown = capsys.readouterr().out
    for kind, name in EVERY:
        field = kind.model_fields[name]
        line = f"  {name}: {needs(field)}; by default {field.default}. {' '.join((field.description or '').split())}"
        assert f"{kind.setting} {kind.encoder}" in shown
        assert line in shown.splitlines()


def test_options_read_and_write_like_a_dictionary_of_what_was_given() -> None:
    config = MetaLayerConfig(sequence_encoder_config={"kernel_sizes": (3, 5), "levels": 2})
    options = config.sequence_encoder_config
    assert options == {"levels": 2, "kernel_sizes": [3, 5]} == dict(options) == {**options}
    assert (len(options), list(options), "freeze" in options) == (2, ["kernel_sizes", "levels"], False)
    assert (options.get("freeze"), options.freeze, options["levels"]) == (None, False, 2)
    options["freeze"] = True
    assert options.setdefault("freeze", False) is True
    options |= {"num_filters": 8}
    del options["kernel_sizes"]
    assert options.pop("levels") == 2
    assert repr(options) == str(options) == "{'num_filters': 8, 'freeze': True}"
    assert options | {"freeze": False} == {"num_filters": 8, "freeze": False}
    with pytest.raises(KeyError):
        options["levels"]
    with pytest.raises(KeyError):
        del options["levels"]
    assert MetaSpliceModel(sequence_encoder_config=options).options["sequence_encoder_config"] == options


@pytest.mark.parametrize(
    "change",
    [
        lambda options: options.update(levels=3, num_filters=0),
        lambda options: options.update({"levels": 3, "level": 4}),
        lambda options: options.__setitem__("encoder", "none"),
        lambda options: setattr(options, "levels", 99),
        lambda options: options.setdefault("bogus", 1),
        lambda options: options.__ior__({"freeze": 1}),
    ],
)
def test_a_refused_change_changes_nothing(change: Callable[[Any], None]) -> None:
    config = ModelConfig(sequence_encoder_config={"levels": 2})
    with pytest.raises(ConfigError, match=r"sequence_encoder_config\.\w+: "):
        change(config.sequence_encoder_config)
    assert config.sequence_encoder_config == {"levels": 2}
    assert config.sequence_encoder_config.levels == 2


def test_two_configurations_share_no_options() -> None:
    given = {"levels": 2}
    first = ModelConfig(sequence_encoder_config=given)
    second = ModelConfig(sequence_encoder_config=first.sequence_encoder_config)
    third = pickle.loads(pickle.dumps(copy.copy(second)))
    for config in (second, third, RunConfig(model=first).model.model_copy()):
        config.sequence_encoder_config["levels"] = 4
    assert first.sequence_encoder_config == given == {"levels": 2}


def test_another_encoder_takes_the_options_that_it_has(caplog: pytest.LogCaptureFixture) -> None:
    config = ModelConfig(sequence_encoder_config={"levels": 2, "output_dim": 32, "freeze": True})
    config.sequence_encoder = "hyenadna"
    assert "encoder hyenadna has no option levels; dropped" in caplog.text
    assert config.sequence_encoder_config == {"output_dim": 32, "freeze": True}
    config.sequence_encoder_config["model_size"] = "tiny"
    with pytest.raises(ConfigError, match="language model is read at the labelled base alone"):
        config.fusion = "cross_attention"
    with pytest.raises(ConfigError, match="given 'cnnn'"):
        config.sequence_encoder = "cnnn"
    assert (config.sequence_encoder, config.fusion) == ("hyenadna", "concat")
    assert config.sequence_encoder_config == {"model_size": "tiny", "output_dim": 32, "freeze": True}


def test_help_needs_no_settings() -> None:
    code = (
        "import sys, metalayer.cli; metalayer.cli._parser(); "
        "sys.exit(bool({'torch', 'numpy', 'polars', 'pydantic', 'metalayer.settings'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_types_stand_for_themselves() -> None:
    assert CnnOptions(kernel_sizes=(3,)).kernel_sizes == [3]
    assert StageOptions().distances[-1] == 1200
    with pytest.raises(ConfigError, match="2 mistakes"):
        CnnOptions(levels=99, bogus=1)
    assert Network(sequence_encoder_config=None).sequence_encoder_config == {}
    assert MetaLayerConfig(fusion="cross-attention").fusion == "cross_attention"


@pytest.mark.integration
def test_zenml_goes_through_a_configuration_with_options() -> None:
    """It looks for placeholders in all text of a step's parameters, and takes each model for pairs."""
    from zenml.utils.string_utils import substitute_string

    options = {
        "model": {"track_encoder": "stages", "track_encoder_config": {"letters": True, "channels": 8}},
        "train": {"training_unit": "genes"},
    }
    config = RunConfig.from_dict(options | {"data": {"annotation_source": "of-{here}"}})
    found = substitute_string(config, lambda text: text.replace("{here}", "now"))
    assert found.data.annotation_source == "of-now"
    assert found.model == config.model
    assert found.model.given() == config.model.given() == options["model"]
    assert dict(config.model)["track_encoder_config"] == options["model"]["track_encoder_config"]
