"""The base-layer pass of a flank-10000 network, by CPU time of one thread: of the machine's peak, and beside others.

The peak is the best of torch's layouts on the network's own convolutions, and of a product of matrices; what a pass
reaches of it is by the operations that its positions need. The others are the pass of commit c7be506, which computed
blocks of 30,000 positions each with their flanks, and the plain network. The best of several runs counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Result, seconds
from benchmarks.plain_spliceai import GROUPS, WINDOW, PlainSpliceAI
from metalayer.base.openspliceai import load_openspliceai
from metalayer.device import resolve_precision

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "c7be506"
FLANK, LENGTH = 10_000, 150_000
PEAK_POSITIONS = 10_000


def before() -> ModuleType | None:
    """The pass of the earlier commit; None where the history does not have it."""
    command = ["git", "-C", ROOT, "show", f"{BEFORE}:metalayer/base/openspliceai.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    module = sys.modules["openspliceai_before"] = ModuleType("openspliceai_before")
    exec(done.stdout, module.__dict__)
    return module


def operations(positions: int) -> int:
    """Of the convolutions, with what they need of the flanks: none can be left out."""
    total, left = 0, positions + FLANK
    for width, dilation in GROUPS[FLANK]:
        for _ in range(8):
            left -= (width - 1) * dilation
            total += 2 * 32 * 32 * width * left
    return total


def layouts(width: int, dilation: int, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """One convolution over the same positions in every layout that torch has for it."""
    rows = PEAK_POSITIONS // dilation + width - 1
    weight = torch.randn(32, 32, width).to(dtype)
    flat = weight[:, :, None].contiguous(memory_format=torch.channels_last)
    x = torch.randn(1, 32, rows * dilation).to(dtype)
    copies = torch.randn(dilation, 32, rows).to(dtype)
    last, last_copies = (part[:, :, None].contiguous(memory_format=torch.channels_last) for part in (x, copies))
    return {
        "Conv1d": lambda: functional.conv1d(x, weight, dilation=dilation),
        "Conv1d of copies": lambda: functional.conv1d(copies, weight),
        "Conv2d, channels last": lambda: functional.conv2d(last, flat, dilation=(1, dilation)),
        "Conv2d of copies, channels last": lambda: functional.conv2d(last_copies, flat),
    }


def peak(dtype: torch.dtype) -> tuple[float, str]:
    """The most operations a second, and what reached them."""
    found: dict[str, float] = {}
    for width, dilation in GROUPS[FLANK]:
        for name, took in seconds(layouts(width, dilation, dtype), 9, time.process_time, min).items():
            found[f"{name}, {width} wide"] = 2 * 32 * 32 * width * PEAK_POSITIONS / took
    square = torch.randn(1024, 1024).to(dtype)
    found["product of matrices"] = 2 * 1024**3 / seconds({"": lambda: square @ square}, 9, time.process_time, min)[""]
    best = max(found, key=found.__getitem__)
    return found[best], best


def run(_data: Path) -> list[Result]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return measured()
    finally:
        torch.set_num_threads(threads)


def measured() -> list[Result]:
    torch.manual_seed(0)
    plain = PlainSpliceAI(FLANK).eval()
    tokens = np.random.default_rng(0).integers(0, 4, LENGTH + FLANK).astype(np.uint8)
    letters = torch.eye(4)[torch.from_numpy(tokens.astype(np.int64))].T.unsqueeze(0)
    precisions = ["float32", *({resolve_precision("auto", "cpu")} - {"float32"})]
    earlier = before()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(plain.state_dict(), Path(folder) / f"model_{FLANK}nt_rs1.pt")
        models = {name: load_openspliceai(folder, device="cpu", precision=name) for name in precisions}
        models |= {BEFORE: earlier.OpenSpliceAI(folder, device="cpu")} if earlier else {}

    def windows() -> None:
        for start in range(0, LENGTH, WINDOW):
            plain(letters[..., start : start + WINDOW + FLANK])

    passes: dict[str, Callable[[], object]] = {
        name: lambda model=model: model.score_tokens(tokens) for name, model in models.items()
    }
    times = seconds(passes | {"plain": windows}, 5, time.process_time, min)
    peaks = {name: peak(getattr(torch, name)) for name in precisions}
    results = []
    for name, (most, layout) in peaks.items():
        rate = LENGTH / times[name]
        title = f"base layer, flank {FLANK}, {name}"
        note = f"{most / 1e9:.0f} GFLOP/s: {layout}"
        reached = operations(LENGTH) / times[name] / most
        results.append(Result(title, rate, "nt/s of a core", "the peak of the core", reached, note))
        others = {"float32": "float32", BEFORE: f"commit {BEFORE}", "plain": "plain network in 5,000-nt windows"}
        for other, what in others.items():
            if other in times and other != name:
                results.append(Result(title, rate, "nt/s of a core", what, times[other] / times[name]))
    return results
