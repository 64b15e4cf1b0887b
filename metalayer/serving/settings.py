"""The settings of a server, from environment variables: a Bento is configured where it runs.

`METALAYER_SERVE_<NAME>`, as in METALAYER_SERVE_DEADLINE_S=30; an unknown name is an error.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from metalayer.config import Section
from metalayer.errors import ConfigError
from metalayer.serving.schemas import Limits

PREFIX = "METALAYER_SERVE_"
BODY_GRACE_S = 5.0
"""Seconds in which a body may come as slowly as it likes."""


class ServingSettings(Section):
    """What one worker of a server allows."""

    section: ClassVar[str] = "serve"

    workers: int | None = Field(None, ge=1)
    """Processes that answer, each with the model and one thread; None is one a core. With a GPU, 1 is enough."""
    device: str = "cpu"
    """Where the model runs: `cpu`, `cuda`, `cuda:1` ..., `mps`, or `auto`."""
    max_body_bytes: int = Field(Limits.max_body_bytes, ge=1)
    """Bytes of a body, as sent and as decoded."""
    max_rows: int = Field(Limits.max_rows, ge=1)
    """Rows of a request."""
    max_sequence_bp: int = Field(Limits.max_sequence_bp, ge=1)
    """Letters of a sequence of which every position is scored."""
    max_concurrent: int = Field(32, ge=1)
    """Requests that a worker has in hand; one more is answered 429."""
    threads: int = Field(1, ge=1)
    """Requests that a worker computes at the same moment; the others take turns."""
    deadline_s: float = Field(120.0, gt=0)
    """Seconds from a request's arrival to its answer; later it is answered 504."""
    drain_s: float = Field(5.0, ge=0)
    """Seconds between SIGTERM, when /readyz turns 503, and the end of listening."""
    registry_uri: str | None = None
    """MLflow service whose alias `champion` the server follows; None stays with the version it was packaged with."""
    follow_every_s: float = Field(10.0, gt=0)
    """Seconds between two looks at that alias."""
    log_dir: Path | None = None
    """Folder for the request log (`monitoring/request_log.py`); None keeps none."""
    log_queue_bytes: int = Field(2**26, ge=1)
    """Bytes of requests that wait to be logged in a worker; what comes beyond is dropped and counted."""
    log_every_s: float = Field(60.0, gt=0)
    """Seconds until a request is in a file of that folder."""
    log_max_bytes: int = Field(2**30, ge=1)
    """Bytes of all files of that folder; beyond, the oldest go. The newest one stays whatever its size."""
    log_key: str = ""
    """Key of the sequence hashes in that folder; empty is a random one, made there once."""
    api_keys: str = ""
    """Keys that clients may give as `Authorization: Bearer KEY`, separated by commas; none: no key is asked for."""
    api_keys_file: Path | None = None
    """File with further keys, one a line."""
    metrics_key: str = ""
    """Key for /metrics and nothing else; with API keys, those open it too. None of either: no key is asked for."""
    min_body_rate: float = Field(1024.0, gt=0)
    """Bytes a second at which a body has to come, on average, after its first `BODY_GRACE_S`."""
    ssl_certfile: Path | None = None
    """Certificate, with those that vouch for it, in PEM; the server then speaks HTTPS."""
    ssl_keyfile: Path | None = None
    """Its private key; None where it is in the same file."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> ServingSettings:
        """Settings from `os.environ`, or from another mapping.

        Raises:
            ConfigError: all mistakes.
        """
        given = os.environ if environment is None else environment
        return cls(
            **{name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)}
        )

    @property
    def limits(self) -> Limits:
        """What one request may hold."""
        return Limits(self.max_body_bytes, self.max_rows, self.max_sequence_bp)

    def certificate(self) -> tuple[Path, Path] | None:
        """Files of certificate and private key, None without TLS.

        Raises:
            ConfigError: files that cannot be read or do not belong together.
        """
        if self.ssl_certfile is None:
            if self.ssl_keyfile is not None:
                raise ConfigError(f"serve.ssl_keyfile {self.ssl_keyfile}: give its certificate as ssl_certfile too")
            return None
        certificate, key = self.ssl_certfile.resolve(), (self.ssl_keyfile or self.ssl_certfile).resolve()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise ConfigError(
                f"serve.ssl_certfile {certificate}, ssl_keyfile {key}: {error}; needed are a certificate and its "
                "private key in PEM, without a password"
            ) from None
        return certificate, key

    def all_keys(self) -> tuple[str, ...]:
        """All API keys.

        Raises:
            ConfigError: a file that cannot be read or holds no key.
        """
        keys = [key.strip() for key in self.api_keys.split(",") if key.strip()]
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise ConfigError(f"serve.api_keys_file {self.api_keys_file}: {error}") from None
            found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not found:
                raise ConfigError(f"serve.api_keys_file {self.api_keys_file}: holds no key; write one a line")
            keys += found
        return tuple(keys)
