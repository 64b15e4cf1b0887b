"""Variants of a file, scored part by part: what `--pipeline variants` does in steps.

A part is a run of records. What is computed of it is kept as `metalayer variants` keeps its answers, so that putting
parts together is what that does when it goes on where it was: every record comes out once, in order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from metalayer.base.installed_tables import annotation_file
from metalayer.device import use_threads
from metalayer.errors import ArtifactError, MetalayerError
from metalayer.files import publish_file, sha256
from metalayer.integrity import PAGE_CHECKSUMS, PARQUET_ERRORS, content_digest, open_parquet
from metalayer.settings.evidence import files_of, moved_sources
from metalayer.settings.sections import VariantsConfig
from metalayer.variants import vcf
from metalayer.variants.answers import from_json, to_json
from metalayer.variants.calls import Sources, opened, weights_of
from metalayer.variants.scoring import Allele, Options
from metalayer.workflows.variants import Outcome, answers, form_of, refuse_forms, write_scored

logger = logging.getLogger(__name__)

_SHARDS = 8
_AT_A_TIME = 1000
_SCHEMA = pa.schema([("number", pa.int64()), ("alleles", pa.string())])
_INDEXES = (".fai", ".gzi")
_VARIANTS, _FASTA, _ANNOTATION, _ALIASES, _WEIGHTS = "variants", "fasta", "annotation", "aliases", "weights"
_CALIBRATION, _EVIDENCE = "calibration", "evidence"


class Files(BaseModel):
    """Files of one folder that a step reads; JSON-ready."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    folder: Path
    """Where they are on the machine that started the run."""
    files: dict[str, str]
    """SHA-256 by name, that of the file that is meant first."""
    whole: bool = False
    """Whether the folder itself is meant."""

    def meant(self, folder: Path) -> Path:
        """What is meant, where the files are in `folder`."""
        return folder if self.whole else folder / next(iter(self.files))


class VariantShard(BaseModel):
    """Records that one step scores; JSON-ready."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    number: int
    """From 1."""
    of: int
    """How many shards there are."""
    first: int
    """Number of its first record, from 0."""
    end: int
    """Behind the last."""


@dataclass(frozen=True)
class VariantPlan:
    """What will be scored.

    Attributes:
        shards: of all records.
        inputs: files by what they are for: variants, fasta, annotation, aliases, calibration, weights:NAME, and
            evidence:0 and so on.
    """

    shards: tuple[VariantShard, ...]
    inputs: dict[str, Files]

    @property
    def files(self) -> dict[Path, str]:
        """SHA-256 by path."""
        return {one.folder / name: digest for one in self.inputs.values() for name, digest in one.files.items()}

    @property
    def copied(self) -> dict[Path, str]:
        """SHA-256 by path of all that its steps read."""
        return self.files

    @property
    def data_hash(self) -> str:
        """SHA-256 over names and contents of the files, in hex."""
        names = {use: one.files for use, one in self.inputs.items()}
        return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()


def plan(config: VariantsConfig) -> VariantPlan:
    """Look at all files, and cut the records into runs of about as many each.

    Raises:
        ConfigError: base models or options that cannot be, or weights that belong to none.
        InputError: files that cannot be used.
    """
    refuse_forms(config.output, form_of(config.output))
    options_of(config)
    with vcf.records_of(config.file, split=config.split) as file:
        records = file.records
    fasta = [config.fasta, *(found for end in _INDEXES if (found := Path(f"{config.fasta}{end}")).is_file())]
    inputs = {_VARIANTS: _files(config.file), _FASTA: _files(*fasta)}
    inputs[_ANNOTATION] = _files(annotation_file(config.annotation))
    if config.aliases:
        inputs[_ALIASES] = _files(config.aliases)
    if config.calibration:
        inputs[_CALIBRATION] = _files(config.calibration)
    inputs |= {f"{_EVIDENCE}:{number}": _files(path) for number, path in enumerate(files_of(config.evidence))}
    for name, path in weights_of(config.bases, config.weights):
        inner = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        inputs[f"{_WEIGHTS}:{name}"] = _files(*inner, whole=path.is_dir())
    count = config.shards or min(_SHARDS, max(1, records))
    cuts = [records * number // count for number in range(count + 1)]
    shards = tuple(VariantShard(number=i, of=count, first=a, end=b) for i, (a, b) in enumerate(pairwise(cuts), 1))
    return VariantPlan(shards, inputs)


def _files(*paths: Path, whole: bool = False) -> Files:
    for path in paths:
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file")
    if not paths:
        raise ArtifactError("a folder of weights without files")
    return Files(folder=paths[0].parent, files={path.name: sha256(path) for path in paths}, whole=whole)


def options_of(config: VariantsConfig) -> Options:
    """How variants are scored."""
    sizes = config.max_length, config.max_ambiguous, config.context
    return Options(config.distance, config.mask, config.flanks, config.way, *sizes)


def sources_of(
    config: VariantsConfig, folders: Mapping[str, Path], inputs: Mapping[str, Files], model: Path | None
) -> Sources:
    """Where scores come from, with the files in the folders where they are on this machine.

    Args:
        config: of the run.
        folders: by use, as `VariantPlan.inputs`.
        inputs: of the plan.
        model: model directory of ours.
    """
    meant = {use: given.meant(folders[use]) for use, given in inputs.items()}
    weights = {use.partition(":")[2]: path for use, path in meant.items() if use.startswith(_WEIGHTS)}
    return Sources(
        meant[_FASTA],
        meant[_ANNOTATION],
        config.bases,
        [f"{name}={path}" for name, path in weights.items()],
        model,
        meant.get(_ALIASES),
        config.device,
        config.precision,
        config.allow_introns,
        moved_sources(config.evidence, [path for use, path in meant.items() if use.startswith(f"{_EVIDENCE}:")]),
    )


@dataclass(frozen=True)
class _Part:
    """A run of the records of a file."""

    whole: vcf.VariantFile
    first: int
    end: int

    @property
    def header(self) -> Sequence[bytes]:
        return self.whole.header

    @property
    def records(self) -> int:
        return self.end - self.first

    def lines(self) -> Iterator[bytes]:
        return islice(self.whole.lines(), self.first, self.end)


def score_shard(
    shard: VariantShard,
    config: VariantsConfig,
    inputs: Mapping[str, Files],
    folders: Mapping[str, Path],
    model: Path | None,
    output: Path,
) -> dict[str, Any]:
    """Score the records of a shard.

    Args:
        shard: which records.
        config: of the run.
        inputs: of the plan.
        folders: where its files are here, by use.
        model: model directory of ours.
        output: Parquet of the records that have a score: number and alleles; appears whole or not at all.

    Returns:
        The manifest: shard, records, scored, facts of what scored, and SHA-256 of the output. JSON-ready.

    Raises:
        ArtifactError: other files than were planned with.
        ConfigError, InputError, ModelError: as of `opened`.
    """
    for use, given in inputs.items():
        for name, digest in given.files.items():
            if sha256(folders[use] / name) != digest:
                raise ArtifactError(f"{folders[use] / name}: changed since the run began; start it again")
    use_threads(config.threads)
    scored = 0
    variants = inputs[_VARIANTS].meant(folders[_VARIANTS])
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(vcf.records_of(variants, split=config.split))
        loaded = stack.enter_context(opened(sources_of(config, folders, inputs, model), options_of(config)))
        logger.info("shard %d of %d: %d records", shard.number, shard.of, shard.end - shard.first)
        draft = stack.enter_context(publish_file(output))
        out = stack.enter_context(pq.ParquetWriter(draft, _SCHEMA, compression="zstd", **PAGE_CHECKSUMS))
        waiting: list[dict[str, Any]] = []
        answered = answers(_Part(file, shard.first, shard.end), loaded, first=shard.first)
        for number, (_, alleles) in enumerate(answered, shard.first):
            if any(allele.genes for allele in alleles):
                scored += 1
                waiting.append({"number": number, "alleles": to_json(alleles)})
            if len(waiting) >= _AT_A_TIME:
                out.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
                waiting.clear()
        out.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
        facts = content_digest(loaded.facts())
    manifest = {"shard": shard.number, "records": shard.end - shard.first, "scored": scored, "facts": facts}
    return manifest | {"sha256": sha256(output)}


class _Parts:
    """Answers of shards, in the order of the records."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._rows = self._read(paths)
        self._next = next(self._rows, None)

    @staticmethod
    def _read(paths: Sequence[Path]) -> Iterator[tuple[int, str]]:
        for path in paths:
            try:
                for batch in open_parquet(path, "run again with --no-cache").iter_batches(_AT_A_TIME):
                    yield from zip(batch["number"].to_pylist(), batch["alleles"].to_pylist(), strict=True)
            except PARQUET_ERRORS as error:
                raise ArtifactError(f"{path}: damaged within ({error}); run again with --no-cache") from None

    def known(self, number: int) -> list[Allele] | None:
        if self._next is None or self._next[0] != number:
            return None
        alleles = from_json(self._next[1])
        self._next = next(self._rows, None)
        return alleles

    def keep(self, number: int, alleles: Sequence[Allele]) -> None:
        raise MetalayerError(f"record {number} has a score that its shard does not have; run again with --no-cache")

    def remove(self) -> None:
        if self._next is not None:
            raise MetalayerError(f"record {self._next[0]} of the shards is none of the file; run again with --no-cache")


def merge_shards(
    config: VariantsConfig, made: VariantPlan, parts: Sequence[tuple[Path, Mapping[str, Any]]], model: Path | None
) -> Outcome:
    """Write all records with what the shards have computed.

    Args:
        config: of the run.
        made: its plan, whose files are on this machine.
        parts: file and manifest of each shard.
        model: model directory of ours.

    Returns:
        As of `metalayer variants`.

    Raises:
        MetalayerError: a shard that is missing, there twice, damaged, or scored with something else.
    """
    numbers = sorted(int(manifest["shard"]) for _, manifest in parts)
    if numbers != [shard.number for shard in made.shards]:
        raise MetalayerError(f"the shards are not put together: given {numbers} of {len(made.shards)}")
    for path, manifest in parts:
        if sha256(path) != manifest["sha256"]:
            raise MetalayerError(f"shard {manifest['shard']}: {path} is not the file that was written")
    folders = {use: given.folder for use, given in made.inputs.items()}
    in_order = sorted(parts, key=lambda part: int(part[1]["shard"]))
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(vcf.records_of(config.file, split=config.split))
        loaded = stack.enter_context(opened(sources_of(config, folders, made.inputs, model), options_of(config)))
        facts = content_digest(loaded.facts())
        others = [manifest["shard"] for _, manifest in in_order if manifest["facts"] != facts]
        if others:
            raise MetalayerError(f"shard {others[0]} was scored with other files or models; run again with --no-cache")
        config.output.parent.mkdir(parents=True, exist_ok=True)
        known = _Parts([path for path, _ in in_order])
        form, calibration = form_of(config.output), config.calibration
        return write_scored(file, {}, config.output, form, loaded, known=known, calibration=calibration)
