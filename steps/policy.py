"""Caching and retries of steps.

A run-wide `enable_cache: true` overrides what a step says of itself, so a step that must never be
answered from the cache also has a cache key that never comes back.
"""

from __future__ import annotations

import uuid

from zenml.config import CachePolicy, StepRetryConfig

NEVER_CACHED = CachePolicy(cache_func="steps.policy.new_key")
SERVICE_RETRY = StepRetryConfig(max_retries=2, delay=2, backoff=2)
"""For a step that ends in calls to MLflow or BentoML: three attempts, after 2 s and 4 s."""
LONG_RETRY = StepRetryConfig(max_retries=1, delay=2, backoff=2)
"""For a step that also computes for long."""
AT_ONCE_RETRY = StepRetryConfig(max_retries=2)
"""For a step that only computes: a pod that was lost is replaced."""


def new_key() -> str:
    """A cache key that no other run has."""
    return uuid.uuid4().hex
