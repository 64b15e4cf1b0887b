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


TEXTS = (pa.string(), pa.large_string(), pa.string_view())
FLOATS = (pa.float16(), pa.float32(), pa.float64())
INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
LISTS = (pa.list_, pa.large_list, lambda kind: pa.list_(kind, 4))
REFUSED = (
    *(pa.dictionary(pa.int8(), pa.string()), pa.binary(), pa.struct([("a", pa.int8())]), pa.list_(pa.string())),
    *(pa.map_(pa.string(), pa.int8()), pa.decimal128(5, 2), pa.timestamp("s"), pa.list_view(pa.int8())),
)
"""Types that no column may have."""


def typed_streams() -> Iterator[tuple[bool, bytes]]:
    """Whether it is of one sequence, and a valid stream: every type that a column may have, in several batches too."""
    rows = pa.Table.from_pylist(score_rows(3)).set_column(0, "sequence", pa.array(["ACGTNacgt", "A" * 13, "CGT"]))
    for name, value in (("donor_score", 0), ("acceptor_score", 0), ("neither_score", 1), ("index", 1)):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array([value] * 3))
    for number, kind in enumerate([*TEXTS, *FLOATS, *INTEGERS]):
        name = "sequence" if kind in TEXTS else "neither_score" if kind in FLOATS else "index"
        changed = rows.set_column(rows.column_names.index(name), name, rows[name].cast(kind))
        for compression in (None, "zstd", "lz4"):
            yield False, stream(changed, compression)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, changed.schema) as writer:
            writer.write_table(changed, max_chunksize=1 + number % 2)
        yield False, sink.getvalue().to_pybytes()
    for of in LISTS:
        for kind in (*FLOATS, pa.int8(), pa.uint64()):
            scores = {"donor_score": 0, "acceptor_score": 0, "neither_score": 1}
            lists = {name: pa.array([[value] * 4], of(kind)) for name, value in scores.items()}
            for text, compression in zip(TEXTS, (None, "zstd", "lz4"), strict=True):
                yield True, stream(pa.table({"sequence": pa.array(["ACGT"], text), **lists}), compression)


def flipped(body: bytes, random_: random.Random) -> bytes:
    """A body with one bit changed, sometimes two or three, but for its end marker."""
    out = bytearray(body)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        bit = random_.randrange(8 * (len(out) - len(END)))
        out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


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
    for one, body in typed_streams():
        whole.append(("/v1/score_sequence" if one else "/v1/score", body, {"content-type": ARROW}))
    while True:
        for path, body, headers in whole:
            bad = _damaged(body, random_) if random_.random() < 0.7 else flipped(body, random_)
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
