"""What JSON Schema cannot say of a valid request, so that schemathesis makes valid ones; loaded by it.

Three rules relate values to each other: donor, acceptor and neither add up to 1, an index lies in its
sequence, columns are as long as each other; a variant as text has a form, and a gene, a place or a variant to look at
is one that there is. And of a binary body nothing is said: Arrow streams are made here.
"""

import random

import pyarrow as pa
import schemathesis

from metalayer.schema import BASE_SCORES, ROW_SCORES

GENE = {"gene": "SIM0001"}
ARROW = "application/vnd.apache.arrow.stream"


@schemathesis.serializer(ARROW)
def as_arrow(context: schemathesis.SerializationContext, value: object) -> bytes:
    """A valid stream drawn by what would have been the body; where that is to be wrong, itself."""
    seed = value if isinstance(value, bytes) else str(value).encode()
    right = context.case.meta is None or context.case.meta.generation.mode.is_positive
    if not right:
        return seed
    if context.case.path.endswith("variants"):
        drawn = random.Random(seed)
        return written({"variant": [as_variant(drawn) for _ in range(drawn.randint(1, 5))]}, drawn)
    return stream(seed, lists=context.case.path.endswith("sequence"))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict) -> None:
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.path in ("/v1/view", "/v1/explain") and isinstance(case.body, dict):
        case.body = as_looked_at(case.body)
        return
    if isinstance(case.body, dict) and "rows" in case.body:
        case.body = {"rows": [as_row(row) for row in case.body["rows"]]}
    elif isinstance(case.body, dict) and "columns" in case.body:
        columns = even(case.body["columns"])
        rows = [as_row(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
        case.body = {"columns": {name: [row[name] for row in rows] for name in columns}}
    elif isinstance(case.body, dict) and "variants" in case.body:
        drawn = random.Random(str(case.body))
        case.body = {"variants": [one if isinstance(one, dict) else as_variant(drawn) for one in case.body["variants"]]}
    elif isinstance(case.body, dict) and BASE_SCORES[0] in case.body:
        case.body = even(case.body)
        scores = zip(*(case.body[name] for name in BASE_SCORES), strict=True)
        rows = [as_row(dict(zip(BASE_SCORES, row, strict=True))) for row in scores]
        case.body |= {name: [row[name] for row in rows] for name in BASE_SCORES}


def even(columns: dict) -> dict:
    shortest = min(map(len, columns.values()))
    return {name: values[:shortest] for name, values in columns.items()}


def as_row(row: dict) -> dict:
    donor, acceptor = row["donor_score"] / 2, row["acceptor_score"] / 2
    row = row | {"donor_score": donor, "acceptor_score": acceptor, "neither_score": 1 - donor - acceptor}
    return row | {"index": row["index"] % len(row["sequence"])} if "index" in row else row


def as_looked_at(body: dict) -> dict:
    """The first simulated gene in place of what there is not, and a base of it or of the sequence."""
    if "position" not in body:
        return body if "sequence" in body else {"region": "chr1:1100-2000"} if "region" in body else GENE
    if "sequence" in body:
        return body | {"position": 1 + (int(body["position"]) - 1) % len(body["sequence"])}
    return body | GENE | {"position": 1100 + int(body["position"]) % 900}


def as_variant(drawn: random.Random) -> str:
    ref, alt = ("".join(drawn.choices("ACGT", k=drawn.randint(1, 9))) for _ in range(2))
    return f"chr{drawn.randint(1, 30)}:{drawn.randint(1, 20_000)}:{ref}:{alt}"


def stream(seed: bytes, *, lists: bool) -> bytes:
    drawn = random.Random(seed)
    letters = [
        "".join(drawn.choices("ACGTNacgtn", k=drawn.randint(1, 600)))
        for _ in range(1 if lists else drawn.randint(1, 5))
    ]
    if lists:
        rows = [as_row({name: drawn.random() for name in BASE_SCORES}) for _ in letters[0]]
        columns = {name: [[row[name] for row in rows]] for name in BASE_SCORES} if drawn.random() < 0.5 else {}
    else:
        rows = [as_row({name: drawn.random() for name in ROW_SCORES}) for _ in letters]
        columns = {name: [row[name] for row in rows] for name in ROW_SCORES}
    return written({"sequence": letters, **columns}, drawn)


def written(columns: dict, drawn: random.Random) -> bytes:
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=drawn.choice([None, "zstd", "lz4"]))
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()
