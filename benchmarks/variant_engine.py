"""SNVs a second of the engine that computes only what they change, on three lists, beside all that others compute.

Lists: one SNV in a gene, one in a kilobase, every SNV of 200 bases; answers at 50 bases to either side, five networks
of flank 10,000, random letters. The others are two whole passes an SNV of our own ensemble, and of SpliceAI 1.3.1's
networks under TensorFlow over the 10,101 letters that its command gives them. These take equally long for each SNV: one
is measured, in turn with the lists. All cores; by the wall and by CPU.

Weights are SpliceAI's where its package could be installed beside TensorFlow, and random elsewhere.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.base_peers import Times, asked, environment
from benchmarks.measure import Result
from benchmarks.plain_spliceai import PlainSpliceAI
from metalayer.device import resolve_precision

ROUNDS, DISTANCE, MEMBERS, FLANK = 2, 50, 5, 10_000
COUNTS = {"scattered": 6, "one in a kilobase": 48, "saturation": 600}
PACKAGES = ("tensorflow-cpu==2.21.0", "pandas", "pyfaidx", "pysam", "setuptools<80", "numpy<2.3", "spliceai==1.3.1")
"""Its command reads letters in a way that numpy took away in 2.3, and needs setuptools' pkg_resources."""
SPLICEAI = """
import importlib.util, os, sys, time
import numpy as np
from keras.models import load_model

length = int(sys.argv[1])
folder = importlib.util.find_spec("spliceai").submodule_search_locations[0]
networks = [load_model(os.path.join(folder, "models", f"spliceai{i}.h5"), compile=False) for i in range(1, 6)]
letters = np.eye(4, dtype=np.int8)[np.random.default_rng(0).integers(0, 4, length)][None]
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    for haplotype in range(2):
        scores = np.mean([network.predict(letters, verbose=0) for network in networks], axis=0)
    assert scores.shape == (1, length - 10_000, 3), scores.shape
    print("took", time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""
OURS = """
import sys, time
import numpy as np
from metalayer.base import load_base_model
from metalayer.base.haplotypes import Alternative
from metalayer.base.incremental import score_alternatives

name, weights, precision, what, distance = sys.argv[1:]
distance, rng = int(distance), np.random.default_rng(0)
ensemble = load_base_model(name, weights=weights, device="cpu", precision=precision)
half = ensemble.flank_bp
tokens = rng.integers(0, 4, 2 * (half + distance) + 50_000).astype(np.uint8)

def snvs(places):
    found = []
    for place in places:
        for letter in set(range(4)) - {tokens[place]}:
            letters = np.array([letter], dtype=np.uint8)
            found.append(Alternative(int(place), 1, letters, int(place) - distance, int(place) + distance + 1))
    return found

first = half + distance
kilobases = first + 1_000 * np.arange(48) + rng.integers(0, 1_000, 48)
calls = {
    "scattered": [snvs([place])[:1] for place in first + 8_000 * np.arange(6)],
    "one in a kilobase": [snvs(kilobases)[::3]],
    "saturation": [snvs(range(first, first + 200))],
    "whole passes": [],
}[what]
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    for call in calls:
        score_alternatives(ensemble, tokens, call)
    if not calls:
        for haplotype in range(2):
            ensemble.score_tokens(tokens[: 2 * first + 1])
    print("took", time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""


def spliceai(folder: Path) -> Path | None:
    """The interpreter of an environment with SpliceAI and TensorFlow, where they can be installed."""
    with contextlib.suppress(subprocess.CalledProcessError):
        return environment(folder, *PACKAGES)
    print("no SpliceAI and TensorFlow here: our own whole passes alone are the baseline", file=sys.stderr)
    return None


def ours(*arguments: object) -> contextlib.AbstractContextManager[Callable[[], Times]]:
    return asked(sys.executable, "-c", OURS, *arguments, DISTANCE)


def random_weights(folder: Path) -> Path:
    folder.mkdir()
    for seed in range(MEMBERS):
        torch.manual_seed(seed)
        torch.save(PlainSpliceAI(FLANK).state_dict(), folder / f"model_{FLANK}nt_rs{seed}.pt")
    return folder


def run(_data: Path) -> list[Result]:
    precisions = ["float32", *({resolve_precision("auto", "cpu")} - {"float32"})]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as processes:
        python = spliceai(Path(name) / "tensorflow")
        if python:
            site = next((python.parent.parent / "lib").glob("python*/site-packages"))
            weights = ("spliceai", site / "spliceai" / "models")
        else:
            weights = ("openspliceai", random_weights(Path(name) / "weights"))
        ask = {"our own whole passes": (1, processes.enter_context(ours(*weights, "float32", "whole passes")))}
        if python:
            theirs = processes.enter_context(asked(python, "-c", SPLICEAI, FLANK + 2 * DISTANCE + 1))
            ask["SpliceAI 1.3.1, TensorFlow 2.21"] = (1, theirs)
        others = list(ask)
        for precision in precisions:
            for what, count in COUNTS.items():
                ask[f"SNVs, {what}, {precision}"] = (count, processes.enter_context(ours(*weights, precision, what)))
        turns = [{name: call() for name, (_, call) in ask.items()} for _ in range(ROUNDS + 1)][1:]
    best = {
        name: [min(turn[name][kind] for turn in turns) / count for kind in (0, 1)] for name, (count, _) in ask.items()
    }
    return [
        Result(name, 1 / best[name][kind], unit, other, best[other][kind] / best[name][kind])
        for name in ask
        if name not in others
        for other in others
        for kind, unit in enumerate(("SNVs/s", "SNVs/s of CPU"))
    ]
