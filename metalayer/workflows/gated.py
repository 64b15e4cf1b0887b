"""From a model directory to champion or challenger: judged, registered, packaged, promoted.

What the pipeline's steps do one by one, and `metalayer register` in one go.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalayer import yaml12
from metalayer.base.origin import HUMAN_CHROMS, unseen_chroms
from metalayer.errors import ConfigError
from metalayer.evaluation.gate import new_to_base
from metalayer.genome import is_human_build
from metalayer.schema import bases_of
from metalayer.settings.run import RunConfig

if TYPE_CHECKING:
    from metalayer.registry.registration import Registration

logger = logging.getLogger(__name__)

REJECTED_STATUS = 3
"""Exit status of a command whose model the gate rejected."""
_LINK = re.compile(r'<a href="[^"#:]+">(.*?)</a>', re.DOTALL)
"""Of a report to a file beside it: drift page and errors."""


def check_head(head: str, base_model: str) -> None:
    """Refuse a network alone over several base models: it corrects their mean, which no request carries.

    Args:
        head: `model.head`.
        base_model: one, or several as in `schema.bases_of`.

    Raises:
        ConfigError: it is one.
    """
    bases = bases_of(base_model)
    if head == "network" and len(bases) > 1:
        raise ConfigError(
            f"model.head: given network with base models {', '.join(bases)}, of which it reads the mean alone; set it "
            "to stack, or to both"
        )


def check_held_out(config: RunConfig, build: str | None) -> None:
    """Refuse, before anything is trained, test chromosomes that the base model was trained on, where it has others.

    Of one that was trained on every human chromosome it is logged that the gate will reject.

    Args:
        config: the run.
        build: genome build of its files; None where unknown, of which nothing is said.

    Raises:
        ConfigError: all test chromosomes are human ones that the base model was trained on.
    """
    base_model, test, new = config.data.base_model, config.split.test_chroms, unseen_chroms(config.data.base_model)
    if new is None or config.gate.allow_seen_by_base or not (build and is_human_build(build)):
        return
    if not new:
        logger.warning(
            "%s, as published, was trained on every human chromosome, so the gate will reject the model: %s",
            *(base_model, new_to_base(new)),
        )
    elif config.split.by == "chromosome" and all(chrom in HUMAN_CHROMS and chrom not in new for chrom in test):
        raise ConfigError(
            f"split.test_chroms: given {', '.join(test)}, on which {base_model}, as published, was trained, so no test "
            f"gene would be held out of it; choose among {', '.join(new)}, or count them all the same with "
            "gate.allow_seen_by_base=true"
        )


def judge(
    bundle: Path,
    rows: Path,
    tracks: Path | None,
    manifest: Mapping[str, Any],
    config: RunConfig,
    folder: Path,
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Evaluate a model on its test genes, against its base and the champions of that base as they stand now.

    Args:
        bundle: the model directory.
        rows: labelled rows.
        tracks: canonical per-nucleotide scores, if there are any.
        manifest: of `make_split`; its test genes are read.
        config: the run.
        folder: gets what `evaluate_bundle` writes.
        tracking_uri: of the registry; None takes its default.

    Returns:
        The evaluation, see `evaluate_bundle`.
    """
    from metalayer.registry import evidence, versions
    from metalayer.workflows.champions import line_of_champions
    from metalayer.workflows.evaluate import evaluate_bundle

    name = versions.registered_name(config.data.base_model)
    return evaluate_bundle(
        bundle,
        rows,
        tracks,
        manifest,
        config,
        line_of_champions(name, tracking_uri, folder),
        folder,
        lambda test_set, digest: evidence.decisions_before(name, test_set, digest, tracking_uri),
    )


def enter(
    bundle: Path,
    golden: Path,
    answers: Path,
    evaluation: Mapping[str, Any],
    decision: Mapping[str, Any],
    base_model: str,
    facts: Mapping[str, str],
    tracking_uri: str | None = None,
    *,
    run_id: str | None = None,
) -> Registration:
    """Register a model with its decision and the reasons, unless it is the champion's own; the champion stays for now.

    Args:
        bundle: the model directory.
        golden: rows with the answers that it must give.
        answers: what it answered on its test genes.
        evaluation: of `judge`.
        decision: of the gate.
        base_model: whose scores it recalibrates.
        facts: tags of the version, beside those of the evaluation.
        tracking_uri: of the registry; None takes its default.
        run_id: MLflow run to log to; None makes one.
    """
    from metalayer.evaluation.notes import version_note
    from metalayer.models.description import read_description
    from metalayer.registry import registration

    return registration.champion_again(bundle, base_model, tracking_uri) or registration.register(
        bundle,
        golden,
        base_model=base_model,
        promoted=decision["promoted"],
        reasons=[reason["text"] for reason in decision["reasons"]],
        metrics=served_metrics(evaluation),
        held_out=held_out(evaluation),
        tags={**facts, **judged_tags(evaluation)},
        run_id=run_id,
        answers=answers,
        description=version_note(evaluation, decision, read_description(bundle)),
        tracking_uri=tracking_uri,
    )


def record(
    run_id: str,
    evaluation: Mapping[str, Any],
    decision: Mapping[str, Any],
    report: Path,
    config: RunConfig,
    data: Mapping[str, str],
    parts: Mapping[str, Any],
    tracking_uri: str | None = None,
) -> None:
    """Put on a run of MLflow what a person looks for there: description, report, plots, configuration and data.

    Args:
        run_id: of MLflow.
        evaluation: of `judge`.
        decision: of the gate.
        report: the page; its links to what lies elsewhere, drift page and errors, are left out.
        config: the run.
        data: digest of all that was read, by its use, `training` or `test`; the test genes' own digest is added.
        parts: manifest of the split.
        tracking_uri: of the registry; None takes its default.
    """
    from metalayer.evaluation import notes, plots
    from metalayer.registry.run_contents import DataSet, log_contents

    judged = evaluation[evaluation["primary"]]
    files = {
        "report.html": _LINK.sub(r"\1", report.read_text(encoding="utf-8")),
        **{f"plots/{name}": text for name, text in plots.as_files(judged).items()},
        "config.yaml": yaml12.dump(config.of_training()),
        "evaluation.json": json.dumps(evaluation, indent=1),
        "decision.json": json.dumps(decision, indent=1),
    }
    sizes = {
        name: {key: value if key != "genes" else len(value) for key, value in here.items()}
        for name, here in parts.items()
        if name in ("train", "valid", "test") and isinstance(here, Mapping)
    }
    base, place = config.data.base_model, str(config.data.data_root)
    read = [DataSet(f"{base}, {use} files", digest, place, use, sizes) for use, digest in data.items()]
    test = {name: judged[name] for name in ("unit", "genes", "clusters", "positions", "sites")}
    read.append(DataSet(f"{base}, test genes", evaluation["looks"]["test_set"], place, "test", test))
    log_contents(run_id, notes.run_note(evaluation, decision), files, read, tracking_uri)


def package(
    registration: Mapping[str, Any], decision: Mapping[str, Any], tracking_uri: str | None = None
) -> dict[str, Any]:
    """Build the Bento of a version that passed the gate from what the registry holds.

    Returns:
        tag: of the Bento; None where there is none to build. reason: in words.
    """
    if not decision["promoted"]:
        return {"tag": None, "reason": "not packaged: the gate rejected the model"}
    if registration["champion_again"]:
        return {"tag": None, "reason": "not packaged: the model is the champion's own"}
    from metalayer.registry import versions
    from metalayer.registry.bento import package_version

    version = versions.known_version(registration["name"], registration["version"], tracking_uri)
    return {"tag": package_version(version, tracking_uri), "reason": "packaged from the registered version"}


def promote(
    registration: Mapping[str, Any],
    bento: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Move the alias to a version that has a Bento; one without stays what `enter` made it.

    Returns:
        alias: of the version now; instead_of: the champion until now.

    Raises:
        InputError: another champion by now than the evaluation compared with.
    """
    from metalayer.registry import promotion, versions

    if bento["tag"] is None:
        return {"alias": registration["alias"], "instead_of": None}
    compared_with = (evaluation["champion"] or {}).get("version")
    move = promotion.promote(
        registration["name"],
        registration["version"],
        tracking_uri,
        bento=bento["tag"],
        instead_of=[compared_with],
    )
    return {"alias": versions.CHAMPION, "instead_of": move.instead_of}


def judged_tags(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Which test genes judged which model, for the run and the version: later runs count it."""
    from metalayer.registry.evidence import MODEL_TAG, TEST_SET_TAG

    looks = evaluation["looks"]
    return {TEST_SET_TAG: looks["test_set"], MODEL_TAG: looks["model_digest"]}


def served_metrics(evaluation: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics of the model on the test genes; `rows_...` those of its answers to rows, where they are others."""
    metrics = dict(evaluation[evaluation["primary"]]["meta"])
    rows = evaluation.get("row_answers")
    return metrics | ({f"rows_{metric}": value for metric, value in rows["meta"].items()} if rows else {})


def held_out(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a server can say of how right base and meta were on the test genes, JSON-ready.

    Returns:
        metrics: of `base` and `meta`, by name. bins: likewise, of positions by their P(donor) + P(acceptor): low, high,
        count, and sites, how many of them were any.
    """
    report, kept = evaluation[evaluation["primary"]], ("low", "high", "count", "sites")
    return {
        "metrics": {who: finite(report[who]) for who in ("base", "meta")},
        "bins": {
            who: [{name: one[name] for name in kept} for one in report["calibration"][who]["bins"]]
            for who in ("base", "meta")
        },
    }


def test_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of base and meta on the test genes, their intervals and their difference, by flat name."""
    report = evaluation[evaluation["primary"]]
    flat: dict[str, float] = {}
    for who in ("base", "meta"):
        flat |= {f"{who}_{metric}": value for metric, value in report[who].items()}
        for metric, (low, high) in report["intervals"][who].items():
            flat |= {f"{who}_{metric}_low": low, f"{who}_{metric}_high": high}
        for figure in ("slope", "intercept", "brier"):
            found, name = report["calibration"][who][figure], f"{who}_calibration_{figure}"
            flat |= {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
    for metric, value in report["difference"].items():
        flat |= {f"difference_{metric}": value["value"], f"difference_{metric}_low": value["low"]}
    of_rows = {name: value for name, value in served_metrics(evaluation).items() if name.startswith("rows_")}
    return finite({**flat, **of_rows})


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Those values that are finite numbers, as MLflow takes them."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
