"""`python -m benchmarks [name ...]`: run all benchmarks, or those named, and print one table."""

from __future__ import annotations

import importlib
import platform
import sys
import tempfile
from pathlib import Path

import polars as pl
import torch

from benchmarks.measure import Result
from metalayer.workflows.simulate import simulate

BENCHMARKS = (
    "reading",
    "training",
    "frozen",
    "hyenadna",
    "gpu",
    "inference",
    "evidence",
    "metrics",
    "streaming",
    "base_layer",
    "base_peers",
    "variant_engine",
    "variant_files",
    "importing",
    "exporting",
    "commands",
    "serving",
)


def main() -> int:
    chosen = sys.argv[1:] or BENCHMARKS
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
            results += importlib.import_module(f"benchmarks.{name}").run(data)  # some need GPU or serving extras
            print(f"{name} done", file=sys.stderr)
    width = max((len(result.name) for result in results), default=0)
    for result in results:
        print(f"{result.name:<{width}}  {result.text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
