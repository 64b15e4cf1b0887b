"""How tables and models pass between steps, and what each step says of caching and retries."""

import io
import os
import random
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scored_genes import make_genes

from metalayer.errors import MetalayerError

pytestmark = pytest.mark.integration

CACHED = ("load_artifacts", "label", "split", "train")
NEVER_CACHED = ("evaluate", "gate", "register", "package", "promote", "report")
WITH_A_SERVICE = ("evaluate", "gate", "register", "package", "promote", "report")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    """The environment of a run, taken back afterwards."""
    from pipelines.environment import prepare

    before = dict(os.environ)
    os.environ["METALAYER_HOME"] = str(tmp_path / "state")
    prepare()
    yield
    os.environ.clear()
    os.environ.update(before)


class RemoteStore:
    """An artifact store that is no file system."""

    path = "s3://bucket"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def exists(self, uri: str) -> bool:
        return any(name == uri or name.startswith(f"{uri}/") for name in self.files)

    def remove(self, uri: str) -> None:
        del self.files[uri]

    def rmtree(self, uri: str) -> None:
        self.files = {name: data for name, data in self.files.items() if not name.startswith(f"{uri}/")}

    def open(self, uri: str, mode: str) -> Any:
        if "r" in mode:
            if uri not in self.files:
                raise FileNotFoundError(uri)
            data = io.BytesIO(self.files[uri])
        else:
            data = io.BytesIO()
            keep, closed = self.files, data.close

            def close() -> None:
                keep[uri] = data.getvalue()
                closed()

            data.close = close  # type: ignore[method-assign]
        return data if "b" in mode else io.TextIOWrapper(data, encoding="utf-8")

    def makedirs(self, uri: str) -> None:
        """Nothing to do: keys have no folders."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "rows.parquet"
    path.parent.mkdir()
    pl.DataFrame({"gene_id": ["A", "B"], "sequence": ["ACGT" * 100, "<b>"]}).write_parquet(path)
    return path


@pytest.fixture(params=["local", "remote"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    """URI and artifact store, on this disk and elsewhere."""
    if request.param == "remote":
        return "s3://bucket/rows", RemoteStore()
    from zenml.artifact_stores import LocalArtifactStore
    from zenml.artifact_stores.local_artifact_store import LocalArtifactStoreConfig
    from zenml.enums import StackComponentType
    from zenml.utils.time_utils import utc_now

    folder = tmp_path / "store"
    (folder / "rows").mkdir(parents=True)
    import uuid

    store = LocalArtifactStore(
        name="test",
        id=uuid.uuid4(),
        config=LocalArtifactStoreConfig(path=str(folder)),
        flavor="local",
        type=StackComponentType.ARTIFACT_STORE,
        user=None,
        created=utc_now(),
        updated=utc_now(),
    )
    return str(folder / "rows"), store


def test_table_round_trip(stores: tuple[str, Any], table: Path) -> None:
    from steps.materializers import TableMaterializer, TableRef

    given = TableRef.of(table)
    materializer = TableMaterializer(*stores)
    materializer.save(given)
    facts = materializer.extract_metadata(given)
    (page,) = materializer.save_visualizations(given)
    table.unlink()  # the step's folder goes
    found = materializer.load(TableRef)
    assert (found.sha256, found.rows, found.bytes) == (given.sha256, 2, given.bytes)
    assert pl.read_parquet(found.file)["gene_id"].to_list() == ["A", "B"]
    assert facts["columns"] == {"gene_id": "String", "sequence": "String"}
    assert materializer.compute_content_hash(given) == given.sha256
    with materializer.artifact_store.open(page, "r") as handle:
        text = handle.read()
    assert "2 rows, 2 columns" in text
    assert "&lt;b&gt;" in text  # escaped
    assert "... (400)" in text  # long values are cut


def test_absent_table(stores: tuple[str, Any], tmp_path: Path) -> None:
    from steps.materializers import TableMaterializer, TableRef

    given = TableRef.of(tmp_path / "none.parquet")
    materializer = TableMaterializer(*stores)
    materializer.save(given)
    assert materializer.extract_metadata(given) == {"present": False}
    found = materializer.load(TableRef)
    assert found.path is None
    with pytest.raises(MetalayerError, match="--no-cache"):
        _ = found.file


def test_changed_table_is_refused(stores: tuple[str, Any], table: Path) -> None:
    from steps.materializers import TableMaterializer, TableRef

    materializer = TableMaterializer(*stores)
    materializer.save(TableRef.of(table))
    with materializer.artifact_store.open(f"{stores[0]}/table.parquet", "wb") as handle:
        handle.write(b"other")
    with pytest.raises(MetalayerError, match="was changed or is damaged"):
        materializer.load(TableRef)


@pytest.mark.parametrize("name", ["data.json", "facts.json", "table.parquet", "model/model.json"])
def test_a_flipped_bit_of_a_steps_artifact_is_refused_or_changes_nothing(
    stores: tuple[str, Any], table: Path, tmp_path: Path, name: str
) -> None:
    """The split as ZenML stores what a step returns, a table and a model directory."""
    from zenml.materializers.materializer_registry import materializer_registry

    from steps.materializers import ModelRef, TableRef

    split = {"train": {"genes": ["A", "B"]}, "test": {"genes": ["C"], "classes": {"donor": 3}}, 1: None}
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "model.json").write_text('{"weights": 1}')
    given: Any = split if name == "data.json" else TableRef.of(table) if "model" not in name else ModelRef.of(bundle)
    materializer = materializer_registry[type(given)](*stores)
    materializer.save(given)

    def content() -> Any:
        found = materializer.load(type(given))
        return found if isinstance(found, dict) else {**vars(found), "path": None}

    before = content()
    with materializer.artifact_store.open(f"{stores[0]}/{name}", "rb") as handle:
        whole = handle.read()
    rng, refused = random.Random(16), 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        with materializer.artifact_store.open(f"{stores[0]}/{name}", "wb") as handle:
            handle.write(bytes(damaged))
        try:
            assert content() == before
        except MetalayerError as error:
            refused += 1
            assert "--no-cache" in str(error)
    assert refused > 40


@pytest.mark.parametrize("name", ["table.parquet", "facts.json"])
def test_lost_table_is_told(table: Path, stores: tuple[str, Any], name: str) -> None:
    from steps.materializers import TableMaterializer, TableRef

    materializer = TableMaterializer(*stores)
    materializer.save(TableRef.of(table))
    materializer.artifact_store.remove(f"{stores[0]}/{name}")
    with pytest.raises(MetalayerError, match="is gone from the artifact store"):
        materializer.load(TableRef)


def test_model_round_trip(stores: tuple[str, Any], tmp_path: Path) -> None:
    from steps.materializers import ModelMaterializer, ModelRef

    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"\0\1")
    given = ModelRef.of(directory)
    materializer = ModelMaterializer(*stores)
    materializer.save(given)
    found = materializer.load(ModelRef)
    assert found.sha256 == given.sha256
    assert found.path != directory
    assert {file.name: file.read_bytes() for file in found.path.iterdir()} == {
        "model.json": b"{}",
        "model.safetensors": b"\0\1",
    }
    with materializer.artifact_store.open(f"{stores[0]}/model/model.json", "wb") as handle:
        handle.write(b"[]")
    with pytest.raises(MetalayerError, match="was changed or is damaged"):
        materializer.load(ModelRef)


@pytest.mark.parametrize("name", [*CACHED, "search", "base_layer", *NEVER_CACHED])
def test_caching_and_retries(name: str) -> None:
    configuration = getattr(import_module(f"steps.{name}"), name).configuration
    assert configuration.enable_cache is (name not in NEVER_CACHED)
    key = configuration.cache_policy.cache_func
    assert (key is not None) is (name in NEVER_CACHED)
    assert (configuration.retry is not None) is (name in WITH_A_SERVICE)


def test_a_checkpoint_that_changes_in_its_place_is_trained_on() -> None:
    from metalayer.settings.network import ModelConfig
    from pipelines.training import train_step

    plain, language = (train_step(ModelConfig(sequence_encoder=name)).configuration for name in ("cnn", "hyenadna"))
    assert plain.enable_cache is True
    assert plain.cache_policy.cache_func is None
    assert language.enable_cache is False
    assert language.cache_policy.cache_func.import_path == "steps.policy.new_key"


def test_never_the_same_key() -> None:
    from steps.policy import NEVER_CACHED as POLICY
    from steps.policy import new_key

    assert POLICY.cache_func.import_path == "steps.policy.new_key"
    assert new_key() != new_key()


def test_pipeline_names_its_steps() -> None:
    from pipelines.training import CACHED as CACHED_STEPS
    from pipelines.training import STEPS

    assert CACHED_STEPS == CACHED
    assert (*CACHED, *NEVER_CACHED) == STEPS


def test_checkpoints_outlive_the_attempt(stores: tuple[str, Any], tmp_path: Path) -> None:
    """As training writes them: an attempt that is cut off, one that goes on from it, and the end."""
    from metalayer.settings.run import RunConfig
    from metalayer.settings.sections import TrainConfig
    from metalayer.training.checkpoint import LAST
    from steps import checkpoints

    class CutOff(Exception):
        pass

    _, store = stores
    config = RunConfig(data={"base_model": "pwm"}, train=TrainConfig(seed=1))
    key = checkpoints.key(config, "data", "code")
    with pytest.raises(CutOff), checkpoints.kept(store, key, tmp_path / "first") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LAST).write_bytes(b"epoch 3")
        raise CutOff
    config.gate.margin = 0.5  # shapes no model
    assert checkpoints.key(config, "data", "code") == key
    config.train.seed = 2
    other = checkpoints.key(config, "data", "code")
    assert len({key, other, checkpoints.key(config, "data", "new"), checkpoints.key(config, "new", "code")}) == 4
    with checkpoints.kept(store, other, tmp_path / "other") as folder:
        assert not (folder / LAST).exists()
    with checkpoints.kept(store, key, tmp_path / "second") as folder:
        assert (folder / LAST).read_bytes() == b"epoch 3"
    checkpoints.drop(store, key)
    checkpoints.drop(store, key)
    with checkpoints.kept(store, key, tmp_path / "third") as folder:
        assert not (folder / LAST).exists()
    searched = checkpoints.key(config, "data", "code", searched=True)
    assert searched != other
    config.search.n_trials = 7  # shapes no model, but the search
    assert checkpoints.key(config, "data", "code") == other
    assert checkpoints.key(config, "data", "code", searched=True) != searched
    for attempt in ("fourth", "fifth"):
        with checkpoints.kept(store, searched, tmp_path / attempt, "search.db") as folder:
            folder.mkdir(parents=True, exist_ok=True)
            assert (folder / "search.db").exists() == (attempt == "fifth")
            (folder / "search.db").write_bytes(b"two trials")


def test_a_store_that_fails_stops_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from metalayer.training.checkpoint import LAST
    from steps import checkpoints

    class Full(RemoteStore):
        def open(self, uri: str, mode: str) -> Any:
            raise OSError("the bucket is full")

    store = Full()
    with checkpoints.kept(store, "key", tmp_path / "folder") as folder:
        (folder / LAST).write_bytes(b"epoch 1")
    assert "the checkpoint is not in the store: OSError: the bucket is full" in caplog.text
    assert not store.files
    store.exists = lambda _: 1 / 0  # type: ignore[method-assign]
    checkpoints.drop(store, "key")  # a run that has come to its end does not fail over it
    assert "checkpoints/key is left in the store: ZeroDivisionError" in caplog.text


def test_step_folder_starts_empty() -> None:
    from steps import workspace

    folder = workspace.step_dir("train")
    (folder / "half").write_text("")
    assert not list(workspace.step_dir("train").iterdir())
    workspace.clear()
    assert not folder.exists()


def test_every_metric_of_a_report_has_a_name_that_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name

    from metalayer.evaluation.report import evaluate
    from metalayer.settings.sections import EvaluateConfig
    from steps import tracking

    report = evaluate(make_genes(), EvaluateConfig(n_bootstrap=100))
    flat = tracking.test_metrics({"primary": "positions", "positions": report, "rows": None})
    for who in ("base", "meta", "difference"):
        for metric in ("ap_donor", "precision_at_recall90_splice", "precision_at_recall95_acceptor", "ece"):
            assert {f"{who}_{metric}", f"{who}_{metric}_low"} <= flat.keys()
    assert {f"meta_calibration_slope{end}" for end in ("", "_low", "_high")} <= flat.keys()
    for name in flat:
        _validate_metric_name(name)
