"""One process at a time on a registered name, whichever machines they run on.

MLflow changes aliases and tags without a condition, so two processes that look and then write both believe that
they were first. But a name is registered once: of all that create it, one succeeds, on a server as on SQLite. So who
wants to write creates `<name> (champion moves <n>)` and deletes it afterwards. It has no version, so no list of ours
shows it.

A process that dies leaves its lease. Who waits takes over once the same leases have stood for `PATIENCE_S` of its own
clock (clocks of machines are not compared), by creating the next number, which again one alone can. Whoever has
created looks who else is there, and withdraws before any lease that it did not see dead; so of two leases that were
made at once one at least sees the other. A process that was only slow finds its lease gone, and writes no more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from metalayer.errors import RegistryError
from metalayer.registry.tracking import pages

PATIENCE_S = 30.0
"""A lease that has not changed for so long belongs to a process that died: what is done under one takes a second."""
_OWNER_TAG = "owner"
_PAUSE_S = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """A lease as it stands in the registry: its number, and the owner's mark, which no other lease ever has."""

    name: str
    number: int
    owner: str

    @property
    def registered(self) -> str:
        """The name that stands for it in MLflow."""
        return f"{_prefix(self.name)}{self.number})"

    def require(self, client: mlflow.MlflowClient) -> None:
        """Make sure, before something is written, that this process holds it still.

        Raises:
            RegistryError: another process took it for dead.
        """
        if self not in _standing(client, self.name):
            raise RegistryError(
                f"{self.name}: this process was stopped for more than {PATIENCE_S:g} s while it moved the champion, "
                "and another took its place; see `metalayer registry list`, and run the same command again"
            )


@contextlib.contextmanager
def held(client: mlflow.MlflowClient, name: str) -> Iterator[Lease]:
    """Hold the lease on a registered name; waits until it is free, or its owner dead.

    Raises:
        MlflowException: whatever the service raises.
    """
    owner = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex}"
    watched: frozenset[Lease] = frozenset()
    since = time.monotonic()
    while True:
        there = _standing(client, name)
        if there != watched:
            watched, since = there, time.monotonic()
        if not there or time.monotonic() - since > PATIENCE_S:
            mine = Lease(name, 1 + max((lease.number for lease in there), default=0), owner)
            if _create(client, mine):
                if _standing(client, name) - {mine} <= there:
                    break
                _delete(client, mine)
        time.sleep(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311
    try:
        for dead in there:
            logger.warning("%s: a process died while it moved the champion (%s); this one goes on", name, dead.owner)
            _delete(client, dead)
        yield mine
    finally:
        _delete(client, mine)


def _prefix(name: str) -> str:
    return f"{name} (champion moves "


def _standing(client: mlflow.MlflowClient, name: str) -> frozenset[Lease]:
    """All leases on a name."""
    prefix = _prefix(name)
    found = set()
    for model in pages(client.search_registered_models, filter_string=f"name LIKE '{prefix}%'"):
        number = model.name.removeprefix(prefix).removesuffix(")")
        if model.name.startswith(prefix) and number.isdecimal():  # to LIKE, _ is any letter
            found.add(Lease(name, int(number), model.tags.get(_OWNER_TAG, "")))
    return frozenset(found)


def _create(client: mlflow.MlflowClient, lease: Lease) -> bool:
    """Whether this process was the one that created it."""
    try:
        client.create_registered_model(
            lease.registered,
            tags={_OWNER_TAG: lease.owner},
            description=f"While this stands, one process moves the champion of {lease.name}. It goes by itself; what a "
            "process that died has left, the next one removes.",
        )
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return lease in _standing(client, lease.name)  # an answer that was lost on the way, and sent for again
    return True


def _delete(client: mlflow.MlflowClient, lease: Lease) -> None:
    """Delete a lease, where it stands still: its number may be another's by now."""
    if lease not in _standing(client, lease.name):
        return
    try:
        client.delete_registered_model(lease.registered)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
