"""The base-layer pass of a flank-10000 network against the plain dilated network in 5,000-nt windows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result, seconds
from benchmarks.plain_spliceai import WINDOW, PlainSpliceAI
from metalayer.base.openspliceai import OpenSpliceAI

FLANK, LENGTH = 10_000, 30_000


def run(_data: Path) -> list[Result]:
    torch.manual_seed(0)
    plain = PlainSpliceAI(FLANK).eval()
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, LENGTH + FLANK).astype(np.uint8)
    letters = torch.eye(4)[torch.from_numpy(tokens.astype(np.int64))].T.unsqueeze(0)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(plain.state_dict(), Path(folder) / f"model_{FLANK}nt_rs1.pt")
        ours = OpenSpliceAI(folder, device="cpu")

    @torch.inference_mode()
    def windows() -> None:
        for start in range(0, LENGTH, WINDOW):
            plain(letters[..., start : start + WINDOW + FLANK])

    times = seconds({"ours": lambda: ours.score_tokens(tokens), "plain": windows}, repeats=3)
    rate, ratio = LENGTH / times["ours"], times["plain"] / times["ours"]
    note = "one member, aim 3"
    return [Result("base layer, flank 10000", rate, "nt/s", "plain network in 5,000-nt windows", ratio, note)]
