"""The settings of a server, from environment variables: a Bento is configured where it runs.

`METALAYER_SERVE_<NAME>`, as in METALAYER_SERVE_DEADLINE_S=30; an unknown name is an error, and an empty value counts
as not set.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from metalayer import environment as door
from metalayer.base.installed_tables import annotation_file
from metalayer.errors import ConfigError
from metalayer.release.contract import Limits
from metalayer.settings.evidence import Source, absolute_sources, files_of, named_sources, written_sources
from metalayer.settings.section import Section

PREFIX = "METALAYER_SERVE_"
LARGEST_AT_ONCE = 4
"""Bodies of the largest size that all requests of a worker together may come to."""
READING = 6
"""Times the bytes of the largest body that reading one takes beside it: text, its values, and columns of them."""
SUPERVISOR_BYTES, WORKER_BYTES = 350 * 2**20, 500 * 2**20
"""Of processes that answer nothing, with the libraries and models that they hold."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: by default BentoML and uvicorn leave its oldest ones only."""
BODY_GRACE_S = 5.0
"""Seconds in which a body may come as slowly as it likes."""


_SECRET: str = Field("", repr=False, exclude=True)
"""What no message and no listing of settings shows."""


class ServingSettings(Section):
    """What one worker of a server allows."""

    section: ClassVar[str] = "serve"

    workers: int | None = Field(None, ge=1)
    """Processes that answer, each with the model and one thread; None is one a core. With a GPU, 1 is enough."""
    device: str = Field("cpu", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """Where the model runs: `cpu`, `cuda`, `cuda:1` ..., `mps`, or `auto`."""
    max_body_bytes: int = Field(Limits.max_body_bytes, ge=1)
    """Bytes of a body, as sent and as decoded."""
    max_rows: int = Field(Limits.max_rows, ge=1)
    """Rows of a request."""
    max_sequence_bp: int = Field(Limits.max_sequence_bp, ge=1)
    """Letters of a sequence of which every position is scored."""
    max_concurrent: int = Field(32, ge=1)
    """Requests that a worker has in hand; one more is answered 429."""
    client_share: float = Field(0.5, gt=0, le=1)
    """Part of the places and bytes of a worker that one client may hold: an address, or a key where there are several
    keys. 1 where all clients come by one address, as that of a proxy."""
    threads: int = Field(1, ge=1)
    """Requests that a worker computes at the same moment; the others take turns."""
    fasta: Path | None = None
    """Reference, plain or packed by bgzip; with an annotation the server scores variants at /v1/score_variants."""
    annotation: Path | None = None
    """GTF, GFF3 or a gene table for /v1/score_variants; grch37 or grch38: that of a tool that is installed here."""
    weights: str = ""
    """Weights for /v1/score_variants of the base models that the served model reads, where they take any: `PATH`, or
    `NAME=PATH`, several separated by commas."""
    evidence: str = ""
    """Evidence that the served model reads, for /v1/score_variants: `NAME=PATH`, `NAME=PLUS,MINUS` for a file a strand
    or `NAME=none`, several separated by `;`. A sequence at /v1/score_sequence brings its own."""
    aliases: Path | None = None
    """Names of contigs for /v1/score_variants, where files and requests have different ones."""
    max_variants: int = Field(1000, ge=1)
    """Variants of a request."""
    deadline_s: float = Field(120.0, gt=0)
    """Seconds from a request's arrival to its answer; later it is answered 504."""
    drain_s: float = Field(5.0, ge=0)
    """Seconds between SIGTERM, when /readyz turns 503, and the end of listening."""
    registry_uri: str | None = None
    """MLflow service whose alias `champion` the server follows; None stays with the version it was packaged with."""
    standing: str = ""
    """What a model is that was asked for and is not followed as champion; `metalayer serve` sets it, and every answer
    says it."""
    follow_every_s: float = Field(10.0, gt=0)
    """Seconds between two looks at that alias."""
    log_dir: Path | None = None
    """Folder for the request log (`request_log.py`); None keeps none."""
    log_queue_bytes: int = Field(2**26, ge=1)
    """Bytes of requests that wait to be logged in a worker; what comes beyond is dropped and counted."""
    log_every_s: float = Field(60.0, gt=0)
    """Seconds until a request is in a file of that folder."""
    log_max_bytes: int = Field(2**30, ge=1)
    """Bytes of all files of that folder; beyond, the oldest go. The newest one stays whatever its size."""
    log_key: str = _SECRET
    """Key of the sequence hashes in that folder; empty is a random one, made there once."""
    api_keys: str = _SECRET
    """Keys that clients may give as `Authorization: Bearer KEY`, separated by commas; none: no key is asked for."""
    api_keys_file: Path | None = None
    """File with further keys, one a line."""
    metrics_key: str = _SECRET
    """Key for /metrics and nothing else; with API keys, those open it too. None of either: no key is asked for."""
    metrics_port: int | None = Field(None, ge=1, le=65535)
    """Port for /metrics alone, which the port of requests then does not have; None serves it there."""
    metrics_host: str = "127.0.0.1"
    """Address to listen on at that port; 0.0.0.0 is all of this machine."""
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
        names = [name for name in given if name.startswith(PREFIX)]
        values = {name.removeprefix(PREFIX).lower(): value for name in names if (value := door.get(name, given))}
        for name in ("api_keys", "metrics_key"):
            if keys := given.get(f"{PREFIX}{name.upper()}"):
                values[name] = keys  # blanks alone are no keys, and a mistake
        return cls(**values)

    def environment(self) -> dict[str, str]:
        """Paths and addresses as variables for processes that run in other folders."""
        names = (
            *("registry_uri", "log_dir", "api_keys_file", "ssl_certfile", "ssl_keyfile"),
            *("fasta", "annotation", "aliases", "weights", "evidence"),
        )
        return {f"{PREFIX}{name.upper()}": str(value) for name in names if (value := getattr(self, name))}

    @property
    def limits(self) -> Limits:
        """What one request may hold."""
        return Limits(self.max_body_bytes, self.max_rows, self.max_sequence_bp)

    @property
    def variant_limits(self) -> Limits:
        """What a request for variants may hold."""
        return Limits(self.max_body_bytes, self.max_variants)

    @property
    def scores_variants(self) -> bool:
        """Whether there is a reference and an annotation to score variants on."""
        return self.fasta is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies, rows and answers that all requests of a worker together may hold."""
        return LARGEST_AT_ONCE * self.max_body_bytes

    @property
    def held_bytes_of_client(self) -> int:
        """Those of one client: its share, and at least one of the largest bodies, coded and decoded."""
        return max(int(self.client_share * self.held_bytes), 2 * self.max_body_bytes)

    @property
    def places_of_client(self) -> int:
        """Requests of one client that a worker has in hand."""
        return max(1, int(self.client_share * self.max_concurrent))

    def memory_bytes(self, workers: int) -> int:
        """Memory that a server takes at most, with a model of our default size and the one before it.

        Measured: `SUPERVISOR_BYTES` and `WORKER_BYTES` of processes that answer nothing, and what reading a body takes
        beside what requests hold.
        """
        reading = self.threads * READING * self.max_body_bytes
        log = self.log_queue_bytes if self.log_dir else 0
        return SUPERVISOR_BYTES + workers * (WORKER_BYTES + self.held_bytes + reading + log)

    @property
    def default_host(self) -> str:
        """Where to listen if nothing says: without keys anyone who reaches the port is answered."""
        return "0.0.0.0" if self.all_keys() else "127.0.0.1"  # noqa: S104

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

    def check_variant_files(self) -> None:
        """See that what variants are scored on is there.

        Raises:
            ConfigError: it is not.
            InputError: an annotation that is named by its build, and no installed tool has its table.
        """
        annotation = self.annotation and annotation_file(self.annotation)
        for name, path in (("fasta", self.fasta), ("annotation", annotation), ("aliases", self.aliases)):
            if path is not None and not path.is_file():
                raise ConfigError(f"serve.{name}: given {path}, which is no file")
        for path in files_of(self.evidence_sources):
            if not path.is_file():
                raise ConfigError(f"serve.evidence: given {path}, which is no file")

    def all_keys(self) -> tuple[str, ...]:
        """All API keys.

        Raises:
            ConfigError: a file that cannot be read, holds no key, or one that no client can send.
        """
        keys = [key.strip() for key in self.api_keys.split(",") if key.strip()]
        if self.api_keys_file is not None:
            where = f"serve.api_keys_file {self.api_keys_file}"
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8-sig").split("\n")
            except (OSError, ValueError) as error:
                raise ConfigError(f"{where}: {error}") from None
            found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not found:
                raise ConfigError(f"{where}: holds no key; write one a line")
            if odd := next((mistake for key in found if (mistake := door.unsendable(key))), None):
                raise ConfigError(f"{where}: {odd}")
            keys += found
        return tuple(keys)

    def metrics_keys(self) -> tuple[str, ...]:
        """Keys that open /metrics; errors as in `all_keys`."""
        return (*self.all_keys(), self.metrics_key) if self.metrics_key else self.all_keys()

    @field_validator("api_keys")
    @classmethod
    def _are_keys(cls, given: str) -> str:
        keys = [key.strip() for key in given.split(",") if key.strip()]
        if given and not keys:
            raise ValueError("api_keys: holds no key; give keys, separated by commas, or leave it empty")
        if odd := next((mistake for key in keys if (mistake := door.unsendable(key))), None):
            raise ValueError(f"api_keys: {odd}")
        return given

    @field_validator("metrics_key")
    @classmethod
    def _is_key(cls, given: str) -> str:
        key = given.strip()
        if given and not key:
            raise ValueError("metrics_key: holds no key; give one, or leave it empty")
        if odd := door.unsendable(key):
            raise ValueError(f"metrics_key: {odd}")
        return key

    @field_validator("registry_uri")
    @classmethod
    def _is_mlflow(cls, uri: str | None) -> str | None:
        try:
            return None if uri is None else door.mlflow_uri(uri, "registry_uri")
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("log_dir", "api_keys_file", "ssl_certfile", "ssl_keyfile", "fasta", "annotation", "aliases")
    @classmethod
    def _is_absolute(cls, path: Path | None, known: ValidationInfo) -> Path | None:
        try:
            return None if path is None else door.absolute(path, str(known.field_name))
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("weights")
    @classmethod
    def _are_absolute(cls, given: str) -> str:
        found = []
        for one in filter(None, map(str.strip, given.split(","))):
            name, named, path = one.rpartition("=")
            try:
                found.append(f"{name}{named}{door.absolute(Path(path), 'weights')}")
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return ",".join(found)

    @field_validator("evidence")
    @classmethod
    def _is_named(cls, given: str) -> str:
        try:
            sources = named_sources(filter(None, map(str.strip, given.split(";"))), "evidence")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return ";".join(written_sources(absolute_sources(sources)))

    @property
    def evidence_sources(self) -> dict[str, Source]:
        """Evidence by name."""
        return named_sources(filter(None, self.evidence.split(";")), "evidence")

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if (self.fasta is None) != (self.annotation is None):
            there, missing = ("fasta", "annotation") if self.fasta else ("annotation", "fasta")
            raise ValueError(f"{there}: variants are scored on both; give {missing} too")
        given = {"weights": self.weights, "evidence": self.evidence, "aliases": self.aliases}
        if self.fasta is None and (named := [name for name, value in given.items() if value]):
            raise ValueError(f"{named[0]}: is for variants; give fasta and annotation too")
        return self
