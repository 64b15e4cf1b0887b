"""What the service counts, beside BentoML's own requests and seconds; BentoML's /metrics shows both.

The only file that imports prometheus_client, which gathers the counts of all workers.
"""

from __future__ import annotations

from prometheus_client import Counter

SCORED_ROWS = Counter("metalayer_rows", "Rows scored by /v1/score.")
LETTERS = Counter("metalayer_letters", "Letters scored by /v1/score_sequence.")
INTERRUPTED = Counter("metalayer_interrupted", "Requests that were not finished, by reason.", ["reason"])
SWAPS = Counter("metalayer_swaps", "Moves of the alias champion, by what came of them.", ["outcome"])
LOGGED = Counter("metalayer_log_rows", "Rows for the request log: written, dropped (queue full), failed.", ["outcome"])
