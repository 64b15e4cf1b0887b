import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from releases import expected, make_bundle, make_champion, make_golden, rewrite, score_rows

from metalayer import cli
from metalayer.errors import ConfigError, InputError, ModelError, RegistryError
from metalayer.integrity import unsealed, write_json
from metalayer.models.description import content_of, digest
from metalayer.registry import bento, line
from metalayer.release import folder as folder_module
from metalayer.release.answer import BASE_COLUMNS, ROW_COLUMNS_WITH_BASE
from metalayer.release.folder import RUNTIME, not_installed, read_facts, release_digest, runtime
from metalayer.schema import BASE_SCORES, CLASSES
from metalayer.serving import champion
from tests import checkpoints
from tests.servers import free_port, wait_until_ready

pytestmark = pytest.mark.integration
NAME = "metalayer-pwm"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of its own, and another working directory, which must stay empty."""
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "state"))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "BENTOML_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


@pytest.fixture
def model(home: Path) -> tuple[Path, Path]:
    bundle = make_bundle(home / "bundle")
    return bundle, make_golden(bundle, home / "golden.parquet")


def test_the_life_of_a_champion(home: Path, model: tuple[Path, Path]) -> None:
    import mlflow

    from metalayer.registry import download, registration, tracking, versions

    bundle, golden = model
    uri = tracking.default_tracking_uri()
    assert versions.champions() == []
    assert versions.find_champion(NAME) is None
    assert not (home / "state").exists()

    # A rejected model is a challenger, never a champion.
    rejected = registration.register(bundle, golden, base_model="pwm", promoted=False, reasons=["not better than base"])
    assert (rejected.name, rejected.version, rejected.alias) == (NAME, 1, "challenger")
    assert versions.find_champion(NAME) is None
    with pytest.raises(InputError, match="run the pipeline"):
        champion.champion_bento()

    # One that passed the gate is none yet either: it has no Bento.
    facts = {
        "reasons": ["floor met"],
        "metrics": {"pr_auc_splice": 0.9, "topk_donor": float("nan"), "ece": None},
        "tags": {"pipeline_run": "r1"},
    }
    first = registration.register(bundle, golden, base_model="pwm", promoted=True, **facts)
    assert (first.version, first.alias) == (2, None)
    assert versions.find_champion(NAME) is None
    again = registration.register(bundle, golden, base_model="pwm", promoted=True, run_id=first.run_id, **facts)
    assert again == first  # a step that is tried again
    line.move(line.read(NAME), [2])
    client = mlflow.MlflowClient(uri, uri)
    assert client.get_run(first.run_id).data.metrics == {"pr_auc_splice": 0.9}
    assert client.get_model_version_by_alias(NAME, "challenger").version == 1

    # The version leads back to its data, and its files come back whole.
    local = download.fetch(NAME, 2, None, home / "downloads")
    assert digest(local.bundle) == digest(bundle)
    assert local.digest == release_digest(local.bundle, local.golden) != digest(bundle)
    assert local.tags["content"] == content_of(bundle)
    assert local.golden.read_bytes() == golden.read_bytes()
    assert local.tags["data_hash"] == "d4t4"
    assert local.tags["git_commit"] == "c0ffee"
    assert local.tags["pipeline_run"] == "r1"
    assert local.tags["decision"] == "promoted"
    assert json.loads(local.tags["reasons"]) == ["floor met"]
    assert len(local.tags["schema_hash"]) == 16

    # Nothing of it is pickle, or bytecode, which MLflow leaves beside a model's code where it loads it.
    stored = [path.name for path in (home / "state" / "mlartifacts").rglob("*")]
    assert not [name for name in stored if name.endswith((".pkl", ".pyc"))]
    assert "metalayer" in stored

    # What MLflow serves equals the predictor.
    rows = score_rows(5)
    frame = pl.DataFrame(rows).to_pandas()
    mlflow.set_tracking_uri(uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
        answers = loaded.predict(frame)
        middle = loaded.predict(frame.drop(columns="index"))
        both = loaded.predict(frame, params={"base": True})
        example = loaded.input_example
        with pytest.raises(Exception, match="5 mistakes"):
            loaded.predict(frame.assign(donor_score=2.0))
    finally:
        mlflow.set_tracking_uri(None)
    assert list(answers.columns) == list(CLASSES)
    assert np.array_equal(answers.to_numpy().astype(np.float32), expected(bundle, rows))
    assert not np.array_equal(middle.to_numpy(), answers.to_numpy())
    assert list(both.columns) == list(ROW_COLUMNS_WITH_BASE)
    assert both[list(CLASSES)].equals(answers)
    assert both[list(BASE_COLUMNS)].to_numpy() == pytest.approx(frame[list(BASE_SCORES)].to_numpy(), abs=1e-7)
    assert len(example) == 3
    signature = loaded.metadata.signature
    assert signature.inputs.input_names()[0] == "sequence"
    assert signature.inputs.optional_input_names() == ["index"]
    assert signature.outputs.input_names() == list(CLASSES)

    # The next champion stands after the one before it, which stays there.
    make_champion(bundle, golden)
    now = versions.find_champion(NAME)
    assert now is not None
    assert now.version == 3
    assert now.tags["metrics"] == "{}"
    assert line.read(NAME).history == (2, 3)
    assert download.fetch(NAME, 2, None, home / "downloads").tags["pipeline_run"] == "r1"
    assert [version.version for version in versions.champions()] == [3]

    # Metrics that somebody has edited by hand change nothing of what was registered.
    client.set_model_version_tag(NAME, "2", "metrics", "not json")
    edited = download.fetch_release(versions.known_version(NAME, 2), None, home / "edited")
    assert read_facts(edited)["metrics"] == {"pr_auc_splice": 0.9}

    versions.set_bento_tag(NAME, 3, "metalayer-pwm:3-abc")
    assert versions.find_champion(NAME).tags["bento_tag"] == "metalayer-pwm:3-abc"
    with pytest.raises(InputError, match="metalayer-pwm"):
        champion.champion_bento("other")

    # A download that was damaged is fetched again; a damaged store is an error.
    (local.bundle / "model.json").write_text("{}")
    again = download.fetch(NAME, 2, None, home / "downloads")
    assert digest(again.bundle) == digest(bundle)
    again.golden.write_bytes(again.golden.read_bytes()[:-1])
    assert download.fetch(NAME, 2, None, home / "downloads").golden.read_bytes() == golden.read_bytes()
    for weights in (home / "state" / "mlartifacts").rglob("model.safetensors"):
        weights.write_bytes(b"x")
    with pytest.raises(ModelError, match="not those that were registered"):
        download.fetch(NAME, 3, None, home / "downloads")

    assert list((home / "elsewhere").iterdir()) == []


def test_the_champions_own_model_again_is_known_by_its_content(home: Path, model: tuple[Path, Path]) -> None:
    from metalayer.registry import registration

    bundle, golden = model
    again = make_bundle(home / "again")
    rewrite(again / "model.json", pipeline_run="another run", git_commit="f00")
    assert digest(again) != digest(bundle)
    assert registration.champion_again(again, "pwm") is None  # there is no champion
    made = make_champion(bundle, golden)
    assert registration.champion_again(again, "pwm") == replace(made, alias="champion", champion_again=True)
    assert registration.champion_again(make_bundle(home / "other", seed=1), "pwm") is None
    assert registration.champion_again(again, "other") is None
    make_champion(home / "other", make_golden(home / "other", home / "other.parquet"))
    assert registration.champion_again(again, "pwm") is None  # it was champion, and no longer is


def test_registries_may_share_a_store_of_bentos(
    home: Path, model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_champion(*model)
    mine = champion.champion_bento()
    assert champion.champion_bento() == mine
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/other/mlflow.db")
    second = make_bundle(home / "second", seed=1)
    assert make_champion(second, make_golden(second, home / "golden2.parquet")).version == 1
    theirs = champion.champion_bento()
    assert theirs != mine
    served = home / "state" / "bentoml" / "bentos" / theirs.replace(":", "/") / "src" / "release"
    from metalayer.registry import versions

    theirs = versions.find_champion(NAME).digest
    assert read_facts(served)["digest"] == release_digest(served, served / "golden.parquet") == theirs

    # Nor is a Bento taken for the model's own by its tag alone.
    described = served.parents[1] / "bento.yaml"
    described.write_text(described.read_text().replace(theirs, "f" * 64))
    assert bento.find_bento(NAME, 1, theirs) is None
    with pytest.raises(RegistryError, match="Remove what is there"):
        champion.champion_bento()


def test_a_model_that_misses_its_golden_rows_is_not_registered(home: Path, model: tuple[Path, Path]) -> None:
    from metalayer.registry import registration, versions

    bundle, golden = model
    pl.read_parquet(golden).with_columns(pl.col("donor") + 1e-5).write_parquet(golden)
    with pytest.raises(RegistryError, match="golden rows"):
        registration.register(bundle, golden, base_model="pwm", promoted=True)
    assert versions.champions() == []


def test_the_file_of_models_that_are_registered_finds_its_names() -> None:
    """As it was registered before `release/contract.py`: MLflow runs it with the package that is imported already."""
    from metalayer.data.windows import encode_windows
    from metalayer.inference import Predictor
    from metalayer.schema import CLASSES, ROWS
    from metalayer.serving.schemas import NOTE, WAY, validate_columns

    assert (NOTE, WAY, ROWS, len(CLASSES)) == ("note", "way", "rows", 3)
    rows = validate_columns(pl.DataFrame(score_rows(2)).to_dict(as_series=False))
    assert len(encode_windows(rows.sequences, rows.index, 100)) == 2
    assert callable(Predictor.predict_rows)


def test_several_champions_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from metalayer.registry import versions

    tags = {"digest": "d"}
    both = [versions.ModelVersion("metalayer-a", 1, None, tags), versions.ModelVersion("metalayer-b", 4, None, tags)]
    monkeypatch.setattr(versions, "champions", lambda: both)
    monkeypatch.setattr(champion, "find_bento", lambda name, version, digest: f"{name}:{version}-{digest}")
    with pytest.raises(InputError, match="metalayer-a, metalayer-b"):
        champion.champion_bento()
    assert champion.champion_bento("metalayer-a") == "metalayer-a:1-d"
    assert champion.champion_bento("b") == "metalayer-b:4-d"


def test_a_bento_whose_model_needs_what_is_not_here(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks = {"chunk_bp": 48, "stride_bp": 16, "output_dim": 12}
    options = {"model": str(checkpoints.bert(home / "bert", checkpoints.kmers(3))), **chunks}
    release_folder = home / "bento" / "src" / "release"
    make_bundle(release_folder, sequence_encoder="huggingface", sequence_encoder_config=options)
    (home / "bento" / "bento.yaml").write_text("")
    assert not_installed(release_folder) == []
    assert runtime(release_folder) == (*RUNTIME, "transformers")
    named = unsealed((release_folder / "model.json").read_text())
    named["model"]["sequence_encoder"] = "hyenadna"
    named["model"]["sequence_encoder_config"] = {"model_size": "tiny", "bundle_encoder": False}
    named["model"]["encoder_checkpoint"]["source"] = "LongSafari/hyenadna-tiny-1k-seqlen-hf"
    (home / "named").mkdir()
    write_json(home / "named" / "model.json", named)
    assert runtime(home / "named") == (*RUNTIME, "huggingface_hub")
    there = [one for one in folder_module.distributions() if one.name != "transformers"]
    monkeypatch.setattr(folder_module, "distributions", lambda: there)
    assert cli.main(["serve", "--bento", str(home / "bento"), "--port", str(free_port())]) == 2
    told = capsys.readouterr().err
    assert "needs transformers, which is not installed here" in told
    assert "metalayer-serving-language" in told


def test_a_service_that_is_not_there(home: Path, model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from metalayer.registry import registration, versions

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as caught:
        versions.find_champion(NAME, "http://user:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)
    assert "http://***@127.0.0.1:9" in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    (home / "not-a-database").write_text("x" * 5000)
    with pytest.raises(RegistryError, match="not-a-database"):
        registration.register(*model, base_model="pwm", promoted=True, tracking_uri=f"sqlite:///{home}/not-a-database")


def test_a_registry_in_a_file_needs_all_of_mlflow(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metalayer.registry import tracking

    find = importlib.util.find_spec  # as where mlflow-skinny alone is installed
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "sqlalchemy" else find(name, *more)
    )
    with pytest.raises(ConfigError, match=r"mlflow-skinny is here; name an MLflow server in MLFLOW_TRACKING_URI"):
        tracking.ensure_experiment()


def test_a_damaged_bundle_is_not_registered(home: Path, model: tuple[Path, Path]) -> None:
    from metalayer.registry import registration

    bundle, golden = model
    (bundle / "model.json").write_text("{}")
    with pytest.raises(ModelError):
        registration.register(bundle, golden, base_model="pwm", promoted=True)


def test_the_champion_moves_by_hand_and_back(
    home: Path, model: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    from metalayer.registry import download, registration, tracking, versions

    def run(*arguments: str) -> str:
        assert cli.main(["registry", *arguments]) == 0
        return capsys.readouterr().out

    assert run("list") == ""
    assert cli.main(["registry", "rollback"]) == 2
    assert "no registered model in" in capsys.readouterr().err
    second = make_bundle(home / "second", seed=1)
    make_golden(second, home / "golden2.parquet")
    make_champion(*model, metrics={"pr_auc_splice": 0.9})
    assert cli.main(["registry", "rollback"]) == 2
    assert "is the first champion" in capsys.readouterr().err
    make_champion(second, home / "golden2.parquet")
    registration.register(*model, base_model="pwm", promoted=False)
    digests = [versions.known_version(NAME, number).digest for number in (1, 2)]

    # Whatever is champion is packaged, so that `metalayer serve` starts with it; else that packages it.
    out = run("rollback")
    assert out.startswith(f"{NAME} version 1 is the champion, instead of 2; its golden rows came out")
    assert out.endswith("nothing to roll back to\n")
    assert bento.find_bento(NAME, 1, digests[0]) == f"{NAME}:1-{digests[0][:12]}"
    assert bento.find_bento(NAME, 2, digests[1]) is None
    client = mlflow.MlflowClient(tracking.default_tracking_uri())
    client.set_registered_model_alias(NAME, "champion", "2")
    assert champion.champion_bento() == bento.find_bento(NAME, 2, digests[1]) == f"{NAME}:2-{digests[1][:12]}"
    client.set_registered_model_alias(NAME, "champion", "1")
    assert versions.find_champion(NAME).tags["bento_tag"] == champion.champion_bento()
    assert run("promote", "2", "--model", "pwm").endswith("`rollback` would go to version 1\n")
    assert champion.champion_bento() == bento.find_bento(NAME, 2, digests[1])
    assert "instead of 2" in run("promote", "1")
    assert run("promote", "1").startswith(f"{NAME} version 1 is the champion; its golden rows")  # it was already

    # Each rollback undoes one promotion more, and then there is none left: it never flips back and forth.
    assert line.read(NAME).history == (1, 2, 1)
    assert run("rollback", "--model", NAME).startswith(f"{NAME} version 2 is the champion, instead of 1")
    assert run("rollback").startswith(f"{NAME} version 1 is the champion, instead of 2")
    assert cli.main(["registry", "rollback"]) == 2
    assert "version 1 is the first champion that is known: there is none to go back to" in capsys.readouterr().err
    assert versions.find_champion(NAME).version == 1

    lines = [line.split() for line in run("list").splitlines()]
    assert [line[:4] for line in lines] == [
        [NAME, "1", "champion", "promoted"],
        [NAME, "2", "-", "promoted"],
        [NAME, "3", "challenger", "rejected"],
    ]
    for arguments, message in (
        (["promote", "3"], "the gate's decision was 'rejected'"),
        (["promote", "9"], "there are: 1, 2, 3"),
        (["promote", "2", "--model", "other"], f"there are: {NAME}"),
    ):
        assert cli.main(["registry", *arguments]) == 2
        assert message in capsys.readouterr().err

    facts = read_facts(download.fetch_release(versions.find_champion(NAME), None, home / "releases"))
    assert (facts["name"], facts["version"], facts["alias"]) == (NAME, "1", "champion")
    assert facts["metrics"] == {"pr_auc_splice": 0.9}
    assert facts["git_commit"] == "c0ffee"


def test_serve_answers_with_the_promoted_version_and_follows_a_rollback(
    home: Path, model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:

    second = make_bundle(home / "second", seed=1)
    make_champion(second, make_golden(second, home / "golden2.parquet"))
    make_champion(*model)
    assert cli.main(["registry", "promote", "1"]) == 0
    monkeypatch.setenv("METALAYER_SERVE_FOLLOW_EVERY_S", "0.3")
    monkeypatch.setenv("METALAYER_SERVE_WORKERS", "1")
    port, log, rows = free_port(), home / "server.log", score_rows(2)
    (home / "queue.py").write_text("raise SystemExit('a file of the current folder was run')")
    left_behind = {"MLFLOW_TRACKING_URI": "sqlite:///state/mlflow.db", "BENTOML_CONFIG": "/nonexistent.yaml"}
    command = [sys.executable, "-m", "metalayer", "serve", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=home, env=os.environ | left_behind, stdout=log.open("w"), stderr=subprocess.STDOUT
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, url, log)
        until = time.monotonic() + 60
        for version, bundle in (("1", second), ("2", model[0])):
            while (response := httpx.post(f"{url}/v1/score", json={"rows": rows}, timeout=60)).headers[
                "x-model-version"
            ] != version:
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            answers = np.array([list(row.values()) for row in response.json()["rows"]])
            assert np.abs(answers - expected(bundle, rows)).max() <= 1e-6
            if version == "1":
                assert cli.main(["registry", "rollback"]) == 0
    finally:
        process.terminate()
        process.wait(60)


def test_a_history_ends_with_the_champion_whatever_moved_the_alias(home: Path, model: tuple[Path, Path]) -> None:
    import mlflow

    from metalayer.registry import tracking

    for _ in range(3):
        make_champion(*model)
    assert line.read(NAME).history == (1, 2, 3)
    uri = tracking.default_tracking_uri()
    client = mlflow.MlflowClient(uri, uri)
    client.set_registered_model_alias(NAME, "champion", "2")
    assert line.read(NAME).history == (1, 2)
    line.move(line.read(NAME), [1])
    client.set_registered_model_alias(NAME, "champion", "3")
    assert line.read(NAME).history == (1, 3)
    client.delete_registered_model_alias(NAME, "champion")
    found = line.read(NAME)
    assert (found.champion, found.history, found.lost) == (None, (1,), True)  # what is known of it stays


def test_the_champion_stays_where_golden_rows_come_out_otherwise(home: Path, model: tuple[Path, Path]) -> None:
    from metalayer.registry import promotion, versions
    from metalayer.release import engine

    make_champion(*model)
    make_champion(*model)
    with pytest.MonkeyPatch.context() as patch:  # another environment, where this model answers otherwise
        patch.setattr(engine, "GOLDEN_TOLERANCE", -1.0)
        with pytest.raises(ModelError, match="golden rows differ"):
            promotion.rollback(NAME)
        assert line.read(NAME).history == (1, 2)
        with pytest.raises(ModelError, match="golden rows differ"):
            promotion.promote(NAME, 1)
    for golden in (home / "state" / "mlartifacts").rglob("golden.parquet"):  # others than were registered
        pl.read_parquet(golden).with_columns(pl.col("donor") + 1e-3).write_parquet(golden)
    with pytest.raises(ModelError, match="its files are not those that were registered"):
        promotion.promote(NAME, 1)
    assert line.read(NAME).history == (1, 2)
    assert bento.find_bento(NAME, 1, versions.known_version(NAME, 1).digest) is None


def test_a_version_takes_no_other_place_than_that_it_was_compared_for(home: Path, model: tuple[Path, Path]) -> None:
    """Another run may have promoted in between."""
    from metalayer.registry import promotion, registration

    make_champion(*model)
    registration.register(*model, base_model="pwm", promoted=True)
    for then, said in ((None, "no champion"), (3, "version 3")):
        with pytest.raises(InputError, match=f"version 2 was compared with {said}, and champion is now 1: run"):
            promotion.promote(NAME, 2, bento="b:1", instead_of=[then])
        assert line.read(NAME).history == (1,)
    for _ in range(2):  # an attempt that was cut off, and the next
        assert promotion.promote(NAME, 2, bento="b:1", instead_of=[1]).version == 2
    assert line.read(NAME).history == (1, 2)


def test_nothing_to_roll_back(home: Path, model: tuple[Path, Path]) -> None:
    from metalayer.registry import promotion, registration

    registration.register(*model, base_model="pwm", promoted=False)
    with pytest.raises(InputError, match="has no champion"):
        promotion.rollback(NAME)
