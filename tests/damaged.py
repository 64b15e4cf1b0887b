"""Bodies that are not what the service takes: one after the other, always the same."""

import gzip
import json
import random
import struct
from collections.abc import Iterator

import polars as pl
import pyarrow as pa
from releases import score_rows

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
END = b"\xff\xff\xff\xff\0\0\0\0"
ONE = {"sequence": "ACGT", "donor_score": [0.1] * 4, "acceptor_score": [0.2] * 4, "neither_score": [0.7] * 4}


def stream(table: pa.Table | pl.DataFrame | list[dict], compression: str | None = None) -> bytes:
    """An Arrow IPC stream."""
    if isinstance(table, list):
        table = pa.Table.from_pylist(table)
    if isinstance(table, pl.DataFrame):
        table = table.to_arrow(compat_level=pl.CompatLevel.newest())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def damaged_bodies(seed: int = 5) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Without end: path, body, headers. A few are whole all the same, as where a letter became another."""
    random_, rows = random.Random(seed), score_rows(2)
    texts = [("/v1/score", json.dumps({"rows": rows}).encode()), ("/v1/score_sequence", json.dumps(ONE).encode())]
    whole = [(path, text, {"content-type": JSON}) for path, text in texts]
    whole += [(path, gzip.compress(text), {"content-type": JSON, "content-encoding": "gzip"}) for path, text in texts]
    for compression in (None, "zstd", "lz4"):
        whole += [
            ("/v1/score", stream(rows, compression), {"content-type": ARROW}),
            ("/v1/score_sequence", stream([ONE], compression), {"content-type": ARROW}),
        ]
    while True:
        for path, body, headers in whole:
            bad = _damaged(body, random_)
            if headers["content-type"] == ARROW and random_.random() < 0.5:
                bad += END  # else a stream that was cut is not looked into
            yield path, bad, headers


def _damaged(body: bytes, random_: random.Random) -> bytes:
    """A body with bytes changed, cut out, doubled, or overwritten by numbers that are sizes somewhere."""
    out = bytearray(body)
    for _ in range(random_.randint(1, 6)):
        at = random_.randrange(len(out) or 1)
        match random_.randrange(6):
            case 0:
                out[at : at + 1] = bytes([random_.randrange(256)])
            case 1:
                del out[at : at + random_.randint(1, 50)]
            case 2:
                out[at:at] = out[at : at + 100]
            case 3:
                out[at : at + 8] = struct.pack("<q", random_.choice([-1, 2**62, 2**40, 2**31, 2**31 - 1, -(2**63), 7]))
            case 4:
                del out[at:]
            case 5:
                out[at : at + 4] = struct.pack("<i", random_.choice([-1, 2**31 - 1, -(2**31), 1, 255, 65536]))
    return bytes(out)
