"""`metalayer export`: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from metalayer.errors import InputError


def add_commands(commands: Any) -> None:
    """Add them to a command line."""
    export = commands.add_parser(
        "export",
        help="write scores of whole genes as BigWig, bedGraph, BED or GFF3, for genome browsers",
        description="Each position has one number of each class and strand: where genes of a strand overlap the "
        "highest of theirs. A base without a score has none in the files. Sites are at their exon bases.",
    )
    export.add_argument(
        "scores",
        type=Path,
        metavar="SCORES",
        help="of `metalayer score` or `--pipeline score` (.parquet), or per-nucleotide scores of one base model",
    )
    export.add_argument(
        "--sizes",
        type=Path,
        required=True,
        metavar="FILE",
        help="contigs of the reference and their lengths: chrom.sizes, .fai, or the FASTA with its .fai beside it",
    )
    export.add_argument(
        "--bigwig", type=Path, metavar="DIR", help="new folder for base_donor_plus.bw and so on: system, class, strand"
    )
    export.add_argument("--bedgraph", type=Path, metavar="DIR", help="likewise, base_donor_plus.bedGraph and so on")
    export.add_argument("--parquet", type=Path, metavar="FILE", help="all beside each other in one table")
    export.add_argument(
        "--bed", type=Path, metavar="FILE", help="sites that base or meta call, sorted: .bed, or .bed.gz with an index"
    )
    export.add_argument("--gff3", type=Path, metavar="FILE", help="exons that the called sites of whole genes make")
    export.add_argument(
        "--transcripts", type=int, default=1, metavar="N", help="of a gene in --gff3, at most, best first (default 1)"
    )
    export.add_argument("--gene", action="append", default=[], metavar="ID", help="this gene alone; repeat")
    export.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="REGION",
        help="what lies there alone, 1-based: chr3:42600000-42610000, chr3:42.6M-42.61M, chr3:42.6M-42.61M:+; repeat",
    )
    export.add_argument(
        "--aliases", type=Path, metavar="FILE", help="names of contigs, where files have different ones"
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from metalayer.contigs import Contigs
    from metalayer.regions import parse_region
    from metalayer.words import count_of
    from metalayer.workflows.export import export, lengths_of

    if not any((options.bigwig, options.bedgraph, options.parquet, options.bed, options.gff3)):
        raise InputError("nothing to write: give --bigwig DIR, --bedgraph DIR, --parquet, --bed or --gff3 FILE")
    if options.transcripts < 1:
        raise InputError(f"--transcripts: given {options.transcripts}; needs 1 or more")
    done = export(
        options.scores,
        lengths_of(options.sizes, Contigs.of(options.aliases)),
        bigwig=options.bigwig,
        bedgraph=options.bedgraph,
        parquet=options.parquet,
        bed=options.bed,
        gff3=options.gff3,
        transcripts=options.transcripts,
        genes=options.gene,
        regions=[parse_region(text) for text in options.region],
    )
    print(f"{count_of(done.positions, 'position')} of {count_of(done.genes, 'gene')}")
    for file in done.files:
        print(f"wrote   {file}")
    return 0
