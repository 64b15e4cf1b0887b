"""From files to scores of variants: what the commands and Python's callers share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import metalayer
from metalayer.base.installed_tables import annotation_file
from metalayer.base.protocol import BaseModel, is_built_in, load_base_model
from metalayer.contigs import Contigs
from metalayer.errors import ConfigError
from metalayer.files import sha256
from metalayer.formats.evidence import Evidence
from metalayer.inference import Predictor
from metalayer.settings.evidence import COLUMN, Source, files_of
from metalayer.variants.answers import CALIBRATED_COLUMNS, COLUMNS, rows_of
from metalayer.variants.calibration import Calibrated, Calibration
from metalayer.variants.genes import Genes
from metalayer.variants.letters import Letters
from metalayer.variants.notation import variant_of
from metalayer.variants.scoring import Asked, Options, Scorer

if TYPE_CHECKING:
    import polars as pl

_FLANK = re.compile(r"openspliceai_(\d+)")


@dataclass(frozen=True)
class Sources:
    """Where scores come from.

    Attributes:
        fasta: reference, plain or packed by bgzip.
        annotation: GTF, GFF3, or a gene table of SpliceAI, OpenSpliceAI or CI-SpliceAI; grch37 or grch38: the table of
            such a tool that is installed here.
        bases: names of base models; `openspliceai` also with its flank, as in openspliceai_10000.
        weights: their files: `NAME=PATH`, or paths in the order of the base models that take any.
        model: a model directory of ours; None for base models alone.
        aliases: names of contigs, where files have different ones.
        device: auto, cpu, cuda or mps.
        precision: of networks, float32, bfloat16 or auto.
        allow_introns: introns of the annotation may begin and end with anything.
        evidence: that our model reads, by name.
    """

    fasta: Path
    annotation: Path
    bases: Sequence[str]
    weights: Sequence[str | Path] = ()
    model: Path | None = None
    aliases: Path | None = None
    device: str = "auto"
    precision: str = "float32"
    allow_introns: bool = False
    evidence: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """What is loaded.

    Attributes:
        scorer: scores records.
        letters: the reference.
        genes: of the annotation.
        sources: as they were given.
        bases: base models in their order.
        predictor: our model, if any.
        evidence: that it reads; None where it reads none.
    """

    scorer: Scorer
    letters: Letters
    genes: Genes
    sources: Sources
    bases: Sequence[BaseModel]
    predictor: Predictor | None
    evidence: Evidence | None = None

    def scorer_with(self, predictor: Predictor | None, options: Options) -> Scorer:
        """One that scores otherwise on the same files and base models; errors as of `Scorer`."""
        if predictor is not None:
            predictor.check_evidence(self.sources.evidence, "evidence")
        return Scorer(self.letters, self.genes, self.bases, options, predictor, evidence=self.evidence)

    def example(self) -> str:
        """A variant of the base behind the first annotated donor of a gene, as text; empty where there is none."""
        for sites in self.genes:
            for donor in sites.donors[:1].tolist():
                place = donor + 1 if sites.is_plus else donor - 1
                key = sites.gene.interval.chrom
                letter = self.letters.raw(key, place, place + 1).decode("latin-1").upper()
                if letter in ("A", "C", "G", "T"):
                    return f"{self.letters.names[key]}:{place + 1}:{letter}:{'A' if letter != 'A' else 'C'}"
        return ""

    def calibrated(self, path: Path) -> Calibrated:
        """A table of probabilities for these scores.

        Raises:
            InputError: another file, or a table that was fitted for other scores.
        """
        calibration = Calibration.read(path)
        calibration.check(path, self.facts())
        return Calibrated(calibration, self.letters, self.genes)

    def facts(self) -> dict[str, Any]:
        """All that decides the scores, by content: JSON-ready."""
        given = self.sources
        files = {"fasta": given.fasta, "annotation": annotation_file(given.annotation), "aliases": given.aliases}
        return {
            "metalayer_version": metalayer.__version__,
            "bases": {
                model.name: {"weights_sha256": getattr(model, "weights", {}), "flank_bp": model.flank_bp}
                for model in self.bases
            },
            "precision": given.precision,
            "model_digest": self.predictor.digest if self.predictor else None,
            "options": asdict(self.scorer.options),
            **({"evidence": self._evidence()} if given.evidence else {}),
            **{name: {"name": path.name, "sha256": sha256(path)} for name, path in files.items() if path},
        }

    def _evidence(self) -> dict[str, Any]:
        """By name the SHA-256 of its files."""
        given = self.sources.evidence
        return {name: [sha256(path) for path in files_of({name: source})] for name, source in given.items()}


@contextlib.contextmanager
def opened(sources: Sources, options: Options | None = None) -> Iterator[Opened]:
    """Load base models, reference, annotation and our model.

    Raises:
        ConfigError: unknown or unfit base models, weights that belong to none, impossible options, or evidence that our
            model does not read, or reads and is not there.
        InputError: files that cannot be used.
        ModelError: damaged weights, or a damaged model directory.
    """
    if COLUMN in sources.evidence.values():
        raise ConfigError(f"evidence: given {COLUMN!r}, but no per-nucleotide scores are read here; name files")
    given = dict(weights_of(sources.bases, sources.weights))
    bases = [_load(name, given.get(name), sources) for name in sources.bases]
    contigs = Contigs.of(sources.aliases)
    with Letters(sources.fasta, contigs) as letters:
        predictor = Predictor.load(sources.model, sources.device) if sources.model else None
        genes = Genes.read(annotation_file(sources.annotation), letters, contigs, allow_introns=sources.allow_introns)
        if predictor:
            predictor.check_evidence(sources.evidence, "evidence")
        evidence = Evidence(sources.evidence, contigs, letters.lengths) if sources.evidence else None
        scorer = Scorer(letters, genes, bases, options, predictor, evidence=evidence)
        yield Opened(scorer, letters, genes, sources, bases, predictor, evidence)


def weights_of(bases: Sequence[str], weights: Sequence[str | Path]) -> Iterator[tuple[str, Path]]:
    """Name of a base model and its weights, of those that were given as `Sources` says.

    Raises:
        ConfigError: more than there are base models that take any, or a name that is none of them.
    """
    taking = [name for name in bases if not is_built_in(name)]
    for given in map(str, weights):
        name, named, path = given.partition("=")
        if not named or Path(given).exists():
            name, path = (taking[0] if taking else ""), given
        if name not in taking:
            raise ConfigError(
                f"--weights {given}: belongs to no base model that still needs weights; base models are "
                f"{', '.join(bases) or 'none'}; give NAME=PATH, or paths in their order"
            )
        taking.remove(name)
        yield name, Path(path)


def _load(name: str, weights: Path | None, sources: Sources) -> BaseModel:
    options: dict[str, Any] = {} if weights is None else {"weights": weights}
    if not is_built_in(name):
        options |= {"device": sources.device, "precision": sources.precision}
    if match := _FLANK.fullmatch(name):
        name, options["flank"] = "openspliceai", int(match[1])
    return load_base_model(name, **options)


def score_variants(
    variants: Iterable[str],
    *,
    fasta: Path | str,
    annotation: Path | str,
    base: str | Sequence[str],
    weights: Sequence[str | Path] = (),
    model: Path | str | None = None,
    aliases: Path | str | None = None,
    device: str = "auto",
    precision: str = "float32",
    allow_introns: bool = False,
    distance: int = 50,
    mask: bool = False,
    flanks: str = "N",
    way: str = "metalayer",
    calibration: Path | str | None = None,
    evidence: Mapping[str, Source] | None = None,
) -> pl.DataFrame:
    """Score variants that are given as text.

    Args:
        variants: as in `metalayer.variants.notation`: chr3:42600000:G:A, 3-42600000-G-A, chr3:g.42600000G>A. Those that
            follow each other and lie near each other are scored together: a sorted list is fastest.
        fasta: reference, plain or packed by bgzip.
        annotation: GTF, GFF3 or a gene table.
        base: names of base models.
        weights: their files: `NAME=PATH`, or paths in the order of the base models.
        model: a model directory of ours.
        aliases: names of contigs, where files have different ones.
        device: auto, cpu, cuda or mps.
        precision: of networks, float32, bfloat16 or auto.
        allow_introns: introns of the annotation may begin and end with anything.
        distance: positions to either side that are looked at, 1 to 5,000.
        mask: gains of annotated sites and losses of others do not count.
        flanks: letters outside a gene: N, or real.
        way: metalayer, or spliceai for the numbers of SpliceAI 1.3.1.
        calibration: table of `metalayer variants calibrate`, for `kind` and `probability`.
        evidence: that our model reads, by name, as of `data.evidence`.

    Returns:
        A row for each variant, gene and model, or with the reason in `skipped`; columns as in docs/formats.md, at
        "Table of variants". Positions are 1-based.

    Raises:
        ConfigError: unknown or unfit base models, or impossible options.
        InputError: files that cannot be used, or a variant in another form.
        ModelError: damaged weights, or a damaged model directory.
    """
    import polars as pl

    sources = Sources(
        Path(fasta),
        Path(annotation),
        [base] if isinstance(base, str) else list(base),
        weights,
        Path(model) if model else None,
        Path(aliases) if aliases else None,
        device,
        precision,
        allow_introns,
        evidence or {},
    )
    rows, columns = list[dict[str, Any]](), COLUMNS | (CALIBRATED_COLUMNS if calibration else {})
    with opened(sources, Options(distance, mask, flanks, way)) as loaded:
        table = loaded.calibrated(Path(calibration)) if calibration else None
        texts = list(variants)
        given = [variant_of(text, loaded.letters) for text in texts]
        answers = loaded.scorer.score_all(Asked(one.chrom, one.position, one.ref, [one.alt]) for one in given)
        for text, one, alleles in zip(texts, given, answers, strict=True):
            found = list(rows_of(one.chrom, one.position, text, one.ref, alleles))
            rows += table.fill(found, one.chrom, one.position, one.ref, alleles) if table else found
    kinds = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}
    return pl.DataFrame(rows, schema={name: kinds[kind] for name, kind in columns.items()}, orient="row")
