"""Labelled variants: how well base models and ours find those that alter splicing, and what their scores mean there.

Variants are scored as `metalayer variants` does, or their scores are read from what it wrote. Those without a score
count neither as found nor as missed, and are reported by reason; nor do those in genes that the model was trained on.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.base.installed_tables import annotation_file
from metalayer.base.origin import seen_by_base
from metalayer.contigs import Contigs
from metalayer.data.same_genes import KnownGene, same_as, seen_by
from metalayer.errors import ConfigError, InputError
from metalayer.evaluation.detection import NEGATIVES, POSITIVES, Items, detection, figures
from metalayer.evaluation.intervals import MIN_CLUSTERS, Resamples
from metalayer.files import publish_file, sha256
from metalayer.gene_groups import related, united
from metalayer.genome import reverse_complement
from metalayer.inference import Predictor
from metalayer.integrity import content_hash
from metalayer.settings.sections import EvaluateConfig
from metalayer.variants.calibration import (
    LEAST,
    METHOD,
    MIN_OF_EACH,
    Calibration,
    best_threshold,
    fit_curves,
    held_out,
    identity,
    refuse_too_few,
    slope_of,
)
from metalayer.variants.calls import Sources
from metalayer.variants.genes import Genes, GeneSites
from metalayer.variants.kinds import KINDS, Place, located
from metalayer.variants.labelled import JUDGED_COLUMNS, LabelledFile, LabelledVariant, read_labelled
from metalayer.variants.letters import Letters
from metalayer.variants.reasons import FAULTS, REASONS
from metalayer.variants.scoring import META, Options
from metalayer.variants.written import Answer, Answers, key_of, read_answers
from metalayer.workflows.variants import MAX_FAULTS, PARQUET, score_file

logger = logging.getLogger(__name__)

ANSWERS, REPORT, VARIANTS, DETECTION = "answers.parquet", "report.json", "variants.parquet", "detection.tsv"
NOT_ANSWERED, SEEN = "not_answered", "seen_in_training"
UNSCORED = {
    **REASONS,
    NOT_ANSWERED: "not among the answers, as it is written",
    SEEN: "in a gene that the model was trained on",
}
"""Why a variant does not count, and words."""
ALL = "all"
_BINS = {True: (1, 3, 9, 21, 51, 101), False: (1, 4, 11, 51)}
"""First bases of the bins of distance, in introns and in exons."""


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        labelled: variants with labels.
        sources: reference, annotation, aliases and device; without `answers` also base models, and our model.
        options: how variants are scored.
        answers: what `metalayer variants` wrote of these variants; None: they are scored.
        label: as in `read_labelled`.
        build: likewise.
        count_seen: genes that the model was trained on count, too.
        config: bootstrap and coverage.
    """

    labelled: Path
    sources: Sources
    options: Options = field(default_factory=Options)
    answers: Path | None = None
    label: str | None = None
    build: str | None = None
    count_seen: bool = False
    config: EvaluateConfig = field(default_factory=EvaluateConfig)


@dataclass(frozen=True)
class Judged:
    """Labelled variants with their scores.

    Attributes:
        file: what was read.
        answers: scores, and what decided them.
        table: a row a variant: `JUDGED_COLUMNS`, and the largest change by each score.
        about: the file, the variants that do not count, and genes that were seen in training; JSON-ready.
    """

    file: LabelledFile
    answers: Answers
    table: pl.DataFrame
    about: dict[str, Any]

    @property
    def counted(self) -> pl.DataFrame:
        """Variants that count."""
        return self.table.filter(pl.col("reason").is_null())


def evaluate_variants(request: Request, output: Path | None = None) -> dict[str, Any]:
    """Judge base models, and ours beside them, on labelled variants.

    Args:
        request: what is asked.
        output: folder for `report.json`, `variants.parquet` (a row a variant), `detection.tsv` (the figures of the
            report) and, where variants are scored, `answers.parquet`, for `answers` of a later call; None: no files.

    Returns:
        The report: about (see `Judged`), names of the scores, ours (None without our model), groups of
        `evaluation.detection`: all, each kind, each bin of distance.

    Raises:
        ConfigError: unknown or unfit base models, or neither base models nor answers.
        InputError: files that cannot be used or that do not fit each other, or no variant of one label that counts.
        ModelError: damaged weights, or a damaged model directory.
    """
    judged = _judged(request, output)
    table = judged.counted
    _refuse_one_label(judged, table)
    items = _items(table, judged.answers.names)
    groups = _groups(table)
    ours = META if META in items.scores else None
    report = judged.about | {
        "names": judged.answers.names,
        "ours": ours,
        "confidence": request.config.confidence,
        "groups": detection(items, groups, request.config, ours=ours),
    }
    if output is not None:
        with publish_file(output / VARIANTS) as draft:
            judged.table.write_parquet(draft)
        with publish_file(output / DETECTION) as draft:
            figures(report).write_csv(draft, separator="\t")
        with publish_file(output / REPORT) as draft:
            draft.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def calibrate_variants(request: Request, output: Path, score: str | None = None) -> dict[str, Any]:
    """Fit a table of probabilities to labelled variants.

    Args:
        request: what is asked.
        output: JSON to publish.
        score: name of the scores that are calibrated; None: ours, or the first base model.

    Returns:
        What was written: fitted_for, curves by kind, fitted_on, held_out (by all and each kind log_loss, brier and
        slope, of the table by cross-validation over clusters of genes and of |delta| itself), thresholds (of |delta|,
        by all and each kind; None with fewer than `MIN_OF_EACH` of either label).

    Raises:
        ConfigError: unknown or unfit base models, or neither base models nor answers.
        InputError: files that cannot be used, too few variants, or no such scores.
        ModelError: damaged weights, or a damaged model directory.
    """
    judged = _judged(request, None)
    name = score or (META if META in judged.answers.names else judged.answers.names[0])
    if name not in judged.answers.names:
        raise InputError(f"--score {name}: there are {', '.join(judged.answers.names)}")
    table = judged.counted
    items = _items(table, [name])
    altering, change, kinds = items.positive, items.scores[name], table["kind"].to_list()
    refuse_too_few(altering, items.clusters, MIN_CLUSTERS)
    _, clusters = np.unique(items.clusters, return_inverse=True)
    curves = fit_curves(change, altering, kinds)
    systems = {
        "calibrated": held_out(change, altering, kinds, clusters, request.config.seed),
        "delta": np.clip(change, LEAST, 1.0 - LEAST),
    }
    groups = {ALL: np.ones(len(table), bool), **{kind: np.array(kinds) == kind for kind in KINDS}}
    found = {
        group: _held_out(altering[at], {of: p[at] for of, p in systems.items()}, clusters[at], request.config)
        for group, at in groups.items()
        if at.any()
    }
    thresholds = {
        group: _threshold(change[at], altering[at], clusters[at], request.config)
        for group, at in groups.items()
        if at.any()
    }
    about = {"fitted_on": judged.about, "held_out": found, "thresholds": thresholds}
    fitted = Calibration(identity(judged.answers.facts, name), curves, about)
    fitted.write(output)
    curves_of = {kind: asdict(curve) for kind, curve in curves.items()}
    return {"method": METHOD, "fitted_for": dict(fitted.fitted_for), "curves": curves_of, **about}


def _held_out(
    altering: NDArray[np.bool_],
    systems: Mapping[str, NDArray[np.float64]],
    clusters: NDArray[np.int64],
    config: EvaluateConfig,
) -> dict[str, Any]:
    numbers, resamples = _resamples(altering, clusters, config)
    counts = resamples.weights @ np.bincount(numbers).astype(np.float64)
    out: dict[str, Any] = {POSITIVES: int(altering.sum()), NEGATIVES: int((~altering).sum())}
    for name, p in systems.items():
        losses = {"log_loss": -np.log(np.where(altering, p, 1.0 - p)), "brier": (p - altering) ** 2}
        of: dict[str, Any] = {
            metric: resamples.estimate(
                resamples.weights @ np.bincount(numbers, loss) / counts, config.confidence, 0.0, np.inf
            )
            for metric, loss in losses.items()
        }
        slope = slope_of(p, altering, numbers)
        of["slope"] = None if slope is None else {"value": slope[0], "standard_error": slope[1]}
        out[name] = of
    return out


def _threshold(
    change: NDArray[np.float64], altering: NDArray[np.bool_], clusters: NDArray[np.int64], config: EvaluateConfig
) -> dict[str, Any] | None:
    if min(altering.sum(), (~altering).sum()) < MIN_OF_EACH:
        return None
    numbers, resamples = _resamples(altering, clusters, config)
    best = best_threshold(change, altering, numbers, resamples.weights, config.confidence)
    return asdict(best)


def _resamples(
    altering: NDArray[np.bool_], clusters: NDArray[np.int64], config: EvaluateConfig
) -> tuple[NDArray[np.int64], Resamples]:
    """Numbers of the clusters that are there, from 0, and their resamples."""
    _, numbers = np.unique(clusters, return_inverse=True)
    labels = {
        name: np.bincount(numbers, of).astype(np.int64) for name, of in ((POSITIVES, altering), (NEGATIVES, ~altering))
    }
    return numbers, Resamples.drawn(labels, config)


def _judged(request: Request, output: Path | None) -> Judged:
    """Read labels and scores, and find out what counts."""
    sources = request.sources
    if request.answers is None and not sources.bases:
        raise ConfigError("labelled variants: --base names the models that score them, or --answers what was written")
    if request.answers is not None and (sources.bases or sources.weights):
        raise ConfigError("labelled variants: --base and --weights score them, --answers has scores: give one of both")
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: this is a file; give a folder")
    contigs, annotation = Contigs.of(sources.aliases), annotation_file(sources.annotation)
    with Letters(sources.fasta, contigs) as letters:
        file = read_labelled(request.labelled, letters, label=request.label, build=request.build)
        logger.info("%s: %s labelled variants (%s)", file.path, f"{len(file.variants):,}", file.form)
        genes = Genes.read(annotation, letters, contigs, allow_introns=sources.allow_introns)
        answers = _answers(request, file, contigs, output)
        _check_facts(request, answers.facts, annotation)
        seen, known = _seen(request, file, answers, genes, letters)
        table = _table(file, answers, genes, letters, contigs, {} if request.count_seen else seen)
    reasons = Counter(zip(table["reason"].to_list(), table["altering"].to_list(), strict=True))
    faulty = sum(count for (reason, _), count in reasons.items() if reason in FAULTS)
    if faulty > MAX_FAULTS * len(table):
        said = ", ".join(
            f"{count:,} {UNSCORED[reason]}" for reason, count in Counter(table["reason"]).items() if reason in FAULTS
        )
        raise InputError(
            f"variants {file.path}: {said}, of {len(table):,}; at most {MAX_FAULTS:.0%} may. Are FASTA and variants of "
            "one genome build, with the same names of contigs (--aliases)?"
        )
    about = {
        "variants": {
            "file": file.path.name,
            "sha256": sha256(file.path),
            "form": file.form,
            POSITIVES: int(table["altering"].sum()),
            NEGATIVES: int((~table["altering"]).sum()),
            "passed_over": file.passed_over,
            "repeated": file.repeated,
        },
        "not_counted": {
            reason: {POSITIVES: reasons[reason, True], NEGATIVES: reasons[reason, False]}
            for reason in sorted({reason for reason, _ in reasons if reason})
        },
        "genes_seen_in_training": sorted(seen) if known else None,
        "seen_counted": request.count_seen,
        "seen_by_base": _seen_by_bases(file, answers, table),
        "facts": dict(answers.facts),
    }
    return Judged(file, answers, table, about)


def _answers(request: Request, file: LabelledFile, contigs: Contigs, output: Path | None) -> Answers:
    wanted = {key_of(one.variant, contigs) for one in file.variants}
    if request.answers is not None:
        return read_answers(request.answers, wanted, contigs)
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "labelled.vcf"
        _write_vcf(given, file)
        scored = (output or Path(folder)) / ANSWERS
        done = score_file(given, scored, request.sources, request.options, form=PARQUET)
        logger.info("%s", "; ".join(done.lines()))
        return read_answers(scored, wanted, contigs)


def _write_vcf(path: Path, file: LabelledFile) -> None:
    """The variants as `metalayer variants` reads them."""
    with path.open("w", encoding="utf-8") as handle:
        handle.write("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for one in file.variants:
            variant = one.variant
            handle.write(f"{variant.chrom}\t{variant.position + 1}\t.\t{variant.ref}\t{variant.alt}\t.\t.\t.\n")


def _check_facts(request: Request, facts: Mapping[str, Any], annotation: Path) -> None:
    """See that answers are of the same reference and annotation.

    Raises:
        InputError: of others.
    """
    if request.answers is None:
        return
    for name, path in (("fasta", request.sources.fasta), ("annotation", annotation)):
        if facts[name]["sha256"] != sha256(path):
            raise InputError(
                f"answers {request.answers}: written with another {name}, {facts[name]['name']}; given is {path}"
            )


def _seen(
    request: Request, file: LabelledFile, answers: Answers, genes: Genes, letters: Letters
) -> tuple[dict[str, str], bool]:
    """Genes with answers that the model was trained or validated on, and why; and whether that is known."""
    if META not in answers.names:
        return {}, True
    if request.sources.model is None:
        logger.warning("the genes that the model was trained on are not known: --model names it")
        return {}, False
    predictor = Predictor.load(request.sources.model, request.sources.device)
    if predictor.digest != answers.facts["model_digest"]:
        raise InputError(f"answers {request.answers}: of another model than {request.sources.model}")
    trained = seen_by(predictor.info)
    asked = {gene_id for answer in answers.found.values() for gene_id in answer.genes}
    known = [
        KnownGene(gene.gene.gene_id, gene.gene, file.build, _letters(gene, letters))
        for gene in genes
        if gene.gene.gene_id in asked
    ]
    return {gene_id: str(why) for gene_id, why in same_as(known, trained).items()}, bool(trained)


def _letters(gene: GeneSites, letters: Letters) -> str:
    span = gene.gene.interval
    tokens = letters.tokens(span.chrom, span.start, span.end)
    return content_hash(tokens if gene.is_plus else reverse_complement(tokens))


def _seen_by_bases(file: LabelledFile, answers: Answers, table: pl.DataFrame) -> dict[str, Any]:
    """By base model, what `base.origin` says of the genes."""
    genes = [(str(gene), str(chrom), file.build) for gene, chrom in table.select("gene_id", "contig").rows() if gene]
    found = {name: seen_by_base(name, genes) for name in answers.facts["bases"]}
    return {name: seen["note"] for name, seen in found.items() if seen}


def _table(
    file: LabelledFile,
    answers: Answers,
    genes: Genes,
    letters: Letters,
    contigs: Contigs,
    seen: Mapping[str, str],
) -> pl.DataFrame:
    everywhere = [gene.gene for gene in genes]
    clusters = {
        gene_id: number
        for number, ids in enumerate(united((gene.gene_id for gene in everywhere), related(everywhere)))
        for gene_id in ids
    }
    rows: list[dict[str, Any]] = []
    for one in file.variants:
        variant = one.variant
        contig, position, ref, alt = key_of(variant, contigs)
        row: dict[str, Any] = {
            **{"chrom": variant.chrom, "contig": contig, "pos": position + 1, "ref": ref, "alt": alt},
            "altering": one.altering,
        }
        answer = answers.found.get((contig, position, ref, alt))
        if answer is None or not answer.genes:
            rows.append(row | {"reason": (answer.reason if answer else None) or NOT_ANSWERED})
            continue
        chosen = _chosen(one, answer)
        places = located(letters, genes, contig, position, ref, alt)
        gene_id, place = min(((gene_id, places[gene_id]) for gene_id in chosen), key=lambda found: found[1].order)
        is_seen = any(gene_id in seen for gene_id in chosen)
        row |= {
            "gene_id": gene_id,
            "gene_name": answer.symbols[gene_id],
            **_place(place),
            "cluster": clusters[gene_id],
            "reason": SEEN if is_seen else None,
            **{name: max(answer.genes[gene_id][name] for gene_id in chosen) for name in answers.names},
        }
        rows.append(row)
    types = {str: pl.String, int: pl.Int64, bool: pl.Boolean}
    schema = {name: types[of] for name, of in JUDGED_COLUMNS.items()} | dict.fromkeys(answers.names, pl.Float64)
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row")


def _chosen(one: LabelledVariant, answer: Answer) -> list[str]:
    """Genes that the label is of: the one that it names, where there is an answer for it, or all."""
    named = [gene_id for gene_id, symbol in answer.symbols.items() if one.gene and one.gene in (gene_id, symbol)]
    return named or list(answer.genes)


def _place(place: Place) -> dict[str, Any]:
    return {"kind": place.kind, "side": "intron" if place.in_intron else "exon", "distance": place.distance}


def _refuse_one_label(judged: Judged, table: pl.DataFrame) -> None:
    """See that variants of both labels count.

    Raises:
        InputError: none of one.
    """
    count = int(table["altering"].sum())
    if 0 < count < len(table):
        return
    left = judged.about["not_counted"]
    said = "; ".join(f"{sum(of.values()):,} {UNSCORED[reason]}" for reason, of in left.items())
    raise InputError(
        f"variants {judged.file.path}: {count:,} that alter splicing and {len(table) - count:,} others count; needed "
        f"are both{'. Not counted: ' * bool(said)}{said}"
    )


def _items(table: pl.DataFrame, names: list[str]) -> Items:
    scores = {name: table[name].to_numpy().astype(np.float64) for name in names}
    return Items(table["altering"].to_numpy().astype(bool), table["cluster"].to_numpy().astype(np.int64), scores)


def _groups(table: pl.DataFrame) -> dict[str, NDArray[np.bool_]]:
    kinds, sides = table["kind"].to_numpy(), table["side"].to_numpy()
    distances = table["distance"].fill_null(-1).to_numpy()
    groups = {ALL: np.ones(len(table), bool), **{kind: kinds == kind for kind in KINDS}}
    for in_intron, starts in _BINS.items():
        side = "intron" if in_intron else "exon"
        for first, following in zip(starts, [*starts[1:], None], strict=True):
            last = np.inf if following is None else following - 1
            words = f"{side} {first}+" if following is None else f"{side} {first}-{following - 1}"
            groups[words] = (sides == side) & (distances >= first) & (distances <= last)
    return groups
