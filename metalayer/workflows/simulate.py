"""Made-up genes to a data root: everything that a base-layer pass over a real genome would leave."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metalayer.base.artifacts import write_artifacts
from metalayer.base.genome_files import write_fasta, write_gene_table, write_gff3, write_splicevardb
from metalayer.base.planted_evidence import write_evidence
from metalayer.base.protocol import load_base_model
from metalayer.base.simulator import SimulationParameters, simulate_genes, simulate_variants
from metalayer.errors import InputError
from metalayer.files import publish_directory
from metalayer.gene_track import GeneTrack
from metalayer.genome import decode
from metalayer.integrity import FILES, listed, write_json
from metalayer.site_labels import SiteMarks

logger = logging.getLogger(__name__)

BASE_MODEL, ANNOTATION_SOURCE, BUILD = "pwm", "simulated", "GRCh38"
MANIFEST, EVIDENCE = "manifest.json", "evidence"
_FORMAT = "metalayer simulation"
_FORMAT_VERSION = 1
_HG19_SHIFT_BP = 137
"""hg19 minus hg38 position of the simulated variants: any number but 0 shows a wrong column."""


def simulate(output_dir: Path, seed: int = 7, n_genes: int = 150) -> dict[str, Any]:
    """Simulate genes, score them with the built-in base model and write a complete data root.

    Published whole: a killed run leaves no `output_dir`, or the one that was there. The same seed
    writes the same bytes.

    Args:
        output_dir: folder to write; an earlier simulation there is replaced.
        seed: draws everything.
        n_genes: how many genes.

    Returns:
        What was written, as in `manifest.json`.

    Raises:
        InputError: `output_dir` holds something else, or an impossible seed or number of genes.
    """
    output_dir = Path(output_dir).resolve()
    _check_output(output_dir)
    parameters = SimulationParameters()
    simulation = simulate_genes(seed, n_genes, parameters)
    model = load_base_model(BASE_MODEL)

    def scored() -> Iterator[GeneTrack]:
        for item in simulation.genes:
            upstream, downstream = simulation.flanks(item.gene, model.flank_bp)
            scores = model.score(decode(item.tokens), upstream, downstream)
            marks = SiteMarks.of_one_transcript(item.labels)
            yield GeneTrack(item.gene, item.tokens, scores, item.labels, marks=marks)

    with publish_directory(output_dir) as draft:
        report = write_artifacts(
            draft, scored(), base_model=BASE_MODEL, annotation_source=ANNOTATION_SOURCE, build=BUILD, seed=seed
        )
        write_gene_table(draft / "genes.tsv", (item.gene for item in simulation.genes))
        write_fasta(draft / "genome" / "simulated.fa", simulation.chromosomes)
        exons = ((item.gene, item.exons) for item in simulation.genes)
        write_gff3(draft / "genome" / "simulated.gff3", exons, source="simulated")
        variants = simulate_variants(simulation, seed)
        write_splicevardb(
            draft / "splicevardb.download.tsv",
            variants,
            hg19_shift_bp=_HG19_SHIFT_BP,
            method="simulated",
            quote_every=7,
        )
        write_evidence(draft / EVIDENCE, simulation, seed)
        summary = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "seed": seed,
            "base_model": BASE_MODEL,
            "annotation_source": ANNOTATION_SOURCE,
            "genome_build": BUILD,
            "flanks": "the simulated chromosome's own letters",
            "genes": report.genes,
            "positions": report.positions,
            "sites": report.sites,
            "rows": report.rows,
            "decoys": sum(len(item.decoys) for item in simulation.genes),
            "variants": len(variants),
            "paralog_groups": len({item.gene.paralog_group for item in simulation.genes} - {None}),
            "parameters": asdict(parameters),
            FILES: listed(draft, [path.relative_to(draft).as_posix() for path in draft.rglob("*") if path.is_file()]),
        }
        write_json(draft / MANIFEST, summary)
    logger.info("simulated %d genes into %s", report.genes, output_dir)
    return summary


def _check_output(output_dir: Path) -> None:
    if output_dir in (Path.cwd(), *Path.cwd().parents):
        raise InputError(
            f"{output_dir} is the folder that you are in, or above it; give a new one, as the simulation appears whole"
        )
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise InputError(f"{output_dir} is a file; give a folder for the simulation, new or of an earlier simulation")
    if not any(output_dir.iterdir()):
        return
    try:
        earlier = json.loads((output_dir / MANIFEST).read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        earlier = None
    if earlier != _FORMAT:
        raise InputError(
            f"{output_dir} is not empty and holds no earlier simulation; it stays as it is. Give a new folder, or "
            "empty this one"
        )
