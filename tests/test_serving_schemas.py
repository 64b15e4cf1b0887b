import json

import numpy as np
import pytest
from releases import score_rows

from metalayer.release.contract import MAX_DETAILS, Limits, RequestError, parse_rows, validate_columns
from metalayer.schema import ROW_SCORES


def row(**changes: object) -> dict:
    base = {"sequence": "ACGTACGTAC", "donor_score": 0.1, "acceptor_score": 0.2, "neither_score": 0.7}
    base |= {"context_score_m2": 0.0, "context_score_m1": 1, "context_score_p1": 0.5, "context_score_p2": 0.25}
    return base | changes


def without(name: str) -> dict:
    return {key: value for key, value in row().items() if key != name}


def refused(document: object, limits: Limits | None = None) -> RequestError:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(RequestError) as caught:
        parse_rows(body, limits)
    assert all(detail.keys() == {"row", "field", "given", "allowed"} for detail in caught.value.details)
    json.dumps({"details": caught.value.details}, allow_nan=False, ensure_ascii=False).encode("utf-8")
    return caught.value


def test_rows_and_columns_are_read_alike() -> None:
    rows = score_rows(50)
    columns = {name: [item[name] for item in rows] for name in rows[0]}
    one = parse_rows(json.dumps({"rows": rows}).encode())
    two = parse_rows(json.dumps({"columns": columns}).encode())
    assert one.row_scores.dtype == np.float32
    assert np.array_equal(one.row_scores, two.row_scores)
    assert one.row_scores[7].tolist() == [rows[7][name] for name in ROW_SCORES]
    assert one.sequences.to_list() == two.sequences.to_list() == columns["sequence"]
    assert one.index.tolist() == two.index.tolist() == columns["index"]


def test_a_whole_number_may_be_written_as_a_fraction() -> None:
    """As JSON has it, and pandas writes a column with gaps."""
    rows = parse_rows(json.dumps({"rows": [row(index=2.0), row(index=3), row()]}).encode())
    assert rows.index.tolist() == [2, 3, 5]


def test_index_defaults_to_the_middle_row_by_row() -> None:
    rows = parse_rows(json.dumps({"rows": [row(), row(index=3), row(sequence="acgtn")]}).encode())
    assert rows.index.tolist() == [5, 3, 2]


BAD_ROWS = [
    (without("sequence"), "sequence", "missing"),
    (without("context_score_p2"), "context_score_p2", "missing"),
    (row(donor_probability=0.1), "donor_probability", "an unknown field"),
    (row(donor_score="0.1"), "donor_score", "0.1"),
    (row(donor_score=True), "donor_score", True),
    (row(donor_score=None), "donor_score", None),
    (row(donor_score=[0.1]), "donor_score", "a list of 1"),
    (row(context_score_m1={"p": 1}), "context_score_m1", "an object"),
    (row(donor_score=1.2), "donor_score", 1.2),
    (row(acceptor_score=-0.001), "acceptor_score", -0.001),
    (row(context_score_m2=1.0001), "context_score_m2", 1.0001),
    (row(neither_score=0.72), "donor_score+acceptor_score+neither_score", pytest.approx(1.02)),
    (row(donor_score=float("nan")), "donor_score", "NaN"),
    (row(context_score_p1=float("inf")), "context_score_p1", "Infinity"),
    (row(context_score_p1=float("-inf")), "context_score_p1", "-Infinity"),
    (row(donor_score=10**400), "donor_score", "1" + "0" * 79 + "..."),
    (row(sequence="ACGTR"), "sequence", "'R' at 4"),
    (row(sequence="AC GT"), "sequence", "' ' at 2"),
    (row(sequence="ACGÜT"), "sequence", "'Ü' at 3"),
    (row(sequence="ACG\ud800"), "sequence", "'?' at 3"),
    (row(sequence=""), "sequence", ""),
    (row(sequence=7), "sequence", 7),
    (row(sequence=None), "sequence", None),
    (row(index=10), "index", 10),
    (row(index=-1), "index", -1),
    (row(index=2.5), "index", 2.5),
    (row(index=1e300), "index", 1e300),
    (row(index=True), "index", True),
    (row(index=None), "index", None),
    (row(index="2"), "index", "2"),
    (row(index=10**30), "index", "1" + "0" * 30),
    ([], "row", "a list of 0"),
    ("ACGT", "row", "ACGT"),
]


@pytest.mark.parametrize(("bad", "field", "given"), BAD_ROWS)
def test_a_bad_row_is_named_with_field_given_and_allowed(bad: object, field: str, given: object) -> None:
    error = refused({"rows": [row(), row(), bad, row()]})
    assert error.status == 422
    assert [(detail["row"], detail["field"], detail["given"]) for detail in error.details] == [(2, field, given)]
    assert error.details[0]["allowed"]


def test_columns_give_the_same_messages_as_rows() -> None:
    rows = [row(), row(sequence="ACGX", donor_score=2), row(index=99), row(neither_score=0.0)]
    columns = {name: [item.get(name, 1) for item in rows] for name in row(index=1)}
    assert refused({"columns": columns}).details == refused({"rows": rows}).details


BAD_BODIES = [
    b"",
    b"{",
    b'{"rows": [}',
    b"\xff\xfe{}",
    b"[" * 100_000,
    b'{"rows": [' + b"9" * 5000 + b"]}",
    b"null",
    b"[]",
    b"{}",
    b'{"rows": null}',
    b'{"rows": []}',
    b'{"rows": {}}',
    b'{"columns": []}',
    b'{"columns": {}}',
    b'{"rows": [], "columns": {}}',
    b'{"rows": [], "model": "x"}',
    b'{"rows": [{"sequence": "A", "sequence": "C"}]}',
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: str(body[:20]))
def test_a_bad_body_is_refused(body: bytes) -> None:
    error = refused(body)
    assert error.status == 422
    assert error.details


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"donor_score": [0.1]}, "donor_score"),
        ({"sequence": "ACGT"}, "sequence"),
        ({"other": [1, 2]}, "other"),
        ({"index": [1, 2, 3]}, "index"),
    ],
)
def test_bad_columns_are_named(changes: dict, field: str) -> None:
    columns = {name: [value, value] for name, value in row().items()}
    assert field in [detail["field"] for detail in refused({"columns": columns | changes}).details]


def test_no_rows_in_columns() -> None:
    assert refused({"columns": {name: [] for name in row()}}).details[0]["field"] == "rows"


def test_all_mistakes_are_reported_in_order() -> None:
    error = refused({"rows": [row(index=50, sequence="AX"), row(), row(donor_score=3, context_score_p2=-1)]})
    found = [(detail["row"], detail["field"]) for detail in error.details]
    assert found == [(0, "sequence"), (0, "index"), (2, "donor_score"), (2, "context_score_p2")]
    assert "4 mistakes" in str(error)


def test_a_long_list_of_mistakes_is_cut() -> None:
    error = refused({"rows": [row(donor_score=3)] * 5000})
    assert len(error.details) == MAX_DETAILS
    assert "5000 mistakes" in str(error)


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_too_many_rows(form: str) -> None:
    document = [row()] * 4 if form == "rows" else {name: [value] * 4 for name, value in row().items()}
    error = refused({form: document}, Limits(max_rows=3))
    assert error.status == 413
    assert "at most 3" in str(error)


def test_probabilities_at_the_edges_are_allowed() -> None:
    rows = [row(donor_score=0, acceptor_score=0, neither_score=1), row(neither_score=0.705), row(sequence="n")]
    assert len(parse_rows(json.dumps({"rows": rows}).encode())) == 3


def test_columns_of_python_values() -> None:
    assert validate_columns({name: [value] for name, value in row().items()}).index.tolist() == [5]
