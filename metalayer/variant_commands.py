"""`metalayer variants` and `metalayer variant`: their options, and what they print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalayer.errors import InputError
from metalayer.source_options import add_sources

if TYPE_CHECKING:
    from metalayer.genome import Variant
    from metalayer.variants.calls import Sources
    from metalayer.variants.scoring import Allele, Options
    from metalayer.workflows.variant_evaluation import Request

_FAULTY_STATUS = 2
_CONTEXT_OF_ONE = 500
EVALUATE_VARIANTS, CALIBRATE_VARIANTS = "evaluate variants", "variants calibrate"
"""Commands of two words, which the parser knows as one."""


def add_commands(
    commands: Any, *, model_help: str, annotation_help: str, model_directory: Callable[[str], Path]
) -> None:
    """Add both to a command line.

    Args:
        commands: the subparsers.
        model_help: which names of models there are.
        annotation_help: which annotations there are.
        model_directory: gives the directory of a model's name.
    """
    several = commands.add_parser(
        "variants",
        help="score the variants of a VCF: gain and loss of splice sites, of base models and ours side by side",
        description="Every record comes out once, in order, with INFO fields of scores or with the reason why it has "
        "none. A run that was cut off goes on where it was when the same command runs again. Exit status 2: more than "
        "a tenth of the records do not fit FASTA or VCF; the output is written all the same.",
    )
    several.add_argument("variants", type=Path, nargs="?", metavar="FILE", help="VCF, plain or packed, or BCF")
    several.add_argument(
        "--saturate", metavar="REGION", help="in place of a file, every SNV of a region, as chr3:42600000-42610000"
    )
    several.add_argument(
        "--plot", type=Path, metavar="FILE", help="with --saturate: picture of what each SNV does, .png or .svg"
    )
    several.add_argument(
        "--output", "-O", type=Path, required=True, help=".vcf, .vcf.gz or .bcf, .tsv, .parquet, or - for VCF to stdout"
    )
    several.add_argument(
        "--format", choices=("vcf", "tsv", "parquet"), help="default: by the name of the output, or vcf"
    )
    several.add_argument("--split", action="store_true", help="write one record an allele, with its own scores alone")
    _sources(several, model_help, annotation_help)
    _calibration(several)

    def run_several(options: argparse.Namespace) -> int:
        return _variants(options, _given(options, model_directory))

    several.set_defaults(run=run_several)
    one = commands.add_parser("variant", help="score variants that are given as text, and print a table")
    one.add_argument(
        "variants",
        nargs="+",
        metavar="VARIANT",
        help="chr3:42600000:G:A, 3-42600000-G-A, or HGVS as chr3:g.42600000G>A (also del, ins, dup, delins)",
    )
    one.add_argument("--json", action="store_true", help="print JSON, with all that is known")
    one.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the first variant with a score: .png, .svg or .pdf"
    )
    _sources(one, model_help, annotation_help)
    one.set_defaults(context=_CONTEXT_OF_ONE, keep_tracks=True)
    _calibration(one)

    def run_one(options: argparse.Namespace) -> int:
        return _variant(options, _given(options, model_directory))

    one.set_defaults(run=run_one)
    _add_labelled(commands, model_help, annotation_help, model_directory)


def _add_labelled(commands: Any, model_help: str, annotation_help: str, model_directory: Callable[[str], Path]) -> None:
    """Add the commands of labelled variants."""
    labelled_help = (
        "SpliceVarDB's download; a table of columns variant (as of `metalayer variant`) and label (1 or 0, yes or no, "
        "splice-altering or normal); or VCF or BCF, with --label"
    )
    evaluate = commands.add_parser(
        EVALUATE_VARIANTS,
        help="judge base models and ours on variants of which it is known whether they alter splicing",
        description="Variants without a score count neither as found nor as missed, and are reported by reason; genes "
        "that the model was trained on do not count.",
    )
    calibrate = commands.add_parser(
        CALIBRATE_VARIANTS,
        help="fit the probability that a variant alters splicing, by its kind, to labelled variants",
        description="No such table comes with metalayer: without one, scores are changes of probability of sites, and "
        "say nothing of how likely a variant is to matter.",
    )
    for parser in (evaluate, calibrate):
        parser.add_argument("variants", type=Path, metavar="FILE", help=labelled_help)
        _sources(parser, model_help, annotation_help, needs_base=False)
        parser.add_argument(
            "--answers",
            type=Path,
            metavar="FILE",
            help="VCF, BCF or Parquet that `metalayer variants` wrote of these variants, in place of scoring them",
        )
        parser.add_argument("--label", metavar="NAME", help="of VCF: the INFO flag, or field, that is the label")
        parser.add_argument(
            "--build", help="of SpliceVarDB: GRCh37 or GRCh38 (default: that whose REF are the letters of the FASTA)"
        )
        parser.add_argument(
            "--count-seen", action="store_true", help="genes that the model was trained on count, too: too good"
        )
    evaluate.add_argument(
        "--output",
        "-O",
        type=Path,
        metavar="DIR",
        help="folder for report.json, variants.parquet, detection.tsv, and "
        "answers.parquet, which --answers takes (default: no files)",
    )
    calibrate.add_argument("--output", "-O", type=Path, required=True, metavar="FILE", help="JSON to write")
    calibrate.add_argument("--score", metavar="NAME", help="which scores (default: ours, or the first base model)")

    def run_evaluate(options: argparse.Namespace) -> int:
        return _evaluate(options, _given(options, model_directory))

    def run_calibrate(options: argparse.Namespace) -> int:
        return _calibrate(options, _given(options, model_directory))

    evaluate.set_defaults(run=run_evaluate)
    calibrate.set_defaults(run=run_calibrate)


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments with the two words of `evaluate variants` and `variants calibrate` as one."""
    first = " ".join(arguments[:2])
    return [first, *arguments[2:]] if first in (EVALUATE_VARIANTS, CALIBRATE_VARIANTS) else list(arguments)


def _calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="table of `metalayer variants calibrate`: adds the probability that splicing is altered (none ships)",
    )


def _sources(
    parser: argparse.ArgumentParser, model_help: str, annotation_help: str, *, needs_base: bool = True
) -> None:
    add_sources(parser, model_help, annotation_help, needs_base=needs_base)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "auto"))
    parser.add_argument(
        "--distance", type=int, default=50, metavar="NT", help="positions to either side, 1 to 5000 (default 50)"
    )
    parser.set_defaults(keep_tracks=False)
    parser.add_argument(
        "--context",
        type=int,
        default=0,
        metavar="NT",
        help="positions to either side from which consequences are read, 0 to 5000 (default: the distance; of "
        f"`variant` {_CONTEXT_OF_ONE})",
    )
    parser.add_argument(
        "--mask", action="store_true", help="gains of annotated sites and losses of others do not count"
    )
    parser.add_argument(
        "--flanks", default="N", choices=("N", "real"), help="letters outside a gene (default N, as SpliceAI has it)"
    )
    parser.add_argument(
        "--as",
        dest="way",
        default="metalayer",
        choices=("metalayer", "spliceai"),
        help="spliceai: the numbers of SpliceAI 1.3.1 with its faults (docs/variants.md)",
    )
    parser.add_argument(
        "--max-length", type=int, default=10_000, metavar="NT", help="longest REF or ALT that is scored (default 10000)"
    )
    parser.add_argument(
        "--max-ambiguous",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of N among the letters that a score depends on; above it there is none (default 0.5)",
    )


def _given(options: argparse.Namespace, model_directory: Callable[[str], Path]) -> tuple[Sources, Options]:
    from metalayer.settings.evidence import named_sources
    from metalayer.variants.calls import Sources
    from metalayer.variants.scoring import Options

    sources = Sources(
        options.fasta,
        options.annotation,
        [name for name in options.base.split(",") if name],
        options.weights,
        model_directory(options.model) if options.model else None,
        options.aliases,
        options.device,
        options.precision,
        options.allow_introns,
        named_sources(options.evidence),
    )
    return sources, Options(
        options.distance,
        options.mask,
        options.flanks,
        options.way,
        options.max_length,
        options.max_ambiguous,
        options.context,
        keep_tracks=options.keep_tracks and options.plot is not None,
    )


def _variants(options: argparse.Namespace, given: tuple[Sources, Options]) -> int:
    from metalayer.workflows.variants import MAX_FAULTS, form_of, score_file, score_region

    if (options.variants is None) == (options.saturate is None):
        raise InputError("needed is one of both: a FILE of variants, or --saturate REGION")
    form = options.format or form_of(options.output)
    if options.saturate:
        if options.split:
            raise InputError("--split is for files: --saturate writes one record an allele")
        more = {"form": form, "plot": options.plot, "calibration": options.calibration}
        done = score_region(options.saturate, options.output, *given, **more)
    elif options.plot:
        raise InputError("--plot draws the SNVs of a region: give --saturate REGION in place of a file")
    else:
        done = score_file(
            options.variants, options.output, *given, form=form, split=options.split, calibration=options.calibration
        )
    print("\n".join(done.lines()), file=sys.stderr)
    if done.faulty > MAX_FAULTS * done.records:
        print(
            f"metalayer variants: {done.faulty:,} of {done.records:,} records do not fit; at most {MAX_FAULTS:.0%} "
            "may. Are FASTA and variants of one genome build, with the same names of contigs (--aliases)?",
            file=sys.stderr,
        )
        return _FAULTY_STATUS
    return 0


def _variant(options: argparse.Namespace, given: tuple[Sources, Options]) -> int:
    from metalayer.variants.calls import opened
    from metalayer.variants.notation import variant_of
    from metalayer.variants.reasons import REASONS
    from metalayer.variants.scoring import Asked

    if options.plot:
        from metalayer.variants.exon_picture import draw, refuse_other_names

        refuse_other_names(options.plot)
    found, unscored, is_drawn = list[dict[str, Any]](), 0, False
    with opened(*given) as loaded:
        table = loaded.calibrated(options.calibration) if options.calibration else None
        asked = [variant_of(text, loaded.letters) for text in options.variants]
        answers = loaded.scorer.score_all(Asked(one.chrom, one.position, one.ref, [one.alt]) for one in asked)
        for text, one, (allele,) in zip(options.variants, asked, answers, strict=True):
            probable = table.of(one.chrom, one.position, one.ref, allele) if table and allele.genes else ()
            chances = {gene_id: (table.name, kind, chance) for gene_id, _, kind, chance in probable} if table else {}
            if options.json:
                found.append(_as_json(text, one, allele, chances))
            elif allele.reason:
                print(f"{text}  no score: {allele.reason}, {REASONS[allele.reason]}")
            else:
                print("\n".join(_table(text if text == one.text else f"{text} = {one.text}", one, allele, chances)))
            if options.plot and allele.genes and not is_drawn:
                draw(options.plot, one, allele.genes)
                is_drawn = True
            unscored += not allele.genes
    if options.json:
        print(json.dumps(found, indent=1))
    if unscored == len(asked):
        raise InputError("none of the variants has a score")
    return 0


def _as_json(
    text: str, variant: Variant, allele: Allele, chances: Mapping[str, tuple[str, str, float]]
) -> dict[str, Any]:
    from metalayer.variants.answers import changes_as_json
    from metalayer.variants.words import described

    return {
        "variant": variant.text,
        "given": text,
        "skipped": allele.reason,
        "genes": [
            {
                "gene_id": gene.gene_id,
                "gene_name": gene.symbol,
                "strand": gene.strand,
                **_chance_as_json(chances.get(gene.gene_id)),
                "models": {
                    name: {
                        "changes": changes_as_json(changes, variant.position, gene.strand),
                        "consequence": described(gene.meanings[name], variant.chrom, gene.strand)
                        if name in gene.meanings
                        else None,
                    }
                    for name, changes in gene.effects.items()
                },
            }
            for gene in allele.genes
        ],
    }


def _chance_as_json(chance: tuple[str, str, float] | None) -> dict[str, Any]:
    if chance is None:
        return {}
    score, kind, probability = chance
    return {"probability": probability, "kind": kind, "probability_by": score}


def _evaluate(options: argparse.Namespace, given: tuple[Sources, Options]) -> int:
    from metalayer.evaluation.detection_tables import area_table, counts_lines, equal_calls_table, threshold_table
    from metalayer.workflows.variant_evaluation import ALL, UNSCORED, evaluate_variants

    report = evaluate_variants(_request(options, given), options.output)
    whole = report["groups"][ALL]
    parts = ["\n".join(counts_lines(report, UNSCORED)), area_table(report), threshold_table(whole)]
    if report["ours"]:
        parts.append(equal_calls_table(whole, report["ours"]))
    print("\n\n".join(part for part in parts if part))
    return 0


def _calibrate(options: argparse.Namespace, given: tuple[Sources, Options]) -> int:
    from metalayer.evaluation.detection_tables import best_threshold_table, calibration_table, counts_lines
    from metalayer.workflows.variant_evaluation import UNSCORED, calibrate_variants

    written = calibrate_variants(_request(options, given), options.output, options.score)
    tables = [calibration_table(written), best_threshold_table(written)]
    print("\n\n".join(["\n".join(counts_lines(written["fitted_on"], UNSCORED)), *tables]))
    print(
        f"\ntable for scores of {written['fitted_for']['score']} in {options.output}; errors are of clusters of genes "
        "that were held out"
    )
    return 0


def _request(options: argparse.Namespace, given: tuple[Sources, Options]) -> Request:
    from metalayer.workflows.variant_evaluation import Request

    return Request(
        options.variants, *given, options.answers, options.label, options.build, count_seen=options.count_seen
    )


def _table(title: str, variant: Variant, allele: Allele, chances: Mapping[str, tuple[str, str, float]]) -> list[str]:
    from metalayer.variants.answers import offset
    from metalayer.variants.definition import KINDS
    from metalayer.variants.words import lines_of

    lines = []
    for gene in allele.genes:
        lines.append(f"{title}  {gene.symbol} ({gene.strand})")
        if gene.gene_id in chances:
            name, kind, chance = chances[gene.gene_id]
            lines.append(f"  alters splicing with probability {chance:.4f} ({kind.replace('_', ' ')}, by {name})")
        for name, changes in gene.effects.items():
            lines.append(f"  {name:<20} change   REF     ALT     where")
            if changes is None:
                lines.append("    no numbers: SpliceAI gives none for several letters in place of several")
            for kind, change in zip(KINDS, changes or (), strict=False):
                away = offset(change, variant.position, gene.strand)
                letter = f", inserted letter {change.inserted} behind it" if change.inserted else ""
                where = f"{variant.chrom}:{change.position + 1}{letter}"
                known = ", annotated" if change.annotated else ""
                side = f"{abs(away)} nt {'downstream' if away > 0 else 'upstream'}" if away else "at POS"
                numbers = f"{change.score:.4f}   {change.reference:.4f}  {change.alternative:.4f}"
                lines.append(f"    {kind.replace('_', ' '):<18} {numbers}  {where}, {side}{known}")
            if name in gene.meanings:
                lines += [f"    {line}" for line in lines_of(gene.meanings[name], variant.chrom, gene.strand)]
    return lines
