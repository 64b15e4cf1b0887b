"""`metalayer gene`, `metalayer view` and `metalayer export`: their options, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metalayer.errors import InputError
from metalayer.source_options import add_sources


def add_commands(
    commands: Any, *, model_help: str, annotation_help: str, model_directory: Callable[[str], Path]
) -> None:
    """Add them to a command line.

    Args:
        commands: the subparsers.
        model_help: which names of models there are.
        annotation_help: which annotations there are.
        model_directory: gives the directory of a model's name.
    """
    gene = commands.add_parser(
        "gene",
        help="score a gene, or those of a region, and look at its sites and exons",
        description="Annotated and called sites of base and meta beside each other; a star marks those about which "
        "they disagree, an exclamation mark an intron that does not begin with GT or end with AG.",
    )
    gene.add_argument(
        "gene", metavar="GENE", help="name, id with its version or without, or a region as chr3:42.1M-42.3M:+"
    )
    gene.add_argument("--plot", type=Path, metavar="FILE", help="picture: .png, .svg or .pdf; of one gene")
    gene.add_argument(
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=".bed or .bed.gz (called sites), .gff3 (exons), .parquet (all positions); repeat",
    )
    gene.add_argument("--json", action="store_true", help="print JSON")
    add_sources(gene, model_help, annotation_help)

    def run_gene(options: argparse.Namespace) -> int:
        return _gene(options, model_directory(options.model) if options.model else None)

    gene.set_defaults(run=run_gene)
    _add_view(commands, model_help, annotation_help, model_directory)
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


def _add_view(commands: Any, model_help: str, annotation_help: str, model_directory: Callable[[str], Path]) -> None:
    view = commands.add_parser(
        "view",
        help="look at genes, regions, sequences and variants in a browser, on this machine alone",
        description="Starts the page of the server (docs/serving.md) on files and a model of your own, without a "
        "registry; it answers this machine alone.",
    )
    view.add_argument("gene", nargs="?", default="", metavar="GENE", help="to begin with, as of `metalayer gene`")
    view.add_argument("--port", type=int, help="to listen at (default 3000, or a free one where that is taken)")
    view.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    add_sources(view, model_help, annotation_help)

    def run_view(options: argparse.Namespace) -> int:
        return _view(options, model_directory(options.model) if options.model else None)

    view.set_defaults(run=run_view)


def _view(options: argparse.Namespace, model: Path | None) -> int:
    import webbrowser
    from urllib.parse import urlencode

    from metalayer.extras import require

    require("uvicorn")
    from metalayer.serving.settings import ServingSettings
    from metalayer.serving.view_server import serve_page, serving_of

    settings = ServingSettings(
        fasta=options.fasta,
        annotation=options.annotation,
        weights=",".join(options.weights),
        aliases=options.aliases,
        evidence=";".join(options.evidence),
        device=options.device,
    )
    bases = [name for name in options.base.split(",") if name]
    serving = serving_of(settings, bases, model, allow_introns=options.allow_introns)

    def began(address: str) -> None:
        place = "region" if ":" in options.gene else "gene"
        address += f"#{urlencode({place: options.gene})}" if options.gene else ""
        print(f"the page is at {address}\nit answers this machine alone; Ctrl-C ends it", flush=True)
        if not options.no_browser:
            webbrowser.open(address)

    serve_page(serving, began, options.port)
    return 0


def _gene(options: argparse.Namespace, model: Path | None) -> int:
    import json

    from metalayer.settings.evidence import named_sources
    from metalayer.sites.calling import THRESHOLD
    from metalayer.variants import whole_gene as looked_at
    from metalayer.variants.calls import Sources, opened
    from metalayer.workflows.export import Outputs, write
    from metalayer.workflows.gene import draw, table_of

    outputs = Outputs.named(options.output)
    if options.plot and options.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"--plot {options.plot}: needed is a name in .png, .svg or .pdf")
    bases = [name for name in options.base.split(",") if name]
    sources = Sources(
        options.fasta,
        options.annotation,
        bases,
        options.weights,
        model,
        options.aliases,
        options.device,
        allow_introns=options.allow_introns,
        evidence=named_sources(options.evidence),
    )
    with opened(sources) as loaded:
        genes = looked_at.find_genes(options.gene, loaded.genes)
        if options.plot and len(genes) > 1:
            raise InputError(f"--plot draws one gene; {options.gene} has {len(genes)}: name one of them")
        found = [looked_at.score_gene(one, loaded) for one in genes]
        names, lengths = loaded.letters.names, loaded.letters.lengths
        shown = [looked_at.sites_of(one, THRESHOLD) for one in found]
        contigs = [names[one.sites.gene.interval.chrom] for one in found]
        if options.json:
            together = zip(found, shown, contigs, strict=True)
            print(json.dumps([looked_at.as_json(*one) for one in together], indent=1))
        else:
            for one, sites, contig in zip(found, shown, contigs, strict=True):
                span = one.sites.gene.interval
                place = f"{contig}:{span.start + 1:,}-{span.end:,}"
                print(f"{one.sites.symbol} ({one.sites.gene.gene_id}), {place}, strand {one.sites.gene.strand}")
                print("\n".join(table_of(one, sites, contig)))
                print("\n".join(looked_at.summary_of(one, sites)))
        sizes = {chrom: (name, lengths[chrom]) for chrom, name in names.items()}
        systems = list(found[0].stretch.scores)
        written = list(write(((one.stretch, one.stretch) for one in found), systems, sizes, outputs).files)
    if options.plot:
        draw(options.plot, found[0], shown[0], contigs[0])
        written.append(options.plot)
    if not options.json:
        for file in written:
            print(f"wrote   {file}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from metalayer.contigs import Contigs
    from metalayer.regions import parse_region
    from metalayer.words import count_of
    from metalayer.workflows.export import Outputs, export, lengths_of

    if not any((options.bigwig, options.bedgraph, options.parquet, options.bed, options.gff3)):
        raise InputError("nothing to write: give --bigwig DIR, --bedgraph DIR, --parquet, --bed or --gff3 FILE")
    if options.transcripts < 1:
        raise InputError(f"--transcripts: given {options.transcripts}; needs 1 or more")
    outputs = Outputs(options.bigwig, options.bedgraph, options.parquet, options.bed, options.gff3, options.transcripts)
    sizes, regions = lengths_of(options.sizes, Contigs.of(options.aliases)), map(parse_region, options.region)
    done = export(options.scores, sizes, outputs, options.gene, list(regions))
    print(f"{count_of(done.positions, 'position')} of {count_of(done.genes, 'gene')}")
    for file in done.files:
        print(f"wrote   {file}")
    return 0
