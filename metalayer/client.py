"""A client of the service: rows and sequences as Arrow, tried again where the server is busy or restarts.

Scoring changes nothing on the server, so that a request can be sent again without harm. The only
file that imports httpx.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from metalayer import environment, network
from metalayer.errors import ConfigError, ServiceError
from metalayer.release.answer import BASE, note_of, row_columns
from metalayer.release.contract import SEQUENCE, RequestError, score_fields
from metalayer.release.variant_contract import VARIANT
from metalayer.schema import evidence_column
from metalayer.serving.arrow import MEDIA_TYPE

_AGAIN = (429, 502, 503)
_LONGEST_WAIT_S = 15.0

logger = logging.getLogger(__name__)


class MetaLayerClient:
    """Asks one server; use it as a context manager, or call `close`. Threads may share it."""

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 150.0, patience_s: float = 120.0
    ) -> None:
        """Connects at the first request.

        Args:
            url: of the server, as in http://127.0.0.1:3000.
            api_key: sent as bearer token.
            timeout_s: for one answer.
            patience_s: how long a request is tried again while the server is busy, restarts or cannot be reached.

        Raises:
            ConfigError: a URL or a key that is none, or variables of a proxy or of certificates that cannot be used.
        """
        url, key = environment.url(url, "server"), (api_key or "").strip()
        if mistake := environment.unsendable(key):
            raise ConfigError(f"API key: {mistake}")
        proxy = network.proxy_of(url, network.HTTPX)
        try:
            self._http = httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=timeout_s,
                trust_env=False,  # `network` has read it: httpx fails on variables that are not for this address
                proxy=proxy.url if proxy else None,
                verify=network.context(url),
            )
        except (httpx.InvalidURL, ValueError) as error:
            given = environment.without_password(url)
            raise ConfigError(f"server: given {given!r}: {error}; needed is {environment.SERVER_URL}") from None
        self._url = environment.without_password(url) + (f" by {proxy}" if proxy else "")
        self._patience_s = patience_s
        self._limits: dict[str, int] = {}
        self._asking = threading.Lock()
        self._closed = threading.Event()
        self._last = threading.local()

    @property
    def digest(self) -> str:
        """Of the model that gave the last answer in this thread; empty before the first."""
        return getattr(self._last, "digest", "")

    @property
    def note(self) -> str:
        """How that model answered, in words, of the last scores in this thread; empty before the first."""
        return getattr(self._last, "note", "")

    def __enter__(self) -> MetaLayerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connections; a thread that waits for the server to come back ends with ServiceError."""
        self._closed.set()
        self._http.close()

    def model(self) -> dict[str, Any]:
        """What answers: name, version, digest, feature schema, metrics ...

        Raises:
            ServiceError: the server does not answer.
            RequestError: the server refuses.
        """
        answer: dict[str, Any] = self._send("GET", "/v1/model").json()
        return answer

    def score_variants(
        self,
        variants: Sequence[str],
        *,
        distance: int = 50,
        context: int = 0,
        mask: bool = False,
        flanks: str = "N",
    ) -> pl.DataFrame:
        """What variants do to splice sites, where the server has a reference and an annotation.

        More variants than the server takes at once are sent in parts.

        Args:
            variants: as in chr3:42600000:G:A, 3-42600000-G-A or chr3:g.42600000G>A.
            distance: positions to either side that are looked at.
            context: positions to either side from which consequences are read, where these are more.
            mask: gains of annotated sites and losses of others do not count.
            flanks: letters outside a gene: N, or real.

        Returns:
            A row for each variant, gene and model, or with the reason in `skipped`: the variant's number in `variants`
            and the columns of "Table of variants" in docs/formats.md.

        Raises:
            ServiceError: the server does not answer, scores no variants, or its model changed between two parts.
            RequestError: no variants, or options that cannot be.
        """
        path = f"/v1/score_variants?distance={distance}&context={context}&mask={str(mask).lower()}&flanks={flanks}"
        count, start, answers, digests = self._taken().get("max_variants", 1), 0, list[pl.DataFrame](), set[str]()
        while start < len(variants) or not answers:
            part = list(variants[start : start + count])
            try:
                found = self._ask(path, _stream(pa.table({VARIANT: pa.array(part, pa.string())})))
            except RequestError as error:
                if error.status == 413 and len(part) > 1:
                    count = len(part) // 2
                    continue
                raise _further_down(error, start) from None
            answers.append(found.with_columns(pl.col(VARIANT) + start))
            digests.add(self.digest)
            start += count
        if len(digests) > 1:
            raise ServiceError(f"server {self._url}: its model changed while variants were scored; ask again")
        return pl.concat(answers)

    def score(self, rows: pl.DataFrame | pa.Table | Sequence[Mapping[str, Any]], *, base: bool = False) -> pl.DataFrame:
        """Calibrated probabilities of rows, and the base scores beside them where they are wanted.

        More rows than the server takes at once, by number, by bytes or by time, are sent in parts.

        Args:
            rows: columns of the score contract (`metalayer.release.contract`), n rows.
            base: whether base_donor, base_acceptor, base_neither, as they were sent, follow.

        Returns:
            Float32 columns donor, acceptor, neither (meta model, calibrated), and those of `base`; n rows in the same
            order.

        Raises:
            ServiceError: the server does not answer, or not with base scores, or its model changed between two parts.
            RequestError: rows that break the contract, with all mistakes in `details`; of those that go in parts, with
                the mistakes of the first part that has any.
        """
        if not isinstance(rows, pl.DataFrame):
            given = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows])
            rows = pl.DataFrame(pl.from_arrow(given))
        limits, path = self._taken(), f"/v1/score?{BASE}=true" if base else "/v1/score"
        answers: list[pl.DataFrame] = []
        digests: set[str] = set()
        start, count = 0, limits["max_rows"]
        while start < len(rows) or not answers:
            part = rows[start : start + count]
            body = _stream(part.to_arrow(compat_level=pl.CompatLevel.oldest()))  # newer text would go with all its rows
            if len(body) > limits["max_body_bytes"] and len(part) > 1:
                count = len(part) // 2
                continue
            try:
                answers.append(self._ask(path, body))
            except RequestError as error:
                if error.status == 413 and len(part) > 1:  # more than can be answered there in time
                    count = len(part) // 2
                    continue
                raise _further_down(error, start) from None
            if missing := set(row_columns(base)) - set(answers[-1].columns):
                raise ServiceError(
                    f"server {self._url}: no {', '.join(sorted(missing))} in its answer; it is older than this client: "
                    "ask without base"
                )
            digests.add(self.digest)
            start += count
        if len(digests) > 1:
            raise ServiceError(f"server {self._url}: its model changed while {len(rows)} rows were scored; ask again")
        return pl.concat(answers)

    def score_sequence(
        self,
        sequence: str,
        base_scores: NDArray[np.floating] | Mapping[str, NDArray[np.floating]] | None = None,
        evidence: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> pl.DataFrame:
        """Base and calibrated probabilities at every position of a transcript-sense sequence.

        Args:
            sequence: letters (L), ACGTN.
            base_scores: (L, 3), donor, acceptor, neither of the base model at exon bases; of several base models by
                name, of those that do not tell donors from acceptors (L, 1), P(spliced); None asks the server's own.
            evidence: that the model reads, (L,) by name, NaN where missing.

        Returns:
            Float32 columns base_donor to meta_neither, L rows, at exon bases.

        Raises:
            ServiceError: the server does not answer.
            RequestError: input that breaks the contract, with all mistakes in `details`.
        """
        columns: dict[str, Any] = {SEQUENCE: [sequence]}
        if base_scores is not None:
            given = base_scores if isinstance(base_scores, Mapping) else {"": base_scores}
            fields = score_fields({name: np.asarray(scores) for name, scores in given.items()})
            columns |= {name: [values] for name, values in fields.items()}
        for name, values in (evidence or {}).items():
            numbers = pa.array(np.asarray(values, np.float32), from_pandas=True)  # NaN is null
            columns[evidence_column(name)] = pa.array([numbers.to_pylist()], pa.list_(pa.float32()))
        return self._ask("/v1/score_sequence", _stream(pa.table(columns)))

    def _taken(self) -> dict[str, int]:
        """What a request may hold, asked for once."""
        with self._asking:
            if not self._limits:
                limits = self.model().get("limits")
                if not limits:
                    raise ServiceError(f"server {self._url}: /v1/model says nothing of its limits; is it metalayer's?")
                self._limits = limits
            return self._limits

    def _ask(self, path: str, body: bytes) -> pl.DataFrame:
        answer = pa.ipc.open_stream(self._send("POST", path, body).content).read_all()
        self._last.note = note_of(answer.schema.metadata)
        return pl.DataFrame(pl.from_arrow(answer))

    def _send(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        """One answer, tried for again with growing pauses."""
        headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE} if body is not None else {}
        until, pause = time.monotonic() + self._patience_s, 0.25
        while True:
            asked = 0.0
            try:
                response = self._http.request(method, path, content=body, headers=headers)
            except httpx.TransportError as error:
                what = f"server {self._url}: {error or type(error).__name__}"
            else:
                if response.is_success:
                    self._last.digest = response.headers.get("x-model-digest", "")
                    return response
                what, details = _refusal(response)
                if response.status_code not in _AGAIN:
                    if response.is_client_error:
                        raise RequestError(what, response.status_code, details)
                    raise ServiceError(f"server {self._url}: {response.status_code}: {what}")
                asked = _retry_after_s(response)
            wait = max(asked, pause * random.uniform(0.5, 1.0))  # noqa: S311
            if time.monotonic() + wait > until:
                raise ServiceError(f"{what}; gave up after {self._patience_s:g} s. Check that it runs: GET /readyz")
            logger.info("%s; trying again in %.1f s", what, wait)
            if self._closed.wait(wait):
                raise ServiceError(f"{what}; the client was closed")
            pause = min(2 * pause, _LONGEST_WAIT_S)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _further_down(error: RequestError, rows: int) -> RequestError:
    """The refusal of a part, with the rows as they count in the whole."""
    details = [d if d["row"] is None else {**d, "row": d["row"] + rows} for d in error.details]
    return RequestError(str(error), error.status, details)


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds that the server asks to wait, given as such or as a date; 0 where it asks for nothing."""
    after = response.headers.get("retry-after", "")
    if after.isdecimal():
        return float(after)
    try:
        return parsedate_to_datetime(after).timestamp() - time.time()
    except ValueError:
        return 0.0


def _refusal(response: httpx.Response) -> tuple[str, list[dict[str, Any]]]:
    """Message and details of an error, whoever wrote it."""
    try:
        found = response.json()
        return str(found["error"]), list(found["details"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}: {response.text[:200]}", []
