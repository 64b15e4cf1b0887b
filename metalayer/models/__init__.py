"""The network and its parts."""

from metalayer.models.meta import MetaSpliceModel

__all__ = ["MetaSpliceModel"]
