"""Five million positions of a hundred genes to a BigWig, beside pyBigWig a gene at a time, a line a position."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pyBigWig

from benchmarks.measure import Result, seconds
from metalayer.formats.written import BigWigFile

_GENES, _LENGTH, _APART = 100, 50_000, 60_000


def run(_: Path) -> list[Result]:
    """Values as of real scores: most near 0, few near 1."""
    values = np.random.default_rng(0).random((_GENES, _LENGTH)).astype(np.float32) ** 20
    lengths = {"chr1": _GENES * _APART}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.bw"

        def ours() -> None:
            file = BigWigFile(path, lengths)
            for number, one in enumerate(values):
                file.add("chr1", number * _APART, one)
            file.close()

        def plain() -> None:
            file = pyBigWig.open(str(path), "w")
            file.addHeader(list(lengths.items()))
            for number, one in enumerate(values):
                starts = np.arange(number * _APART, number * _APART + _LENGTH)
                ends = (starts + 1).tolist()
                file.addEntries(["chr1"] * _LENGTH, starts.tolist(), ends=ends, values=one.tolist())
            file.close()

        took = seconds({"ours": ours, "plain": plain}, 3, time.process_time)
    rate = values.size / took["ours"]
    return [
        Result("BigWig of 5 million positions", rate, "positions/s", "pyBigWig", took["plain"] / took["ours"], "by CPU")
    ]
