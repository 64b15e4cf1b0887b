"""Evaluation, calibration and an epoch's validation of generated genes: memory and time, beside commit c7be506.

Each runs in a process of its own, this code at 10 and at 100 million positions, that commit (which held all positions)
at 10 million. Memory is by how much the process's own rose, without what the file system keeps of scratch files; time
is without making the genes. `python -m benchmarks.streaming POSITIONS` does this code alone at another size.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "c7be506"
GENE_BP, SITES = 22_500, 9
"""Positions of a gene, and donors, and acceptors, as in the human genome."""
SMALL, LARGE = 10_000_000, 100_000_000
LIMIT_GIB, GENOME = 2.0, 450_000_000


def gene(number: int, systems: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels and probabilities of systems: most near zero, sites' mostly near one; the second sees a little more."""
    rng = np.random.default_rng(number)
    labels = np.full(GENE_BP, 2, dtype=np.uint8)
    at = rng.choice(GENE_BP, 2 * SITES, replace=False)
    labels[at[:SITES]], labels[at[SITES:]] = 0, 1
    logits = 2.5 * rng.standard_normal((GENE_BP, 3), dtype=np.float32) - 9
    logits[:, 2] = 0
    out = []
    for system in range(systems):
        moved = logits.copy()
        moved[at, labels[at]] += 11 + system
        np.exp(moved, out=moved)
        moved /= moved.sum(axis=1, keepdims=True)
        out.append(moved)
    return labels, out


def evaluation(n_genes: int, clock: Clock) -> Any:
    from metalayer.evaluation.metrics import GeneScores
    from metalayer.evaluation.report import evaluate

    def scored() -> Iterator[GeneScores]:
        for number in range(n_genes):
            with clock.stopped():
                labels, scores = gene(number, 2)
            yield GeneScores(f"G{number:06}", str(number % 22), labels, {"base": scores[0], "meta": scores[1]})

    try:
        from metalayer.evaluation.scored_genes import ScoresOnDisk
        from metalayer.settings.sections import EvaluateConfig
    except ImportError:  # c7be506
        from metalayer.config import EvaluateConfig

        return evaluate(list(scored()), EvaluateConfig())["meta"]
    return evaluate(ScoresOnDisk(scored(), ("base", "meta")), EvaluateConfig())["meta"]


def calibration(n_genes: int, clock: Clock) -> Any:
    import torch

    from metalayer.gene_track import GeneTrack
    from metalayer.genome import Gene, Interval

    try:
        from metalayer.workflows.calibrate import calibrate_on_genes
    except ImportError:  # c7be506
        from metalayer.workflows.train import calibrate_on_genes

    answers: dict[str, np.ndarray] = {}

    def read_many(gene_ids: list[str]) -> Iterator[GeneTrack]:
        for number, gene_id in enumerate(gene_ids):
            with clock.stopped():
                labels, (base, meta) = gene(number, 2)
                answers.clear()
                answers[gene_id] = np.log(meta)
                place = Gene(gene_id, Interval("1", 0, GENE_BP), "+")
                track = GeneTrack(place, np.zeros(GENE_BP, np.uint8), np.minimum(base, 1), labels)
            yield track

    store = SimpleNamespace(read_many=read_many)
    model = MagicMock(correction_shares=torch.ones(3))
    predictor = SimpleNamespace(
        masks_rows=False, model=model, log_probabilities=lambda track, *_: answers[track.gene.gene_id]
    )
    found = calibrate_on_genes(predictor, store, [f"G{number:06}" for number in range(n_genes)])
    return found.get("positions", found)


def validation(n_genes: int, clock: Clock) -> Any:
    import torch

    from metalayer.training.trainer import Trainer

    def batches() -> Iterator[SimpleNamespace]:
        for number in range(n_genes):
            with clock.stopped():
                labels, (p,) = gene(number, 1)
                batch = SimpleNamespace(
                    labels=torch.from_numpy(labels.astype(np.int64)[None]),
                    weights=torch.ones(1, GENE_BP),
                    inputs=(torch.from_numpy(np.log(p))[None],),
                )
                batch.to = lambda _, batch=batch: batch
            yield batch

    kept = SimpleNamespace(eval=lambda: lambda log_p: log_p)
    world = SimpleNamespace(agree=lambda figures: figures)
    return Trainer._validate(SimpleNamespace(kept=kept, val_loader=batches(), device="cpu", world=world))


WHAT = {"evaluation": evaluation, "calibration": calibration, "validation": validation}


class Clock:
    """Seconds, but for those in which it was stopped."""

    def __init__(self) -> None:
        self.started, self.out = time.perf_counter(), 0.0

    def stopped(self) -> Clock:
        return self

    def __enter__(self) -> None:
        self.out -= time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.out += time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.started - self.out


class Memory(threading.Thread):
    """Peak of the process's own memory, looked at every 10 ms: without mapped and cached files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._done = 0, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, self.now())

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    def stop(self) -> int:
        self._done.set()
        self.join()
        return max(self.peak, self.now())


def child(what: str, positions: int) -> dict[str, Any]:
    """One run: what it found, its seconds and by how many bytes its memory rose."""
    function = WHAT[what]
    function(20, Clock())  # imports
    before, memory, clock = Memory.now(), Memory(), Clock()
    memory.start()
    found = function(max(1, positions // GENE_BP), clock)
    return {"found": found, "seconds": clock.seconds(), "bytes": memory.stop() - before, "process": memory.peak}


def measured(what: str, positions: int, code: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), what, str(positions)]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=code)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def close(found: Any, other: Any) -> bool:
    """Whether all numbers that both have are the same to 6 digits."""
    if isinstance(found, dict):
        return all(close(value, other[key]) for key, value in found.items() if key in other)
    if isinstance(found, list):
        return all(map(close, found, other))
    return abs(found - other) <= 1e-6 * max(1.0, abs(found)) if isinstance(found, float) else True


def run(data: Path) -> list[Any]:
    from benchmarks.measure import Result

    del data  # simulated genes are too few
    results = []
    with tempfile.TemporaryDirectory() as name:
        command = ["git", "archive", BEFORE, "metalayer"]
        archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(name, filter="data")
        for what in WHAT:
            before, small = measured(what, SMALL, Path(name)), measured(what, SMALL, ROOT)
            if not close(small["found"], before["found"]):
                raise AssertionError(f"{what}: {small['found']}, of {BEFORE} {before['found']}")
            large = measured(what, LARGE, ROOT)
            per_position = before["bytes"] / SMALL
            note = (
                f"{large['seconds']:.0f} s; memory {small['bytes'] / 2**20:,.0f} MiB at {SMALL / 1e6:.0f} and "
                f"{large['bytes'] / 2**20:,.0f} MiB at {LARGE / 1e6:.0f} million positions, against "
                f"{per_position:.0f} bytes a position: {per_position * GENOME / 2**30:.0f} GiB of a genome"
            )
            ratio = before["seconds"] / small["seconds"]
            rate = LARGE / large["seconds"]
            results.append(Result(f"{what}, positions", rate, "positions/s", f"commit {BEFORE}", ratio, note))
    return results


def main() -> None:
    if len(sys.argv) == 3:  # a child
        print(json.dumps(child(sys.argv[1], int(sys.argv[2]))))
        return
    for what in WHAT:
        found = measured(what, int(sys.argv[1]), ROOT)
        numbers = f"{found['seconds']:.0f} s, memory {found['bytes'] / 2**30:.2f} GiB"
        print(f"{what} of {int(sys.argv[1]):,} positions: {numbers}, process {found['process'] / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
