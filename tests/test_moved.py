"""A state folder that was moved or copied is read and written where it is."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from releases import make_bundle, make_champion, make_golden

from metalayer import cli, moved
from metalayer.environment import state_dir
from metalayer.errors import ConfigError, MetalayerError, RegistryError
from metalayer.files import only_one
from metalayer.registry import download, tracking, versions
from tests.test_pipeline import RUN, execute

pytestmark = pytest.mark.integration
NAME = "metalayer-pwm"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and a state folder `one` in which it is champion; to copy."""
    folder = tmp_path_factory.mktemp("registered")
    bundle = make_bundle(folder / "bundle")
    golden = make_golden(bundle, folder / "golden.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METALAYER_HOME", str(folder / "one"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        make_champion(bundle, golden)
    return folder


@pytest.fixture
def state(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that state folder: the home of this test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "ä b"))
    return Path(shutil.copytree(registered / "one", tmp_path / "ä b"))


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def locations(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [
            place
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
                ("model_versions", "storage_location"),
            )
            for (place,) in connection.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE 'file:%'")
        ]


def test_a_copy_is_a_state_of_its_own(registered: Path, state: Path, tmp_path: Path) -> None:
    from metalayer.registry import download

    before = listing(registered / "one")
    local = download.fetch(NAME, 1, None, tmp_path / "downloads")
    assert local.golden.is_file()
    here = (state / "mlartifacts").as_uri()
    assert len(locations(state / "mlflow.db")) >= 4
    assert all(place == here or place.startswith(f"{here}/") for place in locations(state / "mlflow.db"))
    make_champion(registered / "bundle", registered / "golden.parquet")
    assert len(list((state / "mlartifacts").rglob("MLmodel"))) == 2
    assert listing(registered / "one") == before
    assert download.fetch(NAME, 2, None, tmp_path / "downloads").golden.is_file()
    assert (state / "mlflow.db.before-move").is_file()


def test_a_move_leaves_nothing_at_the_old_place(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metalayer.registry import download, versions

    versions.find_champion(NAME)
    there = state.rename(tmp_path / "there")
    monkeypatch.setenv("METALAYER_HOME", str(there))
    assert download.fetch(NAME, 1, None, tmp_path / "downloads").golden.is_file()
    assert not state.exists()


def test_of_another_version_of_its_tables_it_is_left_alone(state: Path) -> None:
    with closing(sqlite3.connect(state / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
    before = listing(state)
    with pytest.raises(RegistryError, match=r"later, known is .*Put the folder back where it was"):
        moved.follow_mlflow(state / "mlflow.db")
    left = listing(state)
    left.pop(moved.RUN_LOCK, None)
    assert left == before


def test_a_database_without_its_files_is_refused(state: Path) -> None:
    shutil.rmtree(state / "mlartifacts")
    with pytest.raises(RegistryError, match="move or copy the whole state folder"):
        moved.follow_mlflow(state / "mlflow.db")


def test_a_database_that_is_named_may_have_its_files_elsewhere(
    registered: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry by its address, not in the state folder: read as it is, and not rewritten."""
    named = tmp_path / "named.db"
    shutil.copy(registered / "one" / "mlflow.db", named)
    before = locations(named)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{named}")
    assert versions.find_champion(NAME).version == 1
    assert download.fetch(NAME, 1, None, tmp_path / "got").bundle.is_dir()
    assert locations(named) == before


def test_a_run_that_uses_the_folder_is_not_disturbed(state: Path) -> None:
    before = locations(state / "mlflow.db")
    with only_one(state / moved.RUN_LOCK, "wait"):
        with pytest.raises(MetalayerError, match="another run"):
            moved.follow_mlflow(state / "mlflow.db")
        assert locations(state / "mlflow.db") == before
        moved.follow_mlflow(state / "mlflow.db", held=True)
    assert locations(state / "mlflow.db") != before


def test_the_tables_of_what_is_installed_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade of MLflow that changes its tables comes through here."""

    monkeypatch.setenv("METALAYER_HOME", str(tmp_path / "one"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking.ensure_experiment()
    (tmp_path / "one").rename(tmp_path / "two")
    moved.follow_mlflow(tmp_path / "two" / "mlflow.db")
    assert locations(tmp_path / "two" / "mlflow.db") == [(tmp_path / "two" / "mlartifacts").as_uri()]


def test_asking_elsewhere_says_where_it_looked_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METALAYER_HOME", "home")
    for name in ("MLFLOW_TRACKING_URI", "BENTOML_HOME"):
        monkeypatch.delenv(name, raising=False)
    for command, code in ((["serve"], 2), (["registry", "list"], 0), (["registry", "promote", "1"], 2)):
        assert cli.main(command) == code
        assert f"{tmp_path}/home/mlflow.db" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_used_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("feature%2Fsplice", "what?x=1", "a#b", "a;b", "a{b}", "a\nb"):
        monkeypatch.setenv("METALAYER_HOME", str(tmp_path / name))
        with pytest.raises(ConfigError, match="METALAYER_HOME to a path of letters, digits, blanks and"):
            state_dir()
    ended = execute(tmp_path / "feature%2Fsplice", [str(RUN)])
    assert ended.code == 2
    assert "letters, digits, blanks and" in ended.err
    assert ended.err.endswith("exit status 2: bad input or configuration\n")
    assert list(tmp_path.iterdir()) == []
