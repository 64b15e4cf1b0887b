"""Keys that open a server or its /metrics."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


class Keys:
    """Keys of which one is needed, as digests; where there is none, none is asked for."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def admit(self, authorization: str) -> bool:
        """Whether a request with this header may enter; the time it takes says nothing about the keys."""
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip() if scheme.lower() == "bearer" else "")
        return not self._digests or any([hmac.compare_digest(given, known) for known in self._digests])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
