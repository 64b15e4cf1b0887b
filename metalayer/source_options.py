"""Options of commands that score on a reference, an annotation and base models."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_evidence(parser: argparse.ArgumentParser) -> None:
    """Add the evidence that a model reads to a command."""
    parser.add_argument(
        "--evidence",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="numbers per base, of which a model reads some: BigWig or Parquet; NAME=PLUS,MINUS for a file a strand; a "
        "model is asked without one by NAME=none; repeat",
    )


def add_sources(
    parser: argparse.ArgumentParser, model_help: str, annotation_help: str, *, needs_base: bool = True
) -> None:
    """Add them to a command.

    Args:
        parser: of the command.
        model_help: which names of models there are.
        annotation_help: which annotations there are.
        needs_base: whether a base model has to be named.
    """
    parser.add_argument("--fasta", type=Path, required=True, help="reference in FASTA, plain or packed by bgzip")
    parser.add_argument("--annotation", type=Path, required=True, help=annotation_help)
    parser.add_argument(
        "--base",
        required=needs_base,
        default="",
        metavar="NAME[,NAME...]",
        help="base models: pwm, cispliceai, spliceai, openspliceai or with its flank openspliceai_10000, pangolin",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="the user's own weights, in the order of the base models that need any, or by their names; repeat",
    )
    add_evidence(parser)
    parser.add_argument("--model", help=f"our model, beside its base models: {model_help}")
    parser.add_argument(
        "--aliases", type=Path, metavar="FILE", help="names of contigs, where files have different ones"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    parser.add_argument(
        "--allow-introns", action="store_true", help="introns of the annotation may begin and end with anything"
    )
