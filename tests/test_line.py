"""The line of champions: one door, whoever comes through it, and whatever stops in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import mlflow
import pytest

from metalayer.errors import InputError, RegistryError
from metalayer.registry import lease, line, promotion
from metalayer.registry.line import Line
from tests.servers import mlflow_server

pytestmark = pytest.mark.integration
NAME = "metalayer-pwm"
VERSIONS = 6
ROUNDS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.fixture(scope="module")
def others() -> Iterator[dict[int, Other]]:
    """Two processes that move the champion, for versions 2 and 3."""
    there = {version: Other(version) for version in (2, 3)}
    try:
        yield there
    finally:
        for other in there.values():
            other.end()


class Other:
    """A process of its own. For each line that it is sent it forks, and the child does what the line says."""

    PROGRAM = """
import os, signal, sys
import mlflow.store.model_registry.sqlalchemy_store
from mlflow import MlflowClient
from metalayer.errors import InputError
from metalayer.registry import line, promotion

NAME, VERSION = "metalayer-pwm", int(sys.argv[1])
WRITES = ("create_registered_model", "delete_registered_model", "set_registered_model_tag", "set_model_version_tag",
          "delete_registered_model_tag", "set_registered_model_alias")
promotion.package_version = lambda version, uri: f"b:{version.version}"  # what is built there is not of the line

def race(uri, rounds):
    for _ in range(rounds):
        before = line.read(NAME, uri)
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            line.move(before, [*before.history, VERSION], uri)  # as `promote` does once it has packaged
            print("won", flush=True)
        except InputError as error:
            print("lost", error, flush=True)
        sys.stdin.readline()

def killed_after(writes, move):
    left = writes
    for name in WRITES:
        def counted(self, *given, _do=getattr(MlflowClient, name), **named):
            nonlocal left
            done = _do(self, *given, **named)
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        setattr(MlflowClient, name, counted)
    move()

for command in iter(sys.stdin.readline, ""):
    child = os.fork()
    if not child:
        eval(command)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

    def __init__(self, version: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, str(version)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, words: str) -> None:
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=["server", "file"])
def uri(request: pytest.FixtureRequest) -> str:
    """A registry of six versions that passed the gate, the first of them champion."""
    found: str = request.getfixturevalue(request.param)
    client = mlflow.MlflowClient(found, found)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    client.create_registered_model(NAME)
    for _ in range(VERSIONS):
        client.create_model_version(NAME, "s3://nowhere/model", tags={"decision": "promoted", "digest": "d"})
    line.move(line.read(NAME, found), [1], found)
    return found


def names(uri: str) -> list[str]:
    return [model.name for model in mlflow.MlflowClient(uri, uri).search_registered_models()]


def test_of_two_promotions_at_one_moment_one_wins_and_the_other_is_refused(uri: str, others: dict[int, Other]) -> None:
    """Both see the same champion, wait for each other at a start line, and promote."""
    history = [1]
    for other in others.values():
        other.say(f"race({uri!r}, {ROUNDS})")
    for _ in range(ROUNDS):
        for other in others.values():
            assert other.hear() == "ready"
        for other in others.values():
            other.say("go")
        said = {version: other.hear() for version, other in others.items()}
        [winner] = [version for version, words in said.items() if words == "won"]
        [lost] = [words for version, words in said.items() if version != winner]
        history.append(winner)
        assert f"it is version {winner}" in lost
        assert "run the same command again" in lost
        assert line.read(NAME, uri) == Line(NAME, winner, tuple(history))
        for other in others.values():
            other.say("next")
    assert [other.hear() for other in others.values()] == ["0", "0"]
    assert names(uri) == [NAME]


def test_a_promotion_is_refused_where_another_came_while_it_packaged(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(version: object, tracking_uri: str | None) -> str:
        promotion.promote(NAME, 3, uri, bento="b:3")
        return "b:2"

    monkeypatch.setattr(promotion, "package_version", meanwhile)
    with pytest.raises(InputError, match=r"the champion was version 1 .* it is version 3"):
        promotion.promote(NAME, 2, uri, instead_of=[1])
    assert line.read(NAME, uri) == Line(NAME, 3, (1, 3))
    promotion.promote(NAME, 2, uri, bento="b:2")
    assert line.read(NAME, uri) == Line(NAME, 2, (1, 3, 2))


@pytest.mark.parametrize("uri", ["server"], indirect=True)
@pytest.mark.parametrize(
    ("move", "start", "end"),
    [
        ("promotion.promote(NAME, 2, {uri!r}, bento='b:2')", (1, 2, 1), (1, 2, 1, 2)),
        ("promotion.rollback(NAME, {uri!r})", (2, 1, 2), (2, 1)),
        ("promotion.retire(NAME, None, 'of another format', {uri!r})", (1, 2, 1, 3), (1, 2, 1)),
    ],
)
def test_a_process_that_is_killed_at_any_write_leaves_a_line_that_goes_on(
    uri: str,
    others: dict[int, Other],
    monkeypatch: pytest.MonkeyPatch,
    move: str,
    start: tuple[int, ...],
    end: tuple[int, ...],
) -> None:
    """SIGKILL after the first write to the registry, after the second, until the move has none left."""
    monkeypatch.setattr(lease, "PATIENCE_S", 0.2)
    client = mlflow.MlflowClient(uri, uri)
    seen = set()
    for writes in range(1, 12):
        line.move(line.read(NAME, uri), start, uri)
        client.delete_model_version_tag(NAME, "3", line.RETIRED_TAG)
        others[2].say(f"killed_after({writes}, lambda: {move.format(uri=uri)})")
        ended = others[2].hear()
        left = line.read(NAME, uri)
        assert left in (Line(NAME, start[-1], start), Line(NAME, end[-1], end))
        seen.add(left.history)
        if ended == "0":
            break
        assert ended == str(-signal.SIGKILL)
        # The next one finds the lease of the dead, and goes on from whichever line stands.
        promotion.promote(NAME, 4, uri, bento="b:4")
        assert line.read(NAME, uri) == Line(NAME, 4, (*left.history, 4))
        assert json.loads(client.get_registered_model(NAME).tags["champions"]) == [*left.history, 4]
        assert names(uri) == [NAME]
    assert writes > 5
    assert seen == {start, end}


def test_a_process_that_was_only_slow_writes_no_more(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "PATIENCE_S", 0.3)
    client = mlflow.MlflowClient(uri, uri)
    with lease.held(client, NAME) as slow:
        slow.require(client)
        promotion.promote(NAME, 2, uri, bento="b:2")  # waits, and takes over
        with pytest.raises(RegistryError, match="stopped for more than"):
            slow.require(client)
        with lease.held(client, NAME) as other:
            assert other.number == slow.number
    assert names(uri) == [NAME]
    assert line.read(NAME, uri).champion == 2
