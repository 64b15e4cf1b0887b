"""`python -m benchmarks [name ...]`: run all benchmarks, or those named, and print one table."""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

import polars as pl
import torch

from benchmarks import base_layer, frozen, hyenadna, inference, metrics, reading, serving, training
from benchmarks.measure import Result
from metalayer.workflows.simulate import simulate

BENCHMARKS = {
    "reading": reading.run,
    "training": training.run,
    "frozen": frozen.run,
    "hyenadna": hyenadna.run,
    "inference": inference.run,
    "metrics": metrics.run,
    "base_layer": base_layer.run,
    "serving": serving.run,
}


def main() -> int:
    chosen = sys.argv[1:] or list(BENCHMARKS)
    unknown = sorted(set(chosen) - set(BENCHMARKS))
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, python {platform.python_version()}, "
        f"torch {torch.__version__}, polars {pl.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        simulate(data, seed=7, n_genes=60)
        results: list[Result] = []
        for name in chosen:
            results += BENCHMARKS[name](data)
            print(f"{name} done", file=sys.stderr)
    width = max((len(result.name) for result in results), default=0)
    for result in results:
        print(f"{result.name:<{width}}  {result.text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
