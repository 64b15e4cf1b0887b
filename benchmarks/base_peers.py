"""One flank-10000 network on the same letters beside other programs: SpliceAI under TensorFlow, `openspliceai predict`.

SpliceAI 1.3.1's first network and ours answer in processes of their own, loaded and warm, on the whole sequence.
OpenSpliceAI 0.0.7 is measured as a command beside `metalayer base run`, with the same weights and the same torch. Both
are installed into environments of their own, in a folder that goes away. All cores; wall time and CPU time.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result
from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.device import resolve_precision
from metalayer.genome import decode

ROOT = Path(__file__).resolve().parents[1]
FLANK, ROUNDS = 10_000, 3
LENGTH, LENGTH_OF_COMMANDS = 100_000, 500_000
"""The commands' is so long that their start is a small part."""
SPLICEAI = """
import importlib.util, os, sys, time
import numpy as np
from keras.models import load_model

sequence, context = sys.argv[1], 10_000
folder = importlib.util.find_spec("spliceai").submodule_search_locations[0]
network = load_model(os.path.join(folder, "models", "spliceai1.h5"), compile=False)
letters = np.zeros((1, len(open(sequence).read()) + context, 4), dtype=np.int8)
for i, letter in enumerate("ACGT"):
    letters[0, context // 2 : -context // 2, i] = [given == letter for given in open(sequence).read()]
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    scores = network.predict(letters, verbose=0)
    assert scores.shape == (1, letters.shape[1] - context, 3), scores.shape
    print("took", time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""
OURS = """
import sys, time
from metalayer.base import load_base_model

sequence, weights, precision = sys.argv[1:]
network = load_base_model("openspliceai", weights=weights, device="cpu", precision=precision)
letters = open(sequence).read()
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    scores = network.score(letters)
    assert scores.shape == (len(letters), 3), scores.shape
    print("took", time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""
Times = tuple[float, float]
"""Seconds by the wall and of CPU."""


def environment(folder: Path, *packages: str) -> Path:
    """An environment with these packages, of those that need others without them; its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    for package in packages:
        options = ["--no-deps"] if package.startswith(("spliceai", "openspliceai")) else []
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, package]
        subprocess.run(command, check=True)
    return python


def command(arguments: list[object], **more: str) -> Times:
    """Of a process, from its start to its end."""
    wall, before = time.perf_counter(), os.times()
    subprocess.run(list(map(str, arguments)), check=True, capture_output=True, env=os.environ | more)
    after = os.times()
    children = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return time.perf_counter() - wall, children


@contextlib.contextmanager
def asked(*arguments: object) -> Iterator[Callable[[], Times]]:
    """A process that computes once each time it is asked; threads that wait sleep, as in our commands."""
    with subprocess.Popen(
        list(map(str, arguments)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"},
    ) as process:
        assert process.stdin
        assert process.stdout

        def ask() -> Times:
            print("go", file=process.stdin, flush=True)
            _, wall, cpu = next(line for line in process.stdout if line.startswith("took")).split()
            return float(wall), float(cpu)

        yield ask
        process.stdin.close()


def in_turn(
    length: int, ours: Mapping[str, Callable[[], Times]], theirs: Callable[[], Times], peer: str
) -> list[Result]:
    """By the wall and by CPU, the best of several turns, after one to warm up."""
    turns = [[one() for one in (theirs, *ours.values())] for _ in range(ROUNDS + 1)][1:]
    results = []
    for number, name in enumerate(ours, start=1):
        for kind, unit in enumerate(("nt/s", "nt/s of CPU")):
            other, mine = (min(turn[side][kind] for turn in turns) for side in (0, number))
            results.append(Result(f"base layer, {name}", length / mine, unit, peer, other / mine))
    return results


def run(_data: Path) -> list[Result]:
    torch.manual_seed(0)
    plain = PlainSpliceAI(FLANK).eval()
    with torch.no_grad():
        plain.final_conv.bias[0] += 10  # few sites, as of a trained network
    letters = decode(np.random.default_rng(0).integers(0, 4, LENGTH_OF_COMMANDS).astype(np.uint8))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights" / f"model_{FLANK}nt_rs1.pt"
        weights.parent.mkdir()
        torch.save(plain.state_dict(), weights)
        sequence, fasta, gene = folder / "letters.txt", folder / "gene.fa", folder / "gene.gtf"
        sequence.write_text(letters[:LENGTH])
        fasta.write_text(f">chr1\n{letters}\n")
        gene.write_text(f'chr1\tx\texon\t1\t{LENGTH_OF_COMMANDS}\t.\t+\t.\tgene_id "g"; transcript_id "t";\n')
        return [*spliceai(folder, weights.parent, sequence), *openspliceai(folder, weights, fasta, gene)]


def spliceai(folder: Path, weights: Path, sequence: Path) -> list[Result]:
    python = environment(folder / "tensorflow", "tensorflow-cpu==2.21.0", "spliceai==1.3.1")
    precisions = ["float32", *({resolve_precision("auto", "cpu")} - {"float32"})]
    with contextlib.ExitStack() as processes:
        theirs = processes.enter_context(asked(python, "-c", SPLICEAI, sequence))
        ours = {
            f"a network, {name}": processes.enter_context(asked(sys.executable, "-c", OURS, sequence, weights, name))
            for name in precisions
        }
        return in_turn(LENGTH, ours, theirs, "SpliceAI 1.3.1, TensorFlow 2.21")


def openspliceai(folder: Path, weights: Path, fasta: Path, gene: Path) -> list[Result]:
    packages = ["gffutils", "pysam", "pyfaidx", "biopython", "mappy", "openspliceai==0.0.7"]
    python = environment(folder / "openspliceai", *packages)
    site = next((folder / "openspliceai" / "lib").glob("python*/site-packages"))
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "ours.pth").write_text("\n".join(ours))  # torch, and what else it needs
    predict = [python.parent / "openspliceai", "predict", "-i", fasta, "-m", weights, "-f", FLANK, "-t", 0.5]
    score = [sys.executable, "-m", "metalayer", "base", "run", "--model", "openspliceai", "--weights", weights.parent]
    score += ["--fasta", fasta, "--annotation", gene, "--device", "cpu"]
    return in_turn(
        LENGTH_OF_COMMANDS,
        {"command": lambda: command([*score, "--output", tempfile.mkdtemp(dir=folder)], PYTHONPATH=str(ROOT))},
        lambda: command([*predict, "-o", tempfile.mkdtemp(dir=folder)]),
        "openspliceai 0.0.7 predict",
    )
