"""The contract under the name by which models that are registered import it.

MLflow runs the file that was registered with a model, in a process that may have imported this package before.
"""

from metalayer.release.answer import NOTE, WAY
from metalayer.release.contract import validate_columns

__all__ = ["NOTE", "WAY", "validate_columns"]
