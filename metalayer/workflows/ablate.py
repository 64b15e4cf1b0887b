"""Which part of the model brings what: variants trained alike on whole genes, judged on genes that none has seen."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metalayer.data.same_genes import known_genes
from metalayer.data.tracks import TrackStore
from metalayer.device import use_threads
from metalayer.errors import ConfigError, MetalayerError
from metalayer.evaluation.ablation import Resampled, ablation_table, compare_variants, resampled
from metalayer.evaluation.calls import SITE_CLASSES
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.plots import ablation_png
from metalayer.evaluation.scored_genes import ScoresOnDisk
from metalayer.files import only_one, publish_file, sha256
from metalayer.inference import Predictor
from metalayer.inference.torch_network import base_probabilities
from metalayer.integrity import unsealed, write_json
from metalayer.models.description import DESCRIPTION, read_description
from metalayer.models.meta import build_model
from metalayer.provenance import code_hash
from metalayer.schema import CLASSES, POSITIONS
from metalayer.settings.door import flattened
from metalayer.settings.encoders import HyenaDnaOptions
from metalayer.settings.evidence import Source, files_of
from metalayer.settings.flat import MetaLayerConfig
from metalayer.settings.network import ModelConfig
from metalayer.settings.sections import EvaluateConfig, TrainConfig
from metalayer.training.trainer import HISTORY, seed_everything
from metalayer.workflows.evaluate import score_positions
from metalayer.workflows.train_genes import (
    TRAIN_TRACKS,
    VALID_TRACKS,
    gene_names,
    read_file,
    read_tracks,
    refuse_crossing,
    score_parts,
    train_on_scores,
)
from metalayer.workflows.train_meta import MODEL
from metalayer.yaml12 import read_mapping

logger = logging.getLogger(__name__)

Settings = Mapping[str, Any]
Files = Mapping[str, Mapping[str, str]]
"""Part (train, valid, test) to its files, each with the SHA-256 of its bytes."""

_SCORES_ALONE: Settings = {
    "sequence_encoder": "none",
    "sequence_encoder_config": {},
    "score_encoder": True,
    "track_encoder": "none",
    "track_encoder_config": {},
    "augment_tracks": False,
}
"""What a variant reads unless its own settings say otherwise."""
_READ = {name for name in _SCORES_ALONE if name != "augment_tracks"}
"""The settings that say which parts a network has."""
_TRACKS: Settings = {"track_encoder": "stages"}
_ENCODERS: Mapping[str, Settings] = {
    "none": {},
    "cnn": {"sequence_encoder": "cnn"},
    "hyenadna": {
        "sequence_encoder": "hyenadna",
        "sequence_encoder_config": {"model_size": "tiny", "pretrained": True, "freeze": True},
    },
    "hyenadna-random": {
        "sequence_encoder": "hyenadna",
        "sequence_encoder_config": {"model_size": "tiny", "pretrained": False},
    },
    "huggingface": {"sequence_encoder": "huggingface"},
}
VARIANTS: Mapping[str, Settings] = {
    **_ENCODERS,
    "tracks": {**_TRACKS, "score_encoder": False},
    **{f"{name}+tracks": {**settings, **_TRACKS} for name, settings in _ENCODERS.items()},
}
"""Built-in variants: name to settings."""
DEFAULT_VARIANTS = ("none", "cnn", "tracks", "cnn+tracks")
"""Those that need neither a checkpoint nor a GPU."""

_ALIKE = set(MetaLayerConfig.model_fields) - {*ModelConfig.model_fields, *TrainConfig.model_fields, "evidence"} | {
    *("training_unit", "crop_bp", "batch_crops", "batch_size", "gradient_accumulation_steps", "easy_share"),
    *("max_epochs", "patience", "early_stopping_metric", "device", "threads", "seed"),
}
"""What a variant may not set: on what, how long and by which figure all are trained."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


TEST_TRACKS, RUNS, INPUTS, JUDGED = "test_tracks.parquet", "runs", "inputs.json", "judged.json"
REPORT, TABLE, PLOT = "ablation.json", "ablation.md", "ablation.png"


def chosen_variants(
    names: Sequence[str], path: Path | None, evidence: Mapping[str, Source] | None = None
) -> dict[str, Settings]:
    """Variants by name, in order.

    Args:
        names: which ones; empty for all of the file, or without one `DEFAULT_VARIANTS`, and with evidence what is left
            of `tracks` without each piece of it, and without all.
        path: YAML of further variants, name to settings, flat or in sections, which replace built-in ones of the same
            name.
        evidence: that all have in common: every variant with a track encoder reads it, but for `NAME-PIECE`, which is
            variant NAME without that piece, and `NAME-evidence`, without any.

    Raises:
        ConfigError: a file that cannot be read, or all names that are unknown or none and variants without settings.
    """
    given = read_mapping(path) if path else {}
    known = {**VARIANTS, **given}
    without = _without_evidence(known, evidence or {})
    usual = [*DEFAULT_VARIANTS, *(name for name in without if name.startswith("tracks-"))]
    known = {**without, **known}
    chosen = list(dict.fromkeys(names)) or list(given) or usual
    mistakes = [f"variant {name!r}: unknown; there are {', '.join(known)}" for name in chosen if name not in known]
    for name, settings in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "base":
            mistakes.append(f"variant {name!r}: a name is letters, digits and . _ + -, and not base")
        elif not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
            mistakes.append(f"variant {name}: given {settings!r}; a variant is settings by name")
        else:
            try:
                known[name] = flattened(settings)
            except ConfigError as error:
                mistakes.append(f"variant {name}: {error}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return {name: known[name] for name in chosen}


def _without_evidence(known: Mapping[str, Settings], evidence: Mapping[str, Source]) -> dict[str, Settings]:
    """Variants with a track encoder without each piece of evidence, and where there are several without all."""
    left = {piece: {name: source for name, source in evidence.items() if name != piece} for piece in evidence}
    left |= {"evidence": {}} if len(evidence) > 1 else {}
    return {
        f"{name}-{piece}": {**settings, "evidence": rest}
        for name, settings in known.items()
        if isinstance(settings, Mapping) and settings.get("track_encoder", "none") != "none"
        for piece, rest in left.items()
    }


def ablate(
    scores: Sequence[Path],
    valid_scores: Sequence[Path],
    test_scores: Sequence[Path],
    config: MetaLayerConfig,
    output_dir: Path,
    *,
    variants: Mapping[str, Settings],
    seeds: Sequence[int],
    evaluation: EvaluateConfig | None = None,
) -> dict[str, Any]:
    """Train every variant with every seed alike, and compare all with the base on the test genes.

    At one seed all variants train on the same crops, validate on the same genes and pass over them `max_epochs`
    times: none stops early, and the best epoch on the validation genes is kept. Writes `ablation.json`,
    `ablation.md`, `ablation.png` and in `runs/<variant>/seed-<seed>/` what `train_on_scores` writes. A run that is
    there already, of the same files, settings and untrained network, is kept, or goes on from its last epoch.

    Args:
        scores: labelled per-nucleotide Parquet files with letters, to train on.
        valid_scores: likewise, to pick the best epoch on; none: genes of `scores`, drawn by each seed.
        test_scores: likewise, to judge on.
        config: what all variants have in common; what it says of encoders is not read.
        output_dir: folder to write.
        variants: name to the settings that make a variant what it is; the first is the reference of the others.
        seeds: of weights, crops and held-out validation genes.
        evaluation: bootstrap and coverage.

    Returns:
        What was written to `ablation.json`: facts of the test genes, seeds, max_epochs, files, base, reference and
        variants, each with name, title, settings, sizes, runs and errors by seed, and `compared` (see
        `compare_variants`). A variant of which a run failed has an error and no figure.

    Raises:
        ConfigError: variants that cannot be configured or built, all of them; nothing was trained.
        ArtifactError: files that cannot be used.
        SplitError: a gene on two sides, or a part without genes.
        EvaluationError: test genes without a donor or an acceptor.
    """
    folder, judged_by = Path(output_dir), evaluation or EvaluateConfig()
    seeds = list(dict.fromkeys(seeds))
    planned = _planned(config, variants, seeds, separate=bool(valid_scores))
    with only_one(folder / "ablate.lock", "give another --output-dir"):
        use_threads(config.threads)
        stores = _test_genes(scores, valid_scores, test_scores, folder / "data", planned)
        genes = _base_genes(stores[0])
        resamples, base = resampled(genes, "base", judged_by)
        files = {
            part: {str(path): sha256(path) for path in paths}
            for part, paths in (("train", scores), ("valid", valid_scores), ("test", test_scores))
        }
        for seed in seeds:
            for variant, store in zip(planned, stores, strict=True):
                _run(folder / RUNS / variant.name / f"seed-{seed}", variant, seed, store, files, judged_by)
        outcomes = {variant.name: None if variant.errors else variant.outcomes for variant in planned}
        compared = compare_variants(base, outcomes, resamples, judged_by.confidence)
        classes = np.sum([np.bincount(gene.labels, minlength=len(CLASSES)) for gene in genes], axis=0)
        report: dict[str, Any] = {
            "unit": "positions",
            "genes": len(genes),
            **resamples.facts(),
            "positions": int(np.sum(classes)),
            "sites": {name: int(n) for name, n in zip(SITE_CLASSES, classes, strict=False)},
            "confidence": judged_by.confidence,
            "resamples": judged_by.n_bootstrap,
            "seeds": seeds,
            "max_epochs": config.max_epochs,
            "files": files,
            "base": compared["base"],
            "reference": compared["reference"],
            "variants": [variant.told(compared["variants"][variant.name]) for variant in planned],
        }
        _publish(folder / REPORT, json.dumps(report, indent=1))
        _publish(folder / TABLE, ablation_table(report))
        ablation_png(report, folder / PLOT)
    return report


@dataclass(frozen=True)
class _Variant:
    """A variant that can be built.

    Attributes:
        name: of its folder.
        title: what it is called in table and plot.
        settings: what makes it what it is.
        configs: by seed.
        parameters: of the network.
        trained_parameters: those that are not frozen.
        outcomes: metrics on the test genes, of one finished run after the other.
        runs: facts of finished runs by seed.
        errors: of failed runs by seed.
    """

    name: str
    title: str
    settings: Settings
    configs: Mapping[int, MetaLayerConfig]
    parameters: int
    trained_parameters: int
    outcomes: list[Resampled] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def told(self, compared: Mapping[str, Any] | None) -> dict[str, Any]:
        """JSON-ready."""
        names = ("name", "title", "settings", "parameters", "trained_parameters", "runs", "errors")
        return {**{name: getattr(self, name) for name in names}, "compared": compared}


def _planned(
    base: MetaLayerConfig, variants: Mapping[str, Settings], seeds: Sequence[int], *, separate: bool
) -> list[_Variant]:
    """The variants, after building each."""
    mistakes, planned = [], []
    for name, settings in variants.items():
        try:
            planned.append(_plan(name, settings, base, seeds, separate=separate))
        except MetalayerError as error:
            mistakes.append(f"variant {name}: {error}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return planned


def _plan(name: str, settings: Settings, base: MetaLayerConfig, seeds: Sequence[int], *, separate: bool) -> _Variant:
    if alike := sorted(_ALIKE & set(settings)):
        raise ConfigError(f"{', '.join(alike)}: alike for all variants; set it in --config")
    common = {**base.given(), "patience": base.max_epochs}
    own = {**_SCORES_ALONE, **settings}
    if own["track_encoder"] == "none":
        own = {"evidence": {}, **own}
    # What is set for all acts in the variants where it can.
    plain = MetaLayerConfig(training_unit="genes", **{k: own[k] for k in _READ & own.keys()})
    shared = {key: value for key, value in common.items() if key not in plain.idle()}
    configs = {seed: MetaLayerConfig.for_scores({**shared, **own, "seed": seed}, separate=separate) for seed in seeds}
    config = configs[seeds[0]]
    parameters = list(build_model(config, config.evidence).parameters())
    return _Variant(
        name,
        _title(name, config),
        config.model_dump(include={*_SCORES_ALONE, *settings}),
        configs,
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
    )


def _title(name: str, config: MetaLayerConfig) -> str:
    """The name, and that an encoder which could have been pretrained was not."""
    options = config.sequence_encoder_config
    if isinstance(options, HyenaDnaOptions) and not options.pretrained:
        return f"{name} (random-initialised {Path(options.model_size).name})"
    return name


def _test_genes(
    scores: Sequence[Path],
    valid_scores: Sequence[Path],
    test_scores: Sequence[Path],
    data: Path,
    planned: Sequence[_Variant],
) -> list[TrackStore]:
    """The test genes as each variant reads them, after refusing those that are, or overlap, genes to train on.

    Those to validate on are refused, too. Variants of one evidence share a file.
    """
    variant = planned[0]
    config = next(iter(variant.configs.values()))  # of files, alike for all but evidence
    read_tracks(scores, valid_scores, data, config)
    table, contigs = gene_names(config)
    made: list[tuple[Mapping[str, Source], TrackStore]] = []
    stores = []
    for own in (next(iter(each.configs.values())) for each in planned):
        there = next((found for evidence, found in made if evidence == own.evidence), None)
        if there is None:
            path = data / (f"{len(made)}-{TEST_TRACKS}" if made else TEST_TRACKS)
            there = read_file(test_scores, path, table, contigs, own).store
            made.append((own.evidence, there))
        stores.append(there)
    store = stores[0]
    tested = known_genes(store, store.genes())
    for name, option in ((TRAIN_TRACKS, "--scores"), (VALID_TRACKS, "--valid-scores")):
        if name == TRAIN_TRACKS or valid_scores:
            part = TrackStore(data / name)
            refuse_crossing(known_genes(part, part.genes()), tested, option, "--test-scores")
    for config in variant.configs.values():
        score_parts(data, bool(valid_scores), config)
    return stores


def _base_genes(store: TrackStore) -> ScoresOnDisk:
    return ScoresOnDisk(
        (
            GeneScores(
                track.gene.gene_id,
                track.gene.interval.chrom,
                track.labels,
                {"base": base_probabilities(track.scores)},
                track.gene,
                track.paralog,
                store.genome_build,
                ignored=track.ignored,
            )
            for track in store.read_many(list(store.genes()))
        ),
        ["base"],
    )


def _run(
    folder: Path, variant: _Variant, seed: int, store: TrackStore, files: Files, evaluation: EvaluateConfig
) -> None:
    """Train and judge one variant with one seed, and note what came of it."""
    logger.info("variant %s, seed %d", variant.title, seed)
    config = variant.configs[seed]
    try:
        _train(folder, config, files)
        variant.outcomes.append(_judged(folder, config, store, list(files["test"].values()), evaluation))
        variant.runs[str(seed)] = _facts(folder)
    except (MetalayerError, RuntimeError, MemoryError) as error:  # torch's own are RuntimeErrors
        known = isinstance(error, MetalayerError)
        variant.errors[str(seed)] = str(error) if known else f"{type(error).__name__}: {error}"
        logger.error("variant %s, seed %d failed: %s", variant.title, seed, error, exc_info=not known)


def _train(folder: Path, config: MetaLayerConfig, files: Files) -> None:
    """Train, unless that was done, or begun, from the same inputs."""
    inputs = {
        "code_hash": code_hash(),
        "files": {part: list(files[part].values()) for part in ("train", "valid")},
        "settings": config.model_dump(mode="json"),
        "names": {
            str(path): sha256(path)
            for path in (config.gene_table, config.aliases, *files_of(config.evidence))
            if path and path.is_file()
        },
        "untrained_network": _network_hash(config),
    }
    if _read(folder / INPUTS) != inputs:
        if folder.exists():
            shutil.rmtree(folder)
        write_json(folder / INPUTS, inputs)
    if (folder / MODEL / DESCRIPTION).exists():
        logger.info("%s is of the same files and settings, and kept", folder)
    else:
        scores, valid_scores = ([Path(path) for path in files[part]] for part in ("train", "valid"))
        train_on_scores(scores, valid_scores, config, folder, resume=True)


def _network_hash(config: MetaLayerConfig) -> str:
    """Of the untrained network: another pretrained encoder at the same place is another network."""
    seed_everything(config.seed)
    model, total = build_model(config, config.evidence), hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        total.update(name.encode())
        total.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _judged(
    folder: Path, config: MetaLayerConfig, store: TrackStore, test_files: list[str], evaluation: EvaluateConfig
) -> Resampled:
    """Metrics of a trained model on the test genes, unless they are there already."""
    path = folder / JUDGED
    of = {"code_hash": code_hash(), "files": test_files, "evaluation": evaluation.model_dump(mode="json")}
    found = _read(path)
    if found is None or found["of"] != of:
        predictor = Predictor.load(folder / MODEL, config.get_device())
        genes = score_positions(predictor, store, list(store.genes()))
        _, values = resampled(genes, "meta", evaluation)
        found = {"of": of, "resampled": {metric: drawn.tolist() for metric, drawn in values.items()}}
        write_json(path, found)
    return {metric: np.asarray(drawn) for metric, drawn in found["resampled"].items()}


def _facts(folder: Path) -> dict[str, Any]:
    """Of a finished run: where its model is, and what training it took and gave."""
    info = read_description(folder / MODEL)
    history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    return {
        "model": str(folder / MODEL),
        "genes": {part: len(info["split"][part]) for part in ("train", "valid")},
        "epochs": len(history) - 1,
        "best_epoch": info["best_epoch"],
        "shrinkage": info["calibration"][POSITIONS]["shrinkage"],
        "seconds": sum(epoch["seconds"] for epoch in history),
    }


def _read(path: Path) -> Any:
    """JSON of a file; None where there is none, or it is damaged: what it says is then found out again."""
    try:
        return unsealed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is damaged: %s", path, error)
        return None


def _publish(path: Path, text: str) -> None:
    with publish_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
