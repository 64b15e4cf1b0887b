"""Every page of a search in MLflow, whose searches end after the first.

Filters name what they look for by its beginning (`name LIKE 'metalayer-%'`) or by an id of MLflow, never by a name
that somebody else chose: MLflow 3.17 has no way to write a quote within quotes, so a name with both kinds cannot be
asked for at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """What a search finds, page after page.

    Args:
        search: of a client, as in `search_model_versions`, in an order that writing does not change.
        **arguments: of it.
    """
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return
