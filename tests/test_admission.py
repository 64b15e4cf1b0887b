"""What a worker takes on: bytes, seconds and places, and of them the share of one client."""

import asyncio
import gzip
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import anyio
import httpx
import numpy as np
import pytest
from releases import score_rows
from starlette.exceptions import HTTPException

from metalayer.release.contract import Rows
from metalayer.release.engine import Engine, Pace
from metalayer.serving import work
from metalayer.serving.admission import Claim, Room, client_name
from metalayer.serving.app import create_app
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving

JSON = {"content-type": "application/json"}
GREEDY, HONEST = "192.0.2.1", "198.51.100.1"


def claims(settings: ServingSettings, *clients: str) -> list[Claim]:
    room = Room(settings)
    return [Claim(room, client, time.monotonic() + settings.deadline_s) for client in clients]


def test_work_that_would_come_too_late_is_not_begun() -> None:
    """Eight requests of 34 s each, all within the limits, and 120 s for each: all were begun, and none was answered."""
    first, second, *others, honest, later = claims(ServingSettings(), *["greedy"] * 8, "honest", "honest")
    first.take_on(34)
    second.take_on(34)
    for one in others:
        with pytest.raises(HTTPException, match="no time for it before its deadline") as caught:
            one.take_on(34)
        assert caught.value.status_code == 429
        assert int(caught.value.headers["Retry-After"]) >= 1
    honest.take_on(30)  # of another client, which takes turns with the first: 60 s
    with pytest.raises(HTTPException):
        later.take_on(80)
    for one in others:
        one.take_on(0.01)  # short ones do not wait for the long ones
    first.done()
    second.done()
    later.take_on(40)


def test_what_is_in_hand_is_not_made_late_by_what_comes() -> None:
    settings = ServingSettings(deadline_s=100)
    first, second = claims(settings, "one", "other")
    first.take_on(40)
    first._deadline -= 50  # half of its time is over, and nothing is done yet
    with pytest.raises(HTTPException):
        second.take_on(30)
    second.take_on(5)


def test_what_is_alone_may_begin_however_long_it_may_take() -> None:
    first, second = claims(ServingSettings(deadline_s=1), "one", "one")
    first.take_on(1000)
    with pytest.raises(HTTPException):
        second.take_on(1000)


def test_bytes_of_all_and_of_one_client_are_bounded() -> None:
    settings = ServingSettings(max_body_bytes=100, client_share=0.5)
    one, two, other, last = claims(settings, "greedy", "greedy", "honest", "third")
    one.hold(150)
    with pytest.raises(HTTPException, match="your requests hold 150 bytes, of 200"):
        two.hold_more(51)
    two.hold(50)
    other.hold(200)
    with pytest.raises(HTTPException, match="all requests together hold 400 bytes, of 400"):
        last.hold(1)
    one.hold(10)
    last.hold(140)
    for claim in (one, two, other, last):
        claim.release()
        claim.release()
    assert one._room.held == 0
    assert not one._room._bytes  # nothing is kept of clients that have gone


def test_one_of_the_largest_bodies_is_taken_whatever_the_share() -> None:
    settings = ServingSettings(max_body_bytes=100, client_share=0.01)
    (one,) = claims(settings, "one")
    one.hold(200)  # coded and decoded
    with one.place():
        pass


def test_clients_take_turns_and_a_client_that_has_gone_takes_none() -> None:
    async def run() -> list[str]:
        room, order = Room(ServingSettings()), []

        async def work(name: str, client: str, blocks: int) -> None:
            for _ in range(blocks):
                async with room.turn(client):
                    order.append(name)
                    await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(work, f"greedy {number}", "greedy", 4)
            await anyio.sleep(0)
            waiting = asyncio.create_task(work("gone", "gone", 4))
            await anyio.sleep(0)
            waiting.cancel()
            tasks.start_soon(work, "honest", "honest", 3)
        async with room.turn("anybody"):  # nothing was lost
            pass
        assert room._free == 1
        assert not room._waiting
        return order

    order = asyncio.run(run())
    assert Counter(order) == {**{f"greedy {number}": 4 for number in range(5)}, "honest": 3}
    turns = [number for number, name in enumerate(order) if name == "honest"]
    assert [later - one for one, later in itertools.pairwise(turns)] == [2, 2]  # every other one


def test_a_client_is_an_address_a_network_or_a_key() -> None:
    assert client_name("192.0.2.1") == client_name("::ffff:192.0.2.1") == "192.0.2.1"
    assert client_name("2001:db8::1") == client_name("2001:db8::ffff:2") != client_name("2001:db8:0:1::1")
    assert client_name("fe80::1%eth0") == client_name("fe80::2")
    assert client_name(None) == "local"
    one_key, two_keys = (Serving(settings=ServingSettings(api_keys=keys)) for keys in ("k1", "k1,k2"))
    assert one_key.client("192.0.2.1", "Bearer k1") == "192.0.2.1"
    assert two_keys.client("192.0.2.1", "Bearer k1") == two_keys.client("192.0.2.2", "bearer  k1") == "k1"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Rows are scored once this is set."""
    opened, real = threading.Event(), Engine.score

    def held(self: Engine, rows: Rows) -> Iterator[np.ndarray]:
        assert opened.wait(60)
        yield from real(self, rows)

    monkeypatch.setattr(Engine, "score", held)
    return opened


async def ask(app: Callable, body: bytes, client: str = GREEDY, **headers: str) -> httpx.Response:
    """Scores, as if asked from an address."""
    transport = httpx.ASGITransport(app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as one:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await one.post("/v1/score", content=body, headers=JSON | named)


def body_of(rows: list[dict]) -> bytes:
    return json.dumps({"rows": rows}).encode()


def test_a_client_that_holds_its_share_leaves_room_for_others(engine: Engine, gate: threading.Event) -> None:
    serving = Serving(engine, ServingSettings(max_concurrent=4))
    app, body = create_app(serving), body_of(score_rows(200))

    async def run() -> None:
        greedy = [asyncio.create_task(ask(app, body)) for _ in range(2)]
        while serving.room.in_hand < 2:
            await asyncio.sleep(0.01)
        refused = await ask(app, body)
        assert refused.status_code == 429
        assert "2 of your requests are in hand, of 4" in refused.json()["error"]
        honest = asyncio.create_task(ask(app, body, HONEST))
        while serving.room.in_hand < 3:
            await asyncio.sleep(0.01)
        gate.set()
        assert {(await one).status_code for one in [*greedy, honest]} == {200}

    asyncio.run(run())
    assert serving.room.in_hand == serving.room.held == 0


def test_coded_bodies_count_as_what_they_become(engine: Engine, gate: threading.Event) -> None:
    rows = [row | {"sequence": row["sequence"][:100] * 900} for row in score_rows(10)]
    body = body_of(rows)
    coded = gzip.compress(body)
    assert 12 * len(coded) < len(body) < 1_000_000
    settings = ServingSettings(max_body_bytes=1_000_000, max_concurrent=12, threads=12)
    serving = Serving(engine, settings)
    app, most = create_app(serving), 0

    async def run() -> list[int]:
        nonlocal most
        tasks = [
            asyncio.create_task(ask(app, coded, f"192.0.2.{number}", content_encoding="gzip")) for number in range(12)
        ]
        while not serving.room.in_hand or not any(one.done() for one in tasks):
            most = max(most, serving.room.held)
            await asyncio.sleep(0.001)
        gate.set()
        return [(await one).status_code for one in tasks]

    statuses = Counter(asyncio.run(run()))
    assert statuses.keys() == {200, 429}
    assert most <= settings.held_bytes == 4_000_000
    assert serving.room.held == 0


def test_more_work_than_can_be_done_in_time_is_refused_and_short_requests_are_answered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "seconds", lambda _, way, count: 34 * count / 1200)
    app, body = create_app(Serving(engine)), body_of(score_rows(12) * 100)

    async def run() -> tuple[list[httpx.Response], httpx.Response]:
        tasks = [asyncio.create_task(ask(app, body)) for _ in range(8)]
        honest = await ask(app, body_of(score_rows(1)), HONEST)
        return [await one for one in tasks], honest

    answers, honest = asyncio.run(run())
    assert honest.status_code == 200
    assert Counter(one.status_code for one in answers).keys() == {200, 429}
    for one in answers:
        assert one.status_code == 200 or int(one.headers["retry-after"]) >= 1


def test_bodies_for_which_there_is_no_time_are_not_even_read(
    engine: Engine, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bodies of a kind take is known from others before them."""
    parsed, real = [], work.parse_rows
    monkeypatch.setattr(work, "parse_rows", lambda *given: parsed.append(1) or real(*given))
    monkeypatch.setattr(engine, "pace", Pace())
    engine.pace.note("rows", 600, 34)
    serving = Serving(engine)
    app, body = create_app(serving), body_of(score_rows(12) * 50)

    async def run() -> None:
        first = asyncio.create_task(ask(app, body))
        while not any(claim.left_s for claim in tuple(serving.room._working)):
            await asyncio.sleep(0.01)
        second = asyncio.create_task(ask(app, body, HONEST))
        while serving.room.in_hand < 2:
            await asyncio.sleep(0.01)
        for number in range(10, 20):
            assert (await ask(app, body, f"192.0.2.{number}")).status_code == 429
        gate.set()
        assert (await first).status_code == (await second).status_code == 200

    asyncio.run(run())
    assert len(parsed) == 2


def test_small_bodies_say_nothing_of_large_ones(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "pace", Pace())
    engine.pace.note("rows", 1, 0.1)
    app = create_app(Serving(engine))
    for _ in range(3):
        assert asyncio.run(ask(app, body_of(score_rows(1)))).status_code == 200
    assert engine.pace.seconds("/v1/score application/json identity", 2**26) == 0
    assert asyncio.run(ask(app, body_of(score_rows(200)))).status_code == 200
    assert engine.pace.seconds("/v1/score application/json identity", 2**26) > 0


def test_what_turns_out_to_take_too_long_ends_when_that_is_seen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = []

    def slowly(*_: object) -> Iterator[np.ndarray]:
        for number in range(40):
            blocks.append(number)
            time.sleep(0.3)
            yield np.zeros((256, 3), dtype=np.float32)

    monkeypatch.setattr(Engine, "score", slowly)
    monkeypatch.setattr(engine, "pace", Pace())
    engine.pace.note("rows", 1, 1e-6)
    app = create_app(Serving(engine, ServingSettings(deadline_s=6)))
    answer = asyncio.run(ask(app, body_of(score_rows(64) * 160)))
    assert answer.status_code == 413
    assert "10240 rows cannot be answered in time here" in answer.json()["error"]
    (detail,) = answer.json()["details"]
    assert (detail["field"], detail["given"]) == ("rows", "10240 rows")
    assert len(blocks) < 15
