"""Three made-up base models of simulated genes, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from metalayer.cli import main
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER, SPLICED_SCORE

THREE = "left+right+spliced"
NOISE = {"left": 1.0, "right": 2.0, "spliced": 1.0}
"""Standard deviations of log-odds."""
CHROMS = {"train": ("1", "2", "3", "4", "5", "6", "7"), "test": ("8", "9", "10")}


def merge_three(simulation: Path, folder: Path) -> dict[str, Path]:
    """Files of chromosomes to train and to test on, made in `folder`.

    Each base sees the sites through noise of its own, so that together they know more than any alone, and one is
    noisier, so that the best weights are not equal.
    """
    out = {}
    for part, wanted in CHROMS.items():
        paths = [simulation / "nucleotide_scores" / f"pwm_chr{chrom}.parquet" for chrom in wanted]
        frame = pl.concat([pl.read_parquet(path) for path in paths if path.is_file()])
        kinds = frame["label"].cast(pl.String).replace_strict(dict(zip(CLASSES, range(3), strict=True))).to_numpy()
        given = []
        for seed, name in enumerate(THREE.split("+")):
            noise = np.random.default_rng([seed, len(wanted)]).normal(size=(len(frame), 2)) * NOISE[name]
            odds = -11.0 + 4.0 * np.stack([kinds == DONOR, kinds == ACCEPTOR], axis=1) + noise
            scores = np.exp(np.concatenate([odds, np.zeros((len(frame), 1))], axis=1))
            scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
            one = frame.drop("donor_score", "acceptor_score", "neither_score")
            if name == "spliced":
                one = one.with_columns(pl.Series(SPLICED_SCORE, 1 - scores[:, NEITHER]))
            else:
                one = one.with_columns(*(pl.Series(f"{kind}_score", scores[:, i]) for i, kind in enumerate(CLASSES)))
            one.write_parquet(folder / f"{part}-{name}.parquet")
            given.append(f"{name}={folder / f'{part}-{name}.parquet'}")
        out[part] = folder / f"{part}.parquet"
        assert main(["merge", *given, "--output", str(out[part])]) == 0
    return out
