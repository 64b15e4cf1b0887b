"""A registered version with its files on this machine, which are what was registered or refused."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from metalayer import yaml12
from metalayer.environment import without_password
from metalayer.errors import ModelError
from metalayer.files import publish_directory
from metalayer.models.description import DESCRIPTION, WEIGHTS, digest
from metalayer.registry.tracking import default_tracking_uri, service
from metalayer.registry.versions import (
    BUNDLE_ARTIFACT,
    CHAMPION,
    GOLDEN_ARTIFACT,
    ModelVersion,
    model_version,
)
from metalayer.release.folder import FACTS, GOLDEN, release_digest, write_release


@dataclass(frozen=True)
class LocalModel(ModelVersion):
    """A registered version with its files on this machine: the model directory and the golden rows."""

    bundle: Path = Path()
    golden: Path = Path()


def fetch_release(version: ModelVersion, tracking_uri: str | None, folder: Path) -> Path:
    """The release directory of a version, made in `folder`.

    Raises:
        RegistryError: the service cannot be reached or refuses.
        ModelError: the stored model is damaged.
    """
    local = fetch(version.name, version.version, tracking_uri, folder)
    directory = local.bundle.with_name("release")
    directory.mkdir(exist_ok=True)
    facts = {"name": version.name, "version": str(version.version), "alias": CHAMPION, "run_id": version.run_id}
    write_release(directory, local.bundle, local.golden, facts, version.digest)
    return directory


def fetch(name: str, version: int, tracking_uri: str | None, download_to: Path) -> LocalModel:
    """A version with its files.

    Args:
        name: registered name.
        version: of it.
        tracking_uri: of the service; None takes `default_tracking_uri`.
        download_to: keeps one directory a version, and is asked first.

    Raises:
        RegistryError: the service cannot be reached or refuses.
        ModelError: the stored model is damaged.
    """
    import mlflow

    uri = tracking_uri or default_tracking_uri()
    directory = _inside(Path(download_to), name, "the registry") / str(version)
    with service(uri) as client:
        found = model_version(client.get_model_version(name, str(version)))
        damaged = ModelError(
            f"{name} version {version} of {without_password(uri)}: its files are not those that were registered; "
            "restore the artifact store, or move the alias to a version that is whole"
        )
        if not _is(directory, found.digest):
            with tempfile.TemporaryDirectory() as scratch:
                root = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=scratch))
                try:
                    described = yaml12.read(root / "MLmodel")  # mlflow-skinny cannot load it
                    artifacts = described["flavors"]["python_function"]["artifacts"]
                    its_mlmodel = f"{name} version {version}: its MLmodel"
                    files = {
                        one: _inside(root, artifacts[one]["path"], its_mlmodel)
                        for one in (BUNDLE_ARTIFACT, GOLDEN_ARTIFACT)
                    }
                    with publish_directory(directory) as draft:
                        shutil.copytree(files[BUNDLE_ARTIFACT], draft / BUNDLE_ARTIFACT)
                        shutil.copyfile(files[GOLDEN_ARTIFACT], draft / GOLDEN)
                except (KeyError, TypeError, ValueError, FileNotFoundError):
                    raise damaged from None
    if not _is(directory, found.digest):
        raise damaged
    return LocalModel(**vars(found), bundle=directory / BUNDLE_ARTIFACT, golden=directory / GOLDEN)


def _is(directory: Path, expected: str) -> bool:
    """Whether a download is there, complete, and of this digest.

    Versions registered by earlier versions have that of the model alone, or with its golden rows.
    """
    bundle, golden = directory / BUNDLE_ARTIFACT, directory / GOLDEN
    complete = all(path.is_file() for path in (bundle / WEIGHTS, bundle / DESCRIPTION, golden))
    if (bundle / FACTS).is_file():
        return complete and expected == release_digest(bundle, golden)
    return complete and expected in (digest(bundle, golden), digest(bundle))


def _inside(folder: Path, name: str, who: str) -> Path:
    """The path of what the registry names in a folder of ours; `who` names it, for the message.

    Raises:
        ModelError: it lies elsewhere, whether by an absolute path, `..` or a symbolic link.
    """
    path = folder / name
    if path.resolve() == folder.resolve() or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{who} names {name!r}, which is not inside its own folder; nothing was copied. Restore the registry, or "
            "register the model again"
        )
    return path
