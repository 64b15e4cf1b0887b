"""Registering a model: logged to MLflow, seen to score, and made a version.

What is logged is the model directory with its golden rows as a pyfunc model, without pickle, with signature and input
example. A version that the gate rejected becomes `challenger`; `promotion.py` moves `champion`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import polars as pl
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from numpy.typing import NDArray

from metalayer.errors import RegistryError
from metalayer.files import sha256
from metalayer.models.description import content_of, read_description
from metalayer.registry.tracking import EXPERIMENT, default_tracking_uri, experiment, pages, service
from metalayer.registry.versions import (
    ANSWERS,
    ANSWERS_TAG,
    BUNDLE_ARTIFACT,
    CHALLENGER,
    CHAMPION,
    CONTENT_TAG,
    DECISION_TAG,
    DIGEST_TAG,
    GOLDEN_ARTIFACT,
    METRICS_TAG,
    PROMOTED,
    REJECTED,
    find_champion,
    registered_name,
)
from metalayer.release import onnx
from metalayer.release.answer import BASE
from metalayer.release.contract import INDEX, SEQUENCE
from metalayer.release.engine import GOLDEN_TOLERANCE
from metalayer.release.folder import copy_source, pinned, release_digest, runtime, write_facts
from metalayer.release.golden import read_golden, sequence_fields
from metalayer.schema import CLASSES, ROW_SCORES

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

EXAMPLE_ROWS = 3
_ORIGIN_TAGS = ("data_hash", "code_hash", "git_commit", "pipeline_run")
_TAG_LENGTH = 100_000  # what MLflow takes of a tag

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registration:
    """What `register` did.

    Attributes:
        name: registered name.
        version: of the model.
        alias: of that version; None where it passed the gate and is to become champion.
        run_id: MLflow run that it was logged to.
        model_uri: where MLflow has it.
        champion_again: whether the model is the champion's own, so that nothing was registered.
    """

    name: str
    version: int
    alias: str | None
    run_id: str
    model_uri: str
    champion_again: bool = False


def register(
    bundle: Path,
    golden: Path,
    *,
    base_model: str,
    promoted: bool,
    reasons: Sequence[str] = (),
    metrics: Mapping[str, float | None] | None = None,
    held_out: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    answers: Path | None = None,
    description: str = "",
    tracking_uri: str | None = None,
) -> Registration:
    """Register a model: log it, check that the logged model scores, and register it.

    A version that the gate rejected becomes `challenger`. One that it promoted gets no alias here: that is moved
    by `promotion.promote`, once the version is packaged. The same model of the same run is registered once,
    however often this is tried.

    Args:
        bundle: the model directory.
        golden: Parquet of rows with the probabilities expected of them.
        base_model: whose scores it recalibrates.
        promoted: what the gate decided.
        reasons: of the decision, one line each.
        metrics: at promotion; logged to the run too. Those that are not numbers are left out.
        held_out: how right base and meta were on the test genes, for who looks at an answer; JSON-ready.
        tags: further tags of the version (data_hash, git_commit, run ids ...).
        run_id: MLflow run to log to; None makes one.
        answers: what it answered on its evaluation genes (`evaluation.answers`), kept for later comparisons.
        description: of the version, in Markdown.
        tracking_uri: of the service; None takes `default_tracking_uri`.

    Raises:
        RegistryError: the service cannot be reached or refuses, or the logged model does not score its
            golden rows as expected.
        ModelError: a damaged model directory, or ONNX Runtime's answers differ from torch's.
    """
    bundle, golden = Path(bundle), Path(golden)
    uri, name = tracking_uri or default_tracking_uri(), registered_name(base_model)
    info = read_description(bundle)
    numbers = {
        key: float(value) for key, value in (metrics or {}).items() if value is not None and math.isfinite(value)
    }
    all_tags = {
        **(tags or {}),
        "base_model": base_model,
        "schema_hash": info["schema_hash"],
        CONTENT_TAG: content_of(bundle),
        DECISION_TAG: PROMOTED if promoted else REJECTED,
        METRICS_TAG: json.dumps(numbers),
        "reasons": json.dumps(list(reasons)),
    }
    if answers is not None:
        all_tags[ANSWERS_TAG] = sha256(answers)
    for key in _ORIGIN_TAGS:
        if info.get(key) is not None:
            all_tags.setdefault(key, str(info[key]))
    with service(uri) as client:
        version = _registered_before(client, name, run_id, all_tags) if run_id else None
        if version is None:
            run = client.get_run(run_id) if run_id else client.create_run(experiment(client, EXPERIMENT, uri))
            with tempfile.TemporaryDirectory() as scratch:
                prepared = Path(shutil.copytree(bundle, Path(scratch) / BUNDLE_ARTIFACT))
                onnx.prepare(prepared)  # servers that follow the champion take it from here
                origin = {key: all_tags[key] for key in _ORIGIN_TAGS if key in all_tags}
                write_facts(prepared, {"metrics": numbers, **({"held_out": held_out} if held_out else {}), **origin})
                all_tags[DIGEST_TAG] = release_digest(prepared, golden)
                model_uri = _log_model(client, run, prepared, golden, answers, numbers)
            _create_name(client, name, base_model)
            version = client.create_model_version(
                name,
                model_uri,
                run_id=run.info.run_id,
                tags={key: str(value)[:_TAG_LENGTH] for key, value in all_tags.items()},
                model_id=model_uri.removeprefix("models:/"),
                description=description or None,
            )
        if not promoted:
            client.set_registered_model_alias(name, CHALLENGER, version.version)
    alias = None if promoted else CHALLENGER
    logger.info("registered %s version %s%s", name, version.version, f" as {alias}" if alias else "")
    return Registration(name, int(version.version), alias, version.run_id, version.source)


def champion_again(bundle: Path, base_model: str, tracking_uri: str | None = None) -> Registration | None:
    """The champion, where a model is its own again by what its answers depend on (`bundle.content_of`).

    Such a model is not to be registered: it would be one more version that answers the same.

    Raises:
        RegistryError: the service cannot be reached or refuses.
        ModelError, SchemaError: a damaged model directory, or one of another feature schema.
    """
    name, content = registered_name(base_model), content_of(bundle)
    champion = find_champion(name, tracking_uri)
    if champion is None or champion.tags.get(CONTENT_TAG) != content:
        return None
    with service(tracking_uri or default_tracking_uri()) as client:
        stored = client.get_model_version(name, str(champion.version))
    logger.info("the model is that of %s version %d, the champion: it is not registered again", name, champion.version)
    return Registration(name, champion.version, CHAMPION, stored.run_id, stored.source, champion_again=True)


def _log_model(
    client: mlflow.MlflowClient,
    run: Run,
    bundle: Path,
    golden: Path,
    answers: Path | None,
    metrics: Mapping[str, float],
) -> str:
    """Log model and metrics to the run; returns the URI of the logged model, which was seen to score."""
    client.log_batch(run.info.run_id, metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()])
    example, expected, signature = _asked(golden)
    with tempfile.TemporaryDirectory() as scratch, _in_run(run), _no_bytecode():
        kept = {} if answers is None else {"answers": str(shutil.copyfile(answers, Path(scratch) / ANSWERS))}
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={BUNDLE_ARTIFACT: str(bundle), GOLDEN_ARTIFACT: str(golden), **kept},
            code_paths=[str(copy_source(Path(scratch)))],
            signature=signature,
            input_example=example.head(EXAMPLE_ROWS),
            pip_requirements=pinned(*runtime(bundle), "mlflow", "pandas"),
        )
    with _no_bytecode():
        answered = mlflow.pyfunc.load_model(logged.model_uri).predict(example)
    given = np.array([np.concatenate(answered[name].map(np.atleast_1d).to_list()) for name in CLASSES]).T
    difference = float(np.abs(given - expected).max())
    if not difference <= GOLDEN_TOLERANCE:
        raise RegistryError(
            f"the logged model differs by {difference:.2g} from the evaluated one on the golden rows, allowed is "
            f"{GOLDEN_TOLERANCE:g}; not registered. Evaluate and register in one environment"
        )
    return str(logged.model_uri)


def _asked(golden: Path) -> tuple[pd.DataFrame, NDArray[np.float64], ModelSignature]:
    """Golden requests as MLflow is given them, rows or sequences, the answers expected, (n, 3), and the signature."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    table, found = pl.read_parquet(golden), read_golden(golden)
    kind: Any = "double"
    if found.rows is None:
        names, kind = sequence_fields(table.columns), Array(DataType.double)
        columns = [ColSpec("string" if name == SEQUENCE else kind, name) for name in names]
    else:
        names = [SEQUENCE, *ROW_SCORES, INDEX]
        table = table.cast({INDEX: pl.Int64})
        columns = [ColSpec("string", SEQUENCE), *(ColSpec(kind, name) for name in ROW_SCORES)]
        columns.append(ColSpec("long", INDEX, required=False))
    example = pd.DataFrame(table.select(names).to_dicts()) if found.rows is None else table.select(names).to_pandas()
    answers = Schema([ColSpec(kind, name) for name in CLASSES])
    parameters = ParamSchema([ParamSpec(BASE, DataType.boolean, False)])
    return example, found.answers, ModelSignature(Schema(columns), answers, parameters)


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """MLflow imports a model's code where it is stored, and Python would leave its bytecode there."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextlib.contextmanager
def _in_run(run: Run) -> Iterator[None]:
    """Make the run MLflow's active one; a run that was active already stays so."""
    active = mlflow.active_run()
    if active is not None and active.info.run_id == run.info.run_id:
        yield
        return
    with mlflow.start_run(run_id=run.info.run_id, nested=active is not None):
        yield


def _create_name(client: mlflow.MlflowClient, name: str, base_model: str) -> None:
    try:
        text = f"Recalibrated donor, acceptor and neither probabilities from the scores of {base_model}."
        client.create_registered_model(name, tags={"base_model": base_model}, description=text)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _registered_before(
    client: mlflow.MlflowClient, name: str, run_id: str, tags: Mapping[str, str]
) -> MlflowVersion | None:
    """The version that an earlier attempt of the same run registered, with the same model and decision."""
    found = pages(client.search_model_versions, filter_string=f"run_id = '{run_id}'", order_by=["version_number ASC"])
    for one in found:
        if one.name == name and all(one.tags.get(key) == tags[key] for key in (CONTENT_TAG, DECISION_TAG)):
            return one
    return None
