"""`metalayer import` of a BigWig quartet: positions a second, and memory at two sizes, each in a process of its own.

`python -m benchmarks.importing FOLDER GENES` makes files of so many genes in a folder and imports them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyBigWig

from benchmarks.measure import Result
from benchmarks.metrics import peak_mb

GENE_BP, INTRON_BP, EXON_BP = 30_000, 2_900, 100
CONTIG = 100
"""Genes of a contig, whose letters are in memory as a whole."""
SMALL, LARGE = 100, 1000
"""Genes: 3 and 30 million positions."""
MOST_MORE = 1.25


def make(folder: Path, genes: int) -> None:
    """Contigs of 100 genes on either strand, ten exons each, scores high at their sites."""
    lengths = {f"chr{n + 1}": min(CONTIG, genes - n * CONTIG) * GENE_BP for n in range(-(-genes // CONTIG))}
    files = {}
    for name in ("donor_plus", "donor_minus", "acceptor_plus", "acceptor_minus"):
        files[name] = pyBigWig.open(str(folder / f"{name}.bw"), "w")
        files[name].addHeader(list(lengths.items()))
    rng = np.random.default_rng(1)
    with (folder / "g.fa").open("wb") as fasta, (folder / "g.gff3").open("w") as annotation:
        annotation.write("##gff-version 3\n")
        for chrom, length in lengths.items():
            letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), length)
            scores = {name: rng.random(length, dtype=np.float32) * 1e-3 for name in files}
            for number in range(length // GENE_BP):
                annotation.writelines(f"{line}\n" for line in _gene(chrom, number, letters, scores))
            text = letters.tobytes()
            fasta.write(f">{chrom}\n".encode())
            fasta.writelines(text[at : at + 100] + b"\n" for at in range(0, length, 100))
            for name, values in scores.items():
                files[name].addEntries(chrom, 0, values=values, span=1, step=1)
    for file in files.values():
        file.close()


def _gene(chrom: str, number: int, letters: np.ndarray, scores: dict[str, np.ndarray]) -> list[str]:
    """Lines of an annotation, of a gene whose sites are put into letters and scores."""
    start, strand, word = number * GENE_BP, "+-"[number % 2], ("plus", "minus")[number % 2]
    end, name = start + GENE_BP, f"{chrom}.{number}"
    before, after = (b"AG", b"GT") if strand == "+" else (b"AC", b"CT")
    low_class, high_class = ("acceptor", "donor") if strand == "+" else ("donor", "acceptor")

    def line(kind: str, low: int, high: int, fields: str) -> str:
        return f"{chrom}\tx\t{kind}\t{low + 1}\t{high}\t.\t{strand}\t.\t{fields}"

    lines = [line("gene", start, end, f"ID=gene-{name}"), line("mRNA", start, end, f"ID=rna-{name};Parent=gene-{name}")]
    for low in range(start, end, EXON_BP + INTRON_BP):
        high = low + EXON_BP if low + EXON_BP + INTRON_BP < end else end
        lines.append(line("exon", low, high, f"Parent=rna-{name}"))
        if low > start:
            letters[low - 2 : low] = np.frombuffer(before, np.uint8)
            scores[f"{low_class}_{word}"][low] = 0.9
        if high < end:
            letters[high : high + 2] = np.frombuffer(after, np.uint8)
            scores[f"{high_class}_{word}"][high - 1] = 0.9
    return lines


def measured(genes: int) -> dict[str, float]:
    """Seconds and peak memory of an import."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), genes)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.importing", folder], capture_output=True, text=True, check=True
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run(_data: Path) -> list[Result]:
    small, large = measured(SMALL), measured(LARGE)
    ratio = large["peak_mb"] / small["peak_mb"]
    note = f"{large['seconds']:.1f} s for {LARGE * GENE_BP / 1e6:g} million positions"
    return [
        Result("import of a BigWig quartet", LARGE * GENE_BP / large["seconds"], "positions/s", note=note),
        Result(
            "import, peak of the process",
            large["peak_mb"],
            "MB",
            f"with {SMALL / LARGE:g} of the positions",
            ratio,
            f"aim below {MOST_MORE:g}",
        ),
    ]


def main() -> None:
    from metalayer.settings.sections import ImportConfig
    from metalayer.workflows.import_scores import import_scores

    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        make(folder, int(sys.argv[2]))
    files = tuple(sorted(folder.glob("*.bw")))
    config = ImportConfig(
        files=files, fasta=folder / "g.fa", annotation=folder / "g.gff3", base="b", output=folder / "out"
    )
    before, began = peak_mb(), time.perf_counter()
    import_scores(config)
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_mb(), "before_mb": before}))


if __name__ == "__main__":
    main()
