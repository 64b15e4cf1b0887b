"""`metalayer variants` from VCF to VCF beside SpliceAI 1.3.1's own command on the same files: what its user waits for.

Lists as in `variant_engine`, on a made-up chromosome with genes. A command's start (models, annotation) is measured on
a VCF of one record that is in no gene, and taken off; it is stated beside. SpliceAI takes equally long for each SNV, so
it is asked a few of each list. All cores; by the wall and by CPU. Last, records between genes alone, of which most of a
genome's file consists, with how much more memory ten times as many take.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.base_peers import ROOT, Times, command
from benchmarks.measure import Result
from benchmarks.variant_engine import DISTANCE, spliceai
from metalayer.genome import decode

GENES, GENE_BP, BETWEEN_BP = 12, 60_000, 20_000
ROUNDS = 1
COUNTS = {"scattered": (12, 6), "one in a kilobase": (48, 6), "saturation": (600, 6)}
"""SNVs that we are asked, and SpliceAI."""
STREAMED = 200_000
PEAK = """
import sys
from metalayer.cli import main
status = main(sys.argv[1:])
print(*(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""
"""`resource` would say what the process that starts it takes, where that is more."""


def genome(folder: Path) -> tuple[Path, Path, str]:
    """A chromosome of random letters, and genes on both strands in SpliceAI's table."""
    size = GENES * (GENE_BP + BETWEEN_BP) + BETWEEN_BP
    text = decode(np.random.default_rng(0).integers(0, 4, size).astype(np.uint8))
    fasta, table = folder / "genome.fa", folder / "genes.txt"
    fasta.write_text(">chr1\n" + "".join(f"{text[at : at + 60]}\n" for at in range(0, size, 60)))
    lines = ["#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END"]
    for number in range(GENES):
        start = BETWEEN_BP + number * (GENE_BP + BETWEEN_BP)
        end = start + GENE_BP
        ends = f"{start + 200},{end},"
        lines.append(f"GENE{number}\tchr1\t{'+-'[number % 2]}\t{start}\t{end}\t{start},{end - 200},\t{ends}")
    table.write_text("\n".join(lines) + "\n")
    return fasta, table, text


def places(what: str) -> list[int]:
    """0-based positions of a list of SNVs; those of a saturation are asked with three ALT each."""
    first = BETWEEN_BP + 8_000
    if what == "scattered":
        return [first + number * (GENE_BP + BETWEEN_BP) for number in range(GENES)]
    if what == "one in a kilobase":
        jitter = np.random.default_rng(0).integers(0, 1_000, 48)
        return [int(first + 1_000 * number + jitter[number]) for number in range(48)]
    return [first + number // 3 for number in range(600)]


def write(path: Path, text: str, at: Iterable[int], size: int | None = None) -> Path:
    """A VCF of SNVs; of one position the letters in turn."""
    lines = ["##fileformat=VCFv4.2", f"##contig=<ID=chr1,length={size or len(text)}>"]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    seen: dict[int, int] = {}
    for place in at:
        turn = seen[place] = seen.get(place, 0) + 1
        alt = "ACGT"[("ACGT".index(text[place]) + turn) % 4]
        lines.append(f"chr1\t{place + 1}\t.\t{text[place]}\t{alt}\t.\t.\t.")
    path.write_text("\n".join(lines) + "\n")
    return path


def run(_data: Path) -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fasta, table, text = genome(folder)
        files = ["--fasta", fasta, "--annotation", table, "--allow-introns", "--device", "cpu"]
        results = streamed(folder, files, text)
        python = spliceai(folder / "tensorflow")
        if not python:
            return results
        site = next((python.parent.parent / "lib").glob("python*/site-packages"))
        weights = ["--base", "spliceai", "--weights", site / "spliceai" / "models"]
        score = [sys.executable, "-m", "metalayer", "variants", "--distance", DISTANCE, *files, *weights]
        theirs = [python.parent / "spliceai", "-R", fasta, "-A", table, "-D", DISTANCE]
        runs: dict[tuple[str, bool], list[Times]] = {}
        for number in range(ROUNDS + 1):
            for what in ("start", *COUNTS):
                for is_ours in (True, False):
                    at = [5] if what == "start" else places(what)[: COUNTS[what][not is_ours]]
                    given, out = write(folder / "in.vcf", text, at), folder / "out.vcf"
                    ask = [*score, given, "-O", out] if is_ours else [*theirs, "-I", given, "-O", out]
                    took = command(ask, PYTHONPATH=str(ROOT) if is_ours else "", OMP_WAIT_POLICY="passive")
                    if number or what != "start":  # the first of each is to warm up
                        runs.setdefault((what, is_ours), []).append(took)
        best = {key: [min(took[kind] for took in turns) for kind in (0, 1)] for key, turns in runs.items()}
        for what, counts in COUNTS.items():
            for kind, unit in enumerate(("SNVs/s", "SNVs/s of CPU")):
                start, other_start = (best["start", is_ours][kind] for is_ours in (True, False))
                mine, other = (
                    (best[what, is_ours][kind] - best["start", is_ours][kind]) / count
                    for is_ours, count in zip((True, False), counts, strict=True)
                )
                note = f"start {start:.1f} s, theirs {other_start:.1f} s"
                title = f"command, SNVs {what}, float32"
                results.append(Result(title, 1 / mine, unit, "`spliceai` 1.3.1's command", other / mine, note))
        return results


def streamed(folder: Path, files: list[object], text: str) -> list[Result]:
    """Records between genes: how many a second, and what ten times as many take of memory."""
    took, peaks = [], []
    for count in (STREAMED // 10, STREAMED):
        at = sorted(np.random.default_rng(0).integers(0, BETWEEN_BP - 100, count).tolist())
        given = write(folder / "between.vcf", text, at)
        arguments = ["variants", *files, "--base", "pwm", given, "-O", folder / "out.vcf.gz"]
        took.append(command([sys.executable, "-m", "metalayer", *arguments], PYTHONPATH=str(ROOT))[1])
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(float(done.stdout.split()[-1]))
    rate = (STREAMED - STREAMED // 10) / (took[1] - took[0])
    note = f"{peaks[1]:.0f} MB at most, {peaks[1] - peaks[0]:+.0f} MB for ten times as many"
    return [Result("command, records between genes", rate, "records/s of CPU", note=note)]
