"""Metrics of 10 million positions, beside scikit-learn's: seconds and memory, each run in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import Result
from metalayer.evaluation.row_metrics import row_metrics
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

POSITIONS, SITES, REPEATS = 10_000_000, 0.003, 3


def positions(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities: most scores near zero, sites' mostly near one."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(n) < SITES, rng.integers(0, 2, n), NEITHER).astype(np.uint8)
    logits = rng.normal(-9, 2.5, (n, 3)).astype(np.float32)
    logits[:, NEITHER] = 0
    sites = np.flatnonzero(labels != NEITHER)
    logits[sites, labels[sites]] += 11
    p = np.exp(logits, out=logits)
    p /= p.sum(axis=1, keepdims=True)
    return labels, p


def scikit_learn(labels: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """What scikit-learn has of `row_metrics`: no top-k accuracy, no calibration error."""
    from sklearn.metrics import (
        average_precision_score,
        confusion_matrix,
        precision_recall_fscore_support,
        roc_auc_score,
    )

    out = {}
    for name, true, score in (
        ("splice", labels != NEITHER, p[:, DONOR].astype(np.float64) + p[:, ACCEPTOR]),
        ("donor", labels == DONOR, p[:, DONOR]),
        ("acceptor", labels == ACCEPTOR, p[:, ACCEPTOR]),
    ):
        out["pr_auc_splice" if name == "splice" else f"ap_{name}"] = float(average_precision_score(true, score))
        out[f"roc_auc_{name}"] = float(roc_auc_score(true, score))
    called = p.argmax(axis=1)
    precision_recall_fscore_support(labels, called)
    out["accuracy"] = float(np.trace(confusion_matrix(labels, called)) / len(labels))
    return out


CONTESTANTS = {"metalayer": row_metrics, "scikit-learn": scikit_learn}


def child(contestant: str, folder: Path) -> dict[str, object]:
    """One run: its numbers, seconds, and by how many MB the process's peak memory rose above its arguments."""
    labels, p = np.load(folder / "labels.npy"), np.load(folder / "p.npy")
    compute = CONTESTANTS[contestant]
    compute(*positions(10_000))  # imports
    before = peak_mb()
    started = time.perf_counter()
    found = compute(labels, p)
    taken = time.perf_counter() - started
    return {"found": found, "seconds": taken, "extra_mb": peak_mb() - before}


def peak_mb() -> float:
    """Peak memory of this process; `ru_maxrss` would be no less than its parent's, whose it inherits (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run(data: Path) -> list[Result]:
    del data  # simulated genes are too few
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels, p = positions(POSITIONS)
        np.save(folder / "labels.npy", labels)
        np.save(folder / "p.npy", p)
        del labels, p
        for _ in range(REPEATS):
            answers = {}
            for contestant in CONTESTANTS:
                command = [sys.executable, "-m", "benchmarks.metrics", contestant, str(folder)]
                answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                answers[contestant] = answer.pop("found")
                runs[contestant].append(answer)
            for metric, value in answers["scikit-learn"].items():
                if abs(answers["metalayer"][metric] - value) > 1e-9:
                    raise AssertionError(f"{metric}: {answers['metalayer'][metric]}, scikit-learn {value}")
    seconds = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    extra = {name: max(run["extra_mb"] for run in found) for name, found in runs.items()}

    def result(name: str, contestant: str, baseline: str = "") -> Result:
        ratio = seconds[baseline] / seconds[contestant] if baseline else None
        note = f"{seconds[contestant]:.2f} s, {extra[contestant]:,.0f} MB beyond the arguments"
        return Result(name, POSITIONS / seconds[contestant], "positions/s", baseline, ratio, note)

    return [
        result("row_metrics, all of it", "metalayer", "scikit-learn"),
        result("scikit-learn, without top-k and ECE", "scikit-learn"),
    ]


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], Path(sys.argv[2]))))
