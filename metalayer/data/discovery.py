"""Which files belong to a base model: found by name, never guessed between builds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metalayer.data.nucleotide_scores import base_models_in
from metalayer.errors import ArtifactError
from metalayer.files import sha256
from metalayer.genome import chrom_in_file_names, chrom_of_file_name, normalise_chrom, same_build
from metalayer.integrity import FILES, PARQUET_ERRORS, SEAL, open_parquet, unsealed
from metalayer.schema import bases_of
from metalayer.settings.evidence import files_of
from metalayer.settings.sections import DataConfig

MANIFESTS = ("manifest.json", "base_layer_*.json")
"""Of a data root: a simulation, and the passes of base models. Other files of these names list no files of ours."""
_OURS = '"format": "metalayer '
_LEVELS = 6
"""Folders above a file in which its manifest may be."""
_ARTIFACT_NAME = re.compile(r"^analysis_sequences_(?P<chrom>.+)_chunk_(?P<first>\d+)_(?P<last>\d+)\.tsv(\.gz|\.zst)?$")


@dataclass(frozen=True)
class ArtifactFile:
    """One chunk of artifact rows; `chrom` is what the file name says, without `chr`."""

    path: Path
    chrom: str


@dataclass(frozen=True)
class BaseLayerFiles:
    """All files of one base model.

    Attributes:
        directory: folder of the artifact rows; of the per-nucleotide scores where there are no rows.
        genome_build: from the folder, None where `artifacts_dir` was given without one.
        annotation_source: from the folder, likewise.
        artifacts: chunks, ordered by name; none where there are per-nucleotide scores alone.
        nucleotide_scores: per-nucleotide score files; perhaps none.
        gene_table: the gene table, if there is one.
        variants: the SpliceVarDB download, where variants are asked for.
        aliases: names of contigs, if they are given.
        evidence: files of `data.evidence`.
    """

    directory: Path
    genome_build: str | None
    annotation_source: str | None
    artifacts: tuple[ArtifactFile, ...]
    nucleotide_scores: tuple[Path, ...]
    gene_table: Path | None
    variants: Path | None
    aliases: Path | None = None
    evidence: tuple[Path, ...] = ()

    def all_paths(self) -> list[Path]:
        """Every input file."""
        extra = [path for path in (self.gene_table, self.variants, self.aliases) if path]
        return [item.path for item in self.artifacts] + list(self.nucleotide_scores) + extra + list(self.evidence)


def find_files(config: DataConfig) -> BaseLayerFiles:
    """Find the files of `config.base_model`: artifact rows, per-nucleotide scores, or both.

    Raises:
        ArtifactError: neither of them; no such folder (naming the base models that exist), several builds or sources
            without a choice, no chunk, a chunk with another name, or a named file that is not there.
    """
    alone = _scores_alone(config)
    directory, source, build = alone or _artifact_directory(config)
    artifacts = []
    for path in sorted([*directory.glob("analysis_sequences_*.tsv"), *directory.glob("analysis_sequences_*.tsv.*")]):
        match = _ARTIFACT_NAME.match(path.name)
        if not match:
            raise ArtifactError(
                f"{path}: expected a name of the form analysis_sequences_<chrom>_chunk_<first>_<last>.tsv, or .tsv.gz "
                "or .tsv.zst; rename or unpack the file, or move it away"
            )
        artifacts.append(ArtifactFile(path, chrom_of_file_name(match["chrom"])))
    if not artifacts and not alone:
        raise ArtifactError(
            f"no analysis_sequences_<chrom>_chunk_<first>_<last>.tsv, or .tsv.gz, in {directory}{_others(directory)}; "
            "run the base-layer pass, or set data.artifacts_dir to the folder that holds them"
        )
    return BaseLayerFiles(
        directory=directory,
        genome_build=build,
        annotation_source=source,
        artifacts=tuple(artifacts),
        nucleotide_scores=_nucleotide_scores(config, directory),
        gene_table=_optional(config.gene_table, config.data_root / "genes.tsv", "data.gene_table"),
        variants=_variants(config),
        aliases=_optional(config.aliases, None, "data.aliases"),
        evidence=_evidence(config),
    )


def _evidence(config: DataConfig) -> tuple[Path, ...]:
    paths = tuple(files_of(config.evidence))
    for path in paths:
        if not path.is_file():
            raise ArtifactError(f"data.evidence: given {path}, which is no file")
    return paths


def _scores_alone(config: DataConfig) -> tuple[Path, str | None, str | None] | None:
    """Folder, source and build where the base model has per-nucleotide Parquet and no folder of artifact rows.

    Rows are of one base model: several have per-nucleotide scores alone.
    """
    several = len(bases_of(config.base_model)) > 1
    rows = [] if several else config.data_root.glob(f"data/*/*/{config.base_model}_eval/meta_models")
    if config.artifacts_dir is not None or any(rows):
        if several:
            raise ArtifactError(
                f"data.artifacts_dir: given {config.artifacts_dir} with several base models, which are read from "
                "per-nucleotide scores; leave it out"
            )
        return None
    if not _scores_with_letters(config):
        if several:
            raise ArtifactError(_unmerged(config))
        return None
    return _scores_folder(config), config.annotation_source, config.genome_build


def _others(directory: Path) -> str:
    """What a folder without artifacts holds instead, in words."""
    names = sorted(path.name for path in directory.iterdir())
    return f", which holds {', '.join(names[:3])}{' ...' * (len(names) > 3)}" if names else ", which is empty"


def find_score_files(config: DataConfig) -> tuple[Path, ...]:
    """The per-nucleotide Parquet files of `config.base_model`, all in one folder, with or without rows beside them.

    Raises:
        ArtifactError: there is none.
    """
    files = _scores_with_letters(config)
    if not files and len(bases_of(config.base_model)) > 1:
        raise ArtifactError(_unmerged(config))
    if not files:
        raise ArtifactError(
            f"no {config.base_model}_*.parquet in {_scores_folder(config)}: whole genes are scored from per-nucleotide "
            "files. Write them with the base-layer pass, or set data.nucleotide_scores to their folder; rows alone "
            "are scored by `metalayer score`"
        )
    return files


def check_written(paths: Sequence[Path]) -> None:
    """See that files of a base layer are as they were written, where its manifest is in a folder above them.

    Files of others have no manifest, and are not looked at.

    Raises:
        ArtifactError: one was changed or is damaged, or the manifest is.
    """
    listed: dict[Path, dict[str, tuple[str, Path]]] = {}
    for path in paths:
        written_as(path, sha256, listed)


def written_as(
    path: Path, digest_of: Callable[[Path], str], listed: dict[Path, dict[str, tuple[str, Path]]] | None = None
) -> None:
    """As `check_written`, of one file.

    Args:
        path: of the file.
        digest_of: gives its SHA-256; not asked where no manifest lists it.
        listed: what the manifests of a folder list; filled, for the next file.
    """
    listed = {} if listed is None else listed
    path = Path(path).resolve()
    for folder in list(path.parents)[:_LEVELS]:
        if folder not in listed:
            listed[folder] = _listed(folder)
        expected, manifest = listed[folder].get(path.relative_to(folder).as_posix(), ("", path))
        if expected and digest_of(path) != expected:
            raise ArtifactError(
                f"{path} is damaged or was changed since it was written: {manifest} lists another SHA-256. Copy it "
                f"again, or write it again; if it was changed on purpose, remove {manifest.name}"
            )
        if expected:
            return


def _listed(folder: Path) -> dict[str, tuple[str, Path]]:
    """What the manifests in a folder list: SHA-256 and manifest by the name below the folder."""
    found: dict[str, tuple[str, Path]] = {}
    for manifest in sorted(path for pattern in MANIFESTS for path in folder.glob(pattern)):
        text = manifest.read_text(encoding="utf-8", errors="replace")
        if _OURS not in text:
            continue
        try:
            content = unsealed(text) if f'"{SEAL}"' in text else json.loads(text)  # earlier versions have no seal
        except ValueError as error:
            raise ArtifactError(
                f"{manifest} is damaged: {error}; copy it again, or remove it if its files are known to be whole"
            ) from None
        found |= {name: (digest, manifest) for name, digest in content.get(FILES, {}).items()}
    return found


def _artifact_directory(config: DataConfig) -> tuple[Path, str | None, str | None]:
    if config.artifacts_dir is not None:
        if not config.artifacts_dir.is_dir():
            raise ArtifactError(f"data.artifacts_dir: given {config.artifacts_dir}, which is not a folder")
        return config.artifacts_dir, config.annotation_source, config.genome_build
    root = config.data_root / "data"
    if not root.is_dir():
        why, hint = _no_root(config.data_root)
        raise ArtifactError(
            f"data.data_root: given {config.data_root}, {why}; expected "
            f"{root}/<annotation_source>/<build>/{config.base_model}_eval/meta_models/analysis_sequences_*.tsv, or "
            f"{_scores_folder(config)}/{config.base_model}_<chrom>.parquet{hint}"
        )
    found, wanted = [], config.genome_build
    for path in sorted(root.glob(f"*/*/{config.base_model}_eval/meta_models")):
        source, build = path.parts[-4], path.parts[-3]
        if config.annotation_source in (None, source) and (wanted is None or same_build(wanted, build)):
            found.append((path, source, build))
    if any(build == wanted for _, _, build in found):  # of folders of one build, that of the very name
        found = [line for line in found if line[2] == wanted]
    if not found:
        existing = sorted({path.name.removesuffix("_eval") for path in root.glob("*/*/*_eval")})
        chosen = [v for v in (config.annotation_source, config.genome_build) if v]
        where = f" under {'/'.join(chosen)}" if chosen else ""
        raise ArtifactError(
            f"data.base_model: no artifacts of {config.base_model!r}{where} in {root}; there are "
            f"{', '.join(existing) or 'none'}. Expected a folder <annotation_source>/<build>/{config.base_model}_eval, "
            f"or {_scores_folder(config)}/{config.base_model}_<chrom>.parquet"
        )
    if len(found) > 1:
        choices = ", ".join(f"{source}/{build}" for _, source, build in found)
        raise ArtifactError(
            f"base model {config.base_model!r} has artifacts of several sources or builds in {root}: {choices}. "
            "Genome builds are never mixed: choose with data.annotation_source and data.genome_build"
        )
    return found[0]


def _no_root(given: Path) -> tuple[str, str]:
    """Why a folder is no data root, and a sentence on what may be meant."""
    if not given.is_dir():
        return "which is a file and not a folder" if given.exists() else "which is not there", ""
    why = "which has no folder data/"
    if any(given.glob("*/*/*_eval/meta_models")):
        return why, f". It looks like that folder itself: is {given.parent} meant?"
    for path in (given, given / "meta_models"):
        if any(path.glob("analysis_sequences_*")):
            return why, f". {path} holds the rows themselves: set data.artifacts_dir to it"
    roots = sorted(path.parents[4] for path in given.glob("*/data/*/*/*_eval/meta_models"))
    return why, f". Is {roots[0]} meant?" if roots else ""


def _nucleotide_scores(config: DataConfig, directory: Path) -> tuple[Path, ...]:
    if config.nucleotide_scores is not None and not config.nucleotide_scores.is_dir():
        raise ArtifactError(f"data.nucleotide_scores: given {config.nucleotide_scores}, which is not a folder")
    return _scores_with_letters(config) or tuple(
        sorted([*directory.glob("nucleotide_scores*.tsv"), *directory.glob("nucleotide_scores*.tsv.gz")])
    )


def _scores_folder(config: DataConfig) -> Path:
    return config.nucleotide_scores or config.data_root / "nucleotide_scores"


def _scores_with_letters(config: DataConfig) -> tuple[Path, ...]:
    """Files that are named after the base model, else those that hold it, or all of several, side by side."""
    folder, wanted = _scores_folder(config), set(bases_of(config.base_model))
    named = tuple(
        path
        for path in sorted(folder.glob(f"{config.base_model}_*.parquet"))
        if not _is_other_model(path, config.base_model)
    )
    if named and len(wanted) == 1:
        return named
    return tuple(path for path in sorted(folder.glob("*.parquet")) if wanted <= set(base_models_in(path)))


def _unmerged(config: DataConfig) -> str:
    """What to do where no file holds the scores of several base models side by side."""
    folder, names = _scores_folder(config), bases_of(config.base_model)
    each = [f"{folder}/{name}_*.parquet" for name in names]
    absent = [pattern for name, pattern in zip(names, each, strict=True) if not any(folder.glob(f"{name}_*.parquet"))]
    first = f"; {' and '.join(absent)} {'are' if len(absent) > 1 else 'is'} to be made first" if absent else ""
    return (
        f"no file of {folder} has the scores of {' and '.join(names)} side by side; put them into one: "
        f"metalayer merge {' '.join(each)} --output {folder}/{config.base_model}.parquet{first}"
    )


def base_models_of(path: Path) -> tuple[str, ...]:
    """The base models of a per-nucleotide Parquet: those that it names, else by the file's name, `<base>_<chrom>`.

    Returns:
        Their names; an empty one where neither says it.

    Raises:
        ArtifactError: a file that is none.
    """
    named = base_models_in(path)
    if named != ("",):
        return named
    batch = next(open_parquet(path, "copy or write it again").iter_batches(1, columns=["chrom"]), None)
    chrom = normalise_chrom(str(batch["chrom"][0])) if batch is not None and batch.num_columns else ""
    for end in (f"_chr{chrom_in_file_names(chrom)}", f"_{chrom_in_file_names(chrom)}"):
        if chrom and path.stem.endswith(end):
            return (path.stem.removesuffix(end),)
    return ("",)


def _is_other_model(path: Path, base_model: str) -> bool:
    """`openspliceai_80_chr1` belongs to `openspliceai_80`, not to `openspliceai`: by the chromosome inside."""
    rest = path.stem.removeprefix(f"{base_model}_")
    try:
        batch = next(open_parquet(path, "").iter_batches(1, columns=["chrom"]), None)
    except (ArtifactError, *PARQUET_ERRORS):
        return False  # read, and refused, as one of this model's
    chrom = normalise_chrom(str(batch["chrom"][0])) if batch is not None and batch.num_columns else ""
    return bool(chrom) and re.search(rf"_(chr)?{re.escape(chrom_in_file_names(chrom))}$", rest) is not None


def _optional(given: Path | None, usual: Path | None, key: str) -> Path | None:
    if given is not None:
        if not given.is_file():
            raise ArtifactError(f"{key}: given {given}, which is not a file")
        return given
    return usual if usual and usual.is_file() else None


def _variants(config: DataConfig) -> Path | None:
    if config.variant_source is None:
        return None
    path = _optional(config.splicevardb_path, config.data_root / "splicevardb.download.tsv", "data.splicevardb_path")
    if path is None:
        raise ArtifactError(
            f"data.variant_source is splicevardb, but {config.data_root / 'splicevardb.download.tsv'} is not there; "
            "download it and set data.splicevardb_path, or set data.variant_source to null"
        )
    return path
