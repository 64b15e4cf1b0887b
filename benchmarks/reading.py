"""Reading artifacts: typed and checked rows against polars' plain scan of the same file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.measure import Result, seconds
from metalayer.data.artifacts import ReadReport, read_artifacts
from metalayer.data.discovery import ArtifactFile

TARGET_BYTES = 120_000_000


def run(data: Path) -> list[Result]:
    source = next(iter(sorted(data.glob("data/*/*/*/meta_models/*.tsv"))))
    header, body = source.read_bytes().split(b"\n", 1)
    copies = max(1, TARGET_BYTES // len(body))
    big = ArtifactFile(data / "big.tsv", source.name.removeprefix("analysis_sequences_").partition("_chunk_")[0])
    big.path.write_bytes(header + b"\n" + body * copies)
    rows = body.count(b"\n") * copies

    def ours() -> int:
        return sum(len(batch) for batch in read_artifacts(big, ReadReport()))

    def plain() -> pl.DataFrame:
        return pl.scan_csv(big.path, separator="\t", schema_overrides={"chrom": pl.String}).collect()

    times = seconds({"ours": ours, "plain": plain})
    return [
        Result(
            "read artifacts, typed and checked",
            rows / times["ours"],
            "rows/s",
            "polars plain scan of the same file",
            times["plain"] / times["ours"],
            f"{big.path.stat().st_size / 1e6:.0f} MB",
        )
    ]
