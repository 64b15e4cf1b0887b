"""YAML 1.2 in every file that is read, and what is written reads back the same."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from metalayer import yaml12
from metalayer.core.config import PRESETS, MetaLayerConfig
from metalayer.errors import ConfigError
from metalayer.settings.run import RunConfig
from metalayer.settings.search import Range, SearchConfig
from metalayer.settings.sections import GateConfig, SplitConfig, TrainConfig
from metalayer.workflows.ablate import chosen_variants

ROOT = Path(__file__).resolve().parents[1]
LAUGHS = "\n".join(["a: &a0 [1, 2]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
"""Aliases of aliases: 2 to the 40th values, where they are written out."""
FOLDERS = ("pipelines/configs", "pipelines/stacks", "metalayer/configs")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("1e-5", 1e-5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("'010'", "010"),
        ("[1, chrX, Y]", [1, "chrX", "Y"]),
        ("{a: {b: [1]}}", {"a": {"b": [1]}}),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
    ],
)
def test_values_of_the_core_schema(text: str, value: Any) -> None:
    found = yaml12.parse(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: a: given before, in line 1"),
        ("a: {b: 1, 'b': 2}", "b: given before"),
        ("a: 010", "line 1, column 4: 010: a number with zeros in front.*write 10, or '010'"),
        ("a: [-007]", "write -7"),
        ("a: .inf", "no finite number"),
        ("a: .NaN", "no finite number"),
        ("a: 1e999", "no finite number"),
        ("a: " + "9" * 5000, "5000 digits"),
        ("a: !!float 3", "a tag"),
        ("a: !!python/name:os.system", "a tag"),
        ("a: ! 3", "a tag"),
        ("!!map {a: 1}", "a tag"),
        ("b: *x", "undefined alias"),
        ("a: &x [*x]", "more than 100,000 values"),
        (LAUGHS, "more than 100,000 values"),
        ("<<: {a: 1}", "merged keys"),
        ("[1, 2]: 3", "a key is a word"),
        ("a: 1\n---\na: 2", "document"),
        ("a:\n\tb: 1", "line 2"),
        ("a: [1", "line"),
        ("a: b: c", "line 1"),
        ("a: \x00", "unacceptable character"),
        ("[" * 5000, "."),
    ],
)
def test_what_two_readers_would_take_differently_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        yaml12.parse(text)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml: "):
        RunConfig.load(tmp_path / "run.yaml")
    if "\n" not in text:
        with pytest.raises(ConfigError, match="--set"):
            RunConfig.load(None, [f"train.max_epochs={text}"])


def test_files_are_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for data in (b"\xef\xbb\xbfgate: {margin: 0.5}\r\n", b"gate:\r\n  margin: 0.5\r\n"):
        file.write_bytes(data)
        assert RunConfig.load(file).gate.margin == 0.5
    file.write_bytes("gate:\n  margin: 0.5 # é".encode("latin-1"))
    with pytest.raises(ConfigError, match="line 2: byte 0xe9 is no UTF-8"):
        RunConfig.load(file)
    file.write_bytes("gate: {margin: 0.5}".encode("utf-16"))
    with pytest.raises(ConfigError, match="no UTF-8"):
        RunConfig.load(file)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", ["margin", "min_gain", "min_pr_auc_splice"])
def test_a_truth_value_opens_no_gate(name: str, given: bool) -> None:
    with pytest.raises(ConfigError, match=f"gate.{name}: given {given}; a truth value, where a number belongs"):
        GateConfig(**{name: given})
    gate = GateConfig()
    with pytest.raises(ConfigError, match="a truth value"):
        setattr(gate, name, given)
    assert gate == GateConfig()


def test_truth_values_are_taken_where_they_belong_alone() -> None:
    for section, field, given in (
        (SplitConfig, "test_chroms", [True, 1]),
        (SplitConfig, "by", True),
        (TrainConfig, "max_epochs", True),
        (TrainConfig, "embedding_cache", True),
        (MetaLayerConfig, "top_k_values", [10, True]),
        (MetaLayerConfig, "data_root", True),
        (SearchConfig, "n_trials", True),
    ):
        with pytest.raises(
            ConfigError, match=rf"{field}: given .*; a truth value, where (a number|text|a path) belongs"
        ):
            section(**{field: given})
    with pytest.raises(ConfigError, match="given True; a truth value"):
        RunConfig.from_dict({"score": {"model": True}})
    with pytest.raises(ConfigError, match="needs a number"):
        SearchConfig(space={"dropout": {"low": False, "high": 0.5}})
    with pytest.raises(ValueError, match="needs a number"):
        Range(low="0.1", high=0.5)
    assert SearchConfig(space={"score_encoder": [True, False]}).space == {"score_encoder": [True, False]}
    assert TrainConfig(balance_classes=True).balance_classes
    assert MetaLayerConfig(sequence_encoder_config={"freeze": True}).sequence_encoder_config == {"freeze": True}


def test_a_list_is_asked_for_with_one() -> None:
    with pytest.raises(ConfigError, match=r"split.test_chroms: given 1; needs a list, as in \[1, 3\]"):
        SplitConfig(test_chroms=1)
    with pytest.raises(ConfigError, match=r"top_k_values: given 10; needs a list, as in \[10, 50\]"):
        MetaLayerConfig(top_k_values=10)


def test_every_place_reads_by_these_rules(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text("dropout: 0.1\ndropout: 0.2\n")
    for read in (MetaLayerConfig.from_yaml, RunConfig.load, lambda path: chosen_variants([], path)):
        with pytest.raises(ConfigError, match="dropout: given before, in line 1"):
            read(twice)
    program = [path for folder in ("metalayer", "pipelines", "steps") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in program if "import yaml\n" in path.read_text()] == ["yaml12.py"]


@pytest.mark.parametrize(
    "path", [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.yaml"))], ids=str
)
def test_shipped_files_read_back_the_same(path: Path) -> None:
    values = yaml12.read_mapping(path)
    assert values
    written = yaml12.dump(values)
    assert yaml12.parse(written) == yaml.safe_load(written) == values
    if path.parent == PRESETS:
        config = MetaLayerConfig.from_yaml(path)
        assert MetaLayerConfig(**yaml12.parse(str(config))) == config
    elif path.parent.name == "configs":
        run = RunConfig.load(path)
        assert RunConfig.from_dict(yaml12.parse(str(run))) == run


def test_text_that_looks_like_something_else_is_quoted() -> None:
    words = [
        "yes",
        "on",
        "010",
        "1:30",
        "1_000",
        "1e5",
        "1e-5",
        ".inf",
        "0o17",
        "~",
        "",
        "2001-01-01",
        "a: b",
        "é",
        "=",
    ]
    values = {"list": words, **{word: word for word in words}, "numbers": [1e-5, 1e22, -3, 0.1, 5e-324], "none": None}
    written = yaml12.dump(values)
    assert yaml12.parse(written) == values
    assert yaml.safe_load(written) == values
    shared = [1, 2]
    assert yaml12.parse(yaml12.dump({"a": shared, "b": shared})) == {"a": shared, "b": shared}
    assert math.isclose(yaml12.parse(yaml12.dump(TrainConfig(learning_rate=1e-5).model_dump()))["learning_rate"], 1e-5)
