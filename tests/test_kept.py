"""What was followed is kept: a server that starts while the registry is away, or names nothing, goes on with it."""

import json
import logging
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import yaml
from releases import make_bundle, make_champion, make_golden

from metalayer.errors import InputError, ModelError, RegistryError
from metalayer.registry import download, versions
from metalayer.serving.follow import GONE, NO_CHAMPION, REFUSED, UNREACHABLE, Follower
from metalayer.serving.kept import Kept, kept_models
from metalayer.serving.state import Serving
from tests.fakes import fake_server

NAME = "metalayer-pwm"


@pytest.fixture
def releases(released: Path) -> Callable[[], Path]:
    return lambda: released


def test_the_current_version_and_the_one_before_are_kept(tmp_path: Path, releases: Callable[[], Path]) -> None:
    kept = Kept(tmp_path, "http://mlflow", NAME)
    assert kept.current() is None
    for number in range(1, 5):
        with kept.taken_in(str(number), f"{number}" * 64, releases) as directory:
            assert (directory / "release.json").read_bytes() == (releases() / "release.json").read_bytes()
        kept.set_current(str(number), f"{number}" * 64, seen_at=float(number))
    assert (kept.current().version, kept.current().digest) == ("4", "4" * 64)
    assert sorted(one.name for one in kept.folder.iterdir() if one.is_dir()) == ["3-333333333333", "4-444444444444"]

    kept.set_current("3", "3" * 64, seen_at=3.5)  # of a look that took longer than the one after it
    assert kept.current().version == "4"
    kept.set_current("3", "3" * 64, seen_at=5.0)
    assert kept.current().version == "3"
    assert kept.release("4", "4" * 64) is not None

    (kept.folder / "current.json").write_text("{")
    assert kept.current() is None


def test_registries_keep_apart_and_a_changed_password_is_the_same_registry(tmp_path: Path) -> None:
    assert Kept(tmp_path, "http://a:b@mlflow", NAME).folder == Kept(tmp_path, "http://a:c@mlflow/", NAME).folder
    here, there = (Kept(home / "bentoml", f"sqlite:///{home}/mlflow.db", NAME) for home in (tmp_path, tmp_path / "b"))
    assert here.folder.relative_to(tmp_path) == there.folder.relative_to(tmp_path / "b")  # moved with all it is in
    assert Kept(tmp_path, "http://mlflow:1", NAME).folder != Kept(tmp_path, "http://mlflow:2", NAME).folder


def _keep_many(place: Path, source: Path, numbers: list[int]) -> None:
    kept = Kept(place, "http://mlflow", NAME)
    for number in numbers:
        with kept.taken_in(str(number), f"{number:064d}", lambda: source) as directory:
            for _ in range(5):  # the others go on meanwhile
                assert {one.name for one in directory.iterdir()} >= {"release.json", "model.safetensors"}
        kept.set_current(str(number), f"{number:064d}", seen_at=float(number))


def test_servers_that_keep_at_the_same_time_leave_one_whole_version_current(tmp_path: Path, released: Path) -> None:
    context = multiprocessing.get_context("fork")
    several = [
        context.Process(target=_keep_many, args=(tmp_path, released, list(range(first, 40, 4)))) for first in range(4)
    ]
    for one in several:
        one.start()
    for one in several:
        one.join(60)
        assert one.exitcode == 0
    kept = Kept(tmp_path, "http://mlflow", NAME)
    assert kept.release(kept.current().version, kept.current().digest) is not None
    assert len([one for one in kept.folder.iterdir() if one.is_dir()]) <= 2
    assert [one.name for one in kept_models(tmp_path, "http://mlflow")] == [NAME]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    """A registry with versions 1 and 2, and their bundles."""
    folder = tmp_path_factory.mktemp("registered")
    uri = f"sqlite:///{folder}/mlflow.db"
    bundles = [make_bundle(folder / str(seed), seed) for seed in range(2)]
    for bundle in bundles:
        make_champion(bundle, make_golden(bundle, bundle.with_suffix(".parquet")), uri)
    return uri, bundles


@pytest.fixture
def copied(registered: tuple[str, list[Path]], tmp_path: Path) -> str:
    """The registry, whose champion is version 1, to be changed."""
    folder = Path(registered[0].removeprefix("sqlite:///")).parent
    shutil.copytree(folder, tmp_path / "copied")
    uri = f"sqlite:///{tmp_path}/copied/mlflow.db"
    mlflow.MlflowClient(uri, uri).set_registered_model_alias(NAME, "champion", "1")
    return uri


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "followed"


@pytest.fixture
def follower(registered: tuple[str, list[Path]], place: Path, tmp_path: Path) -> Callable[..., Follower]:
    """The follower of a worker that has just started, of a server that came with version 1."""
    uri, _ = registered
    packaged = download.fetch_release(versions.find_version(NAME, "1", uri), uri, tmp_path / "packaged")

    def make(*, away: bool = False) -> Follower:
        follower = Follower(Serving(), uri, packaged, Kept(place, uri, NAME))
        if away:
            follower._uri = f"sqlite:///{packaged}/model.json"  # a file that is no database
        return follower

    return make


@pytest.fixture
def move(registered: tuple[str, list[Path]]) -> Callable[[int], None]:
    client = mlflow.MlflowClient(registered[0], registered[0])
    return lambda version: client.set_registered_model_alias(NAME, "champion", str(version))


def answers(follower: Follower) -> str | None:
    engine = follower._serving.engine
    return engine and engine.version


def test_a_worker_begins_with_the_champion_and_with_what_was_followed_where_the_registry_is_away(
    registered: tuple[str, list[Path]], follower: Callable[..., Follower], move: Callable[[int], None]
) -> None:
    move(2)
    (never := follower(away=True)).look()
    assert answers(never) is None  # of what is champion nothing is known, and it would not be version 1
    assert never._serving.registry["state"] == UNREACHABLE

    (first := follower()).look()
    assert answers(first) == "2"
    assert first._serving.engine.digest == versions.find_version(NAME, "2", registered[0]).digest
    (restarted := follower(away=True)).look()
    assert answers(restarted) == "2"
    assert restarted._serving.registry["state"] == UNREACHABLE

    move(1)  # a rollback
    first.look()
    assert answers(first) == "1"
    (restarted := follower(away=True)).look()
    assert answers(restarted) == "1"
    restarted.look()
    assert answers(restarted) == "1"


def test_a_damaged_copy_is_not_answered_with_and_fetched_again(
    follower: Callable[..., Follower], move: Callable[[int], None], place: Path
) -> None:
    move(2)
    follower().look()
    (weights,) = place.glob("*/*/2-*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8])
    (restarted := follower(away=True)).look()
    assert answers(restarted) is None
    (other := follower()).look()
    assert answers(other) is None
    assert other._serving.registry["state"] == REFUSED
    other._again_at = 0.0
    other.look()
    assert answers(other) == "2"


def test_where_nothing_can_be_kept_the_champion_is_followed_all_the_same(
    follower: Callable[..., Follower], move: Callable[[int], None], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("a file where the folder would be")
    move(2)
    (one := follower()).look()
    assert answers(one) == "2"
    move(1)
    one.look()
    one.look()
    assert answers(one) == "1"
    assert [record.message for record in caplog.records if "cannot be written" in record.message] == [
        f"{one._kept.folder} cannot be written (Not a directory): what is followed is not kept, and a worker that is "
        "restarted while the registry is away answers nothing until it is back"
    ]


def test_a_version_that_is_gone_goes_on_and_is_said_so(
    copied: str, tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = copied
    packaged = download.fetch_release(versions.find_champion(NAME, uri), uri, tmp_path / "packaged")
    one = Follower(Serving(), uri, packaged, Kept(place, uri, NAME))
    one.look()
    assert one._serving.registry["state"] == "following"

    client = mlflow.MlflowClient(uri, uri)
    client.delete_registered_model_alias(NAME, "champion")
    one.look()
    one.look()
    assert one._serving.registry["state"] == NO_CHAMPION
    client.delete_model_version(NAME, "1")
    one.look()
    one.look()
    assert one._serving.registry["state"] == GONE
    assert "version 1 is no longer in the registry" in one._serving.registry["says"]
    assert answers(one) == "1"
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    said = [message for message in warned if message.startswith("registry ")]
    assert [line.partition(":")[0] for line in said] == ["registry no champion", "registry gone"]

    (restarted := Follower(Serving(), uri, packaged, Kept(place, uri, NAME))).look()
    assert (answers(restarted), restarted._serving.registry["state"]) == ("1", GONE)


def test_serve_starts_with_what_was_followed_where_the_registry_names_nothing(
    copied: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from metalayer.serving import champion

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := copied)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    tag = champion.followed_bento()

    mlflow.MlflowClient(uri, uri).delete_model_version(NAME, "1")
    assert champion.followed_bento() == champion.followed_bento("pwm") == champion.followed_bento(NAME) == tag
    assert f"serving {NAME} version 1, which was champion at" in caplog.text
    (tmp_path / "copied" / "mlflow.db").write_text("no database")
    assert champion.followed_bento() == tag
    with pytest.raises(InputError, match="no promoted model"):
        (tmp_path / "copied" / "mlflow.db").unlink()
        champion.followed_bento("openspliceai")


def test_the_note_of_another_layout_counts_as_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "http://mlflow", NAME)
    kept.folder.mkdir(parents=True)
    (kept.folder / "current.json").write_text(json.dumps({"release": "2"}))
    assert kept.current() is None


def test_no_log_shows_the_password_of_a_registry_that_answers_oddly(
    released: Path, place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_server() as odd:
        uri = f"http://me:se@cret@127.0.0.1:{odd.port}"
        one = Follower(Serving(), uri, released, Kept(place, uri, NAME))
        for answer in (b"<html>", [], {"model_version": 5}, {"model_version": {"version": "x"}}, {"odd": 1}):
            odd.answers["GET /api/2.0/mlflow/registered-models/alias"] = (200, answer)
            with pytest.raises(RegistryError, match=r"\*\*\*@127") as caught:
                versions.find_champion(NAME, uri)
            assert "cret" not in str(caught.value)
            one.look()
            assert one._serving.registry["state"] == UNREACHABLE

    def broken(*_: object) -> None:
        one._serving.draining = True  # a follower's last look
        raise RuntimeError(f"{uri}/api")

    monkeypatch.setattr(versions, "find_champion", broken)
    monkeypatch.setattr("time.sleep", lambda _: None)
    one._run()
    assert "http://***@127.0.0.1" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "cret" not in caplog.text + json.dumps(one._serving.registry)


@pytest.mark.parametrize("outside", ["absolute", "../elsewhere", "bundle/../../elsewhere", "."])
def test_what_an_mlmodel_names_outside_its_folder_is_not_copied(copied: str, tmp_path: Path, outside: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "note.txt").write_text("a file of somebody else")
    for one in (tmp_path / "copied").rglob("MLmodel"):
        described = yaml.safe_load(one.read_text())
        path = str(elsewhere) if outside == "absolute" else outside
        described["flavors"]["python_function"]["artifacts"]["bundle"]["path"] = path
        one.write_text(yaml.safe_dump(described))
    with pytest.raises(ModelError, match=r"version 1: its MLmodel names .*, which is not inside its own folder"):
        download.fetch(NAME, 1, copied, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_registered_name_is_no_way_out_of_the_folder_of_downloads(copied: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the registry names '../elsewhere', which is not inside"):
        download.fetch("../elsewhere", 1, copied, tmp_path / "fetched")
    assert not (tmp_path / "elsewhere").exists()
