"""Registered versions, and the aliases `champion` and `challenger`: one registered name per base model.

`line.py` keeps which versions were champion, and `promotion.py` moves the alias.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from metalayer.errors import InputError
from metalayer.registry import listing
from metalayer.registry.tracking import bring_up_to_date, default_tracking_uri, not_made_yet, pages, service
from metalayer.schema import bases_of

if TYPE_CHECKING:
    import mlflow

CHAMPION, CHALLENGER = "champion", "challenger"
BENTO_TAG, DECISION_TAG, METRICS_TAG = "bento_tag", "decision", "metrics"
DIGEST_TAG, CONTENT_TAG = "digest", "content"
"""Of all that was registered, with where it comes from; and of what its answers depend on (`bundle.content_of`)."""
BUNDLE_ARTIFACT, GOLDEN_ARTIFACT = "bundle", "golden"
"""Names of a version's files in MLflow: the model directory, and its golden rows."""
ANSWERS, ANSWERS_TAG = "answers.parquet", "answers_sha256"
PROMOTED, REJECTED = "promoted", "rejected"
NAME_PREFIX = "metalayer-"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version."""

    name: str
    version: int
    run_id: str | None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of all that was registered; empty of a version that something else registered."""
        return self.tags.get(DIGEST_TAG, "")


def registered_name(base_model: str) -> str:
    """The registered name of the models over a base model, or over several: `a+b` is no name to BentoML."""
    return f"{NAME_PREFIX}{'-and-'.join(bases_of(base_model))}"


def find_champion(name: str, tracking_uri: str | None = None) -> ModelVersion | None:
    """The version that carries the alias `champion`, or None.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    uri = tracking_uri or default_tracking_uri()
    if not_made_yet(uri):
        return None
    with service(uri) as client:
        return by_alias(client, name, CHAMPION)


def find_version(name: str, version: str, tracking_uri: str | None = None) -> ModelVersion | None:
    """A registered version, or None where it was deleted or never registered.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    with service(tracking_uri or default_tracking_uri()) as client:
        from mlflow.exceptions import MlflowException

        try:
            return model_version(client.get_model_version(name, version))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def champions(tracking_uri: str | None = None) -> list[ModelVersion]:
    """The champion of every model of ours that has one, by name.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    return [version for version in all_versions(tracking_uri) if CHAMPION in version.aliases]


def all_versions(tracking_uri: str | None = None) -> list[ModelVersion]:
    """Every version of every model of ours, by name and then number; a name is ours where one of its versions is.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    uri = tracking_uri or default_tracking_uri()
    if not_made_yet(uri):
        return []
    if uri.startswith("sqlite:"):
        bring_up_to_date(uri)
    if (listed := listing.read(uri, NAME_PREFIX)) is not None:
        found = [replace(model_version(one), aliases=tuple(sorted(one.aliases))) for one in listed]
    else:
        found = _asked(uri)
    ours_by_name = {version.name for version in found if version.digest}
    return sorted(
        (version for version in found if version.name in ours_by_name),
        key=lambda version: (version.name, version.version),
    )


def _asked(uri: str) -> list[ModelVersion]:
    """Every version of the names that begin as ours, by MLflow itself."""
    found: list[ModelVersion] = []
    with service(uri) as client:
        ours = f"name LIKE '{NAME_PREFIX}%'"
        aliases: dict[tuple[str, int], list[str]] = {}
        for model in pages(client.search_registered_models, filter_string=ours):
            for alias, number in sorted(model.aliases.items()):
                aliases.setdefault((model.name, int(number)), []).append(alias)
        for one in pages(client.search_model_versions, filter_string=ours, order_by=["name ASC", "version_number ASC"]):
            version = model_version(one)
            found.append(replace(version, aliases=tuple(aliases.get((version.name, version.version), ()))))
    return found


def known_version(name: str, version: int, tracking_uri: str | None = None) -> ModelVersion:
    """A registered version.

    Raises:
        InputError: there is none of that name and number.
        RegistryError: the service cannot be reached or refuses.
    """
    found = [one for one in all_versions(tracking_uri) if one.name == name]
    for one in found:
        if one.version == version:
            return one
    there = ", ".join(str(one.version) for one in found) or "none"
    raise InputError(f"{name} has no version {version}; there are: {there}")


def set_bento_tag(name: str, version: int, tag: str, tracking_uri: str | None = None) -> None:
    """Note on a version which Bento was built from it.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    with service(tracking_uri or default_tracking_uri()) as client:
        client.set_model_version_tag(name, str(version), BENTO_TAG, tag)


def name_tags(client: mlflow.MlflowClient, name: str) -> dict[str, str]:
    """Tags of a registered name; none where it is not registered."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_registered_model(name).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def by_alias(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version of a registered name that carries an alias; None where none does."""
    from mlflow.exceptions import MlflowException

    try:
        return model_version(client.get_model_version_by_alias(name, alias))
    except MlflowException as error:
        absent = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        if error.error_code in absent and re.search(r"not found", str(error), re.IGNORECASE):
            return None
        raise


def model_version(found: Any) -> ModelVersion:
    """What MLflow says of a version."""
    if not str(found.version).isdecimal():
        from mlflow.exceptions import MlflowException

        raise MlflowException(f"a version of {found.name!r} has no number, but {found.version!r}")
    return ModelVersion(found.name, int(found.version), found.run_id or None, dict(found.tags))
