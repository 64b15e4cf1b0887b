"""The request log: its rows, its bounds, and over a socket that it neither loses nor holds up anything."""

import hashlib
import hmac
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from releases import expected, score_rows

from metalayer.errors import ConfigError
from metalayer.files import publish_file
from metalayer.schema import CLASSES, ROW_SCORES
from metalayer.serving import request_log
from metalayer.serving.request_log import KEY_FILE, Answered, RequestLog
from tests.servers import Server


def answered(n: int = 3, request_id: str = "r1", letters: str = "ACGTGCNNac") -> Answered:
    rng = np.random.default_rng(n)
    scores = rng.random((n, 7)).astype(np.float32)
    answers = rng.random((n, 3)).astype(np.float32)
    return Answered(request_id, "m", "7", "d1", pl.Series([letters] * n), np.arange(n), scores, answers)


def read(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("requests-*.parquet"))])


def test_rows_are_logged_without_their_letters(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    log = RequestLog(tmp_path / "log", lambda outcome, rows: counts.update({outcome: rows}), key="a secret")
    one = answered()
    log.put(one)
    log.put(Answered("r2", "m", "7", "d1", pl.Series(["ACGTGCNNAC"])))
    log.close()
    table = read(tmp_path / "log")
    assert counts == {"written": 4}
    assert table["request_id"].to_list() == ["r1", "r1", "r1", "r2"]
    assert table.select("model", "version", "digest").unique().rows() == [("m", "7", "d1")]
    assert np.array_equal(table.select(ROW_SCORES)[:3].to_numpy(), one.row_scores)
    assert np.array_equal(table.select(CLASSES)[:3].to_numpy(), one.answers)
    assert table["index"].to_list() == [0, 1, 2, None]
    assert table[3].select(*ROW_SCORES, *CLASSES).null_count().sum_horizontal().item() == 10
    assert table["sequence_length"].unique().to_list() == [10]
    assert table["gc_share"].unique().to_list() == [0.5]
    assert table["n_share"].unique().to_list() == [0.2]
    (hashed,) = table["sequence_hash"].unique()  # whatever the case of the letters
    assert hashed == hmac.new(b"a secret", b"ACGTGCNNAC", "sha256").hexdigest()[:32]
    assert (time.time() - table["time"].dt.timestamp("ms") / 1000).abs().max() < 60
    for path in (tmp_path / "log").iterdir():
        assert b"ACGTGC" not in path.read_bytes().upper()


def test_a_folder_has_a_key_of_its_own(tmp_path: Path) -> None:
    def hashed(folder: Path, **options: str) -> set[str]:
        log = RequestLog(folder, lambda *_: None, **options)
        log.put(answered())
        log.close()
        return set(read(folder)["sequence_hash"])

    with ThreadPoolExecutor(8) as pool:  # workers start at one moment
        list(pool.map(lambda _: hashed(tmp_path / "a"), range(8)))
    (mine,) = hashed(tmp_path / "a")
    (others,) = hashed(tmp_path / "b")
    (given,) = hashed(tmp_path / "c", key="a secret")
    assert len({mine, others, given, hashlib.blake2b(b"ACGTGCNNAC", digest_size=16).hexdigest()}) == 4
    key = tmp_path / "a" / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert not (tmp_path / "c" / KEY_FILE).exists()


def test_the_oldest_parts_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "PART_ROWS", 1)

    def logged(max_bytes: int) -> dict[str, int]:
        log = RequestLog(tmp_path, lambda *_: None, key="k", max_bytes=max_bytes)
        for number in range(8):
            log.put(answered(50, f"r{number}"))
            time.sleep(0.02)  # so that their times differ
        log.close()
        return {pl.read_parquet(path)["request_id"][0]: path.stat().st_size for path in tmp_path.glob("requests-*")}

    sizes = logged(2**20)
    assert sorted(sizes) == [f"r{number}" for number in range(8)]
    kept = logged(3 * max(sizes.values()))
    assert sorted(kept) == ["r5", "r6", "r7"]
    assert sum(kept.values()) <= 3 * max(sizes.values())
    assert sorted(logged(1)) == ["r7"]  # whatever its size


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    """Each part has a name of its own, so no later part would sweep it; one that is being written stays."""
    for name in (f".requests-x.parquet.draft-{os.getpid()}", ".requests-y.parquet.draft-00ab34ef"):
        (tmp_path / name).write_bytes(b"half a part")
    with publish_file(tmp_path / "requests-z.parquet") as draft:
        draft.write_bytes(b"another worker's")
        RequestLog(tmp_path, lambda *_: None, key="k").close()
        assert sorted(tmp_path.iterdir()) == [draft, draft.with_name(draft.name + ".lock")]
    assert [path.name for path in tmp_path.iterdir()] == ["requests-z.parquet"]


def test_parts_rotate_and_appear_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "PART_ROWS", 10)
    log = RequestLog(tmp_path, lambda *_: None, every_s=0.2)
    for number in range(9):
        log.put(answered(4, f"r{number}"))
    until = time.monotonic() + 30
    while sum(len(pl.read_parquet(path)) for path in tmp_path.glob("requests-*.parquet")) < 36:  # not closed
        assert time.monotonic() < until
        time.sleep(0.02)
    sizes = [len(pl.read_parquet(path)) for path in tmp_path.glob("requests-*")]
    assert sizes == [12, 12, 12]
    log.close()
    assert sorted(read(tmp_path)["request_id"].unique()) == [f"r{number}" for number in range(9)]


def test_a_full_queue_drops_counts_and_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    stuck, writing = threading.Event(), threading.Event()

    def slow(path: Path):
        writing.set()
        assert stuck.wait(30)
        return publish_file(path)

    monkeypatch.setattr(request_log, "publish_file", slow)
    monkeypatch.setattr(request_log, "PART_ROWS", 1)
    one = answered(100)
    log = RequestLog(
        tmp_path, lambda outcome, rows: counts.update({outcome: rows}), key="k", queue_bytes=3 * one.nbytes
    )
    log.put(one)
    assert writing.wait(30)  # a disk that hangs
    started = time.monotonic()
    for _ in range(1000):
        log.put(one)
    assert time.monotonic() - started < 5
    assert counts == {"dropped": 99_700}
    stuck.set()
    log.close()
    log.put(one)
    assert counts == {"dropped": 99_800, "written": 400}


def test_a_part_that_cannot_be_written_is_counted_and_the_next_one_is(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    folder = tmp_path / "log"
    log = RequestLog(folder, lambda outcome, rows: counts.update({outcome: rows}), key="k", every_s=0.01)
    folder.rmdir()
    folder.write_text("in the way")
    log.put(answered())
    until = time.monotonic() + 30
    while not counts:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert counts == {"failed": 3}
    folder.unlink()
    log.put(answered(5))
    log.close()
    assert counts == {"failed": 3, "written": 5}
    with pytest.raises(ConfigError, match=r"request log .*/file"):
        (tmp_path / "file").write_text("")
        RequestLog(tmp_path / "file", lambda *_: None)


def test_every_answer_of_a_server_is_in_its_log(released: Path, tmp_path: Path) -> None:
    server = Server()
    url = server.start(released, log_dir=str(tmp_path / "log"), log_every_s="3600")
    rows = score_rows(50)
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(20):
            response = client.post("/v1/score", json={"rows": rows}, headers={"x-request-id": f"r{number}"})
            assert response.status_code == 200
        assert client.post("/v1/score", json={"rows": [{}]}).status_code == 422  # not answered, not logged
        assert client.post("/v1/score_sequence", json={"sequence": "ACGT" * 50}).status_code == 200
    assert list((tmp_path / "log").glob("requests-*")) == []
    assert server.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
    server.close()
    table = read(tmp_path / "log")
    assert len(table) == 1001
    of_rows = table.filter(pl.col("request_id").str.contains("^r[0-9]+$"))
    assert of_rows["request_id"].n_unique() == 20
    last = of_rows.filter(pl.col("request_id") == "r19")
    assert np.array_equal(last.select(CLASSES).to_numpy(), expected(released, rows))
    assert last["index"].to_list() == [row["index"] for row in rows]
    assert table["version"].unique().to_list() == ["3"]
