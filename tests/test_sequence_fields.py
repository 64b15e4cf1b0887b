"""Scores of several base models in a request for a sequence: named fields, read and refused alike in JSON and Arrow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from metalayer.data.mean import untrained_mean
from metalayer.errors import InputError
from metalayer.inference.predictor import sequence_track
from metalayer.release.contract import Limits, RequestError, SequenceInput, parse_sequence, score_fields
from metalayer.serving import arrow

LETTERS = "ACGTN"


def scores(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1, 1, 1], len(LETTERS)).astype(np.float32)


BASES = {"left": scores(1), "right_80": scores(2), "spliced": scores(3)[:, :1]}
REQUEST = {"sequence": LETTERS} | {name: values.tolist() for name, values in score_fields(BASES).items()}


def as_json(request: dict[str, Any]) -> SequenceInput:
    return parse_sequence(json.dumps(request).encode(), Limits())


def as_arrow(request: dict[str, Any]) -> SequenceInput:
    table, sink = pa.table({name: [value] for name, value in request.items()}), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return arrow.read_sequence(sink.getvalue().to_pybytes(), Limits())


@pytest.mark.parametrize("read", [as_json, as_arrow])
def test_the_scores_of_each_base_model(read: Callable[[dict[str, Any]], SequenceInput]) -> None:
    assert list(REQUEST)[1:4] == ["donor_score.left", "acceptor_score.left", "neither_score.left"]
    assert list(REQUEST)[-1] == "spliced_score.spliced"
    given = read(REQUEST)
    assert given.sequence == LETTERS
    assert given.bases.keys() == BASES.keys()
    for name, expected in BASES.items():
        np.testing.assert_array_equal(given.bases[name], expected)
    alone = read(
        {"sequence": LETTERS} | {name: values.tolist() for name, values in score_fields({"": scores(1)}).items()}
    )
    np.testing.assert_array_equal(alone.bases[""], scores(1))
    assert read({"sequence": LETTERS}).bases == {}


@pytest.mark.parametrize("read", [as_json, as_arrow])
@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"acceptor_score.left": None}, "acceptor_score.left", "all three lists or none"),
        ({"donor_score": [0.1] * 5}, "donor_score", "of several base models donor_score.NAME"),
        ({"spliced_score": [0.1] * 5}, "spliced_score", "of several base models"),
        ({"spliced_score.left": [0.1] * 5}, "donor_score.left", "the fields sequence"),
        ({"score.left": [0.1] * 5}, "score.left", "the fields sequence"),
        ({"spliced_score.spliced": [0.1] * 4}, "spliced_score.spliced", "5 values, one a letter"),
        ({"spliced_score.spliced": [0.1, 0.2, 1.5, 0.1, 0.1]}, "spliced_score.spliced", "a number in [0, 1]"),
        (
            {"neither_score.right_80": [0.9] * 5},
            "donor_score.right_80+acceptor_score.right_80+neither_score.right_80",
            "scores that sum to 1",
        ),
    ],
)
def test_what_is_refused(
    read: Callable[[dict[str, Any]], SequenceInput], changes: dict[str, Any], field: str, allowed: str
) -> None:
    request = {name: value for name, value in (REQUEST | changes).items() if value is not None}
    with pytest.raises(RequestError) as caught:
        read(request)
    assert caught.value.status == 422
    found = [detail for detail in caught.value.details if detail["field"] == field]
    assert found, caught.value.details
    assert allowed in found[0]["allowed"]


def test_a_sequence_of_several_as_a_gene() -> None:
    track = sequence_track(LETTERS, BASES)
    np.testing.assert_array_equal(track.scores, untrained_mean(BASES))
    np.testing.assert_array_equal(track.bases["right_80"], BASES["right_80"])
    with pytest.raises(InputError, match=r"base scores of left of shape \(4, 3\) for a sequence of 5 letters"):
        sequence_track(LETTERS, BASES | {"left": BASES["left"][:4]})
    with pytest.raises(InputError, match="base scores of left of 1 letters, the first at 2, do not add up to 1"):
        sequence_track(LETTERS, BASES | {"left": np.where(np.arange(5)[:, None] == 2, 0.5, BASES["left"])})
    with pytest.raises(InputError, match=r"outside \[0, 1\] or NaN"):
        sequence_track(LETTERS, BASES | {"spliced": BASES["spliced"] - 1})
    with pytest.raises(InputError, match="does not tell donors from acceptors"):
        sequence_track(LETTERS, {"spliced": BASES["spliced"]})
