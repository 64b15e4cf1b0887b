"""Base models, the base-layer writer, and the simulator behind the demo."""

from metalayer.base.protocol import BaseModel, load_base_model

__all__ = ["BaseModel", "load_base_model"]
