"""The registry as people leave it: edited by hand in MLflow's page, and full of other people's names."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path

import mlflow
import pytest

from metalayer import cli
from metalayer.errors import InputError, ModelError, RegistryError
from metalayer.registry import evidence, line, listing, promotion, tracking, versions
from metalayer.registry.line import Line
from metalayer.registry.versions import ModelVersion
from metalayer.serving import champion

pytestmark = pytest.mark.integration
NAME = "metalayer-pwm"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.fixture
def client(uri: str, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A registry of three versions that passed the gate, the last of them champion after the others."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # What packaging needs of a version is not of the registry.
    monkeypatch.setattr(promotion, "package_version", lambda version, tracking_uri: f"b:{version.version}")
    client = mlflow.MlflowClient(uri, uri)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    client.create_registered_model(NAME)
    for number in range(3):
        client.create_model_version(NAME, "s3://nowhere/m", tags={"decision": "promoted", "digest": f"d{number}"})
    line.move(line.read(NAME), [1, 2, 3])
    return client


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    return capsys.readouterr().err


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("tag", ["not json", "{}", "[1, true, 3]", '["1"]', "[" * 20_000, "[-1]"])
def test_a_damaged_history_is_none_and_no_dead_end(
    client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str], tag: str
) -> None:
    client.set_registered_model_tag(NAME, line.HISTORY_TAG, tag)
    client.set_registered_model_tag(NAME, line.MOVE_TAG, tag)
    message = refused(capsys, "registry", "rollback")
    assert "version 3 is the first champion that is known" in message
    assert "takes any version that passed the gate: 1, 2, 3" in message
    assert "version 2 is the champion, instead of 3" in said(capsys, "registry", "promote", "2")
    assert line.read(NAME) == Line(NAME, 2, (3, 2))


def test_rollback_passes_over_deleted_versions_and_refuses_rejected_ones(
    client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.set_registered_model_tag(NAME, line.HISTORY_TAG, "[1, 2, 7, 3]")
    client.delete_model_version(NAME, "2")
    client.set_model_version_tag(NAME, "1", "decision", "rejected")
    message = refused(capsys, "registry", "rollback")
    assert "rollback would go to version 1, but the gate's decision was 'rejected'" in message
    assert line.read(NAME).champion == 3
    client.set_model_version_tag(NAME, "1", "decision", "promoted")
    out = said(capsys, "registry", "rollback")
    assert "passed over: version 7 was deleted" in out
    assert "passed over: version 2 was deleted" in out
    assert line.read(NAME) == Line(NAME, 1, (1,))


@pytest.mark.parametrize("how", ["alias", "version"])
def test_a_champion_that_is_gone_is_named_before_a_run(
    client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    if how == "alias":
        client.delete_registered_model_alias(NAME, "champion")
    else:
        client.delete_model_version(NAME, "3")
    with pytest.raises(InputError, match=r"version 3 was the champion and .* in MLflow, .* registry rollback --model"):
        promotion.require_whole(NAME)
    with pytest.raises(
        InputError, match=r"no registered version has the alias champion.* version 1, .*promote VERSION"
    ):
        champion.champion_bento()
    assert "is the champion" in said(capsys, "registry", "rollback")
    assert promotion.require_whole(NAME).champion == (3 if how == "alias" else 2)


def test_a_version_is_retired_with_its_reason(client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say in 1 to" in refused(capsys, "registry", "retire", "--reason", "  ")
    assert "stays the champion" in said(capsys, "registry", "retire", "2", "--reason", "of the old\nannotation")
    assert line.read(NAME) == Line(NAME, 3, (1, 3))
    [listed] = [words for words in said(capsys, "registry", "list").splitlines() if "retired" in words]
    assert listed.split()[1] == "2"
    assert listed.endswith(": of the old annotation")
    assert "was retired (of the old annotation)" in refused(capsys, "registry", "promote", "2")
    out = said(capsys, "registry", "retire", "--reason", "saw all test genes")
    assert "version 1 is the champion, instead of 3" in out
    assert "nothing to roll back to" in out
    assert versions.find_champion(NAME).version == 1


def test_where_no_earlier_champion_answers_there_is_none_and_the_next_takes_the_place(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def upgraded(version: ModelVersion, tracking_uri: str | None) -> str:
        raise ModelError("model format 2, this version reads 3")

    monkeypatch.setattr(promotion, "package_version", upgraded)
    out = said(capsys, "registry", "retire", "--reason", "of another format")
    assert "passed over: version 2 does not answer here: model format 2" in out
    assert "has no champion now" in out
    assert promotion.require_whole(NAME) == Line(NAME, None, ())
    assert versions.find_champion(NAME) is None
    client.create_model_version(NAME, "s3://nowhere/m", tags={"decision": "promoted", "digest": "d4"})
    promotion.promote(NAME, 4, bento="b:4", instead_of=[None])
    assert line.read(NAME) == Line(NAME, 4, (4,))


def test_other_peoples_names_neither_hide_ours_nor_stop_a_command(
    client: mlflow.MlflowClient, uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than a page of them, quotes in some, versions of other software in others."""
    before = said(capsys, "registry", "list")
    for name in ("metalayer-it's", 'metalayer-a"b', "metalayer-a'b\"c", *(f"metalayer-aaa{n}" for n in range(4))):
        client.create_registered_model(name)
        client.create_model_version(name, "s3://nowhere/m")
    for search in ("search_registered_models", "search_model_versions"):  # pages of two, for a server full of names
        whole = getattr(mlflow.MlflowClient, search)
        monkeypatch.setattr(mlflow.MlflowClient, search, partialmethod(whole, max_results=2))
    client.set_registered_model_alias(NAME, "challenger", 3)
    client.set_registered_model_alias(NAME, "best", 3)
    client.delete_model_version("metalayer-aaa1", "1")
    read = versions.all_versions()
    assert [(one.version, one.aliases) for one in read] == [(1, ()), (2, ()), (3, ("best", "challenger", "champion"))]
    with monkeypatch.context() as without:
        without.setattr(listing, "read", lambda *_: None)
        assert versions.all_versions() == read
        client.delete_registered_model_alias(NAME, "challenger")
        client.delete_registered_model_alias(NAME, "best")
        assert said(capsys, "registry", "list") == before
    assert said(capsys, "registry", "list") == before
    listed = listing.read(uri, versions.NAME_PREFIX) or []
    assert sorted((one.name, one.version) for one in listed if not one.tags) == sorted(
        [("metalayer-it's", "1"), ('metalayer-a"b', "1"), ("metalayer-a'b\"c", "1")]
        + [(f"metalayer-aaa{n}", "1") for n in (0, 2, 3)]
    )
    assert "version 2 is the champion" in said(capsys, "registry", "rollback")


def test_a_file_that_only_mlflow_can_read_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"no database")
    assert listing.read(f"sqlite:///{tmp_path}/other.db", "metalayer-") is None
    (tmp_path / "empty.db").touch()
    assert listing.read(f"sqlite:///{tmp_path}/empty.db", "metalayer-") is None
    assert listing.read("postgresql://127.0.0.1/mlflow", "metalayer-") is None


def test_a_deleted_experiment_is_named_with_what_restores_it(client: mlflow.MlflowClient, uri: str) -> None:
    number = tracking.ensure_experiment()
    client.delete_experiment(number)
    with pytest.raises(RegistryError, match=rf"experiment metalayer was deleted .* restore --experiment-id {number}"):
        tracking.ensure_experiment()
    client.restore_experiment(number)
    assert tracking.ensure_experiment() == number


def test_decisions_on_a_test_set_are_counted_by_model(client: mlflow.MlflowClient) -> None:
    def judged(digest: str, base_model: str = "pwm", test_set: str = "t1") -> str:
        tags = {"test_set": test_set, "model_digest": digest, "base_model": base_model}
        return str(client.create_run(tracking.ensure_experiment(), tags=tags).info.run_id)

    assert evidence.decisions_before(NAME, "t1", "new") == 0
    for version, test_set, digest in (("1", "t1", "d0"), ("2", "t2", "d1")):
        client.set_model_version_tag(NAME, version, "test_set", test_set)
        client.set_model_version_tag(NAME, version, "model_digest", digest)
    judged("d0")  # the run of version 1
    client.delete_run(judged("failed before it was registered"))
    judged("other", base_model="openspliceai")
    judged("other", test_set="t2")
    assert evidence.decisions_before(NAME, "t1", "new") == 2
    assert evidence.decisions_before(NAME, "t1", "d0") == 1  # tried again
    assert evidence.decisions_before(NAME, "t2", "new") == 2


def test_kept_answers_that_are_not_there_are_a_model_error(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    version = versions.known_version(NAME, 1)
    with pytest.raises(ModelError, match="no answers were kept with it"):
        evidence.fetch_answers(version, None, tmp_path)
